"""State of a method between two batches, and what one batch yields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from metake.geometry.operator import Fit, Geometry
from metake.geometry.statistics import Statistics
from metake.planners.problem import Targets
from metake.planners.target_optimization import mean_within
from metake.solvers.allocation import Shares
from metake.solvers.layered import Solution

LayerMemory = dict[int, Tensor]


@dataclass(frozen=True)
class Stage:
    """One plan and its solve, on the model that earlier stages edited.

    Attributes:
        targets: the plan.
        solution: the solve.
        members: which of the batch's requests it is for.
        shares: share of each layer in the residual at the layer that `solution.shift` is measured at.
        fit: how each layer was solved, `least_squares` or `equality_constrained`.
        moved: per request, whether its key was read at the prompt's last token because that at the subject's is
            inconsistent.
        owners: index among the members of the request of each row of the plan; by default every request has one row.
    """

    targets: Targets
    solution: Solution
    members: slice
    shares: Shares
    fit: Fit = "least_squares"
    moved: tuple[bool, ...] = ()
    owners: Tensor | None = None

    def per_request(self, values: Tensor) -> Tensor:
        """Means over the windows of each request.

        Args:
            values: one per row of the plan, `n`.

        Returns:
            One per member.
        """
        if self.owners is None or len(self.owners) == int(self.owners[-1]) + 1:
            return values
        return mean_within(values.float(), self.owners, int(self.owners[-1]) + 1)


@dataclass(frozen=True, eq=False)
class State:
    """State of a method between two batches; a value, so that the earlier state undoes an edit.

    Attributes:
        statistics: second moments of the edited layers' keys; None if the method needs none.
        contexts: texts put before prompts; None until they are sampled, at the first batch.
        memory: per batch since the last fold, layer -> what is remembered of it.
        folded: layer -> what is remembered of all batches before, in one tensor; see `Method.fold`.
        scale: factor of every geometry that gives the attenuation asked for; None if none is, or before the first batch.
        bases: layer -> its geometry without earlier keys; filled when first used.
        with_folded: layer and scale -> its geometry with the folded keys alone; filled when first used.
        anchors: layer -> norm of values in the first batch that was planned for it (NAS).
        learned: what the method was fitted to, or computed of its statistics, before it edits; None if nothing was.
    """

    statistics: Statistics | None = None
    contexts: tuple[str, ...] | None = None
    memory: tuple[LayerMemory, ...] = ()
    scale: float | None = None
    bases: dict[int, Geometry] = field(default_factory=dict, repr=False)
    folded: LayerMemory = field(default_factory=dict)
    with_folded: dict[tuple[int, float | None], Geometry] = field(default_factory=dict, repr=False)
    anchors: dict[int, float] = field(default_factory=dict)
    learned: Any = field(default=None, repr=False)

    def with_memory(self, memory: LayerMemory) -> State:
        """State after one more batch.

        Args:
            memory: layer -> what is remembered of the batch.

        Returns:
            A new state.
        """
        return replace(self, memory=(*self.memory, memory))

    def with_anchor(self, layer: int, anchor: float | None) -> State:
        """State with the anchor of a layer, unless it has one.

        Args:
            layer: layer that residuals are planned at.
            anchor: norm of values; None for a planner that does not rescale them.

        Returns:
            A new state, or the state itself.
        """
        if anchor is None or layer in self.anchors:
            return self
        return replace(self, anchors={**self.anchors, layer: anchor})

    def fold(self, merge: Callable[[Tensor | None, list[Tensor]], Tensor | None]) -> State:
        """State with the memory of all batches in one tensor per layer.

        Args:
            merge: the tensor of a layer from its earlier one, if any, and the memory of the batches since; None to
                leave all as it is.

        Returns:
            A new state, or the state itself.
        """
        layers = sorted({layer for memory in self.memory for layer in memory})
        found = {layer: merge(self.folded.get(layer), self.of_layer(layer)) for layer in layers}
        merged = {layer: tensor for layer, tensor in found.items() if tensor is not None}
        if not merged or len(merged) < len(layers):
            return self
        return replace(self, memory=(), folded={**self.folded, **merged}, with_folded={})

    def of_layer(self, layer: int) -> list[Tensor]:
        """Memory of a layer since the last fold, oldest batch first.

        Args:
            layer: an edited layer.

        Returns:
            One tensor per batch that has one for the layer.
        """
        return [memory[layer] for memory in self.memory if layer in memory]


@dataclass(frozen=True)
class Attenuation:
    """Attenuation of requests at each layer, before any edit.

    Attributes:
        layers: edited layers.
        rho: `layers x n`, realizability of each request's key.
        cosine: `layers x n`, cosine of the bare prompt's key with its mean in contexts.
        shares: share of each layer in the residual.
        fit: how each layer is solved, `least_squares` or `equality_constrained`.
        inputs: inputs of `Method.step` for the same requests, state and model; None if there are none to reuse.
        moved: per request, whether its key is read at the prompt's last token because that at the subject's is inconsistent.
    """

    layers: tuple[int, ...]
    rho: Tensor
    cosine: Tensor
    shares: Shares
    fit: Fit
    inputs: Any = None
    moved: tuple[bool, ...] = ()
