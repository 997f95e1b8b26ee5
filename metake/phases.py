"""Phases of a program (load, statistics, plan, solve, evaluate): a line in a log each, with its duration.

On a terminal bars show progress and no line is printed; in Python, outside of a command, nothing is.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_program: str | None = None
_open: list[dict[str, float]] = []  # of each phase that is under way: seconds of the phases within it


def log_phases(program: str | None) -> None:
    """Print phases from here on under the name of a program; None: print none."""
    global _program
    _program = program
    _open.clear()


@contextmanager
def phase(name: str) -> Iterator[None]:
    """A block that is one phase; a phase within another is a part of its line. One that fails has no line."""
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
