"""Answers of a model before and after an edit, and whether each begins with the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from metake.models.architecture import Architecture
from metake.models.greedy import as_spoken, greedy_answers
from metake.requests import visible

CHECKED = "the greedy answer begins with the target"
LEAST = 12  # tokens of an answer that a person reads
SHOWN = 10  # questions that a printed result shows


@dataclass(frozen=True)
class Answer:
    """A question and what the model says to it.

    Attributes:
        wanted: how the answer should begin, as the tokenizer writes it.
        before, after: greedy answers of the unedited and the edited model.
    """

    question: str
    wanted: str
    before: str
    after: str

    @property
    def success(self) -> bool:
        """Whether the edited model's answer begins as it should."""
        return self.after.startswith(self.wanted)

    def plain(self) -> dict[str, Any]:
        return {**self.__dict__, "success": self.success}

    def __str__(self) -> str:
        mark = "" if self.success else f"   <- does not begin with {self.wanted!r}"
        return f"{visible(self.question)}\n  before: {self.before!r}\n  after:  {self.after!r}{mark}"


def read_answers(
    arch: Architecture, tokenizer: Any, prompts: Sequence[str], targets: Sequence[str]
) -> list[str]:
    """Greedy answers without the space around them."""
    return [a.strip() for a in greedy_answers(arch, tokenizer, prompts, targets, least=LEAST)]


def compare_answers(
    tokenizer: Any,
    prompts: Sequence[str],
    targets: Sequence[str],
    before: Sequence[str],
    after: Sequence[str],
) -> tuple[Answer, ...]:
    """Answers before and after, with what they are compared with."""
    rows = zip(prompts, targets, before, after, strict=True)
    return tuple(Answer(p, as_spoken(tokenizer, t), b, a) for p, t, b, a in rows)


def show_answers(answers: Sequence[Answer]) -> str:
    """The first answers as text."""
    more = [f"... and {len(answers) - SHOWN} more, in .answers"] if len(answers) > SHOWN else []
    return "\n".join([*map(str, answers[:SHOWN]), *more])


def count_successes(answers: Sequence[Answer]) -> str:
    return f"{sum(a.success for a in answers)} of {len(answers)} answers begin with their target"
