"""The interface of a planner: from a batch of requests to the residuals that are passed to the solver.

open-loop      Stage I, a target that ignores the solver (2)
compensated    the open-loop target, scaled until the solver realizes it in full (P4)
closed-loop    MetaKE, Algorithm 1: from either of them, the post-edit loss (6) is minimized through the solver
"""

from __future__ import annotations

from metake.components import Component
from metake.planners.problem import PlanningProblem, Targets


class Planner(Component):
    """Choice of a planner; a subclass defines `plan`.

    Example:
        >>> from dataclasses import replace
        >>> import metake as mk
        >>> class Half(mk.OpenLoop):
        ...     kind = "half"
        ...     def plan(self, problem):
        ...         targets = super().plan(problem)
        ...         return replace(targets, residuals=targets.residuals / 2)
        >>> isinstance(Half(), mk.Planner), Half().step_count
        (True, 25)
    """

    family = "planner"

    def plan(self, problem: PlanningProblem) -> Targets:
        """Targets of a batch.

        Args:
            problem: the batch with its solver, on the model as it is.

        Returns:
            Residuals and how they were found.
        """
        raise NotImplementedError

    def divided(self, rounds: int) -> Planner:
        """Planner of one of several rounds, which share its steps.

        Args:
            rounds: number of rounds.

        Returns:
            The planner itself if it takes no steps.
        """
        return self

    @property
    def scores_end(self) -> bool:
        """Whether the loss includes the end of the answer."""
        return False

    @property
    def measures_anchor(self) -> bool:
        """Whether the first batch gives a norm that later batches use (`Targets.anchor`)."""
        return False

    @property
    def step_count(self) -> int:
        """Largest number of gradient steps of a plan."""
        return 0


def share_of_steps(steps: int, rounds: int) -> int:
    """Steps of one of several rounds, at least 1.

    Args:
        steps: steps of all rounds together.
        rounds: number of rounds.

    Returns:
        The quotient, rounded down.
    """
    return max(1, steps // rounds)
