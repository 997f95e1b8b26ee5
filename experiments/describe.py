"""Write the tables of settings and methods into docs/, from the code.

python experiments/describe.py
"""

from __future__ import annotations

from pathlib import Path

from metake.console import command
from metake.options import Parser, show_help


def options() -> Parser:
    """Options of the script."""
    return Parser(description=__doc__)


if __name__ == "__main__":
    show_help(options)

from metake.methods.settings import describe_settings
from metake.methods.table import describe_methods

DOCS = Path(__file__).resolve().parents[1] / "docs"
TABLES = {"settings.md": describe_settings, "methods.md": describe_methods}


def replace_table(text: str, table: str) -> str:
    """`text` with its first table replaced."""
    lines = text.splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    after = next((i for i in range(first, len(lines)) if not lines[i].startswith("|")), len(lines))
    return "".join([*lines[:first], table, *lines[after:]])


@command("describe")
def main() -> None:
    options().parse_args()
    for name, describe in TABLES.items():
        path = DOCS / name
        path.write_text(replace_table(path.read_text(encoding="utf-8"), describe()), encoding="utf-8")


if __name__ == "__main__":
    main()
