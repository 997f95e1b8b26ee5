"""Planners: from a batch of requests to the residuals that the solver is asked for.

open-loop      Stage I, a target that ignores the solver (2)
compensated    the open-loop target, lengthened until execution realizes it in full (P4)
closed-loop    MetaKE, Algorithm 1: from either of them, the post-edit loss (6) is minimized through the solver
"""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from pydantic import Field, SerializeAsAny
from torch import Tensor

from metake.components import Component, register
from metake.targets.compensate import compensate
from metake.targets.descent import Descent, Penalty, Stop, descend, group_mean
from metake.targets.gradients import Gradient, UnrolledGradient
from metake.targets.hypergradient import Virtual
from metake.targets.problem import PlanningProblem, Scale, Targets


class Planner(Component):
    """Choice of a planner; a subclass defines `plan`."""

    family = "planner"

    def plan(self, problem: PlanningProblem) -> Targets:
        """Residuals of the batch."""
        raise NotImplementedError

    def divided(self, rounds: int) -> Planner:
        """The planner of one of several rounds, which share its steps."""
        return self

    @property
    def step_count(self) -> int:
        """Largest number of gradient steps of a plan."""
        return 0


def _share(steps: int, rounds: int) -> int:
    return max(1, steps // rounds)


@register
class OpenLoop(Planner):
    """The published plan: minimize the loss of a residual that is written at the lookup token."""

    kind = "open-loop"
    published: ClassVar[dict[str, str]] = {
        "v_num_grad_steps": "steps",
        "v_lr": "lr",
        "kl_factor": "kl",
        "v_weight_decay": "decay",
        "clamp_norm_factor": "clamp",
    }

    steps: int = Field(25, ge=1, description="steps of the open-loop plan [v_num_grad_steps]")
    lr: float = Field(0.5, gt=0, description="Adam's learning rate in the open-loop plan [v_lr]")
    kl: float = Field(0.0625, ge=0, description="weight of KL on '{} is a' [kl_factor]")
    decay: float = Field(0.5, ge=0, description="weight of ||delta||/||h||^2 [v_weight_decay]")
    clamp: float | None = Field(
        0.75, gt=0, description="||delta|| <= clamp ||h||; none if null [clamp_norm_factor]"
    )
    relative: Scale = Field(
        "stream",
        description="h in ||h||: the residual stream, or the down-projection's output (value, as in ROME)",
    )
    stop: Stop = Field(
        "own",
        description="early stop: on the planning loss (own; published), on the loss after the solve (executed), or none",
    )
    stop_loss: float = Field(0.05, ge=0, description="a request stops below this loss")
    check_every: int = Field(5, ge=1, description="steps between two evaluations of the executed loss")

    def plan(self, problem: PlanningProblem) -> Targets:
        plan = self._descend(problem)
        return Targets(plan.residuals, problem.hidden, plan, None, torch.ones(len(plan.residuals)))

    def _descend(self, problem: PlanningProblem) -> Descent:
        penalty = Penalty(kl=self.kl, decay=self.decay, clamp=self.clamp)
        return descend(
            Virtual(problem.planning_objective(), "token"),
            torch.zeros_like(problem.hidden),
            problem.norms(self.relative),
            steps=self.steps,
            lr=self.lr,
            stop=self.stop,
            stop_loss=self.stop_loss,
            penalty=penalty,
            execute=lambda r: problem.execute(r, penalty),
            check_every=self.check_every,
            ties=problem.ties,
            tick=problem.on_step,
        )

    def divided(self, rounds: int) -> Self:
        return self if rounds == 1 else self.replaced("steps", _share(self.steps, rounds))

    @property
    def step_count(self) -> int:
        return self.steps


@register
class Compensated(OpenLoop):
    """The open-loop plan at the length that the solver realizes in full (P4)."""

    kind = "compensated"
    short: ClassVar[dict[str, str]] = {"max_scale": "stretch"}

    max_scale: float = Field(8.0, ge=1, description="largest factor by which compensation lengthens a plan")

    def plan(self, problem: PlanningProblem) -> Targets:
        planned, solver, trunks = super().plan(problem), problem.solver, problem.trunks

        def fraction(residuals: Tensor) -> Tensor:
            return group_mean(solver.solve(trunks, residuals).fraction, problem.ties)

        eta = torch.stack([eta.cpu() for eta in solver.solve(trunks, planned.residuals).eta.values()])
        bound = group_mean(1 / eta.amin(0), problem.ties).clamp(1, self.max_scale)
        residuals, scale = compensate(fraction, planned.residuals, bound)
        return Targets(residuals, planned.hidden, planned.plan, None, scale)


@register
class ClosedLoop(Planner):
    """MetaKE: the target is a meta-parameter that is optimized through the solver."""

    kind = "closed-loop"
    short: ClassVar[dict[str, str]] = {
        "gradient": "hypergradient",
        "steps": "meta_steps",
        "lr": "meta_lr",
        "stop": "meta_stop",
        "kl": "locality",
        "cost_weight": "price",
    }

    start: SerializeAsAny[OpenLoop] = Field(OpenLoop(), description="planner of the initial target")
    gradient: SerializeAsAny[Gradient] = Field(
        UnrolledGradient(),
        description="proxy: the paper's; parallel: the sum over layers (X11); unrolled: exact (X10)",
    )
    steps: int = Field(15, ge=0, description="steps of the upper level, T of Algorithm 1")
    lr: float = Field(0.5, gt=0, description="Adam's learning rate in the upper level")
    stop: Stop = Field("executed", description="as stop of the open loop, for the upper level")
    kl: float = Field(0.0625, ge=0, description="alpha_loc of (6)")
    regularise: float = Field(0.0, ge=0, description="alpha_reg of (6), on ||z - z0||^2/||h||^2")
    cost_weight: float = Field(
        0.0, ge=0, description="weight of the update's cost on preserved keys, tr(D G D^T)/||h||^2 (X14)"
    )
    stop_loss: float = Field(0.05, ge=0, description="a request stops below this loss")
    check_every: int = Field(5, ge=1, description="steps between two evaluations of the executed loss")

    def plan(self, problem: PlanningProblem) -> Targets:
        problem = self.gradient.prepare(problem)
        start = self.start.plan(problem)
        if not self.steps:
            return start
        norms = problem.norms(self.start.relative)
        cost = self.cost_weight / norms.square() if self.cost_weight else None
        penalty = Penalty(kl=self.kl, initial_first=True, regularise=self.regularise, price=cost)
        closed = descend(
            self.gradient.slope(problem),
            start.residuals,
            norms,
            steps=self.steps,
            lr=self.lr,
            stop=self.stop,
            stop_loss=self.stop_loss,
            penalty=penalty,
            execute=lambda r: problem.execute(r, penalty),
            check_every=self.check_every,
            ties=problem.ties,
            tick=problem.on_step,
        )
        return Targets(closed.residuals, start.hidden, start.plan, closed, start.scale)

    def divided(self, rounds: int) -> Self:
        if rounds == 1:
            return self
        half = self.replaced("start", self.start.divided(rounds))
        return half.replaced("steps", _share(self.steps, rounds)) if self.steps else half

    @property
    def step_count(self) -> int:
        return self.start.step_count + self.steps
