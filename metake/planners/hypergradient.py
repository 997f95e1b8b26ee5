"""Gradients of the post-edit loss with respect to the targets.

    token      open loop: r is written at the lookup token of the last edited layer (2)
    proxy      through the channel of the last edited layer (7)-(9)
    parallel   all layers at once: sum_l s_l Gamma_l q_l at the post-edit weights, with the share s_l of
               the residual that was measured at each layer in place of J_l (X11)
    unrolled   exact: through keys, residuals and channels of the whole layered solve (X10)

Weights stay virtual: what is differentiated are the factors of each update, never a matrix of their
product's size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metake.lookup_prompts import LookupPrompts
from metake.planners.objective import Gate, Losses, Objective
from metake.planners.target_optimization import Penalty
from metake.solvers.layered import LayeredSolver, Solution, cost_of

Factors = dict[int, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class VirtualEditLoss:
    """Loss of one write at the last edited layer: the open loop (`token`) or the structural proxy (`channel`).

    Attributes:
        objective: losses of the batch.
        gate: where the residual is written.
        gram_channel: `K^T Q`, `n x n`, from which the proxy computes the cost of its update.
    """

    objective: Objective
    gate: Gate
    gram_channel: Tensor | None = None
    is_post_edit = False

    def __call__(
        self, residuals: Tensor, active: Tensor, penalty: Penalty, *, backward: bool = True
    ) -> tuple[Losses, Tensor | None]:
        """Losses of the virtual edit and their gradient; see `LossWithGradient`."""
        leaf = residuals.detach().requires_grad_(True)
        losses = self.objective.losses(
            leaf,
            self.gate,
            active,
            kl_weight=penalty.kl,
            kl_from_unedited=penalty.kl_from_unedited,
            end_weight=penalty.end,
            backward=backward,
        )
        if self.gram_channel is not None and penalty.cost_weights is not None:
            cost = penalty.cost_weights.to(leaf) * cost_of(leaf, self.gram_channel.to(leaf))
            if backward:
                torch.autograd.backward(cost.sum())
            losses = _with_cost(losses, cost)
        return losses, leaf.grad if backward else None


@dataclass(frozen=True)
class UnrolledLoss:
    """Post-edit loss with the hypergradient (X10).

    A step costs the pass from the first edited layer on, in place of the proxy's from the last, and a solve with its
    backward pass. The solve's graph is stored meanwhile: the activations of L blocks per token of the prompts, for L
    edited layers, and of `L (L - 1) / 2` more per token of the bare prompts.

    Attributes:
        objective: losses of the batch.
        solver: the lower level.
        prompts: prefixes of the requests up to the lookup token.
        differentiate_keys: whether the gradient includes the effect of lower updates on upper keys.
        from_lookup: whether the losses leave out the effect of the updates on tokens before the lookup token.
    """

    objective: Objective
    solver: LayeredSolver
    prompts: LookupPrompts
    differentiate_keys: bool = True
    from_lookup: bool = False
    is_post_edit = True

    def __call__(
        self, residuals: Tensor, active: Tensor, penalty: Penalty, *, backward: bool = True
    ) -> tuple[Losses, Tensor | None]:
        """Post-edit losses and the hypergradient; see `LossWithGradient`."""
        if not backward:
            solution = self.solver.solve(self.prompts, residuals.detach())
            return evaluate_post_edit(self.objective, solution, active, penalty, self.from_lookup), None
        leaf = residuals.detach().requires_grad_(True)
        solution = self.solver.solve(self.prompts, leaf, self.differentiate_keys)
        losses, gradients = factor_gradients(
            self.objective, solution.factors, active, penalty, self.from_lookup
        )
        cost = None
        if penalty.cost_weights is not None:
            cost = penalty.cost_weights.to(leaf) * solution.cost(self.differentiate_keys)
            losses = _with_cost(losses, cost)
        return losses, through_solve(solution, gradients, leaf, cost)


@dataclass(frozen=True)
class ParallelLoss:
    """Post-edit loss with the parallel gradient (X11): each layer's own gradient times its share, without recursion.

    Attributes:
        objective: losses of the batch.
        solver: the lower level.
        prompts: prefixes of the requests up to the lookup token.
    """

    objective: Objective
    solver: LayeredSolver
    prompts: LookupPrompts
    is_post_edit = True

    def __call__(
        self, residuals: Tensor, active: Tensor, penalty: Penalty, *, backward: bool = True
    ) -> tuple[Losses, Tensor | None]:
        """Post-edit losses and the parallel gradient; see `LossWithGradient`."""
        solution = self.solver.solve(self.prompts, residuals.detach())
        if not backward:
            return evaluate_post_edit(self.objective, solution, active, penalty), None
        losses, gradients = factor_gradients(self.objective, solution.factors, active, penalty)
        if penalty.cost_weights is not None:
            asked = {i: left.detach().requires_grad_(True) for i, (left, _) in solution.factors.items()}
            factors = {i: (left, solution.factors[i][1]) for i, left in asked.items()}
            cost = penalty.cost_weights.to(residuals) * replace(solution, factors=factors).cost()
            cost_gradients = torch.autograd.grad(cost.sum(), list(asked.values()))
            gradients = {
                i: (gradients[i][0] + cost_gradient, gradients[i][1])
                for i, cost_gradient in zip(asked, cost_gradients, strict=True)
            }
            losses = _with_cost(losses, cost)
        return losses, through_shares(solution, gradients, self.solver).to(residuals)


def evaluate_post_edit(
    objective: Objective, solution: Solution, active: Tensor, penalty: Penalty, from_lookup: bool = False
) -> Losses:
    """Post-edit losses of a solve, with its cost if that has a weight.

    Args:
        objective: losses of the batch.
        solution: the solve.
        active: `n` flags; the losses of other requests are 0.
        penalty: direction of KL, and weights of the cost.
        from_lookup: as of `Objective.post_edit_losses`.

    Returns:
        Losses per request.
    """
    losses = objective.post_edit_losses(
        solution.factors,
        active,
        from_lookup=from_lookup,
        kl_weight=penalty.kl,
        kl_from_unedited=penalty.kl_from_unedited,
        end_weight=penalty.end,
    )
    if penalty.cost_weights is None:
        return losses
    return _with_cost(losses, penalty.cost_weights.to(solution.planned) * solution.cost())


def _with_cost(losses: Losses, cost: Tensor) -> Losses:
    return replace(losses, cost=cost.detach().to(losses.nll))


def factor_gradients(
    objective: Objective, factors: Factors, active: Tensor, penalty: Penalty, from_lookup: bool = False
) -> tuple[Losses, Factors]:
    """Post-edit losses, and their gradients with respect to the factors of every layer.

    Args:
        objective: losses of the batch.
        factors: layer -> (left, right).
        active: `n` flags; the losses of other requests are left out.
        penalty: weight and direction of KL.
        from_lookup: as of `Objective.post_edit_losses`.

    Returns:
        The losses, and layer -> gradients of left and right. That of left is Gamma_l q_l (59); that of right is 0
        unless right requires a gradient.
    """
    leaves = {
        layer: (left.detach().requires_grad_(True), right.detach().requires_grad_(right.requires_grad))
        for layer, (left, right) in factors.items()
    }
    losses = objective.post_edit_losses(
        leaves,
        active,
        from_lookup=from_lookup,
        kl_weight=penalty.kl,
        kl_from_unedited=penalty.kl_from_unedited,
        end_weight=penalty.end,
        backward=True,
    )
    zero = torch.zeros_like
    return losses, {
        layer: (zero(a) if a.grad is None else a.grad, zero(b) if b.grad is None else b.grad)
        for layer, (a, b) in leaves.items()
    }


def through_solve(
    solution: Solution, gradients: Factors, leaf: Tensor, cost: Tensor | None = None, *, retain: bool = False
) -> Tensor:
    """Hypergradient of a loss from its gradients with respect to the factors, through the graph of the solve (X10).

    Args:
        solution: solve of `leaf`, with its graph.
        gradients: layer -> gradients of left and right, from `factor_gradients`.
        leaf: `n x d_v`, the residuals.
        cost: `n`, weighted cost of the update, which is added to the loss.
        retain: whether the graph is kept.

    Returns:
        `n x d_v`.
    """
    wanted = [
        (x, g)
        for layer in gradients
        for x, g in zip(solution.factors[layer], gradients[layer], strict=True)
        if x.requires_grad
    ]
    if cost is not None:
        wanted.append((cost, torch.ones_like(cost)))
    (gradient,) = torch.autograd.grad(
        [x for x, _ in wanted], leaf, [g.to(x) for x, g in wanted], retain_graph=retain
    )
    return gradient


@torch.no_grad()
def through_shares(solution: Solution, gradients: Factors, solver: LayeredSolver) -> Tensor:
    """Parallel gradient of a loss from its gradients with respect to the factors (X11).

    Args:
        solution: the solve.
        gradients: layer -> gradients of left and right, from `factor_gradients`.
        solver: its solver.

    Returns:
        `n x d_v`.
    """
    planned = solution.planned
    shares = measured_shares(solution, solver)
    return sum(
        (
            solution.to_value(layer, gradients[layer][0].T.to(planned)) * shares[layer].to(planned)[:, None]
            for layer in shares
        ),
        torch.zeros_like(planned),
    )


def measured_shares(solution: Solution, solver: LayeredSolver) -> dict[int, Tensor]:
    """Share of the planned residual that each layer was asked for, `<left_l, r> / ||r||^2`.

    Args:
        solution: the solve.
        solver: its solver.

    Returns:
        Layer -> `n`. Where a residual is 0: the allocation's share, as if layers below had added nothing.
    """
    plan = solution.planned
    square = (plan**2).sum(1)
    shares = {}
    for layer, share in solver.shares:
        left = solution.factors[layer][0].T.to(plan)
        asked = left * solution.gains[layer].to(plan) if layer in solution.gains else left
        along = (asked * plan).sum(1) / square.clamp_min(torch.finfo(square.dtype).tiny)
        shares[layer] = torch.where(square > 0, along, share)
    return shares
