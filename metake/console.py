"""How a command meets its user: one line for whatever can be mended, and no chatter of libraries."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from metake.errors import MetakeError
from metake.requests import visible

NOTHING_HALF = "files that it had finished are whole, no other was changed; the same command starts again"
_if_interrupted = [NOTHING_HALF]


def if_interrupted(line: str) -> None:
    """What a command says of itself if it is interrupted from here on: what is saved, and how to resume."""
    _if_interrupted[0] = line


@contextmanager
def command(name: str) -> Iterator[None]:
    """The body of a program of this name, or as `@command(name)` its `main`.

    Warnings become notes on stderr. Whatever a user can mend ends the program with one line there and
    exit code 2, Ctrl-C with the line of `if_interrupted` and exit code 130.
    """
    if_interrupted(NOTHING_HALF)
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
            line = visible(str(error)).replace("\n", "\\n") if isinstance(error, MetakeError) else memory
            print(f"{name}: error: {line}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print(f"\n{name}: interrupted: {_if_interrupted[0]}", file=sys.stderr)
            sys.exit(130)


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
