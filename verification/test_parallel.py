"""P13, X11: one layer, and the proxy of all layers at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from theory import fidelity
from verification import ledger, nets
from verification.ledger import below, checks, equal, reaches
from verification.nets import Case, Fidelity, Net, cases, few, norm, unmoved
from verification.strategies import (
    EPS,
    seeds,
    tolerance,
)

Array = NDArray[np.float64]


# -- P13: one layer ------------------------------------------------------------------------------


@given(st.floats(1e-6, 1 - 1e-6), st.floats(1e-3, 10), st.integers(0, 200))
@checks("P13", "random")
def test_descent_closes_the_loop_geometrically(eta: float, step: float, steps: int):
    assume(step * eta**2 <= 2)
    d = largest = 0.0
    for _ in range(steps):
        d -= step * eta * (eta * d - 1)
        largest = max(largest, eta * d)  # more than the last one where steps overshoot
    # rounding of each step relative to what is there, and of eta^2 in the closed form
    equal(eta * d, fidelity.realized_after(eta, step, steps), tolerance(size=4 + steps), 1e-300 + largest)


@given(st.floats(1e-12, 1e-3), st.integers(1, 1000))
@checks("P13", "random")
def test_small_attenuation_closes_it_linearly(eta: float, steps: int):
    """T a eta^2 to first order, and never more."""
    first = steps * eta**2
    seen = fidelity.realized_after(eta, 1.0, steps)
    below(seen, first, 64 * EPS)
    below(first, seen + first**2)


@few
@given(cases(layers=(1, 1)))
@checks("P13", "random")
def test_one_layers_proxy_is_the_hypergradient(case: Case):
    """Virtual weights are the executed ones, and the key does not move."""
    g = nets.gradients(case.net, case.z)
    Gamma, q = nets.virtual(case.net, case.z, (1.0,))
    equal(fidelity.proxy_gradient(Gamma[0], q[0]), g.total, tolerance(), Fidelity.of(g).size)


@checks("P13", "needed", drops="rate")
def test_a_small_attenuation_stays_suppressed():
    assert fidelity.realized_after(1e-3, 1.0, 20) < 2.1e-5
    assert fidelity.realized_after(0.9, 1.0, 20) > 0.999
    ledger.counterexample("eta = 0.001, a = 1, T = 20: 0.00002 of the edit is realized")


@checks("P13", "needed", drops="layer")
def test_two_layers_have_another_hypergradient():
    net = unmoved(0, 2, 1.0, alike=True)
    g = nets.gradients(net, net.origin() + 1)
    ratio = norm(g.total) / norm(fidelity.proxy_gradient(g.Gamma[-1], g.q[-1]))
    assert ratio > 1.2
    ledger.counterexample(f"two identical layers: ||g|| = {ratio:.2f} ||g~||")


# -- X11: the parallel proxy ---------------------------------------------------------------------


@dataclass(frozen=True)
class Parallel:
    """Errors of both proxies against the whole derivative."""

    parallel: Array
    last: Array
    g: Array
    bound: float
    rounding: float


def parallel(net: Net, z: torch.Tensor, shares: Sequence[float] | None = None) -> Parallel:
    g = nets.gradients(net, z, shares)
    s = shares or net.spread
    Gamma, q = nets.virtual(net, z, s)
    moving = [fidelity.layer_gradient(*x) for x in zip(g.N, [G.T for G in g.Gamma], g.r, strict=True)]
    bound = fidelity.parallel_error_bound(g.J_total, s, g.Gamma, g.q, Gamma, q, moving)
    proxy = np.sum([a * fidelity.proxy_gradient(*x) for a, *x in zip(s, Gamma, q, strict=True)], axis=0)
    return Parallel(
        proxy, fidelity.proxy_gradient(g.Gamma[-1], g.q[-1]), g.total, bound, Fidelity.of(g).rounding
    )


@few
@given(cases())
@checks("X11", "random")
def test_error_of_the_parallel_proxy(case: Case):
    p = parallel(case.net, case.z, case.shares)
    below(norm(p.g - p.parallel), p.bound + p.rounding)


@given(st.integers(1, 3), seeds)
@checks("X11", "searched")
def test_error_bound_of_the_parallel_proxy_is_attained(n: int, seed: int):
    """One dimension, every term of the same sign."""
    rng = np.random.default_rng(seed)
    J, s, Gamma, q, Gamma_v, q_v, moving = rng.uniform(0.1, 1, (7, n))
    J, Gamma, q = J + s, Gamma + Gamma_v, q + q_v
    g = np.sum(J * Gamma * q + moving)
    bound = fidelity.parallel_error_bound(
        [x * np.eye(1) for x in J],
        s,
        *(
            [np.array(x).reshape(shape) for x in values]
            for values, shape in ((Gamma, (1, 1)), (q, (1,)), (Gamma_v, (1, 1)), (q_v, (1,)), (moving, (1,)))
        ),
    )
    reaches(g - np.sum(s * Gamma_v * q_v), bound, tolerance())
    below(bound, g - np.sum(s * Gamma_v * q_v), tolerance())


def test_a_layer_that_is_missing_is_an_error_and_not_left_out():
    one = [np.eye(1)]
    with pytest.raises(ValueError, match="shorter"):
        fidelity.parallel_error_bound(one * 2, [1.0, 1.0], one * 2, one * 2, one * 2, one * 2, one)


@few
@given(seeds, st.integers(2, 4), st.sampled_from([0.1, 1.0, 10.0]))
@checks("X11", "random")
def test_relative_error_vanishes_as_the_geometry_grows(seed: int, layers: int, length: float):
    """At the rate (1 + ||z - h||)/c; the last layer's keeps what the other layers contribute."""
    base = nets.net(seed, layers)
    way = torch.tensor(np.random.default_rng(seed).standard_normal(base.width))
    z = base.origin() + length * way / way.norm()
    Gamma = nets.weight_gradients(base, [torch.zeros_like(W) for W in base.W])
    k = [key[base.subject].numpy() for key in base.forward()[0]]
    w = [
        s * G @ np.linalg.solve(C.numpy(), x)
        for s, G, C, x in zip(base.spread, Gamma, base.G, k, strict=True)
    ]
    whole = norm(np.sum(w, axis=0))
    assume(whole > 0.1 * sum(map(norm, w)))
    limit = norm(np.sum(w[:-1], axis=0)) / whole
    errors, lasts = [], []
    for c in (1e4, 1e6, 1e8):
        p = parallel(base.scaled(c), z)
        errors.append(norm(p.g - p.parallel) / norm(p.g) * c / (1 + length))
        lasts.append(abs(norm(p.g - p.last) / norm(p.g) - limit) * c / (1 + length))
    # what multiplies (1 + ||z - h||)/c has settled: it is the constant of the O
    below(errors[2], 1.05 * errors[1] + 1e-4)
    below(errors[1], 1.5 * errors[0] + 1e-4)
    below(lasts[2], 1.5 * lasts[1] + 1e-2 + 1e8 * tolerance())
    below(errors[2], 1e4)


@checks("X11", "needed", drops="fixed")
def test_a_compensated_target_keeps_the_error():
    net = nets.net(2)
    way = torch.tensor(np.random.default_rng(2).standard_normal(net.width))
    errors = {}
    for c in (1e3, 1e6):
        for name, length in (("fixed", 1.0), ("compensated", c)):
            p = parallel(net.scaled(c), net.origin() + length * way)
            errors[name, c] = norm(p.g - p.parallel) / norm(p.g)
    assert errors["fixed", 1e6] < 1e-5
    assert min(errors["compensated", c] for c in (1e3, 1e6)) > 0.1
    ledger.counterexample(
        f"a net of three layers, G = 1e6 G_0: relative error {errors['fixed', 1e6]:.0e} at z fixed, "
        f"{errors['compensated', 1e6]:.2f} where ||z - h|| grows with G"
    )
