"""Write the tables of settings, methods and options into docs/, and the names that a shell completes, from the code.

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

from metake.cli import app
from metake.commands.completion import NAMES
from metake.commands.describe import describe_options
from metake.files import write_json
from metake.methods.settings import describe_settings, setting_names
from metake.methods.table import METHODS, describe_methods
from metake.models.known import KNOWN

DOCS = Path(__file__).resolve().parents[1] / "docs"
TABLES = {
    "settings.md": describe_settings,
    "methods.md": describe_methods,
    "command-line.md": lambda: describe_options(app),
}


def replace_table(text: str, table: str) -> str:
    """`text` with the table of the same head replaced."""
    lines = text.splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if line == table.splitlines(keepends=True)[0])
    after = next((i for i in range(first, len(lines)) if not lines[i].startswith("|")), len(lines))
    return "".join([*lines[:first], table, *lines[after:]])


def completed_names() -> dict[str, list[str]]:
    """Names that a shell completes, which `metake.commands.completion` reads without model libraries."""
    models = [known.name for known in KNOWN if known.name not in ("FOLDER", "FILE.gguf")]
    return {"models": models, "methods": list(METHODS), "settings": sorted(setting_names())}


@command("describe")
def main() -> None:
    options().parse_args()
    for name, describe in TABLES.items():
        path = DOCS / name
        path.write_text(replace_table(path.read_text(encoding="utf-8"), describe()), encoding="utf-8")
    write_json(NAMES, completed_names())


if __name__ == "__main__":
    main()
