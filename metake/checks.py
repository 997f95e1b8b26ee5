"""Answers to the prompts of a batch and to questions about it, without and with the edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from metake.answers import Answer, Check, Neighbor, compare_answers, read_answers
from metake.applied import swapped_weights
from metake.errors import MetakeError
from metake.models.ask import check_room
from metake.models.editable import EditableModel
from metake.models.tokens import encode
from metake.patches.base import Patch
from metake.phases import phase
from metake.requests import EditRequest, check_texts


def answer_requests(model: EditableModel, requests: Sequence[EditRequest]) -> list[str]:
    """Greedy answers of the current model to the prompts of some requests.

    Args:
        model: the model with its tokenizer.
        requests: their complete prompts are the questions; their targets determine the lengths of the
            answers.

    Returns:
        One answer per request.
    """
    with phase("evaluate"):
        return read_answers(model, [r.text for r in requests], [r.target_new for r in requests])


def compare_requests(
    model: EditableModel, requests: Sequence[EditRequest], before: Sequence[str]
) -> tuple[Answer, ...]:
    """Current answers to the prompts of some requests, paired with earlier ones.

    Args:
        model: the model with its tokenizer.
        requests: the requests.
        before: one earlier answer per request; if there are none, none are read.

    Returns:
        One pair per request.
    """
    if not before:
        return ()
    texts, targets = [r.text for r in requests], [r.target_new for r in requests]
    return compare_answers(model.tokenizer, texts, targets, before, answer_requests(model, requests))


@dataclass(frozen=True)
class Questions:
    """Questions about a batch of edits.

    Attributes:
        rephrases: complete prompts whose answer should begin with the target.
        targets: target of each of them.
        neighbors: complete prompts whose answer should not change.
    """

    rephrases: tuple[str, ...]
    targets: tuple[str, ...]
    neighbors: tuple[str, ...]

    @classmethod
    def parse(cls, requests: Sequence[EditRequest], rephrases: Any = (), neighbors: Any = ()) -> Questions:
        """Questions as given to `Editor.check`.

        Args:
            requests: the batch.
            rephrases: a string or a list of strings; for several requests one such entry per request.
            neighbors: a string or a list of strings.

        Returns:
            The questions with their targets.

        Raises:
            MetakeError: no question, a question that is not a string, or a wrong number of entries.
        """
        pairs = _rephrases(requests, rephrases)
        none = neighbors is None or (isinstance(neighbors, list | tuple) and not neighbors)
        others = [] if none else check_texts("check", "neighbor", neighbors)
        if not pairs and not others:
            raise MetakeError("check: no question given; give rephrases, neighbors or both")
        return cls(tuple(text for text, _ in pairs), tuple(target for _, target in pairs), tuple(others))

    def ask(
        self,
        model: EditableModel,
        originals: Mapping[int, Tensor],
        patches: Mapping[int, tuple[Patch, ...]] | None = None,
    ) -> Check:
        """Answers with other weights paired with those of the current model, whose weights are restored bit for bit.

        Args:
            model: the edited model with its tokenizer.
            originals: layer -> weight without the edit, `d_v x d_k`.
            patches: layer -> its patches without the edit.

        Returns:
            The answers without and with the edit.

        Raises:
            MetakeError: a question is too long for the model.
        """
        texts = [*self.rephrases, *self.neighbors]
        targets = [*self.targets, *[""] * len(self.neighbors)]
        check_room(model, [encode(model.tokenizer, text).ids for text in texts], "check")
        after = read_answers(model, texts, targets)
        with swapped_weights(model, originals, patches):
            before = read_answers(model, texts, targets)
        n = len(self.rephrases)
        rephrased = compare_answers(model.tokenizer, self.rephrases, self.targets, before[:n], after[:n])
        rest = zip(self.neighbors, before[n:], after[n:], strict=True)
        return Check(rephrased, tuple(Neighbor(text, b, b, a) for text, b, a in rest))


def _rephrases(requests: Sequence[EditRequest], given: Any) -> list[tuple[str, str]]:
    """Rephrased prompts, each with its target."""
    given = () if given is None else given
    if not isinstance(given, str | list | tuple):
        raise MetakeError(f"check: rephrases must be a text or a list of texts, not {type(given).__name__}")
    if not given and not isinstance(given, str):
        return []
    entries = [given] if len(requests) == 1 else given
    if isinstance(entries, str) or len(entries) != len(requests):
        raise MetakeError(
            f"check: rephrases must be a list with an entry for each of the {len(requests)} requests"
        )
    pairs = []
    for request, entry in zip(requests, entries, strict=True):
        empty = isinstance(entry, list | tuple) and not entry
        texts = [] if empty else check_texts("check", "rephrase", entry)
        pairs += [(text, request.target_new) for text in texts]
    return pairs
