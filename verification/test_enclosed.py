"""Numbers of real models with rigorous error bounds, by ball arithmetic.

C and the keys of a demo model are exact rationals once they are stored; G = lambda C + beta I is
formed and solved in balls of 160 bits, so rho, eta and the channel are known to 40 digits, proved.
The library's fp64 and fp32 numbers have to lie within their own error bound of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import flint
import numpy as np
import pytest
import torch

from metake.figures.measured import Layer, measured, measured_real
from metake.geometry.null_space import Projected
from metake.geometry.operator import Ridge
from metake.shipped import DEMOS
from theory import suppression
from verification import ledger
from verification.ledger import below, checks, holds

BITS = 160
WEIGHT, CONDITION, KEYS = 100.0, 1e4, 4


@dataclass(frozen=True)
class Enclosure:
    """Balls that contain the exact values: `rho` and `eta` per key, `channel` of the batch, `kept` = B."""

    rho: list[flint.arb]
    eta: list[flint.arb]
    channel: flint.arb_mat
    kept: flint.arb_mat


def _balls(x: torch.Tensor) -> flint.arb_mat:
    """Entries as exact balls: every fp32 or fp64 number is a dyadic rational."""
    rows, columns = x.shape
    return flint.arb_mat(rows, columns, [flint.arb(v) for v in x.double().flatten().tolist()])


def _eye(n: int) -> flint.arb_mat:
    return flint.arb_mat(n, n, [flint.arb(int(i == j)) for i in range(n) for j in range(n)])


def enclose(G: flint.arb_mat, K: flint.arb_mat) -> Enclosure:
    """Everything of Theorem 1 for the geometry G and the keys K.

    Raises:
        ZeroDivisionError: G is not proved invertible at this precision.
    """
    solved = G.solve(K)
    S = K.transpose() * solved
    n = S.nrows()
    system = _eye(n) + S
    rho = [S[j, j] for j in range(n)]
    channel = system.solve(solved.transpose()).transpose()
    return Enclosure(rho, [r / (1 + r) for r in rho], channel, system.solve(S))


@dataclass(frozen=True)
class Real:
    layer: Layer
    beta: float
    enclosure: Enclosure


@cache
def real(model: str) -> Real:
    """A demo model's layer as a ridge geometry of condition 1e4, and its enclosure."""
    flint.ctx.prec = BITS
    layer = measured(model)
    top = float(torch.linalg.eigvalsh(layer.moment.double())[-1])
    beta = WEIGHT * top / CONDITION
    G = _balls(layer.moment) * flint.arb(WEIGHT) + _eye(len(layer.moment)) * flint.arb(beta)
    return Real(layer, beta, enclose(G, _balls(layer.keys[:, :KEYS])))


def distance(value: float, ball: flint.arb) -> float:
    """Upper bound of |value - exact| / |exact|, itself rigorous."""
    flint.ctx.prec = BITS
    upper = float((abs(flint.arb(value) - ball) / abs(ball)).upper())
    ledger.record("enclosed")
    return upper


models = pytest.mark.parametrize("model", DEMOS)


@models
@checks("T1", "enclosed")
@checks("T1a", "enclosed")
@checks("X4", "enclosed")
def test_attenuation_lies_within_its_error_bound(model: str):
    case = real(model)
    assert all(float(ball.rad()) < 1e-30 for ball in case.enclosure.eta)
    K = case.layer.keys[:, :KEYS]
    for dtype in (torch.float64, torch.float32):
        operator = Ridge(case.layer.moment, WEIGHT, case.beta, dtype=dtype)
        bound = suppression.rounding_bound(torch.finfo(dtype).eps, CONDITION)
        for value, ball in zip(operator.attenuation(K).tolist(), case.enclosure.eta, strict=True):
            below(distance(value, ball), bound)
        for value, ball in zip(operator.realizability(K).tolist(), case.enclosure.rho, strict=True):
            below(distance(value, ball), bound)


@models
@checks("T1", "enclosed")
@checks("T1a", "enclosed")
def test_closed_forms_lie_within_their_error_bound(model: str):
    """The functions of `theory`, spectrum included, on the same matrix in fp64."""
    case = real(model)
    C, eps = case.layer.moment.double().numpy(), float(np.finfo(float).eps)
    G = WEIGHT * C + case.beta * np.eye(len(C))
    mu, U = np.linalg.eigh(G)
    bound = suppression.rounding_bound(eps, CONDITION)
    for j, ball in enumerate(case.enclosure.rho):
        k = case.layer.keys[:, j].double().numpy()
        below(distance(suppression.realizability(G, k), ball), bound)
        below(distance(suppression.realizability_spectral(mu, U.T @ k), ball), bound)


@models
@checks("X2", "enclosed")
@checks("X3", "enclosed")
def test_channel_of_a_batch_lies_within_its_error_bound(model: str):
    """Columns of Q in norm, and what the batch keeps, K^T Q, entry by entry."""
    case = real(model)
    K = case.layer.keys[:, :KEYS]
    exact = np.array(
        [[float(case.enclosure.channel[i, j].mid()) for j in range(KEYS)] for i in range(len(K))]
    )
    kept = np.array([[float(case.enclosure.kept[i, j].mid()) for j in range(KEYS)] for i in range(KEYS)])
    for dtype in (torch.float64, torch.float32):
        Q = Ridge(case.layer.moment, WEIGHT, case.beta, dtype=dtype).channel(K).double().numpy()
        bound = suppression.rounding_bound(torch.finfo(dtype).eps, CONDITION)
        below(np.linalg.norm(Q - exact), bound * np.linalg.norm(exact))
        below(np.linalg.norm(K.double().numpy().T @ Q - kept), bound * np.linalg.norm(kept) * KEYS)
    for j, own in enumerate(case.enclosure.eta):
        assert holds(case.enclosure.kept[j, j] <= own, "enclosed"), "X3, proved for these keys"


@models
@checks("T1b", "enclosed")
@checks("T1c", "enclosed")
def test_suppression_bound_is_proved_for_real_keys(model: str):
    """rho is enclosed; M, mu_min and the share come from computed eigenpairs, moved to the safe side
    by far more than the rounding of eigh (1e-8 of the largest eigenvalue).
    """
    case = real(model)
    C = case.layer.moment.double()
    mu, U = torch.linalg.eigh(C * WEIGHT + case.beta * torch.eye(len(C)))
    slack = 1e-8 * float(mu[-1])
    for j in range(KEYS):
        k = case.layer.keys[:, j].double()
        a = U.T @ k
        for protected in (1, len(C) // 2, len(C) - 8):
            outside = float((a[:protected] ** 2).sum() / (a @ a)) * (1 + 1e-10)
            bound = suppression.suppression_bound(
                float(k.norm()), outside, float(mu[protected]) - slack, float(mu[0]) - slack
            )
            assert holds(case.enclosure.rho[j] <= flint.arb(bound), "enclosed")
            below(float(case.enclosure.rho[j].upper()), bound)
    limit = suppression.suppression_limit(float(k.norm()) * (1 + 1e-12), float(mu[0]) - slack)
    assert holds(case.enclosure.eta[KEYS - 1] <= flint.arb(limit), "enclosed")


@models
@checks("T1e", "enclosed")
@checks("X1", "enclosed")
def test_null_space_coordinates_are_the_accurate_ones(model: str):
    """AlphaEdit on a real layer: V as stored is exact, and eta = ||V^T k||^2 / (beta + ||V^T k||^2) in balls.

    The published form solves with the projector in key space and is allowed the error of a system
    whose size is that of the whole key.
    """
    case = real(model)
    flint.ctx.prec = BITS
    K, beta = case.layer.keys[:, :KEYS], 1.0
    for dtype in (torch.float64, torch.float32):
        operator = Projected(case.layer.moment, beta, keep=0.5, dtype=dtype)
        inside = _balls(operator.basis.T) * _balls(K)
        eps = torch.finfo(dtype).eps
        for j, value in enumerate(operator.attenuation(K).tolist()):
            square = sum((inside[i, j] * inside[i, j] for i in range(inside.nrows())), flint.arb(0))
            exact = square / (flint.arb(beta) + square)
            whole, reach = float(K[:, j].double().norm()), float(square.mid()) ** 0.5
            below(distance(value, exact), len(K) * eps * whole / reach)
    k, r = K[:, 0].double().numpy(), np.array([1.0])
    V = Projected(case.layer.moment, beta, keep=0.5).basis.numpy()
    shipped = suppression.shipped_edit(V @ V.T, k[:, None], r[:, None], beta, np.zeros((len(k), 1)))
    ours = suppression.coordinates_edit(V, k, r, beta)
    below(np.linalg.norm(shipped - ours), 1e-9 * np.linalg.norm(ours))


@pytest.mark.deep
@checks("T1", "enclosed")
@checks("X4", "enclosed")
def test_attenuation_of_the_pretrained_model():
    """d_k = 1,536, the default weight of this model's MEMIT, no ridge."""
    flint.ctx.prec = BITS
    layer = measured_real()
    weight = 10_000.0
    enclosure = enclose(_balls(layer.moment) * flint.arb(weight), _balls(layer.keys[:, :2]))
    operator = Ridge(layer.moment, weight)
    condition = float(np.linalg.cond(layer.moment.double().numpy()))
    bound = suppression.rounding_bound(torch.finfo(torch.float64).eps, condition)
    for value, ball in zip(operator.attenuation(layer.keys[:, :2]).tolist(), enclosure.eta, strict=True):
        below(distance(value, ball), bound)


@checks("X4", "needed", drops="quotient")
def test_one_minus_is_outside_the_enclosure():
    """The same rho, eta by cancellation: wrong in every digit where the key is well protected."""
    flint.ctx.prec = BITS
    exact = flint.arb(1e-17) / (1 + flint.arb(1e-17))
    assert distance(1e-17 / (1 + 1e-17), exact) < 1e-15
    assert distance(1 - 1 / (1 + 1e-17), exact) == 1
    ledger.counterexample("rho = 1e-17: 1 - 1/(1 + rho) = 0")
