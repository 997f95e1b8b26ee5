"""Options from a file, `--config FILE`, and the options of a command saved as such a file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from metake.commands.config_file import COMMAND, OPTIONS, OptionsFile
from metake.commands.evaluate_options import OF_METHODS
from metake.commands.option_types import OUTPUT
from metake.errors import MetakeError
from metake.files import write_json
from metake.names import unknown_name

NOT_SAVED = ("--config", "--out", "--overwrite", "--json")
# parameter that the command line gives -> parameters of the file that exclude it
REPLACED = {
    "requests": ("request", "subject", "target"),
    "request": ("requests",),
    "edited": OF_METHODS,
    "model": ("edited", "base"),
    "methods": ("edited", "base"),
    "alone": ("measure_every",),
    "measure_every": ("alone",),
    "factors": ("attenuations",),
    "attenuations": ("factors",),
}
SEPARATED = ",..."  # ends the metavar of an option that takes values separated by commas

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="TOML, YAML or JSON file of options, or a folder of earlier results; options of the command line override it.",
        rich_help_panel=OUTPUT,
    ),
]

SOURCE = "metake.options_file"  # in the context of a command
_given: ContextVar[dict[str, Any] | None] = ContextVar("given", default=None)


class ConfiguredCommand(TyperCommand):
    """A command whose option `--config`, if it has one, names a file of further options.

    The options of the file come before those of the command line, which therefore override them; values of a
    repeatable option are added to them. An option of the command line also replaces those of the file that exclude it.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments, after those of the file.

        Args:
            ctx: context of the command.
            args: arguments of the command line.

        Returns:
            What is left of them.

        Raises:
            BadParameter: a value of the command line that its option does not take.
            MetakeError: the file cannot be read, has an unknown option, or a value that its option does not take.
        """
        file = config_file(args)
        if file is None or "--config" not in known_options(self):
            return super().parse_args(ctx, args)
        values = self.make_parser(ctx).parse_args(list(args))[0]
        known = {option.name: name.removeprefix("--") for name, option in known_options(self).items()}
        given = {known[name]: value for name, value in values.items() if name in known}
        source = OptionsFile.read(file, str(self.name)).without(replaced_options(self, given))
        ctx.meta[SOURCE] = source, given
        words = list(option_words(source.options, self, source.path))
        try:
            return super().parse_args(ctx, [*words, *args])
        except typer.BadParameter as error:
            name = (getattr(error.param, "opts", None) or [""])[0].removeprefix("--")
            if name not in source.options or name in given:
                raise
            raise MetakeError(f"{source.path}: {name}: {error.message}") from error

    def invoke(self, ctx: Any) -> Any:
        """Run the command; meanwhile `save_options` saves the options that were given.

        Args:
            ctx: context of the command, with the values of its options.

        Returns:
            What the command returns.

        Raises:
            MetakeError: as the command; the line names the file if an option of the file is invalid.
        """
        token = _given.set({COMMAND: self.name, **given_options(self, ctx)})
        try:
            return super().invoke(ctx)
        except MetakeError as error:
            source, given = ctx.meta.get(SOURCE, (None, {}))
            if source is None or (line := source.blamed(str(error), given)) is None:
                raise
            raise MetakeError(line) from error
        finally:
            _given.reset(token)


def config_file(args: Sequence[str]) -> Path | None:
    """Value of the last `--config` of a command line.

    Args:
        args: arguments of the command.

    Returns:
        The path; None without the option.
    """
    found = None
    for place, word in enumerate(args):
        if word == "--":
            break
        if word == "--config" and place + 1 < len(args):
            found = args[place + 1]
        elif word.startswith("--config="):
            found = word.partition("=")[2]
    return None if found is None else Path(found)


def known_options(command: Any) -> dict[str, Any]:
    """Option -> its parameter.

    Args:
        command: the command.

    Returns:
        The options in the order of the help.
    """
    return {
        parameter.opts[0]: parameter for parameter in command.params if parameter.opts[0].startswith("--")
    }


def replaced_options(command: Any, given: Mapping[str, Any]) -> Iterator[str]:
    """Options that exclude those of the command line, which replace them.

    Args:
        command: the command.
        given: option of the command line without `--` -> its value.

    Yields:
        Options without `--`.
    """
    names = {option.name: name.removeprefix("--") for name, option in known_options(command).items()}
    for parameter, replaced in REPLACED.items():
        if names.get(parameter) in given:
            yield from (names[name] for name in replaced if name in names)


def option_words(options: Mapping[str, Any], command: Any, path: Path) -> Iterator[str]:
    """Arguments that stand for the options of a file.

    Args:
        options: option without `--` -> value.
        command: the command.
        path: the file, for errors.

    Yields:
        Words of a command line.

    Raises:
        MetakeError: an unknown option, or a value that no option can have.
    """  # noqa: DOC501 (unknown_name returns a MetakeError)
    known = {name.removeprefix("--"): option for name, option in known_options(command).items()}
    known.pop("config")
    for name, value in options.items():
        if name not in known:
            raise unknown_name(
                str(path), name, known, f"remove it; metake {command.name} --help explains each"
            )
        if value is not None:
            yield from words_of(known[name], value, f"{path}: {name}")


def words_of(option: Any, value: Any, where: str) -> Iterator[str]:
    """Arguments that give an option a value.

    Args:
        option: the option.
        value: a number, text or truth value; a list, or a mapping for `--set` and `--hparams`.
        where: begins the error line.

    Yields:
        Words of a command line.

    Raises:
        MetakeError: a value of another kind.
    """
    if option.is_flag:
        if not isinstance(value, bool):
            raise MetakeError(f"{where}: must be true or false, got {json.dumps(value, default=str)}")
        if value or option.secondary_opts:
            yield option.opts[0] if value else option.secondary_opts[0]
    elif option.multiple:
        if isinstance(value, Mapping):
            value = [f"{name}={plain_text(entry, where, nested=True)}" for name, entry in value.items()]
        for entry in value if isinstance(value, list) else [value]:
            yield from (option.opts[0], plain_text(entry, where))
    else:
        entries = value if isinstance(value, list) else [value]
        if isinstance(value, list) and not str(option.metavar).endswith(SEPARATED):
            raise MetakeError(f"{where}: takes one value, got a list of {len(value)}; give one")
        yield from (option.opts[0], ",".join(plain_text(entry, where) for entry in entries))


def plain_text(value: Any, where: str, nested: bool = False) -> str:
    """Text of a value on the command line.

    Args:
        value: the value.
        where: begins the error line.
        nested: whether lists and mappings are taken, as JSON.

    Returns:
        The text.

    Raises:
        MetakeError: neither a number nor a text.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool | list | dict) and not nested:
        raise MetakeError(
            f"{where}: must be a number, a text or a list of them, got {json.dumps(value, default=str)}"
        )
    return json.dumps(value) if isinstance(value, int | float | list | dict | None) else str(value)  # a date


def given_options(command: Any, context: Any) -> dict[str, Any]:
    """Options that were given on the command line or in a file, as such a file has them.

    Args:
        command: the command.
        context: its context.

    Returns:
        Option without `--` -> plain value.
    """
    found = {}
    for name, option in known_options(command).items():
        source = context.get_parameter_source(option.name)
        if source is not None and source.name == "COMMANDLINE" and name not in NOT_SAVED:
            value = context.params[option.name]
            plain = value if isinstance(value, bool | int | float | list) else str(value)
            found[name.removeprefix("--")] = list(value) if isinstance(value, tuple) else plain
    return found


def save_options(folder: Path) -> None:
    """Save the options of the running command in a folder of results, for `--config`.

    Args:
        folder: the folder.
    """
    if (given := _given.get()) is not None:
        write_json(folder / OPTIONS, given)
