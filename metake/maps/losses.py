"""Loss that a map is fitted by: that of the edited model on rephrased prompts and on unrelated questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metake.data.record import Record
from metake.models.editable import EditableModel
from metake.models.end_token import End, ended
from metake.models.tokens import encode
from metake.planners.weight_loss import WeightLoss


class WeightDivergence(WeightLoss):
    """Mean over rows of the mean KL divergence of the changed model from the unchanged one at the answer's tokens."""

    def _total(self, changes: Mapping[int, Tensor], members: Sequence[int]) -> Tensor:
        """Sum over the rows of a pass of their mean divergence, KL(unchanged || changed)."""
        scores, _, shares = self._log_probabilities(changes, members)
        with torch.no_grad():
            none = {layer: torch.zeros_like(change) for layer, change in changes.items()}
            before = self._log_probabilities(none, members)[0]
        divergence: Tensor = (before.exp() * (before - scores)).sum(1)
        return (divergence * shares).sum()


@dataclass(frozen=True)
class PostEditLoss:
    """Weighted sum of the NLL of the targets after rephrased prompts, and of the KL divergence on unrelated questions.

    Attributes:
        answers: NLL of the targets; the prompt itself stands for a missing rephrase.
        others: divergence at the true answers of the unrelated questions; None if no record has one.
        answer_weight: weight of the NLL.
        locality: weight of the divergence.
    """

    answers: WeightLoss
    others: WeightDivergence | None
    answer_weight: float
    locality: float

    @classmethod
    def of(
        cls,
        model: EditableModel,
        records: Sequence[Record],
        layers: Sequence[int],
        *,
        answer_weight: float = 1.0,
        locality: float = 1.0,
        end: End = "none",
        max_tokens: int | None = None,
    ) -> PostEditLoss:
        """Loss of some records.

        Args:
            model: the model, which has to stay as it is.
            records: the records.
            layers: edited layers, ascending.
            answer_weight: weight of the NLL.
            locality: weight of the divergence.
            end: what follows the targets.
            max_tokens: padded tokens per pass; by default what suits the device.

        Returns:
            The loss.
        """
        rows = [encode(model.tokenizer, r.rephrase or r.request.text, r.request.target_new) for r in records]
        others = [
            encode(model.tokenizer, r.locality, r.locality_answer)
            for r in records
            if r.locality and r.locality_answer
        ]
        return cls(
            WeightLoss(model, ended(model, rows, end), layers, max_tokens=max_tokens),
            WeightDivergence(model, others, layers, max_tokens=max_tokens) if others and locality else None,
            answer_weight,
            locality,
        )

    def __call__(self, changes: Mapping[int, Tensor]) -> tuple[float, dict[int, Tensor]]:
        """Loss with changed weights, and its gradient.

        Args:
            changes: layer -> `d_v x d_k`, the change from the unedited model.

        Returns:
            The loss, and layer -> gradient like the change.
        """
        loss, found = self.answers(changes, range(len(self.answers.rows)))
        loss, found = self.answer_weight * loss, {n: self.answer_weight * g for n, g in found.items()}
        if self.others is not None:
            kl, more = self.others(changes, range(len(self.others.rows)))
            loss, found = (
                loss + self.locality * kl,
                {n: g + self.locality * more[n] for n, g in found.items()},
            )
        return loss, found
