"""T2a, L1: the penalized step, and the trust region it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

from theory import trap
from verification import ledger
from verification.ledger import attains, below, checks, equal, holds
from verification.problems import (
    SCALES,
    Surrogate,
    directions,
    surrogates,
    trust_region,
)
from verification.search import worst
from verification.strategies import EPS, basis, seeds, tolerance

Array = NDArray[np.float64]


# -- T2a: the penalized step ---------------------------------------------------------------------


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
    """By the quadratic form of A + lam I, positive: the minimizer is the only one."""
    step = np.random.default_rng(seed).standard_normal(len(s.g)) * size * np.linalg.norm(s.delta)
    expected = float(np.sum((s.alpha + s.lam) * (s.U.T @ step) ** 2) / 2)
    here, there = (trap.surrogate(d, s.g, s.A, s.lam) for d in (s.delta, s.delta + step))
    assert expected > 0
    equal(there - here, expected, s.tolerance, s.size * (np.linalg.norm(step) + np.linalg.norm(s.delta)) ** 2)


@checks("T2a", "searched")
def test_a_minimizer_of_the_surrogate_ends_at_the_step():
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


# -- L1: penalty and trust region ----------------------------------------------------------------


@given(surrogates(max_exponent=5))
@checks("L1", "random")
def test_penalized_step_solves_the_trust_region(s: Surrogate):
    """Its radius, its minimizer and its multiplier, against the secular equation."""
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
            assert holds(s.value(share * R * u) >= s.value(s.delta) - s.tolerance * scale)


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
def test_nothing_in_the_ball_beats_the_penalized_step():
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
