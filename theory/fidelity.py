"""Theorem 3: how far the last layer's proxy is from the hypergradient, and when it descends.

A target z reaches the loss through edits `DeltaW_l = r_l q_l^T` of layers l = 1..n, `r_l = phi_l(z)`,
`J_l = d phi_l / dz`. With `Gamma_l = dLoss/dW_l` at the edited weights, the hypergradient at frozen
channels is `g = sum_l g_l`, `g_l = J_l^T Gamma_l q_l` (51); the proxy keeps `g~ = Gamma_L q_L` (8), (59).
Gamma_l is `d_v x d_k`, q_l has `d_k` entries, J_l is `d_v x d_v`; norms are spectral; all in fp64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Array = NDArray[np.floating]


def spectral(X: Array) -> float:
    """Spectral norm of a matrix, Euclidean norm of a vector.

    Args:
        X: matrix.

    Returns:
        `||X||`.
    """
    return float(np.linalg.norm(X, 2))


# -- drift of channels (L3, L4) -----------------------------------------------------------------


def inverse_drift_stated(mu: float, drift: float) -> float:
    """Lemma 3: `||E|| / (mu (mu - ||E||))`, for X >= mu I and any E with ||E|| < mu; else infinite.

    Args:
        mu: lower bound of the first matrix.
        drift: `||E||`.

    Returns:
        Bound of `||X^-1 - (X+E)^-1||`.
    """
    return drift / (mu * (mu - drift)) if drift < mu else np.inf


def inverse_drift(mu: float, drift: float) -> float:
    """Sharp where X and X + E are symmetric and both >= mu I: `||E|| / (mu (mu + ||E||))` (L3).

    Args:
        mu: lower bound of both matrices' eigenvalues.
        drift: `||E||`.

    Returns:
        Bound of `||X^-1 - (X+E)^-1||`.
    """
    return drift / (mu * (mu + drift))


def channel_drift_stated(key_drift: float, geometry_drift: float, mu: float, largest_key: float) -> float:
    """Lemma 4 (57), (58): `eps_k/mu + B e/(mu (mu - e))`, `e = eps_C + 2 B eps_k < mu`; else infinite.

    Args:
        key_drift: `||k_l - k_L||`.
        geometry_drift: `||G_l - G_L||`, spectral.
        mu: lower bound of both geometries' eigenvalues.
        largest_key: B, bound of the keys' norms.

    Returns:
        Bound of `||q_l - q_L||`.
    """
    e = geometry_drift + 2 * largest_key * key_drift
    return key_drift / mu + largest_key * e / (mu * (mu - e)) if e < mu else np.inf


def channel_drift(key_drift: float, geometry_drift: float, mu: float, key: float) -> float:
    """`eps_k/mu + min(eps_C / (2 mu^3/2), ||k|| eps_C / (mu (mu + eps_C)))` (L4, corrected).

    For G_l, G_L >= mu I, without a condition on the drift; the first entry of the minimum needs no
    bound on the keys either.

    Args:
        key_drift: `||k_l - k_L||`.
        geometry_drift: `||G_l - G_L||`, spectral.
        mu: lower bound of both geometries' eigenvalues.
        key: a bound of the keys' norm, infinite if there is none.

    Returns:
        Bound of `||q_l - q_L||`.
    """
    free = geometry_drift / float(2 * mu**1.5)
    bounded = key * inverse_drift(mu, geometry_drift) if np.isfinite(key) else np.inf
    return key_drift / mu + min(free, bounded)


# -- gradients through channels (L5, 51, 59) ----------------------------------------------------


def proxy_gradient(Gamma: Array, q: Array) -> Array:
    """`g~ = Gamma q` (8), (59): gradient by z of a loss at `W + (z - c) q^T` (L5).

    Args:
        Gamma: gradient of the loss by the weight, `d_v x d_k`.
        q: channel, `d_k`.

    Returns:
        `d_v`.
    """
    return Gamma @ q


def joint_proxy_gradient(Gamma: Array, Q: Array) -> Array:
    """`Gamma Q`, `d_v x n`: gradient by the targets Z of a loss at `W + (Z - H) Q^T` (X8).

    Args:
        Gamma: gradient of the loss by the weight, `d_v x d_k`.
        Q: channels, `d_k x n`.

    Returns:
        `d_v x n`.
    """
    return Gamma @ Q


def layer_gradient(J: Array, Gamma: Array, q: Array) -> Array:
    """`g_l = J_l^T Gamma_l q_l` (51), (62).

    Args:
        J: Jacobian, `d_v x d_v`.
        Gamma: gradient of the loss by the weight, `d_v x d_k`.
        q: channel, `d_k`.

    Returns:
        `d_v`.
    """
    return J.T @ (Gamma @ q)


def allocation_drift_bound(perturbation: float) -> float:
    """`||(I + E)^-1 - I|| <= ||E|| / (1 - ||E||)`, ||E|| < 1 (remark to (56)).

    Args:
        perturbation: `||E||`.

    Returns:
        The bound; infinite for `||E|| >= 1`.
    """
    return perturbation / (1 - perturbation) if perturbation < 1 else np.inf


# -- Theorem 3 (10), (54)-(70) ------------------------------------------------------------------


def tail(gradients: Sequence[Array]) -> float:
    """Relative tail, gamma of (54): `sum_{l<L} ||g_l|| / ||g_L||`, layers in order, L last; 0 if nothing is left of any.

    Args:
        gradients: gradients of the layers in order, L last.

    Returns:
        gamma; infinite if the last gradient alone is 0.
    """
    rest = sum(spectral(g) for g in gradients[:-1])
    last = spectral(gradients[-1])
    return float(rest / last) if last > 0 else np.inf if rest > 0 else 0.0


def error_bound(gamma: float, last: float, gap: float, Gamma: float, q: float) -> float:
    """(10), (60): `gamma ||g_L|| + eps_I ||Gamma_L|| ||q_L||` bounds `||g - g~||`.

    Args:
        gamma: relative size of the tail (54).
        last: `||g_L||`.
        gap: eps_I, `||J_L - I||`.
        Gamma: `||Gamma_L||`.
        q: `||q_L||`.

    Returns:
        The bound.
    """
    return gamma * last + gap * Gamma * q


def nondegeneracy(Gamma: Array, q: Array) -> float:
    """Nondegeneracy sigma = `||Gamma q|| / (||Gamma|| ||q||)`, in [0, 1] (67).

    Args:
        Gamma: gradient of the loss by the weight, `d_v x d_k`.
        q: channel, `d_k`.

    Returns:
        sigma.
    """
    return spectral(Gamma @ q) / (spectral(Gamma) * spectral(q))


def zeta(gamma: float, gap: float, sigma: float) -> float:
    """`gamma (1 + eps_I) + eps_I / sigma`: `||g - g~|| <= zeta ||g~||` (67)-(70).

    Args:
        gamma: relative size of the tail (54).
        gap: eps_I, `||J_L - I||`.
        sigma: nondegeneracy (67).

    Returns:
        zeta.
    """
    return gamma * (1 + gap) + gap / sigma


def zeta_sharp(gamma: float, gap: float) -> float:
    """`gamma (1 + eps_I) + eps_I`: the same without sigma, and never larger (T3b).

    Args:
        gamma: relative size of the tail (54).
        gap: eps_I, `||J_L - I||`.

    Returns:
        zeta'.
    """
    return gamma * (1 + gap) + gap


def descent_bound(gamma: float, gap: float) -> float:
    """Least `<g, g~> / ||g~||^2` for given gamma and eps_I, attained if d_v >= 2 (T3b, sharp).

    With `s = ||g_L|| / ||g~||`: the tail takes off gamma s at most, and g_L lies on a sphere of radius
    eps_I around g~. `(1 - gamma)(1 - eps_I)` where gamma <= 1 - eps_I; positive, for gamma and eps_I
    below 1, exactly where `gamma^2 + eps_I^2 < 1`.

    Args:
        gamma: relative size of the tail (54).
        gap: eps_I, `||J_L - I||`.

    Returns:
        The bound; descent is guaranteed where it is positive.
    """
    s = min(max(gamma, abs(1 - gap)), 1 + gap)
    return (1 + s**2 - gap**2) / 2 - gamma * s


def scaled_gap(J: Array) -> float:
    """`min_c ||J/c - I||` over c > 0 (T3c): how far J is from a multiple of the identity.

    Args:
        J: Jacobian, `d_v x d_v`.

    Returns:
        The distance, in [0, 1].
    """
    eye = np.eye(len(J))
    top = 2 / max(spectral(J), np.finfo(float).tiny)
    found = minimize_scalar(
        lambda t: spectral(t * J - eye), bounds=(0, top), method="bounded", options={"xatol": 1e-12 * top}
    )
    return float(min(found.fun, 1.0))


def cosine_bound(gamma: float, gap: float) -> float:
    """`sqrt((1 - eps^2)(1 - gamma^2)) - eps gamma <= cos(g, g~)`, gamma, eps < 1 (T3c): angles add.

    Positive exactly where `gamma^2 + eps^2 < 1`.

    Args:
        gamma: relative size of the tail (54).
        gap: eps_I, `||J_L - I||`.

    Returns:
        The bound, in [-1, 1].
    """
    return float(np.sqrt((1 - gap**2) * (1 - gamma**2)) - gap * gamma)


def cosine(x: Array, y: Array) -> float:
    """Cosine of two vectors, 0 if one vanishes.

    Args:
        x: vector.
        y: vector.

    Returns:
        The cosine, in [-1, 1].
    """
    scale = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y / scale) if scale > 0 else 0.0


# -- MEMIT's allocation under identity transport (A1, A2) ---------------------------------------


def spread_shares(n: int) -> Array:
    """`1/(n - l + 1)`, l = 1..n: the share of what is missing that layer l is asked for (A1).

    Args:
        n: number of layers.

    Returns:
        `n`.
    """
    return 1 / np.arange(n, 0, -1)


def missing_shares(etas: Sequence[float] | Array) -> Array:
    """x_l, what is missing before layer l: `x_1 = 1`, `x_{l+1} = x_l (1 - eta_l/(n-l+1))` (A2).

    Args:
        etas: attenuations of the layers in order.

    Returns:
        Shape of `etas`.
    """
    steps = 1 - np.asarray(etas) * spread_shares(len(etas))
    return np.concatenate([[1.0], np.cumprod(steps[:-1])])


def allocation_scales(etas: Sequence[float] | Array) -> Array:
    """`J_l = x_l / (n - l + 1)` times the identity (A2); its first entry is 1/n whatever the model (A1).

    Args:
        etas: attenuations of the layers in order.

    Returns:
        Shape of `etas`.
    """
    return missing_shares(etas) * spread_shares(len(etas))


def executed_fraction(etas: Sequence[float] | Array) -> float:
    """`1 - prod_l (1 - eta_l/(n-l+1))`: what all layers together realize of a residual (A2).

    Args:
        etas: attenuations of the layers in order.

    Returns:
        The fraction, in [0, 1].
    """
    return float(1 - np.prod(1 - np.asarray(etas) * spread_shares(len(etas))))


def aligned_tail(etas: Sequence[float] | Array) -> float:
    """Relative tail gamma where every `Gamma_l q_l` is the same vector: `sum_{l<n} J_l / J_n` (A2).

    Args:
        etas: attenuations of the layers in order.

    Returns:
        gamma.
    """
    scales = allocation_scales(etas)
    return float(scales[:-1].sum() / scales[-1])


# -- what else is said of the descent (P13, X9, X11) --------------------------------------------


def realized_after(eta: float, step: float, steps: int) -> float:
    """`1 - (1 - a eta^2)^T`: eta d after T steps a of gradient descent on `(eta d - 1)^2 / 2` (P13).

    Args:
        eta: attenuation, in [0, 1).
        step: step size a.
        steps: number of steps T.

    Returns:
        The realized share of d.
    """
    rate = step * eta**2
    if rate < 1:  # keeps its digits where the rate is small
        return float(-np.expm1(steps * np.log1p(-rate)))
    return float(1 - (1 - rate) ** steps)


def alignment_premise(gradients: Sequence[Array], proxy: Array, gap: float) -> bool:
    """X9: every `<g_l, g~> >= 0` and `<g_L, g~> >= (1 - eps_I) ||g~||^2 > 0`; then `<g, g~> > 0`.

    Args:
        gradients: gradients of the layers in order, L last.
        proxy: proxy gradient g~.
        gap: eps_I, `||J_L - I||`.

    Returns:
        Whether the premise holds.
    """
    inner = [float(g @ proxy) for g in gradients]
    square = float(proxy @ proxy)
    return min(inner) >= 0 and inner[-1] >= (1 - gap) * square > 0


def parallel_error_bound(
    J: Sequence[Array],
    shares: Sequence[float] | Array,
    Gamma: Sequence[Array],
    q: Sequence[Array],
    Gamma_virtual: Sequence[Array],
    q_virtual: Sequence[Array],
    moving: Sequence[Array],
) -> float:
    """A-posteriori bound of `||g - g^||` for the parallel proxy `g^ = sum_l s_l Gamma^_l q^_l` (X11).

    Args:
        J: Jacobian of each layer.
        shares: share s_l of each layer.
        Gamma: gradient at the edited weights, per layer.
        q: channel of each layer.
        Gamma_virtual: gradients at the virtual weights, per layer.
        q_virtual: channels at the unedited model, per layer.
        moving: `N_l^T Gamma_l^T r_l` per layer, what flows through channels that move with z.

    Returns:
        The bound.
    """
    total = 0.0
    for J_l, s, G, q_l, G_v, q_v, extra in zip(
        J, shares, Gamma, q, Gamma_virtual, q_virtual, moving, strict=True
    ):
        total += spectral(J_l - s * np.eye(len(J_l))) * spectral(G @ q_l)
        total += s * spectral(G @ (q_l - q_v)) + s * spectral((G - G_v) @ q_v) + spectral(extra)
    return total
