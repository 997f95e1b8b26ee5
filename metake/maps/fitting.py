"""Numbers of a fit, and the losses of consecutive batches that it minimizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from metake.applied import swapped_weights
from metake.components import Component, register
from metake.data.record import Record
from metake.maps.gradient_map import GradientMap, backward
from metake.maps.losses import PostEditLoss
from metake.models.editable import EditableModel
from metake.models.end_token import End, ended
from metake.models.trace import upcast
from metake.planners.normalized_gradient import Moments, answer_keys_and_gradients
from metake.prompts import Batch


@register
class Fitting(Component):
    """Fit by Adam: every step runs over a sequence of batches, each on the model that the earlier ones changed.

    After each batch the loss of the last `depth` batches is taken, weighted by powers of `decay`. With a sequence of one
    batch this is the fit of MEND and MALMEN.

    Reference: RLEdit (arXiv:2502.05759) for sequences of several batches.
    """

    family = "fitting"
    kind = "adam"
    aliases: ClassVar[dict[str, str]] = {
        name: f"fit_{name}"
        for name in (
            *("batch", "steps", "lr", "clip", "answer", "locality", "length", "depth", "decay", "norm"),
            *("held_out", "every", "patience", "seed"),
        )
    }

    batch: int = Field(20, ge=1, description="fit: requests per batch")
    steps: int = Field(400, ge=0, description="fit: largest number of steps of Adam")
    lr: float = Field(1e-3, gt=0, description="fit: Adam's learning rate")
    clip: float = Field(1.0, gt=0, description="fit: largest norm of a step's gradient")
    answer: float = Field(
        1.0, ge=0, description="fit: weight of the NLL of the targets after rephrased prompts"
    )
    locality: float = Field(1.0, ge=0, description="fit: weight of the KL divergence on unrelated questions")
    length: int = Field(1, ge=1, description="fit: consecutive batches of a step")
    depth: int = Field(
        1, ge=1, description="fit: last batches of a sequence whose loss is taken after each batch"
    )
    decay: float = Field(1.0, gt=0, le=1, description="fit: factor of a batch's loss per later batch")
    norm: float = Field(0.0, ge=0, description="fit: weight of the squared norm of each batch's change")
    held_out: float = Field(
        0.1, ge=0, lt=1, description="fit: share of the records that decides when to stop"
    )
    every: int = Field(20, ge=1, description="fit: steps between two measurements on the held-out records")
    patience: int = Field(
        5, ge=1, description="fit: measurements without improvement after which the fit stops"
    )
    seed: int = Field(0, description="fit: seed of the network, the held-out records and their order")

    def split(self, records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
        """Records to fit, and records that decide when to stop.

        Args:
            records: all records.

        Returns:
            Two lists without common subjects; the second may be empty.
        """
        names = [r.request.subject or r.request.text for r in records]
        subjects = list(dict.fromkeys(names))
        order = torch.randperm(len(subjects), generator=torch.Generator().manual_seed(self.seed)).tolist()
        wanted, held = round(self.held_out * len(records)), set[str]()
        for i in order:
            if sum(name in held for name in names) >= wanted:
                break
            held.add(subjects[i])
        pairs = list(zip(names, records, strict=True))
        return [r for name, r in pairs if name not in held], [r for name, r in pairs if name in held]

    def batches(self, records: Sequence[Record], step: int) -> list[list[Record]]:
        """Batches of a step. Epochs are shuffled, and a batch may span two of them, so that no record is dropped.

        Args:
            records: the records to fit.
            step: number of the step, from 0.

        Returns:
            `length` batches.
        """
        size, count = self.batch, len(records)
        first = step * self.length * size
        orders: dict[int, list[int]] = {}

        def at(place: int) -> Record:
            epoch, position = divmod(place, count)
            if epoch not in orders:
                generator = torch.Generator().manual_seed((self.seed + 1) * 1_000_003 + epoch)
                orders[epoch] = torch.randperm(count, generator=generator).tolist()
            return records[orders[epoch][position]]

        return [[at(first + i * size + j) for j in range(size)] for i in range(self.length)]

    def loss(
        self,
        fitted: GradientMap,
        model: EditableModel,
        batches: Sequence[Sequence[Record]],
        *,
        running: bool,
        learn: bool,
        max_tokens: int | None = None,
    ) -> tuple[float, list[Moments]]:
        """Mean over the batches of a sequence of their post-edit loss.

        Args:
            fitted: the map; with `learn` its gradients are added to.
            model: the model, unedited; it is the same afterwards.
            batches: consecutive batches.
            running: whether the batches of the sequence are added to the moments that normalize.
            learn: whether to compute gradients.
            max_tokens: padded tokens per pass; by default what suits the device.

        Returns:
            The loss, and the moments of every batch and layer.
        """
        layers, end = fitted.spec.layers, fitted.spec.end
        changes = _no_change(model, layers)
        past: list[PostEditLoss] = []
        seen: list[Moments] = []
        total = 0.0
        for records in batches:
            rows = ended(model, Batch.build(model, [r.request for r in records], ()).edits, end)
            edited = {n: (upcast(model.weight(n)) + c).to(model.weight(n).dtype) for n, c in changes.items()}
            with swapped_weights(model, edited if past else {}):
                signals = fitted.signals(answer_keys_and_gradients(model, rows, layers, max_tokens))
            own = list(signals.moments.values())
            seen += own
            with torch.set_grad_enabled(learn):
                factors = fitted(signals, fitted.pooled(seen if running or fitted.moments is None else []))
            update = {n: f.left.detach() @ f.right.detach().T for n, f in factors.items()}
            changes = {n: c + update[n] for n, c in changes.items()}
            past.append(self._loss_of(model, records, layers, end, max_tokens))
            value, gradients = self._recent(past, changes)
            gradients = {n: g + 2 * self.norm * update[n] for n, g in gradients.items()}
            total += value + self.norm * sum(float(u.square().sum()) for u in update.values())
            if learn:
                backward(factors, {n: g / len(batches) for n, g in gradients.items()})
        return total / len(batches), seen

    def _loss_of(
        self,
        model: EditableModel,
        records: Sequence[Record],
        layers: Sequence[int],
        end: End,
        max_tokens: int | None,
    ) -> PostEditLoss:
        return PostEditLoss.of(
            model,
            records,
            layers,
            answer_weight=self.answer,
            locality=self.locality,
            end=end,
            max_tokens=max_tokens,
        )

    def _recent(
        self, past: Sequence[PostEditLoss], changes: dict[int, Tensor]
    ) -> tuple[float, dict[int, Tensor]]:
        """Weighted loss of the last batches, and its gradient."""
        total, gradients = 0.0, {n: torch.zeros_like(change) for n, change in changes.items()}
        for age, loss in enumerate(reversed(past[-self.depth :])):
            value, found = loss(changes)
            total += self.decay**age * value
            gradients = {n: g + self.decay**age * found[n] for n, g in gradients.items()}
        return total, gradients


def _no_change(model: EditableModel, layers: Sequence[int]) -> dict[int, Tensor]:
    """Layer -> a change of 0, at least fp32."""
    return {n: torch.zeros_like(upcast(model.weight(n))) for n in layers}
