"""Garbage collection of a program that imports much and runs one command.

Python looks for cyclic garbage each time that 700 objects were added, and among all objects at exit. The imports of torch and
transformers make about a million objects, none of them garbage.
"""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLD = 20_000  # added objects before a collection, while modules are imported
_usual: list[tuple[int, int, int]] = []


@contextmanager
def postponed_collection() -> Iterator[None]:
    """Context of a program's command: few collections until `resume_collection`, and none at exit.

    Without effect in a process that has frozen its objects itself.

    Yields:
        None: the command runs.
    """
    if gc.get_freeze_count():
        yield
        return
    atexit.register(gc.freeze)
    usual = gc.get_threshold()
    gc.set_threshold(THRESHOLD, *usual[1:])
    _usual.append(usual)
    try:
        yield
    finally:
        _usual.clear()
        gc.set_threshold(*usual)
        gc.unfreeze()


def resume_collection() -> None:
    """Collect as usual, but not among the objects made so far; without effect outside `postponed_collection`."""
    if _usual:
        gc.freeze()
        gc.set_threshold(*_usual.pop())
