"""Facts to be edited and the prompts that evaluate the edit, read from every format of docs/data.md."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from metake.data.columns import rename_columns
from metake.data.entries import read_entries
from metake.data.fields import SHOWN, Fields, is_missing, listed, misspelled, suggestion
from metake.data.hub import NAMES, find_dataset, load_dataset
from metake.data.readers.base import Reader
from metake.data.readers.table import all_readers, reader_named, recognize
from metake.data.record import Record as Record
from metake.data.record import end_of_case
from metake.errors import MetakeError
from metake.files import as_path
from metake.names import did_you_mean
from metake.requests import PLACEHOLDER, is_unicode, one_line
from metake.words import counted

MARKS = ("requested_rewrite", "src", "prompt")  # fields by which the most common formats are recognized
NO_SUBJECT = "no subject in the prompt"


@dataclass
class Reading:
    """What is read of a file, and what is left out of it.

    Attributes:
        where: the file or dataset.
        entries: number of its entries that were read.
        records: the records, in the file's order; several per entry of a format with cases.
        formats: format -> number of entries.
        problems: one line per problem, with the number of its record.
        left_out: reason -> number of entries that cannot be used.
        dropped: reason -> number of probes that cannot be used.
        unused: name of a field that is not used -> the name with a suggestion.
    """

    where: Path
    entries: int = 0
    records: list[Record] = field(default_factory=list)
    formats: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    unused: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """One line: number of records, and what is left out for which reason."""
        parts = [f"{counted(self.entries, 'record')}, {_counted(self.left_out, '')}"]
        if self.dropped:
            parts.append(_counted(self.dropped, "probes "))
        return "; ".join(parts)

    def without_subjects(self) -> Reading:
        """A copy without records whose prompt names no subject, which are counted as left out."""
        kept = [record for record in self.records if record.request.has_subject]
        lost = len(self.records) - len(kept)
        counts = self.left_out + Counter({NO_SUBJECT: lost}) if lost else self.left_out
        return replace(self, records=kept, left_out=counts)

    def plain(self) -> dict[str, Any]:
        """Numbers of entries and of what is left out, as plain values."""
        return {
            "entries": self.entries,
            "formats": dict(self.formats),
            "left_out": dict(self.left_out),
            "probes_left_out": dict(self.dropped),
        }


def _counted(reasons: Counter[str], what: str) -> str:
    """`3 left out: REASON (2), REASON (1)`."""
    named = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
    return f"{reasons.total()} {what}left out" + (f": {named}" if named else "")


def read_file(
    path: Path | str,
    limit: int | None = None,
    need: Sequence[str] = (),
    *,
    form: str | None = None,
    columns: Mapping[str, str] | None = None,
    subject_optional: bool = False,
) -> Reading:
    """The records of a file or a known dataset, with what is left out and why.

    Args:
        path: the file, or a name of `metake.data.hub.DATASETS`.
        limit: maximum number of entries and of records, from the first; None reads all. The last case is read to its end.
        need: attributes of `Record` that every record must have, e.g. `rephrase`.
        form: name of the format; by default it is recognized from each entry.
        columns: name of a field -> name of the column or field that the file has for it.
        subject_optional: also read records whose prompt names no subject; the whole prompt stands for it.

    Returns:
        the records and counts.

    Raises:
        MetakeError: no such file, nothing in it can be used, or a needed field is missing; the line names the first few
            problems.
    """
    if limit is not None and limit < 1:
        raise MetakeError(f"records: at least 1 is needed, got {limit}")
    path = as_path(path, "records")
    dataset = None if path.exists() else find_dataset(path)
    if dataset is None and not path.exists() and (near := did_you_mean(str(path), NAMES)):
        raise MetakeError(f"{path}: no such file; {near}")
    content = _without_ids(read_entries(path)) if dataset is None else load_dataset(dataset)
    if form is None and dataset is not None:
        form = dataset.reader
    if columns:
        content = rename_columns(path, content, columns)
        form = form or ("facts" if "prompt" in columns else None)
    readers = all_readers() if form is None else (reader_named(form),)
    reading = read_content(path, content[:limit], readers, subject_optional=subject_optional, need=need)
    if not reading.records:
        raise MetakeError(f"{path}: {listed(reading.problems)}; correct them as docs/data.md shows")
    if limit is not None:
        reading.records = reading.records[: end_of_case(reading.records, limit)]
    if reading.unused:
        warnings.warn(f"{path}: not used: {', '.join(list(reading.unused.values())[:SHOWN])}", stacklevel=3)
    return reading


def _without_ids(content: list[Any]) -> list[Any]:
    """Entries of an object of objects, each under an id; other entries unchanged."""
    first = content[0]
    if len(content) > 1 or not isinstance(first, dict) or recognize(first, all_readers()):
        return content
    parts = list(first.values())
    return parts if all(isinstance(part, dict) for part in parts) else content


def read_records(path: Path | str, limit: int | None = None, need: Sequence[str] = ()) -> list[Record]:
    """Records of a file. The file's name and fields determine the format (docs/data.md).

    Entries that cannot be used are left out, with a warning that counts them.

    Args:
        path: the file.
        limit: maximum number of records, from the first; None reads all. The last case is read to its end.
        need: attributes of `Record` that every record must have, e.g. `rephrase`.

    Returns:
        the records, in the file's order.

    Raises:
        MetakeError: no such file, no usable record, or records without a needed field; the line names the first few
            problems.

    Example:
        >>> import metake
        >>> from metake.shipped import ASSETS
        >>> len(metake.read_records(ASSETS / "world" / "test.json", limit=2))
        2
    """
    reading = read_file(path, limit, need)
    if reading.left_out or reading.dropped:
        first = f" (first: {reading.problems[0]})" if reading.problems else ""
        warnings.warn(f"{path}: {reading.summary}{first}", stacklevel=2)
    return reading.records


def parse_records(path: Path, content: Sequence[Any], need: Sequence[str] = ()) -> list[Record]:
    """Records of the entries of a file, all of which must be usable.

    Args:
        path: the file, for messages.
        content: its entries.
        need: as in `read_records`.

    Returns:
        the records.

    Raises:
        MetakeError: an entry is no record, or lacks a needed field; the line names the first few problems.
    """
    reading = read_content(path, content, all_readers(), need=need)
    require_all(reading)
    if reading.unused:
        warnings.warn(f"{path}: not used: {', '.join(list(reading.unused.values())[:SHOWN])}", stacklevel=3)
    return reading.records


def require_all(reading: Reading) -> None:
    """Refuse a file with entries that cannot be used.

    Args:
        reading: what was read of the file.

    Raises:
        MetakeError: there is such an entry; the line names the first few problems.
    """
    if reading.problems:
        raise MetakeError(f"{reading.where}: {listed(reading.problems)}; correct them as docs/data.md shows")


def read_content(
    path: Path,
    content: Sequence[Any],
    readers: Sequence[Reader],
    *,
    subject_optional: bool = False,
    need: Sequence[str] = (),
) -> Reading:
    """The records of some entries.

    Args:
        path: the file, for messages.
        content: its entries.
        readers: readers that an entry is compared with; a single one reads every entry.
        subject_optional: as in `read_file`.
        need: as in `read_file`.

    Returns:
        the records and counts.

    Raises:
        MetakeError: records without a needed field; the line names the first few.
    """
    reading, lacking = Reading(path, len(content)), list[str]()
    for index, entry in enumerate(content):
        fields = Fields.of(index, entry, reading.problems, reading.dropped, subject_optional=subject_optional)
        known, dropped = len(reading.problems) - (not isinstance(entry, dict)), reading.dropped.copy()
        records = _read_entry(fields, entry, readers, reading)
        if len(reading.problems) > known:
            reading.left_out[fields.reasons[0]] += 1
            reading.dropped = dropped  # probes of an entry that is left out are not counted again
            continue
        completed = [_completed(record) for record in records]
        if len(completed) > 1:
            completed = [replace(record, case=index) for record in completed]
        reading.records += completed
        lacking += [
            f"{fields.where} has no {name}, which is needed here"
            for record in completed
            for name in need
            if not getattr(record, name)
        ]
    if lacking:
        raise MetakeError(f"{path}: {listed(lacking)}; correct them as docs/data.md shows")
    return reading


def _read_entry(
    fields: Fields, entry: Any, readers: Sequence[Reader], reading: Reading
) -> tuple[Record, ...]:
    """The records of an entry; its problems are added to its fields."""
    if not isinstance(entry, dict):
        return ()
    reader = readers[0] if len(readers) == 1 else recognize(entry, readers)
    if reader is None:
        kinds = "neither 'prompt' nor 'src' (zsRE) or 'requested_rewrite' (CounterFact)"
        fields.problem(f" has {kinds}{misspelled(entry, MARKS)}", "of no known format")
        fields.text("subject")
        if "answers" not in entry:
            fields.text("target_new", "target")
        return ()
    if not is_unicode(json.dumps(entry, ensure_ascii=False)):
        fields.problem(" contains a lone surrogate; write the whole character")
        return ()
    found = reader.read(fields)
    reading.formats[reader.name] += 1
    for name, value in entry.items():
        known = name in fields.used or name in reader.ignored or name in reading.unused
        if not known and not is_missing(value):
            reading.unused[name] = one_line(name) + suggestion(name, fields.known)
    return found if isinstance(found, tuple) else (found,)


def _completed(record: Record) -> Record:
    """A record with the subject in place of `{}` in its prompts, and without an old target that equals the target."""
    request = record.request
    subject = request.subject

    def named(prompt: str) -> str:
        return (
            prompt if PLACEHOLDER not in prompt or subject in prompt else prompt.replace(PLACEHOLDER, subject)
        )

    return replace(
        record,
        rephrase=named(record.rephrase),
        rephrases=tuple(map(named, record.rephrases)),
        generation_prompts=tuple(map(named, record.generation_prompts)),
        same_subject=tuple((named(prompt), answer) for prompt, answer in record.same_subject),
        probes=tuple(p._replace(prompt=named(p.prompt)) if p.kind == "change" else p for p in record.probes),
        target_true="" if record.target_true == request.target_new else record.target_true,
    )
