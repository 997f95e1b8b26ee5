"""MQuAKE: one or more rewrites per case, and multi-hop questions whose answer follows from all of them."""

from __future__ import annotations

from dataclasses import replace

from metake.data.fields import Fields
from metake.data.groups import probe_of
from metake.data.readers.base import Reader
from metake.data.record import Record
from metake.requests import EditRequest

GROUP = "multi_hop"


def _rewrite(fields: Fields) -> Record:
    """The record of one rewrite; its question is the rephrased prompt."""
    known = fields.content.get("target_true") is not None
    true = fields.inside("target_true").target("str") if known else ""
    question = fields.optional("question")
    target = fields.inside("target_new").target("str")
    return Record(
        fields.request(fields.text("prompt"), fields.text("subject"), target, EditRequest),
        question,
        ground_truth=true,
        target_true=true,
        rephrases=(question,) if question else (),
    )


def read(fields: Fields) -> tuple[Record, ...]:
    """The records of a case, one per rewrite; the last one has the questions.

    Args:
        fields: the fields of the entry.

    Returns:
        the records, in the order of the rewrites.
    """
    rewrites = fields.content.get(fields.name_of("requested_rewrite"))
    if not isinstance(rewrites, list) or not rewrites:
        fields.problem(": requested_rewrite must be a list with at least one object")
        return ()
    records = []
    for rewrite in rewrites:
        if not isinstance(rewrite, dict):
            fields.problem(": requested_rewrite must be a list of objects")
            return ()
        records.append(_rewrite(fields.inner(rewrite)))
    answers = [fields.answers("new_answer"), fields.answers("new_answer_alias")]
    flat = [answer for names in answers for answer in names]
    probes = [probe for q in fields.texts("questions") for probe in probe_of(fields, GROUP, q, flat)]
    return (*records[:-1], replace(records[-1], probes=tuple(probes)))


MQUAKE = Reader(
    "mquake",
    lambda entry: isinstance(entry.get("requested_rewrite"), list),
    read,
    "MQuAKE-CF, MQuAKE-T",
    frozenset(
        {
            "case_id",
            "answer",
            "answer_alias",
            "answer_extended",
            "single_hops",
            "new_single_hops",
            "orig",
        }
    ),
)
