"""Answers of a model before and after an edit, and whether each begins with the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from metake.models.editable import EditableModel
from metake.models.greedy import greedy_answers, tokenizer_round_trip
from metake.report.tables import ellipsis, html
from metake.requests import visible
from metake.words import begins_with, shown

CHECKED = "the greedy answer begins with the target, which ends where a word does"
ALREADY = "already correct before the edit"
MIN_NEW_TOKENS = 12  # minimum number of tokens of an answer
SHOWN = 10  # number of questions in a printed result


@dataclass(frozen=True)
class Answer:
    """A question with the answers before and after an edit.

    Attributes:
        wanted: expected beginning of the answer, as the tokenizer decodes it.
        before, after: greedy answers of the unedited and the edited model.
    """

    question: str
    wanted: str
    before: str
    after: str

    @property
    def success(self) -> bool:
        """Whether the edited model's answer begins with `wanted`."""
        return begins_with(self.after, self.wanted)

    @property
    def already(self) -> bool:
        """Whether the unedited model's answer begins with it, too."""
        return begins_with(self.before, self.wanted)

    def plain(self) -> dict[str, Any]:
        """Plain values for a result file."""
        return {**self.__dict__, "already": self.already, "success": self.success}

    def _shown(self, ellipsis: str = "…") -> list[str]:
        """Both answers for display."""
        return [shown(answer, ellipsis, self.wanted) for answer in (self.before, self.after)]

    def __str__(self) -> str:
        before, after = self._shown(ellipsis())
        past = f"   <- {ALREADY}" if self.already else ""
        mark = "" if self.success else f"   <- does not begin with {self.wanted!r}"
        return f"{visible(self.question)}\n  before: {before!r}{past}\n  after:  {after!r}{mark}"

    @property
    def cells(self) -> list[str]:
        """Cells of a table row: question, before, after, verdict."""
        verdict = "begins with the target" if self.success else f"does not begin with {self.wanted!r}"
        verdict += f", {ALREADY}" if self.success and self.already else ""
        return [self.question, *self._shown(), verdict]


@dataclass(frozen=True)
class Neighbor(Answer):
    """A question about another fact, whose answer the edit should not change."""

    @property
    def success(self) -> bool:
        """Whether the answer is unchanged."""
        return self.after == self.before

    def plain(self) -> dict[str, Any]:
        """Plain values for a result file."""
        return {**self.__dict__, "success": self.success}

    def _shown(self, ellipsis: str = "…") -> list[str]:
        return [shown(answer, ellipsis) for answer in (self.before, self.after)]

    @property
    def cells(self) -> list[str]:
        """Cells of a table row: question, before, after, verdict."""
        return [self.question, *self._shown(), "unchanged" if self.success else "changed"]

    def __str__(self) -> str:
        before, after = self._shown(ellipsis())
        mark = "" if self.success else "   <- changed"
        return f"{visible(self.question)}\n  before: {before!r}\n  after:  {after!r}{mark}"


HEAD = ("question", "before", "after", "verdict")


@dataclass(frozen=True, repr=False)
class Check:
    """Answers without and with an edit, to rephrased prompts and to neighborhood prompts.

    Attributes:
        rephrases: answers that should begin with the target (generalization).
        neighbors: answers that should not change (specificity).
    """

    rephrases: tuple[Answer, ...]
    neighbors: tuple[Neighbor, ...]

    @property
    def success(self) -> bool:
        """Whether every answer to a rephrase begins with its target and every answer to a neighbor is unchanged."""
        return all(answer.success for answer in (*self.rephrases, *self.neighbors))

    @property
    def _parts(self) -> list[tuple[str, Sequence[Answer]]]:
        """Title and answers of each nonempty kind."""
        kinds = (
            ("rephrases", "begin with the target", self.rephrases),
            ("neighbors", "unchanged", self.neighbors),
        )
        return [
            (f"{name}: {sum(a.success for a in answers)} of {len(answers)} {good}", answers)
            for name, good, answers in kinds
            if answers
        ]

    def __str__(self) -> str:
        return "\n".join(line for title, answers in self._parts for line in (title, *map(str, answers)))

    def __repr__(self) -> str:
        return f"<Check: {'; '.join(title for title, _ in self._parts)}>"

    def _repr_html_(self) -> str:
        return "".join(html(title, HEAD, [a.cells for a in answers]) for title, answers in self._parts)


def read_answers(model: EditableModel, prompts: Sequence[str], targets: Sequence[str]) -> list[str]:
    """Greedy answers, stripped of whitespace.

    Args:
        model: the model with its tokenizer.
        prompts: complete prompts.
        targets: target of each prompt; its tokens determine the minimum length of the answer.

    Returns:
        One answer per prompt.
    """
    return [a.strip() for a in greedy_answers(model, prompts, targets, min_new_tokens=MIN_NEW_TOKENS)]


def compare_answers(
    tokenizer: Any,
    prompts: Sequence[str],
    targets: Sequence[str],
    before: Sequence[str],
    after: Sequence[str],
) -> tuple[Answer, ...]:
    """Pair the answers before and after with the target of each prompt.

    Args:
        tokenizer: the model's tokenizer.
        prompts: complete prompts.
        targets: target of each prompt.
        before: answer of the unedited model to each prompt.
        after: answer of the edited model to each prompt.

    Returns:
        One pair per prompt.
    """
    rows = zip(prompts, targets, before, after, strict=True)
    return tuple(Answer(p, tokenizer_round_trip(tokenizer, t), b, a) for p, t, b, a in rows)


def show_answers(answers: Sequence[Answer]) -> str:
    """The first answers as text.

    Args:
        answers: any number of answers.

    Returns:
        One block of lines per answer, at most `SHOWN`, and a line about the rest.
    """
    more = [f"... and {len(answers) - SHOWN} more, in .answers"] if len(answers) > SHOWN else []
    return "\n".join([*map(str, answers[:SHOWN]), *more])


def count_successes(answers: Sequence[Answer]) -> str:
    """Number of answers that begin with their target, as a line.

    Args:
        answers: any number of answers.

    Returns:
        The line.
    """
    already = sum(a.success and a.already for a in answers)
    count = f"{sum(a.success for a in answers)} of {len(answers)} answers begin with their target"
    return f"{count}, {already} {ALREADY}" if already else count
