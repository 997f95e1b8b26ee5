"""Options that scripts and commands have in common, and what they lead to."""

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
    from metake.models.load import EditableModel


MOST_LAYERS = 10_000  # that a range may name; no model has so many


class Parser(argparse.ArgumentParser):
    """The options of a script: whatever is wrong with them is one line."""

    def __init__(self, description: str | None) -> None:
        super().__init__(description=description, formatter_class=argparse.RawTextHelpFormatter)

    def error(self, message: str) -> NoReturn:
        raise MetakeError(message.removeprefix("argument "))


def show_help(options: Callable[[], Parser]) -> None:
    """End the program with its help if its arguments ask for it.

    Scripts call this before they import model libraries, which takes seconds.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        options().parse_args(["--help"])


def at_least(low: int) -> Callable[[str], int]:
    """The type of an option: whole numbers from `low` on."""

    def number(text: str) -> int:
        if (value := int(text)) < low:
            raise argparse.ArgumentTypeError(f"must be at least {low}, got {value}")
        return value

    return number


def positive(text: str) -> float:
    """The type of an option: a finite number above 0."""
    if not 0 < (value := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {value:g}")
    return value


def output_folder(text: str | Path) -> Path:
    """The type of an option: a folder that can be written.

    Raises:
        MetakeError: it cannot.
    """
    path = output_path(text)
    check_writable(path, folder=True)
    return path


def output_path(text: str | Path) -> Path:
    """The type of an option: a path that is not empty, as that of an unset shell variable is.

    Raises:
        MetakeError: it is.
    """
    if not str(text).strip():
        raise MetakeError("--out: the path is empty; name a place, or . for the current folder")
    return Path(text)


def model_options(
    parser: argparse.ArgumentParser, default: str | None = "demo", *, chat: bool = False
) -> None:
    """The options of a script that say which model; `chosen_model` loads it.

    Args:
        default: its name; None where one has to be given.
        chat: whether the script can put its prompts into conversations.
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
            help="prompts are a user's turns of a conversation, by the model's chat template",
        )


def chosen_model(args: argparse.Namespace) -> EditableModel:
    """The model that `model_options` asked for.

    Raises:
        MetakeError: it cannot be loaded.
    """
    from metake.models.load import load

    with phase(f"load {args.model}"):
        return load(args.model, dtype=args.dtype, device=args.device, modules=args.modules, chat=args.chat)


def parse_numbers(text: str, option: str) -> list[float]:
    """The numbers of an option such as `--factors 0.1,1,10`, all above 0.

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
    """`4,5,6` or `4-8` as numbers."""
    try:
        layers: list[int] = []
        for part in text.split(","):
            first, _, last = part.partition("-")
            begin, end = int(first), int(last or first)
            if not begin <= end < begin + MOST_LAYERS:
                raise ValueError(part)
            layers += range(begin, end + 1)
        return layers
    except ValueError as error:
        raise MetakeError(f"layers: cannot read {text!r}; write 4,5,6 or 4-8") from error


def find_statistics(
    loaded: EditableModel, methods: Iterable[Method], stats: Path | None, text: Path | None
) -> Statistics | None:
    """From a file that holds them, else collected from a text, else from the text that ships.

    Of all layers that some of the methods edit in a geometry made of them; None if there are none.

    Raises:
        MetakeError: a file cannot be read, or its statistics are of another model or lack a layer.
    """
    from metake.geometry.statistics import Statistics
    from metake.statistics_cache import statistics_for

    layers = tuple(sorted({layer for m in methods if m.needs_statistics for layer in m.layers}))
    if not layers:
        return None
    if stats is not None:
        with phase("statistics"):
            statistics = Statistics.load(stats)
            statistics.check(loaded.arch, layers, stats)
        return statistics
    given = None if text is None else read_text(text)
    with phase("statistics"):
        return statistics_for(loaded.arch, loaded.tokenizer, layers, text=given, progress=True)
