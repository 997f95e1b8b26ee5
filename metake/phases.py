"""Log lines for the phases of a command (load, statistics, plan, solve, evaluate), each with its duration.

Lines are printed only within a command whose stderr is not a terminal; a terminal has progress bars.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_program: str | None = None
_open: list[dict[str, float]] = []  # for each open phase: seconds spent in its inner phases


def log_phases(program: str | None) -> None:
    """Print phases from now on, prefixed by the program's name; None prints none.

    Args:
        program: prefix of the lines.
    """
    global _program
    _program = program
    _open.clear()


def note(text: str) -> None:
    """Print a line about what begins now, where phases are printed.

    Args:
        text: the line.
    """
    if _program is not None and not sys.stderr.isatty():
        print(f"{_program}: {text}", file=sys.stderr, flush=True)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Time a block as one phase. An inner phase is reported in the outer one's line; a failed phase prints nothing.

    Args:
        name: name of the phase.

    Yields:
        None: the phase runs.
    """
    inner: dict[str, float] = {}
    _open.append(inner)
    began = time.perf_counter()
    try:
        yield
    finally:
        if _open:
            _open.pop()
    seconds = time.perf_counter() - began
    if _open:
        _open[-1][name] = _open[-1].get(name, 0.0) + seconds
    elif _program is not None and not sys.stderr.isatty():
        parts = ", ".join(f"{part} {spent:.1f} s" for part, spent in inner.items())
        print(f"{_program}: {name}: {seconds:.1f} s" + (f" ({parts})" if parts else ""), file=sys.stderr)
