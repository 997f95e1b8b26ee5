"""Theorem 2: no single isotropic penalty serves an anisotropic feasible set (the Static Trap).

Displacements delta live in a value space of dimension d. The feasible set is the ellipsoid
`E(tau) = {delta : delta^T H delta <= tau^2}`, H symmetric positive definite with eigenvalues from
mu_min to mu_max and condition kappa. The paper takes C~ for H, a matrix of key space; the theorem
needs an abstract geometry of the displacement, and is stated for one here. All in fp64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Interval:
    """Penalties `lower <= lam <= upper`, and above `floor`; empty if no lam > floor is left."""

    lower: float
    upper: float
    floor: float = 0.0

    @property
    def empty(self) -> bool:
        """Whether no penalty is left."""
        return self.upper <= self.floor or self.lower > self.upper


# -- the penalized step (36)-(41) ---------------------------------------------------------------


def surrogate(delta: Array, g: Array, A: Array, lam: float) -> float:
    """`g^T delta + 1/2 delta^T A delta + lam/2 ||delta||^2` (37), (38), (40).

    Args:
        delta: displacement.
        g: gradient of the loss.
        A: curvature, symmetric.
        lam: penalty.

    Returns:
        Value of the surrogate.
    """
    return float(g @ delta + delta @ A @ delta / 2 + lam / 2 * (delta @ delta))


def displacement(g: Array, A: Array, lam: float) -> Array:
    """`-(A + lam I)^-1 g` (39), (46): the minimizer of the surrogate where A + lam I > 0.

    Args:
        g: gradient of the loss.
        A: curvature, symmetric.
        lam: penalty.

    Returns:
        `d`.
    """
    return -np.linalg.solve(A + lam * np.eye(len(g)), g)


def radius(g: Array, A: Array, lam: float) -> float:
    """`R(lam) = ||delta(lam)||`: the trust region that the penalty amounts to (41).

    Args:
        g: gradient of the loss.
        A: curvature, symmetric.
        lam: penalty.

    Returns:
        The radius.
    """
    return float(np.linalg.norm(displacement(g, A, lam)))


# -- ball and ellipsoid (42)-(45) ---------------------------------------------------------------


def inscribed_radius(mu_max: float, tau: float) -> float:
    """`tau / sqrt(mu_max)`: the largest ball within E(tau) (42).

    Args:
        mu_max: largest eigenvalue of H.
        tau: size of the feasible ellipsoid.

    Returns:
        The radius.
    """
    return float(tau / np.sqrt(mu_max))


def circumscribed_radius(mu_min: float, tau: float) -> float:
    """`tau / sqrt(mu_min)`: the smallest ball around E(tau) (42).

    Args:
        mu_min: smallest eigenvalue of H.
        tau: size of the feasible ellipsoid.

    Returns:
        The radius.
    """
    return float(tau / np.sqrt(mu_min))


def mismatch(kappa: float) -> float:
    """`sqrt(kappa)`: the ratio of the two radii (42).

    Args:
        kappa: condition number of H.

    Returns:
        The ratio, >= 1.
    """
    return float(np.sqrt(kappa))


def ball_trap(progress: float, mu_max: float, tau: float) -> bool:
    """Whether no radius allows `R >= Delta` and keeps the ball within E(tau) (43)-(45).

    Args:
        progress: Delta, least length of a displacement.
        mu_max: largest eigenvalue of H.
        tau: size of the feasible ellipsoid.

    Returns:
        Whether there is no such radius.
    """
    return progress > inscribed_radius(mu_max, tau)


def ball_trap_relative(theta: float, kappa: float) -> bool:
    """The same for `Delta = theta tau / sqrt(mu_min)`, 0 < theta <= 1: `sqrt(kappa) > 1/theta`.

    Args:
        theta: Delta relative to the outer radius.
        kappa: condition number of H.

    Returns:
        Whether there is no such radius.
    """
    return bool(np.sqrt(kappa) > 1 / theta)


# -- two requests, one penalty (46)-(50) --------------------------------------------------------


def shared_penalties(a: float, b: float, progress: float, mu_max: float, tau: float) -> Interval:
    """Penalties that serve both requests, linear loss (49), (50).

    The easy request has gradient `-a u_min` and needs `||delta|| >= Delta`: `lam <= a / Delta`.
    The hard one has `-b u_max` and must stay in E(tau): `lam >= b sqrt(mu_max) / tau`.

    Args:
        a: size of the easy request's gradient.
        b: size of the hard request's gradient.
        progress: Delta, least length of a displacement.
        mu_max: largest eigenvalue of H.
        tau: size of the feasible ellipsoid.

    Returns:
        The penalties.
    """
    return Interval(b * np.sqrt(mu_max) / tau, a / progress)


def request_trap_relative(theta: float, a: float, b: float, kappa: float) -> bool:
    """No shared penalty for `Delta = theta tau / sqrt(mu_min)`: `theta (b/a) sqrt(kappa) > 1` (T2c).

    Args:
        theta: Delta relative to the outer radius.
        a: size of the easy request's gradient.
        b: size of the hard request's gradient.
        kappa: condition number of H.

    Returns:
        Whether no penalty serves both.
    """
    return bool(theta * (b / a) * np.sqrt(kappa) > 1)


def margin_norm(margin: float, v: Array, basis: Array | None = None) -> float:
    """Least `||delta||` that raises a logit of gradient v by a margin, `m / ||v||` (T2d).

    Args:
        margin: m, margin of the logit.
        v: gradient of the logit.
        basis: `d x m` orthonormal, where the displacement is confined to its span: then the
            projected gradient counts. Infinite if nothing of v is left there.

    Returns:
        The length.
    """
    length = float(np.linalg.norm(v if basis is None else basis.T @ v))
    return margin / length if length > 0 else np.inf


# -- the executor's own cost (P3) ---------------------------------------------------------------


def execution_cost(delta: Array, rho: float) -> float:
    """`||delta||^2 / rho`: the least `tr(D G D^T)` under `D k = delta`, isotropic in delta (P3).

    Args:
        delta: displacement.
        rho: realizability.

    Returns:
        The cost.
    """
    return float(delta @ delta / rho)


def cost_penalties(a: float, b: float, progress: float, rho_hard: float, tau: float) -> Interval:
    """Shared penalties where feasibility is `||delta||^2 / rho <= tau^2` per request (P3).

    Args:
        a: size of the easy request's gradient.
        b: size of the hard request's gradient.
        progress: Delta, least length of a displacement.
        rho_hard: realizability of the hard request.
        tau: size of the feasible ellipsoid.

    Returns:
        The penalties.
    """
    return Interval(b / (tau * np.sqrt(rho_hard)), a / progress)


# -- other regularizers (X5, X6) ----------------------------------------------------------------


def relative_spectrum(F: Array, H: Array) -> Array:
    """Eigenvalues of `F^-1/2 H F^-1/2`, ascending, both symmetric positive definite.

    Args:
        F: matrix of the regularizer, symmetric positive definite.
        H: geometry of the displacement, symmetric positive definite.

    Returns:
        `d`.
    """
    spectrum: Array = eigh(H, F, eigvals_only=True)
    return spectrum


def kl_inside(F: Array, H: Array, s: float, tau: float) -> bool:
    """Whether `{delta^T F delta <= s^2}` lies in E(tau): `s^2 lambda_max(F^-1 H) <= tau^2` (X5).

    Args:
        F: matrix of the regularizer, symmetric positive definite.
        H: geometry of the displacement, symmetric positive definite.
        s: radius of the F-ellipsoid.
        tau: size of the feasible ellipsoid.

    Returns:
        Whether it does.
    """
    return bool(s**2 * relative_spectrum(F, H)[-1] <= tau**2)


def kl_mismatch(F: Array, H: Array) -> float:
    """Ratio of the smallest F-ellipsoid around E(tau) to the largest within (X5): 1 iff F ~ H.

    Args:
        F: matrix of the regularizer, symmetric positive definite.
        H: geometry of the displacement, symmetric positive definite.

    Returns:
        The ratio, >= 1.
    """
    values = relative_spectrum(F, H)
    return float(np.sqrt(values[-1] / values[0]))


def relative_condition_bounds(cond_f: float, cond_h: float) -> tuple[float, float]:
    """`max(c_F/c_H, c_H/c_F) <= cond(F^-1/2 H F^-1/2) <= c_F c_H` (X5).

    Args:
        cond_f: condition number of F.
        cond_h: condition number of H.

    Returns:
        Lower and upper bound.
    """
    return max(cond_f / cond_h, cond_h / cond_f), cond_f * cond_h


def regularized_penalties(
    a: float, b: float, f_easy: float, f_hard: float, progress: float, mu_max: float, tau: float
) -> Interval:
    """Shared penalties for the regularizer `lam/2 delta^T F delta`, F commuting with H (X6 i).

    Args:
        a: size of the easy request's gradient.
        b: size of the hard request's gradient.
        f_easy: eigenvalues of F on u_min and u_max.
        f_hard: eigenvalues of F on u_min and u_max.
        progress: Delta, least length of a displacement.
        mu_max: largest eigenvalue of H.
        tau: size of the feasible ellipsoid.

    Returns:
        The penalties.
    """
    return Interval(b * np.sqrt(mu_max) / (tau * f_hard), a / (progress * f_easy))


def one_sided_limit(f_easy: float, f_hard: float, progress: float, mu_max: float, tau: float) -> float:
    """Largest b/a with a shared penalty, `tau f_h / (Delta f_e sqrt(mu_max))` (X6 i).

    Args:
        f_easy: eigenvalue of F on u_min.
        f_hard: eigenvalue of F on u_max.
        progress: Delta, least length of a displacement.
        mu_max: largest eigenvalue of H.
        tau: size of the feasible ellipsoid.

    Returns:
        The ratio b/a.
    """
    return float(tau * f_hard / (progress * f_easy * np.sqrt(mu_max)))


def two_sided_window(theta: float, kappa: float, f_easy: float, f_hard: float) -> tuple[float, float]:
    """Window of b/a where each request is safe and reaches theta of its own limit (X6 ii).

    `theta <= (b/a) sqrt(kappa) f_e/f_h <= 1/theta`: F moves the window, its ratio is always theta^-2.

    Args:
        theta: Delta relative to the outer radius.
        kappa: condition number of H.
        f_easy: eigenvalue of F on u_min.
        f_hard: eigenvalue of F on u_max.

    Returns:
        Ends of the window.
    """
    shift = f_hard / (f_easy * np.sqrt(kappa))
    return theta * shift, shift / theta


def aligned_displacement(g: Array, H: Array, R: float) -> Array:
    """Minimizer of `g^T delta` over `delta^T H delta <= R^2` (X6 iii): `-R H^-1 g / sqrt(g^T H^-1 g)`.

    Args:
        g: gradient of the loss.
        H: geometry of the displacement, symmetric positive definite.
        R: radius.

    Returns:
        `d`.
    """
    solved = np.linalg.solve(H, g)
    return -R * solved / np.sqrt(g @ solved)


# -- curvature (X7) -----------------------------------------------------------------------------


def penalty_floor(A: Array) -> float:
    """`lam0 = max(0, -alpha_min(A))`: above it A + lam I is positive definite.

    Args:
        A: curvature, symmetric.

    Returns:
        lam0, >= 0.
    """
    return float(max(0.0, -np.linalg.eigvalsh(A)[0]))


def curved_penalties(
    a: float,
    b: float,
    alpha_easy: float,
    alpha_hard: float,
    progress: float,
    mu_max: float,
    tau: float,
    floor: float,
) -> Interval:
    """Shared penalties where u_min and u_max are eigenvectors of the curvature(s) (X7).

    Args:
        a: size of the easy request's gradient.
        b: size of the hard request's gradient.
        alpha_easy: their eigenvalues; the curvature may differ per request.
        alpha_hard: their eigenvalues; the curvature may differ per request.
        progress: Delta, least length of a displacement.
        mu_max: largest eigenvalue of H.
        tau: size of the feasible ellipsoid.
        floor: lam0.

    Returns:
        The penalties.
    """
    return Interval(b * np.sqrt(mu_max) / tau - alpha_hard, a / progress - alpha_easy, floor)


def curved_sandwich(
    a: float, b: float, A: Array, u_min: Array, u_max: Array, progress: float, mu_max: float, tau: float
) -> tuple[bool, bool]:
    """Sufficient conditions for any symmetric A: `(certainly a trap, certainly none)` (X7).

    Args:
        a: size of the easy request's gradient.
        b: size of the hard request's gradient.
        A: curvature, symmetric.
        u_min: unit vector of the easy request.
        u_max: unit vector of the hard request.
        progress: Delta, least length of a displacement.
        mu_max: largest eigenvalue of H.
        tau: size of the feasible ellipsoid.

    Returns:
        Whether it is certainly a trap, and whether it is certainly none.
    """
    alpha_min = float(np.linalg.eigvalsh(A)[0])
    need, give = b * np.sqrt(mu_max) / tau, a / progress
    trap = need - u_max @ A @ u_max > give - alpha_min
    upper = give - u_min @ A @ u_min
    free = need - alpha_min <= upper and upper > penalty_floor(A)
    return bool(trap), bool(free)
