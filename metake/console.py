"""How a command meets its user: one line for whatever can be mended, and no chatter of libraries."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from metake.errors import MetakeError


@contextmanager
def command(name: str) -> Iterator[None]:
    """The body of a program of this name, or as `@command(name)` its `main`.

    Warnings become notes on stderr. Whatever a user can mend ends the program with one line there and
    exit code 2.
    """
    import torch
    import transformers

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that it cannot show is escaped, never fatal
            stream.reconfigure(errors="backslashreplace")
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


def draw_or_note(draw: Callable[[], Path]) -> list[Path]:
    """The figure that `draw` writes; none, with a note, if it fails. To be called when all results are saved."""
    try:
        return [draw()]
    except Exception as error:  # a picture never stands between a user and the result
        reason = " ".join(str(error).split())
        print(
            f"note: a figure was not drawn ({type(error).__name__}: {reason}); the results are saved",
            file=sys.stderr,
        )
        return []
