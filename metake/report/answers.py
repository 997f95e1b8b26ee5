"""Answers of a model before and after an edit, and what is right about them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
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

    @property
    def good(self) -> dict[str, bool]:
        """Name of each judged model -> whether all its answers are as they should be."""
        judged = [name for name in self.head if any(line.answers[name].verdict for line in self.lines)]
        return {name: all(line.answers[name].good for line in self.lines) for name in judged}

    @property
    def wrong(self) -> list[int]:
        """Numbers of the filters that show the dialogue: 0 for any wrong answer, then 1, 2, ... for the models of `good`."""
        models = [number for number, good in enumerate(self.good.values(), start=1) if not good]
        return [0, *models] if models else []


def judge_target(answer: str, target: str, begins: Callable[[str, str], bool] | None = None) -> Answer:
    """The answer to an edited or rephrased question; right if it begins with the target.

    Args:
        answer: the answer.
        target: the expected answer.
        begins: answer, target -> whether the answer begins with the target; default: a final full stop aside.

    Returns:
        The answer with a verdict.
    """
    if not answer.strip():
        return Answer(answer, "no answer")
    good = (begins or _begins)(answer, target)
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
