"""RippleEdits: an edit as a sentence, and six criteria with tests.

An edit names its subject and target by Wikidata ids only. Their texts are read from the sentence: the relation's name
tells where its template ends. Every test query is a probe; condition queries are not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from metake.data.fields import Fields
from metake.data.groups import probe_of
from metake.data.readers.base import Reader
from metake.data.record import Kind, Probe, Record

CRITERIA: dict[str, Kind] = {
    "Logical_Generalization": "change",
    "Compositionality_I": "change",
    "Compositionality_II": "change",
    "Subject_Aliasing": "change",
    "Relation_Specificity": "keep",
    "Relation_Specifity": "keep",  # as the benchmark's README spells it
    "Forgetfulness": "keep",
}
TAIL = r" is (?:associated with|a member of|part of|the capital of)| has| won| plays in"
SENTENCE = re.compile(
    rf"(?P<subject>.+?)(?:{TAIL})?(?: is followed by| follows| is| are) (?P<target>.+?)\.?", re.DOTALL
)
CONNECTORS = re.compile(r"\b(?:of|in|by|which|children|award) ")


def split_sentence(sentence: str, relation: str) -> tuple[str, str, str] | None:
    """Prompt, subject and target of the sentence of an edit.

    Args:
        sentence: e.g. `The name of the mother of Ada is Bea.`
        relation: name of its relation, e.g. `MOTHER`.

    Returns:
        the prompt up to the target, the subject in it, and the target; None if the sentence has another form.
    """
    match = SENTENCE.fullmatch(sentence.strip())
    if match is None:
        return None
    head = match["subject"]
    template = {"the", *relation.lower().split("_")}  # words of the template, never the first of a subject
    begins = not head.startswith("The ") or relation in ("FOLLOWS", "FOLLOWED_BY")
    starts = [0] if begins else [found.end() for found in CONNECTORS.finditer(head)]
    subjects = [head[at:] for at in starts if head[at:].strip() and head[at:].split()[0] not in template]
    if not subjects:
        return None
    return sentence.strip()[: match.start("target")].strip(), subjects[0], match["target"]


def _queries(tests: Any) -> Iterator[dict[str, Any]]:
    """All test queries of a criterion."""
    for test in tests if isinstance(tests, list) else ():
        queries = test.get("test_queries") if isinstance(test, dict) else None
        yield from (
            (query for query in queries if isinstance(query, dict)) if isinstance(queries, list) else ()
        )


def _probes(fields: Fields) -> Iterator[Probe]:
    for name, kind in CRITERIA.items():
        if name in fields.content:
            for query in _queries(fields.content[fields.name_of(name)]):
                group = "Relation_Specificity" if kind == "keep" and name.startswith("Rel") else name
                yield from probe_of(fields, group, query.get("prompt"), query.get("answers"), kind)


def read(fields: Fields) -> Record:
    """The record of an entry.

    Args:
        fields: the fields of the entry.

    Returns:
        the record.
    """
    edit = fields.inside("edit")
    relation, sentence = edit.optional("relation"), edit.text("prompt")
    parts = split_sentence(sentence, relation) if sentence else None
    if sentence and parts is None:
        edit.problem(": edit: prompt is not a sentence with the subject and the target")
    prompt, subject, target = parts or ("", "", "")
    before = edit.content.get("previous_fact") or edit.content.get("original_fact")
    old = split_sentence(str(before.get("prompt", "")), relation) if isinstance(before, dict) else None
    truth = old[2] if old and old[0] == prompt else ""
    request = edit.request(prompt, subject, target)
    return Record(request, ground_truth=truth, target_true=truth, probes=tuple(_probes(fields)))


RIPPLE_EDITS = Reader(
    "ripple-edits",
    lambda entry: isinstance(entry.get("edit"), dict) and any(name in entry for name in CRITERIA),
    read,
    "RippleEdits: recent, random, popular",
    frozenset({"example_type"}),
)
