"""Section 4 and Theorem 3 derived by sympy, and their functions against the derivations."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
from numpy.typing import NDArray

from theory import derive_fidelity as derive
from theory import fidelity
from verification import ledger
from verification.ledger import checks, equal
from verification.strategies import (
    EPS,
    tolerance,
)
from verification.symbols import number, vanishes

Array = NDArray[np.float64]


def _symbols(*names: str) -> tuple[sp.Symbol, ...]:
    """As the derivations name them."""
    return tuple(sp.Symbol(name, positive=True) for name in names)


@checks("L3", "derived")
def test_inverse_drift_from_the_resolvent():
    assert derive.resolvent() == 0
    mu, e, x = _symbols("mu", "e", "x")
    assert vanishes(derive.neumann().subs(x, e / mu) / mu - e / (mu * (mu - e)))
    stated = derive.neumann().subs(x, sp.Rational(1, 6)) / 3
    equal(fidelity.inverse_drift_stated(3.0, 0.5), float(stated), 4 * EPS)
    sharp, slope = derive.sharp_inverse_drift()
    assert vanishes(fidelity.inverse_drift(mu, e) - sharp)
    assert slope.is_negative  # so the largest value is at the floor


@checks("L4", "derived")
def test_channel_drift_from_the_slopes_of_a_channel():
    """Keys: the Jacobian's norm is 1/mu at most. Geometries: 1/mu from the resolvent, times the longest channel."""
    assert vanishes(derive.channel_derivative())
    eta = sp.Symbol("eta", real=True)
    for value in derive.channel_slopes():
        ends = [value.subs(eta, x) for x in (0, sp.Rational(3, 4), 1)]  # 3/4: the quadratic one's vertex
        assert max(map(abs, ends)) <= 1
    (g,) = _symbols("g")
    longest = derive.longest_channel().subs(g, 4)
    equal(fidelity.channel_drift(0.0, 1.0, 4.0, np.inf), float(longest / 4), 4 * EPS)
    equal(fidelity.channel_drift(1.0, 0.0, 4.0, np.inf), 1 / 4, 4 * EPS)
    sharp = derive.sharp_inverse_drift()[0].subs(dict(zip(_symbols("mu", "e"), (4, 1), strict=True)))
    equal(fidelity.channel_drift(0.0, 1.0, 4.0, 0.1), float(sharp) / 10, 4 * EPS)


@checks("L5", "derived")
def test_proxy_is_the_adjoint_of_a_fixed_channel():
    Gamma, q, slope = derive.adjoint()
    assert vanishes(sp.Matrix(fidelity.proxy_gradient(np.array(Gamma), np.array(q))) - slope)


@checks("X8", "derived")
def test_joint_proxy_is_the_adjoint_of_a_fixed_batch():
    Gamma, Q, slope = derive.adjoint(n=3)
    assert vanishes(sp.Matrix(fidelity.joint_proxy_gradient(np.array(Gamma), np.array(Q))) - slope)


@checks("J1", "derived")
def test_allocation_bound_is_the_geometric_series():
    bound = derive.neumann().subs(sp.Symbol("x", positive=True), sp.Rational(3, 4))
    equal(fidelity.allocation_drift_bound(0.75), number(bound), 4 * EPS)


@checks("T3a", "derived")
def test_error_of_the_proxy_is_tail_and_allocation():
    assert vanishes(derive.frozen_error())
    assert vanishes(derive.whole_gradient())


@checks("T3b", "derived")
def test_zeta_from_the_error_bound():
    """||g_L|| <= (1 + eps_I) ||g~||, and ||Gamma|| ||q|| = ||g~||/sigma by definition."""
    gamma, gap, sigma, proxy, q = _symbols("gamma", "eps", "sigma", "p", "q")
    bound = fidelity.error_bound(gamma, (1 + gap) * proxy, gap, proxy / (sigma * q), q)
    assert vanishes(bound / proxy - fidelity.zeta(gamma, gap, sigma))
    assert vanishes(fidelity.zeta(gamma, gap, 1) - fidelity.zeta_sharp(gamma, gap))


@checks("T3b", "derived")
def test_smallest_descent_from_its_stationary_point():
    end, inside = derive.smallest_descent()
    for gamma, gap, value in ((0.25, 0.5, end), (0.75, 0.5, inside), (0.5, 0.5, end), (0.5, 0.5, inside)):
        numbers = dict(zip(_symbols("gamma", "eps"), (gamma, gap), strict=True))
        equal(fidelity.descent_bound(gamma, gap), number(value, numbers), 8 * EPS)


@checks("T3c", "derived")
def test_angles_add():
    gamma, eps = _symbols("gamma", "eps")
    assert vanishes(derive.largest_turn() - eps)
    cosine, zero = derive.added_angles()
    assert [sp.expand(x) for x in zero] == [1 - eps**2]
    for numbers in ((0.5, 0.25), (0.875, 0.75)):
        equal(
            fidelity.cosine_bound(*numbers),
            float(cosine.subs(dict(zip((gamma, eps), numbers, strict=True)))),
            16 * EPS,
            1.0,
        )


@checks("A1", "derived")
@checks("A2", "derived")
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_allocation_solved_layer_by_layer(n: int):
    etas, J, executed = derive.allocation(n)
    assert J[0] == sp.Rational(1, n)
    values = [sp.Rational(i + 1, 2 * n + 1) for i in range(n)]
    at = dict(zip(etas, values, strict=True))
    numbers = [float(x) for x in values]
    equal(fidelity.allocation_scales(numbers), [float(sp.sympify(x).subs(at)) for x in J], tolerance())
    equal(fidelity.executed_fraction(numbers), number(executed, at), tolerance())
    if n > 1:
        least, most = derive.tail_limits(n)
        assert least == sp.harmonic(n) - 1
        assert most == n - 1
        equal(fidelity.aligned_tail([0.0] * n), float(least), tolerance())


@checks("J2", "derived", refutes=True)
def test_identical_layers_leave_three_quarters():
    etas, J, _ = derive.allocation(2)
    assert J[1].subs({x: sp.Rational(1, 2) for x in etas}) == sp.Rational(3, 4)
    ledger.counterexample("two identical layers, eta = 1/2: J_L = (1 - eta/2)/1 = 3/4")


@checks("P13", "derived")
def test_closed_loop_solved_as_a_recurrence():
    eta, a = _symbols("eta", "a")
    T = sp.Symbol("T", integer=True, nonnegative=True)
    found = derive.closed_loop()
    assert vanishes(found - (1 - (1 - a * eta**2) ** T))
    for numbers in ((0.5, 1.0, 7), (0.5, 6.0, 3), (1.0, 1.0, 2)):  # 6: the rate is above 1
        exact = found.subs(dict(zip((eta, a, T), map(sp.nsimplify, numbers), strict=True)))
        equal(fidelity.realized_after(*numbers), float(exact), 16 * EPS)


@checks("X11", "derived")
def test_parallel_error_telescopes_and_its_limit():
    assert derive.telescope() == 0
    scaled, last, share = derive.parallel_limit()
    at = scaled.subs(dict(zip(_symbols("g1", "g2", "k1", "k2"), (1, 2, 3, 4), strict=True)))
    assert at.is_finite  # so the relative error falls like 1/c,
    assert at != 0  # and not faster
    assert vanishes(last - share)
    assert not vanishes(last)


@checks("T3c", "random")
def test_gradients_that_vanish_have_no_angle_and_no_tail():
    zero, one = np.zeros(2), np.array([0.5, 0.0])
    assert fidelity.cosine(zero, one) == 0
    assert fidelity.tail([zero, zero]) == 0
    assert fidelity.tail([one, zero]) == np.inf
    equal(fidelity.scaled_gap(-np.eye(2)), 1.0, 4 * EPS)  # no positive multiple comes nearer than nothing
