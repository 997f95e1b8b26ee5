"""UltraEdit (arXiv:2505.14679): one normalized gradient step of the whole batch at every edited layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from metake.components import register
from metake.deltas import Delta
from metake.geometry.identity import Identity
from metake.methods.base import Method
from metake.methods.state import Attenuation, Stage, State
from metake.models.ambient import exact_device
from metake.models.editable import EditableModel
from metake.planners.normalized_gradient import Moments, Signals, answer_keys_and_gradients, gradient_step
from metake.prompts import Batch
from metake.requests import EditRequest
from metake.solvers.allocation import last


@register
class UltraEdit(Method):
    """UltraEdit: one gradient step, normalized by the moments of all batches so far; no statistics, contexts or planning.

    Reference: arXiv:2505.14679.
    """

    kind = "ultraedit"
    previews = True
    aliases: ClassVar[dict[str, str]] = {"lr": "gradient_lr"}

    lr: float = Field(1e-6, gt=0, description="step size along the normalized gradient [lr]")

    @property
    def step_setting(self) -> str:
        """Name of the setting that states how far a target is optimized."""
        return "gradient_lr"

    def _signals(self, model: EditableModel, requests: Sequence[EditRequest]) -> Signals:
        rows = Batch.build(model, requests, ()).edits
        return answer_keys_and_gradients(model, rows, self.layers, self.max_tokens)

    def _geometry(self, model: EditableModel, layer: int) -> Identity:
        return Identity(dtype=self.torch_dtype, device=exact_device(model.weight(layer).device))

    def step(
        self,
        model: EditableModel,
        requests: Sequence[EditRequest],
        state: State,
        on_step: Callable[[], object],
        inputs: Signals | None = None,
    ) -> tuple[Delta, State, tuple[Stage, ...]]:
        """One batch of edits.

        Args:
            model: the model; it is the same afterwards.
            requests: distinct requests; not empty.
            state: the state before the batch.
            on_step: not called; nothing is optimized.
            inputs: signals that `preview` has computed for the same requests and model; computed here by default.

        Returns:
            The change of the weights, the next state with the batch's moments, and one stage.
        """
        signals = inputs or self._signals(model, requests)
        moments = signals.moments
        earlier = {n: Moments.unpack(packed) for n, packed in self.fold(state).folded.items()}
        all_moments = {n: m.merged(earlier[n]) if n in earlier else m for n, m in moments.items()}
        geometries = {layer: self._geometry(model, layer) for layer in self.layers}
        targets, solution = gradient_step(signals, all_moments, geometries, self.lr)
        stage = Stage(targets, solution, slice(0, len(requests)), last(self.layers))
        delta = Delta({n: (left.cpu(), right.cpu()) for n, (left, right) in solution.factors.items()})
        return delta, state.with_memory({n: m.pack() for n, m in moments.items()}), (stage,)

    def fold(self, state: State) -> State:
        """State with the moments of all batches in one.

        Args:
            state: the state after a batch.

        Returns:
            A new state, or the state itself.
        """

        def merge(folded: Tensor | None, recent: list[Tensor]) -> Tensor:
            packed = recent if folded is None else [folded, *recent]
            return reduce(Moments.merged, map(Moments.unpack, packed)).pack()

        return state.fold(merge)

    def preview(self, model: EditableModel, requests: Sequence[EditRequest], state: State) -> Attenuation:
        """Attenuation of each request, without any edit.

        Args:
            model: the model.
            requests: the requests.
            state: not used.

        Returns:
            Attenuation per layer and request, of the mean key over its answer tokens, with the signals as inputs of
            `step`.
        """
        signals = self._signals(model, requests)
        rho = torch.stack(
            [
                self._geometry(model, n).realizability(signals.mean(signals.keys[n]).T).cpu()
                for n in self.layers
            ]
        )
        return Attenuation(
            self.layers, rho, torch.ones(rho.shape), last(self.layers), "least_squares", signals
        )
