"""Methods whose change is a map of the batch's keys and gradients: read, normalize, map, step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor

from metake.deltas import Delta
from metake.errors import MetakeError
from metake.maps.gradient_map import GradientMap
from metake.maps.step import check_finite, solution_of
from metake.methods.base import Method
from metake.methods.state import Attenuation, Stage, State
from metake.models.editable import EditableModel
from metake.models.end_token import End, ended
from metake.planners.normalized_gradient import Moments, Signals, answer_keys_and_gradients
from metake.prompts import Batch
from metake.requests import EditRequest
from metake.solvers.allocation import last


class MappedGradient(Method):
    """Base class of methods without planning: one change of the whole batch from its keys and gradients.

    A subclass defines `gradient_map`. Moments of the batches are the memory.
    """

    choices: ClassVar[tuple[str, ...]] = ("end",)

    end: End = "none"

    @property
    def previews(self) -> bool:
        """Whether `preview` is defined."""
        return True

    @property
    def remembers_moments(self) -> bool:
        """Whether the edited batches change the normalization of later ones."""
        return True

    def gradient_map(self, model: EditableModel, state: State) -> GradientMap:
        """The map.

        Args:
            model: the model.
            state: the state before the batch.

        Returns:
            The map of this method's layers.

        Raises:
            NotImplementedError: by default.
        """
        raise NotImplementedError

    def _signals(self, model: EditableModel, requests: Sequence[EditRequest]) -> Signals:
        rows = ended(model, Batch.build(model, requests, ()).edits, self.end)
        return answer_keys_and_gradients(model, rows, self.layers, self.max_tokens)

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
            The change of the weights, the next state with the batch's moments, and one stage; no stage if nothing is
            solved.
        """
        found = self.gradient_map(model, state)
        signals = found.signals(inputs or self._signals(model, requests))
        moments = signals.moments if self.remembers_moments else {}
        earlier = {n: Moments.unpack(packed) for n, packed in self.fold(state).folded.items()}
        every = {n: m.merged(earlier[n]) if n in earlier else m for n, m in moments.items()}
        with torch.no_grad():
            factors = found(signals, found.pooled(every.values()))
        check_finite(factors)
        stages: tuple[Stage, ...] = ()
        if found.spec.update.solves:
            stages = (Stage(*solution_of(signals, factors), slice(0, len(requests)), last(self.layers)),)
        delta = Delta({n: (change.left.cpu(), change.right.cpu()) for n, change in factors.items()})
        return delta, state.with_memory({n: m.pack() for n, m in moments.items()}), stages

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
            state: the state before them.

        Returns:
            Attenuation per layer and request, of the mean key over its answer tokens, with the signals as inputs of
            `step`.

        Raises:
            MetakeError: nothing is solved.
        """
        found = self.gradient_map(model, state)
        if not found.spec.update.solves:
            raise MetakeError(
                f"preview: {self.name} does not solve in a geometry, so there is no attenuation"
            )
        signals = self._signals(model, requests)
        means = {n: signals.mean(signals.keys[n]).T for n in self.layers}
        rho = torch.stack(
            [found.geometry(n, key.device).realizability(key).cpu() for n, key in means.items()]
        )
        return Attenuation(
            self.layers, rho, torch.ones(rho.shape), last(self.layers), "least_squares", signals
        )
