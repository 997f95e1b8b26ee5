"""All readers: those shipped here, and those of installed packages (entry points `metake.reader`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metake.data.fields import is_missing
from metake.data.readers.base import Reader
from metake.data.readers.counterfact import COUNTERFACT
from metake.data.readers.facts import FACTS, KNOWEDIT
from metake.data.readers.mquake import MQUAKE
from metake.data.readers.qaedit import QAEDIT
from metake.data.readers.ripple_edits import RIPPLE_EDITS
from metake.data.readers.unke import UNKE
from metake.data.readers.wikibigedit import WIKIBIGEDIT
from metake.data.readers.zsre import ZSRE, ZSRE_ALT
from metake.errors import MetakeError
from metake.names import unknown_name
from metake.packages import entry_points

SHIPPED = (
    RIPPLE_EDITS,
    MQUAKE,
    COUNTERFACT,
    ZSRE,
    ZSRE_ALT,
    WIKIBIGEDIT,
    QAEDIT,
    KNOWEDIT,
    FACTS,
    UNKE,
)
"""In the order in which an entry is compared with them: the most specific first."""


def all_readers() -> tuple[Reader, ...]:
    """The readers of installed packages, then those shipped here.

    Raises:
        MetakeError: an entry point is no reader.
    """
    found = []
    for point in entry_points(group="metake.reader"):
        value = point.load()
        if isinstance(value, Reader):
            found.append(value)
        elif callable(value):
            found.append(Reader.of_function(point.name, value))
        else:
            raise MetakeError(f"entry point {point.name} of metake.reader: {point.value} is no function")
    return (*found, *SHIPPED)


def reader_named(name: str) -> Reader:
    """The reader of a name of `--format`.

    An unknown name raises a `MetakeError`.

    Args:
        name: the name.

    Returns:
        the reader.
    """
    readers = {reader.name: reader for reader in reversed(all_readers())}
    if name not in readers:
        raise unknown_name("--format", name, [reader.name for reader in all_readers()])
    return readers[name]


def recognize(entry: Any, readers: Sequence[Reader]) -> Reader | None:
    """The first reader that recognizes an entry by the fields that have a value, else by all of its fields.

    A table of several formats has the fields of all of them, most of them null.

    Args:
        entry: an entry of a file.
        readers: the readers, in order.

    Returns:
        the reader; None if there is none.
    """
    if not isinstance(entry, dict):
        return None
    filled = {name: value for name, value in entry.items() if not is_missing(value)}
    fields = (filled, entry) if len(filled) < len(entry) else (entry,)
    return next((reader for part in fields for reader in readers if reader.recognizes(part)), None)
