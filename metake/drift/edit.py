"""One edit at one target: the hypergradient, the proxies, and both sides of Theorem 3."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from metake.drift.norms import Jacobian, Tokens, watched
from metake.lookup_prompts import LookupPrompts
from metake.models.editable import EditableModel
from metake.planners.hypergradient import (
    Factors,
    VirtualEditLoss,
    factor_gradients,
    measured_shares,
    through_shares,
    through_solve,
)
from metake.planners.objective import Losses, Objective
from metake.planners.target_optimization import Penalty
from metake.prompts import Batch
from metake.solvers.layered import LayeredSolver, Solution
from theory import fidelity

EVERYONE = torch.ones(1, dtype=torch.bool)
APPROXIMATIONS = ("proxy", "parallel", "open", "frozen")


class Edit:
    """A single request with its solver, its losses, and the proxy's channel at the unedited key.

    Args:
        model: the model.
        solver: solver over the edited layers.
        batch: the request.
        penalty: weights of the losses.
        max_tokens: padded tokens per pass; None for what suits the device.
    """

    def __init__(
        self,
        model: EditableModel,
        solver: LayeredSolver,
        batch: Batch,
        penalty: Penalty,
        max_tokens: int | None,
    ) -> None:
        self.model, self.solver, self.penalty = model, solver, penalty
        first, self.top = solver.layers[0], solver.layers[-1]
        self.prompts = LookupPrompts.build(model, batch, first)
        self.hidden, key = solver.unedited_stream_and_key(self.prompts)
        geometry = solver.geometries[self.top]
        channel = geometry.channel(key.T.to(geometry.device), solver.fit)
        self.objective = Objective(model, batch, first, self.top, channel=channel, max_tokens=max_tokens)
        self.proxy = VirtualEditLoss(self.objective, "channel")
        self.open = VirtualEditLoss(self.objective, "token")

    def gradients(
        self, residual: Tensor, *, open_loop: Tensor | None = None, twice: bool = False
    ) -> Gradients:
        """Gradients of the loss with respect to the residual.

        Args:
            residual: `1 x d_v`.
            open_loop: `1 x d_v`, the open-loop gradient at the residual, if it is known; no constraint changes it.
            twice: whether the solve at frozen keys can be differentiated twice; for the norms of Jacobians.

        Returns:
            The exact gradient and its approximations.
        """
        leaf, live = (residual.detach().clone().requires_grad_(True) for _ in range(2))
        with torch.enable_grad():
            if twice:  # the fused attention has no second derivative
                with sdpa_kernel(SDPBackend.MATH):
                    solution = self.solver.solve(self.prompts, leaf, differentiate_keys=False)
            else:
                solution = self.solver.solve(self.prompts, leaf, differentiate_keys=False)
            whole = self.solver.solve(self.prompts, live)
            with watched(self.model, self.top) as tokens:
                losses, gradients = factor_gradients(self.objective, whole.factors, EVERYONE, self.penalty)
            exact = through_solve(whole, gradients, live)[0]
            del whole
            if open_loop is None:
                open_loop = gradient_of(self.open, residual, self.penalty)
            return Gradients(
                edit=self,
                leaf=leaf,
                solution=solution,
                losses=losses,
                tokens=tokens,
                factors=gradients,
                exact=exact,
                frozen=through_solve(solution, gradients, leaf, retain=True)[0],
                parallel=through_shares(solution, gradients, self.solver)[0],
                proxy=gradient_of(self.proxy, residual, self.penalty)[0],
                open_loop=open_loop,
            )


def gradient_of(loss: VirtualEditLoss, residual: Tensor, penalty: Penalty) -> Tensor:
    """Gradient of the loss of a virtual edit.

    Args:
        loss: the loss.
        residual: `1 x d_v`.
        penalty: weights of the losses.

    Returns:
        `1 x d_v`.
    """
    gradient = loss(residual, EVERYONE, penalty)[1]
    assert gradient is not None
    return gradient


def _cosine(x: Tensor, y: Tensor) -> float:
    return fidelity.cosine(x.double().cpu().numpy(), y.double().cpu().numpy())


@dataclass(frozen=True)
class Gradients:
    """Gradients of one edit at one residual, from one solve with its graph; `l` is a layer, `L` the last one.

    Attributes:
        edit: the edit.
        leaf: the residual, with respect to which the solve is differentiated, `1 x d_v`.
        solution: solve at frozen keys.
        losses: post-edit losses.
        tokens: keys and signals of layer L, of which Gamma_L is the sum.
        factors: layer -> gradients of left and right.
        exact: hypergradient, `d_v`.
        frozen: hypergradient at frozen keys, `d_v`.
        parallel: parallel gradient (X11), `d_v`.
        proxy: gradient of the proxy, `d_v`.
        open_loop: gradient of the open loop, `1 x d_v`.
    """

    edit: Edit
    leaf: Tensor
    solution: Solution
    losses: Losses
    tokens: Tokens
    factors: Factors
    exact: Tensor
    frozen: Tensor
    parallel: Tensor
    proxy: Tensor
    open_loop: Tensor

    @property
    def cosines(self) -> dict[str, float]:
        """Cosines of the exact hypergradient with its approximations."""
        open_loop = self.open_loop[0]
        approximations = {
            "proxy": self.proxy,
            "parallel": self.parallel,
            "open": open_loop,
            "frozen": self.frozen,
        }
        return {name: _cosine(self.exact, gradient) for name, gradient in approximations.items()}

    @property
    def effects(self) -> dict[int, Tensor]:
        """Layer -> `Gamma_l q_l`, `d_v`."""
        return {layer: left[:, 0] for layer, (left, _) in self.factors.items()}

    @property
    def lefts(self) -> dict[int, Tensor]:
        """Layer -> residual that it writes, `d_v`, differentiable."""
        return {layer: left[:, 0] for layer, (left, _) in self.solution.factors.items()}

    @cached_property
    def each(self) -> dict[int, Tensor]:
        """Layer -> `g_l = J_l^T Gamma_l q_l`, `d_v`."""
        return {
            layer: torch.autograd.grad(left, self.leaf, self.effects[layer].to(left), retain_graph=True)[0][0]
            for layer, left in self.lefts.items()
        }

    @property
    def errors(self) -> dict[str, Tensor]:
        """Parts of the proxy's error, whose sum it is; `d_v` each."""
        top = list(self.each)[-1]
        tail = sum((self.each[layer] for layer in self.each if layer != top), torch.zeros_like(self.exact))
        return {
            "tail": tail,
            "allocation": self.each[top] - self.effects[top],
            "evaluation": self.effects[top] - self.proxy,
            "key derivative": self.exact - self.frozen,
        }

    def premises(self, norms: dict[str, Any]) -> dict[str, Any]:
        """Premises of Theorem 3, and its bounds.

        Args:
            norms: norms of Jacobians; empty if they were not computed.

        Returns:
            Name -> number.
        """
        top = list(self.each)[-1]
        size = {name: float(term.norm()) for name, term in self.errors.items()}
        last, effect = float(self.each[top].norm()), float(self.effects[top].norm())
        # eps_I: the norm of J_L - I, at least its stretch of the effect
        along = size["allocation"] / effect if effect else 0.0
        gap = max(norms.get("J_L - I", 0.0), along)
        q, Gamma = float(self.solution.factors[top][1].detach().norm()), self.tokens.norm()
        gamma = fidelity.tail([g.detach().double().cpu().numpy() for g in self.each.values()])
        sigma = effect / (Gamma * q)
        scaled = norms.get("J_L/c - I")
        bound = gamma * last + gap * Gamma * q
        return {
            "eps_I": gap,
            "eps_I along g~": along,
            "eps_I scaled": scaled,
            "gamma": gamma,
            "sigma": sigma,
            "zeta": fidelity.zeta(gamma, gap, sigma),
            "zeta'": fidelity.zeta_sharp(gamma, gap),
            "T3c": None if scaled is None else gamma**2 + scaled**2,
            "paper bound": bound,
            "bound": bound + size["evaluation"] + size["key derivative"],
        }

    def conclusions(self) -> dict[str, Any]:
        """Error of the proxy with its parts, and the self-checks."""
        terms, exact, frozen = self.errors, self.exact, self.frozen
        total = sum(self.each.values(), torch.zeros_like(exact))
        return {
            "exact": float(exact.norm()),
            "terms": {name: float(term.norm()) for name, term in terms.items()},
            "error": float((exact - self.proxy).norm()),
            "terms check": float(
                (sum(terms.values(), self.proxy) - exact).norm() / exact.norm().clamp_min(1e-300)
            ),
            "sum check": float((total - frozen).norm() / frozen.norm().clamp_min(1e-300)),
        }

    def per_layer(self) -> dict[str, list[float]]:
        """Attenuations, keys, shares and gradients of the edited layers, in their order."""
        layers, top = list(self.each), list(self.each)[-1]
        keys = {layer: key.detach() for layer, key in self.solution.keys.items()}
        effect, sizes = float(self.effects[top].norm()), [float(g.norm()) for g in self.each.values()]
        inner = [float(g @ self.effects[top]) for g in self.each.values()]
        shares = measured_shares(self.solution, self.edit.solver)
        return {
            "eta": [float(self.solution.eta[layer][0]) for layer in layers],
            "key": [float(keys[layer].norm()) for layer in layers],
            "key drift": [float((keys[layer] - keys[top]).norm() / keys[top].norm()) for layer in layers],
            "share": [float(shares[layer][0].detach()) for layer in layers],
            "effect": [float(self.effects[layer].norm()) for layer in layers],
            "g_l": sizes,
            "alignment": [x / max(effect * y, 1e-300) for x, y in zip(inner, sizes, strict=True)],
        }


ORDER = (
    *(
        "realized_share",
        "nll",
        "length",
        "eta",
        "key",
        "key drift",
        "share",
        "effect",
        "g_l",
        "alignment",
        "J_l",
    ),
    *("J_L - J_1", "eps_I", "eps_I along g~", "eps_I scaled", "gamma", "sigma", "zeta", "zeta'", "T3c"),
    *("exact", "terms", "error", "terms check", "paper bound", "bound", "sum check", "cos"),
)  # of the columns of drift.csv


def measure(gradients: Gradients, *, steps: int = 4) -> dict[str, Any]:
    """Both sides of Theorem 3 at a residual, as plain numbers.

    Norms of Jacobians are lower bounds, by a few steps of Golub and Kahan: a premise that fails here fails.

    Args:
        gradients: gradients of the edit at the residual.
        steps: pairs of products per norm, of gradients that can be differentiated twice; 0 leaves the norms of
            Jacobians out.

    Returns:
        Name -> number, list with a number per layer, or dictionary of numbers; None for what is not computed.
    """
    edit = gradients.edit
    norms = {} if steps == 0 else _norms(gradients, steps)
    effect = gradients.effects[edit.top]
    found = {
        "realized_share": float(gradients.solution.realized_share.detach()[0]),
        "nll": float(gradients.losses.nll[0]),
        "length": float(gradients.leaf.detach().norm() / edit.hidden.norm()),
        **gradients.per_layer(),
        "J_l": norms.get("J_l"),
        "J_L - J_1": norms.get("J_L - J_1"),
        **gradients.premises(norms),
        **gradients.conclusions(),
        "cos": {**gradients.cosines, "proxy at executed weights": _cosine(gradients.frozen, effect)},
    }
    return {name: found[name] for name in ORDER}


def _norms(gradients: Gradients, steps: int) -> dict[str, Any]:
    """`||J_l||` per layer, `||J_L - I||`, `||J_L/c - I||` at the c that fits the effect, and `||J_L - J_1||`.

    The residual of the first layer is its share of a constant, so J_1 is that share of I for any model (A1).

    Args:
        gradients: gradients that can be differentiated twice.
        steps: pairs of products per norm.

    Returns:
        Name -> norm.
    """
    lefts, leaf, effects = gradients.lefts, gradients.leaf, gradients.effects
    first = gradients.edit.solver.shares[0][1]
    layers = list(lefts)
    top, count = layers[-1], len(layers)
    out: dict[str, Any] = {"J_l": [first]}
    for layer in layers[1:]:
        jacobian, start = Jacobian(lefts[layer], leaf), effects[layer]
        out["J_l"].append(jacobian.norm(start, steps))
        if layer == top:
            along = float(jacobian.transposed(start) @ start.to(leaf) / (start @ start))
            scale = along if along > 0 else 1.0
            out["J_L - I"] = jacobian.norm(start, steps, shift=1.0)
            out["J_L/c - I"] = jacobian.norm(start, steps, shift=1.0, scale=scale)
            out["J_L - J_1"] = jacobian.norm(start, steps, shift=first)
    if count == 1:
        out |= {"J_L - I": 0.0, "J_L/c - I": 0.0, "J_L - J_1": 0.0}
    return out
