"""CounterFact in ROME's format: several paraphrases and neighbors, whose answer is the old target."""

from __future__ import annotations

from metake.data.fields import Fields
from metake.data.readers.base import Reader
from metake.data.record import Record
from metake.requests import EditRequest


def read(fields: Fields) -> Record:
    """The record of an entry.

    Args:
        fields: the fields of the entry.

    Returns:
        the record.
    """
    rewrite = fields.inside("requested_rewrite")
    target, old = rewrite.inside("target_new"), rewrite.inside("target_true")
    relation, target_id, true = rewrite.answer("relation_id"), target.answer("id"), old.target("str")
    rephrases, neighbors = fields.texts("paraphrase_prompts"), fields.texts("neighborhood_prompts")
    return Record(
        fields.request(rewrite.text("prompt"), rewrite.text("subject"), target.target("str"), EditRequest),
        rephrases[0] if rephrases else "",
        neighbors[0] if neighbors else "",
        true if neighbors else "",
        true,
        target_true=true,
        rephrases=rephrases,
        neighbors=neighbors,
        generation_prompts=fields.texts("generation_prompts"),
        attribute=(relation, target_id) if relation and target_id else None,
    )


COUNTERFACT = Reader(
    "counterfact",
    lambda entry: "requested_rewrite" in entry,
    read,
    "CounterFact (ROME)",
    frozenset({"case_id", "pararel_idx", "attribute_prompts"}),
)
