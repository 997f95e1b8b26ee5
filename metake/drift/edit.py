"""One edit at one target: the hypergradient, the proxies, and both sides of Theorem 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from metake.drift.norms import Jacobian, watched
from metake.models.editable import EditableModel
from metake.planners.hypergradient import (
    ParallelLoss,
    UnrolledLoss,
    VirtualEditLoss,
    factor_gradients,
    measured_shares,
)
from metake.planners.objective import Losses, Objective
from metake.planners.target_optimization import LossWithGradient, Penalty
from metake.prompts import Batch, LookupPrompts
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
        self.losses: dict[str, LossWithGradient] = {
            "proxy": VirtualEditLoss(self.objective, "channel"),
            "parallel": ParallelLoss(self.objective, solver, self.prompts),
            "open": VirtualEditLoss(self.objective, "token"),
            "exact": UnrolledLoss(self.objective, solver, self.prompts),
            "frozen": UnrolledLoss(self.objective, solver, self.prompts, differentiate_keys=False),
        }

    def gradient(self, name: str, residual: Tensor) -> Tensor:
        """Gradient of the loss with respect to the residual.

        Args:
            name: `exact`, or one of its approximations: `proxy`, `parallel`, `open`, `frozen`.
            residual: `1 x d_v`.

        Returns:
            `d_v`.
        """
        with torch.enable_grad():
            gradient = self.losses[name](residual, EVERYONE, self.penalty)[1]
        assert gradient is not None
        return gradient[0]

    def cosines(self, residual: Tensor) -> dict[str, float]:
        """Cosines of the exact hypergradient with its approximations.

        Args:
            residual: `1 x d_v`.

        Returns:
            Name of the approximation -> cosine.
        """
        exact = self.gradient("exact", residual)
        return {name: _cosine(exact, self.gradient(name, residual)) for name in APPROXIMATIONS}


def _cosine(x: Tensor, y: Tensor) -> float:
    return fidelity.cosine(x.double().cpu().numpy(), y.double().cpu().numpy())


@dataclass(frozen=True)
class _Terms:
    """Gradients of one edit, and the solve that they belong to; `l` is a layer, `L` the last one.

    Attributes:
        solution: solve at frozen keys.
        losses: post-edit losses.
        weight_gradient_norm: `||Gamma_L||`, spectral.
        lefts: layer -> residual that it writes, `d_v`, differentiable.
        effects: layer -> `Gamma_l q_l`, `d_v`.
        each: layer -> `g_l = J_l^T Gamma_l q_l`, `d_v`.
        exact: hypergradient, `d_v`.
        frozen: hypergradient at frozen keys, `d_v`.
        proxy: gradient of the proxy, `d_v`.
    """

    solution: Solution
    losses: Losses
    weight_gradient_norm: float
    lefts: dict[int, Tensor]
    effects: dict[int, Tensor]
    each: dict[int, Tensor]
    exact: Tensor
    frozen: Tensor
    proxy: Tensor

    @classmethod
    def of(cls, edit: Edit, residual: Tensor, leaf: Tensor) -> _Terms:
        """Gradients at a residual; `leaf` is its copy, with respect to which the solve is differentiated."""
        solver, layers = edit.solver, edit.solver.layers
        solution = solver.solve(edit.prompts, leaf, differentiate_keys=False)
        with watched(edit.model, edit.top) as tokens:
            losses, gradients = factor_gradients(edit.objective, solution.factors, EVERYONE, edit.penalty)
        effects = {layer: gradients[layer][0][:, 0] for layer in layers}
        lefts = {layer: solution.factors[layer][0][:, 0] for layer in layers}
        each = {
            layer: torch.autograd.grad(
                lefts[layer], leaf, effects[layer].to(lefts[layer]), retain_graph=True
            )[0][0]
            for layer in layers
        }
        frozen, exact = edit.gradient("frozen", residual), edit.gradient("exact", residual)
        proxy = edit.gradient("proxy", residual)
        return cls(solution, losses, tokens.norm(), lefts, effects, each, exact, frozen, proxy)

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
        q, Gamma = float(self.solution.factors[top][1].detach().norm()), self.weight_gradient_norm
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

    def per_layer(self, solver: LayeredSolver) -> dict[str, list[float]]:
        """Attenuations, keys, shares and gradients of the edited layers, in their order."""
        layers, top = list(self.each), list(self.each)[-1]
        keys = {layer: key.detach() for layer, key in self.solution.keys.items()}
        effect, sizes = float(self.effects[top].norm()), [float(g.norm()) for g in self.each.values()]
        inner = [float(g @ self.effects[top]) for g in self.each.values()]
        shares = measured_shares(self.solution, solver)
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


def measure(edit: Edit, residual: Tensor, *, steps: int = 4) -> dict[str, Any]:
    """Both sides of Theorem 3 at a residual, as plain numbers.

    Norms of Jacobians are lower bounds, by a few steps of Golub and Kahan: a premise that fails here fails.

    Args:
        edit: the edit.
        residual: `1 x d_v`.
        steps: pairs of products per norm; 0 leaves the norms of Jacobians out.

    Returns:
        Name -> number, list with a number per layer, or dictionary of numbers; None for what is not computed.
    """
    leaf = residual.detach().clone().requires_grad_(True)
    # the fused attention has no second derivative
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        terms = _Terms.of(edit, residual, leaf)
        first = edit.solver.shares[0][1]
        norms = {} if steps == 0 else _norms(terms.lefts, leaf, terms.effects, first, steps)
        parallel = edit.gradient("parallel", residual)
    exact = terms.exact
    found = {
        "realized_share": float(terms.solution.realized_share.detach()[0]),
        "nll": float(terms.losses.nll[0]),
        "length": float(residual.norm() / edit.hidden.norm()),
        **terms.per_layer(edit.solver),
        "J_l": norms.get("J_l"),
        "J_L - J_1": norms.get("J_L - J_1"),
        **terms.premises(norms),
        **terms.conclusions(),
        "cos": {
            "proxy": _cosine(exact, terms.proxy),
            "parallel": _cosine(exact, parallel),
            "frozen": _cosine(exact, terms.frozen),
            "open": _cosine(exact, edit.gradient("open", residual)),
            "proxy at executed weights": _cosine(terms.frozen, terms.effects[edit.top]),
        },
    }
    return {name: found[name] for name in ORDER}


def _norms(
    lefts: dict[int, Tensor], leaf: Tensor, effects: dict[int, Tensor], first: float, steps: int
) -> dict[str, Any]:
    """`||J_l||` per layer, `||J_L - I||`, `||J_L/c - I||` at the c that fits the effect, and `||J_L - J_1||`.

    Args:
        lefts: layer -> residual that it writes, `d_v`, its graph kept.
        leaf: residual of the target, `1 x d_v`.
        effects: layer -> `Gamma_l q_l`, `d_v`.
        first: share of the first layer; its residual is that share of a constant, so J_1 = I/n for any model (A1).
        steps: pairs of products per norm.

    Returns:
        Name -> norm.
    """
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
