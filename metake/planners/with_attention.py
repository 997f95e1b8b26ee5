"""PMET's planner: a shift of the attention's output and one of the down-projection's, planned together (arXiv:2308.08742).

The shift a of the attention's output reaches the stream in two ways: it is added, and, unless the block is parallel, the
FFN reads it. Both are computed by the block itself, run at the lookup token alone with the attention's output given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from pydantic import Field
from torch import Tensor

from metake.components import register
from metake.errors import MetakeError
from metake.planners.attention import Attention
from metake.planners.hypergradient import VirtualEditLoss
from metake.planners.objective import Losses
from metake.planners.open_loop import OpenLoop
from metake.planners.problem import PlanningProblem, Scale
from metake.planners.target_optimization import Penalty, TargetOptimization, optimize_targets


@register
class WithAttention(OpenLoop):
    """PMET's planner: shifts of the outputs of attention and down-projection, of which the latter is written.

    Both have clamp and decay of their own, each relative to the norm of its output at the bare prompt.
    """

    kind = "with-attention"

    relative: Scale = Field(
        "value",
        description="h in ||h||: the residual stream, or the down-projection's output (value, as in ROME)",
    )

    def _optimize(self, problem: PlanningProblem) -> TargetOptimization:
        if problem.batch.size > len(problem.batch.requests):
            raise MetakeError("planner with-attention: an answer in several windows is not supported")
        size, top = len(problem.hidden), problem.solver.planned_at
        attention = Attention(problem.model, top, problem.batch.specs, problem.max_tokens)
        norms = torch.cat([problem.norms(self.relative).cpu(), attention.bare_norms(size).cpu()])
        joint = replace(problem, groups=None if problem.groups is None else doubled(problem.groups, size))
        plan = self._minimized(joint, attention, norms)
        parts = (plan.residuals, plan.steps, plan.nll, plan.post_edit_nll, plan.clamped)
        residuals, steps, nll, post_edit_nll, clamped = (part[:size] for part in parts)
        return TargetOptimization(residuals, steps, nll, post_edit_nll, plan.nll_history, clamped)

    def _minimized(self, problem: PlanningProblem, attention: Attention, norms: Tensor) -> TargetOptimization:
        """Residuals of the down-projection's output, then those of the attention's."""
        penalty = Penalty(kl=self.kl, decay=self.decay, clamp=self.clamp, end=self.end_weight)
        size = len(norms) // 2
        objective = problem.planning_objective().transported(attention.transport)
        start = torch.zeros_like(problem.hidden).repeat(2, 1)

        def post_edit(residuals: Tensor) -> Losses:
            return twice(problem.evaluate_post_edit(residuals[:size], penalty))

        return optimize_targets(
            BothShifts(VirtualEditLoss(objective, "token"), size),
            start,
            norms,
            steps=self.steps,
            lr=self.lr,
            stop=self.stop,
            stop_loss=self.stop_loss,
            penalty=penalty,
            evaluate_post_edit=post_edit,
            check_every=self.check_every,
            groups=problem.groups,
            on_step=problem.on_step,
        )


@dataclass(frozen=True)
class BothShifts:
    """Loss of the shifts of down-projections and attention, `2 n x d_v`, each with the loss of its request.

    Attributes:
        loss: loss of the shifts at the lookup tokens.
        size: number of requests, n.
    """

    loss: VirtualEditLoss
    size: int
    is_post_edit = False

    def __call__(
        self, residuals: Tensor, active: Tensor, penalty: Penalty, *, backward: bool = True
    ) -> tuple[Losses, Tensor | None]:
        """Losses and gradient; see `LossWithGradient`."""
        either = active[: self.size] | active[self.size :]
        losses, gradient = self.loss(residuals, either, penalty, backward=backward)
        return twice(losses), gradient


def twice(losses: Losses) -> Losses:
    """Losses of each request, once for each of its two shifts.

    Args:
        losses: each part of shape `n`.

    Returns:
        Each part of shape `2 n`.
    """
    cost = None if losses.cost is None else losses.cost.repeat(2)
    end = None if losses.end is None else losses.end.repeat(2)
    return Losses(losses.nll.repeat(2), losses.kl.repeat(2), cost, end)


def doubled(groups: Tensor, size: int) -> Tensor:
    """Group numbers of both shifts: those of the attention follow those of the down-projection.

    Args:
        groups: `n` group numbers below `size`.
        size: number of requests, n.

    Returns:
        `2 n` group numbers below `2 size`.
    """
    return torch.cat([groups, groups + size])
