"""A typer application as a program: usage errors in one line, exit codes, and scripts with one command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import typer

from metake.commands.config import ConfiguredCommand
from metake.commands.garbage import postponed_collection
from metake.console import command
from metake.errors import MetakeError
from metake.processes import process_group

# typer may carry its own copy of click, so its usage error is reached through typer
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def run_program(name: str, app: Callable[..., Any], arguments: Sequence[str] | None = None) -> None:
    """Run an application under this name. Invalid input gives one line on stderr and exit code 2.

    Args:
        name: name in errors and in the help.
        app: a typer application or a command of one.
        arguments: in place of those of the process.

    Raises:
        KeyboardInterrupt: the command was interrupted; `metake.console.command` turns it into exit code 130.
        MetakeError: a usage error, in one line; `metake.console.command` turns it into exit code 2.
    """
    with postponed_collection(), command(name):
        try:
            with process_group():
                # the code of an Exit; 130 of Ctrl-C
                code = app(arguments, prog_name=name, standalone_mode=False)
                if code == 130:
                    raise KeyboardInterrupt
                if isinstance(code, int) and code:
                    sys.exit(code)
        except UsageError as error:
            line = error.format_message()  # type: ignore[attr-defined]
            if not line:  # no command was named, and the help stands there already
                sys.exit(2)
            context = getattr(error, "ctx", None)
            where = name if context is None else context.command_path
            raise MetakeError(f"{line.rstrip('.')}; see {where} --help") from error
        except typer.Abort as error:
            raise KeyboardInterrupt from error


@dataclass(frozen=True)
class Script:
    """A command of `metake` as the `main` of a script, with the same options.

    Attributes:
        name: name of the script in its errors and its help.
        function: function of the command.
    """

    name: str
    function: Callable[..., None]

    @cached_property
    def command(self) -> Any:
        """The command with its options; `-h` also shows its help."""
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(cls=ConfiguredCommand, context_settings={"help_option_names": ["-h", "--help"]})(
            self.function
        )
        return typer.main.get_command(app)

    def __call__(self, arguments: Sequence[str] | None = None) -> None:
        """Run the command and exit with its code, if that is not 0.

        Args:
            arguments: in place of those of the process.
        """
        run_program(self.name, self.command, arguments)
