"""Rules by which free answers are read and compared with a target: those of the published protocol, and their base class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metake.data.record import Record
from metake.models.editable import EditableModel
from metake.models.greedy import DEFAULT_MIN_NEW_TOKENS, MARGIN, greedy_answers, tokenizer_round_trip
from metake.words import begins_with

Answers = tuple[str, str, str]  # to the edited prompt, the rephrased one and the unrelated one


class Rules:
    """Rules for free answers; subclasses read and score them.

    Attributes:
        name: name of the protocol.
        start: metric of the answers that begin with the target.
    """

    name: str
    start: str

    def key(self) -> list[Any]:
        """What tells two measurements apart, as plain values; empty for the published rules."""
        return []

    def read(
        self, model: EditableModel, prompts: Sequence[str], targets: Sequence[str], max_tokens: int
    ) -> list[str]:
        """Greedy answers.

        Args:
            model: the model.
            prompts: complete prompts.
            targets: the expected answer of each.
            max_tokens: padded tokens of a pass.

        Returns:
            One answer per prompt, as it is compared.
        """
        raise NotImplementedError

    def is_right(self, answer: str, target: str) -> bool:
        """Whether an answer begins with the target.

        Args:
            answer: the answer.
            target: the expected answer.

        Returns:
            Whether it does.
        """
        raise NotImplementedError

    def is_equal(self, answer: str, target: str) -> bool:
        """Whether an answer is the target.

        Args:
            answer: the answer.
            target: the expected answer.

        Returns:
            Whether it is.
        """
        raise NotImplementedError

    def score(
        self, model: EditableModel, record: Record, answers: Answers, before: Answers
    ) -> Mapping[str, float]:
        """Metrics of the answers to one record's prompts.

        Args:
            model: the model.
            record: the record.
            answers: answers as `read` returns them; empty where the record has no prompt.
            before: the unedited model's answers.

        Returns:
            Metric -> value, for the metrics that apply.
        """
        raise NotImplementedError

    def described(self, model: EditableModel, records: Sequence[Record]) -> dict[str, Any]:
        """The rules as plain values, for a result file.

        Args:
            model: the model.
            records: the records.

        Returns:
            Values by name, without the protocol's name.
        """
        raise NotImplementedError


def tidy(text: str) -> str:
    """An answer without surrounding space and final full stop.

    Args:
        text: the answer.

    Returns:
        The text, with every line stripped.
    """
    return "\n".join(line.strip() for line in text.strip().split("\n")).removesuffix(".").strip()


class PublishedRules(Rules):
    """Answers a few tokens longer than their targets, compared without surrounding space and final full stop."""

    name, start = "published", "generation_start"

    def read(
        self, model: EditableModel, prompts: Sequence[str], targets: Sequence[str], max_tokens: int
    ) -> list[str]:
        return [tidy(text) for text in greedy_answers(model, prompts, targets, max_tokens=max_tokens)]

    def is_right(self, answer: str, target: str) -> bool:
        return begins_with(answer.strip(), target.strip().removesuffix("."))

    def is_equal(self, answer: str, target: str) -> bool:
        return tidy(answer) == tidy(target)

    def score(
        self, model: EditableModel, record: Record, answers: Answers, before: Answers
    ) -> Mapping[str, float]:
        target = tidy(tokenizer_round_trip(model.tokenizer, record.request.target_new))
        found = {"generation": answers[0] == target, "generation_start": begins_with(answers[0], target)}
        if record.rephrase:
            found["generation_rephrase"] = answers[1] == target
        return {name: float(value) for name, value in found.items()}

    def described(self, model: EditableModel, records: Sequence[Record]) -> dict[str, Any]:
        length = f"{MARGIN} more than the target, at least {DEFAULT_MIN_NEW_TOKENS}"
        return {"max_new_tokens": length, "comparison": "equal without surrounding space and final full stop"}
