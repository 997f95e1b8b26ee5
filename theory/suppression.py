"""Theorem 1: what a constraint leaves of an edit (Spectral Suppression).

An edit D of a value map is the minimizer of `||D k - r||^2 + tr(D G D^T)` (3), (13). It realizes
`D k = eta r`, `eta = rho / (1 + rho)`, `rho = k^T G^-1 k`: the direction of the residual is kept, its
length is not. Everything here is fp64; G is `d_k x d_k`, symmetric positive definite, a key k has
`d_k` entries, a residual r has `d_v`, a batch has its n keys and residuals as columns of K and R.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Array = NDArray[np.floating]


def solve(G: Array, x: Array) -> Array:
    """`G^-1 x` by Cholesky.

    Args:
        G: geometry, `d_k x d_k`, symmetric positive definite.
        x: vector or matrix with `d_k` rows.

    Returns:
        Shape of `x`.

    Raises:
        numpy.linalg.LinAlgError: G is not positive definite.
    """
    solved: Array = cho_solve(cho_factor(G, lower=True), x)
    return solved


# -- one edit (13)-(23) -------------------------------------------------------------------------


def objective(D: Array, G: Array, k: Array, r: Array) -> float:
    """`||D k - r||^2 + tr(D G D^T)` (3), (13), D is `d_v x d_k`.

    Args:
        D: edit, `d_v x d_k`.
        G: geometry, `d_k x d_k`, symmetric positive definite.
        k: key, `d_k`.
        r: residual, `d_v`.

    Returns:
        Value of the objective.
    """
    miss = D @ k - r
    return float(miss @ miss + np.sum((D @ G) * D))


def gradient(D: Array, G: Array, k: Array, r: Array) -> Array:
    """Derivative of the objective by D, `2 (D k - r) k^T + 2 D G` (14)-(16).

    Args:
        D: edit, `d_v x d_k`.
        G: geometry, `d_k x d_k`, symmetric positive definite.
        k: key, `d_k`.
        r: residual, `d_v`.

    Returns:
        `d_v x d_k`.
    """
    return 2 * np.outer(D @ k - r, k) + 2 * D @ G


def realizability(G: Array, k: Array) -> float:
    """`rho = k^T G^-1 k` (19).

    Args:
        G: geometry, `d_k x d_k`, symmetric positive definite.
        k: key, `d_k`.

    Returns:
        rho, >= 0.
    """
    return float(k @ solve(G, k))


def attenuation(rho: float | Array) -> float | Array:
    """`eta = rho / (1 + rho)` (20), (23): the share of a residual that an edit realizes.

    A quotient and not `1 - 1/(1 + rho)`, which is 0 for every rho below the machine epsilon (X4).

    Args:
        rho: realizability, >= 0.

    Returns:
        eta, in [0, 1).
    """
    return rho / (1 + rho)


def channel(G: Array, k: Array) -> Array:
    """`q = (G + k k^T)^-1 k = G^-1 k / (1 + rho)` (21), (22), by Sherman and Morrison.

    Args:
        G: geometry, `d_k x d_k`, symmetric positive definite.
        k: key, `d_k`.

    Returns:
        `d_k`.
    """
    solved = solve(G, k)
    return solved / (1 + k @ solved)


def edit(G: Array, k: Array, r: Array) -> Array:
    """`D* = r q^T`, `d_v x d_k` (17), (18).

    Args:
        G: geometry, `d_k x d_k`, symmetric positive definite.
        k: key, `d_k`.
        r: residual, `d_v`.

    Returns:
        `d_v x d_k`.
    """
    return np.outer(r, channel(G, k))


# -- the spectrum (24)-(26), T1d, P8-P10 --------------------------------------------------------


def realizability_spectral(mu: Array, a: Array) -> float:
    """`sum_i a_i^2 / mu_i` with `G = U diag(mu) U^T` and `a = U^T k` (24).

    Args:
        mu: eigenvalues of G.
        a: coordinates of the key in the eigenbasis.

    Returns:
        rho, >= 0.
    """
    return float(np.sum(a**2 / mu))


def suppression_bound(norm: float, outside: float, height: float, mu_min: float) -> float:
    """Upper bound of rho, `||k||^2 ((1 - eps)/M + eps/mu_min)` (25).

    Args:
        norm: `||k||`.
        outside: eps in [0, 1], share of `||k||^2` outside the protected eigenvectors.
        height: M > 0, a lower bound of the protected eigenvalues.
        mu_min: smallest eigenvalue of all of G, not only of the unprotected part.

    Returns:
        Bound of rho.
    """
    return norm**2 * ((1 - outside) / height + outside / mu_min)


def suppression_limit(norm: float, height: float) -> float:
    """`||k||^2 / (M + ||k||^2)`: bound of eta for a key within the protected subspace (26).

    Args:
        norm: norm of the key.
        height: M, lower bound of the eigenvalues on the protected subspace.

    Returns:
        Bound of eta, in [0, 1).
    """
    return norm**2 / (height + norm**2)


def mean_realizability(d_k: int, weight: float) -> float:
    """`d_k / lambda`: the mean of `k^T (lambda C)^-1 k` over keys with second moment C (P8).

    Args:
        d_k: entries of a key.
        weight: lambda.

    Returns:
        Mean of rho.
    """
    return d_k / weight


def attenuation_drift_bound(key_drift: float, geometry_drift: float, mu: float) -> float:
    """Bound of `|eta_l - eta_L|`, `(3 sqrt 3 / 8) eps_k / sqrt(mu) + eps_C / (4 mu)` (P10).

    Args:
        key_drift: `||k_l - k_L||`.
        geometry_drift: `||G_l - G_L||`, spectral.
        mu: lower bound of the eigenvalues of both geometries.

    Returns:
        The bound.
    """
    return float(3 * np.sqrt(3) / 8 * key_drift / np.sqrt(mu) + geometry_drift / (4 * mu))


# -- AlphaEdit (27)-(35) ------------------------------------------------------------------------


def projected_objective(D: Array, P: Array, k: Array, r: Array, beta: float) -> float:
    """`||D P k - r||^2 + beta ||D P||_F^2` (27).

    Args:
        D: edit, `d_v x d_k`.
        P: orthogonal projector, `d_k x d_k`.
        k: key, `d_k`.
        r: residual, `d_v`.
        beta: ridge of AlphaEdit, > 0.

    Returns:
        Value of the objective.
    """
    X = D @ P
    miss = X @ k - r
    return float(miss @ miss + beta * np.sum(X**2))


def projected_edit(P: Array, k: Array, r: Array, beta: float, past: Array | None = None) -> Array:
    """AlphaEdit's executed update `X* = D P`, corrected: `r k~^T / (beta + ||k~||^2)` without history (T1e).

    Solved as the code that ships does, `r k~^T (P (k k^T + K_p K_p^T) P + beta I)^-1`, `k~ = P k`:
    symmetric, and its rows stay in the range of P.

    Args:
        P: orthogonal projector, `d_k x d_k`.
        k: key, `d_k`.
        r: residual, `d_v`.
        beta: ridge of AlphaEdit, > 0.
        past: K_p, keys of earlier edits, `d_k x p` (T1f).

    Returns:
        `d_v x d_k`.
    """
    inside = P @ k
    system = beta * np.eye(len(k)) + np.outer(inside, inside)
    if past is not None:
        system += P @ past @ past.T @ P
    return np.outer(r, solve(system, inside))


def shipped_edit(P: Array, K: Array, R: Array, beta: float, past: Array) -> Array:
    """What AlphaEdit's published code solves: `R K^T P (K K^T P + K_p K_p^T P + beta I)^-1`.

    Not symmetric, hence a general solve; equal to the projected edit in exact arithmetic (T1e).

    Args:
        P: orthogonal projector, `d_k x d_k`.
        K: keys, `d_k x n`.
        R: residuals, `d_v x n`.
        beta: ridge of AlphaEdit, > 0.
        past: K_p, keys of earlier edits, `d_k x p`.

    Returns:
        `d_v x d_k`.
    """
    system = (K @ K.T + past @ past.T) @ P + beta * np.eye(len(P))
    return np.linalg.solve(system.T, P @ K @ R.T).T


def raw_key_edit(k: Array, r: Array, beta: float) -> Array:
    """(31) as printed: `r k^T (k k^T + beta I)^-1`, with the raw key, outside the range of P.

    Args:
        k: key, `d_k`.
        r: residual, `d_v`.
        beta: ridge of AlphaEdit, > 0.

    Returns:
        `d_v x d_k`.
    """
    return np.outer(r, k) / (beta + k @ k)


def projected_attenuation(P: Array, k: Array, beta: float) -> float:
    """`||P k||^2 / (beta + ||P k||^2)` (35).

    Args:
        P: orthogonal projector, `d_k x d_k`.
        k: key, `d_k`.
        beta: ridge of AlphaEdit, > 0.

    Returns:
        eta, in [0, 1).
    """
    square = float(np.sum((P @ k) ** 2))
    return square / (beta + square)


def coordinates_edit(V: Array, k: Array, r: Array, beta: float, past: Array | None = None) -> Array:
    """AlphaEdit as MEMIT in the coordinates of its null space (X1): keys `V^T k`, geometry beta I.

    Args:
        V: `d_k x m`, orthonormal columns, `P = V V^T`.
        k: key, `d_k`.
        r: residual, `d_v`.
        beta: ridge of AlphaEdit, > 0.
        past: K_p, keys of earlier edits, `d_k x p`.

    Returns:
        `d_v x d_k`.
    """
    inner = beta * np.eye(V.shape[1])
    if past is not None:
        inner += V.T @ past @ past.T @ V
    return edit(inner, V.T @ k, r) @ V.T


def penalized_geometry(P: Array, beta: float, penalty: float) -> Array:
    """`beta I + t (I - P)`: the ridge whose limit for t to infinity is AlphaEdit (P15).

    Args:
        P: orthogonal projector, `d_k x d_k`.
        beta: ridge of AlphaEdit, > 0.
        penalty: t, >= 0.

    Returns:
        `d_k x d_k`.
    """
    eye = np.eye(len(P))
    return beta * eye + penalty * (eye - P)


# -- batches (X2, X3, X13, X14, P4) ------------------------------------------------------------------


def gram(G: Array, K: Array) -> Array:
    """`S = K^T G^-1 K`, `n x n`.

    Args:
        G: geometry, `d_k x d_k`, symmetric positive definite.
        K: keys, `d_k x n`.

    Returns:
        `n x n`.
    """
    S = K.T @ solve(G, K)
    return (S + S.T) / 2


def retention(S: Array) -> Array:
    """`B = S (I + S)^-1`, `n x n`: a batch realizes `D* K = R B` (X2).

    The diagonal is what each edit keeps of its own residual, the rest is crosstalk.

    Args:
        S: gram matrix `K^T G^-1 K`, `n x n`.

    Returns:
        B, `n x n`.
    """
    return solve(np.eye(len(S)) + S, S)


def batch_edit(G: Array, K: Array, R: Array) -> Array:
    """`D* = R Q^T`, `Q = G^-1 K (I + S)^-1`, `d_v x d_k` (X2, Woodbury).

    Args:
        G: geometry, `d_k x d_k`, symmetric positive definite.
        K: keys, `d_k x n`.
        R: residuals, `d_v x n`.

    Returns:
        `d_v x d_k`.
    """
    solved = solve(G, K)
    return R @ solve(np.eye(K.shape[1]) + K.T @ solved, solved.T)


def exact_edit(G: Array, K: Array, R: Array) -> Array:
    """EMMET: the least `tr(D G D^T)` under `D K = R`, `R S^-1 K^T G^-1` (P4).

    Args:
        G: geometry, `d_k x d_k`, symmetric positive definite.
        K: keys, `d_k x n`.
        R: residuals, `d_v x n`.

    Returns:
        `d_v x d_k`.
    """
    return R @ solve(gram(G, K), solve(G, K).T)


def compensated_residuals(S: Array, R: Array) -> Array:
    """`R B^-1 = R (I + S^-1)`: asked for these, the soft fit realizes R (P4).

    Args:
        S: gram matrix `K^T G^-1 K`, `n x n`.
        R: residuals, `d_v x n`.

    Returns:
        `d_v x n`.
    """
    return R + np.linalg.solve(S, R.T).T


def batch_shortfall_bound(S: Array, R: Array) -> float:
    """Bound of `||R - D* K||_F`, `||R||_F / (1 + s_min)` (X3).

    Args:
        S: gram matrix `K^T G^-1 K`, `n x n`.
        R: residuals, `d_v x n`.

    Returns:
        The bound.
    """
    return float(np.linalg.norm(R) / (1 + np.linalg.eigvalsh(S)[0]))


def preserving_geometry(G: Array, K_p: Array) -> Array:
    """`G + K_p K_p^T`: geometry of a solve that also minimizes what it changes at the keys K_p (X16).

    Args:
        G: geometry, `d_k x d_k`, symmetric positive definite.
        K_p: keys of the tokens that are to stay as they are, `d_k x p`.

    Returns:
        `d_k x d_k`.
    """
    return G + K_p @ K_p.T


def room(S: Array) -> float:
    """`sum_j B_jj = sum_i s_i/(1 + s_i)`: what n edits keep of themselves, all together (X13).

    Args:
        S: gram matrix `K^T G^-1 K`, `n x n`.

    Returns:
        The sum, at most n.
    """
    s = np.linalg.eigvalsh(S).clip(0)
    return float(np.sum(s / (1 + s)))


def room_bound(n: int, rank: int) -> float:
    """Bound of the mean attenuation of an edit that remembers n - 1 others, `min(1, rank/n)` (X13).

    Args:
        n: number of edits.
        rank: of the n keys, at most `d_k`; under a projector at most its rank.

    Returns:
        The bound, in (0, 1].
    """
    return min(1.0, rank / n)


def edit_cost(G: Array, D: Array) -> float:
    """`tr(D G D^T)`: what a change `D` (`d_v x d_k`) costs what G protects, the second term of (13).

    Args:
        G: geometry, `d_k x d_k`, symmetric positive definite.
        D: edit, `d_v x d_k`.

    Returns:
        The cost, >= 0.
    """
    return float(np.sum((D @ G) * D))


def batch_cost(S: Array, R: Array) -> float:
    """`tr(R B (I - B) R^T) = sum_j <r_j - D* k_j, D* k_j>`: what the soft fit of R costs (X14).

    One edit: `||r||^2 eta (1 - eta)`.

    Args:
        S: gram matrix `K^T G^-1 K`, `n x n`.
        R: residuals, `d_v x n`.

    Returns:
        The cost, >= 0.
    """
    realized = R @ retention(S)
    return float(np.sum((R - realized) * realized))


def least_cost(S: Array, X: Array) -> float:
    """`tr(X S^-1 X^T)`, the least that a change with `D K = X` costs (X14); one edit: `||x||^2/rho`.

    Args:
        S: gram matrix `K^T G^-1 K`, `n x n`.
        X: realized shifts, `d_v x n`.

    Returns:
        The cost, >= 0.
    """
    return float(np.sum(X * np.linalg.solve(S, X.T).T))


def priced_shift(S: Array, X: Array, price: float) -> Array:
    """`X S (S + alpha I)^-1`, which has the least `||Y - X||^2 + alpha tr(Y S^-1 Y^T)` (X14).

    It is X itself at price 0, and what the open loop realizes of X at price 1.

    Args:
        S: gram matrix `K^T G^-1 K`, `n x n`.
        X: planned shifts, `d_v x n`.
        price: alpha, weight of the cost.

    Returns:
        `d_v x n`.
    """
    return solve(S + price * np.eye(len(S)), S @ X.T).T


# -- beyond one-sided penalties and exact arithmetic (X12, X4) -----------------------------------


def two_sided_edit(G: Array, B: Array, k: Array, r: Array) -> Array:
    """Minimizer of `||D k - r||^2 + tr(B D G D^T)`, B `d_v x d_v` positive definite (X12).

    Args:
        G: geometry, `d_k x d_k`, symmetric positive definite.
        B: positive definite, `d_v x d_v`.
        k: key, `d_k`.
        r: residual, `d_v`.

    Returns:
        `d_v x d_k`.
    """
    b, W = np.linalg.eigh(B)
    solved = solve(G, k)
    return np.outer(W @ ((W.T @ r) / (b + k @ solved)), solved)


def two_sided_attenuation(rho: float, b: Array) -> Array:
    """`rho / (b_j + rho)` along each eigenvector of B (X12): the direction of r is not kept.

    Args:
        rho: realizability, >= 0.
        b: eigenvalues of B.

    Returns:
        Shape of `b`.
    """
    return rho / (b + rho)


def rounding_bound(eps: float, condition: float, factor: float = 8.0) -> float:
    """`c eps cond(G)`, relative error of eta computed with machine epsilon eps (X4).

    Args:
        eps: machine epsilon.
        condition: condition number of G.
        factor: constant c of the bound.

    Returns:
        The bound.
    """
    return factor * eps * condition
