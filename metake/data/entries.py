"""Entries of a file of records (JSON, JSON Lines, CSV or TSV); an entry is an object of named fields.

Messages count records, like lines, from 1.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from metake.errors import MetakeError
from metake.files import parse_json, read_text
from metake.requests import one_line

FORMATS = "a JSON list, JSON Lines, CSV or TSV"
TABLES = {".csv": ",;\t", ".tsv": "\t"}  # possible delimiters
LINES = (".jsonl", ".ndjson")


class Repeated(dict[str, Any]):
    """An object of a JSON text with a key that stands in it more than once."""

    key = ""


def keep_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a JSON text; `Repeated` if a key stands in it more than once.

    Args:
        pairs: the keys and values of the object, in the order of the text.

    Returns:
        the object, with the last value of a repeated key.
    """
    content = dict(pairs)
    if len(content) == len(pairs):
        return content
    names = [name for name, _ in pairs]
    repeated = Repeated(content)
    repeated.key = next(name for name in names if names.count(name) > 1)
    return repeated


def _repeated_key(content: Any) -> str | None:
    """The first key that stands more than once in an object of a JSON value; None if there is none."""
    if isinstance(content, Repeated):
        return content.key
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return next((key for part in parts if (key := _repeated_key(part)) is not None), None)


def read_entries(path: Path) -> list[Any]:
    """Entries of a file. Tables are recognized by the file's name, JSON and JSON Lines by the content.

    Args:
        path: the file.

    Returns:
        at least one entry; an entry of a table has its filled cells only.

    Raises:
        MetakeError: the file is missing, damaged, in another format, or empty.
    """
    if path.suffix.lower() in TABLES:
        entries = _read_table(path, TABLES[path.suffix.lower()])
    else:
        entries = _read_json(path)
    if not entries:
        raise MetakeError(f"{path}: holds no record; it must be {FORMATS} with at least one record")
    for index, entry in enumerate(entries, 1):
        if (key := _repeated_key(entry)) is not None:
            raise MetakeError(
                f"{path}: record {index} has the key {one_line(key)!r} more than once; keep one of them"
            )
    return entries


def _read_json(path: Path) -> list[Any]:
    text = read_text(path)
    try:
        content = parse_json(text, keep_repeated)
    except ValueError as error:
        if path.suffix.lower() in LINES or _is_lines(text):
            return _read_lines(path, text)
        raise MetakeError(
            f"{path}: not JSON ({_explained(error)}); it must be {FORMATS} (by its name, .csv or .tsv)"
        ) from error
    if isinstance(content, list):
        return content
    if isinstance(content, dict) and content:  # JSON Lines of one line
        return [content]
    raise MetakeError(f"{path}: must hold a list with at least one record")


def _explained(error: ValueError) -> str:
    """The message of an error; of a comma before a closing bracket, which JSON does not allow, its place."""
    if isinstance(error, json.JSONDecodeError):
        before = error.doc[: error.pos + 1].rstrip("]} \t\r\n")
        if before.endswith(",") and error.doc[len(before) :].lstrip()[:1] in ("]", "}"):
            line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1)
            return f"a comma before a closing bracket: line {line} column {column}; remove the comma"
    return str(error)


def _is_lines(text: str) -> bool:
    """Whether the first nonempty line is a JSON object."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    try:
        return isinstance(parse_json(first, keep_repeated), dict)
    except ValueError:
        return False


def _read_lines(path: Path, text: str) -> list[Any]:
    entries = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entries.append(parse_json(line, keep_repeated))
        except ValueError as error:
            raise MetakeError(
                f"{path}: line {number} is not JSON ({_explained(error)}); correct or remove it"
            ) from error
    return entries


def _read_table(path: Path, delimiters: str) -> list[Any]:
    text = read_text(path)
    header = text.lstrip("\r\n").split("\n", 1)[0]
    delimiter = max(delimiters, key=header.count)
    try:
        rows = [
            row
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
            if any(cell.strip() for cell in row)  # spreadsheets leave rows of empty cells
        ]
    except csv.Error as error:
        raise MetakeError(f"{path}: not CSV or TSV ({error}); correct its quotes and lines") from error
    names = [name.strip().lower() for name in rows[0]] if rows else []  # of fields, all in lower case
    named = [name for column, name in enumerate(names) if name or not _is_unused(rows[1:], column)]
    if "" in named or len(set(named)) < len(named):
        raise MetakeError(
            f"{path}: the header must name every column once, not {', '.join(map(repr, names))}"
        )
    entries = []
    for index, row in enumerate(rows[1:], 1):
        if len(row) != len(names):
            raise MetakeError(
                f"{path}: record {index} has {len(row)} cells, the header {len(names)}; "
                "quote cells that hold the delimiter, a quote or a line break"
            )
        cells = zip(names, row, strict=True)
        filled = [(name, cell) for name, cell in cells if name and cell.strip()]
        entries.append({name: _cell(path, index, name, cell) for name, cell in filled})
    return entries


def _is_unused(rows: list[list[str]], column: int) -> bool:
    """Whether a column without a name can be left out: the first one, in which pandas writes its index, or an empty one."""
    return column == 0 or not any(cell.strip() for row in rows for cell in row[column : column + 1])


def _cell(path: Path, index: int, name: str, cell: str) -> Any:
    """Value of a cell: a list or an object if the cell is one in JSON, else its text."""
    if not cell.strip().startswith(("[", "{")):
        return cell
    try:
        content = parse_json(cell, keep_repeated)
    except ValueError as error:
        if cell.strip().startswith(("['", '["', "[{", "{'", '{"')):
            raise MetakeError(
                f"{path}: record {index}: {name} looks like a list or an object but is not JSON ({error}); "
                "write it as JSON"
            ) from error
        return cell
    return cell if content == {} else content  # `{}` alone is the subject's place, not an object
