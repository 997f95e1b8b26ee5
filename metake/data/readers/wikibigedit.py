"""WikiBigEdit, as published: questions of changed facts, the same by a persona, and a question of two hops."""

from __future__ import annotations

from metake.data.fields import Fields
from metake.data.groups import probe_of
from metake.data.readers.base import Reader
from metake.data.readers.facts import locality_of
from metake.data.record import Probe, Record


def read(fields: Fields) -> Record:
    """The record of an entry.

    Args:
        fields: the fields of the entry.

    Returns:
        the record.
    """
    target, rephrase = fields.target("ans"), fields.optional("rephrase")
    locality, answer = locality_of(fields, ("loc",), ("loc_ans",))
    probes: list[Probe] = []
    for group, prompt, wanted in (
        ("personas", fields.optional("personas"), target),
        ("multi_hop", fields.optional("mhop"), fields.answer("mhop_ans")),
    ):
        if prompt:
            probes += probe_of(fields, group, prompt, wanted)
    return Record(
        fields.request(fields.text("update"), fields.subject("subject"), target),
        rephrase,
        locality,
        answer,
        rephrases=(rephrase,) if rephrase else (),
        probes=tuple(probes),
    )


WIKIBIGEDIT = Reader(
    "wikibigedit",
    lambda entry: {"update", "ans"} <= set(entry),
    read,
    "WikiBigEdit",
    frozenset({"tag", "relation", "object", "relation_id", "object_id", "subject_id"}),
)
