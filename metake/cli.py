"""The command line: `metake ask | edit | evaluate | stats | apply | models`; one file each in `metake/commands/`.

Over several GPUs: `torchrun --nproc-per-node 4 -m metake.cli stats ...`
"""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from metake import __version__
from metake.commands.apply import apply
from metake.commands.ask import ask
from metake.commands.edit import edit
from metake.commands.evaluate import evaluate
from metake.commands.models import models
from metake.commands.stats import stats
from metake.console import command
from metake.errors import MetakeError
from metake.processes import process_group

app = typer.Typer(
    help="Knowledge editing for language models, with a per-edit report of how much of the requested change the solver realizes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for each in (ask, edit, evaluate, stats, apply, models):
    app.command()(each)

# typer may carry its own copy of click, so its usage error is reached through typer
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


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
    if wanted:
        typer.echo(versions())
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_versions,
            is_eager=True,
            help="Versions of metake, torch, transformers.",
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. Invalid input gives one line on stderr and exit code 2."""
    with command("metake"):
        try:
            with process_group():
                code = app(prog_name="metake", standalone_mode=False)  # of an Exit; 130 of Ctrl-C
                if code == 130:
                    raise KeyboardInterrupt
                if isinstance(code, int) and code:
                    sys.exit(code)
        except UsageError as error:
            line = error.format_message()  # type: ignore[attr-defined]
            if not line:  # no command was named, and the help stands there already
                sys.exit(2)
            context = getattr(error, "ctx", None)
            where = "metake" if context is None else context.command_path
            raise MetakeError(f"{line.rstrip('.')}; see {where} --help") from error
        except typer.Abort as error:
            raise KeyboardInterrupt from error


if __name__ == "__main__":
    main()
