"""Plausible wrong versions of the formulas: each is a mistake that somebody could make.

`where` is the attribute that is replaced, `wrong` says the mistake, `formula` is the wrong version.
The suite has to reject every one (`test_powerful.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from metake.geometry.null_space import Projected
from metake.geometry.operator import Geometry, Ridge
from metake.solvers.layered import LayeredSolver
from theory import fidelity, suppression, trap
from theory.trap import Interval

eye, norm, inv, sqrt = np.eye, np.linalg.norm, np.linalg.inv, np.sqrt


@dataclass(frozen=True)
class Mutant:
    """One mistake.

    Attributes:
        where: the object whose attribute is replaced.
        name: the attribute.
        wrong: the mistake in words.
        formula: what stands in its place.
        tests: for a mistake in the library's code: module of `verification` whose tests must notice.
    """

    where: Any
    name: str
    wrong: str
    formula: Callable
    tests: str = ""

    @property
    def id(self) -> str:
        return f"{getattr(self.where, '__name__', '')}.{self.name}: {self.wrong}"


def _rho(G, k):
    return k @ np.linalg.solve(G, k)


def _bound(norm, outside, height, mu_min):
    return norm**2 * ((1 - outside) / height + outside / mu_min)


SUPPRESSION = [
    Mutant(suppression, "preserving_geometry", "the other tokens forgotten", lambda G, K_p: G),
    Mutant(suppression, "preserving_geometry", "sum of keys, not of their squares", lambda G, K_p: G + np.outer(K_p.sum(1), K_p.sum(1))),
    Mutant(suppression, "realizability", "G for its inverse", lambda G, k: float(k @ G @ k)),
    Mutant(suppression, "realizability", "largest eigenvalue for the form", lambda G, k: k @ k / np.linalg.eigvalsh(G)[-1]),
    Mutant(suppression, "realizability", "square root taken", lambda G, k: sqrt(_rho(G, k))),
    Mutant(suppression, "attenuation", "missing +1", lambda rho: rho / (rho + np.finfo(float).tiny)),
    Mutant(suppression, "attenuation", "rho itself", lambda rho: rho),
    Mutant(suppression, "attenuation", "1/(1 + rho): what is lost", lambda rho: 1 / (1 + rho)),
    Mutant(suppression, "attenuation", "canceling 1 - 1/(1 + rho)", lambda rho: 1 - 1 / (1 + rho)),
    Mutant(suppression, "attenuation", "2 for 1", lambda rho: rho / (2 + rho)),
    Mutant(suppression, "channel", "missing 1/(1 + rho)", lambda G, k: np.linalg.solve(G, k)),
    Mutant(suppression, "channel", "1/rho, the exact fit", lambda G, k: np.linalg.solve(G, k) / _rho(G, k)),
    Mutant(suppression, "channel", "raw key", lambda G, k: k / (1 + _rho(G, k))),
    Mutant(suppression, "gradient", "missing penalty", lambda D, G, k, r: 2 * np.outer(D @ k - r, k)),
    Mutant(suppression, "gradient", "wrong sign of r", lambda D, G, k, r: 2 * np.outer(D @ k + r, k) + 2 * D @ G),
    Mutant(suppression, "gradient", "missing 2 on the penalty", lambda D, G, k, r: 2 * np.outer(D @ k - r, k) + D @ G),
    Mutant(suppression, "realizability_spectral", "missing square", lambda mu, a: float(np.sum(np.abs(a) / mu))),
    Mutant(suppression, "realizability_spectral", "times mu", lambda mu, a: float(np.sum(a**2 * mu))),
    Mutant(suppression, "suppression_bound", "norm not squared", lambda n, e, M, m: _bound(sqrt(n), e, M, m)),
    Mutant(suppression, "suppression_bound", "shares swapped", lambda n, e, M, m: _bound(n, 1 - e, M, m)),
    Mutant(suppression, "suppression_bound", "missing the part outside", lambda n, e, M, m: n**2 * (1 - e) / M),
    Mutant(suppression, "suppression_bound", "missing 1 - eps, loose", lambda n, e, M, m: n**2 * (1 / M + e / m)),
    Mutant(suppression, "suppression_limit", "norm not squared", lambda n, M: n / (M + n)),
    Mutant(suppression, "suppression_limit", "missing + ||k||^2, loose", lambda n, M: n**2 / M),
    Mutant(suppression, "mean_realizability", "missing lambda", lambda d, w: float(d)),
    Mutant(suppression, "mean_realizability", "d squared, loose", lambda d, w: d**2 / w),
    Mutant(suppression, "attenuation_drift_bound", "missing square root of mu",
           lambda k, g, mu: 3 * sqrt(3) / 8 * k / mu + g / (4 * mu)),
    Mutant(suppression, "attenuation_drift_bound", "constant too small", lambda k, g, mu: 0.6 * k / sqrt(mu) + g / (4 * mu)),
    Mutant(suppression, "attenuation_drift_bound", "constant 1, loose", lambda k, g, mu: k / sqrt(mu) + g / (4 * mu)),
    Mutant(suppression, "attenuation_drift_bound", "geometry term halved",
           lambda k, g, mu: 3 * sqrt(3) / 8 * k / sqrt(mu) + g / (8 * mu)),
    Mutant(suppression, "projected_edit", "unprojected key",
           lambda P, k, r, beta, past=None: np.outer(r, k) @ inv(np.outer(k, k) + beta * eye(len(k)))),
    Mutant(suppression, "projected_edit", "history unprojected",
           lambda P, k, r, beta, past=None: np.outer(r, suppression.solve(
               beta * eye(len(k)) + P @ np.outer(k, k) @ P + (0 if past is None else past @ past.T), P @ k))),
    Mutant(suppression, "projected_attenuation", "unprojected key", lambda P, k, beta: k @ k / (beta + k @ k)),
    Mutant(suppression, "projected_attenuation", "missing beta", lambda P, k, beta: float(norm(P @ k) > 0)),
    Mutant(suppression, "coordinates_edit", "history forgotten",
           lambda V, k, r, beta, past=None: suppression.edit(beta * eye(V.shape[1]), V.T @ k, r) @ V.T),
    Mutant(suppression, "coordinates_edit", "missing beta",
           lambda V, k, r, beta, past=None: suppression.edit(
               eye(V.shape[1]) + (0 if past is None else V.T @ past @ past.T @ V), V.T @ k, r) @ V.T),
    Mutant(suppression, "penalized_geometry", "penalty on the null space itself",
           lambda P, beta, t: beta * eye(len(P)) + t * P),
    Mutant(suppression, "gram", "G for its inverse", lambda G, K: K.T @ G @ K),
    Mutant(suppression, "edit_cost", "inverse of G", lambda G, D: float(np.sum(np.linalg.solve(G, D.T).T * D))),
    Mutant(suppression, "edit_cost", "G left out", lambda G, D: float(np.sum(D * D))),
    Mutant(suppression, "batch_cost", "what is missing, squared",
           lambda S, R: float(np.sum((R - R @ suppression.retention(S)) ** 2))),
    Mutant(suppression, "batch_cost", "what is realized, squared",
           lambda S, R: float(np.sum((R @ suppression.retention(S)) ** 2))),
    Mutant(suppression, "least_cost", "S for its inverse", lambda S, X: float(np.sum((X @ S) * X))),
    Mutant(suppression, "priced_shift", "price on the gram", lambda S, X, price: X @ suppression.retention(price * S)),
    Mutant(suppression, "priced_shift", "price left out", lambda S, X, price: X @ suppression.retention(S)),
    Mutant(suppression, "retention", "(I + S)^-1: what is lost", lambda S: inv(eye(len(S)) + S)),
    Mutant(suppression, "retention", "diagonal only", lambda S: np.diag(np.diag(S) / (1 + np.diag(S)))),
    Mutant(suppression, "batch_edit", "edits solved one by one",
           lambda G, K, R: sum(suppression.edit(G, K[:, j], R[:, j]) for j in range(K.shape[1]))),
    Mutant(suppression, "exact_edit", "I + S for S", lambda G, K, R: suppression.batch_edit(G, K, R)),
    Mutant(suppression, "compensated_residuals", "divided by eta one by one", lambda S, R: R * (1 + 1 / np.diag(S))),
    Mutant(suppression, "compensated_residuals", "R B", lambda S, R: R @ S @ inv(eye(len(S)) + S)),
    Mutant(suppression, "batch_shortfall_bound", "s_max for s_min", lambda S, R: norm(R) / (1 + np.linalg.eigvalsh(S)[-1])),
    Mutant(suppression, "room", "trace of S", lambda S: float(np.trace(S))),
    Mutant(suppression, "room", "the rank itself", lambda S: float(np.linalg.matrix_rank(S))),
    Mutant(suppression, "room_bound", "1 at any number", lambda n, rank: 1.0),
    Mutant(suppression, "room_bound", "the other way round", lambda n, rank: min(1.0, n / rank)),
    Mutant(suppression, "two_sided_edit", "B forgotten", lambda G, B, k, r: suppression.edit(G, k, r)),
    Mutant(suppression, "two_sided_attenuation", "b times rho", lambda rho, b: b * rho / (1 + b * rho)),
    Mutant(suppression, "rounding_bound", "missing condition number", lambda eps, condition, factor=8.0: factor * eps),
]  # fmt: skip

TRAP = [
    Mutant(trap, "surrogate", "missing half on lam", lambda d, g, A, lam: float(g @ d + d @ A @ d / 2 + lam * d @ d)),
    Mutant(trap, "surrogate", "missing curvature", lambda d, g, A, lam: float(g @ d + lam / 2 * d @ d)),
    Mutant(trap, "displacement", "wrong sign", lambda g, A, lam: np.linalg.solve(A + lam * eye(len(g)), g)),
    Mutant(trap, "displacement", "A - lam I", lambda g, A, lam: -np.linalg.solve(A - lam * eye(len(g)) * (1 + 1e-9), g)),
    Mutant(trap, "radius", "squared", lambda g, A, lam: norm(np.linalg.solve(A + lam * eye(len(g)), g)) ** 2),
    Mutant(trap, "inscribed_radius", "missing square root", lambda mu, tau: tau / mu),
    Mutant(trap, "inscribed_radius", "tau squared", lambda mu, tau: tau**2 / sqrt(mu)),
    Mutant(trap, "circumscribed_radius", "missing square root", lambda mu, tau: tau / mu),
    Mutant(trap, "mismatch", "missing square root", lambda kappa: kappa),
    Mutant(trap, "ball_trap", "other direction", lambda p, mu, tau: p < tau / sqrt(mu)),
    Mutant(trap, "ball_trap_relative", "kappa without root", lambda theta, kappa: kappa > 1 / theta),
    Mutant(trap, "ball_trap_relative", "theta for 1/theta", lambda theta, kappa: sqrt(kappa) > theta),
    Mutant(trap, "shared_penalties", "ends swapped", lambda a, b, p, mu, tau: Interval(a / p, b * sqrt(mu) / tau)),
    Mutant(trap, "shared_penalties", "missing square root", lambda a, b, p, mu, tau: Interval(b * mu / tau, a / p)),
    Mutant(trap, "request_trap_relative", "a/b for b/a", lambda theta, a, b, kappa: theta * (a / b) * sqrt(kappa) > 1),
    Mutant(trap, "request_trap_relative", "kappa alone", lambda theta, a, b, kappa: theta * sqrt(kappa) > 1),
    Mutant(trap, "margin_norm", "squared norm", lambda m, v, basis=None: m / norm(v) ** 2),
    Mutant(trap, "margin_norm", "gradient not projected", lambda m, v, basis=None: m / norm(v)),
    Mutant(trap, "execution_cost", "eta for rho", lambda d, rho: float(d @ d * (1 + rho) / rho)),
    Mutant(trap, "execution_cost", "times rho", lambda d, rho: float(d @ d * rho)),
    Mutant(trap, "cost_penalties", "missing square root", lambda a, b, p, rho, tau: Interval(b / (tau * rho), a / p)),
    Mutant(trap, "kl_inside", "smallest eigenvalue", lambda F, H, s, tau: bool(
        s**2 * trap.relative_spectrum(F, H)[0] <= tau**2)),
    Mutant(trap, "kl_mismatch", "missing square root", lambda F, H: trap.relative_spectrum(F, H)[-1] / trap.relative_spectrum(F, H)[0]),
    Mutant(trap, "kl_mismatch", "condition of H alone", lambda F, H: sqrt(np.linalg.cond(H))),
    Mutant(trap, "relative_condition_bounds", "sum for product", lambda f, h: (max(f / h, h / f), f + h)),
    Mutant(trap, "regularized_penalties", "f_e and f_h swapped",
           lambda a, b, fe, fh, p, mu, tau: Interval(b * sqrt(mu) / (tau * fe), a / (p * fh))),
    Mutant(trap, "one_sided_limit", "ratio inverted", lambda fe, fh, p, mu, tau: tau * fe / (p * fh * sqrt(mu))),
    Mutant(trap, "two_sided_window", "moved the wrong way",
           lambda theta, kappa, fe, fh: (theta * fe / (fh * sqrt(kappa)), fe / (fh * sqrt(kappa) * theta))),
    Mutant(trap, "two_sided_window", "one end only",
           lambda theta, kappa, fe, fh: (0.0, fh / (fe * sqrt(kappa) * theta))),
    Mutant(trap, "aligned_displacement", "missing square root",
           lambda g, H, R: -R * np.linalg.solve(H, g) / (g @ np.linalg.solve(H, g))),
    Mutant(trap, "penalty_floor", "largest eigenvalue", lambda A: float(max(0.0, -np.linalg.eigvalsh(A)[-1]))),
    Mutant(trap, "curved_penalties", "curvature added",
           lambda a, b, ae, ah, p, mu, tau, floor: Interval(b * sqrt(mu) / tau + ah, a / p + ae, floor)),
    Mutant(trap, "ball_trap", "border counted in", lambda p, mu, tau: p >= tau / sqrt(mu)),
    Mutant(trap, "kl_inside", "border left out", lambda F, H, s, tau: bool(
        s**2 * trap.relative_spectrum(F, H)[-1] < tau**2)),
    Mutant(trap, "relative_condition_bounds", "one-sided below", lambda f, h: (f / h, f * h)),
    Mutant(trap, "curved_sandwich", "never decides", lambda *a: (False, False)),
    Mutant(trap, "curved_sandwich", "floor forgotten",
           lambda a, b, A, u, v, p, mu, tau: (
               bool(b * sqrt(mu) / tau - v @ A @ v > a / p - np.linalg.eigvalsh(A)[0]),
               bool(b * sqrt(mu) / tau - np.linalg.eigvalsh(A)[0] <= a / p - u @ A @ u))),
    Mutant(trap, "curved_penalties", "floor forgotten",
           lambda a, b, ae, ah, p, mu, tau, floor: Interval(b * sqrt(mu) / tau - ah, a / p - ae, -np.inf)),
]  # fmt: skip


def _spread_late(layers):
    return [(layer, 1 / (len(layers) - i + 1)) for i, layer in enumerate(layers)]


def _even(n):
    return np.full(n, 1 / n)


FIDELITY = [
    Mutant(fidelity, "inverse_drift_stated", "mu squared below", lambda mu, e: e / mu**2),
    Mutant(fidelity, "inverse_drift", "minus for plus, loose", lambda mu, e: e / (mu * abs(mu - e)) if e != mu else np.inf),
    Mutant(fidelity, "inverse_drift", "squared below", lambda mu, e: e / (mu + e) ** 2),
    Mutant(fidelity, "channel_drift", "constant 1/4", lambda k, g, mu, B: k / mu + min(g / (4 * mu**1.5), B * g / (mu * (mu + g)))),
    Mutant(fidelity, "channel_drift", "missing key drift", lambda k, g, mu, B: min(g / (2 * mu**1.5), B * g / (mu * (mu + g)))),
    Mutant(fidelity, "channel_drift", "key drift over sqrt(mu)",
           lambda k, g, mu, B: k / sqrt(mu) + min(g / (2 * mu**1.5), B * g / (mu * (mu + g)))),
    Mutant(fidelity, "proxy_gradient", "wrong sign", lambda Gamma, q: -Gamma @ q),
    Mutant(fidelity, "proxy_gradient", "channel normalized", lambda Gamma, q: Gamma @ q / norm(q)),
    Mutant(fidelity, "joint_proxy_gradient", "own column only", lambda Gamma, Q: Gamma @ np.tile(Q[:, :1], (1, Q.shape[1]))),
    Mutant(fidelity, "layer_gradient", "J_L forgotten", lambda J, Gamma, q: Gamma @ q),
    Mutant(fidelity, "layer_gradient", "J not transposed", lambda J, Gamma, q: J @ (Gamma @ q)),
    Mutant(fidelity, "allocation_drift_bound", "missing denominator", lambda e: e),
    Mutant(fidelity, "tail", "largest for the sum", lambda gs: max((norm(g) for g in gs[:-1]), default=0.0) / norm(gs[-1])),
    Mutant(fidelity, "error_bound", "missing tail", lambda gamma, last, gap, Gamma, q: gap * Gamma * q),
    Mutant(fidelity, "error_bound", "missing allocation", lambda gamma, last, gap, Gamma, q: gamma * last),
    Mutant(fidelity, "nondegeneracy", "missing ||q||", lambda Gamma, q: norm(Gamma @ q) / norm(Gamma, 2)),
    Mutant(fidelity, "zeta", "missing 1 + eps", lambda gamma, gap, sigma: gamma + gap / sigma),
    Mutant(fidelity, "zeta", "times sigma", lambda gamma, gap, sigma: gamma * (1 + gap) + gap * sigma),
    Mutant(fidelity, "zeta_sharp", "missing product", lambda gamma, gap: gamma + gap),
    Mutant(fidelity, "descent_bound", "one triangle for all", lambda gamma, gap: 1 - fidelity.zeta_sharp(gamma, gap)),
    Mutant(fidelity, "channel_drift_stated", "twice the keys forgotten",
           lambda k, g, mu, B: k / mu + B * (g + B * k) / (mu * (mu - g - B * k)) if g + B * k < mu else np.inf),
    Mutant(fidelity, "allocation_scales", "what is missing forgotten", lambda etas: fidelity.spread_shares(len(etas))),
    Mutant(fidelity, "cosine", "one norm only", lambda x, y: float(x @ y / norm(x)) if norm(x) else 0.0),
    Mutant(fidelity, "scaled_gap", "no scale", lambda J: norm(J - eye(len(J)), 2)),
    Mutant(fidelity, "cosine_bound", "wrong sign", lambda gamma, gap: sqrt((1 - gap**2) * (1 - gamma**2)) + gap * gamma),
    Mutant(fidelity, "cosine_bound", "missing square root", lambda gamma, gap: (1 - gap**2) * (1 - gamma**2) - gap * gamma),
    Mutant(fidelity, "spread_shares", "equal shares", _even),
    Mutant(fidelity, "spread_shares", "off by one", lambda n: 1 / np.arange(n + 1, 1, -1)),
    Mutant(fidelity, "missing_shares", "off by one",
           lambda etas: np.cumprod(1 - np.asarray(etas) * fidelity.spread_shares(len(etas)))),
    Mutant(fidelity, "executed_fraction", "shares forgotten", lambda etas: 1 - np.prod(1 - np.asarray(etas))),
    Mutant(fidelity, "executed_fraction", "what is missing", lambda etas: np.prod(
        1 - np.asarray(etas) * fidelity.spread_shares(len(etas)))),
    Mutant(fidelity, "aligned_tail", "largest for the sum",
           lambda etas: fidelity.allocation_scales(etas)[:-1].max() / fidelity.allocation_scales(etas)[-1]),
    Mutant(fidelity, "realized_after", "eta not squared", lambda eta, step, steps: 1 - (1 - step * eta) ** steps),
    Mutant(fidelity, "alignment_premise", "last layer only",
           lambda gs, proxy, gap: bool(gs[-1] @ proxy >= (1 - gap) * (proxy @ proxy) > 0)),
    Mutant(fidelity, "parallel_error_bound", "moving channels forgotten",
           lambda J, s, G, q, Gv, qv, moving, original=fidelity.parallel_error_bound: original(
               J, s, G, q, Gv, qv, [0 * m for m in moving])),
]  # fmt: skip


# -- mistakes in the library's own code ---------------------------------------------------------


def _solved(self, keys):
    inside = self._enter(keys)
    return inside, self._solve(inside)


def _without_identity(self, keys, fit="least_squares"):
    inside, solved = _solved(self, keys)
    gram = inside.T @ solved
    floor = 1e-12 * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return self.lift(torch.linalg.solve(gram + floor, solved.T).T), self.attenuation(keys)


def _one_by_one(self, keys, fit="least_squares"):
    inside, solved = _solved(self, keys)
    return self.lift(solved / (1 + (inside * solved).sum(0))), self.attenuation(keys)


def _always_least_squares(self, keys, fit="least_squares", original=Geometry.channel_and_attenuation):
    return original(self, keys, "least_squares")


def _raw_channel(self, keys, fit="least_squares", original=Geometry.channel_and_attenuation):
    channel, eta = original(self, keys, fit)
    return channel * 0 + keys.to(self.dtype) / (1 + self.realizability(keys)), eta


def _unexecuted_eta(self, keys, fit="least_squares", original=Geometry.channel_and_attenuation):
    channel, eta = original(self, keys, fit)
    return channel, eta / (1 + eta)


def _canceling(self, keys):
    return 1 - 1 / (1 + self.realizability(keys))


def _without_weight(
    self, moment, lam, jitter=0.0, *, past=None, dtype=torch.float64, original=Ridge.__init__
):
    original(self, moment, 1.0, jitter, past=past, dtype=dtype)


def _without_ridge(self, moment, lam, jitter=0.0, *, past=None, dtype=torch.float64, original=Ridge.__init__):
    original(self, moment, lam, 1e-6 * (jitter > 0), past=past, dtype=dtype)


def _without_beta(self, x):
    return x


def _largest_kept(
    self,
    moment,
    l2,
    *,
    threshold=None,
    keep=None,
    past=None,
    dtype=torch.float64,
    original=Projected.__init__,
):
    original(self, -moment, l2, threshold=threshold, keep=keep, past=past, dtype=dtype)


def _history_forgotten(self, x):
    return self.solve_base(x)


def _history_added(self, x):
    solved = self.solve_base(x)
    return solved if self.past is None else 2 * solved - self._recent.correct(solved)


def _inside_only(self, channel):
    """Left in coordinates that are padded instead of lifted."""
    out = torch.zeros(len(self.basis), channel.shape[1], dtype=channel.dtype, device=channel.device)
    out[: len(channel)] = channel
    return out


def _whole_residual(self, model, geometries, shares, fit="least_squares", original=LayeredSolver.__init__):
    original(self, model, geometries, [(layer, 1.0) for layer, _ in shares], fit)


def _late(self, model, geometries, shares, fit="least_squares", original=LayeredSolver.__init__):
    original(self, model, geometries, _spread_late([layer for layer, _ in shares]), fit)


OPERATOR = "test_product_suppression"
LIBRARY = [
    Mutant(Geometry, "channel_and_attenuation", "S for I + S", _without_identity, OPERATOR),
    Mutant(Geometry, "channel_and_attenuation", "edits solved one by one", _one_by_one, OPERATOR),
    Mutant(Geometry, "channel_and_attenuation", "exact fit ignored", _always_least_squares, OPERATOR),
    Mutant(Geometry, "channel_and_attenuation", "raw key", _raw_channel, OPERATOR),
    Mutant(Geometry, "channel_and_attenuation", "attenuation of the attenuation", _unexecuted_eta, OPERATOR),
    Mutant(Geometry, "attenuation", "missing +1", lambda self, keys: self.realizability(keys), OPERATOR),
    Mutant(Geometry, "_solve", "history forgotten", _history_forgotten, OPERATOR),
    Mutant(Geometry, "_solve", "history with the wrong sign", _history_added, OPERATOR),
    Mutant(Ridge, "__init__", "lambda forgotten", _without_weight, OPERATOR),
    Mutant(Ridge, "__init__", "beta forgotten", _without_ridge, OPERATOR),
    Mutant(Projected, "solve_base", "beta forgotten", _without_beta, OPERATOR),
    Mutant(Projected, "lift", "channel not lifted", _inside_only, OPERATOR),
    Mutant(
        LayeredSolver, "__init__", "whole residual at every layer", _whole_residual, "test_product_fidelity"
    ),
    Mutant(LayeredSolver, "__init__", "shares off by one", _late, "test_product_fidelity"),
]

CATALOG = [*SUPPRESSION, *TRAP, *FIDELITY, *LIBRARY]
