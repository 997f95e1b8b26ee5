"""Fine-tuning of one down-projection: FT-L, FT-M (Zhu et al. 2020, arXiv:2012.00363) and LocFT-BF (arXiv:2509.22072)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field, SerializeAsAny
from torch import Tensor

from metake.applied import swapped_weights
from metake.components import register
from metake.deltas import Delta
from metake.errors import MetakeError
from metake.geometry.statistics import Statistics
from metake.methods.base import Method
from metake.methods.state import Stage, State
from metake.models.editable import EditableModel
from metake.models.end_token import End, ended
from metake.models.trace import upcast
from metake.phases import phase
from metake.planners.curvature import LowCurvatureProjector, NoProjection, Projection
from metake.planners.weight_loss import Objective, WeightLoss
from metake.prompts import Batch
from metake.requests import EditRequest

Projectors = Mapping[int, LowCurvatureProjector | None]


@register
class FineTune(Method):
    """Fine-tuning: the NLL of the targets, minimized by Adam over the weights of the edited layers.

    The change of a weight is dense. There is no geometry, so there are no targets, no attenuation and no stages.

    Reference: arXiv:2012.00363 (FT-L with the bound of `norm_constraint`), arXiv:2509.22072 (LocFT-BF).

    Example:
        >>> import metake as mk
        >>> model, request = mk.load("demo"), mk.EditRequest("The craft of {} is", "Ann", "baker")
        >>> method = mk.settings_for(model, "ft-m", layers=(4,), epochs=2)
        >>> with mk.Editor(model, method=method, progress=False) as editor:
        ...     tuple(editor.edit(request).delta.to_dense(4).shape) == (model.d_v, model.d_k)
        True
    """

    kind = "fine-tune"
    shares_layers = False
    choices = ("objective", "end", "group")
    depth = "at two thirds of the depth (published for Llama-3-8B: 21 and 22 of 32)"
    aliases: ClassVar[dict[str, str]] = {"lr": "weight_lr", "stop_loss": "epoch_loss"}
    published: ClassVar[dict[str, str]] = {"num_steps": "epochs", "objective_optimization": "objective"}

    objective: Objective = Field(
        "target_new",
        description="position that each target token is read off: the token before it (target_new, FT-M), or always the "
        "prompt's last token (prompt_last, FT-L) [objective_optimization]",
    )
    end: End = "none"
    group: int | None = Field(None, ge=1, description="requests tuned together; all if null")
    lr: float = Field(5e-4, gt=0, description="Adam's learning rate on the weights [lr]")
    epochs: int = Field(25, ge=1, description="passes over the requests of a group [num_steps]")
    mini_batch: int = Field(100, ge=1, description="requests per step of Adam; their order is shuffled")
    norm_constraint: float | None = Field(
        None, gt=0, description="largest change of each entry of a weight; none if null"
    )
    stop_loss: float = Field(
        0.01, ge=0, description="no step is taken on mini-batches below this loss, and no epoch follows one"
    )
    projection: SerializeAsAny[Projection] = Field(
        NoProjection(), description="directions that the gradients lose (CrispEdit)"
    )
    seed: int = Field(0, description="seed of the order of the mini-batches")

    @classmethod
    def default_layers(cls, count: int) -> tuple[int, ...]:
        """One layer at two thirds of the depth.

        Args:
            count: number of layers of the model.

        Returns:
            One layer.
        """
        return (2 * count // 3,)

    @property
    def needs_statistics(self) -> bool:
        """Whether the projection uses C."""
        return self.projection.needs_curvature

    @property
    def needs_gradients(self) -> bool:
        """Whether the projection uses the second moments of gradients."""
        return self.projection.needs_curvature

    def init(self, model: EditableModel, statistics: Statistics | None = None) -> State:
        """State before the first batch, with the projectors of the layers.

        Args:
            model: the model to edit.
            statistics: moments of its keys and gradients, if the projection needs them.

        Returns:
            A state without memory.
        """
        state = super().init(model, statistics)
        return replace(
            state, learned={n: self.projection.projector(state.statistics, n) for n in self.layers}
        )

    @property
    def step_setting(self) -> str:
        """Name of the setting that states how far the weights are moved."""
        return "weight_lr"

    def step_count(self, requests: int) -> int:
        """Largest number of steps of Adam of a batch.

        Args:
            requests: number of requests of the batch.

        Returns:
            Steps of all groups and epochs.
        """
        size = min(self.group or requests, requests)
        whole, rest = divmod(requests, size)
        steps = whole * -(-size // self.mini_batch) + -(-rest // self.mini_batch)
        return self.epochs * steps

    def step(
        self,
        model: EditableModel,
        requests: Sequence[EditRequest],
        state: State,
        on_step: Callable[[], object],
        inputs: None = None,
    ) -> tuple[Delta, State, tuple[Stage, ...]]:
        """One batch of edits: every group is tuned on the model that earlier ones changed.

        Args:
            model: the model; it is the same afterwards.
            requests: distinct requests; not empty.
            state: the state before the batch.
            on_step: called after every step of Adam, at most `step_count` times.
            inputs: not used.

        Returns:
            The change of the weights, the next state, and no stages.

        Raises:
            MetakeError: the loss is not finite, or the tokenizer has no token for the end.
        """
        rows = ended(model, Batch.build(model, requests, ()).edits, self.end)
        size, delta = self.group or len(rows), Delta({})
        with phase("fine-tune"), swapped_weights(model, {n: model.weight(n) for n in self.layers}):
            for start in range(0, len(rows), size):
                loss = WeightLoss(
                    model, rows[start : start + size], self.layers, self.objective, self.max_tokens
                )
                changes = self._tuned(loss, on_step, state.learned or {})
                change = Delta({}, dense_updates={n: d.cpu() for n, d in changes.items()})
                delta = delta.then(change) if start else change
                if start + size < len(rows):
                    change.apply(model, check=False)
        return delta, state.with_memory({}), ()

    def _tuned(
        self, loss: WeightLoss, on_step: Callable[[], object], projectors: Projectors
    ) -> dict[int, Tensor]:
        """Layer -> change of its weight that lowers the loss of some rows."""
        changes = {n: torch.zeros_like(upcast(weight)) for n, weight in loss.weights.items()}
        adam = torch.optim.Adam(changes.values(), lr=self.lr)
        generator = torch.Generator().manual_seed(self.seed)
        for epoch in range(self.epochs):
            total = 0.0
            for members in self._mini_batches(len(loss.rows), generator):
                value, gradients = loss(changes, members)
                if not math.isfinite(value):
                    raise MetakeError(
                        f"{self.name}: the loss of epoch {epoch + 1} is not finite; nothing was changed; lower "
                        f"weight_lr (now {self.lr:g})"
                    )
                total += value * len(members)
                if value >= self.stop_loss:
                    self._take(adam, changes, _projected(gradients, projectors))
                on_step()
            if total / len(loss.rows) < self.stop_loss:
                break
        return changes

    def _mini_batches(self, count: int, generator: torch.Generator) -> Iterator[list[int]]:
        """Indices of the rows of each mini-batch of an epoch."""
        order = torch.randperm(count, generator=generator).tolist()
        for start in range(0, count, self.mini_batch):
            yield order[start : start + self.mini_batch]

    @torch.no_grad()
    def _take(
        self, adam: torch.optim.Adam, changes: Mapping[int, Tensor], gradients: Mapping[int, Tensor]
    ) -> None:
        """One step of Adam, then the bound."""
        for layer, change in changes.items():
            change.grad = gradients[layer]
        adam.step()
        if self.norm_constraint is not None:
            for change in changes.values():
                change.clamp_(-self.norm_constraint, self.norm_constraint)


def _projected(gradients: Mapping[int, Tensor], projectors: Projectors) -> dict[int, Tensor]:
    """Gradients without the directions that they lose."""
    found = {}
    for layer, gradient in gradients.items():
        projector = projectors.get(layer)
        found[layer] = gradient if projector is None else projector(gradient)
    return found
