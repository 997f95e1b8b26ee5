"""A1, A2, J2: MEMIT's allocation over layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from metake.solvers.allocation import spread
from theory import fidelity, suppression
from verification import ledger, nets
from verification.ledger import below, checks, equal
from verification.nets import Case, Fidelity, Net, cases, few, norm, unmoved
from verification.strategies import (
    EPS,
    seeds,
    tolerance,
)

Array = NDArray[np.float64]


@few
@given(cases())
@checks("A1", "random")
def test_first_layer_gets_one_part_in_n(case: Case):
    net = case.net
    g = nets.gradients(net, case.z)
    n, eye = net.layers, np.eye(net.width)
    equal(fidelity.spread_shares(n), [s for _, s in spread(tuple(range(n)))], 4 * EPS)
    for J in (g.J[0], g.J_total[0]):
        equal(J, fidelity.spread_shares(n)[0] * eye, tolerance())
    drift = max(fidelity.spectral(J - g.J[-1]) for J in g.J)
    below(1 - fidelity.spread_shares(n)[0], drift + fidelity.spectral(g.J[-1] - eye), tolerance())


@checks("A1", "needed", drops="spread")
def test_another_allocation_can_keep_both_small():
    """Every layer is asked for all that is missing; eta = 0.01."""
    J = np.cumprod([1.0, 1 - 0.01])
    assert (J.max() - J.min()) + abs(J[-1] - 1) < 0.03 < 1 - fidelity.spread_shares(2)[0]
    ledger.counterexample(
        "n = 2, each layer asked for all that is missing, eta = 0.01: eps_J + eps_I = 0.02 < 1/2"
    )


def _etas(net: Net) -> list[float]:
    keys = [k[net.subject].numpy() for k in net.forward()[0]]
    return [
        suppression.attenuation(suppression.realizability(G.numpy(), k))
        for G, k in zip(net.G, keys, strict=True)
    ]


@few
@given(seeds, st.integers(1, 6), st.integers(-6, 6), st.booleans())
@checks("A2", "random")
def test_allocation_under_identity_transport(seed: int, layers: int, exponent: int, alike: bool):
    net = unmoved(seed, layers, 10.0**exponent, alike=alike)
    rest = torch.tensor(np.random.default_rng(seed).standard_normal(net.width))
    z = net.origin() + rest
    g, etas = nets.gradients(net, z), _etas(net)
    limit = tolerance(100.0)
    for J, r, scale, missing in zip(
        g.J_total, g.r, fidelity.allocation_scales(etas), fidelity.missing_shares(etas), strict=True
    ):
        equal(J, scale * np.eye(net.width), limit, 1.0)
        equal(r, scale * rest.numpy(), limit, norm(z.numpy()) + norm(rest.numpy()))
        assert scale <= missing
    equal(fidelity.allocation_scales(etas)[0], 1 / layers, 4 * EPS)
    after = net.forward(nets.execute(net, z).updates)[1][net.subject]
    executed = (after - net.origin()).numpy()
    equal(
        executed, fidelity.executed_fraction(etas) * rest.numpy(), limit, norm(z.numpy()) + norm(rest.numpy())
    )
    if alike:  # then every Gamma_l q_l is the same vector
        equal(Fidelity.of(g).gamma, fidelity.aligned_tail(etas), limit, layers)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@checks("A2", "random")
def test_tail_is_least_without_attenuated_writes(etas: list[float]):
    """gamma >= H_n - 1 for any attenuations, so dominance needs n <= 3 where the layers are equal."""
    n = len(etas)
    harmonic = sum(1 / m for m in range(2, n + 1))
    gamma = fidelity.aligned_tail(etas)
    below(harmonic, gamma, tolerance())
    below(gamma, n - 1, tolerance())
    if n > 3:
        assert gamma > 1
    equal(fidelity.aligned_tail([0.0] * n), harmonic, tolerance(), 1.0)
    equal(fidelity.aligned_tail([1.0] * n), n - 1, tolerance(), 1.0)


@given(st.integers(2, 8), st.integers(1, 12))
@checks("A2", "random")
def test_tail_tends_to_the_harmonic_sum(n: int, exponent: int):
    eta = 10.0**-exponent
    harmonic = sum(1 / m for m in range(2, n + 1))
    below(fidelity.aligned_tail([eta] * n) - harmonic, n**2 * eta + tolerance())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@checks("A2", "random")
def test_executed_fraction_is_what_the_layers_add_up_to(etas: list[float]):
    scales = fidelity.allocation_scales(etas)
    equal(fidelity.executed_fraction(etas), float(scales @ np.array(etas)), tolerance(), 1.0)
    below(fidelity.executed_fraction(etas), 1.0, tolerance())
    equal(fidelity.missing_shares(etas)[0], 1.0, EPS)


@checks("A2", "needed", drops="identity")
def test_a_layer_that_answers_to_the_stream_breaks_the_recursion():
    net = nets.net(15, 2, width=1, inner=1, tokens=1, mixing=0.0)
    g = nets.gradients(net, net.origin() + 1)
    seen, formula = (
        float(g.J[1][0, 0]),
        fidelity.allocation_scales([float(q @ k) for q, k in zip(g.q, g.k, strict=True)])[1],
    )
    assert abs(seen - formula) > 0.03
    ledger.counterexample(
        f"keys tanh(A h + b), two layers in one dimension: J_2 = {seen:.2f}, the recursion says {formula:.2f}"
    )


@checks("J2", "random", refutes=True)
def test_layers_without_driftunmoved_share_the_residual():
    """Two identical layers, rho = 1: by automatic differentiation and by the recursion."""
    net = unmoved(0, 2, 1.0, alike=True)
    k = net.forward()[0][0][0].numpy()
    rho = suppression.realizability(net.G[0].numpy(), k)
    net = net.scaled(rho)
    assert _etas(net) == pytest.approx([0.5, 0.5])
    drift = norm((net.G[0] - net.G[1]).numpy()) + norm((net.b[0] - net.b[1]).numpy())
    assert drift == 0
    J = nets.gradients(net, net.origin() + 1).J_total[-1]
    equal(J, 0.75 * np.eye(net.width), tolerance(10.0))
    equal(fidelity.allocation_scales([0.5, 0.5]), [0.5, 0.75], 4 * EPS)
    ledger.counterexample("two identical layers, eta = 1/2: eps_C = eps_k = 0 and J_L = 3/4 I")
