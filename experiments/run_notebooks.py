"""Run the tutorials of docs/tutorials/; a cell that fails ends the program with exit code 1.

python experiments/run_notebooks.py            # every notebook, each in an empty folder; nothing is written
python experiments/run_notebooks.py --write    # also saves the outputs in the notebooks, which the site shows
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metake.console import command
from metake.errors import MetakeError
from metake.extras import needs
from metake.options import Parser, show_help

TUTORIALS = Path(__file__).resolve().parents[1] / "docs" / "tutorials"
SECONDS = 600  # that one cell may take


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="notebooks, e.g. first-edit; default: all")
    parser.add_argument("--write", action="store_true", help="save the outputs in the notebooks")
    return parser


if __name__ == "__main__":
    show_help(options)


def chosen(names: list[str]) -> list[Path]:
    """Paths of the notebooks."""
    paths = {path.stem: path for path in sorted(TUTORIALS.glob("*.ipynb"))}
    for name in names:
        if name not in paths:
            raise MetakeError(f"{name}: no such notebook; there are {', '.join(paths)}")
    return [paths[name] for name in names or paths]


def kept(outputs: list[Any]) -> list[Any]:
    """Outputs without progress bars and logs, times and empty lines at the end."""
    shown = [output for output in outputs if output.get("name") != "stderr"]
    for output in shown:
        output.pop("execution_count", None)
        if output["output_type"] == "stream":
            output["text"] = re.sub(r"[ \t]+$", "", output["text"], flags=re.MULTILINE)
        else:
            output["metadata"] = {}
            if output["output_type"] == "execute_result":
                output["execution_count"] = None
    return shown


def run(path: Path, write: bool) -> float:
    """Run one notebook, and save its outputs if wanted.

    Returns:
        Seconds that it took.
    """
    with needs("docs"):
        import nbformat
        from nbclient import NotebookClient
    notebook = nbformat.read(path, as_version=4)
    os.environ["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ["PATH"]]
    )  # for `!metake`
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=resources).execute()
    if write:
        for cell in notebook.cells:
            cell.metadata = {}
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = kept(cell.outputs), None
        nbformat.write(notebook, path)
    return time.perf_counter() - began


@command("run_notebooks")
def main() -> int:
    args = options().parse_args()
    failed = 0
    for path in chosen(args.names):
        try:
            print(f"{path.stem}: {run(path, args.write):.0f} s", flush=True)
        except Exception as error:
            if type(error).__name__ != "CellExecutionError":
                raise
            failed += 1
            print(f"{path.stem}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
