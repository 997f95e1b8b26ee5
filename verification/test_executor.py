"""P3, X5: the executor's own cost, and the ellipsoid of a KL bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from theory import suppression, trap
from verification import ledger
from verification.ledger import attains, below, checks, equal, holds
from verification.problems import (
    SCALES,
    Executed,
    Pair,
    Requests,
    cost,
    directions,
    executions,
    linear,
    pairs,
    power,
    requests,
    switch,
)
from verification.search import worst
from verification.strategies import EPS, Geometry, basis, geometries, seeds, tolerance

Array = NDArray[np.float64]


# -- P3: the executor's own cost -----------------------------------------------------------------


@given(executions())
@checks("P3", "random")
def test_least_cost_of_a_displacement(e: Executed):
    equal(trap.execution_cost(e.delta, e.rho), e.cheapest(), e.geometry.tolerance)


@given(executions(max_exponent=6), seeds, SCALES)
@checks("P3", "random")
def test_every_edit_that_realizes_it_costs_as_much(e: Executed, seed: int, size: float):
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
def test_without_a_key_nothing_is_realized_at_any_cost():
    G, k = np.eye(2), np.zeros(2)
    assert suppression.realizability(G, k) == 0
    assert all(np.linalg.norm(D @ k) == 0 for D in (np.ones((1, 2)), 1e9 * np.ones((1, 2))))
    with np.errstate(divide="ignore"):
        assert trap.execution_cost(np.ones(1), np.float64(0.0)) == np.inf
    ledger.counterexample("k = 0: rho = 0, D k = 0 for every D, no cost buys delta != 0")


# -- X5: KL's ellipsoid --------------------------------------------------------------------------


@given(pairs(), SCALES, st.sampled_from([None, 1e-3, 0.9, 1.1, 1e3]), st.booleans())
@checks("X5", "random")
def test_kl_s_ellipsoid_inside_the_feasible_one(pair: Pair, tau: float, factor: float | None, more: bool):
    """s on both sides of the largest; the outcome on the dearest boundary point and on sampled ones."""
    edge = tolerance(pair.F.condition, pair.F.size)
    factor = factor or 1 + (2 if more else -2) * edge
    s = factor * tau / pair.singular[0]
    assert holds(trap.kl_inside(pair.F.G, pair.H.G, s, tau) == (factor < 1))
    root = pair.F.U / np.sqrt(pair.F.mu)
    M = (np.sqrt(pair.H.mu)[:, None] * pair.H.U.T) @ root
    dearest = np.linalg.svd(M)[2][0]
    boundary = s * root @ np.column_stack([dearest, directions(pair.F.size)])
    assert holds(all(cost(pair.H, d) <= tau for d in boundary.T) == (factor < 1))


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
    assert holds(trap.kl_inside(F, H, 0.5, 1.0))
    assert holds(not trap.kl_inside(F, H, 0.5 * (1 + 4 * EPS), 1.0))
