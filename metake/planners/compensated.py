"""Compensation (P4): the plan's direction, at the length that the solver realizes in full.

With one layer the length is 1/eta. Over several layers lower edits move the upper ones and 1/(realized
share) overshoots, so the scalar is found per request by bisection, over solves alone.

The scale is bounded twice, so that one request cannot damage the model. The cost on preserved keys of full
realization is ||plan||^2 / rho, which is unbounded as eta falls. The realized share is measured at the bare
prompt; if its key differs from the estimated key (attention sink), no scale helps. If the keys agree, 1 / eta
of the weakest layer suffices.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from metake.components import register
from metake.planners.open_loop import OpenLoop
from metake.planners.problem import PlanningProblem, Targets
from metake.planners.target_optimization import group_mean


@register
class Compensated(OpenLoop):
    """Open-loop planner whose residuals are scaled until the solver realizes them in full (P4)."""

    kind = "compensated"

    max_scale: float = Field(8.0, ge=1, description="largest factor by which compensation lengthens a plan")

    def plan(self, problem: PlanningProblem) -> Targets:
        """Open-loop targets, scaled per request.

        Args:
            problem: the batch with its solver, on the model as it is.

        Returns:
            Scaled residuals, with the factors in `scale`.
        """
        planned, solver, prompts = super().plan(problem), problem.solver, problem.prompts

        def fraction(residuals: Tensor) -> Tensor:
            return group_mean(solver.solve(prompts, residuals).realized_share, problem.groups)

        eta = torch.stack([eta.cpu() for eta in solver.solve(prompts, planned.residuals).eta.values()])
        bound = group_mean(1 / eta.amin(0), problem.groups).clamp(1, self.max_scale)
        residuals, scale = compensate(fraction, planned.residuals, bound)
        return Targets(residuals, planned.hidden, planned.plan, None, scale)


def compensate(
    fraction_of: Callable[[Tensor], Tensor], plan: Tensor, max_scale: Tensor, rounds: int = 12
) -> tuple[Tensor, Tensor]:
    """Residuals scaled so that their realized shift along the plan equals the plan.

    Args:
        fraction_of: residuals (`n x d_v`) -> realized share of each, `n`, for one joint solve.
        plan: `n x d_v`.
        max_scale: `n`, bounds of the factors; a residual costs at most `max_scale ||plan||^2`.
        rounds: steps of the bisection.

    Returns:
        The residuals, and the factors (`n`), to a relative accuracy of max_scale^(2^-rounds) - 1, about 0.05%.
    """
    low, high = torch.zeros(len(plan)), max_scale.cpu().float().log()
    for _ in range(rounds):
        middle = (low + high) / 2
        scale = middle.exp()
        realized = fraction_of(plan * scale.to(plan)[:, None]).cpu().float() * scale
        short = realized < 1
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    scale = ((low + high) / 2).exp()
    return plan * scale.to(plan)[:, None], scale
