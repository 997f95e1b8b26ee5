"""Gradient descent on the targets of a batch, each with its own Adam state and its own stop.

One loop serves the open loop and the closed one: they differ in the gradient that is followed
(`hypergradient.py`), and in the penalties.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from metake.planners.objective import Losses

Stop = Literal["own", "executed", "none"]
CLAMPED = 1e-4  # relative distance of a norm from the clamp, far above the rounding of fp32


@dataclass(frozen=True)
class Penalty:
    """Loss weights and constraints of the target optimization.

    Attributes:
        kl: weight of the guards' divergence; `initial_first` is its direction (see `Objective`).
        decay: weight of ||r|| / ||h||^2 (published code; not squared).
        regularise: weight of ||r - r_0||^2 / ||h||^2, L_reg of (6) in units of the stream.
        clamp: ||r|| <= clamp ||h|| after every step.
        price: `n` weights of what each request's update costs in the geometry (X14); none if null.
    """

    kl: float = 0.0
    initial_first: bool = False
    decay: float = 0.0
    regularise: float = 0.0
    clamp: float | None = None
    price: Tensor | None = None

    def score(self, losses: Losses) -> Tensor:
        """The weighted sum of what was measured, per request."""
        return losses.nll + self.kl * losses.kl + (0.0 if losses.cost is None else losses.cost)


class Slope(Protocol):
    """Losses at residuals (`n x d_v`, a leaf); with `backward` their gradient is added to `residuals.grad`."""

    @property
    def executed(self) -> bool:
        """Whether the losses are those after execution, and not of a model of it."""

    def __call__(
        self, residuals: Tensor, active: Tensor, penalty: Penalty, *, backward: bool = True
    ) -> Losses: ...


@dataclass(frozen=True)
class Descent:
    """Where the targets ended.

    Attributes:
        residuals: `n x d_v`.
        steps: gradient steps each request took.
        nll: own loss's NLL at the last look, per request.
        executed: NLL after execution of the kept residual, NaN where it was never looked at.
        trail: mean NLL over all requests per step, of the last known value of each.
        clamped: whether each residual has the largest norm that the clamp allows.
    """

    residuals: Tensor
    steps: Tensor
    nll: Tensor
    executed: Tensor
    trail: list[float]
    clamped: Tensor


def mean_within(values: Tensor, groups: Tensor, size: int) -> Tensor:
    """`t x ...` in groups below `size` -> `size x ...`, the mean of each; 0 for one without members."""
    at = groups.to(values.device)
    summed = values.new_zeros(size, *values.shape[1:]).index_add_(0, at, values)
    counts = torch.bincount(at, minlength=size).to(values).clamp_min(1)
    return summed / counts.reshape(-1, *[1] * (values.ndim - 1))


def group_mean(values: Tensor, groups: Tensor | None) -> Tensor:
    """`n x ...` -> the same shape, every entry the mean over its group; as it is without groups."""
    if groups is None:
        return values
    return mean_within(values, groups, len(values))[groups.to(values.device)]


@torch.enable_grad()
def descend(
    slope: Slope,
    start: Tensor,
    norms: Tensor,
    *,
    steps: int,
    lr: float,
    penalty: Penalty,
    stop: Stop,
    stop_loss: float,
    execute: Callable[[Tensor], Losses],
    check_every: int = 5,
    ties: Tensor | None = None,
    tick: Callable[[], object] = lambda: None,
) -> Descent:
    """Minimise over residuals from `start` (`n x d_v`, fp32).

    Args:
        norms: `n`, ||h|| at the lookup token, the scale of clamp and penalties.
        ties: `n` group numbers; the requests of a group share one residual and its loss, which is their
            mean, as are their start and their norm.
        steps: how often the loss is looked at; as published, the last look takes no step.
        stop: `own` freezes a request once its own loss is below `stop_loss`; `executed` looks at the
            loss after execution every `check_every` steps (every step if the slope knows it anyway),
            freezes below `stop_loss`, and returns the best residual seen; `none` runs to the end.
        execute: residuals -> losses after execution of all of them.
    """
    size = len(start)
    start, norms = group_mean(start, ties), group_mean(norms, ties)
    residuals = start.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([residuals], lr=lr)
    square = (norms**2).to(start)[:, None]
    active = torch.ones(size, dtype=torch.bool)
    taken = torch.zeros(size, dtype=torch.long)
    nll = torch.full((size,), float("nan"), dtype=start.dtype)
    best, best_nll = torch.full_like(nll, float("inf")), nll.clone()
    kept = start.clone()
    trail: list[float] = []

    def look(losses: Losses) -> None:
        """Score the executed losses, keep each request's best, freeze those that are done."""
        score = penalty.score(losses).to(best)
        better = active & (score < best)
        best[better], best_nll[better] = score[better], losses.nll[better].to(best)
        chosen = better.to(kept.device)
        kept[chosen] = residuals.detach()[chosen]
        active[active & (losses.nll < stop_loss)] = False

    def together(losses: Losses) -> Losses:
        cost = None if losses.cost is None else group_mean(losses.cost, ties)
        return Losses(group_mean(losses.nll, ties), group_mean(losses.kl, ties), cost)

    def clamped(residuals: Tensor) -> Tensor:
        limit = float("inf") if penalty.clamp is None else penalty.clamp * (1 - CLAMPED)
        return residuals.detach().norm(dim=1).cpu() >= limit * norms.cpu()

    for step in range(steps):
        if stop == "executed" and not slope.executed and step % check_every == 0:
            look(together(execute(residuals.detach())))
        if not bool(active.any()):
            break
        residuals.grad = None
        only_look = step == steps - 1 and stop != "executed"
        losses = together(slope(residuals, active, penalty, backward=not only_look))
        nll[active] = losses.nll[active].to(nll)
        trail.append(float(nll.nanmean()))
        tick()
        extra = penalty.decay * residuals.norm(dim=1, keepdim=True) / square
        extra = extra + penalty.regularise * (residuals - start).square().sum(1, keepdim=True) / square
        total = penalty.score(losses) + extra.detach()[:, 0].cpu()
        if stop == "executed" and slope.executed:
            look(losses)
            if not bool(active.any()):
                break
        if stop == "own":
            active[active & (total < stop_loss)] = False
        if only_look:
            break
        if penalty.decay or penalty.regularise:
            pull = torch.autograd.grad(extra.sum(), residuals)[0]
            assert residuals.grad is not None
            residuals.grad += torch.nan_to_num(pull)  # the norm has no gradient at 0
        with torch.no_grad():
            if residuals.grad is not None:
                residuals.grad = group_mean(residuals.grad, ties)
            frozen = ~active.to(residuals.device)
            before = residuals.detach()[frozen].clone()
            optimiser.step()
            residuals[frozen] = before  # momentum must not move what has stopped
            if penalty.clamp is not None:
                limit = (penalty.clamp * norms).to(residuals)[:, None]
                residuals *= (limit / residuals.norm(dim=1, keepdim=True).clamp_min(1e-30)).clamp_max(1)
        taken[active] += 1
    if stop != "executed":
        return Descent(residuals.detach(), taken, nll, best_nll, trail, clamped(residuals))
    if bool(active.any()):
        look(together(execute(residuals.detach())))
    return Descent(kept, taken, nll, best_nll, trail, clamped(kept))
