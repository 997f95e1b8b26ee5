"""Choices of the closed loop's gradient; see `hypergradient.py` for what each differentiates."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from metake.components import Component, register
from metake.planners.descent import Slope
from metake.planners.hypergradient import Parallel, Unrolled, Virtual
from metake.planners.problem import PlanningProblem


class Gradient(Component):
    """Choice of a gradient of the post-edit loss with respect to the targets; a subclass defines `slope`."""

    family = "gradient"

    def prepare(self, problem: PlanningProblem) -> PlanningProblem:
        """The problem with what the gradient needs of it before anything is planned."""
        return problem

    def slope(self, problem: PlanningProblem) -> Slope:
        """The loss with its gradient, on a problem that `prepare` returned."""
        raise NotImplementedError


@register
class ProxyGradient(Gradient):
    """The structural proxy (7)-(9): through the channel of the last edited layer."""

    kind = "proxy"

    joint: bool = Field(
        True, description="the proxy shares one lower level between all edits of a batch (X8)"
    )

    def prepare(self, problem: PlanningProblem) -> PlanningProblem:
        solver, key = problem.solver, problem.key
        geometry = solver.geometries[solver.planned_at]
        columns = key.T.to(geometry.device)
        if self.joint:
            return problem.with_channel(geometry.channel(columns, solver.fit), self.joint)
        # each edit's own lower level: q = G^-1 k / (1 + rho), or / rho for the exact fit
        rho = geometry.realisability(columns)
        scale = 1 + rho if solver.fit == "soft" else rho.clamp_min(torch.finfo(rho.dtype).tiny)
        return problem.with_channel(geometry.solve(columns) / scale, self.joint)

    def slope(self, problem: PlanningProblem) -> Slope:
        return Virtual(problem.objective, "channel", self._gram_channel(problem))

    def _gram_channel(self, problem: PlanningProblem) -> Tensor:
        """`K^T Q`, `n x n`; only its diagonal if every edit has its own lower level."""
        assert problem.channel is not None
        key = problem.key.to(problem.channel)
        return key @ problem.channel if self.joint else (key * problem.channel.T).sum(1).diag()


@register
class ParallelGradient(Gradient):
    """The sum over the layers of each layer's own gradient at the executed weights (X11)."""

    kind = "parallel"

    def slope(self, problem: PlanningProblem) -> Slope:
        return Parallel(problem.objective, problem.solver, problem.prompts)


@register
class UnrolledGradient(Gradient):
    """The exact hypergradient, through the whole layered solve (X10)."""

    kind = "unrolled"

    def slope(self, problem: PlanningProblem) -> Slope:
        return Unrolled(problem.objective, problem.solver, problem.prompts)
