"""Edit records with their evaluation prompts: zsRE (MEND's format), CounterFact (the original and EasyEdit's).

A record is a request and the prompts that judge it. Requests carry none of those prompts, so what
a target is planned with can never be what it is judged by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metake.errors import MetakeError
from metake.files import read_json
from metake.requests import Request


@dataclass(frozen=True)
class Record:
    """One edit and its judges.

    Attributes:
        request: what is asked of the editor.
        rephrase: the same question in other words (generalisation).
        locality, locality_answer: an unrelated question and its true answer (specificity).
        truth: what the unedited model or the world says, for display; may be empty.
        same_subject: other prompts about the subject with their true answers.
        rival: the target that the new one replaces, for CounterFact's metrics; empty if there is none.
        rephrases, neighbours: all paraphrases, and prompts about other subjects whose answer is `rival`.
        generation_prompts: openings for free text about the subject.
        attribute: what the edit claims of the subject, as ids of the relation and of the new target (the key
            of reference texts); None if the file does not say.
    """

    request: Request
    rephrase: str
    locality: str
    locality_answer: str
    truth: str = ""
    same_subject: tuple[tuple[str, str], ...] = ()
    rival: str = ""
    rephrases: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    generation_prompts: tuple[str, ...] = ()
    attribute: tuple[str, str] | None = None


class Fields:
    """A record's fields, with complaints that name file, record and field."""

    def __init__(self, path: Path, index: int, content: Any) -> None:
        if not isinstance(content, dict):
            raise MetakeError(f"{path}: record {index} is not an object with fields")
        self.path, self.index, self.content = path, index, content

    def text(self, name: str, remedy: str = "add it") -> str:
        value = self.content.get(name)
        if value is None:
            raise MetakeError(f"{self.path}: record {self.index} has no field {name!r}; {remedy}")
        if not isinstance(value, str):
            raise MetakeError(f"{self.path}: record {self.index}: {name} must be a text")
        if not value.strip():
            raise MetakeError(f"{self.path}: record {self.index}: {name} is empty; give it a text")
        return value.strip()

    def optional(self, name: str) -> str:
        """A text, empty if the record has none."""
        return self.text(name) if self.content.get(name) else ""

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, possibly empty."""
        value = self.content.get(name, [])
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise MetakeError(f"{self.path}: record {self.index}: {name} must be a list of texts")
        return tuple(text.strip() for text in value if text.strip())

    def inside(self, name: str) -> Fields:
        """The fields of an object in a field."""
        value = self.content.get(name)
        if not isinstance(value, dict):
            raise MetakeError(f"{self.path}: record {self.index}: {name} must be an object with fields")
        return Fields(self.path, self.index, value)

    def request(self, prompt: str, target: str) -> Request:
        try:
            return Request.from_text(prompt, self.text("subject"), target)
        except MetakeError as error:
            raise MetakeError(f"{self.path}: record {self.index}: {error}") from error


def _question(text: str) -> str:
    """zsRE's `loc` leaves its question mark to the reader."""
    return text if text.endswith(("?", ":", ".")) else text + "?"


def _zsre(fields: Fields) -> Record:
    answers = fields.content.get("answers")
    if not isinstance(answers, list) or not answers or not isinstance(answers[0], str):
        raise MetakeError(
            f"{fields.path}: record {fields.index}: answers must be a list with one text at least"
        )
    if not answers[0].strip():
        raise MetakeError(f"{fields.path}: record {fields.index}: answers[0], the target, is empty")
    others = fields.content.get("same_subject", [])
    if not isinstance(others, list) or not all(
        isinstance(other, dict)
        and isinstance(other.get("prompt"), str)
        and isinstance(other.get("answer"), str)
        for other in others
    ):
        raise MetakeError(
            f"{fields.path}: record {fields.index}: same_subject must be a list of objects with the texts prompt and answer"
        )
    return Record(
        fields.request(fields.text("src"), answers[0]),
        fields.text("rephrase"),
        _question(fields.text("loc")),
        fields.text("loc_ans"),
        str(fields.content.get("pred") or ""),
        tuple((other["prompt"], other["answer"]) for other in others),
    )


def _counterfact(fields: Fields) -> Record:
    return Record(
        fields.request(fields.text("prompt"), fields.text("target_new")),
        fields.text("rephrase_prompt"),
        fields.text("locality_prompt"),
        fields.text("locality_ground_truth"),
        str(fields.content.get("ground_truth") or ""),
        rival=str(fields.content.get("ground_truth") or ""),
        rephrases=(fields.text("rephrase_prompt"),),
        neighbours=(fields.text("locality_prompt"),)
        if fields.content.get("locality_ground_truth") == fields.content.get("ground_truth")
        else (),
    )


def _multi_counterfact(fields: Fields) -> Record:
    """The original format: several paraphrases and neighbours, the answer of a neighbour is the old target."""
    rewrite = fields.inside("requested_rewrite")
    target = rewrite.inside("target_new")
    new, true = target.text("str"), rewrite.inside("target_true").text("str")
    relation, target_id = rewrite.optional("relation_id"), target.optional("id")
    rephrases, neighbours = fields.texts("paraphrase_prompts"), fields.texts("neighborhood_prompts")
    for name, prompts in (("paraphrase_prompts", rephrases), ("neighborhood_prompts", neighbours)):
        if not prompts:
            raise MetakeError(f"{fields.path}: record {fields.index}: {name} is empty; give it a prompt")
    subject = rewrite.text("subject")
    try:
        request = Request(rewrite.text("prompt"), subject, new)
    except MetakeError as error:
        raise MetakeError(f"{fields.path}: record {fields.index}: {error}") from error
    return Record(
        request, rephrases[0], neighbours[0], true, true, rival=true, rephrases=rephrases,
        neighbours=neighbours, generation_prompts=fields.texts("generation_prompts"),
        attribute=(relation, target_id) if relation and target_id else None,
    )  # fmt: skip


READERS: dict[str, Callable[[Fields], Record]] = {
    "src": _zsre, "prompt": _counterfact, "requested_rewrite": _multi_counterfact,
}  # fmt: skip


def read_records(path: Path | str, limit: int | None = None) -> list[Record]:
    """Read a JSON list of records; the format is told by the fields of each.

    Raises:
        MetakeError: not JSON, not a list, empty, a record without a field that is needed, or none asked for.
    """
    if limit is not None and limit < 1:
        raise MetakeError(f"records: at least 1 is needed, asked for {limit}")
    path = Path(path)
    content = read_json(path)
    if not isinstance(content, list) or not content:
        raise MetakeError(f"{path}: must hold a list with at least one record")
    return parse_records(path, content[:limit])


def parse_records(path: Path, content: Sequence[Any]) -> list[Record]:
    records = []
    for index, entry in enumerate(content):
        fields = Fields(path, index, entry)
        reader = next((read for key, read in READERS.items() if key in fields.content), None)
        if reader is None:
            raise MetakeError(
                f"{path}: record {index} has neither 'src' (zsRE) nor 'prompt' or 'requested_rewrite' (CounterFact); "
                "add the prompt to be edited"
            )
        records.append(reader(fields))
    return records
