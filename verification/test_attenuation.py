"""T1 to T1d: the attenuation law and the spectrum behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from theory import suppression
from verification import ledger
from verification.ledger import attains, below, checks, equal, holds
from verification.search import worst
from verification.strategies import (
    EPS,
    Edit,
    Geometry,
    basis,
    edits,
    geometries,
    keys,
    seeds,
    tolerance,
    vectors,
)

Array = NDArray[np.float64]


# -- T1: the attenuation law ---------------------------------------------------------------------


@given(edits())
@checks("T1", "random")
def test_edit_realizes_the_attenuated_residual(e: Edit):
    D = suppression.edit(e.G, e.k, e.r)
    eta = suppression.attenuation(suppression.realizability(e.G, e.k))
    equal(D @ e.k, eta * e.r, e.geometry.tolerance)


@given(edits(max_exponent=6))
@checks("T1", "random")
def test_edit_is_where_the_gradient_vanishes(e: Edit):
    D = suppression.edit(e.G, e.k, e.r)
    scale = np.linalg.norm(e.r) * np.linalg.norm(e.k) + np.linalg.norm(D) * np.linalg.norm(e.G)
    equal(suppression.gradient(D, e.G, e.k, e.r), np.zeros_like(D), e.geometry.tolerance, scale)


@given(edits(max_exponent=6), seeds, st.sampled_from([1e-3, 1.0, 1e3]))
@checks("T1", "random")
def test_no_other_edit_costs_less(e: Edit, seed: int, size: float):
    """The objective is quadratic with Hessian 2 (G + k k^T): any step raises it by exactly that."""
    D = suppression.edit(e.G, e.k, e.r)
    step = np.random.default_rng(seed).standard_normal(D.shape) * size * np.linalg.norm(D)
    rise = suppression.objective(D + step, e.G, e.k, e.r) - suppression.objective(D, e.G, e.k, e.r)
    expected = np.sum((step @ (e.G + np.outer(e.k, e.k))) * step)
    scale = expected + suppression.objective(D, e.G, e.k, e.r) + e.r @ e.r
    equal(rise, expected, 100 * e.geometry.tolerance, scale)


@given(edits(max_exponent=6))
@checks("T1", "random")
def test_gradient_is_the_derivative_of_the_objective(e: Edit):
    """(14)-(16) by central differences, exact for a quadratic."""
    rng = np.random.default_rng(0)
    D, step = rng.standard_normal((2, len(e.r), len(e.k)))
    up, down = (suppression.objective(D + s * step, e.G, e.k, e.r) for s in (1, -1))
    expected = np.sum(suppression.gradient(D, e.G, e.k, e.r) * step)
    equal((up - down) / 2, expected, 1e-10, abs(up) + abs(down))


@checks("T1", "needed", drops="definite")
def test_without_definiteness_there_is_no_minimum():
    G, k, r = np.diag([1.0, -1.0]), np.array([1.0, 0.0]), np.array([1.0])
    costs = [suppression.objective(np.array([[0.5, t]]), G, k, r) for t in (0.0, 10.0, 1000.0)]
    assert costs[2] < costs[1] < costs[0]
    assert costs[2] < -1e5
    ledger.counterexample("G = diag(1, -1), k = e1: the objective falls without end along D = (1/2, t)")


@given(st.integers(1, 5), seeds)
@checks("T1", "unneeded", drops="symmetric")
def test_law_needs_neither_symmetry_nor_definiteness(size: int, seed: int):
    """q by a solve with G + k k^T itself, for G and 1 + rho of either sign; there need not be a minimum."""
    rng = np.random.default_rng(seed)
    G, k, r = rng.standard_normal((size, size)), rng.standard_normal(size), rng.standard_normal(2)
    held, rho = G + np.outer(k, k), float(k @ np.linalg.solve(G, k))
    condition = np.linalg.cond(G) + np.linalg.cond(held)
    assume(condition < 1e6 and abs(1 + rho) > 1e-3)
    realized = np.outer(r, np.linalg.solve(held, k)) @ k
    inverse = np.linalg.norm(np.linalg.inv(held)) + np.linalg.norm(np.linalg.inv(G)) / (1 + rho) ** 2
    scale = np.linalg.norm(r) * (k @ k) * inverse
    equal(realized, suppression.attenuation(rho) * r, tolerance(condition, size), scale)


@checks("T1", "needed", drops="single")
def test_two_keys_do_not_follow_the_law_of_one():
    G, K, R = np.eye(2), np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[1.0, -1.0]])
    realized = suppression.batch_edit(G, K, R) @ K
    alone = [suppression.attenuation(suppression.realizability(G, K[:, j])) * R[0, j] for j in (0, 1)]
    assert np.abs(realized[0] - alone).min() > 0.1
    ledger.counterexample("G = I, keys (1,0) and (1,1): together neither residual is scaled by its own eta")


# -- T1a-T1d: the spectrum -----------------------------------------------------------------------


@given(edits())
@checks("T1a", "random")
def test_realizability_from_the_spectrum(e: Edit):
    a = e.geometry.U.T @ e.k
    equal(
        suppression.realizability(e.G, e.k),
        suppression.realizability_spectral(e.geometry.mu, a),
        e.geometry.tolerance,
    )


@checks("T1a", "needed", drops="orthonormal")
def test_skew_eigenvectors_give_another_number():
    U = np.array([[1.0, 0.6], [0.0, 0.8]])
    mu, k = np.array([1.0, 4.0]), np.array([1.0, 1.0])
    G = U @ np.diag(mu) @ np.linalg.inv(U)
    spectral = suppression.realizability_spectral(mu, U.T @ k)
    assert abs(k @ np.linalg.solve(G, k) - spectral) > 0.1
    ledger.counterexample(
        "G = U diag(1, 4) U^-1 with U = [[1, .6], [0, .8]]: the sum over the spectrum is not k^T G^-1 k"
    )


@dataclass(frozen=True)
class Protected:
    """A key with a known share outside the protected eigenvectors, the last `count` ones."""

    geometry: Geometry
    k: Array
    count: int

    @property
    def outside(self) -> float:
        a = self.geometry.U.T @ self.k
        return float(np.sum(a[: self.geometry.size - self.count] ** 2) / np.sum(a**2))


@st.composite
def protected(draw: st.DrawFn) -> Protected:
    geometry = draw(geometries())
    return Protected(geometry, draw(keys(geometry)), draw(st.integers(1, geometry.size)))


@given(protected(), st.floats(0, 1), st.sampled_from([1.0, 0.5, 1e-3]))
@checks("T1b", "random")
def test_suppression_bound(case: Protected, more: float, lower: float):
    """For every eps that admits the key, and every M that bounds the protected eigenvalues."""
    mu = case.geometry.mu
    outside = case.outside + more * (1 - case.outside)
    height = lower * mu[-case.count]
    below(
        suppression.realizability(case.geometry.G, case.k),
        suppression.suppression_bound(float(np.linalg.norm(case.k)), outside, height, mu[0]),
        case.geometry.tolerance,
    )


@checks("T1b", "searched")
def test_suppression_bound_is_attained():
    """Two eigenvalues: the key's outside share on mu_min, the rest on M."""

    def ratio(x: Array) -> float:
        mu = np.sort(np.exp(x[:3]))
        a = x[3:]
        outside = a[0] ** 2 / (a @ a)
        bound = suppression.suppression_bound(float(np.linalg.norm(a)), outside, mu[1], mu[0])
        return suppression.realizability(np.diag(mu), a) / bound

    attains(worst(ratio, 6), 1, tolerance=1e-12)


@given(protected(), st.sampled_from([0.9, 0.1, 1e-3]))
@checks("T1b", "unneeded", drops="order")
def test_height_may_lie_below_the_smallest_eigenvalue(case: Protected, factor: float):
    mu = case.geometry.mu
    below(
        suppression.realizability(case.geometry.G, case.k),
        suppression.suppression_bound(float(np.linalg.norm(case.k)), case.outside, factor * mu[0], mu[0]),
        case.geometry.tolerance,
    )


def _bound_breaks(mu: Array, a: Array, outside: float, height: float, mu_min: float) -> bool:
    rho = suppression.realizability(np.diag(mu), a)
    return rho > suppression.suppression_bound(float(np.linalg.norm(a)), outside, height, mu_min) * (1 + 1e-9)


@checks("T1b", "needed", drops="share")
def test_bound_breaks_for_a_share_above_one():
    assert _bound_breaks(np.array([1.0, 1.0]), np.array([0.0, 1.0]), 2.0, 0.5, 1.0)
    ledger.counterexample("G = I, M = 1/2, eps = 2: bound 0 < rho = 1")


@checks("T1b", "needed", drops="smallest")
@checks("T1b", "random", refutes=True)
def test_bound_breaks_with_the_minimum_over_the_complement():
    """mu_min of the unprotected part alone: it may be larger than a protected eigenvalue."""
    mu, a = np.array([1.0, 100.0]), np.array([1.0, 0.0])
    assert _bound_breaks(mu, a, 0.5, 1.0, 100.0)
    ledger.counterexample(
        "G = diag(1, 100), S = {1}, M = 1, k = e1, eps = 1/2, mu_min = 100 over the complement: bound 0.505 < rho = 1"
    )


@checks("T1b", "needed", drops="height")
def test_bound_breaks_if_a_protected_eigenvalue_is_below_the_height():
    assert _bound_breaks(np.array([1.0, 4.0]), np.array([0.0, 1.0]), 0.0, 8.0, 1.0)
    ledger.counterexample("G = diag(1, 4), k = e2, M = 8: bound 1/8 < rho = 1/4")


@given(protected())
@checks("T1c", "random")
def test_limit_for_a_key_within_the_protected_subspace(case: Protected):
    size, mu = case.geometry.size, case.geometry.mu
    a = np.where(np.arange(size) >= size - case.count, case.geometry.U.T @ case.k, 0.0)
    k = case.geometry.U @ a
    eta = suppression.attenuation(suppression.realizability(case.geometry.G, k))
    below(
        eta, suppression.suppression_limit(float(np.linalg.norm(k)), mu[-case.count]), case.geometry.tolerance
    )


@given(vectors(3), st.integers(0, 8))
@checks("T1c", "random")
def test_limit_is_reached_and_falls_like_one_over_the_height(k: Array, exponent: int):
    """On M I the limit is eta itself; M eta tends to ||k||^2."""
    square = float(k @ k)
    height = 10.0**exponent * square
    eta = suppression.attenuation(suppression.realizability(height * np.eye(3), k))
    equal(eta, suppression.suppression_limit(np.sqrt(square), height), 16 * EPS)
    below(height * eta, square, 16 * EPS)
    below(square, height * eta * (1 + 2 * 10.0**-exponent))


@checks("T1c", "needed", drops="inside")
def test_a_trace_outside_keeps_the_edit():
    G, k = np.diag([1e-6, 1e6]), np.array([1e-2, 1.0])
    eta = suppression.attenuation(suppression.realizability(G, k))
    assert eta > 0.9 > suppression.suppression_limit(float(np.linalg.norm(k)), 1e6)
    ledger.counterexample("G = diag(1e-6, 1e6), k = (0.01, 1): eta = 0.99 though 99.99% of k is protected")


@given(edits(max_exponent=6), st.sampled_from([0.0, 1e-3, 1.0, 1e3]), seeds)
@checks("T1d", "random")
def test_more_constraint_attenuates_more(e: Edit, amount: float, seed: int):
    more = amount * np.trace(e.G) * np.outer(*2 * (basis(e.geometry.size, seed)[:, 0],))
    eta = [suppression.attenuation(suppression.realizability(G, e.k)) for G in (e.G, e.G + more)]
    below(eta[1], eta[0], tolerance(e.geometry.condition * (1 + amount * e.geometry.size), 8))


@given(edits(), st.sampled_from([1.01, 2.0, 1e6]))
@checks("T1d", "random")
def test_attenuation_falls_strictly_with_the_weight(e: Edit, factor: float):
    low, high = (suppression.attenuation(suppression.realizability(c * e.G, e.k)) for c in (1.0, factor))
    assume(e.geometry.tolerance < 1e-3)
    assert 0 < low <= 1
    below(high, low, 2 * EPS)  # a sum and a quotient each round: both are 1 to fp64 where rho > 1/EPS
    # from rho to rho/c: eta falls by the factor (1 + rho)/(c + rho), 1 only where rounding hides it
    rho = suppression.realizability(e.G, e.k)
    equal(high / low, (1 + rho) / (factor + rho), e.geometry.tolerance)


@given(geometries())
@checks("T1d", "random")
def test_no_key_no_edit(geometry: Geometry):
    zero = np.zeros(geometry.size)
    assert holds(suppression.attenuation(suppression.realizability(geometry.G, zero)) == 0)


@given(edits(max_exponent=3), st.sampled_from([0.0, 1e-3, 1.0]), st.sampled_from([0.0, 1.0, 10.0]), seeds)
@checks("T1d", "unneeded", drops="symmetric")
def test_the_larger_geometry_need_not_be_symmetric(e: Edit, amount: float, turn: float, seed: int):
    """G2 = G1 + amount V V^T + turn (S - S^T), scaled by the trace of G1."""
    rng = np.random.default_rng(seed)
    S, V = rng.standard_normal((2, e.geometry.size, e.geometry.size))
    G2 = e.G + np.trace(e.G) * (amount * V @ V.T + turn * (S - S.T))
    rho = float(e.k @ np.linalg.solve(G2, e.k))
    limit = tolerance(e.geometry.condition * (1 + np.linalg.norm(G2) / np.trace(e.G)), 8)
    below(suppression.attenuation(rho), suppression.attenuation(suppression.realizability(e.G, e.k)), limit)


@checks("T1d", "needed", drops="loewner")
def test_larger_eigenvalues_are_not_enough():
    k = np.array([1.0, 0.0])
    G1, G2 = np.diag([10.0, 1.0]), np.diag([2.0, 11.0])
    assert (np.linalg.eigvalsh(G2) > np.linalg.eigvalsh(G1)).all()
    assert suppression.realizability(G2, k) > suppression.realizability(G1, k)
    ledger.counterexample(
        "G1 = diag(10, 1), G2 = diag(2, 11), k = e1: every eigenvalue grows and so does eta"
    )


@checks("T1d", "needed", drops="nonzero")
def test_the_zero_key_does_not_fall_strictly():
    assert suppression.realizability(np.eye(2), np.zeros(2)) == suppression.realizability(
        2 * np.eye(2), np.zeros(2)
    )
    ledger.counterexample("k = 0: eta = 0 for every G")
