"""L2, T2b to T2d: a ball of residuals against the ellipsoid of their cost."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from theory import trap
from verification import ledger
from verification.ledger import attains, below, checks, equal, holds
from verification.problems import (
    SCALES,
    Requests,
    cost,
    directions,
    linear,
    requests,
    switch,
)
from verification.search import lowest, worst
from verification.strategies import EPS, Geometry, basis, geometries, seeds, tolerance, vectors

Array = NDArray[np.float64]


# -- L2, T2b: ball and ellipsoid -----------------------------------------------------------------


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
    assert holds(ball_inside(geometry, inner * factor, tau) == (factor < 1))
    assert holds(ellipsoid_inside(geometry, outer * factor, tau) == (factor > 1))


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
    assert holds(trap.ball_trap(progress, geometry.mu[-1], tau) == (not served))


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
    assert holds(trapped == trap.ball_trap(progress, geometry.mu[-1], tau))
    assert holds(trapped == (not ball_inside(geometry, progress, tau)))


@checks("T2b", "random")
def test_at_the_border_one_radius_is_left():
    """kappa = 4, theta = 1/2: R = Delta = the inner radius, exactly."""
    assert holds(not trap.ball_trap_relative(0.5, 4.0))
    assert holds(not trap.ball_trap(0.5, 4.0, 1.0))
    assert holds(trap.ball_trap_relative(0.5, np.nextafter(4.0, 5.0) * (1 + 4 * EPS)))
    assert holds(trap.ball_trap(np.nextafter(0.5, 1.0), 4.0, 1.0))


@checks("T2b", "searched")
def test_the_best_radius_meets_both_demands_up_to_theta_sqrt_kappa():
    """Largest common share of the two demands over R: the square root of what the theorem compares."""
    for theta, kappa in ((0.5, 9.0), (0.1, 1e4), (1.0, 1e12), (1e-3, 1e2)):
        progress, inner = theta * trap.circumscribed_radius(1.0, 1.0), trap.inscribed_radius(kappa, 1.0)
        least, _ = lowest(
            lambda t, progress=progress, inner=inner: -min(t - np.log(progress), np.log(inner) - t), -40, 40
        )
        attains(np.exp(-least) * np.sqrt(theta * trap.mismatch(kappa)), 1, tolerance=1e-9)
        assert (least > 0) == trap.ball_trap_relative(theta, kappa)


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


# -- T2c: two requests, one penalty --------------------------------------------------------------


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
    assert holds(trap.request_trap_relative(theta, r.a, b, kappa) == (factor > 1) == (first > last))
    assert holds(trap.shared_penalties(r.a, b, progress, case.mu_max, r.tau).empty == (factor > 1))


@checks("T2c", "random")
def test_two_demands_that_touch_share_one_penalty():
    """H = diag(1, 4), tau = 1, theta = 1/2, a = b = 1: only lam = 2 serves both."""
    touching = trap.shared_penalties(1.0, 1.0, 0.5, 4.0, 1.0)
    assert holds(touching.lower == touching.upper == 2)
    assert holds(not touching.empty)
    assert holds(not trap.request_trap_relative(0.5, 1.0, 1.0, 4.0))
    easy, hard = linear(np.array([-1.0, 0.0]), 2.0), linear(np.array([0.0, -1.0]), 2.0)
    assert holds(np.linalg.norm(easy) == 0.5)
    assert holds(hard @ np.diag([1.0, 4.0]) @ hard == 1)
    beyond = 1 + 4 * EPS
    assert holds(trap.shared_penalties(1.0, beyond, 0.5, 4.0, 1.0).empty)
    assert holds(trap.request_trap_relative(0.5, 1.0, beyond, 4.0))


@given(requests(), seeds)
@checks("T2c", "random")
def test_requests_off_the_eigenvectors_are_served_where_the_aligned_are(r: Requests, seed: int):
    """u_max is the worst direction for safety; progress asks for length alone."""
    u, v = directions(r.geometry.size, seed, 2)[:, -2:].T
    found = trap.shared_penalties(r.a, r.b, r.progress, r.mu_max, r.tau)
    limit = tolerance(1, r.geometry.size)
    below(switch(lambda lam: cost(r.geometry, linear(-r.b * u, lam)) <= r.tau), found.lower, limit)
    equal(switch(lambda lam: bool(np.linalg.norm(linear(-r.a * v, lam)) >= r.progress)), found.upper, limit)


@given(requests(), seeds)
@checks("T2c", "unneeded", drops="directions")
def test_the_hard_gradient_s_own_length_decides(r: Requests, seed: int):
    """Any two directions; the easy one's does not enter."""
    u, v = directions(r.geometry.size, seed, 2)[:, -2:].T
    found = trap.shared_penalties(r.a, r.b, r.progress, cost(r.geometry, u) ** 2, r.tau)
    limit = tolerance(1, r.geometry.size)
    equal(switch(lambda lam: cost(r.geometry, linear(-r.b * u, lam)) <= r.tau), found.lower, limit)
    equal(switch(lambda lam: bool(np.linalg.norm(linear(-r.a * v, lam)) >= r.progress)), found.upper, limit)


@given(requests())
@checks("T2c", "searched")
def test_the_best_penalty_meets_both_demands_by_the_theorem_s_ratio(r: Requests):
    """Largest common margin over lam, squared: upper over lower end, below 1 iff there is a trap."""
    found = trap.shared_penalties(r.a, r.b, r.progress, r.mu_max, r.tau)

    def margin(t: float) -> float:
        easy, hard = linear(r.easy, np.exp(t)), linear(r.hard, np.exp(t))
        return min(np.log(np.linalg.norm(easy) / r.progress), np.log(r.tau / cost(r.geometry, hard)))

    least, at = lowest(lambda t: -margin(t), -60, 60)
    blur = 8 * np.sqrt(EPS) * (1 + abs(at))  # where such a search stops
    below(np.exp(-2 * least), found.upper / found.lower, blur)
    below(found.upper / found.lower, np.exp(-2 * least), blur)


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


# -- T2d: margin ---------------------------------------------------------------------------------


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
