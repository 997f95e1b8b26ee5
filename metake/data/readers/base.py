"""A reader: how a format is recognized, and what it makes of an entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from metake.data.fields import Fields
from metake.data.record import Record
from metake.errors import MetakeError

Function = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True)
class Reader:
    """A format of records.

    Attributes:
        name: name of the format, as in `--format`.
        recognizes: whether an entry, an object of named fields, has this format.
        read: the record of an entry, or the records of a case. Problems are added to the fields.
        about: the format in a few words.
        ignored: fields of the format that nothing here needs.
    """

    name: str
    recognizes: Callable[[dict[str, Any]], bool]
    read: Callable[[Fields], Record | tuple[Record, ...]]
    about: str
    ignored: frozenset[str] = frozenset()

    @classmethod
    def of_function(cls, name: str, function: Function) -> Reader:
        """The reader of a function of another package.

        Args:
            name: name of the format.
            function: entry -> `Record`, or a list of them; None for an entry of another format. A `MetakeError` leaves the
                entry out.

        Returns:
            the reader.
        """

        def recognizes(entry: dict[str, Any]) -> bool:
            try:
                return function(entry) is not None
            except MetakeError:
                return True

        def read(fields: Fields) -> tuple[Record, ...]:
            fields.used |= set(fields.content)
            try:
                found = function(fields.content)
            except MetakeError as error:
                fields.problem(f": {error}", str(error).partition(";")[0])
                return ()
            records = (found,) if isinstance(found, Record) else tuple(found or ())
            if not records or not all(isinstance(record, Record) for record in records):
                fields.problem(f": the reader {name} returns no Record", f"no record of the format {name}")
                return ()
            return records

        return cls(name, recognizes, read, f"reader {function.__module__}.{function.__qualname__}")
