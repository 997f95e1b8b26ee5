"""Answers of a model before and after an edit, and what is right about them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metake.words import begins_with


@dataclass(frozen=True)
class Answer:
    """An answer and what is said about it.

    Attributes:
        verdict: in words; empty for an answer that is not judged.
        good: whether the answer is as it should be.
    """

    text: str
    verdict: str = ""
    good: bool = False


@dataclass(frozen=True)
class Line:
    """A question and its answers, by model (`before` and the names of methods)."""

    kind: str
    question: str
    answers: Mapping[str, Answer]


@dataclass(frozen=True)
class Dialogue:
    """The questions about one edit."""

    title: str
    lines: Sequence[Line]

    @property
    def head(self) -> list[str]:
        """Names of the models that answer."""
        return list(self.lines[0].answers)


def judge_target(answer: str, target: str) -> Answer:
    """The answer to an edited or rephrased question; right if it begins with the target.

    Args:
        answer: the answer.
        target: the expected answer.

    Returns:
        The answer with a verdict.
    """
    if not answer.strip():
        return Answer(answer, "no answer")
    good = _begins(answer, target)
    return Answer(answer, "the target" if good else "not the target", good)


def judge_neighbor(answer: str, before: str, truth: str) -> Answer:
    """The answer to a question that the edit is not about; right if it is unchanged or names the true one.

    Args:
        answer: the edited model's answer.
        before: the unedited model's answer.
        truth: the true answer.

    Returns:
        The answer with a verdict.
    """
    if answer == before:
        return Answer(answer, "unchanged", True)
    if not answer.strip():
        return Answer(answer, "no answer any more")
    if _names(answer, truth):
        return Answer(answer, "changed, and true", True)
    return Answer(answer, "changed")


def _begins(answer: str, wanted: str) -> bool:
    """Whether an answer begins with a text, its final full stop aside."""
    return begins_with(answer.strip(), wanted.strip().removesuffix("."))


def _names(answer: str, truth: str) -> bool:
    """Whether an answer contains the true one as whole words, e.g. `The capital is Bern`."""
    truth = truth.strip().removesuffix(".")
    return bool(truth) and re.search(rf"(?<!\w){re.escape(truth)}(?!\w)", answer, re.IGNORECASE) is not None
