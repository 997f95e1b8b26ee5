"""One edit with the prompts that evaluate it.

The request contains none of these prompts, so a target is never optimized on the prompts that evaluate it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from metake.errors import MetakeError
from metake.requests import EditRequest, check_texts

Kind = Literal["change", "keep"]


class Probe(NamedTuple):
    """A prompt of a named group, with its accepted answers.

    Attributes:
        group: name of the group, e.g. `Reasoning`.
        prompt: the complete prompt.
        answers: accepted answers, at least one; the first is scored with teacher forcing.
        kind: `change` if the edit should make the model give one of the answers, `keep` if it should leave the model's
            answer as it was.
    """

    group: str
    prompt: str
    answers: tuple[str, ...]
    kind: Kind = "change"


@dataclass(frozen=True)
class Record:
    """One edit and its evaluation prompts.

    Attributes:
        request: the edit request.
        rephrase: the same question in other words (generalization); empty if the file has none.
        locality, locality_answer: an unrelated question and its true answer (specificity); both may be empty.
        ground_truth: the old or true answer, for display; may be empty.
        same_subject: other prompts about the subject with their true answers.
        target_true: the target that the new one replaces, for CounterFact's metrics; empty if there is none.
        rephrases, neighbors: all paraphrases, and prompts about other subjects whose answer is `target_true`.
        generation_prompts: prompts for free generation about the subject.
        attribute: ids of the relation and of the new target (the key of reference texts); None if the file has none.
        probes: further prompts in named groups; tuples of a `Probe`'s fields are accepted.
        case: number of the entry, for records of one entry that are edited together; None for a record of its own.

    Example:
        >>> import metake
        >>> request = metake.EditRequest("Which city was {} born in?", "Niels Bohr", "Oslo")
        >>> metake.Record(request, rephrase="Where was Niels Bohr born?").rephrase
        'Where was Niels Bohr born?'
    """

    request: EditRequest
    rephrase: str = ""
    locality: str = ""
    locality_answer: str = ""
    ground_truth: str = ""
    same_subject: tuple[tuple[str, str], ...] = ()
    target_true: str = ""
    rephrases: tuple[str, ...] = ()
    neighbors: tuple[str, ...] = ()
    generation_prompts: tuple[str, ...] = ()
    attribute: tuple[str, str] | None = None
    probes: tuple[Probe, ...] = ()
    case: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "probes", tuple(checked(self.request.name, probe) for probe in self.probes))


def end_of_case(records: Sequence[Record], count: int) -> int:
    """Number of first records that contain no part of a case: records of one entry are edited together.

    Args:
        records: the records, in their order.
        count: wanted number.

    Returns:
        More than `count` if the last case needs them, and at most all.
    """
    end = min(count, len(records))
    while (
        0 < end < len(records)
        and records[end].case is not None
        and records[end].case == records[end - 1].case
    ):
        end += 1
    return end


def checked(name: str, fields: tuple[Any, ...]) -> Probe:
    """The probe of some fields.

    Args:
        name: name of the request, for messages.
        fields: the fields of a `Probe`, in its order; one answer may be a text.

    Returns:
        the probe.

    Raises:
        MetakeError: a field is missing, empty, or of another type.
    """
    try:
        probe = Probe(*fields)
        answers = (probe.answers,) if isinstance(probe.answers, str) else tuple(probe.answers)
        for key, texts in (("group", [probe.group]), ("prompt", [probe.prompt]), ("answers", answers)):
            check_texts(name, f"probe: {key}", texts)
    except TypeError as error:
        raise MetakeError(
            f"{name}: a probe must be (group, prompt, answers, kind), not {fields!r}"
        ) from error
    if probe.kind not in ("change", "keep"):
        raise MetakeError(f"{name}: probe: kind must be change or keep, not {probe.kind!r}")
    return probe._replace(answers=answers)
