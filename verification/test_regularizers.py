"""X6: penalties between the ball and the cost, and when they open a window."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from theory import trap
from verification import ledger
from verification.ledger import attains, below, checks, equal
from verification.problems import (
    SCALES,
    Pair,
    Regularized,
    Requests,
    along_request,
    by_cost,
    cost,
    pairs,
    regularized,
    requests,
    window_of,
)
from verification.search import worst
from verification.strategies import Geometry, geometries, tolerance, vectors

Array = NDArray[np.float64]


@given(regularized(), st.sampled_from([None, 1e-3, 1 - 1e-6, 1 + 1e-6, 1e3]))
@checks("X6", "random")
def test_one_sided_limit_of_a_regularizer(case: Regularized, factor: float | None):
    """Penalties by bisection of the regularized steps; b far from the limit and next to it."""
    r, (f_easy, f_hard) = case.requests, case.f[[0, -1]]
    limit = trap.one_sided_limit(f_easy, f_hard, r.progress, r.mu_max, r.tau)
    r = Requests(r.geometry, r.a, factor * limit * r.a if factor else r.b, r.progress, r.tau)
    first, last = r.served(case.step)
    found = trap.regularized_penalties(r.a, r.b, f_easy, f_hard, r.progress, r.mu_max, r.tau)
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


@given(regularized(), st.floats(0.01, 1))
@checks("X6", "random")
def test_a_regularizer_moves_the_window_and_keeps_its_width(case: Regularized, theta: float):
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
def test_windows_of_the_three_regularizers(H: Geometry, theta: float, p: float):
    """I: around 1/sqrt(kappa); H^1/2: around 1; H: around sqrt(kappa)."""
    low, high = trap.two_sided_window(theta, H.condition, *(H.mu**p)[[0, -1]])
    center = H.condition ** (p - 0.5)
    equal([low, high], [theta * center, center / theta], tolerance())


@given(pairs(max_exponent=3), st.floats(0.01, 1), SCALES)
@checks("X6", "random")
def test_no_regularizer_at_all_widens_the_window(pair: Pair, theta: float, tau: float):
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
    assert trap.regularized_penalties(1.0, 0.52, F[0, 0], F[1, 1], 1.0, 4.0, 1.0).empty
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
