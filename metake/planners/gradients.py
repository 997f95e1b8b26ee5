"""Choices of the closed loop's gradient; see `hypergradient.py` for what each differentiates."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from metake.components import Component, register
from metake.planners.hypergradient import ParallelLoss, UnrolledLoss, VirtualEditLoss
from metake.planners.problem import PlanningProblem
from metake.planners.target_optimization import LossWithGradient


class Gradient(Component):
    """Choice of a gradient of the post-edit loss with respect to the targets; a subclass defines `loss_with_gradient`.

    Example:
        >>> import metake as mk
        >>> from metake.planners.gradients import UnrolledGradient
        >>> @mk.register
        ... class Halved(mk.Gradient):
        ...     kind = "halved"
        ...     def loss_with_gradient(self, problem):
        ...         exact = UnrolledGradient().loss_with_gradient(problem)
        ...         def halved(residuals):
        ...             loss, gradient = exact(residuals)
        ...             return loss, gradient / 2
        ...         return halved
        >>> mk.metake([1, 2], gradient=Halved()).planner.gradient.kind
        'halved'
    """

    family = "gradient"

    def prepare(self, problem: PlanningProblem) -> PlanningProblem:
        """Problem with what the gradient needs before anything is planned.

        Args:
            problem: the batch with its solver.

        Returns:
            The problem itself by default.
        """
        return problem

    def loss_with_gradient(self, problem: PlanningProblem) -> LossWithGradient:
        """Loss of the upper level with its gradient.

        Args:
            problem: a problem that `prepare` returned.

        Returns:
            A function of the residuals.
        """
        raise NotImplementedError


@register
class ProxyGradient(Gradient):
    """Gradient through the channel of the last edited layer: the structural proxy (7)-(9)."""

    kind = "proxy"

    joint: bool = Field(
        True, description="the proxy shares one lower level between all edits of a batch (X8)"
    )

    def prepare(self, problem: PlanningProblem) -> PlanningProblem:
        """Problem with the channel of the last edited layer.

        Args:
            problem: the batch with its solver.

        Returns:
            A copy with `channel` and `joint`.
        """
        solver, key, geometry = problem.solver, problem.key, problem.geometry
        columns = key.T.to(geometry.device)
        if self.joint:
            return problem.with_channel(geometry.channel(columns, solver.fit), self.joint)
        # each edit's own lower level: q = G^-1 k / (1 + rho), or / rho for the exact fit
        rho = geometry.realizability(columns)
        scale = 1 + rho if solver.fit == "least_squares" else rho.clamp_min(torch.finfo(rho.dtype).tiny)
        return problem.with_channel(geometry.solve(columns) / scale, self.joint)

    def loss_with_gradient(self, problem: PlanningProblem) -> LossWithGradient:
        """Loss of a virtual edit of the last layer, with its gradient.

        Args:
            problem: a problem that `prepare` returned.

        Returns:
            A function of the residuals.
        """
        return VirtualEditLoss(problem.objective, "channel", self._gram_channel(problem))

    def _gram_channel(self, problem: PlanningProblem) -> Tensor:
        """`K^T Q`, `n x n`; only its diagonal if every edit has its own lower level."""
        assert problem.channel is not None
        key = problem.key.to(problem.channel)
        return key @ problem.channel if self.joint else (key * problem.channel.T).sum(1).diag()


@register
class ParallelGradient(Gradient):
    """Sum over the layers of each layer's own gradient at the edited weights (X11)."""

    kind = "parallel"

    def loss_with_gradient(self, problem: PlanningProblem) -> LossWithGradient:
        """Post-edit loss with the parallel gradient.

        Args:
            problem: the batch with its solver.

        Returns:
            A function of the residuals.
        """
        return ParallelLoss(problem.objective, problem.solver, problem.prompts)


@register
class UnrolledGradient(Gradient):
    """Exact hypergradient, through the whole layered solve (X10)."""

    kind = "unrolled"

    from_lookup: bool = Field(
        False,
        description="losses and inner solves run from the lookup token on; the update's effect on earlier tokens is left out",
    )

    def prepare(self, problem: PlanningProblem) -> PlanningProblem:
        """Problem whose loops share what is constant, if both run from the lookup token on.

        Args:
            problem: the batch with its solver.

        Returns:
            A copy, or the problem itself.
        """
        return replace(problem, from_lookup=True) if self.from_lookup else problem

    def loss_with_gradient(self, problem: PlanningProblem) -> LossWithGradient:
        """Post-edit loss with the hypergradient.

        Args:
            problem: the batch with its solver.

        Returns:
            A function of the residuals.
        """
        prompts = problem.prompts
        if self.from_lookup:
            prompts = prompts.resumed(problem.model, problem.batch, problem.solver.layers[-1])
        return UnrolledLoss(problem.objective, problem.solver, prompts, from_lookup=self.from_lookup)
