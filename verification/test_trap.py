"""Theorem 2 and what follows from it: penalties, balls and ellipsoids, requests that share a penalty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import sympy as sp
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize, minimize_scalar

from theory import derive_trap as derive
from theory import suppression, trap
from verification import ledger
from verification.ledger import attains, below, checks, equal
from verification.search import worst
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


# -- T2a: the penalised step --------------------------------------------------------------------


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


@given(surrogates())
@checks("T2a", "random")
def test_step_is_where_the_gradient_vanishes(s: Surrogate):
    pull = (s.A + s.lam * np.eye(len(s.g))) @ s.delta
    equal(pull, -s.g, tolerance(1, len(s.g)), np.linalg.norm(s.g) + s.size * np.linalg.norm(s.delta))


@given(surrogates())
@checks("T2a", "random")
def test_step_in_the_eigenbasis(s: Surrogate):
    equal(s.delta, -s.U @ ((s.U.T @ s.g) / (s.alpha + s.lam)), s.tolerance)


@given(surrogates(max_exponent=6), seeds, SCALES)
@checks("T2a", "random")
def test_any_other_step_costs_more(s: Surrogate, seed: int, size: float):
    """By the quadratic form of A + lam I, positive: the minimiser is the only one."""
    step = np.random.default_rng(seed).standard_normal(len(s.g)) * size * np.linalg.norm(s.delta)
    expected = float(np.sum((s.alpha + s.lam) * (s.U.T @ step) ** 2) / 2)
    here, there = (trap.surrogate(d, s.g, s.A, s.lam) for d in (s.delta, s.delta + step))
    assert expected > 0
    equal(there - here, expected, s.tolerance, s.size * (np.linalg.norm(step) + np.linalg.norm(s.delta)) ** 2)


@checks("T2a", "searched")
def test_a_minimiser_of_the_surrogate_ends_at_the_step():
    """From far away, with differences instead of derivatives; the share of the depth it reaches."""
    rng = np.random.default_rng(0)
    for _ in range(8):
        U, alpha = basis(3, int(rng.integers(1, 99))), rng.uniform(-1, 3, 3)
        s = Surrogate(alpha, U, rng.standard_normal(3), 1.5)
        found = minimize(lambda d, s=s: trap.surrogate(d, s.g, s.A, s.lam), 10 * rng.standard_normal(3))
        attains(found.fun / trap.surrogate(s.delta, s.g, s.A, s.lam), 1, tolerance=1e-9)


@checks("T2a", "needed", drops="convex")
def test_below_the_floor_the_surrogate_has_no_minimum():
    A, g = np.diag([1.0, -3.0]), np.array([1.0, 1.0])
    stationary = trap.displacement(g, A, 1.0)
    values = [trap.surrogate(stationary + np.array([0.0, t]), g, A, 1.0) for t in (0.0, 10.0, 1e3)]
    assert values[2] < values[1] < values[0]
    with pytest.raises(np.linalg.LinAlgError):
        trap.displacement(g, A, 3.0)
    ledger.counterexample(
        "A = diag(1, -3), g = (1, 1): no minimum at lam = 1, where -(A + lam I)^-1 g is a saddle; no inverse at lam = 3"
    )


# -- L1: penalty and trust region ---------------------------------------------------------------


def trust_region(s: Surrogate, R: float) -> tuple[Array, float]:
    """Minimiser of the surrogate without penalty over `||d|| <= R`, and its multiplier.

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
    return s.U @ (-c / (s.alpha + nu)), nu


@given(surrogates(max_exponent=5))
@checks("L1", "random")
def test_penalised_step_solves_the_trust_region(s: Surrogate):
    """Its radius, its minimiser and its multiplier, against the secular equation."""
    best, multiplier = trust_region(s, trap.radius(s.g, s.A, s.lam))
    limit = 10 * s.tolerance
    equal(multiplier, s.lam, limit, s.size)
    equal(s.delta, best, limit * s.condition)
    scale = np.linalg.norm(s.g) * np.linalg.norm(best) + s.size * (best @ best)
    equal(s.value(s.delta), s.value(best), limit, scale)


@given(surrogates(max_exponent=5), seeds)
@checks("L1", "random")
def test_no_displacement_of_the_ball_is_better(s: Surrogate, seed: int):
    R = trap.radius(s.g, s.A, s.lam)
    scale = np.linalg.norm(s.g) * R + s.size * R**2
    for u in directions(len(s.g), seed, 20).T:
        for share in (1.0, -1.0, 0.5, -0.5):
            assert s.value(share * R * u) >= s.value(s.delta) - s.tolerance * scale


@given(surrogates(max_exponent=5), st.sampled_from([1e-3, 0.5, 0.999, 1.001, 2.0, 1e3]))
@checks("L1", "random")
def test_a_radius_comes_from_a_penalty_iff_it_is_below_the_largest(s: Surrogate, factor: float):
    """Both ways: below `R(lam0+)` the multiplier is the penalty, above it no penalty gives the radius."""
    floor = trap.penalty_floor(np.diag(s.alpha))
    reachable = np.where(s.alpha + floor > 0, s.alpha + floor, 0.0)
    c = s.U.T @ s.g
    with np.errstate(divide="ignore", invalid="ignore"):
        largest = np.linalg.norm(np.where(c == 0, 0.0, c / reachable))
    R = factor * (largest if np.isfinite(largest) else trap.radius(s.g, s.A, s.lam))
    best, multiplier = trust_region(s, R)
    if largest > R:
        condition = (np.abs(s.alpha).max() + multiplier) / (s.alpha.min() + multiplier)
        assume(condition < 1e9)
        assert multiplier > floor
        equal(trap.radius(s.g, s.A, multiplier), R, tolerance(condition))
        equal(trap.displacement(s.g, s.A, multiplier), best, tolerance(condition))
    else:
        assert multiplier == floor
        for gap in (1e-6, 1.0, 1e6):
            assert trap.radius(s.g, s.A, floor + gap * s.size) < R


@given(surrogates(), st.sampled_from([1e-6, 0.1, 1.0, 1e3]))
@checks("L1", "random")
def test_radius_falls_with_the_penalty(s: Surrogate, factor: float):
    """Strictly, at the rate of the largest curvature or faster, and no faster than the smallest's."""
    more = s.lam + factor * s.size
    near, far = (trap.radius(s.g, s.A, lam) for lam in (s.lam, more))
    slow, fast = ((alpha + s.lam) / (alpha + more) for alpha in (s.alpha.max(), s.alpha.min()))
    below(far, near * slow, s.tolerance)
    below(near * fast, far, s.tolerance)


@checks("L1", "searched")
def test_radius_falls_no_slower_than_the_largest_curvature_allows():
    def ratio(x: Array) -> float:
        alpha = np.exp(x[:3])
        A = np.diag(alpha)
        return trap.radius(x[3:], A, 2.0) / trap.radius(x[3:], A, 1.0) * (alpha.max() + 2) / (alpha.max() + 1)

    attains(worst(ratio, 6, starts=4), 1, tolerance=1e-9)


@checks("L1", "searched")
def test_nothing_in_the_ball_beats_the_penalised_step():
    """Share of its decrease that a search within the ball reaches, concave directions included."""
    U, alpha = basis(3, 5), np.array([-1.0, 0.5, 4.0])
    s = Surrogate(alpha, U, np.array([1.0, -2.0, 0.5]), 1.2)
    R = trap.radius(s.g, s.A, s.lam)

    def ratio(x: Array) -> float:
        return s.value(R * x / max(1.0, np.linalg.norm(x))) / s.value(s.delta)

    attains(worst(ratio, 3, starts=6), 1, tolerance=1e-9)


@checks("L1", "needed", drops="convex")
def test_below_the_floor_the_step_is_not_the_best_of_its_ball():
    s = Surrogate(np.array([1.0, -3.0]), np.eye(2), np.array([1.0, 1.0]), 1.0)
    best, multiplier = trust_region(s, trap.radius(s.g, s.A, s.lam))
    assert s.value(best) < s.value(s.delta) - 1
    assert multiplier > 3
    ledger.counterexample(
        "A = diag(1, -3), g = (1, 1), lam = 1: delta = (-1/2, 1/2) has value -1/4, the ball of its radius holds one below -5/4"
    )


@checks("L1", "needed", drops="sign")
@checks("L1", "random", refutes=True)
def test_a_negative_penalty_is_no_multiplier():
    """The lemma's text asks for no sign: (41) at lam < 0, and the slack constraint that stands behind it."""
    s = Surrogate(np.array([2.0]), np.eye(1), np.array([1.0]), -1.0)
    R = trap.radius(s.g, s.A, s.lam)
    best, multiplier = trust_region(s, R)
    assert R == 1
    assert multiplier == 0
    assert s.value(best) < s.value(s.delta)
    assert all(trap.radius(s.g, s.A, lam) < R for lam in (1e-9, 1.0, 1e9))
    ledger.counterexample(
        "A = 2, g = 1, lam = -1: R = 1, delta = -1 costs 0, but -1/2 costs -1/4; the multiplier of R = 1 is 0 and no lam > 0 gives R"
    )


@checks("L1", "random", refutes=True)
def test_a_hard_case_has_a_multiplier_that_no_penalty_reaches():
    s = Surrogate(np.array([-1.0, 1.0]), np.eye(2), np.array([0.0, 1.0]), 1.0)
    best, multiplier = trust_region(s, 1.0)
    assert multiplier == trap.penalty_floor(s.A) == 1
    equal(best, [np.sqrt(3) / 2, -1 / 2], 4 * EPS)
    assert all(trap.radius(s.g, s.A, 1 + gap) < 1 / 2 for gap in (1e-9, 1.0, 1e9))
    ledger.counterexample(
        "A = diag(-1, 1), g = e2, R = 1: the multiplier is 1, and every lam > 1 has R < 1/2"
    )


@checks("L1", "random", refutes=True)
def test_order_of_matrices_is_not_order_of_lengths():
    """The proof's step `0 <= X <= Y => ||X g|| <= ||Y g||`; here X and Y are functions of one A."""
    X, Y, g = np.diag([1.0, 0.0]), np.array([[2.0, 1.0], [1.0, 1.0]]), np.array([4.0, -5.0])
    assert np.linalg.eigvalsh(Y - X)[0] >= -EPS
    assert np.linalg.eigvalsh(X)[0] >= 0
    assert np.linalg.norm(X @ g) > np.linalg.norm(Y @ g)
    ledger.counterexample(
        "X = diag(1, 0) <= Y = [[2, 1], [1, 1]], g = (4, -5): ||X g||^2 = 16 > ||Y g||^2 = 10 without commuting"
    )


@checks("L1", "needed", drops="nonzero")
def test_without_a_gradient_the_radius_stays_at_zero():
    assert trap.radius(np.zeros(2), np.eye(2), 1.0) == trap.radius(np.zeros(2), np.eye(2), 2.0) == 0
    ledger.counterexample("g = 0: R = 0 at every lam")


# -- L2, T2b: ball and ellipsoid ----------------------------------------------------------------


def ball_inside(geometry: Geometry, R: float, tau: float) -> bool:
    """On sampled boundary points of the ball, eigenvectors among them."""
    points = R * geometry.U @ directions(geometry.size)
    return bool((np.sum(points * (geometry.G @ points), axis=0) <= tau**2).all())


def ellipsoid_inside(geometry: Geometry, R: float, tau: float) -> bool:
    """On sampled boundary points of E(tau)."""
    points = geometry.U @ (directions(geometry.size) / np.sqrt(geometry.mu)[:, None]) * tau
    return bool((np.linalg.norm(points, axis=0) <= R).all())


@given(geometries(), SCALES)
@checks("L2", "random")
def test_radii_from_the_cholesky_factor(geometry: Geometry, tau: float):
    """H = L L^T: a ball's largest cost is `R ||L^T||`, the ellipsoid's largest length `tau ||L^-T||`."""
    singular = np.linalg.svd(np.linalg.cholesky(geometry.G), compute_uv=False)
    inner, outer = tau / singular[0], tau / singular[-1]
    equal(trap.inscribed_radius(geometry.mu[-1], tau), inner, tolerance(1, geometry.size))
    equal(trap.circumscribed_radius(geometry.mu[0], tau), outer, geometry.tolerance)
    equal(trap.mismatch(geometry.condition), outer / inner, geometry.tolerance)


@given(geometries(), SCALES, st.sampled_from([None, 1e-3, 0.5, 2.0, 1e3]), st.booleans())
@checks("L2", "random")
def test_containment_ends_at_the_two_radii(geometry: Geometry, tau: float, factor: float | None, more: bool):
    """Both ways: contained just below or above the radius, and not on its other side."""
    factor = factor or 1 + (2 if more else -2) * tolerance(1, geometry.size)
    inner, outer = (
        trap.inscribed_radius(geometry.mu[-1], tau),
        trap.circumscribed_radius(geometry.mu[0], tau),
    )
    assert ball_inside(geometry, inner * factor, tau) == (factor < 1)
    assert ellipsoid_inside(geometry, outer * factor, tau) == (factor > 1)


@checks("L2", "searched")
def test_both_radii_are_attained():
    H, tau = np.array([[2.0, 1.0], [1.0, 5.0]]), 3.0
    mu = np.linalg.eigvalsh(H)
    inner, outer = trap.inscribed_radius(mu[1], tau), trap.circumscribed_radius(mu[0], tau)

    def dearest(x: Array) -> float:
        return inner**2 * (x @ H @ x) / (x @ x) / tau**2

    def longest(x: Array) -> float:
        return tau * np.sqrt((x @ x) / (x @ H @ x)) / outer

    attains(worst(dearest, 2, starts=3), 1, tolerance=1e-9)
    attains(worst(longest, 2, starts=3), 1, tolerance=1e-9)


@checks("L2", "needed", drops="definite")
def test_a_singular_geometry_has_no_outer_ball():
    H = np.diag([1.0, 0.0])
    for t in (1.0, 1e6):
        assert np.array([0.0, t]) @ H @ np.array([0.0, t]) == 0
    with np.errstate(divide="ignore"):
        assert np.isinf(trap.circumscribed_radius(np.float64(0.0), 1.0))
    ledger.counterexample("H = diag(1, 0): (0, t) lies in E(tau) for every t, no ball holds it")


@given(geometries(), SCALES, st.sampled_from([None, 1e-3, 0.9, 1.1, 1e3]), st.booleans())
@checks("T2b", "random")
def test_no_radius_serves_iff_progress_passes_the_inner_ball(
    geometry: Geometry, tau: float, factor: float | None, more: bool
):
    factor = factor or 1 + (2 if more else -2) * tolerance(1, geometry.size)
    progress = factor * tau / np.sqrt(geometry.mu[-1])
    served = any(ball_inside(geometry, progress * times, tau) for times in (1.0, 1.5, 10.0))
    assert trap.ball_trap(progress, geometry.mu[-1], tau) == (not served)


@given(
    geometries(),
    SCALES,
    st.sampled_from([1e-6, 0.1, 0.5, 0.9, 1.0, 1.1, 10.0]),
    st.sampled_from([None, -1, 1]),
)
@checks("T2b", "random")
@checks("T2b", "unneeded", drops="theta")
def test_the_relative_form_is_the_same_condition(
    geometry: Geometry, tau: float, theta: float, side: int | None
):
    """`side`: theta just below or above 1/sqrt(kappa). It may exceed 1: then every ellipsoid traps."""
    if side:
        theta = (1 + side * 1e-9) / np.sqrt(geometry.condition)
    progress = theta * trap.circumscribed_radius(geometry.mu[0], tau)
    assume(abs(theta * np.sqrt(geometry.condition) - 1) > 64 * EPS)
    trapped = trap.ball_trap_relative(theta, geometry.condition)
    assert trapped == trap.ball_trap(progress, geometry.mu[-1], tau)
    assert trapped == (not ball_inside(geometry, progress, tau))


@checks("T2b", "random")
def test_at_the_border_one_radius_is_left():
    """kappa = 4, theta = 1/2: R = Delta = the inner radius, exactly."""
    assert not trap.ball_trap_relative(0.5, 4.0)
    assert not trap.ball_trap(0.5, 4.0, 1.0)
    assert trap.ball_trap_relative(0.5, np.nextafter(4.0, 5.0) * (1 + 4 * EPS))
    assert trap.ball_trap(np.nextafter(0.5, 1.0), 4.0, 1.0)


@checks("T2b", "searched")
def test_the_best_radius_meets_both_demands_up_to_theta_sqrt_kappa():
    """Largest common share of the two demands over R: the square root of what the theorem compares."""
    for theta, kappa in ((0.5, 9.0), (0.1, 1e4), (1.0, 1e12), (1e-3, 1e2)):
        progress, inner = theta * trap.circumscribed_radius(1.0, 1.0), trap.inscribed_radius(kappa, 1.0)
        found = minimize_scalar(
            lambda t, progress=progress, inner=inner: -min(t - np.log(progress), np.log(inner) - t),
            bounds=(-40, 40), method="bounded", options={"xatol": 1e-12},
        )  # fmt: skip
        attains(np.exp(-found.fun) * np.sqrt(theta * trap.mismatch(kappa)), 1, tolerance=1e-9)
        assert (found.fun > 0) == trap.ball_trap_relative(theta, kappa)


@checks("T2b", "needed", drops="containment")
@checks("T2b", "random", refutes=True)
def test_one_displacement_can_be_safe_where_its_ball_is_not():
    geometry, tau, progress = Geometry(np.array([1.0, 100.0]), np.eye(2)), 1.0, 0.5
    assert trap.ball_trap(progress, 100.0, tau)
    assert not ball_inside(geometry, progress, tau)
    assert cost(geometry, np.array([progress, 0.0])) <= tau
    ledger.counterexample(
        "H = diag(1, 100), tau = 1, Delta = 1/2: no radius, yet delta = (1/2, 0) is long enough and safe"
    )


@checks("T2b", "needed", drops="relative")
@checks("T2b", "random", refutes=True)
def test_condition_alone_decides_nothing_for_a_ball():
    flat, steep = Geometry(np.ones(2), np.eye(2)), Geometry(np.array([1.0, 1e6]), np.eye(2))
    assert trap.ball_trap(2.0, flat.mu[-1], 1.0)
    assert not ball_inside(flat, 2.0, 1.0)
    assert not trap.ball_trap(1e-4, steep.mu[-1], 1.0)
    assert ball_inside(steep, 1e-4, 1.0)
    ledger.counterexample(
        "tau = 1: a trap at kappa = 1 with Delta = 2, none at kappa = 1e6 with Delta = 1e-4"
    )


# -- T2c: two requests, one penalty -------------------------------------------------------------


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


@given(requests())
@checks("T2c", "random")
def test_penalties_that_serve_both_requests(r: Requests):
    first, last = r.served(linear)
    found = trap.shared_penalties(r.a, r.b, r.progress, r.mu_max, r.tau)
    limit = tolerance(1, r.geometry.size)
    equal(found.lower, first, limit)
    equal(found.upper, last, limit)
    assume(abs(first / last - 1) > limit)
    assert found.empty == (first > last)


@given(
    requests(),
    st.sampled_from([1e-3, 0.5, 1.0, 2.0]),
    st.sampled_from([1e-3, 0.5, 1 - 1e-9, 1 + 1e-9, 2.0, 1e3]),
)
@checks("T2c", "random")
def test_the_relative_condition_decides(r: Requests, theta: float, factor: float):
    """b from far below the border to far above, and 1e-9 to either side of it."""
    kappa = r.geometry.condition
    b = factor * r.a / (theta * np.sqrt(kappa))
    progress = theta * trap.circumscribed_radius(r.geometry.mu[0], r.tau)
    case = Requests(r.geometry, r.a, b, progress, r.tau)
    first, last = case.served(linear)
    assert trap.request_trap_relative(theta, r.a, b, kappa) == (factor > 1) == (first > last)
    assert trap.shared_penalties(r.a, b, progress, case.mu_max, r.tau).empty == (factor > 1)


@checks("T2c", "random")
def test_two_demands_that_touch_share_one_penalty():
    """H = diag(1, 4), tau = 1, theta = 1/2, a = b = 1: only lam = 2 serves both."""
    touching = trap.shared_penalties(1.0, 1.0, 0.5, 4.0, 1.0)
    assert touching.lower == touching.upper == 2
    assert not touching.empty
    assert not trap.request_trap_relative(0.5, 1.0, 1.0, 4.0)
    easy, hard = linear(np.array([-1.0, 0.0]), 2.0), linear(np.array([0.0, -1.0]), 2.0)
    assert np.linalg.norm(easy) == 0.5
    assert hard @ np.diag([1.0, 4.0]) @ hard == 1
    beyond = 1 + 4 * EPS
    assert trap.shared_penalties(1.0, beyond, 0.5, 4.0, 1.0).empty
    assert trap.request_trap_relative(0.5, 1.0, beyond, 4.0)


@given(requests(), seeds)
@checks("T2c", "random")
def test_requests_off_the_eigenvectors_are_served_where_the_aligned_are(r: Requests, seed: int):
    """u_max is the worst direction for safety; progress asks for length alone."""
    u, v = directions(r.geometry.size, seed, 2)[:, -2:].T
    found = trap.shared_penalties(r.a, r.b, r.progress, r.mu_max, r.tau)
    limit = tolerance(1, r.geometry.size)
    below(switch(lambda lam: cost(r.geometry, linear(-r.b * u, lam)) <= r.tau), found.lower, limit)
    equal(switch(lambda lam: bool(np.linalg.norm(linear(-r.a * v, lam)) >= r.progress)), found.upper, limit)


@given(requests())
@checks("T2c", "searched")
def test_the_best_penalty_meets_both_demands_by_the_theorem_s_ratio(r: Requests):
    """Largest common margin over lam, squared: upper over lower end, below 1 iff there is a trap."""
    found = trap.shared_penalties(r.a, r.b, r.progress, r.mu_max, r.tau)

    def margin(t: float) -> float:
        easy, hard = linear(r.easy, np.exp(t)), linear(r.hard, np.exp(t))
        return min(np.log(np.linalg.norm(easy) / r.progress), np.log(r.tau / cost(r.geometry, hard)))

    best = minimize_scalar(lambda t: -margin(t), bounds=(-60, 60), method="bounded", options={"xatol": 1e-12})
    blur = 8 * np.sqrt(EPS) * (1 + abs(best.x))  # where such a search stops
    below(np.exp(-2 * best.fun), found.upper / found.lower, blur)
    below(found.upper / found.lower, np.exp(-2 * best.fun), blur)


@checks("T2c", "needed", drops="linear")
def test_curvature_of_the_hard_request_can_undo_the_trap():
    H, A = np.diag([1.0, 4.0]), np.diag([0.0, 10.0])
    assert trap.shared_penalties(1.0, 2.0, 0.5, 4.0, 1.0).empty
    hard = trap.displacement(np.array([0.0, -2.0]), A, 2.0)
    easy = trap.displacement(np.array([-1.0, 0.0]), A, 2.0)
    assert hard @ H @ hard <= 1
    assert np.linalg.norm(easy) >= 0.5
    ledger.counterexample(
        "H = diag(1, 4), tau = 1, Delta = 1/2, a = 1, b = 2: no lam if linear, lam = 2 with A = diag(0, 10)"
    )


@checks("T2c", "needed", drops="gradients")
@checks("T2c", "random", refutes=True)
def test_condition_alone_decides_nothing_for_two_requests():
    """theta = 1, tau = 1: Delta is the outer radius."""
    for kappa, a, b, trapped in ((1.0, 1.0, 2.0, True), (1e6, 1000.0, 1.0, False)):
        assert trap.request_trap_relative(1.0, a, b, kappa) == trapped
        case = Requests(Geometry(np.array([1.0, kappa]), np.eye(2)), a, b, 1.0, 1.0)
        first, last = case.served(linear)
        assert (first > last * (1 + 1e-9)) == trapped
    ledger.counterexample("theta = 1: a trap at kappa = 1 with b = 2 a, none at kappa = 1e6 with a = 1000 b")


# -- T2d: margin --------------------------------------------------------------------------------


@st.composite
def confined(draw: st.DrawFn) -> tuple[Array, Array | None]:
    """A gradient, and a subspace or none."""
    v = draw(vectors(draw(st.integers(1, 6))))
    return v, draw(st.none() | st.builds(lambda s, m: basis(len(v), s)[:, :m], seeds, st.integers(1, len(v))))


@given(confined(), SCALES, seeds)
@checks("T2d", "random")
def test_no_shorter_displacement_reaches_the_margin(
    case: tuple[Array, Array | None], margin: float, seed: int
):
    """Any displacement, scaled until the logit has risen by the margin."""
    v, span = case
    x = np.random.default_rng(seed).standard_normal(len(v) if span is None else span.shape[1])
    delta = x if span is None else span @ x
    cosine = v @ delta / (np.linalg.norm(v) * np.linalg.norm(delta))
    assume(abs(cosine) > 1e-9)
    delta = delta * margin / (v @ delta)
    below(trap.margin_norm(margin, v, span), np.linalg.norm(delta), tolerance(1 / abs(cosine)))


@given(confined(), SCALES)
@checks("T2d", "random")
def test_along_the_gradient_the_length_suffices(case: tuple[Array, Array | None], margin: float):
    v, span = case
    along = v if span is None else span @ (span.T @ v)
    assume(np.linalg.norm(along) > 1e-9 * np.linalg.norm(v))
    delta = trap.margin_norm(margin, v, span) * along / np.linalg.norm(along)
    equal(v @ delta, margin, tolerance(np.linalg.norm(v) / np.linalg.norm(along)))


@checks("T2d", "searched")
def test_shortest_displacement_for_a_margin():
    v, margin = np.array([1.0, -2.0, 0.5]), 3.0
    span = basis(3, 3)[:, :2]

    def ratio(x: Array, span: Array) -> float:
        rise = v @ span @ x
        return trap.margin_norm(margin, v, span) / (margin / abs(rise) * np.linalg.norm(x))

    attains(worst(lambda x: ratio(x, np.eye(3)), 3, starts=3), 1, tolerance=1e-9)
    attains(worst(lambda x: ratio(x, span), 2, starts=3), 1, tolerance=1e-9)


@checks("T2d", "needed", drops="linear")
def test_a_curved_logit_reaches_the_margin_sooner():
    """f(x) = x + x^2: gradient 1 at 0, and f(1) = 2."""
    length = 1.0
    assert length + length**2 == 2.0
    assert length < trap.margin_norm(2.0, np.array([1.0]))
    ledger.counterexample("f(x) = x + x^2, v = 1, m = 2: reached at length 1, the linear form asks for 2")


@checks("T2d", "needed", drops="parallel")
def test_length_across_the_gradient_moves_no_logit():
    v, delta = np.array([1.0, 0.0]), np.array([0.0, 1e6])
    assert np.linalg.norm(delta) > trap.margin_norm(1.0, v)
    assert v @ delta == 0
    ledger.counterexample("v = e1, m = 1: delta = 1e6 e2 is long and the logit stays")


@checks("T2d", "needed", drops="confined")
def test_a_confined_displacement_needs_more_length():
    v, span = np.array([3.0, 4.0]), np.array([[1.0], [0.0]])
    assert trap.margin_norm(15.0, v) == 3
    assert trap.margin_norm(15.0, v, span) == 5
    assert max(v @ span @ [c] for c in np.linspace(-3, 3, 61)) < 15
    assert trap.margin_norm(15.0, np.array([0.0, 4.0]), span) == np.inf
    ledger.counterexample("v = (3, 4), m = 15: length 3 is enough in the plane, along e1 alone it takes 5")


# -- P3: the executor's own cost ----------------------------------------------------------------


@dataclass(frozen=True)
class Executed:
    """A displacement that an edit of geometry G is to realise at a key."""

    geometry: Geometry
    k: Array
    delta: Array

    @property
    def rho(self) -> float:
        return suppression.realisability(self.geometry.G, self.k)

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


@given(executions())
@checks("P3", "random")
def test_least_cost_of_a_displacement(e: Executed):
    equal(trap.execution_cost(e.delta, e.rho), e.cheapest(), e.geometry.tolerance)


@given(executions(max_exponent=6), seeds, SCALES)
@checks("P3", "random")
def test_every_edit_that_realises_it_costs_as_much(e: Executed, seed: int, size: float):
    """The exact edit and anything that the key does not see."""
    exact = np.outer(e.delta, np.linalg.solve(e.geometry.G, e.k)) / e.rho
    away = np.random.default_rng(seed).standard_normal(exact.shape)
    away -= np.outer(away @ e.k, e.k) / (e.k @ e.k)
    D = exact + size * np.linalg.norm(exact) * away
    limit = e.geometry.tolerance * (1 + size)
    equal(D @ e.k, e.delta, limit)
    below(trap.execution_cost(e.delta, e.rho), np.sum((D @ e.geometry.G) * D), limit)


@given(executions(), seeds)
@checks("P3", "random")
def test_the_cost_does_not_ask_for_the_direction(e: Executed, seed: int):
    turned = basis(len(e.delta), seed) @ e.delta
    equal(
        Executed(e.geometry, e.k, turned).cheapest(),
        trap.execution_cost(e.delta, e.rho),
        e.geometry.tolerance,
    )


@given(requests(), st.floats(1e-6, 1e6), seeds, st.sampled_from([None, 1 - 1e-9, 1 + 1e-9]))
@checks("P3", "random")
def test_shared_penalties_under_the_executor_s_cost(r: Requests, rho: float, seed: int, factor: float | None):
    """In any directions. `factor`: b to either side of where the two demands touch."""
    u, v = directions(r.geometry.size, seed, 2)[:, -2:].T
    b = factor * r.tau * np.sqrt(rho) * r.a / r.progress if factor else r.b
    first = switch(lambda lam: trap.execution_cost(linear(-b * u, lam), rho) <= r.tau**2)
    last = switch(lambda lam: bool(np.linalg.norm(linear(-r.a * v, lam)) >= r.progress))
    found = trap.cost_penalties(r.a, b, r.progress, rho, r.tau)
    limit = tolerance(1, r.geometry.size)
    equal(found.lower, first, limit)
    equal(found.upper, last, limit)
    assert found.empty == (first > last)


@checks("P3", "searched")
def test_the_least_cost_is_attained():
    e = Executed(
        Geometry(np.array([0.5, 1.0, 8.0]), basis(3, 4)), np.array([1.0, -1.0, 2.0]), np.array([2.0, 1.0])
    )
    G, free = e.geometry.G, np.linalg.svd(e.k[None])[2][1:]
    some = np.outer(e.delta, e.k) / (e.k @ e.k)

    def ratio(x: Array) -> float:
        D = some + x.reshape(2, 2) @ free
        return trap.execution_cost(e.delta, e.rho) / np.sum((D @ G) * D)

    attains(worst(ratio, 4, starts=3), 1, tolerance=1e-9)


@checks("P3", "needed", drops="nonzero")
def test_without_a_key_nothing_is_realised_at_any_cost():
    G, k = np.eye(2), np.zeros(2)
    assert suppression.realisability(G, k) == 0
    assert all(np.linalg.norm(D @ k) == 0 for D in (np.ones((1, 2)), 1e9 * np.ones((1, 2))))
    with np.errstate(divide="ignore"):
        assert trap.execution_cost(np.ones(1), np.float64(0.0)) == np.inf
    ledger.counterexample("k = 0: rho = 0, D k = 0 for every D, no cost buys delta != 0")


# -- X5: KL's ellipsoid -------------------------------------------------------------------------


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


@given(pairs(), SCALES, st.sampled_from([None, 1e-3, 0.9, 1.1, 1e3]), st.booleans())
@checks("X5", "random")
def test_kl_s_ellipsoid_inside_the_feasible_one(pair: Pair, tau: float, factor: float | None, more: bool):
    """s on both sides of the largest; the outcome on the dearest boundary point and on sampled ones."""
    edge = tolerance(pair.F.condition, pair.F.size)
    factor = factor or 1 + (2 if more else -2) * edge
    s = factor * tau / pair.singular[0]
    assert trap.kl_inside(pair.F.G, pair.H.G, s, tau) == (factor < 1)
    root = pair.F.U / np.sqrt(pair.F.mu)
    M = (np.sqrt(pair.H.mu)[:, None] * pair.H.U.T) @ root
    dearest = np.linalg.svd(M)[2][0]
    boundary = s * root @ np.column_stack([dearest, directions(pair.F.size)])
    assert all(cost(pair.H, d) <= tau for d in boundary.T) == (factor < 1)


@given(pairs())
@checks("X5", "random")
def test_mismatch_is_the_ratio_of_the_two_ellipsoids_of_kl(pair: Pair):
    """Smallest around E(tau) over largest inside, from singular values."""
    equal(trap.kl_mismatch(pair.F.G, pair.H.G), pair.singular[0] / pair.singular[-1], pair.tolerance)


@given(pairs())
@checks("X5", "random")
def test_relative_condition_lies_between_its_bounds(pair: Pair):
    low, high = trap.relative_condition_bounds(pair.F.condition, pair.H.condition)
    relative = trap.kl_mismatch(pair.F.G, pair.H.G) ** 2
    below(relative, high, 2 * pair.tolerance)
    below(low, relative, 2 * pair.tolerance)


@checks("X5", "searched")
def test_both_bounds_of_the_relative_condition_are_attained():
    """Over the angle between the two eigenbases, at spectra that differ: aligned and crossed."""

    def case(turn: float, F: float, H: float) -> tuple[float, float, float]:
        c, s = np.cos(turn), np.sin(turn)
        U = np.array([[c, -s], [s, c]])
        relative = trap.kl_mismatch(np.diag([1.0, F]), (U * [1.0, H]) @ U.T) ** 2
        return (*trap.relative_condition_bounds(F, H), relative)

    for F, H in ((3.0, 20.0), (20.0, 3.0)):
        turned = [case(turn, F, H) for turn in np.linspace(0, np.pi / 2, 91)]
        attains(max(low / relative for low, _, relative in turned), 1, tolerance=1e-9)
        attains(max(relative / high for _, high, relative in turned), 1, tolerance=1e-9)


@given(geometries(max_exponent=3), st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]), SCALES)
@checks("X5", "random")
def test_kl_can_help_and_can_make_it_worse(H: Geometry, p: float, scale: float):
    """F = c H^p: mismatch kappa^|1 - p|/2. Better than the ball (p = 0) for 0 < p < 2, worse outside."""
    F = scale * power(H, p)
    seen = trap.kl_mismatch(F, H.G)
    equal(seen, H.condition ** (abs(1 - p) / 2), tolerance(H.condition ** (abs(p) + 1), H.size))
    below(1 if p == 1 else 0, seen, tolerance(H.condition**2, H.size))


@given(geometries(min_size=2, max_exponent=4), SCALES, st.sampled_from([1e-3, 1.0, 1e3]), seeds)
@checks("X5", "random")
def test_only_a_proportional_kl_matches(H: Geometry, scale: float, away: float, seed: int):
    """F = c H^1/2 (I + t v v^T) H^1/2 is proportional to H iff t = 0; the mismatch is sqrt(1 + t)."""
    v, root = basis(H.size, seed)[:, 0], power(H, 0.5)
    limit = tolerance(H.condition * (1 + away), H.size)
    equal(trap.kl_mismatch(scale * H.G, H.G), 1.0, limit)
    F = scale * root @ (np.eye(H.size) + away * np.outer(v, v)) @ root
    equal(trap.kl_mismatch((F + F.T) / 2, H.G), np.sqrt(1 + away), limit)


@checks("X5", "needed", drops="proportional")
def test_same_eigenvectors_are_not_enough_for_a_match():
    assert trap.kl_mismatch(np.eye(2), np.diag([1.0, 4.0])) == pytest.approx(2)
    assert trap.kl_mismatch(np.diag([4.0, 1.0]), np.diag([1.0, 4.0])) == pytest.approx(4)
    ledger.counterexample("H = diag(1, 4): mismatch 2 for F = I, and 4 for F = diag(4, 1)")


@checks("X5", "random")
def test_ellipsoids_that_touch_lie_within():
    """F = I, H = diag(1, 4), tau = 1: s = 1/2 touches, exactly."""
    F, H = np.eye(2), np.diag([1.0, 4.0])
    assert trap.kl_inside(F, H, 0.5, 1.0)
    assert not trap.kl_inside(F, H, 0.5 * (1 + 4 * EPS), 1.0)


# -- X6: other regularisers ---------------------------------------------------------------------


@dataclass(frozen=True)
class Regularised:
    """Requests, and a regulariser F that has u_min and u_max for eigenvectors."""

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
def regularised(draw: st.DrawFn) -> Regularised:
    """F = H^p or any spectrum, either way round."""
    r = draw(requests(max_exponent=4))
    mu = r.geometry.mu
    f = draw(st.sampled_from([mu**p for p in (0.0, 0.5, 1.0, -1.0)]) | spectra(len(mu), 4))
    return Regularised(r, f[::-1] if draw(st.booleans()) else f, draw(middles(len(mu))))


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


@given(regularised(), st.sampled_from([None, 1e-3, 1 - 1e-6, 1 + 1e-6, 1e3]))
@checks("X6", "random")
def test_one_sided_limit_of_a_regulariser(case: Regularised, factor: float | None):
    """Penalties by bisection of the regularised steps; b far from the limit and next to it."""
    r, (f_easy, f_hard) = case.requests, case.f[[0, -1]]
    limit = trap.one_sided_limit(f_easy, f_hard, r.progress, r.mu_max, r.tau)
    r = Requests(r.geometry, r.a, factor * limit * r.a if factor else r.b, r.progress, r.tau)
    first, last = r.served(case.step)
    found = trap.regularised_penalties(r.a, r.b, f_easy, f_hard, r.progress, r.mu_max, r.tau)
    equal(found.lower, first, case.tolerance)
    equal(found.upper, last, case.tolerance)
    if factor and abs(factor - 1) > case.tolerance:
        assert found.empty == (first > last) == (factor > 1)


@given(requests(max_exponent=4), st.sampled_from([0.5, 1.0, 2.0, -1.0]))
@checks("X6", "random")
def test_gain_of_a_power_of_the_geometry(r: Requests, p: float):
    """H^p lets b/a grow by kappa^p."""
    f = r.geometry.mu**p
    plain, powered = (
        trap.one_sided_limit(easy, hard, r.progress, r.mu_max, r.tau)
        for easy, hard in ((1.0, 1.0), f[[0, -1]])
    )
    equal(powered / plain, r.geometry.condition**p, tolerance())
    plain_found = trap.shared_penalties(r.a, r.b, r.progress, r.mu_max, r.tau)
    equal(plain * r.a / r.b, plain_found.upper / plain_found.lower, tolerance())


@given(regularised(), st.floats(0.01, 1))
@checks("X6", "random")
def test_a_regulariser_moves_the_window_and_keeps_its_width(case: Regularised, theta: float):
    """Two-sided; by what it costs and by what it does along the request, which agree here."""
    r, (f_easy, f_hard) = case.requests, case.f[[0, -1]]
    low, high = trap.two_sided_window(theta, r.geometry.condition, f_easy, f_hard)
    units = [case.step(-r.geometry.U[:, i], 1.0) for i in (0, -1)]
    for reach in (by_cost, along_request):
        found = window_of(r.geometry, *units, r.tau, theta, reach)
        equal(found, [low, high], case.tolerance)
    equal(high / low, theta**-2, tolerance())


@given(geometries(max_exponent=4), st.floats(0.01, 1), st.sampled_from([0.0, 0.5, 1.0]))
@checks("X6", "random")
def test_windows_of_the_three_regularisers(H: Geometry, theta: float, p: float):
    """I: around 1/sqrt(kappa); H^1/2: around 1; H: around sqrt(kappa)."""
    low, high = trap.two_sided_window(theta, H.condition, *(H.mu**p)[[0, -1]])
    centre = H.condition ** (p - 0.5)
    equal([low, high], [theta * centre, centre / theta], tolerance())


@given(pairs(max_exponent=3), st.floats(0.01, 1), SCALES)
@checks("X6", "random")
def test_no_regulariser_at_all_widens_the_window(pair: Pair, theta: float, tau: float):
    """F need not commute: steps of linear requests scale with 1/lam whatever F is.

    Measured by cost the width is theta^-2 always, along the request it is at most that.
    """
    units = [np.linalg.solve(pair.F.G, pair.H.U[:, i]) for i in (0, -1)]
    limit = tolerance(pair.F.condition * pair.H.condition, pair.H.size)
    low, high = window_of(pair.H, *units, tau, theta, by_cost)
    equal(high / low, theta**-2, limit)
    low, high = window_of(pair.H, *units, tau, theta, along_request)
    below(high / low, theta**-2, limit)


@given(
    requests(max_exponent=6), st.floats(0.01, 1), st.sampled_from([None, 1 - 1e-6, 1 + 1e-6]), st.booleans()
)
@checks("X6", "random")
def test_an_aligned_region_serves_every_eigen_aligned_request(
    r: Requests, theta: float, factor: float | None, outer: bool
):
    """One R for both, any a and b: served iff theta tau <= R <= tau. `factor`: next to either end."""
    R = (r.tau if outer else theta * r.tau) * factor if factor else r.tau * np.sqrt(theta)
    assume(abs(theta - 1) > 1e-5)
    served = True
    for g, i in ((r.easy, 0), (r.hard, -1)):
        delta = trap.aligned_displacement(g, r.geometry.G, R)
        limit = tolerance(r.geometry.condition, r.geometry.size)
        served &= cost(r.geometry, delta) <= r.tau * (1 + 1e-8)
        served &= along_request(r.geometry, delta, i, r.tau) >= theta * (1 - 1e-8)
        equal(np.linalg.norm(delta), R / np.sqrt(r.geometry.mu[i]), limit)
    assert served == (theta * r.tau <= R <= r.tau)


@given(geometries(max_exponent=6), SCALES, st.floats(0.01, 1), st.data())
@checks("X6", "random")
def test_an_aligned_region_serves_any_request(H: Geometry, tau: float, theta: float, data: st.DataObject):
    """Also off the eigenvectors: safe, and theta of the best decrease that E(tau) allows."""
    g = data.draw(vectors(H.size))
    R = tau * np.sqrt(theta)
    delta = trap.aligned_displacement(g, H.G, R)
    equal(cost(H, delta), R, H.tolerance)
    best = tau * np.linalg.norm((H.U.T @ g) / np.sqrt(H.mu))
    equal(-g @ delta, R / tau * best, H.tolerance)


@checks("X6", "searched")
def test_nothing_in_the_aligned_region_descends_further():
    H, g, R = np.array([[2.0, 1.0], [1.0, 5.0]]), np.array([1.0, -3.0]), 0.7
    least = g @ trap.aligned_displacement(g, H, R)
    attains(worst(lambda x: (g @ x) * R / np.sqrt(x @ H @ x) / least, 2, starts=3), 1, tolerance=1e-9)


@checks("X6", "searched")
def test_the_window_s_width_is_reached_and_not_passed():
    """Over F, not restricted to commuting ones; along the request."""
    H, theta = Geometry(np.array([1.0, 3.0]), np.eye(2)), 0.5

    def ratio(x: Array) -> float:
        L = np.array([[np.exp(x[0]), 0], [x[1], np.exp(x[2])]])
        units = [np.linalg.solve(L @ L.T, H.U[:, i]) for i in (0, 1)]
        low, high = window_of(H, *units, 1.0, theta, along_request)
        return high / low * theta**2

    attains(worst(ratio, 3, starts=1), 1, tolerance=1e-9)


@checks("X6", "needed", drops="commuting")
def test_without_commuting_the_formula_misses_the_window():
    """f_easy, f_hard as quadratic forms of F on u_min, u_max."""
    H, F = Geometry(np.array([1.0, 4.0]), np.eye(2)), np.array([[2.0, 1.0], [1.0, 2.0]])
    assert np.linalg.norm(F @ H.G - H.G @ F) > 1
    case = Requests(H, 1.0, 0.52, 1.0, 1.0)
    first, last = case.served(lambda g, lam: trap.displacement(g, lam * F, 0.0))
    assert first < last
    assert trap.regularised_penalties(1.0, 0.52, F[0, 0], F[1, 1], 1.0, 4.0, 1.0).empty
    ledger.counterexample(
        "H = diag(1, 4), F = [[2, 1], [1, 2]], tau = Delta = a = 1: b = 0.52 shares a lam, the formula with f = 2, 2 ends at 0.5"
    )


@checks("X6", "needed", drops="linear")
def test_curvature_stops_short_within_the_aligned_region():
    """A loss with a minimum inside the region: safe still, but not theta of the limit."""
    H, A, g, tau, theta = np.eye(1), np.array([[10.0]]), np.array([-1.0]), 1.0, 0.5
    assert np.linalg.norm(trap.aligned_displacement(g, H, tau)) == 1
    inside = trap.displacement(g, A, 0.0)
    found = minimize_scalar(
        lambda x: trap.surrogate(np.array([x]), g, A, 0.0), bounds=(-tau, tau), method="bounded"
    )
    equal(found.x, inside[0], 1e-4)
    assert np.linalg.norm(inside) < theta * tau
    ledger.counterexample(
        "H = 1, tau = 1, theta = 1/2, g = -1, A = 10: the least within the region is at 0.1 < theta tau"
    )


# -- X7: curvature ------------------------------------------------------------------------------


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


@given(
    curved(),
    st.sampled_from([None, 0.5, -1e-4, 1e-4, 1.0, 4.0]),
    st.sampled_from([None, -1e-4, 1e-4, 1.0, -1.0]),
)
@checks("X7", "random")
def test_shared_penalties_with_curvature(case: Curved, lead: float | None, gap: float | None):
    """`lead`: how far a/Delta - alpha_e is above lam0; `gap`: how far the lower end is above the upper."""
    r, (easy, hard) = case.requests, case.curvatures
    floor, alpha_e, alpha_h = case.floor, case.alphas[0][0], case.alphas[1][-1]
    size = float(max(np.abs(case.alphas).max(), floor)) or 1.0
    a, b = r.a * size, r.b * size
    if lead is not None:
        a = r.progress * (alpha_e + floor + lead * size)
        assume(a > 1e-3 * size * r.progress)
    if gap is not None:
        b = r.tau / np.sqrt(r.mu_max) * (a / r.progress - alpha_e + alpha_h + gap * size)
        assume(b > 1e-3 * size * r.tau / np.sqrt(r.mu_max))
    u_min, u_max = r.geometry.U[:, 0], r.geometry.U[:, -1]
    low, high = 1e-12 * size, 1e9 * (size + a / r.progress + b * np.sqrt(r.mu_max) / r.tau)

    def reaches(s: float) -> bool:
        return bool(trap.radius(-a * u_min, easy, floor + s) >= r.progress)

    def safe(s: float) -> bool:
        return cost(r.geometry, trap.displacement(-b * u_max, hard, floor + s)) <= r.tau

    found = trap.curved_penalties(a, b, alpha_e, alpha_h, r.progress, r.mu_max, r.tau, floor)
    last = switch(reaches, low, high) if reaches(low) else 0.0
    first = 0.0 if safe(low) else switch(safe, low, high)
    # a solve at lam0 + s errs by eps/s: ends nearer to lam0 than sqrt(eps) cannot be told from it
    scale = size + a / r.progress + b * np.sqrt(r.mu_max) / r.tau
    blur = 8 * np.sqrt(EPS)
    equal(last, max(0.0, found.upper - floor), blur, scale)
    equal(first, max(0.0, found.lower - floor), blur, scale)
    assume(abs(last - first) > 2 * blur * scale and abs(found.upper - floor) > 2 * blur * scale)
    assert found.empty == (not (last > 0 and first <= last))


@checks("X7", "random")
def test_an_easy_request_that_fails_alone_leaves_no_penalty():
    """A = diag(0, -1, 0), lam0 = 1, u_min = e1: a/Delta = 1 = alpha_e + lam0 asks for lam <= 1 and lam > 1."""
    A = np.diag([0.0, -1.0, 0.0])
    floor = trap.penalty_floor(A)
    assert floor == 1
    assert trap.curved_penalties(1.0, 1e-9, 0.0, 0.0, 1.0, 1.0, 1.0, floor).empty
    assert all(trap.radius(np.array([-1.0, 0.0, 0.0]), A, floor + s) < 1 for s in (1e-9, 1.0))
    assert not trap.curved_penalties(1.0 + 1e-9, 1e-9, 0.0, 0.0, 1.0, 1.0, 1.0, floor).empty


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


@given(generals(), st.sampled_from([1e-3, 0.5, 0.999, 1.001, 2.0, 1e3]))
@checks("X7", "random")
def test_progress_reaches_up_to_one_penalty(case: General, factor: float):
    """The progress set is an interval from lam0 on, for any A."""
    assume(case.last > 1e-9)
    lam = case.floor + factor * case.last
    reached = trap.radius(-case.a * case.geometry.U[:, 0], case.A, lam)
    assume(abs(reached / case.progress - 1) > 1e-9)
    assert (reached >= case.progress) == (factor < 1)


@given(generals(), st.sampled_from([0.01, 0.5, 0.9, 1.1, 2.0, 100.0]))
@checks("X7", "random")
def test_the_sandwich_is_right_where_it_decides(case: General, factor: float):
    """b around the true border, which comes from a dense scan of the progress set."""
    u = case.geometry.U[:, 0]
    lead = case.a / case.progress - u @ case.A @ u - case.floor
    assume(abs(lead) > EPS * 64 * (1 + case.a / case.progress))  # the easy request's own border, to rounding
    largest = case.largest_b()
    b = factor * (largest or 1.0)
    trapped, free = case.sandwich(b)
    assert not (trapped and largest >= b * (1 + 1e-9))
    assert not (free and largest <= b * (1 - 1e-6))


@given(generals())
@checks("X7", "random")
def test_the_border_lies_within_the_sandwich(case: General):
    """Its two ends are found by bisection of b, the border by a scan."""
    free, trapped = case.ends()
    largest = case.largest_b()
    below(free, largest, 1e-6)
    below(largest, trapped, 1e-9)


@checks("X7", "searched")
def test_both_sides_of_the_sandwich_are_attained():
    """Where u_min and u_max are eigenvectors, neither of the largest; then over the turn against H."""

    def case(x: Array, alpha: Array) -> General:
        V = np.linalg.qr(np.array([[1, x[0], x[1]], [-x[0], 1, x[2]], [-x[1], -x[2], 1]]))[0]
        return General(Geometry(np.array([1.0, 2.0, 9.0]), np.eye(3)), alpha, V, 10.0, 1.0, 1.0)

    def lower(x: Array) -> float:
        found = case(x, np.array([1.0, 2.0, 0.5]))
        return found.ends()[0] / found.largest_b()

    def upper(x: Array) -> float:
        found = case(x, np.array([0.5, 2.0, 1.0]))
        return found.largest_b() / found.ends()[1]

    for ratio in (lower, upper):
        attains(ratio(np.zeros(3)), 1, tolerance=1e-6)
        start = np.array([0.3, -0.2, 0.4])
        found = minimize(
            lambda x, ratio=ratio: -ratio(x), start, method="Nelder-Mead", options={"maxiter": 150}
        )
        below(-found.fun, 1, 1e-6)
        assert ratio(start) < -found.fun


@checks("X7", "searched")
def test_in_two_dimensions_the_hard_cost_always_falls():
    """Searched over H, A > -lam and the step of lam: no rise, so the end of the progress set decides."""

    def ratio(x: Array) -> float:
        L = np.array([[np.exp(x[0]), 0], [x[1], np.exp(x[2])]])
        alpha, V = np.linalg.eigh(L @ L.T)
        case = General(Geometry(np.array([1.0, 1 + np.exp(x[3])]), np.eye(2)), alpha, V, 1.0, 1.0, 1.0)
        near, far = case.costs(np.array([0.0, np.exp(x[4])]))
        return far / near

    below(worst(ratio, 5, starts=12), 1, 1e-12)


def _rising() -> General:
    """The hard cost falls, rises and falls; the progress set ends where it is highest again."""
    A = np.array([[1.0, -1.0, 7.0], [-1.0, 2.0, -7.0], [7.0, -7.0, 200.0]])
    alpha, V = np.linalg.eigh(A)
    geometry = Geometry(np.array([1.0, 99.0, 100.0]), np.eye(3))
    return General(geometry, alpha, V, 1.0, 1.0, 1.0)


@checks("X7", "needed", drops="eigenvectors")
def test_in_three_dimensions_the_end_of_the_progress_set_does_not_decide():
    plain = _rising()
    assert plain.alpha.min() > 0
    s = np.geomspace(1e-3, 1e3, 4000)
    h = plain.costs(s)
    dip = int(np.argmax(np.diff(h) > 0))
    top = dip + int(np.argmax(h[dip:]))
    assert h[top] > 1.2 * h[dip]
    end, inside = s[top], s[dip]
    a = 1 / np.linalg.norm(plain.steps(plain.geometry.U[:, 0], end))  # progress 1 exactly up to the end
    tau = np.sqrt(h[top] * h[dip])
    g_easy, g_hard, H = -a * plain.geometry.U[:, 0], -plain.geometry.U[:, -1], plain.geometry.G
    at_end, within = (trap.displacement(g_hard, plain.A, lam) for lam in (end, inside))
    assert at_end @ H @ at_end > tau**2 >= within @ H @ within
    assert trap.radius(g_easy, plain.A, inside) >= 1 > trap.radius(g_easy, plain.A, end * (1 + 1e-9))
    formula = trap.curved_penalties(a, 1.0, plain.A[0, 0], plain.A[2, 2], 1.0, 100.0, tau, 0.0)
    truth = General(plain.geometry, plain.alpha, plain.V, a, 1.0, tau).largest_b()
    assert truth > 1
    assert abs(formula.upper / end - 1) > 0.1
    ledger.counterexample(
        f"H = diag(1, 99, 100), A = [[1, -1, 7], [-1, 2, -7], [7, -7, 200]]: the hard cost is {(h[dip] / h[0]) ** 2:.2f} of its "
        f"first at lam = {inside:.2f} and {(h[top] / h[0]) ** 2:.2f} at {end:.2f}: unsafe at the end of the progress set, safe inside"
    )


@checks("X7", "needed", drops="eigenvectors")
def test_quadratic_forms_do_not_replace_eigenvalues():
    """[[2, 1], [1, 2]] has 2 on both axes and eigenvalues 1 and 3."""
    A, H = np.array([[2.0, 1.0], [1.0, 2.0]]), Geometry(np.array([1.0, 4.0]), np.eye(2))
    alpha, V = np.linalg.eigh(A)
    case = General(H, alpha, V, 3.0, 1.0, 1.0)
    said = trap.curved_penalties(3.0, 1.2, 2.0, 2.0, 1.0, 4.0, 1.0, 0.0)
    assert not said.empty
    assert abs(case.last - said.upper) > 0.1
    ledger.counterexample(
        "A = [[2, 1], [1, 2]], H = diag(1, 4), a/Delta = 3: progress does not end at 3 - 2 = 1"
    )


# -- derived ------------------------------------------------------------------------------------

VALUES = {derive.a: 3, derive.b: 2, derive.tau: 5, derive.theta: sp.Rational(1, 3), derive.Delta: sp.Rational(1, 2),
          derive.R: 2, derive.margin: 7, derive.mu_min: 2, derive.mu_max: 11, derive.f_easy: 3, derive.f_hard: 13,
          derive.alpha_easy: sp.Rational(1, 4), derive.alpha_hard: -1, derive.lam: 4,
          **dict(zip([*derive.g, derive.A[0, 0], derive.A[0, 1], derive.A[1, 1]], [1, -2, 6, 1, -3], strict=True))}  # fmt: skip
V = {str(symbol): float(value) for symbol, value in VALUES.items()}
EXACT = 64 * EPS


def number(derived: sp.Expr | sp.Matrix) -> Array:
    """At one point without symmetries."""
    found = derived.subs(VALUES)
    return np.array(found, float).ravel() if isinstance(found, sp.MatrixBase) else np.float64(found)


def vanishes(expression: sp.Expr) -> bool:
    return sp.simplify(expression) == 0


G2, A2, H2 = number(derive.g), number(derive.A).reshape(2, 2), np.diag([V["mu_min"], V["mu_max"]])


@checks("T2a", "derived")
def test_stationarity_gives_the_step():
    step, hessian = derive.penalised_step()
    assert vanishes((hessian - derive.A - derive.lam * sp.eye(2)).norm())
    equal(trap.displacement(G2, A2, V["lam"]), number(step), EXACT)


@checks("L1", "derived")
def test_the_ball_holds_nothing_better_and_shrinks():
    assert vanishes(derive.trust_region_gap())
    assert derive.radius_slope().is_nonpositive
    step, _ = derive.penalised_step()
    equal(trap.radius(G2, A2, V["lam"]), np.linalg.norm(number(step)), EXACT)


@checks("L2", "derived")
def test_extreme_lengths_on_the_ellipsoid():
    inner, outer = derive.nested_radii()
    equal(trap.inscribed_radius(V["mu_max"], V["tau"]), number(inner), EXACT)
    equal(trap.circumscribed_radius(V["mu_min"], V["tau"]), number(outer), EXACT)
    equal(trap.mismatch(V["mu_max"] / V["mu_min"]), number(outer / inner), EXACT)


@checks("T2b", "derived")
def test_largest_share_that_a_ball_allows():
    inner, _ = derive.nested_radii()
    share, kappa = number(derive.largest_share()), V["mu_max"] / V["mu_min"]
    for side in (-1, 1):
        assert trap.ball_trap_relative(share * (1 + side * 1e-12), kappa) == (side > 0)
        assert trap.ball_trap(number(inner) * (1 + side * 1e-12), V["mu_max"], V["tau"]) == (side > 0)


@checks("T2c", "derived")
def test_penalties_of_linear_requests():
    plain = {derive.alpha_easy: 0, derive.alpha_hard: 0, derive.f_easy: 1, derive.f_hard: 1}
    lower, upper = (end.subs(plain) for end in derive.penalties())
    found = trap.shared_penalties(V["a"], V["b"], V["Delta"], V["mu_max"], V["tau"])
    equal([found.lower, found.upper], [number(lower), number(upper)], EXACT)
    ratio, kappa = number(derive.largest_ratio(True).subs(plain)), V["mu_max"] / V["mu_min"]
    for side in (-1, 1):
        b = V["a"] * ratio * (1 + side * 1e-12)
        assert trap.request_trap_relative(V["theta"], V["a"], b, kappa) == (side > 0)


@checks("T2d", "derived")
def test_shortest_displacement_by_a_multiplier():
    equal(trap.margin_norm(V["margin"], G2), number(derive.shortest_displacement()), EXACT)


@checks("P3", "derived")
def test_cheapest_edit_by_multipliers():
    """The derived cost is `||delta||^2 / k^T G^-1 k`, for every G, k and delta."""
    assert derive.cheapest_edit() == 1
    equal(trap.execution_cost(np.array([3.0, 4.0]), 5.0), 5.0, EXACT)


@checks("X5", "derived")
def test_relative_extremes_by_multipliers():
    """A, the second ellipsoid, made definite: 6, 1, 3."""
    definite = {derive.A[1, 1]: 3}
    found = [number(x.subs(definite)) for x in derive.relative_extremes()]
    A = np.array([[6.0, 1.0], [1.0, 3.0]])
    equal(trap.relative_spectrum(H2, A), found, EXACT)
    equal(trap.kl_mismatch(H2, A), np.sqrt(found[1] / found[0]), EXACT)
    assert vanishes(derive.proportionality_gap())


@checks("X6", "derived")
def test_windows_from_the_four_conditions():
    plain = {derive.alpha_easy: 0, derive.alpha_hard: 0}
    lower, upper = (number(end.subs(plain)) for end in derive.penalties())
    found = trap.regularised_penalties(
        V["a"], V["b"], V["f_easy"], V["f_hard"], V["Delta"], V["mu_max"], V["tau"]
    )
    equal([found.lower, found.upper], [lower, upper], EXACT)
    limit = trap.one_sided_limit(V["f_easy"], V["f_hard"], V["Delta"], V["mu_max"], V["tau"])
    equal(limit, number(derive.largest_ratio()), EXACT)
    low, high = derive.window()
    assert vanishes(high / low - derive.theta**-2)
    window = trap.two_sided_window(V["theta"], V["mu_max"] / V["mu_min"], V["f_easy"], V["f_hard"])
    equal(window, [number(low), number(high)], EXACT)


@checks("X6", "derived")
def test_aligned_step_by_a_multiplier():
    step, spent, reached = derive.aligned_step()
    assert vanishes(spent - derive.R**2)
    assert vanishes(reached - derive.R / derive.tau)
    equal(trap.aligned_displacement(G2, H2, V["R"]), number(step), EXACT)


@checks("X7", "derived")
def test_penalties_with_curvature():
    lower, upper = (number(end.subs({derive.f_easy: 1, derive.f_hard: 1})) for end in derive.penalties())
    found = trap.curved_penalties(
        V["a"], V["b"], V["alpha_easy"], V["alpha_hard"], V["Delta"], V["mu_max"], V["tau"], 1.0
    )
    equal([found.lower, found.upper], [lower, upper], EXACT)


@checks("X7", "derived")
def test_the_sandwich_s_inequality_and_two_dimensions():
    """Cauchy and Schwarz leave a square; at d = 2 the hard cost's slope has one sign."""
    assert vanishes(derive.cauchy_gap())
    assert derive.planar_cost_slope().is_positive
