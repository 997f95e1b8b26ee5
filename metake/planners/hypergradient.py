"""Gradients by the targets: how a residual is felt, and what is differentiated of the way there.

    token      open loop: r is written at the lookup token of the last edited layer (2)
    proxy      through the channel of the last edited layer (7)-(9)
    parallel   all layers at once: sum_l s_l Gamma_l q_l at the executed weights, with the share s_l of
               the residual that was measured at each layer in place of J_l (X11)
    unrolled   exact: through keys, residuals and channels of the whole layered solve (X10)

Weights stay virtual: what is differentiated are the factors of each update, never a matrix of their
product's size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metake.planners.descent import Penalty
from metake.planners.objective import Gate, Losses, Objective
from metake.prompts import LookupPrompts
from metake.solvers.layered import Keys, LayeredSolver, Solution, cost_of

Factors = dict[int, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Virtual:
    """The open loop (`token`) or the structural proxy (`channel`): one write at the last edited layer.

    Args:
        kept: `K^T Q`, `n x n`, by which the proxy knows what its write costs.
    """

    objective: Objective
    gate: Gate
    kept: Tensor | None = None
    executed = False

    def __call__(
        self, residuals: Tensor, active: Tensor, penalty: Penalty, *, backward: bool = True
    ) -> Losses:
        losses = self.objective.losses(
            residuals,
            self.gate,
            active,
            kl_weight=penalty.kl,
            initial_first=penalty.initial_first,
            backward=backward,
        )
        if self.kept is None or penalty.price is None:
            return losses
        cost = penalty.price.to(residuals) * cost_of(residuals, self.kept.to(residuals))
        if backward:
            cost.sum().backward()
        return _priced(losses, cost)


@dataclass(frozen=True)
class Unrolled:
    """The hypergradient itself, and the executed losses.

    Costs a step the pass from the first edited layer on, in place of the proxy's from the last, and a
    solve with its backward pass. The solve's graph is held meanwhile: per token of the prompts about
    `L (L + 1) / 2` blocks' activations for L edited layers.

    Args:
        keys: frozen leaves out what lower updates do to upper channels.
    """

    objective: Objective
    solver: LayeredSolver
    prompts: LookupPrompts
    keys: Keys = "moving"
    executed = True

    def __call__(
        self, residuals: Tensor, active: Tensor, penalty: Penalty, *, backward: bool = True
    ) -> Losses:
        if not backward:
            return look(self.objective, self.solver.solve(self.prompts, residuals.detach()), active, penalty)
        solution = self.solver.solve(self.prompts, residuals, self.keys)
        losses, gradients = factor_gradients(self.objective, solution.factors, active, penalty)
        wanted = [
            (x, g)
            for layer in gradients
            for x, g in zip(solution.factors[layer], gradients[layer], strict=True)
            if x.requires_grad
        ]
        if penalty.price is not None:
            cost = penalty.price.to(residuals) * solution.cost(self.keys)
            wanted.append((cost, torch.ones_like(cost)))
            losses = _priced(losses, cost)
        torch.autograd.backward([x for x, _ in wanted], [g for _, g in wanted])
        return losses


@dataclass(frozen=True)
class Parallel:
    """Every layer's own gradient at the executed weights, times the share it was asked for; no recursion."""

    objective: Objective
    solver: LayeredSolver
    prompts: LookupPrompts
    executed = True

    def __call__(
        self, residuals: Tensor, active: Tensor, penalty: Penalty, *, backward: bool = True
    ) -> Losses:
        solution = self.solver.solve(self.prompts, residuals.detach())
        if not backward:
            return look(self.objective, solution, active, penalty)
        losses, gradients = factor_gradients(self.objective, solution.factors, active, penalty)
        if penalty.price is not None:
            asked = {i: left.detach().requires_grad_(True) for i, (left, _) in solution.factors.items()}
            factors = {i: (left, solution.factors[i][1]) for i, left in asked.items()}
            cost = penalty.price.to(residuals) * replace(solution, factors=factors).cost()
            slopes = torch.autograd.grad(cost.sum(), list(asked.values()))
            gradients = {
                i: (gradients[i][0] + slope, gradients[i][1]) for i, slope in zip(asked, slopes, strict=True)
            }
            losses = _priced(losses, cost)
        shares = measured_shares(solution, self.solver)
        total = sum(
            (gradients[i][0].T.to(residuals) * shares[i].to(residuals)[:, None] for i in shares),
            torch.zeros_like(residuals),
        )
        residuals.grad = total if residuals.grad is None else residuals.grad + total
        return losses


def look(objective: Objective, solution: Solution, active: Tensor, penalty: Penalty) -> Losses:
    """The losses of an executed solve, and its cost if that has a price."""
    losses = objective.executed(
        solution.factors, active, kl_weight=penalty.kl, initial_first=penalty.initial_first
    )
    if penalty.price is None:
        return losses
    return _priced(losses, penalty.price.to(solution.planned) * solution.cost())


def _priced(losses: Losses, cost: Tensor) -> Losses:
    return replace(losses, cost=cost.detach().to(losses.nll))


def factor_gradients(
    objective: Objective, factors: Factors, active: Tensor, penalty: Penalty
) -> tuple[Losses, Factors]:
    """Executed losses, and their gradients by the factors of every layer: Gamma_l q_l by `left` (59).

    Only factors that require a gradient get one for `right`; `left` always does.
    """
    leaves = {
        layer: (left.detach().requires_grad_(True), right.detach().requires_grad_(right.requires_grad))
        for layer, (left, right) in factors.items()
    }
    losses = objective.executed(
        leaves, active, kl_weight=penalty.kl, initial_first=penalty.initial_first, backward=True
    )
    zero = torch.zeros_like
    return losses, {
        layer: (zero(a) if a.grad is None else a.grad, zero(b) if b.grad is None else b.grad)
        for layer, (a, b) in leaves.items()
    }


def measured_shares(solution: Solution, solver: LayeredSolver) -> dict[int, Tensor]:
    """Layer -> `n`: what was asked of it along the planned residual, `<left_l, r> / ||r||^2`.

    Where nothing is planned yet: the allocation's share, as if layers below had added nothing.
    """
    plan = solution.planned
    square = (plan**2).sum(1)
    shares = {}
    for layer, share in solver.shares:
        left = solution.factors[layer][0].T.to(plan)
        along = (left * plan).sum(1) / square.clamp_min(torch.finfo(square.dtype).tiny)
        shares[layer] = torch.where(square > 0, along, share)
    return shares
