"""Theorem 2 derived by sympy, and its functions against the derivations."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from theory import derive_trap as derive
from theory import trap
from verification import symbols
from verification.ledger import checks, equal, holds
from verification.strategies import EPS
from verification.symbols import vanishes

Array = NDArray[np.float64]


VALUES = {
    derive.a: 3,
    derive.b: 2,
    derive.tau: 5,
    derive.theta: sp.Rational(1, 3),
    derive.Delta: sp.Rational(1, 2),
    derive.R: 2,
    derive.margin: 7,
    derive.mu_min: 2,
    derive.mu_max: 11,
    derive.f_easy: 3,
    derive.f_hard: 13,
    derive.alpha_easy: sp.Rational(1, 4),
    derive.alpha_hard: -1,
    derive.lam: 4,
    **dict(zip([*derive.g, derive.A[0, 0], derive.A[0, 1], derive.A[1, 1]], [1, -2, 6, 1, -3], strict=True)),
}


V = {str(symbol): float(value) for symbol, value in VALUES.items()}


EXACT = 64 * EPS


def number(derived: sp.Expr | sp.Matrix) -> Array:
    """At one point without symmetries."""
    return symbols.number(derived, VALUES)


G2, A2, H2 = number(derive.g), number(derive.A).reshape(2, 2), np.diag([V["mu_min"], V["mu_max"]])


@checks("T2a", "derived")
def test_stationarity_gives_the_step():
    step, hessian = derive.penalized_step()
    assert vanishes((hessian - derive.A - derive.lam * sp.eye(2)).norm())
    equal(trap.displacement(G2, A2, V["lam"]), number(step), EXACT)


@checks("L1", "derived")
def test_the_ball_holds_nothing_better_and_shrinks():
    assert vanishes(derive.trust_region_gap())
    assert derive.radius_slope().is_nonpositive
    step, _ = derive.penalized_step()
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
    assert holds(derive.cheapest_edit() == 1, "derived")
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
    found = trap.regularized_penalties(
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
