"""What the prose of Section 4 adds to its theorems."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.func import grad

from theory import fidelity, suppression, trap
from verification import ledger, nets
from verification.ledger import checks, equal
from verification.nets import Net, few, norm
from verification.strategies import (
    Geometry,
    geometries,
    seeds,
    tolerance,
)

Array = NDArray[np.float64]


def _descend(net: Net, steps: int = 30, lr: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient descent on z through the executed loss, from the unedited stream."""
    z = net.origin()
    start = z
    for _ in range(steps):
        z = z - lr * grad(lambda z: net.loss(nets.execute(net, z).updates))(z)
    return start, z


@given(geometries(max_exponent=6), seeds, st.integers(1, 20))
@checks("P1", "random", refutes=True)
def test_attenuation_of_a_fixed_key_does_not_move(geometry: Geometry, seed: int, steps: int):
    """Descent on (eta d - 1)^2/2: the residual grows, the share of it that is realized does not."""
    k = geometry.U[:, -1] * np.sqrt(geometry.mu[-1] / 10)
    eta = suppression.attenuation(suppression.realizability(geometry.G, k))
    d = 0.0
    for _ in range(steps):
        d -= eta * (eta * d - 1)
    D = suppression.edit(geometry.G, k, np.array([d]))
    assert d > 0
    equal((D @ k)[0] / d, eta, geometry.tolerance)
    ledger.counterexample("rho = 0.1: eta = 0.091 before and after any number of steps; only z - h grows")


@checks("P1", "random", refutes=True)
def test_attenuation_above_an_edited_layer_can_fall():
    """The one way for eta to move is a key that moves; nothing makes it move towards 1."""
    moves = []
    for seed in range(12):
        net = nets.net(seed, 2)
        start, end = _descend(net)
        before, after = (
            [float(q @ k) for q, k in zip(e.q, e.k, strict=True)]
            for e in (nets.execute(net, start), nets.execute(net, end))
        )
        assert after[0] == before[0]
        assert net.loss(nets.execute(net, end).updates) < net.loss()
        moves.append(after[1] - before[1])
    assert min(moves) < -0.01
    assert max(moves) > 0.01
    ledger.counterexample(
        f"12 nets of two layers, descended: eta_1 stays, eta_2 changes by {min(moves):.2f} to {max(moves):.2f}"
    )


@few
@given(seeds, st.integers(-3, 3))
@checks("P2", "random", refutes=True)
def test_gate_of_one_edit_only_scales(seed: int, exponent: int):
    """No other token: the proxy is eta times the gradient at the token."""
    net = nets.net(seed, 1, tokens=1, stiffness=10.0**exponent)
    z = net.origin() + torch.tensor(np.random.default_rng(seed).standard_normal(net.width))
    done = nets.execute(net, z)
    q, k = done.q[0].numpy(), done.k[0].numpy()
    eta = suppression.attenuation(suppression.realizability(net.G[0].numpy(), k))
    proxy = fidelity.proxy_gradient(nets.weight_gradients(net, done.updates)[0], q)
    after = net.forward(done.updates)[1]
    token = grad(lambda h: -torch.log_softmax(net.head @ h, 0)[0])(after[0]).numpy()
    equal(proxy, eta * token, tolerance(10.0))
    equal(fidelity.cosine(proxy, token), 1.0, tolerance(10.0))
    ledger.counterexample("one edit without effect on other tokens: g~ = eta dLoss/dh exactly, cosine 1")


@given(geometries(max_exponent=3), st.integers(1, 4), seeds)
@checks("P2", "random", refutes=True)
def test_gate_of_a_batch_mixes_residuals_and_turns_none_alone(geometry: Geometry, n: int, seed: int):
    """Gradients E at the n tokens become E B: a filter across edits, the same for every direction of value space."""
    rng = np.random.default_rng(seed)
    K, E = rng.standard_normal((geometry.size, n)) * np.sqrt(geometry.mu[-1]), rng.standard_normal((3, n))
    S = suppression.gram(geometry.G, K)
    Q = suppression.batch_edit(geometry.G, K, np.eye(n)).T
    felt = fidelity.joint_proxy_gradient(E @ K.T, Q)
    limit = tolerance(geometry.condition * (1 + np.trace(S)))
    equal(felt, E @ suppression.retention(S), limit, norm(E))
    ledger.counterexample("a batch: E -> E B; directions of value space are all treated alike")


@given(st.integers(0, 12))
@checks("P5", "random", refutes=True)
def test_cost_of_a_compensated_edit_has_no_bound(exponent: int):
    """The optimum of the task loss alone writes delta in full, at cost ||delta||^2/rho."""
    delta, k = np.array([3.0, 4.0]), np.array([1.0, 0.0])
    G = 10.0**exponent * np.eye(2)
    rho = suppression.realizability(G, k)
    D = suppression.edit(G, k, delta / suppression.attenuation(rho))
    cost = trap.execution_cost(delta, rho)
    equal(D @ k, delta, tolerance())
    equal(np.sum((D @ G) * D), cost, tolerance())
    assert cost >= 25 * 10.0**exponent * (1 - 1e-9)
    ledger.counterexample(
        "delta = (3, 4), G = 1e12 I, k = e1: the optimum costs 2.5e13, 1e12 times that at G = I"
    )


@given(geometries(max_exponent=6), seeds, st.sampled_from([1e-3, 1.0, 1e6]))
@checks("P6", "random", refutes=True)
def test_direction_of_an_edit_in_weight_space_does_not_depend_on_the_target(
    geometry: Geometry, seed: int, length: float
):
    k = geometry.U @ np.random.default_rng(seed).standard_normal(geometry.size)
    q = suppression.channel(geometry.G, k)
    for r in np.random.default_rng(seed).standard_normal((2, 3)) * length:
        D = suppression.edit(geometry.G, k, r)
        limit = geometry.tolerance
        equal(np.sum((D @ geometry.G) * D) / np.sum(D**2), q @ geometry.G @ q / (q @ q), limit)
    ledger.counterexample("D = (z - h) q^T: tr(D G D^T)/||D||^2 = q^T G q/||q||^2 for every z")


@given(st.sampled_from([1.0, 1e3, 1e9]), st.integers(2, 4))
@checks("P7", "random", refutes=True)
def test_no_target_gets_past_a_hard_projection(length: float, n: int):
    P, k = np.diag([1.0, *[0.0] * (n - 1)]), np.eye(n)[-1]
    X = suppression.projected_edit(P, k, length * np.array([1.0, -1.0]), 1.0)
    assert not X.any()
    assert not fidelity.proxy_gradient(np.ones((2, n)), suppression.channel(np.eye(n), P @ k)).any()
    ledger.counterexample("P = diag(1, 0), k = e2: q = 0, nothing is written whatever z, and g~ = 0")


@checks("P11", "random", refutes=True)
def test_adams_step_can_climb_where_the_proxy_descends():
    """Even within T3b's guarantee: gamma = 0.84, J_L = I."""
    proxy, g = np.array([1.0, 0.1]), np.array([0.4, -0.5])
    gamma = norm(g - proxy) / norm(proxy)
    assert fidelity.zeta_sharp(gamma, 0.0) < 1
    assert fidelity.cosine(g, proxy) > 0
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    x.grad = torch.tensor(proxy)
    torch.optim.Adam([x], lr=0.1).step()
    step = x.detach().numpy()
    assert fidelity.cosine(g, -proxy) < 0 < fidelity.cosine(g, step)
    ledger.counterexample(
        "g~ = (1, 0.1), g = (0.4, -0.5): <g, g~> = 0.35, Adam's first step is along -(1, 1) and climbs"
    )


@checks("P12", "random", refutes=True)
def test_the_guarantee_does_not_cover_the_regularizer():
    proxy, g, pull = np.array([1.0, 0.0]), np.array([1.0, 0.5]), np.array([-1.0, -0.2])
    gamma = norm(g - proxy) / norm(proxy)
    assert fidelity.zeta(gamma, 0.0, 1.0) == gamma < 1
    assert (g + pull) @ (proxy + pull) < 0
    assert norm(g - proxy) >= norm(proxy + pull)  # what it would take is broken
    ledger.counterexample("g~ = (1, 0), g = (1, 1/2), L_reg adds (-1, -0.2): zeta = 1/2, inner product -0.06")
