"""The open-loop planner: the published target, which ignores the solver (2), (10)-(12)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor

from metake.components import register
from metake.planners.base import Planner, share_of_steps
from metake.planners.hypergradient import VirtualEditLoss
from metake.planners.objective import Objective
from metake.planners.problem import PlanningProblem, Scale, Targets
from metake.planners.target_optimization import Penalty, Stop, TargetOptimization, optimize_targets


@register
class OpenLoop(Planner):
    """Published planner: minimize the loss of a residual that is written at the lookup token.

    Reference: ROME (arXiv:2202.05262) and MEMIT (arXiv:2210.07229); equations (2), (10)-(12).

    Example:
        >>> import metake as mk
        >>> planner = mk.OpenLoop(steps=30)
        >>> planner.step_count, planner.divided(3).steps
        (30, 10)
    """

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
        "planning_loss",
        description="early stop: on the planning loss (published), on the loss after the solve, or none",
    )
    stop_loss: float = Field(0.05, ge=0, description="a request stops below this loss")
    check_every: int = Field(5, ge=1, description="steps between two evaluations of the post-edit loss")
    end_weight: float = Field(
        0.0,
        ge=0,
        description="weight of the end of the answer after the target, as far as the target itself is likely; 0: the end is not scored",
    )

    def plan(self, problem: PlanningProblem) -> Targets:
        """Targets that ignore the solver.

        Args:
            problem: the batch with its solver, on the model as it is.

        Returns:
            Residuals of the open-loop optimization.
        """
        plan = problem.plan or self._optimize(problem)
        return Targets(plan.residuals, problem.hidden, plan, None, torch.ones(len(plan.residuals)))

    def _optimize(self, problem: PlanningProblem) -> TargetOptimization:
        return self.optimize(problem, problem.planning_objective(), torch.zeros_like(problem.hidden))

    def optimize(
        self,
        problem: PlanningProblem,
        objective: Objective,
        start: Tensor,
        active: Tensor | None = None,
        on_step: Callable[[], object] | None = None,
    ) -> TargetOptimization:
        """Residuals that minimize the loss of a write at the lookup tokens.

        Args:
            problem: the batch with its solver.
            objective: losses of the batch.
            start: `n x d_v`.
            active: `n` flags of the residuals to optimize; the others are written as they are. All if None.
            on_step: called after every gradient step; that of the problem by default.

        Returns:
            The optimization.
        """
        penalty = Penalty(kl=self.kl, decay=self.decay, clamp=self.clamp, end=self.end_weight)
        return optimize_targets(
            VirtualEditLoss(objective, "token"),
            start,
            problem.norms(self.relative),
            steps=self.steps,
            lr=self.lr,
            stop=self.stop,
            stop_loss=self.stop_loss,
            penalty=penalty,
            evaluate_post_edit=lambda r: problem.evaluate_post_edit(r, penalty),
            check_every=self.check_every,
            groups=problem.groups,
            on_step=on_step or problem.on_step,
            active=active,
        )

    def divided(self, rounds: int) -> Self:
        """Planner of one of several rounds, which share its steps.

        Args:
            rounds: number of rounds.

        Returns:
            A copy with `steps / rounds` steps.
        """
        return self if rounds == 1 else self.replaced("steps", share_of_steps(self.steps, rounds))

    @property
    def scores_end(self) -> bool:
        """Whether the end of the answer has a weight."""
        return self.end_weight > 0

    @property
    def step_count(self) -> int:
        """Largest number of gradient steps."""
        return self.steps
