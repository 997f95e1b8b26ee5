"""Instances of Theorem 2: a loss and its penalty, requests that share one, an executor between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import brentq

from theory import suppression, trap
from verification.strategies import EPS, Geometry, basis, geometries, keys, seeds, spectra, tolerance, vectors

Array = NDArray[np.float64]


SCALES = st.sampled_from([1.0, 1e-3, 1e3])


def switch(holds: Callable[[float], bool], low: float = 1e-30, high: float = 1e30) -> float:
    """Where a predicate of a positive number changes, by bisection of its logarithm."""
    first = holds(low)
    for _ in range(60):
        middle = np.sqrt(low) * np.sqrt(high)
        low, high = (middle, high) if holds(middle) == first else (low, middle)
    return low


def cost(geometry: Geometry, delta: Array) -> float:
    """`sqrt(delta^T H delta)`, in the eigenbasis: entries of H would blur its small eigenvalues."""
    return float(np.linalg.norm(np.sqrt(geometry.mu) * (geometry.U.T @ delta)))


def directions(size: int, seed: int = 0, count: int = 40) -> Array:
    """Unit columns: the axes and random ones."""
    X = np.random.default_rng(seed).standard_normal((size, count))
    return np.hstack([np.eye(size), X / np.linalg.norm(X, axis=0)])


@dataclass(frozen=True)
class Surrogate:
    """A gradient, a curvature `A = U diag(alpha) U^T` of any sign, a penalty above its floor."""

    alpha: Array
    U: Array
    g: Array
    lam: float

    @cached_property
    def A(self) -> Array:
        A = (self.U * self.alpha) @ self.U.T
        return (A + A.T) / 2

    @property
    def size(self) -> float:
        """Of the entries that rounding is relative to."""
        return float(np.abs(self.alpha).max() + self.lam)

    @property
    def condition(self) -> float:
        return self.size / float(self.alpha.min() + self.lam)

    @property
    def tolerance(self) -> float:
        return tolerance(self.condition, len(self.g))

    @property
    def delta(self) -> Array:
        return trap.displacement(self.g, self.A, self.lam)

    def value(self, delta: Array) -> float:
        """Without the penalty."""
        return trap.surrogate(delta, self.g, self.A, 0.0)


KINDS = ("convex", "linear", "concave", "indefinite", "singular")


@st.composite
def surrogates(draw: st.DrawFn, max_exponent: int = 12, kinds: Sequence[str] = KINDS) -> Surrogate:
    """The penalty from just above the floor to far above."""
    size = draw(st.integers(1, 6))
    alpha = draw(spectra(size, min(max_exponent, 6)))
    kind = draw(st.sampled_from(kinds))
    if kind == "linear":
        alpha = np.zeros(size)
    elif kind == "concave":
        alpha = -alpha
    elif kind == "indefinite":
        alpha = alpha * np.where(np.arange(size) % 2, 1, -1)
    elif kind == "singular":
        alpha = np.append(0.0, alpha[1:])
    span = float(np.abs(alpha).max()) or 1.0
    gap = span * 10.0 ** draw(st.integers(-max_exponent, 3))
    floor = max(0.0, -float(alpha.min()))
    return Surrogate(alpha, basis(size, draw(seeds)), draw(vectors(size)), floor + gap)


def trust_region(s: Surrogate, R: float) -> tuple[Array, float]:
    """Minimizer of the surrogate without penalty over `||d|| <= R`, and its multiplier.

    From the eigenvalues and the root of the secular equation, the hard case included.
    """
    c = s.U.T @ s.g
    floor = max(0.0, -float(s.alpha[np.argmin(s.alpha)]))

    def length(nu: float) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.linalg.norm(np.where(c == 0, 0.0, c / (s.alpha + nu))))

    if length(floor) <= R:
        flat = s.alpha + floor == 0
        inside = np.where(flat, 0.0, -c / np.where(flat, 1.0, s.alpha + floor))
        if floor > 0:  # on the boundary all the same, along the lowest curvature
            inside[np.argmin(s.alpha)] += np.sqrt(R**2 - inside @ inside)
        return s.U @ inside, floor
    top = 2 * (np.linalg.norm(c) / R + floor + np.abs(s.alpha).max())
    above = brentq(
        lambda t: np.log(length(floor + np.exp(t)) / R),
        np.log(EPS**2 * top),
        np.log(top),
        xtol=1e-14,
        maxiter=1000,
    )
    nu = floor + float(np.exp(above))
    # the root is known to 1e-14 of its logarithm only; 1 / length is nearly linear in nu (for one
    # curvature it is), so that one step of Newton's gains the last digits
    size, slope = length(nu), float(np.sum(c**2 / (s.alpha + nu) ** 3))
    nu -= (1 / size - 1 / R) * size**3 / slope
    return s.U @ (-c / (s.alpha + nu)), nu


@dataclass(frozen=True)
class Requests:
    """An easy request of gradient `-a u_min` and a hard one of `-b u_max`."""

    geometry: Geometry
    a: float
    b: float
    progress: float
    tau: float

    @property
    def easy(self) -> Array:
        return -self.a * self.geometry.U[:, 0]

    @property
    def hard(self) -> Array:
        return -self.b * self.geometry.U[:, -1]

    @property
    def mu_max(self) -> float:
        return float(self.geometry.mu[-1])

    def served(self, step: Callable[[Array, float], Array]) -> tuple[float, float]:
        """First safe penalty of the hard request and last useful one of the easy request, bisected.

        Args:
            step: gradient, penalty -> displacement.
        """
        first = switch(lambda lam: cost(self.geometry, step(self.hard, lam)) <= self.tau)
        last = switch(lambda lam: bool(np.linalg.norm(step(self.easy, lam)) >= self.progress))
        return first, last


@st.composite
def requests(draw: st.DrawFn, max_exponent: int = 12) -> Requests:
    a, b, progress, tau = (draw(st.floats(0.1, 10)) * draw(SCALES) for _ in range(4))
    return Requests(draw(geometries(max_exponent=max_exponent)), a, b, progress, tau)


def linear(g: Array, lam: float) -> Array:
    return trap.displacement(g, np.zeros((len(g), len(g))), lam)


@dataclass(frozen=True)
class Executed:
    """A displacement that an edit of geometry G is to realize at a key."""

    geometry: Geometry
    k: Array
    delta: Array

    @property
    def rho(self) -> float:
        return suppression.realizability(self.geometry.G, self.k)

    @property
    def whitened(self) -> Array:
        """`G^-1/2 k` in the eigenbasis: with `Y = D G^1/2` the cost is `||Y||^2` under `Y y = delta`."""
        return (self.geometry.U.T @ self.k) / np.sqrt(self.geometry.mu)

    def cheapest(self) -> float:
        """By least squares of minimal norm."""
        Y = np.linalg.lstsq(self.whitened[None], self.delta[None], rcond=None)[0]
        return float(np.sum(Y**2))


@st.composite
def executions(draw: st.DrawFn, max_exponent: int = 12) -> Executed:
    geometry = draw(geometries(max_exponent=max_exponent))
    return Executed(geometry, draw(keys(geometry)), draw(vectors(draw(st.integers(1, 4)))))


@dataclass(frozen=True)
class Pair:
    """Two ellipsoids: F of the KL term, H of what is feasible."""

    F: Geometry
    H: Geometry

    @property
    def singular(self) -> Array:
        """Of `H^1/2 F^-1/2`, descending: square roots of the relative eigenvalues."""
        M = (np.sqrt(self.H.mu)[:, None] * (self.H.U.T @ self.F.U)) / np.sqrt(self.F.mu)
        return np.linalg.svd(M, compute_uv=False)

    @property
    def tolerance(self) -> float:
        return tolerance(self.F.condition * self.H.condition, self.F.size)


@st.composite
def pairs(draw: st.DrawFn, max_exponent: int = 5) -> Pair:
    F = draw(geometries(max_exponent=max_exponent))
    shared = draw(st.booleans())
    U = F.U if shared else basis(F.size, draw(seeds))
    mu = draw(spectra(F.size, max_exponent))
    return Pair(F, Geometry(mu, U[:, ::-1] if draw(st.booleans()) else U))


def power(geometry: Geometry, p: float) -> Array:
    M = (geometry.U * geometry.mu**p) @ geometry.U.T
    return (M + M.T) / 2


@dataclass(frozen=True)
class Regularized:
    """Requests, and a regularizer F that has u_min and u_max for eigenvectors."""

    requests: Requests
    f: Array
    middle: Array

    @property
    def F(self) -> Array:
        return power(Geometry(self.f, self.requests.geometry.U @ self.middle), 1.0)

    @property
    def tolerance(self) -> float:
        return tolerance(float(self.f.max() / self.f.min()) * self.requests.geometry.condition, len(self.f))

    def step(self, g: Array, lam: float) -> Array:
        """Of the penalty `lam/2 delta^T F delta`: F is the curvature of an isotropic one at 0."""
        return trap.displacement(g, lam * self.F, 0.0)


@st.composite
def middles(draw: st.DrawFn, size: int) -> Array:
    """A turn that leaves the first and the last axis alone, so that matrices stop commuting with H."""
    turn = np.eye(size)
    if size > 3:
        turn[1:-1, 1:-1] = basis(size - 2, draw(seeds))
    return turn


@st.composite
def regularized(draw: st.DrawFn) -> Regularized:
    """F = H^p or any spectrum, either way round."""
    r = draw(requests(max_exponent=4))
    mu = r.geometry.mu
    f = draw(st.sampled_from([mu**p for p in (0.0, 0.5, 1.0, -1.0)]) | spectra(len(mu), 4))
    return Regularized(r, f[::-1] if draw(st.booleans()) else f, draw(middles(len(mu))))


def window_of(
    geometry: Geometry,
    unit_easy: Array,
    unit_hard: Array,
    tau: float,
    theta: float,
    reach: Callable[..., float],
) -> tuple[float, float]:
    """The b/a for which one lam keeps both steps safe and takes both to theta of their limit.

    Args:
        unit_easy, unit_hard: steps of requests with a = b = lam = 1; they scale like a/lam, b/lam.
        reach: displacement, eigenvector's index -> its share of that direction's limit.
    """
    ends = []
    for step, i in ((unit_easy, 0), (unit_hard, -1)):
        safe_from = switch(lambda lam, step=step: cost(geometry, step / lam) <= tau)
        reaching_to = switch(lambda lam, step=step, i=i: reach(geometry, step / lam, i, tau) >= theta)
        ends.append((safe_from, reaching_to))
    (easy_from, easy_to), (hard_from, hard_to) = ends
    return easy_from / hard_to, easy_to / hard_from


def by_cost(geometry: Geometry, delta: Array, i: int, tau: float) -> float:
    return cost(geometry, delta) / tau


def along_request(geometry: Geometry, delta: Array, i: int, tau: float) -> float:
    return float(geometry.U[:, i] @ delta) * np.sqrt(geometry.mu[i]) / tau


@dataclass(frozen=True)
class Curved:
    """Requests whose curvatures have u_min and u_max for eigenvectors and do not commute with H."""

    requests: Requests
    alphas: tuple[Array, Array]
    middle: Array

    @property
    def floor(self) -> float:
        return max(trap.penalty_floor(A) for A in self.curvatures)

    @property
    def curvatures(self) -> tuple[Array, Array]:
        V = self.requests.geometry.U @ self.middle
        return tuple((V * alpha) @ V.T for alpha in self.alphas)


@st.composite
def curved(draw: st.DrawFn) -> Curved:
    r = draw(requests(max_exponent=6))
    size = r.geometry.size
    entry = st.floats(-4, 4, width=16)
    alphas = [np.array(draw(st.lists(entry, min_size=size, max_size=size))) for _ in range(2)]
    if draw(st.booleans()):
        alphas[1] = alphas[0]
    scale = draw(SCALES)
    return Curved(r, (scale * alphas[0], scale * alphas[1]), draw(middles(size)))


@dataclass(frozen=True)
class General:
    """Any symmetric curvature: the hard request's cost along the easy one's progress set, scanned."""

    geometry: Geometry
    alpha: Array
    V: Array
    a: float
    progress: float
    tau: float

    @property
    def A(self) -> Array:
        A = (self.V * self.alpha) @ self.V.T
        return (A + A.T) / 2

    @property
    def floor(self) -> float:
        return max(0.0, -float(self.alpha.min()))

    def steps(self, u: Array, lam: Array) -> Array:
        """`(A + lam I)^-1 u`, one column per penalty, from the eigenvalues."""
        return self.V @ ((self.V.T @ u)[:, None] / (self.alpha[:, None] + lam))

    @cached_property
    def last(self) -> float:
        """Lambda_e - lam0, or 0 if the easy request makes no progress at all."""

        def reaches(s: float) -> bool:
            return bool(
                self.a * np.linalg.norm(self.steps(self.geometry.U[:, 0], self.floor + s)) >= self.progress
            )

        return switch(reaches, 1e-12, 1e12) if reaches(1e-12) else 0.0

    def costs(self, s: Array) -> Array:
        """`sqrt(h)` for b = 1 at the penalties lam0 + s."""
        x = self.steps(self.geometry.U[:, -1], self.floor + s)
        return np.linalg.norm(np.sqrt(self.geometry.mu)[:, None] * (self.geometry.U.T @ x), axis=0)

    def largest_b(self) -> float:
        """The b up to which some penalty of the progress set is safe; 0 if that set is empty."""
        if self.last == 0:
            return 0.0
        s = self.last * np.geomspace(1e-9, 1, 400)
        i = int(np.argmin(self.costs(s)))
        between = s[max(i - 1, 0)], s[min(i + 1, len(s) - 1)]
        fine = np.linspace(*between, 200)
        return self.tau / float(min(self.costs(s).min(), self.costs(fine).min()))

    def sandwich(self, b: float) -> tuple[bool, bool]:
        U = self.geometry.U
        return trap.curved_sandwich(
            self.a, b, self.A, U[:, 0], U[:, -1], self.progress, self.geometry.mu[-1], self.tau
        )

    def ends(self) -> tuple[float, float]:
        """b up to which it says `certainly none`, and from which it says `certainly a trap`."""
        free = switch(lambda b: self.sandwich(b)[1], 1e-12, 1e12) if self.sandwich(1e-12)[1] else 0.0
        trapped = switch(lambda b: self.sandwich(b)[0], 1e-12, 1e12) if not self.sandwich(1e-12)[0] else 0.0
        return free, trapped


@st.composite
def generals(draw: st.DrawFn, min_size: int = 1, max_size: int = 5) -> General:
    geometry = draw(geometries(min_size, max_size, max_exponent=4))
    size = geometry.size
    alpha = np.array(draw(st.lists(st.floats(-2, 4, width=16), min_size=size, max_size=size)))
    a, progress, tau = (draw(st.floats(0.1, 10)) for _ in range(3))
    return General(geometry, alpha, basis(size, draw(seeds)), a, progress, tau)
