"""Options that scripts and commands have in common, and the values that they select."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from metake.errors import MetakeError
from metake.files import check_writable, read_text
from metake.phases import phase
from metake.shipped import DTYPES

if TYPE_CHECKING:
    from metake.geometry.statistics import Statistics
    from metake.methods.base import Method
    from metake.models.editable import EditableModel


MOST_LAYERS = 10_000  # largest range of layers; every model has fewer


class Parser(argparse.ArgumentParser):
    """Options of a script; an invalid one is an error of one line.

    Args:
        description: text of the help.
    """

    def __init__(self, description: str | None) -> None:
        super().__init__(description=description, formatter_class=argparse.RawTextHelpFormatter)

    def error(self, message: str) -> NoReturn:
        """End the parsing.

        Args:
            message: error of an option.

        Raises:
            MetakeError: always.
        """
        raise MetakeError(message.removeprefix("argument "))


def show_help(options: Callable[[], Parser]) -> None:
    """End the program with its help if its arguments ask for it.

    Scripts call this before they import model libraries, which takes seconds.

    Args:
        options: function that builds the options.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        options().parse_args(["--help"])


def at_least(low: int) -> Callable[[str], int]:
    """Type of an option: whole numbers from a lowest one.

    Args:
        low: the lowest number.

    Returns:
        A function from the option's text to the number.
    """

    def number(text: str) -> int:
        """Number of an option.

        Args:
            text: value of the option.

        Returns:
            The number.

        Raises:
            argparse.ArgumentTypeError: it is too low.
        """
        if (value := int(text)) < low:
            raise argparse.ArgumentTypeError(f"must be at least {low}, got {value}")
        return value

    return number


def positive(text: str) -> float:
    """Type of an option: a finite number above 0.

    Args:
        text: value of the option.

    Returns:
        The number.

    Raises:
        argparse.ArgumentTypeError: it is not above 0.
    """
    if not 0 < (value := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {value:g}")
    return value


def output_folder(text: str | Path) -> Path:
    """Type of an option: a folder that can be written; another one raises a `MetakeError`.

    Args:
        text: value of the option.

    Returns:
        Path of the folder.
    """
    path = output_path(text)
    check_writable(path, folder=True)
    return path


def output_path(text: str | Path) -> Path:
    """Type of an option: a path that is not empty. An unset shell variable gives an empty one.

    Args:
        text: value of the option.

    Returns:
        The path.

    Raises:
        MetakeError: it is empty.
    """
    if not str(text).strip():
        raise MetakeError("--out: the path is empty; name a place, or . for the current folder")
    return Path(text)


def model_options(
    parser: argparse.ArgumentParser, default: str | None = "demo", *, chat: bool = False
) -> None:
    """Options of a script that select the model; `chosen_model` loads it.

    Args:
        parser: options of the script; they are added to it.
        default: name of the model; None makes the option mandatory.
        chat: add `--chat`, for a script with prompts.
    """
    parser.add_argument(
        "--model", default=default, required=default is None, help="name, folder, .gguf file or hub name"
    )
    parser.add_argument(
        "--modules", type=Path, help="JSON file with the module names of a family that is not known"
    )
    parser.add_argument(
        "--dtype", default="float32", choices=DTYPES, help="of the weights; default: %(default)s"
    )
    parser.add_argument("--device", help="default: a GPU if there is one")
    parser.set_defaults(chat=None)
    if chat:
        parser.add_argument(
            "--chat",
            action="store_true",
            default=False,
            help="put prompts into the model's chat template, as user turns",
        )


def chosen_model(args: argparse.Namespace) -> EditableModel:
    """Model that the options of `model_options` select; one that cannot be loaded raises a `MetakeError`.

    Args:
        args: values of the options.

    Returns:
        The model.
    """
    from metake.models.load import load

    with phase(f"load {args.model}"):
        return load(args.model, dtype=args.dtype, device=args.device, modules=args.modules, chat=args.chat)


def parse_numbers(text: str, option: str) -> list[float]:
    """Numbers of an option such as `--factors 0.1,1,10`, all above 0.

    Args:
        text: value of the option.
        option: name of the option, for the error line.

    Returns:
        The numbers.

    Raises:
        MetakeError: one is not a number, or not above 0.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise MetakeError(f"{option} {text}: write numbers, as in 0.1,1,10") from error
    if not all(0 < number < math.inf for number in numbers):
        raise MetakeError(f"{option} {text}: all have to be above 0")
    return numbers


def parse_layers(text: str) -> list[int]:
    """Layers of a text such as `4,5,6` or `4-8`.

    Args:
        text: the text.

    Returns:
        The layers, in the order given.

    Raises:
        MetakeError: the text is something else.
    """
    unreadable = MetakeError(f"layers: cannot read {text!r}; write 4,5,6 or 4-8")
    try:
        parts = [part.partition("-") for part in text.split(",")]
        ranges = [(int(first), int(last or first)) for first, _, last in parts]
    except ValueError as error:
        raise unreadable from error
    if not all(first <= last < first + MOST_LAYERS for first, last in ranges):
        raise unreadable
    return [layer for first, last in ranges for layer in range(first, last + 1)]


def find_statistics(
    model: EditableModel, methods: Iterable[Method], stats: Path | None, text: Path | None
) -> Statistics | None:
    """Statistics of all layers that some methods need them for: of a file, else of a text, else of the included text.

    For a method that needs moments of gradients, those of the included text are beside the statistics of a file.

    Args:
        model: the model.
        methods: the methods.
        stats: file, folder or repository of statistics; see `read_statistics`.
        text: file of a text to collect them from.

    Returns:
        The statistics; None if no method needs them.

    Raises:
        MetakeError: both sources are given; or a file cannot be read, or its statistics are of another model or lack a layer.
    """
    from metake.statistics_cache import statistics_for

    if stats is not None and text is not None:
        raise MetakeError("--text: --stats has statistics already; give one of the two")
    needing = [method for method in methods if method.needs_statistics]
    if not needing:
        return None
    layers = tuple(sorted({layer for method in needing for layer in method.layers}))
    given = None if text is None else read_text(text)
    gradients = any(method.needs_gradients for method in needing)
    with phase("statistics"):
        return statistics_for(model, layers=layers, text=given, source=stats, gradients=gradients)
