"""T3b, T3c, X9: when the proxy descends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from theory import fidelity
from verification import ledger, nets
from verification.ledger import below, checks, equal, holds, reaches
from verification.nets import Case, Fidelity, cases, few, norm
from verification.search import attained, worst
from verification.strategies import (
    EPS,
    Stack,
    basis,
    seeds,
    stacks,
    tolerance,
)

Array = NDArray[np.float64]


@given(stacks())
@checks("T3b", "random")
def test_zeta_bounds_the_error_and_gives_descent(s: Stack):
    x = Fidelity.of(s)
    square = norm(x.proxy) ** 2
    assume(square > 1e-6)
    sigma = fidelity.nondegeneracy(x.Gamma[-1], x.q[-1])
    zeta, sharp = fidelity.zeta(x.gamma, x.gap, sigma), fidelity.zeta_sharp(x.gamma, x.gap)
    below(x.error, sharp * norm(x.proxy) + x.rounding)
    below(sharp, zeta, 4 * EPS)
    for value in (zeta, sharp):
        if value < 1:
            below((1 - value) * square, x.g @ x.proxy + x.rounding * norm(x.proxy))
            assert x.g @ x.proxy > 0


@given(stacks())
@checks("T3b", "random")
def test_zeta_is_the_error_bound_in_units_of_the_proxy(s: Stack):
    """(67)-(70): with ||g_L|| at its largest, (1 + eps_I) ||g~||, both say the same."""
    x = Fidelity.of(s)
    assume(norm(x.proxy) > 1e-6)
    Gamma, q = fidelity.spectral(x.Gamma[-1]), norm(x.q[-1])
    sigma = fidelity.nondegeneracy(x.Gamma[-1], x.q[-1])
    below(sigma, 1, tolerance())
    bound = fidelity.error_bound(x.gamma, (1 + x.gap) * norm(x.proxy), x.gap, Gamma, q)
    equal(fidelity.zeta(x.gamma, x.gap, sigma) * norm(x.proxy), bound, tolerance())
    below(norm(x.each[-1]), (1 + x.gap) * norm(x.proxy), tolerance())


@few
@given(cases())
@checks("T3b", "random")
@checks("T3c", "random")
def test_descent_in_a_net(case: Case):
    x = Fidelity.of(nets.gradients(case.net, case.z, case.shares))
    assume(norm(x.proxy) > 1e-9 * x.rounding / EPS and norm(x.each[-1]) > 0)
    below(x.error, fidelity.zeta_sharp(x.gamma, x.gap) * norm(x.proxy) + x.rounding)
    floor = fidelity.descent_bound(x.gamma, x.gap) * norm(x.proxy) ** 2
    assert x.g @ x.proxy >= floor - 4 * x.rounding * norm(x.proxy) * (1 + x.gamma) * (1 + x.gap)
    scaled = fidelity.scaled_gap(x.J[-1])
    if x.gamma < 1 and scaled < 1:
        below(_angle(x.g, x.proxy), np.arccos(fidelity.cosine_bound(x.gamma, scaled)) + 1e-6)


@given(stacks())
@checks("T3b", "random")
def test_smallest_descent(s: Stack):
    x = Fidelity.of(s)
    square = norm(x.proxy) ** 2
    assume(square > 1e-6)
    rounding = x.rounding * norm(x.proxy) * (1 + x.gamma) * (1 + x.gap)
    assert x.g @ x.proxy >= fidelity.descent_bound(x.gamma, x.gap) * square - rounding
    if x.gamma <= 1:
        below(1 - fidelity.zeta_sharp(x.gamma, x.gap), fidelity.descent_bound(x.gamma, x.gap) + 8 * EPS)


def _plane(x: Array) -> Fidelity | None:
    """Two layers in the plane from ten numbers, g~ = e_1, or None without it."""
    Gamma = np.array([[1.0], [0.0]])
    s = Fidelity([x[:4].reshape(2, 2), x[4:8].reshape(2, 2)], [x[8:10, None], Gamma], [np.ones(1)] * 2)
    return s if norm(s.each[-1]) > 1e-6 else None


@checks("T3b", "searched")
def test_zeta_is_attained():
    def ratio(x: Array) -> float:
        s = _plane(x)
        return s.error / fidelity.zeta_sharp(s.gamma, s.gap) if s else np.nan

    attained(ratio, 10)


@checks("T3b", "searched")
@pytest.mark.parametrize(
    ("gamma", "gap"), [(0.3, 0.2), (0.7, 0.6), (0.8, 0.7), (1.2, 0.5), (0.5, 1.2), (2.0, 0.5)]
)
def test_smallest_descent_is_attained(gamma: float, gap: float):
    """The least <g, g~> for given gamma and eps_I, over the direction of g_L - g~ and of the tail."""

    def inner(x: Array) -> float:
        last = np.array([1.0, 0.0]) + gap * np.array([np.cos(x[0]), np.sin(x[0])])
        rest = gamma * norm(last) * np.array([np.cos(x[1]), np.sin(x[1])])
        return float(last[0] + rest[0])

    floor = fidelity.descent_bound(gamma, gap)
    found = 4 - worst(lambda x: 4 - inner(x), 2)
    assert found >= floor - 1e-9
    equal(found, floor, 1e-6, 1.0)
    assert (floor > 0) == (gamma**2 + gap**2 < 1)


@checks("T3b", "needed", drops="small")
def test_zeta_of_one_is_no_descent():
    s = Fidelity([-np.eye(1), np.eye(1)], [np.ones((1, 1))] * 2, [np.ones(1)] * 2)
    assert fidelity.zeta_sharp(s.gamma, s.gap) == 1
    assert s.g @ s.proxy == 0
    ledger.counterexample("g_1 = -g_2, J_2 = I: zeta = 1 and g = 0")


@checks("T3b", "needed", drops="nonzero")
def test_a_vanishing_proxy_does_not_descend():
    s = Fidelity([np.eye(2)], [np.diag([1.0, 0.0])], [np.array([0.0, 1.0])])
    assert s.gap == 0
    assert not s.proxy.any()
    assert s.g @ s.proxy == 0
    ledger.counterexample("one layer, Gamma = diag(1, 0), q = e2: g~ = 0 and <g, g~> = 0 is not > 0")


@given(stacks(), st.sampled_from([1e-3, 1e-6, 1e-9]))
@checks("T3b", "unneeded", drops="sigma")
def test_sigma_does_not_matter(s: Stack, small: float):
    """A column of Gamma that q does not see makes sigma as small as one likes and changes nothing."""
    x = Fidelity.of(s)
    assume(norm(x.proxy) > 1e-6 and x.gap > 1e-3)
    Gamma = [np.concatenate([G, np.zeros((len(G), 1))], 1) for G in x.Gamma]
    Gamma[-1][:, -1] = norm(x.proxy) / (small * norm(x.q[-1]) * np.sqrt(len(Gamma[-1])))
    wide = Fidelity(x.J, Gamma, [np.append(q, 0.0) for q in x.q])
    sigma = fidelity.nondegeneracy(wide.Gamma[-1], wide.q[-1])
    below(sigma, small, tolerance())
    equal(wide.g, x.g, tolerance(), x.rounding / EPS)
    sharp = fidelity.zeta_sharp(x.gamma, x.gap)
    assert fidelity.zeta(x.gamma, x.gap, sigma) >= x.gap / small * (1 - 1e-9)
    below(wide.error, sharp * norm(x.proxy) + wide.rounding)


def _angle(x: Array, y: Array) -> float:
    return float(np.arccos(np.clip(fidelity.cosine(x, y), -1, 1)))


@given(stacks())
@checks("T3c", "random")
def test_angle_between_hypergradient_and_proxy(s: Stack):
    """Angles add: asin gamma for the tail, asin eps for the allocation. At 0 and pi/2 arccos is good to 1e-7."""
    x = Fidelity.of(s)
    gap = fidelity.scaled_gap(x.J[-1])
    assume(norm(x.proxy) > 1e-6 and x.gamma < 1 and gap < 1)
    bound = fidelity.cosine_bound(x.gamma, gap)
    equal(np.arccos(np.clip(bound, -1, 1)), np.arcsin(x.gamma) + np.arcsin(gap), 1e-7, 1.0)
    below(_angle(x.g, x.proxy), np.arcsin(x.gamma) + np.arcsin(gap) + 1e-6)
    if x.gamma**2 + gap**2 < 1 - 1e-6:
        assert bound > 0
        assert x.g @ x.proxy > 0


@given(st.integers(1, 5), seeds, st.floats(0.1, 1), st.floats(-1.5, 1.5), st.sampled_from([1.0, 1e-6, 1e6]))
@checks("T3c", "random")
def test_scaled_gap_in_closed_form(n: int, seed: int, low: float, angle: float, scale: float):
    """Symmetric: (b - a)/(b + a) from the extreme eigenvalues; a scaled rotation: the sine of its angle."""
    U = basis(n, seed)
    values = np.linspace(low, 1, n)
    symmetric = scale * (U * values) @ U.T
    equal(fidelity.scaled_gap(symmetric), (values[-1] - values[0]) / (values[-1] + values[0]), 1e-7, 1.0)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    equal(fidelity.scaled_gap(turn), abs(np.sin(angle)), 1e-7, 1.0)
    equal(fidelity.scaled_gap(-symmetric), 1.0, 1e-12)  # no c > 0 brings it nearer than 0 does
    below(fidelity.scaled_gap(symmetric), fidelity.spectral(symmetric - np.eye(n)) + 1e-7)


def _worst_stack(gamma: float, gap: float, scale: float = 1.0) -> Fidelity:
    """Tail and allocation turn the same way, each as far as it can."""
    a, b = np.arcsin(gap), np.arcsin(gamma)
    # J^T e_1 = c (e_1 + gap u) with u a turn of the plane such that it is perpendicular to the result
    J = scale * (np.eye(2) + gap * np.array([[-np.sin(a), -np.cos(a)], [np.cos(a), -np.sin(a)]]).T)
    last = J.T[:, 0]
    turn = a + b + np.pi / 2
    rest = gamma * norm(last) * np.array([np.cos(turn), np.sin(turn)])
    return Fidelity([np.eye(2), J], [rest[:, None], np.array([[1.0], [0.0]])], [np.ones(1)] * 2)


@given(st.floats(0, 0.999), st.floats(0, 0.999), st.sampled_from([1.0, 0.1, 30.0]))
@checks("T3c", "searched")
def test_angle_bound_is_attained(gamma: float, gap: float, scale: float):
    s = _worst_stack(gamma, gap, scale)
    equal(s.gamma, gamma, 1e-9, 1.0)
    equal(fidelity.scaled_gap(s.J[-1]), gap, 1e-7, 1.0)
    bound = fidelity.cosine_bound(gamma, gap)
    reaches(fidelity.cosine(s.g, s.proxy), bound, 1e-9, 1.0)
    below(np.arcsin(gamma) + np.arcsin(gap), _angle(s.g, s.proxy) + 1e-7)


@given(st.floats(0, 3.14), st.floats(0, 0.999))
@checks("T3c", "random")
def test_a_full_tail_approaches_the_bound_and_does_not_attain_it(turn: float, gap: float):
    """gamma = 1: a tail as long as g_L that turns by less than pi turns g by half of that; by pi it leaves g = 0."""
    J = _worst_stack(0.0, gap).J[-1]
    last, direction = J.T[:, 0], np.arcsin(gap) + turn
    rest = norm(last) * np.array([np.cos(direction), np.sin(direction)])
    s = Fidelity([np.eye(2), J], [rest[:, None], np.array([[1.0], [0.0]])], [np.ones(1)] * 2)
    equal(s.gamma, 1.0, 1e-9)
    equal(fidelity.cosine(s.g, s.proxy), np.cos(np.arcsin(gap) + turn / 2), 1e-9, 1.0)
    assert holds(fidelity.cosine(s.g, s.proxy) > fidelity.cosine_bound(1.0, gap))


@given(st.floats(0.01, 1.56), st.sampled_from([1e-1, 1e-3, 1e-6, 1e-9]))
@checks("T3c", "searched")
def test_sign_flips_exactly_on_the_circle(angle: float, step: float):
    for inside in (True, False):
        length = 1 - step if inside else 1 + step
        gamma, gap = length * np.cos(angle), length * np.sin(angle)
        assume(max(gamma, gap) < 1)
        s = _worst_stack(gamma, gap)
        assert holds((s.g @ s.proxy > 0) == inside, "searched")
        assert (fidelity.cosine_bound(gamma, gap) > 0) == inside


@checks("T3c", "searched")
@pytest.mark.parametrize(("gamma", "gap"), [(0.5, 0.4), (0.9, 0.1), (0.1, 0.9), (0.8, 0.8)])
def test_no_instance_turns_further_than_the_bound(gamma: float, gap: float):
    """Over all J_L with ||J_L - I|| = eps in space and all tails of size gamma."""

    def ratio(x: Array) -> float:
        turn = x[:9].reshape(3, 3)
        J = np.eye(3) + gap * turn / fidelity.spectral(turn)
        rest = gamma * norm(J[0]) * x[9:] / norm(x[9:])
        g = J[0] + rest  # g~ = e_1, g_L = J^T e_1
        return _angle(g, np.eye(3)[0]) / np.arccos(fidelity.cosine_bound(gamma, gap))

    attained(ratio, 12, starts=2)


@checks("T3c", "needed", drops="circle")
def test_on_the_circle_there_is_no_descent():
    s = _worst_stack(0.6, 0.8)
    equal(s.g @ s.proxy, 0.0, 4 * EPS, 1.0)
    worse = _worst_stack(0.7, 0.8)
    assert worse.g @ worse.proxy < -0.01
    ledger.counterexample("gamma = 0.7, eps = 0.8 in the plane: cos(g, g~) = -0.13; at (0.6, 0.8) it is 0")


@given(st.floats(0, 0.999), st.floats(0, 0.999), st.booleans(), st.booleans())
@checks("T3c", "random")
def test_on_a_line_the_circle_does_not_matter(gamma: float, gap: float, up: bool, along: bool):
    """d_v = 1: nothing can turn, so gamma, eps < 1 is enough."""
    J = np.array([[1 + gap if up else 1 - gap]])
    rest = gamma * J[0, 0] * (1 if along else -1)
    s = Fidelity([np.eye(1), J], [np.array([[rest]]), np.ones((1, 1))], [np.ones(1)] * 2)
    assert holds(s.g @ s.proxy > 0)


@given(stacks())
@checks("X9", "random")
def test_aligned_layers_descend(s: Stack):
    """Every layer is turned to the proxy's side, however large the tail; then one is turned away."""
    x = Fidelity.of(s)
    gap, square = x.gap, norm(x.proxy) ** 2
    assume(square > 1e-6 and gap < 1 - 1e-6)
    each = [g if g @ x.proxy >= 0 else -g for g in x.each]
    assert fidelity.alignment_premise(each, x.proxy, gap * (1 + 1e-9) + 1e-12)
    inner = np.sum(each, axis=0) @ x.proxy
    below((1 - gap) * square, inner + x.rounding * norm(x.proxy))
    assert inner > 0
    for i in range(len(each)):
        if each[i] @ x.proxy > 0:
            assert not fidelity.alignment_premise(
                [-g if i == j else g for j, g in enumerate(each)], x.proxy, gap
            )


@given(st.floats(0, 0.99), st.floats(1e-3, 0.5))
@checks("X9", "random")
def test_alignment_premise_on_both_sides(gap: float, step: float):
    proxy, away = np.array([2.0, 0.0]), np.array([0.0, 1.0])
    for enough in (True, False):
        last = proxy * ((1 - gap) * (1 + step if enough else 1 - step))
        assert holds(fidelity.alignment_premise([away, last], proxy, gap) == enough)
    assert holds(fidelity.alignment_premise([proxy], proxy, 0.0))  # the border belongs to it
    assert holds(not fidelity.alignment_premise([away, away], proxy, 1.0))
    assert holds(not fidelity.alignment_premise([away, away], 0 * proxy, gap))


@few
@given(cases())
@checks("X9", "random")
def test_aligned_layers_descend_in_a_net(case: Case):
    x = Fidelity.of(nets.gradients(case.net, case.z, case.shares))
    assume(norm(x.proxy) > 1e-9 * x.rounding / EPS)
    if fidelity.alignment_premise(x.each, x.proxy, x.gap):
        below((1 - x.gap) * norm(x.proxy) ** 2, x.g @ x.proxy + x.rounding * norm(x.proxy))
        assert x.g @ x.proxy > 0


@checks("X9", "needed", drops="aligned")
def test_one_opposing_layer_turns_the_descent():
    proxy = np.array([1.0, 0.0])
    each = [np.array([-2.0, 0.0]), proxy]
    assert each[-1] @ proxy == 1
    assert not fidelity.alignment_premise(each, proxy, 0.0)
    assert np.sum(each, axis=0) @ proxy < 0
    ledger.counterexample("g_1 = -2 g~, g_2 = g~: <g, g~> = -||g~||^2")
