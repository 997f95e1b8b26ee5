"""Measurement of a long answer: exact tokens with teacher forcing and in generation, free-text scores, locality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch

from metake.evaluation.free_text import free_text_scores
from metake.models.editable import EditableModel
from metake.models.greedy import continue_greedily
from metake.models.tokens import Row, answer_positions, encode, pad
from metake.models.trace import frozen, run
from metake.requests import EditRequest


@torch.no_grad()
def predicted(model: EditableModel, rows: Sequence[Row]) -> list[list[int]]:
    """Most likely token at each answer position of each row, after the true tokens before it.

    Args:
        model: the model.
        rows: token rows with answers; not empty.

    Returns:
        Token ids per row.
    """
    at_rows, columns, _ = answer_positions(rows)
    with frozen(model.model):
        best = run(model, pad(rows), positions=(at_rows, columns)).logits.argmax(-1).cpu()
    return [best[at_rows == i].tolist() for i in range(len(rows))]


def _share(tokens: Sequence[int], others: Sequence[int]) -> float:
    return sum(a == b for a, b in zip(tokens, others, strict=True)) / len(tokens)


@dataclass(frozen=True)
class Unrelated:
    """Prompts that an edit should not change, with the unedited model's predictions along its own continuations.

    Attributes:
        rows: prompts with these continuations as answers.
        tokens: predictions of the unedited model at the answers.
    """

    rows: tuple[Row, ...]
    tokens: tuple[list[int], ...]

    @classmethod
    def of(cls, model: EditableModel, prompts: Sequence[str], length: int = 10) -> Unrelated:
        """Predictions of a model before it is edited.

        Args:
            model: the unedited model.
            prompts: the prompts.
            length: number of tokens of each continuation.

        Returns:
            The prompts with a continuation that is not empty.
        """
        asked = [encode(model.tokenizer, prompt).ids for prompt in prompts]
        texts = continue_greedily(model, asked, [length] * len(prompts))
        pairs = zip(prompts, texts, strict=True)
        rows = [encode(model.tokenizer, prompt, str(text)) for prompt, text in pairs if text.strip()]
        return cls(tuple(rows), tuple(predicted(model, rows)) if rows else ())

    def agreement(self, model: EditableModel) -> float:
        """Share of the predictions that are those of the unedited model; NaN without any.

        Args:
            model: the edited model.

        Returns:
            Mean over the prompts.
        """
        if not self.rows:
            return float("nan")
        now = predicted(model, self.rows)
        return sum(map(_share, now, self.tokens)) / len(now)


def measure_long_answer(
    model: EditableModel, request: EditRequest, unrelated: Unrelated
) -> dict[str, float | str]:
    """Scores of the model's answer to a request.

    Args:
        model: the edited model.
        request: the request.
        unrelated: prompts for locality.

    Returns:
        `tokens`: exact tokens with teacher forcing. `generated`: share of the target's tokens before the first other one
        in the greedy answer; `bleu`, `rouge_l`, `similarity` of that answer. `locality`: agreement with the unedited
        model. `answer`: the greedy answer.
    """
    row = encode(model.tokenizer, request.text, request.target_new)
    said = str(continue_greedily(model, [row.ids[: -row.answer]], [row.answer])[0]).strip()
    again = encode(model.tokenizer, request.text, said).answer_ids if said else ()
    same = [a == b for a, b in zip(row.answer_ids, again, strict=False)]
    return {
        "tokens": _share(predicted(model, [row])[0], row.answer_ids),
        "generated": sum(1 for _ in takewhile(bool, same)) / row.answer,
        **free_text_scores(said, request.target_new),
        "locality": unrelated.agreement(model),
        "answer": said,
    }
