"""The closed-loop planner: MetaKE's upper level (Algorithm 1)."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, SerializeAsAny

from metake.components import register
from metake.planners.base import Planner, share_of_steps
from metake.planners.gradients import Gradient, UnrolledGradient
from metake.planners.open_loop import OpenLoop
from metake.planners.problem import PlanningProblem, Targets
from metake.planners.target_optimization import Penalty, Stop, optimize_targets


@register
class ClosedLoop(Planner):
    """MetaKE's planner: the target is a meta-parameter that is optimized through the solver.

    Reference: Algorithm 1, equations (4)-(12).
    """

    kind = "closed-loop"
    aliases: ClassVar[dict[str, str]] = {
        "gradient": "hypergradient",
        "steps": "meta_steps",
        "lr": "meta_lr",
        "stop": "meta_stop",
        "kl": "locality",
    }

    start: SerializeAsAny[OpenLoop] = Field(OpenLoop(), description="planner of the initial target")
    gradient: SerializeAsAny[Gradient] = Field(
        UnrolledGradient(),
        description="proxy: the paper's; parallel: the sum over layers (X11); unrolled: exact (X10)",
    )
    steps: int = Field(15, ge=0, description="steps of the upper level, T of Algorithm 1")
    lr: float = Field(0.5, gt=0, description="Adam's learning rate in the upper level")
    stop: Stop = Field("post_edit_loss", description="as stop of the open loop, for the upper level")
    kl: float = Field(0.0625, ge=0, description="alpha_loc of (6)")
    regularization: float = Field(0.0, ge=0, description="alpha_reg of (6), on ||z - z0||^2/||h||^2")
    cost_weight: float = Field(
        0.0, ge=0, description="weight of the update's cost on preserved keys, tr(D G D^T)/||h||^2 (X14)"
    )
    stop_loss: float = Field(0.05, ge=0, description="a request stops below this loss")
    check_every: int = Field(5, ge=1, description="steps between two evaluations of the post-edit loss")
    end_weight: float = Field(
        0.0,
        ge=0,
        description="weight of the end of the answer after the target, as far as the target itself is likely; 0: the end is not scored",
    )

    def plan(self, problem: PlanningProblem) -> Targets:
        """Targets that minimize the post-edit loss (6), from the targets of `start`.

        Args:
            problem: the batch with its solver, on the model as it is.

        Returns:
            Residuals of the upper level; those of `start` if it takes no steps.
        """
        problem = self.gradient.prepare(problem)
        start = self.start.plan(problem)
        if not self.steps:
            return start
        norms = problem.norms(self.start.relative)
        cost = self.cost_weight / norms.square() if self.cost_weight else None
        penalty = Penalty(
            kl=self.kl,
            kl_from_unedited=True,
            regularization=self.regularization,
            cost_weights=cost,
            end=self.end_weight,
        )
        closed = optimize_targets(
            self.gradient.loss_with_gradient(problem),
            start.residuals,
            norms,
            steps=self.steps,
            lr=self.lr,
            stop=self.stop,
            stop_loss=self.stop_loss,
            penalty=penalty,
            evaluate_post_edit=lambda r: problem.evaluate_post_edit(r, penalty),
            check_every=self.check_every,
            groups=problem.groups,
            on_step=problem.on_step,
        )
        return Targets(closed.residuals, start.hidden, start.plan, closed, start.scale)

    def divided(self, rounds: int) -> Self:
        """Planner of one of several rounds, which share its steps.

        Args:
            rounds: number of rounds.

        Returns:
            A copy with the steps of both loops divided by `rounds`.
        """
        if rounds == 1:
            return self
        planner = self.replaced("start", self.start.divided(rounds))
        return planner.replaced("steps", share_of_steps(self.steps, rounds)) if self.steps else planner

    @property
    def scores_end(self) -> bool:
        """Whether the end of the answer has a weight in one of both loops."""
        return self.end_weight > 0 or self.start.scores_end

    @property
    def step_count(self) -> int:
        """Largest number of gradient steps of both loops."""
        return self.start.step_count + self.steps
