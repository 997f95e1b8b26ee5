"""Gradient descent on the targets of a batch; every request has its own Adam state and its own stop.

One loop serves the open and the closed planner. They differ in the loss with gradient (`hypergradient.py`) and in the
penalties.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from metake.planners.objective import Losses

Stop = Literal["planning_loss", "post_edit_loss", "none"]
CLAMPED = 1e-4  # relative distance of a norm from the clamp, far above the rounding of fp32


@dataclass(frozen=True)
class Penalty:
    """Loss weights and constraints of the target optimization.

    Attributes:
        kl: weight of the KL divergence; `kl_from_unedited` is its direction (see `Objective`).
        decay: weight of ||r|| / ||h||^2 (published code; not squared).
        regularization: weight of ||r - r_0||^2 / ||h||^2, L_reg of (6) relative to the stream.
        clamp: ||r|| <= clamp ||h|| after every step.
        cost_weights: `n` weights of the update's cost in the geometry (X14); no cost if None.
        end: weight of the end of the answer.
    """

    kl: float = 0.0
    kl_from_unedited: bool = False
    decay: float = 0.0
    regularization: float = 0.0
    clamp: float | None = None
    cost_weights: Tensor | None = None
    end: float = 0.0

    def score(self, losses: Losses) -> Tensor:
        """Weighted sum of the losses of each request.

        Args:
            losses: each part of shape `n`.

        Returns:
            Shape `n`.
        """
        return self.answer(losses) + self.kl * losses.kl + (0.0 if losses.cost is None else losses.cost)

    def answer(self, losses: Losses) -> Tensor:
        """Loss of the answer, by which a request stops: NLL, and weighted loss of the end if it is scored.

        Args:
            losses: each part of shape `n`.

        Returns:
            Shape `n`.
        """
        return losses.nll if losses.end is None else losses.nll + self.end * losses.end


class LossWithGradient(Protocol):
    """Losses of residuals, with the gradient of their weighted sum."""

    @property
    def is_post_edit(self) -> bool:
        """Whether the losses are those after the solve, and not of a model of it."""

    def __call__(
        self, residuals: Tensor, active: Tensor, penalty: Penalty, *, backward: bool = True
    ) -> tuple[Losses, Tensor | None]:
        """Losses per request, and the gradient of their weighted sum with respect to the residuals.

        Args:
            residuals: `n x d_v`.
            active: `n` flags; the losses of other requests are left out (they are 0).
            penalty: weights of the losses.
            backward: whether to compute the gradient.

        Returns:
            The losses, and the gradient (`n x d_v`) or None.
        """


@dataclass(frozen=True)
class TargetOptimization:
    """Result of a target optimization.

    Attributes:
        residuals: `n x d_v`.
        steps: gradient steps that each request took.
        nll: NLL of the planning loss at its last evaluation, per request.
        post_edit_nll: NLL after the solve for the best residual, NaN where it was not evaluated.
        nll_history: mean NLL over all requests per step, of the last known value of each.
        clamped: whether each residual has the largest norm that the clamp allows.
    """

    residuals: Tensor
    steps: Tensor
    nll: Tensor
    post_edit_nll: Tensor
    nll_history: list[float]
    clamped: Tensor


def mean_within(values: Tensor, groups: Tensor, size: int) -> Tensor:
    """Mean of each group.

    Args:
        values: `t x ...`.
        groups: `t` group numbers below `size`.
        size: number of groups.

    Returns:
        `size x ...`; 0 for a group without members.
    """
    at = groups.to(values.device)
    summed = values.new_zeros(size, *values.shape[1:]).index_add_(0, at, values)
    counts = torch.bincount(at, minlength=size).to(values).clamp_min(1)
    return summed / counts.reshape(-1, *[1] * (values.ndim - 1))


def group_mean(values: Tensor, groups: Tensor | None) -> Tensor:
    """Values replaced by the mean over their group.

    Args:
        values: `n x ...`.
        groups: `n` group numbers, or None.

    Returns:
        `n x ...`; `values` itself without groups.
    """
    if groups is None:
        return values
    return mean_within(values, groups, len(values))[groups.to(values.device)]


class _Requests:
    """Residuals under optimization, and for each request its activity and its best residual."""

    def __init__(
        self,
        start: Tensor,
        norms: Tensor,
        lr: float,
        penalty: Penalty,
        stop_loss: float,
        groups: Tensor | None,
        active: Tensor | None,
    ) -> None:
        self.penalty, self.stop_loss, self.groups = penalty, stop_loss, groups
        self.start, self.norms = group_mean(start, groups), group_mean(norms, groups)
        self.residuals = self.start.clone().requires_grad_(True)
        self.adam = torch.optim.Adam([self.residuals], lr=lr)
        self.square_norms = (self.norms**2).to(start)[:, None]
        self.active = torch.ones(len(start), dtype=torch.bool) if active is None else active.clone()
        self.steps = torch.zeros(len(start), dtype=torch.long)
        self.nll = torch.full((len(start),), float("nan"), dtype=start.dtype)
        self.nll_history: list[float] = []
        self.best = self.start.clone()
        self.best_score, self.best_nll = torch.full_like(self.nll, float("inf")), self.nll.clone()

    def grouped(self, losses: Losses) -> Losses:
        """Losses with every part replaced by its mean over the group."""
        cost = None if losses.cost is None else group_mean(losses.cost, self.groups)
        end = None if losses.end is None else group_mean(losses.end, self.groups)
        return Losses(group_mean(losses.nll, self.groups), group_mean(losses.kl, self.groups), cost, end)

    def record(self, losses: Losses) -> Losses:
        """Losses as group means; their NLL is stored for the active requests."""
        losses = self.grouped(losses)
        self.nll[self.active] = losses.nll[self.active].to(self.nll)
        self.nll_history.append(float(self.nll.nanmean()))
        return losses

    def regularization(self) -> Tensor:
        """Decay and L_reg of each residual, `n x 1`, differentiable."""
        decay: Tensor = self.penalty.decay * self.residuals.norm(dim=1, keepdim=True) / self.square_norms
        distance = (self.residuals - self.start).square().sum(1, keepdim=True)
        return decay + self.penalty.regularization * distance / self.square_norms

    def evaluate(self, evaluate_post_edit: Callable[[Tensor], Losses]) -> None:
        """Evaluate the loss after the solve and update the best residuals."""
        self.update_best(self.grouped(evaluate_post_edit(self.residuals.detach())))

    def update_best(self, losses: Losses) -> None:
        """Store the residuals with a better post-edit loss than before; stop requests below `stop_loss`."""
        score = self.penalty.score(losses).to(self.best_score)
        better = self.active & (score < self.best_score)
        self.best_score[better], self.best_nll[better] = score[better], losses.nll[better].to(self.best_nll)
        chosen = better.to(self.best.device)
        self.best[chosen] = self.residuals.detach()[chosen]
        self.stop_below(self.penalty.answer(losses))

    def stop_below(self, losses: Tensor) -> None:
        """Stop the requests whose loss (`n`) is below `stop_loss`."""
        self.active[self.active & (losses < self.stop_loss)] = False

    @property
    def finished(self) -> bool:
        """Whether all requests have stopped."""
        return not bool(self.active.any())

    def step(self, gradient: Tensor, regularization: Tensor) -> None:
        """One step of Adam for the active requests, then the clamp."""
        if self.penalty.decay or self.penalty.regularization:
            regularization_gradient = torch.autograd.grad(regularization.sum(), self.residuals)[0]
            gradient = gradient + torch.nan_to_num(regularization_gradient)  # the norm has no gradient at 0
        with torch.no_grad():
            self.residuals.grad = group_mean(gradient, self.groups)
            frozen = ~self.active.to(self.residuals.device)
            before = self.residuals.detach()[frozen].clone()
            self.adam.step()
            self.residuals[frozen] = before  # momentum must not move what has stopped
            if self.penalty.clamp is not None:
                limit = (self.penalty.clamp * self.norms).to(self.residuals)[:, None]
                norms = self.residuals.norm(dim=1, keepdim=True).clamp_min(1e-30)
                self.residuals *= (limit / norms).clamp_max(1)
        self.steps[self.active] += 1

    def result(self, residuals: Tensor) -> TargetOptimization:
        """The optimization with these residuals as its result."""
        limit = float("inf") if self.penalty.clamp is None else self.penalty.clamp * (1 - CLAMPED)
        clamped = residuals.norm(dim=1).cpu() >= limit * self.norms.cpu()
        return TargetOptimization(residuals, self.steps, self.nll, self.best_nll, self.nll_history, clamped)


@torch.enable_grad()
def optimize_targets(
    loss: LossWithGradient,
    start: Tensor,
    norms: Tensor,
    *,
    steps: int,
    lr: float,
    penalty: Penalty,
    stop: Stop,
    stop_loss: float,
    evaluate_post_edit: Callable[[Tensor], Losses],
    check_every: int = 5,
    groups: Tensor | None = None,
    on_step: Callable[[], object] = lambda: None,
    active: Tensor | None = None,
) -> TargetOptimization:
    """Residuals that minimize a loss, found by Adam from `start`.

    Args:
        loss: losses with their gradient.
        start: `n x d_v`, fp32.
        norms: `n`, ||h|| at the lookup token, to which clamp and penalties are relative.
        steps: evaluations of the loss; as published, the last one takes no step.
        lr: Adam's learning rate.
        penalty: loss weights and constraints.
        stop: `planning_loss` stops a request once its loss in the planning objective is below `stop_loss`;
            `post_edit_loss` does so by the loss after the solve and returns the best residual; `none` takes all steps.
        stop_loss: loss at which a request stops.
        evaluate_post_edit: residuals -> losses after the solve for all of them.
        check_every: steps between two evaluations after the solve, if `loss` is not that loss.
        groups: `n` group numbers; a group shares one residual, and its means of losses, starts and norms.
        on_step: called after every evaluation of the loss.
        active: `n` flags of the residuals to optimize; the others stay at `start`. All if None.

    Returns:
        The last residuals, or the best ones; see `stop`.
    """
    requests = _Requests(start, norms, lr, penalty, stop_loss, groups, active)
    post_edit = stop == "post_edit_loss"
    for step in range(steps):
        if post_edit and not loss.is_post_edit and step % check_every == 0:
            requests.evaluate(evaluate_post_edit)
        if requests.finished:
            break
        last = step == steps - 1 and not post_edit
        found, gradient = loss(requests.residuals, requests.active, penalty, backward=not last)
        losses = requests.record(found)
        on_step()
        regularization = requests.regularization()
        if post_edit and loss.is_post_edit:
            requests.update_best(losses)
            if requests.finished:
                break
        if stop == "planning_loss":
            requests.stop_below(penalty.score(losses) + regularization.detach()[:, 0].cpu())
        if gradient is None:
            break
        requests.step(gradient, regularization)
    if not post_edit:
        return requests.result(requests.residuals.detach())
    if loss.is_post_edit and not requests.finished:
        found, _ = loss(requests.residuals.detach(), requests.active, penalty, backward=False)
        requests.update_best(requests.grouped(found))
    elif not requests.finished:
        requests.evaluate(evaluate_post_edit)
    return requests.result(requests.best)
