"""Columns of a file under the names of the fields of a fact: `--columns prompt=question,target=answer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metake.errors import MetakeError
from metake.names import did_you_mean, unknown_name

FIELDS = (
    "prompt",
    "subject",
    "target",
    "target_new",
    "rephrase",
    "locality",
    "locality_answer",
    "ground_truth",
    "same_subject",
    "generation_prompts",
    "portability",
    "probes",
)
"""Fields that a column may stand for: those of `metake.data.readers.facts`."""
SYNONYMS = {"target": ("target_new",), "target_new": ("target",)}
"""Field -> other names of it, of which one file may have several."""


def parse_columns(text: str | None) -> dict[str, str]:
    """Field -> column, of `FIELD=COLUMN,FIELD=COLUMN`.

    Args:
        text: value of `--columns`; None for no columns.

    Returns:
        the columns; an unknown field raises a `MetakeError`.

    Raises:
        MetakeError: a part without a column.
    """
    columns: dict[str, str] = {}
    for part in (text or "").split(","):
        name, equals, column = (piece.strip() for piece in part.partition("="))
        if not part.strip():
            continue
        if not equals or not name or not column:
            raise MetakeError(
                f"--columns {part.strip()}: write FIELD=COLUMN, as in prompt=question,target=answer"
            )
        if name not in FIELDS:
            raise unknown_name("--columns", name, FIELDS)
        columns[name] = column
    return columns


def rename_columns(path: Path, entries: Sequence[Any], columns: Mapping[str, str]) -> list[Any]:
    """Entries whose columns have the names of the fields that they stand for.

    Args:
        path: the file, for messages.
        entries: its entries; the names of a table's columns are in lower case.
        columns: field -> column.

    Returns:
        the entries; a field of the file that has the name of a renamed one, or another name of it, is dropped.

    Raises:
        MetakeError: no entry has a column.
    """
    there = dict.fromkeys(name for entry in entries if isinstance(entry, dict) for name in entry)
    by_case = {name.lower(): name for name in there}
    found = {}
    for name, column in columns.items():
        actual = column if column in there else by_case.get(column.lower())
        if actual is None:
            near = did_you_mean(column, there)
            raise MetakeError(
                f"{path}: has no column {column!r}, which --columns names for {name}; "
                f"{near or 'it has ' + ', '.join(there)}"
            )
        found[name] = actual
    return [_renamed(entry, found) for entry in entries]


def _renamed(entry: Any, columns: Mapping[str, str]) -> Any:
    if not isinstance(entry, dict):
        return entry
    moved = {*columns.values(), *columns, *(other for name in columns for other in SYNONYMS.get(name, ()))}
    rest = {name: value for name, value in entry.items() if name not in moved}
    return {**{name: entry[column] for name, column in columns.items() if column in entry}, **rest}
