"""QAEdit: questions with a subject, a target and several unrelated questions."""

from __future__ import annotations

from metake.data.fields import Fields
from metake.data.groups import read_groups
from metake.data.readers.base import Reader
from metake.data.record import Record


def read(fields: Fields) -> Record:
    """The record of an entry; the first unrelated question is that of specificity, all are the group `locality`.

    Args:
        fields: the fields of the entry.

    Returns:
        the record.
    """
    probes = read_groups(fields, "locality", "keep")
    locality, answer = (probes[0].prompt, probes[0].answers[0]) if probes else ("", "")
    rephrase = fields.optional("rephrase")
    return Record(
        fields.request(fields.text("prompt"), fields.subject("subject"), fields.target("target")),
        rephrase,
        locality,
        answer,
        rephrases=(rephrase,) if rephrase else (),
        probes=probes,
    )


def _recognizes(entry: dict[str, object]) -> bool:
    locality = entry.get("locality")
    first = locality[:1] if isinstance(locality, list) else ()
    return "prompt" in entry and any(isinstance(part, dict) and "loc" in part for part in first)


QAEDIT = Reader("qaedit", _recognizes, read, "QAEdit", frozenset({"id", "source"}))
