"""How a command meets its user: one line for whatever can be mended, and no chatter of libraries."""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from metake.errors import MetakeError

if TYPE_CHECKING:
    from metake.models.load import Loaded


@contextmanager
def command(name: str) -> Iterator[None]:
    """The body of a program of this name, or as `@command(name)` its `main`.

    Warnings become notes on stderr. Whatever a user can mend ends the program with one line there and
    exit code 2.
    """
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(f"{name}: note: {message}", file=sys.stderr)
        try:
            yield
        except (MetakeError, torch.OutOfMemoryError) as error:
            memory = "out of GPU memory; lower --batch, or --set max_tokens=1024 where there is --set"
            print(f"{name}: error: {error if isinstance(error, MetakeError) else memory}", file=sys.stderr)
            sys.exit(2)


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


def model_options(
    parser: argparse.ArgumentParser, default: str | None = "demo", *, chat: bool = False
) -> None:
    """The options of a script that say which model; `chosen_model` loads it.

    Args:
        default: its name; None where one has to be given.
        chat: whether the script can put its prompts into conversations.
    """
    from metake.models.load import DTYPES

    parser.add_argument(
        "--model", default=default, required=default is None, help="name, folder, .gguf file or hub name"
    )
    parser.add_argument(
        "--modules", type=Path, help="JSON file with the module names of a family that is not known"
    )
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument("--device", help="default: a GPU if there is one")
    parser.set_defaults(chat=False)
    if chat:
        parser.add_argument(
            "--chat", action="store_true",
            help="prompts are a user's turns of a conversation, by the model's chat template",
        )  # fmt: skip


def chosen_model(args: argparse.Namespace) -> Loaded:
    """The model that `model_options` asked for.

    Raises:
        MetakeError: it cannot be loaded.
    """
    from metake.models.load import load

    return load(args.model, dtype=args.dtype, device=args.device, modules=args.modules, chat=args.chat)
