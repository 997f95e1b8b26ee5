"""X7: what curvature of the loss changes."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

from theory import trap
from verification import ledger
from verification.ledger import attains, below, checks, equal, holds
from verification.problems import (
    Curved,
    General,
    cost,
    curved,
    generals,
    switch,
)
from verification.search import worst
from verification.strategies import EPS, Geometry

Array = NDArray[np.float64]


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
    assert holds(floor == 1)
    assert holds(trap.curved_penalties(1.0, 1e-9, 0.0, 0.0, 1.0, 1.0, 1.0, floor).empty)
    assert holds(all(trap.radius(np.array([-1.0, 0.0, 0.0]), A, floor + s) < 1 for s in (1e-9, 1.0)))
    assert holds(not trap.curved_penalties(1.0 + 1e-9, 1e-9, 0.0, 0.0, 1.0, 1.0, 1.0, floor).empty)


@given(generals(), st.sampled_from([1e-3, 0.5, 0.999, 1.001, 2.0, 1e3]))
@checks("X7", "random")
def test_progress_reaches_up_to_one_penalty(case: General, factor: float):
    """The progress set is an interval from lam0 on, for any A."""
    assume(case.last > 1e-9)
    lam = case.floor + factor * case.last
    reached = trap.radius(-case.a * case.geometry.U[:, 0], case.A, lam)
    assume(abs(reached / case.progress - 1) > 1e-9)
    assert holds((reached >= case.progress) == (factor < 1))


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
    assert holds(not (trapped and largest >= b * (1 + 1e-9)))
    assert holds(not (free and largest <= b * (1 - 1e-6)))


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
