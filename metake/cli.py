"""The command line: `metake COMMAND`; one file each in `metake/commands/`.

Over several GPUs: `torchrun --nproc-per-node 4 -m metake.cli stats ...`
"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from metake import __version__
from metake.commands.apply import apply
from metake.commands.ask import ask
from metake.commands.config import ConfiguredCommand
from metake.commands.demo import demo
from metake.commands.drift import drift
from metake.commands.edit import edit
from metake.commands.evaluate import evaluate
from metake.commands.export import export
from metake.commands.figures import figures
from metake.commands.fit import fit
from metake.commands.locate import locate
from metake.commands.models import models
from metake.commands.playground import playground
from metake.commands.program import run_program
from metake.commands.stats import stats
from metake.commands.sweep import sweep
from metake.commands.tune import tune

HELP = "Knowledge editing for language models, with a per-edit report of how much of the requested change the solver realizes."

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
PANELS = {
    "Edit a model": (ask, edit, apply, export),
    "Compare and measure": (evaluate, locate, sweep, tune, fit, stats),
    "Theory": (drift, figures),
    "Overview": (models, demo, playground),
}
for panel, commands in PANELS.items():
    for each in commands:
        app.command(cls=ConfiguredCommand, rich_help_panel=panel)(each)


def versions() -> str:
    """Versions of metake, torch, transformers and Python, read without importing them."""
    lines = [f"metake {__version__}"]
    for package in ("torch", "transformers"):
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"{package}: not installed")
    return "\n".join([*lines, f"python {platform.python_version()}"])


def _show_versions(wanted: bool) -> None:
    """Print the versions and end the program, for `--version`."""
    if wanted:
        typer.echo(versions())
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version",
        callback=_show_versions,
        is_eager=True,
        help="Versions of metake, torch, transformers.",
    ),
]


@app.callback(help=HELP)
def options(version: Version = False) -> None:
    """Options before the command.

    Args:
        version: value of `--version`, whose callback prints the versions.
    """


def main() -> None:
    """Run the command line. Invalid input gives one line on stderr and exit code 2."""
    run_program("metake", app)


if __name__ == "__main__":
    main()
