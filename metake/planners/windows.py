"""Planners of answers with several windows: one window after the other, with the residuals of earlier ones in place.

window-by-window   each residual minimizes the loss of its own window (AnyEdit)
matryoshka         each residual minimizes the mean loss of the nested spans that begin with its window (muKE)

The open-loop planner plans all windows at once, each for the sum of their losses. None of the three accounts for the
solve; the closed loop over all windows does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from metake.components import register
from metake.planners.objective import Objective
from metake.planners.open_loop import OpenLoop
from metake.planners.problem import PlanningProblem
from metake.planners.target_optimization import TargetOptimization


@register
class WindowByWindow(OpenLoop):
    """Planner of one window after the other: the loss of a window, with the residuals of earlier windows in place.

    With one window it is the open-loop planner. The defaults are the published numbers.

    Reference: AnyEdit (arXiv:2502.05628).
    """

    kind = "window-by-window"

    kl: float = Field(0.0, ge=0, description="weight of KL on '{} is a' [kl_factor]")
    decay: float = Field(1e-3, ge=0, description="weight of ||delta||/||h||^2 [v_weight_decay]")
    clamp: float | None = Field(
        4.0, gt=0, description="||delta|| <= clamp ||h||; none if null [clamp_norm_factor]"
    )
    stop_loss: float = Field(0.01, ge=0, description="a request stops below this loss")

    def _optimize(self, problem: PlanningProblem) -> TargetOptimization:
        order = problem.batch.order
        count = int(order.max()) + 1
        on_step = every(count, problem.on_step)
        residuals, found = torch.zeros_like(problem.hidden), None
        for window in range(count):
            active = order == window
            plan = self.optimize(problem, self.losses(problem, window, residuals), residuals, active, on_step)
            residuals = plan.residuals
            found = plan if found is None else merged(found, plan, active)
        assert found is not None
        return found

    def losses(self, problem: PlanningProblem, window: int, residuals: Tensor) -> Objective:
        """Losses that the residual of a window minimizes: by default that of its own tokens.

        Args:
            problem: the batch with its solver.
            window: index of the window within its request.
            residuals: `n x d_v`, those of earlier windows.

        Returns:
            The objective, with rows from the window's lookup token on.
        """
        return problem.planning_objective(range(window, window + 1), residuals)


@register
class Matryoshka(WindowByWindow):
    """Planner of one window after the other, each for its own and all later windows, weighted by their affinity.

    The loss of window j is the mean over m >= j of `(2 - a_jm)` times the loss of the tokens of windows j to m, relative
    to all tokens from j on. a_jm is the affinity: the cosine of the gradients, with respect to window j's residual, of
    the losses of window j and of windows j to m, as a mean over the first steps of a plan for window j alone.

    Reference: muKE (arXiv:2504.01196).
    """

    kind = "matryoshka"

    affinity_steps: int = Field(
        3, ge=0, description="steps over which affinities of windows are averaged; 0: all have affinity 1"
    )

    def losses(self, problem: PlanningProblem, window: int, residuals: Tensor) -> Objective:
        """Losses of nested spans, for the residual of a window.

        Args:
            problem: the batch with its solver.
            window: index of the window within its request.
            residuals: `n x d_v`, those of earlier windows.

        Returns:
            The objective of this and all later windows with the weights of the spans.
        """
        batch = problem.batch
        spans = nested_spans(batch.window_lengths, batch.owners, batch.order, window)
        affinities = self.affinities(problem, window, spans)
        objective = problem.planning_objective(range(window, window + len(spans)), residuals)
        return objective.weighted(matryoshka_weights(spans, affinities, batch.window_lengths))

    def affinities(self, problem: PlanningProblem, window: int, spans: list[Tensor]) -> Tensor:
        """Affinity of a window to each nested span, `spans x n`, fp64; the rows of other windows are 1.

        Args:
            problem: the batch with its solver.
            window: index of the window within its request.
            spans: result of `nested_spans`.

        Returns:
            Cosines; 1 for the window's own span.
        """
        active = problem.batch.order == window
        found = torch.ones(len(spans), len(active), dtype=torch.float64)
        if not self.affinity_steps or len(spans) < 2:
            return found
        residuals = torch.zeros_like(problem.hidden).requires_grad_(True)
        objective = problem.planning_objective(range(window, window + len(spans)))
        adam = torch.optim.Adam([residuals], lr=self.lr)
        cosines = []
        for _ in range(self.affinity_steps):
            own, *others = objective.gradients(residuals, spans, active)
            each = [torch.cosine_similarity(own, other, dim=1) for other in (own, *others)]
            cosines.append(torch.stack(each).cpu())
            residuals.grad = own * active.to(own)[:, None]
            adam.step()
        mean = torch.stack(cosines).mean(0).to(found)
        return torch.where(active, mean, found)


def nested_spans(lengths: Tensor, owners: Tensor, order: Tensor, window: int) -> list[Tensor]:
    """Mean losses of the spans that begin with a window: of itself, of it and the next window, and so on.

    Args:
        lengths: `n`, number of tokens of each window.
        owners: `n`, request of each.
        order: `n`, index of each within its request.
        window: index of the window within its request.

    Returns:
        Per further window a matrix `n x n`, fp64; the row of the window has the weights of a mean over all tokens of the
        span. A span that would end after the answer ends with it.
    """
    same = owners[:, None] == owners
    first, last = order == window, int(order.max())
    spans = []
    for end in range(window, last + 1):
        within = first[:, None] & same & (order >= window) & (order <= end)
        weights = (within * lengths).double()
        spans.append(weights / weights.sum(1, keepdim=True).clamp_min(1))
    return spans


def matryoshka_weights(spans: list[Tensor], affinities: Tensor, lengths: Tensor) -> Tensor:
    """Weights of all windows' mean losses in the loss of each window, `n x n`.

    Args:
        spans: result of `nested_spans`.
        affinities: `spans x n`.
        lengths: `n`, number of tokens of each window.

    Returns:
        The rows of windows that are not planned are 0.
    """
    inside = torch.stack([(span > 0) * lengths for span in spans])  # spans x n x n, tokens
    counts = (inside > 0).sum(2)  # windows of each span
    longer = torch.cat(
        [counts[:1] > 0, counts[1:] > counts[:-1]]
    )  # a span that ends with the answer counts once
    weights = ((2 - affinities) * longer)[:, :, None] * inside
    tokens = inside[-1].sum(1).clamp_min(1)
    nested = longer.sum(0).clamp_min(1)
    return weights.sum(0) / (nested * tokens)[:, None]


def every(count: int, on_step: Callable[[], object]) -> Callable[[], object]:
    """Callback that calls another one at every `count`-th call.

    Args:
        count: number of calls.
        on_step: the other callback.

    Returns:
        The callback.
    """
    calls = 0

    def step() -> None:
        nonlocal calls
        calls += 1
        if calls % count == 0:
            on_step()

    return step


def merged(earlier: TargetOptimization, later: TargetOptimization, active: Tensor) -> TargetOptimization:
    """Optimization of all windows, from one of the earlier windows and one of the next.

    Args:
        earlier: optimization of the earlier windows.
        later: optimization of the next ones, from the residuals of the earlier.
        active: `n` flags of the later windows.

    Returns:
        Residuals of the later optimization, with each window's own steps and losses.
    """
    return replace(
        later,
        steps=earlier.steps + later.steps,
        nll=torch.where(active.to(later.nll.device), later.nll, earlier.nll),
        post_edit_nll=torch.where(
            active.to(later.post_edit_nll.device), later.post_edit_nll, earlier.post_edit_nll
        ),
        nll_history=[*earlier.nll_history, *later.nll_history],
    )
