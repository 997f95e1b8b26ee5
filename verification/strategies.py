"""Geometries, keys and gradients that matter, as hypothesis strategies.

Everything is made from few small numbers (a family, an exponent, a seed, coefficients), so that a
failure shrinks to a small dimension, the identity as basis, a flat spectrum and short keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from hypothesis import strategies as st

from metake.figures.measured import measured_spectra
from metake.figures.numbers import EPS64, Array, basis, tolerance

EPS = EPS64


@dataclass(frozen=True)
class Geometry:
    """`G = U diag(mu) U^T`, mu ascending."""

    mu: Array
    U: Array

    @cached_property
    def G(self) -> Array:
        G = (self.U * self.mu) @ self.U.T
        return (G + G.T) / 2

    @property
    def size(self) -> int:
        return len(self.mu)

    @property
    def condition(self) -> float:
        return float(self.mu[-1] / self.mu[0])

    @property
    def tolerance(self) -> float:
        return tolerance(self.condition, self.size)


# -- spectra ------------------------------------------------------------------------------------


def _flat(d: int, cond: float) -> Array:
    return np.ones(d)


def _geometric(d: int, cond: float) -> Array:
    return np.geomspace(1, cond, d)


def _power(d: int, cond: float) -> Array:
    return np.arange(1, d + 1) ** (np.log(cond) / np.log(max(d, 2)))


def _spiked(d: int, cond: float) -> Array:
    return np.append(np.ones(d - 1), cond)


def _near_singular(d: int, cond: float) -> Array:
    return np.append(1 / cond, np.ones(d - 1))


def _deficient(d: int, cond: float) -> Array:
    """Half of the directions carry nothing but the ridge eps = 1/cond."""
    return np.where(np.arange(d) < (d + 1) // 2, 1 / cond, 1.0) if d > 1 else np.ones(1)


def _measured(d: int, cond: float) -> Array:
    """Quantiles of a demo model's spectrum, with a ridge that limits the condition."""
    values = measured_spectra()[d % len(measured_spectra())]
    picked = np.quantile(values, np.linspace(0, 1, d))
    return picked / picked[-1] + 1 / cond


FAMILIES: dict[str, Callable[[int, float], Array]] = {
    "flat": _flat,
    "geometric": _geometric,
    "power law": _power,
    "spiked": _spiked,
    "near-singular": _near_singular,
    "rank-deficient": _deficient,
    "measured": _measured,
}


@st.composite
def spectra(draw: st.DrawFn, size: int, max_exponent: int = 12) -> Array:
    """Positive eigenvalues, ascending, of condition 10^0 to 10^max_exponent at scales 1e-4 to 1e4."""
    family = FAMILIES[draw(st.sampled_from(list(FAMILIES)))]
    condition = 10.0 ** draw(st.integers(0, max_exponent))
    scale = 10.0 ** draw(st.sampled_from([0, 1, -1, 2, -2, 4, -4]))
    return np.sort(family(size, condition)) * scale


seeds = st.integers(0, 999)
coefficients = st.floats(-1, 1, width=16).map(lambda x: x if abs(x) > 1e-3 else 0.0)


@st.composite
def geometries(draw: st.DrawFn, min_size: int = 1, max_size: int = 8, max_exponent: int = 12) -> Geometry:
    """A symmetric positive definite G."""
    size = draw(st.integers(min_size, max_size))
    return Geometry(draw(spectra(size, max_exponent)), basis(size, draw(seeds)))


# -- keys ---------------------------------------------------------------------------------------


@st.composite
def vectors(draw: st.DrawFn, size: int, nonzero: bool = True) -> Array:
    """A vector of length 1e-4 to 1e4."""
    x = np.array(draw(st.lists(coefficients, min_size=size, max_size=size)))
    at = draw(st.integers(0, size - 1))  # drawn in any case, or the zero vector would not be the smallest
    if nonzero and not x.any():
        x[at] = 1.0
    return x * 10.0 ** draw(st.sampled_from([0, 1, -1, 2, -2, 4, -4]))


@st.composite
def keys(draw: st.DrawFn, geometry: Geometry, nonzero: bool = True) -> Array:
    """A key: any, along one eigenvector, or mostly along the protected (largest) ones."""
    a = draw(vectors(geometry.size, nonzero))
    kind = draw(st.sampled_from(["any", "one", "protected"]))
    if kind == "one":
        i = draw(st.integers(0, geometry.size - 1))
        a = np.where(np.arange(geometry.size) == i, np.linalg.norm(a), 0.0)
    elif kind == "protected":
        a = np.where(np.arange(geometry.size) < geometry.size // 2, 1e-6 * a, a)
        if nonzero and not a.any():
            a[-1] = 1.0
    return geometry.U @ a


@st.composite
def batches(draw: st.DrawFn, geometry: Geometry, max_keys: int = 5) -> Array:
    """n keys as columns: independent, twice the same, or nearly parallel."""
    n = draw(st.integers(1, max_keys))
    K = np.stack([draw(keys(geometry)) for _ in range(n)], axis=1)
    kind = draw(st.sampled_from(["any", "duplicate", "parallel"]))
    if n > 1 and kind != "any":
        shift = 0.0 if kind == "duplicate" else 1e-6 * np.linalg.norm(K[:, 0])
        K[:, 1] = K[:, 0] + shift * basis(geometry.size, 7)[:, 0]
    return K


@st.composite
def projectors(draw: st.DrawFn, size: int) -> Array:
    """V, `size x m` with orthonormal columns, of any rank m; the projector is `V V^T`."""
    return basis(size, draw(seeds))[:, : draw(st.integers(0, size))]


# -- drift --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drift:
    """Two layers with geometries >= mu I and keys a prescribed way apart."""

    G: tuple[Array, Array]
    k: tuple[Array, Array]
    mu: float

    @property
    def geometry(self) -> float:
        return float(np.linalg.norm(self.G[0] - self.G[1], 2))

    @property
    def key(self) -> float:
        return float(np.linalg.norm(self.k[0] - self.k[1]))

    @property
    def longest(self) -> float:
        return float(max(np.linalg.norm(k) for k in self.k))


@st.composite
def drifts(draw: st.DrawFn, max_size: int = 6) -> Drift:
    """From none to far: geometry drift up to 1e3 mu, key drift up to 10 sqrt(mu)."""
    size = draw(st.integers(1, max_size))
    mu = 10.0 ** draw(st.integers(-3, 3))
    amount = draw(st.sampled_from([0.0, 1e-6, 1e-3, 0.1, 0.5, 1.0, 10.0, 1e3]))
    low = basis(size, draw(seeds))
    base = mu * np.diag(1 + draw(spectra(size, 3)) * draw(st.sampled_from([0.0, 1.0])))
    other = base + amount * mu * np.outer(low[:, 0], low[:, 0])
    k = draw(vectors(size)) * np.sqrt(mu)
    k = k / max(1.0, np.linalg.norm(k) / (10 * np.sqrt(mu)))
    away = draw(st.sampled_from([0.0, 1e-6, 1e-2, 0.3, 1.0, 10.0])) * np.sqrt(mu)
    k2 = k + away * basis(size, draw(seeds))[:, -1]
    pair = (base, other) if draw(st.booleans()) else (other, base)
    return Drift(pair, (k, k2), mu)


# -- gradients of layers ------------------------------------------------------------------------


@dataclass(frozen=True)
class Stack:
    """Allocation Jacobians, task gradients and channels of n layers, the last one edited last."""

    J: tuple[Array, ...]
    Gamma: tuple[Array, ...]
    q: tuple[Array, ...]


@st.composite
def stacks(draw: st.DrawFn, max_layers: int = 4, max_width: int = 5) -> Stack:
    """J_L within `gap` of a multiple of the identity; tails from nothing to larger than the head."""
    n, d_v, d_k = draw(st.integers(1, max_layers)), draw(st.integers(1, max_width)), draw(st.integers(1, 4))
    gap = draw(st.sampled_from([0.0, 1e-6, 0.1, 0.5, 0.9, 1.5]))
    size = draw(st.sampled_from([0.0, 1e-6, 0.1, 0.5, 1.0, 3.0]))
    rng = np.random.default_rng(draw(seeds))
    scale = draw(st.sampled_from([1.0, 0.5, 3.0]))
    turn = basis(d_v, draw(seeds)) * draw(st.sampled_from([1.0, -1.0]))
    J = [rng.standard_normal((d_v, d_v)) for _ in range(n - 1)] + [scale * (np.eye(d_v) + gap * turn)]
    Gamma = [rng.standard_normal((d_v, d_k)) for _ in range(n)]
    q = [rng.standard_normal(d_k) for _ in range(n)]
    head = np.linalg.norm(J[-1].T @ Gamma[-1] @ q[-1])
    for i in range(n - 1):
        norm = np.linalg.norm(J[i].T @ Gamma[i] @ q[i])
        J[i] = J[i] * (size * head / (n - 1) / max(norm, 1e-12))
    return Stack(tuple(J), tuple(Gamma), tuple(q))


@dataclass(frozen=True)
class Edit:
    """A geometry, a key and a residual."""

    geometry: Geometry
    k: Array
    r: Array

    @property
    def G(self) -> Array:
        return self.geometry.G


@st.composite
def edits(draw: st.DrawFn, max_exponent: int = 12, nonzero: bool = True) -> Edit:
    geometry = draw(geometries(max_exponent=max_exponent))
    return Edit(geometry, draw(keys(geometry, nonzero)), draw(vectors(draw(st.integers(1, 4)))))
