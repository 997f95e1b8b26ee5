"""Output of commands: one-line errors, notes, JSON documents, and quiet libraries."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from metake.errors import MetakeError
from metake.files import as_json
from metake.phases import log_phases
from metake.requests import visible

NO_PARTIAL_FILES = (
    "finished files are complete and no other file was changed; rerun the command to start again"
)
_interrupt_message = [NO_PARTIAL_FILES]


def set_interrupt_message(line: str) -> None:
    """Set the message for an interruption from now on.

    Args:
        line: what is saved, and how to resume.
    """
    _interrupt_message[0] = line


@contextmanager
def command(name: str) -> Iterator[None]:
    """Run a program of this name, as a context or as `@command(name)` on its `main`.

    Warnings are printed as notes, and phases as lines, on stderr. A `MetakeError` ends the program with one line and
    exit code 2, Ctrl-C with the line of `set_interrupt_message` and exit code 130.

    Args:
        name: name of the program, which begins its notes and errors.

    Yields:
        None: the program runs.
    """
    set_interrupt_message(NO_PARTIAL_FILES)
    log_phases(name)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that it cannot show is escaped, never fatal
            stream.reconfigure(errors="backslashreplace")
    quiet_libraries()
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(f"{name}: note: {message}", file=sys.stderr)
        try:
            yield
        except MetakeError as error:
            line = visible(str(error)).replace("\n", "\\n")
            print(f"{name}: error: {line}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print(f"\n{name}: interrupted: {_interrupt_message[0]}", file=sys.stderr)
            sys.exit(130)
        except OSError as error:  # of a disk, a network or a closed output
            place = f"{error.filename}: " if error.filename else ""
            print(f"{name}: error: {visible(f'{place}{error.strerror or error}')}", file=sys.stderr)
            discard_stdout()
            sys.exit(2)
        except Exception as error:
            if not out_of_memory(error):
                raise
            remedy = "lower --batch, or --set max_tokens=1024 where there is --set"
            print(f"{name}: error: out of GPU memory; {remedy}", file=sys.stderr)
            sys.exit(2)
        finally:
            log_phases(None)


def discard_stdout() -> None:
    """Drop the rest of stdout if it is closed; Python would otherwise fail again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "w", encoding="utf-8") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())


def out_of_memory(error: Exception) -> bool:
    """Whether an error is torch's for a full GPU; torch is not imported.

    Args:
        error: the error.

    Returns:
        Whether it is that error.
    """
    return "torch" in sys.modules and isinstance(error, sys.modules["torch"].OutOfMemoryError)


def quiet_libraries() -> None:
    """Silence the log of transformers, and its progress bars without a terminal, without importing it."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    in_log = not sys.stderr.isatty()
    if in_log:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if sys.modules.get("transformers"):
        logging = sys.modules["transformers"].utils.logging
        logging.set_verbosity_error()
        if in_log:
            logging.disable_progress_bar()


@contextmanager
def document(wanted: bool) -> Iterator[dict[str, Any]]:
    """Dictionary that the block fills, printed as one JSON document on stdout for `--json`.

    Within the block stdout is redirected to stderr. If the block fails before it fills the dictionary, stdout stays
    empty.

    Args:
        wanted: value of `--json`; without it nothing is redirected or printed.

    Yields:
        The dictionary, empty.
    """
    content: dict[str, Any] = {}
    try:
        with redirect_stdout(sys.stderr) if wanted else nullcontext():
            yield content
    finally:
        if wanted and content:
            print(as_json(content))


def tqdm_disable(progress: bool) -> bool | None:
    """Value of tqdm's `disable`, so that a bar is shown on a terminal and in a notebook, and nowhere else.

    Args:
        progress: whether a bar is wanted.

    Returns:
        True hides the bar, False shows it, None shows it on a terminal.
    """
    if not progress:
        return True
    return False if "ipykernel" in sys.modules else None


def draw_or_note(draw: Callable[[], Path]) -> list[Path]:
    """Path of a figure; if it cannot be drawn, a note on stderr. Call it after saving all results.

    Args:
        draw: writes the figure and returns its path.

    Returns:
        The path in a list; an empty list after a failure.
    """
    try:
        return [draw()]
    except Exception as error:  # the results are saved, so a failed figure is no error
        reason = " ".join(str(error).split())
        print(
            f"note: a figure was not drawn ({type(error).__name__}: {reason}); the results are saved",
            file=sys.stderr,
        )
        return []
