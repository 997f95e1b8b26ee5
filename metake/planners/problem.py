"""The upper level's problem: model, solver and batch, with the quantities computed from them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from metake.geometry.operator import Geometry
from metake.lookup_prompts import LookupPrompts
from metake.models.editable import EditableModel
from metake.planners.hypergradient import evaluate_post_edit
from metake.planners.objective import Losses, Objective
from metake.planners.target_optimization import Penalty, TargetOptimization
from metake.prompts import Batch
from metake.solvers.layered import LayeredSolver

Scale = Literal["stream", "value"]


@dataclass(frozen=True)
class Targets:
    """Residuals for the solver, and how they were found.

    Attributes:
        residuals: `n x d_v`, z - h at the position of each window, at the layer that the solver plans at.
        hidden: `n x d_v`, h.
        plan: the open-loop optimization.
        closed: the closed-loop optimization, None for open-loop targets.
        scale: factor of compensation per request, 1 where there was none.
        anchor: norm that the values were rescaled to (NAS); None if they were not.
    """

    residuals: Tensor
    hidden: Tensor
    plan: TargetOptimization
    closed: TargetOptimization | None
    scale: Tensor
    anchor: float | None = None


@dataclass
class PlanningProblem:
    """Batch to be planned, on the model as it is now.

    Attributes:
        model: the model.
        solver: the lower level.
        batch: token rows of the requests.
        prompts: their prefixes up to the lookup token.
        groups: `n` group numbers; requests of a group share one residual. None if every request has its own.
        max_tokens: padded tokens per pass; by default what suits the device.
        on_step: called after every gradient step.
        channel: Q of the last edited layer, `d_k x n`, if the planner differentiates through it.
        joint: whether every row receives every request's residual, not only its owner's (X8).
        ends: tokens that end an answer; none if the end is not scored.
        anchors: layer -> norm that values are rescaled to (NAS), from earlier batches.
        loss_model: the model that losses are computed with; by default the model itself.
        from_lookup: whether post-edit losses run from the lookup token on; both loops then share what is constant.
        plan: the open-loop plan, if it is known.
    """

    model: EditableModel
    solver: LayeredSolver
    batch: Batch
    prompts: LookupPrompts
    groups: Tensor | None = None
    max_tokens: int | None = None
    on_step: Callable[[], object] = lambda: None
    channel: Tensor | None = None
    joint: bool = True
    ends: tuple[int, ...] = ()
    anchors: Mapping[int, float] = field(default_factory=dict)
    loss_model: EditableModel | None = None
    from_lookup: bool = False
    plan: TargetOptimization | None = None

    def with_channel(self, channel: Tensor | None, joint: bool) -> PlanningProblem:
        """Same problem with a channel.

        Args:
            channel: Q of the last edited layer, `d_k x n`.
            joint: whether every row receives every request's residual, not only its owner's (X8).

        Returns:
            A copy that shares what was already computed of the model.
        """
        other = copy.copy(self)  # with what is already known of the model
        other.channel, other.joint = channel, joint
        return other

    @cached_property
    def _origin(self) -> tuple[Tensor, Tensor]:
        return self.solver.unedited_stream_and_key(self.prompts)

    @cached_property
    def geometry(self) -> Geometry:
        """Geometry of the layer that residuals are planned at, with the preserved keys of prompts and answers."""
        return self.solver.unedited_geometry(self.prompts)

    @property
    def hidden(self) -> Tensor:
        """`n x d_v`, the unedited stream at the lookup tokens of the bare prompts."""
        return self._origin[0]

    @property
    def key(self) -> Tensor:
        """`n x d_k`, the requests' keys at the layer that residuals are planned at."""
        return self._origin[1]

    def norms(self, relative: Scale) -> Tensor:
        """Norms to which clamp and penalties are relative, `n`.

        Args:
            relative: `stream` for the residual stream, `value` for the output of the down-projection.

        Returns:
            ||h|| per request.
        """
        values = self.hidden if relative == "stream" else self.solver.ffn_output(self.prompts)
        norms: Tensor = values.norm(dim=1)
        return norms

    def planning_objective(self, windows: range | None = None, earlier: Tensor | None = None) -> Objective:
        """Losses of residuals that are written at the lookup token; it holds the KV cache of every row.

        Args:
            windows: windows whose losses are needed, as of `Objective`; all by default.
            earlier: `n x d_v`, residuals that earlier windows have.

        Returns:
            The objective.
        """
        if self.from_lookup and windows is None and earlier is None:
            return self.objective
        return Objective(
            self.loss_model or self.model,
            self.batch,
            self.prompts.start,
            self.solver.planned_at,
            max_tokens=self.max_tokens,
            ends=self.ends,
            windows=windows,
            earlier=earlier,
        )

    @cached_property
    def objective(self) -> Objective:
        """Losses after execution, and through the channel."""
        return Objective(
            self.loss_model or self.model,
            self.batch,
            self.prompts.start,
            self.solver.planned_at,
            channel=self.channel,
            joint=self.joint,
            max_tokens=self.max_tokens,
            ends=self.ends,
            from_lookup=self.from_lookup,
        )

    def evaluate_post_edit(self, residuals: Tensor, penalty: Penalty) -> Losses:
        """Post-edit losses of residuals.

        Args:
            residuals: `n x d_v`.
            penalty: direction of KL, and weights of the cost.

        Returns:
            Losses of all requests after one joint solve.
        """
        everyone = torch.ones(len(self.hidden), dtype=torch.bool)
        return evaluate_post_edit(
            self.objective, self.solver.solve(self.prompts, residuals), everyone, penalty
        )
