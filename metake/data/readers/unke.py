"""UnKE and EditEverything: a question with a long answer, and questions about parts of it."""

from __future__ import annotations

from itertools import zip_longest

from metake.data.fields import Fields
from metake.data.groups import probe_of
from metake.data.readers.base import Reader
from metake.data.record import Record

GROUP = "sub_question"


def read(fields: Fields) -> Record:
    """The record of an entry. The format has no subjects.

    Args:
        fields: the fields of the entry.

    Returns:
        the record.
    """
    rephrase = fields.optional("para_question")
    questions, answers = fields.values("sub_question"), fields.values("sub_answer")
    return Record(
        fields.request(fields.text("question"), fields.subject("subject"), fields.target("answer")),
        rephrase,
        rephrases=(rephrase,) if rephrase else (),
        probes=tuple(
            probe
            for question, answer in zip_longest(questions, answers)
            for probe in probe_of(fields, GROUP, question, answer)
        ),
    )


UNKE = Reader(
    "unke",
    lambda entry: {"question", "answer"} <= set(entry) and not {"prompt", "src"} & set(entry),
    read,
    "UnKE, EditEverything",
    frozenset({"id", "category"}),
)
