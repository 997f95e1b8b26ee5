"""zsRE in MEND's format; the target is the first of `answers` (ROME, MEMIT), or `alt` (EasyEdit, LocFT)."""

from __future__ import annotations

from dataclasses import replace

from metake.data.fields import Fields
from metake.data.groups import probe_of
from metake.data.readers.base import Reader
from metake.data.readers.facts import locality_of
from metake.data.record import Record
from metake.requests import EditRequest


def _question(text: str) -> str:
    """A locality prompt with its question mark, which the format leaves out."""
    return text if not text or text.endswith(("?", ":", ".")) else text + "?"


def _record(fields: Fields, target: str, truth: str) -> Record:
    """The record of an entry with some target and true answer."""
    locality, answer = locality_of(fields, ("loc",), ("loc_ans",))
    return Record(
        fields.request(fields.text("src"), fields.subject("subject"), target, EditRequest.from_text),
        fields.optional("rephrase"),
        _question(locality),
        answer,
        truth,
        fields.pairs("same_subject"),
    )


def read(fields: Fields) -> Record:
    """The record of an entry with the first of `answers` as its target.

    Args:
        fields: the fields of the entry.

    Returns:
        the record.
    """
    known = len(fields.problems)
    target = fields.answer("answers")
    if not target and len(fields.problems) == known:
        if "answers" in fields.content:
            fields.problem(": answers is empty; its first entry is the target")
        else:
            fields.missing("answers")
    return _record(fields, target, fields.answer("pred"))


def read_alternative(fields: Fields) -> Record:
    """The record of an entry with `alt` as its target and the question that EasyEdit adds as `portability`.

    Args:
        fields: the fields of the entry.

    Returns:
        the record.
    """
    record = _record(fields, fields.target("alt"), fields.answer("answers"))
    hop = fields.content.get(fields.name_of("portability"))
    if not isinstance(hop, dict):
        return record
    probes = tuple(probe_of(fields, "portability", hop.get("New Question"), hop.get("New Answer")))
    return replace(record, probes=probes)


ZSRE = Reader(
    "zsre",
    lambda entry: "src" in entry,
    read,
    "zsRE (MEND, ROME); the target is the first of answers",
    frozenset({"alt", "cond", "id", "case_id"}),
)
ZSRE_ALT = Reader(
    "zsre-alt",
    lambda entry: False,  # the same fields as zsRE: only `--format` tells them apart
    read_alternative,
    "zsRE (EasyEdit, LocFT's zsre_3k); the target is alt",
    frozenset({"pred", "cond", "id", "case_id"}),
)
