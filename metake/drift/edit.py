"""One edit at one target: the hypergradient, the proxies, and everything that Theorem 3 says about them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from metake.drift.norms import Jacobian, watched
from metake.models.architecture import Architecture
from metake.planners.hypergradient import Parallel, Unrolled, Virtual, factor_gradients, measured_shares
from metake.planners.objective import Objective
from metake.planners.target_optimization import LossWithGradient, Penalty
from metake.prompts import Batch, LookupPrompts
from metake.solvers.layered import LayeredSolver
from theory import fidelity

EVERYONE = torch.ones(1, dtype=torch.bool)
SLOPES = ("proxy", "parallel", "open", "frozen")


class Edit:
    """A single request with its solver, its losses and its proxy's channel at the unedited key."""

    def __init__(
        self,
        arch: Architecture,
        solver: LayeredSolver,
        batch: Batch,
        penalty: Penalty,
        max_tokens: int | None,
    ) -> None:
        self.arch, self.solver, self.penalty = arch, solver, penalty
        first, self.top = solver.layers[0], solver.layers[-1]
        self.prompts = LookupPrompts.build(arch, batch, first)
        self.hidden, key = solver.origin(self.prompts)
        geometry = solver.geometries[self.top]
        channel = geometry.channel(key.T.to(geometry.device), solver.fit)
        self.objective = Objective(arch, batch, first, self.top, channel=channel, max_tokens=max_tokens)
        self.slopes: dict[str, LossWithGradient] = {
            "proxy": Virtual(self.objective, "channel"),
            "parallel": Parallel(self.objective, solver, self.prompts),
            "open": Virtual(self.objective, "token"),
            "exact": Unrolled(self.objective, solver, self.prompts),
            "frozen": Unrolled(self.objective, solver, self.prompts, differentiate_keys=False),
        }

    def gradient(self, name: str, residual: Tensor) -> Tensor:
        with torch.enable_grad():
            gradient = self.slopes[name](residual, EVERYONE, self.penalty)[1]
        assert gradient is not None
        return gradient[0]

    def cosines(self, residual: Tensor) -> dict[str, float]:
        """Of the exact hypergradient with each of its stand-ins."""
        exact = self.gradient("exact", residual)
        return {name: _cosine(exact, self.gradient(name, residual)) for name in SLOPES}


def _cosine(x: Tensor, y: Tensor) -> float:
    return fidelity.cosine(x.double().cpu().numpy(), y.double().cpu().numpy())


def measure(edit: Edit, residual: Tensor, *, steps: int = 4) -> dict[str, Any]:
    """Both sides of Theorem 3 at `residual` (`1 x d_v`), as plain numbers.

    Norms of Jacobians are lower bounds (a few steps of Golub and Kahan), so a premise that fails here
    fails.

    Args:
        steps: pairs of products per norm; 0 leaves the norms of Jacobians out.
    """
    solver, objective, penalty = edit.solver, edit.objective, edit.penalty
    top, layers = edit.top, solver.layers
    leaf = residual.detach().clone().requires_grad_(True)
    # the fused attention has no second derivative
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        solution = solver.solve(edit.prompts, leaf, differentiate_keys=False)
        with watched(edit.arch, top) as tokens:
            losses, gradients = factor_gradients(objective, solution.factors, EVERYONE, penalty)
        effects = {layer: gradients[layer][0][:, 0] for layer in layers}  # Gamma_l q_l
        lefts = {layer: solution.factors[layer][0][:, 0] for layer in layers}
        each = {
            layer: torch.autograd.grad(
                lefts[layer], leaf, effects[layer].to(lefts[layer]), retain_graph=True
            )[0][0]
            for layer in layers
        }
        frozen = edit.gradient("frozen", residual)
        exact = edit.gradient("exact", residual)
        proxy, parallel = edit.gradient("proxy", residual), edit.gradient("parallel", residual)
        terms = {
            "tail": sum((each[layer] for layer in layers[:-1]), torch.zeros_like(exact)),
            "allocation": each[top] - effects[top],
            "evaluation": effects[top] - proxy,
            "moving keys": exact - frozen,
        }
        norms = {} if steps == 0 else _norms(lefts, leaf, effects, solver.shares[0][1], steps)
    # eps_I: the largest stretch seen; along the effect itself if no norms were asked for
    size = {name: float(term.norm()) for name, term in terms.items()}
    last, effect = float(each[top].norm()), float(effects[top].norm())
    seen = size["allocation"] / effect if effect else 0.0
    gap = max(norms.get("J_L - I", 0.0), seen)
    keys = {layer: key.detach() for layer, key in solution.keys.items()}
    q, Gamma = float(solution.factors[top][1].detach().norm()), tokens.norm()
    gamma = fidelity.tail([g.detach().double().cpu().numpy() for g in each.values()])
    sigma = effect / (Gamma * q)
    scaled = norms.get("J_L/c - I")
    inner = {layer: float(each[layer] @ effects[top]) for layer in layers}
    total = sum(each.values(), torch.zeros_like(exact))
    shares = measured_shares(solution, solver)
    return {
        "executed": float(solution.fraction.detach()[0]),
        "nll": float(losses.nll[0]),
        "length": float(residual.norm() / edit.hidden.norm()),
        "eta": [float(solution.eta[layer][0]) for layer in layers],
        "key": [float(keys[layer].norm()) for layer in layers],
        "key drift": [float((keys[layer] - keys[top]).norm() / keys[top].norm()) for layer in layers],
        "share": [float(shares[layer][0].detach()) for layer in layers],
        "effect": [float(effects[layer].norm()) for layer in layers],
        "g_l": [float(each[layer].norm()) for layer in layers],
        "alignment": [inner[layer] / max(effect * float(each[layer].norm()), 1e-300) for layer in layers],
        "J_l": norms.get("J_l"),
        "J_L - J_1": norms.get("J_L - J_1"),
        "eps_I": gap,
        "eps_I along g~": seen,
        "eps_I scaled": scaled,
        "gamma": gamma,
        "sigma": sigma,
        "zeta": fidelity.zeta(gamma, gap, sigma),
        "zeta'": fidelity.zeta_sharp(gamma, gap),
        "T3c": None if scaled is None else gamma**2 + scaled**2,
        "exact": float(exact.norm()),
        "terms": size,
        "error": float((exact - proxy).norm()),
        "terms check": float((sum(terms.values(), proxy) - exact).norm() / exact.norm().clamp_min(1e-300)),
        "paper bound": gamma * last + gap * Gamma * q,
        "bound": gamma * last + gap * Gamma * q + size["evaluation"] + size["moving keys"],
        "sum check": float((total - frozen).norm() / frozen.norm().clamp_min(1e-300)),
        "cos": {
            "proxy": _cosine(exact, proxy),
            "parallel": _cosine(exact, parallel),
            "frozen": _cosine(exact, frozen),
            "open": _cosine(exact, edit.gradient("open", residual)),
            "proxy at executed weights": _cosine(frozen, effects[top]),
        },
    }


def _norms(
    lefts: dict[int, Tensor], leaf: Tensor, effects: dict[int, Tensor], first: float, steps: int
) -> dict[str, Any]:
    """`||J_l||` per layer, `||J_L - I||`, `||J_L/c - I||` at the c that fits the effect, `||J_L - J_1||`.

    Args:
        first: the first layer's share; it asks that of a constant, so J_1 = I/n whatever the model (A1).
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
