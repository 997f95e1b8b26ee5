"""Theorem 1 in the library's code: every operator says how it is built and what it is as a dense matrix.

The table of operators is crossed with precisions and devices; each combination meets every law.
Tolerances follow from the precision and from the condition of the operator's base.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from metake.figures.measured import Layer, measured
from metake.geometry.null_space import Projected
from metake.geometry.operator import Geometry, Ridge
from metake.shipped import DEMOS
from metake.solvers.layered import cost_of
from theory import suppression
from verification import ledger
from verification import strategies as make
from verification.ledger import below, checks, equal, holds

Array = NDArray[np.float64]

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))
devices = pytest.mark.parametrize("device", ["cpu", CUDA])
#: name -> precision of the inputs, precision of the solve
PRECISIONS = {
    "fp64": (torch.float64, torch.float64),
    "fp32": (torch.float32, torch.float32),
    "bf16 in, fp32 solve": (torch.bfloat16, torch.float32),
}
precisions = pytest.mark.parametrize("precision", PRECISIONS)


@dataclass(frozen=True)
class Case:
    """An operator, its dense geometry, and the basis of the subspace it lives in (`d_k x m`).

    Attributes:
        floor: smallest eigenvalue of what is factored. With memory that is G without its earlier keys,
            and Woodbury's identity subtracts from its inverse, which may be much larger than G's.
    """

    operator: Geometry
    G: Array
    V: Array
    eps: float
    floor: float

    @property
    def tolerance(self) -> float:
        return make.tolerance(float(np.linalg.eigvalsh(self.G)[-1]) / self.floor, len(self.G), self.eps)

    def inside(self, K: Array) -> Array:
        return self.V.T @ K

    def reach(self, k: Array) -> float:
        """What an error of eps ||k|| in the coordinates of k does to rho, over eps.

        A key that hardly reaches the null space is known there only relative to its whole length.
        """
        size = float(np.linalg.norm(k))
        inside = float(np.linalg.norm(self.inside(k)))
        return size * (inside + self.eps * size) / float(np.linalg.eigvalsh(self.G)[0])


@dataclass(frozen=True)
class Inputs:
    """A moment C, earlier keys, a batch: what an operator is built from and asked for, in fp64."""

    C: Array
    past: Array
    K: Array
    R: Array


Build = Callable[[Inputs, torch.dtype, torch.dtype, str], Case]


def _tensor(x: Array, dtype: torch.dtype, device: str) -> torch.Tensor:
    return torch.tensor(x, dtype=dtype, device=device)


def _ridge(weight: float, beta: float, history: bool) -> Build:
    def build(x: Inputs, given_as: torch.dtype, solved_in: torch.dtype, device: str) -> Case:
        moment, past = _tensor(x.C, given_as, device), _tensor(x.past, given_as, device) if history else None
        operator = Ridge(moment, weight, beta, past=past, dtype=solved_in)
        G = weight * moment.double().cpu().numpy() + beta * np.eye(len(x.C))
        floor = float(np.linalg.eigvalsh(G)[0])
        if past is not None:
            P = past.double().cpu().numpy()
            G = G + P @ P.T
        return Case(operator, G, np.eye(len(x.C)), torch.finfo(solved_in).eps, floor)

    return build


def _projected(keep: float, beta: float, history: bool) -> Build:
    def build(x: Inputs, given_as: torch.dtype, solved_in: torch.dtype, device: str) -> Case:
        moment, past = _tensor(x.C, given_as, device), _tensor(x.past, given_as, device) if history else None
        operator = Projected(moment, beta, keep=keep, past=past, dtype=solved_in)
        V = operator.basis.double().cpu().numpy()
        G = beta * np.eye(V.shape[1])
        if past is not None:
            inside = V.T @ past.double().cpu().numpy()
            G = G + inside @ inside.T
        return Case(operator, G, V, torch.finfo(solved_in).eps, beta)

    return build


OPERATORS: dict[str, Build] = {
    "ridge": _ridge(3.0, 0.0, False),
    "ridge, beta": _ridge(0.5, 2.0, False),
    "ridge, history": _ridge(2.0, 0.1, True),
    "projected": _projected(0.6, 0.5, False),
    "projected, history": _projected(0.6, 2.0, True),
    "projected, everything kept": _projected(1.0, 1.0, True),
}
operators = pytest.mark.parametrize("operator", OPERATORS)
# Of each operator: together they make the profile's number. Keys that nearly coincide are often passed over.
EACH = settings(
    max_examples=max(25, settings.default.max_examples // len(OPERATORS)),
    suppress_health_check=[*settings.default.suppress_health_check, HealthCheck.filter_too_much],
)


@st.composite
def inputs(draw: st.DrawFn) -> Inputs:
    geometry = draw(make.geometries(min_size=2, max_size=8, max_exponent=3))
    C = geometry.G / geometry.mu[-1]
    K = draw(make.batches(make.Geometry(geometry.mu / geometry.mu[-1], geometry.U), max_keys=4))
    K = K / max(np.linalg.norm(K, axis=0).max(), 1e-12)
    rng = np.random.default_rng(draw(make.seeds))
    return Inputs(
        C,
        rng.standard_normal((geometry.size, draw(st.integers(1, 3)))),
        K,
        rng.standard_normal((3, K.shape[1])),
    )


def every_operator(test: Callable) -> Callable:
    """Cross a law with operators, precisions and devices, on drawn inputs.

    Inputs are rounded to the given precision before the dense reference is formed, so that only the
    operator's own error is measured; where rounding C destroyed positive definiteness (X4), the
    example is passed over.
    """

    @operators
    @precisions
    @devices
    @EACH
    @given(x=inputs())
    def crossed(operator: str, precision: str, device: str, x: Inputs) -> None:
        given_as, solved_in = PRECISIONS[precision]
        rounded = [_tensor(a, given_as, device) for a in (x.C, x.past, x.K, x.R)]
        x = Inputs(*(a.double().cpu().numpy() for a in rounded))
        assume(np.linalg.eigvalsh(x.C)[0] > 1e-4)
        test(OPERATORS[operator](x, given_as, solved_in, device), x, rounded[2])

    crossed.__name__ = test.__name__
    crossed.__doc__ = test.__doc__
    for mark in getattr(test, "pytestmark", []):
        crossed = getattr(pytest.mark, mark.name)(*mark.args, **mark.kwargs)(crossed)
    return crossed


def _numpy(x: torch.Tensor) -> Array:
    return x.double().cpu().numpy()


@every_operator
@checks("T1", "product")
@checks("X1", "product")
def test_channel_of_one_key_attenuates(case: Case, x: Inputs, K: torch.Tensor) -> None:
    """`k^T q = eta` and `q = G^-1 k / (1 + rho)`, lifted out of the null space."""
    q = _numpy(case.operator.channel(K[:, :1]))[:, 0]
    k = case.inside(x.K[:, 0])
    eta = suppression.attenuation(suppression.realizability(case.G, k))
    longest = float(np.linalg.norm(x.K[:, 0])) / float(np.linalg.eigvalsh(case.G)[0])
    equal(q @ x.K[:, 0], eta, case.tolerance, case.reach(x.K[:, 0]))
    equal(q, case.V @ suppression.channel(case.G, k), case.tolerance, longest)
    equal(_numpy(case.operator.attenuation(K[:, :1]))[0], eta, case.tolerance, case.reach(x.K[:, 0]))


@every_operator
@checks("X2", "product")
def test_batch_keeps_what_the_law_says(case: Case, x: Inputs, K: torch.Tensor) -> None:
    S = suppression.gram(case.G, case.inside(x.K))
    limit = case.tolerance * (1 + np.trace(S))
    equal(_numpy(case.operator.gram(K)), S, case.tolerance, case.reach(x.K))
    edit = x.R @ _numpy(case.operator.channel(K)).T
    longest = float(np.linalg.norm(x.K) * np.linalg.norm(x.R)) / float(np.linalg.eigvalsh(case.G)[0])
    equal(edit, suppression.batch_edit(case.G, case.inside(x.K), x.R) @ case.V.T, limit, longest)
    equal(edit @ x.K, x.R @ suppression.retention(S), limit, float(np.linalg.norm(x.R)))


@every_operator
@checks("X3", "product")
def test_no_edit_keeps_more_than_alone(case: Case, x: Inputs, K: torch.Tensor) -> None:
    channel, eta = case.operator.channel_and_attenuation(K)
    kept, alone = np.sum(x.K * _numpy(channel), 0), _numpy(eta)
    equal(alone, _numpy(case.operator.attenuation(K)), case.tolerance, case.reach(x.K))
    S = suppression.gram(case.G, case.inside(x.K))
    for mine, own in zip(kept, alone, strict=True):
        below(mine, own + case.tolerance * (1 + np.trace(S)))


@every_operator
@checks("X13", "product")
def test_edits_that_remember_share_the_room_of_a_layer(case: Case, x: Inputs, K: torch.Tensor) -> None:
    """The operator with the other keys in its memory, beside what it remembers already."""
    S = suppression.gram(case.G, case.inside(x.K))
    n = K.shape[1]
    limit = case.tolerance * (1 + np.trace(S))
    keys = K.to(case.operator.dtype)
    before = keys[:, :0] if case.operator.past is None else case.operator.lift(case.operator.past)
    eta = []
    for j in range(n):
        past = torch.cat([before, keys[:, :j], keys[:, j + 1 :]], dim=1)
        eta.append(float(case.operator.with_past(past).attenuation(keys[:, j : j + 1])))
    equal(eta, np.diag(suppression.retention(S)), limit, n + case.reach(x.K))
    below(sum(eta) / n, suppression.room_bound(n, len(case.G)) + limit)


@every_operator
@checks("X14", "product")
def test_the_loop_knows_what_an_edit_costs(case: Case, x: Inputs, K: torch.Tensor) -> None:
    """The upper level's price, from the channel alone, is the dense cost."""
    S = suppression.gram(case.G, case.inside(x.K))
    limit = case.tolerance * (1 + np.trace(S))
    channel = _numpy(case.operator.channel(K))
    asked = torch.tensor(x.R.T)
    cost = float(cost_of(asked, torch.tensor(x.K.T @ channel)).sum())
    size = float(np.sum(x.R**2))
    equal(cost, suppression.batch_cost(S, x.R), limit, size)
    equal(cost, suppression.edit_cost(case.G, x.R @ channel.T @ case.V), limit, size * (1 + np.trace(S)))


@every_operator
@checks("X16", "product")
def test_windows_are_solved_with_the_other_tokens_in_the_geometry(
    case: Case, x: Inputs, K: torch.Tensor
) -> None:
    """Beside what the operator remembers already."""
    others = torch.flip(K, [0, 1]) + K[:, :1]
    P = _numpy(others)
    whole = suppression.preserving_geometry(case.G, case.inside(P))
    S = suppression.gram(whole, case.inside(x.K))
    limit = case.tolerance * (1 + np.trace(S)) * (1 + np.trace(suppression.gram(case.G, case.inside(P))))
    operator = case.operator.protecting(others)
    equal(_numpy(operator.gram(K)), S, limit, case.reach(x.K))
    edit = x.R @ _numpy(operator.channel(K)).T
    equal(edit @ x.K, x.R @ suppression.retention(S), limit, float(np.linalg.norm(x.R)))
    alone = _numpy(case.operator.attenuation(K))
    for mine, most in zip(np.sum(x.K * _numpy(operator.channel(K)), 0), alone, strict=True):
        below(mine, most + limit)


@every_operator
@checks("P4", "product")
def test_exact_fit_is_the_compensated_soft_fit(case: Case, x: Inputs, K: torch.Tensor) -> None:
    S = suppression.gram(case.G, case.inside(x.K))
    s = np.linalg.eigvalsh(S)
    assume(s[0] > 1e-2 * s[-1])
    limit = case.tolerance * s[-1] / s[0] * (1 + 1 / s[0]) * (1 + s[-1])
    assume(limit < 0.1)
    exact = x.R @ _numpy(case.operator.channel(K, "equality_constrained")).T
    equal(exact @ x.K, x.R, limit)
    asked = suppression.compensated_residuals(S, x.R)
    equal(asked @ _numpy(case.operator.channel(K)).T, exact, limit, float(np.linalg.norm(exact)) + 1e-30)


@every_operator
@checks("T1d", "product")
def test_attenuation_stays_between_zero_and_one(case: Case, x: Inputs, K: torch.Tensor) -> None:
    eta = _numpy(case.operator.attenuation(K))
    assert (eta >= 0).all()
    below(eta.max(), 1.0)
    assert float(case.operator.attenuation(torch.zeros_like(K[:, :1]))) == 0


@operators
@EACH
@given(x=inputs(), seed=make.seeds)
@checks("L5", "product")
def test_gradients_through_an_operator_are_those_of_the_dense_form(operator: str, x: Inputs, seed: int):
    """Channel, gram and attenuation by keys, in fp64: key derivative need them (X10)."""
    assume(np.linalg.eigvalsh(x.C)[0] > 1e-4)
    S = x.K.T @ x.K
    assume(np.linalg.eigvalsh(S)[0] > 1e-3)
    case = OPERATORS[operator](x, torch.float64, torch.float64, "cpu")
    weigh = torch.from_numpy(np.random.default_rng(seed).standard_normal(x.K.shape))
    G, V = torch.from_numpy(case.G), torch.from_numpy(case.V)

    def dense(K: torch.Tensor) -> torch.Tensor:
        inside = V.T @ K
        solved = torch.linalg.solve(G, inside)
        gram = inside.T @ solved
        channel = V @ torch.linalg.solve(torch.eye(len(gram), dtype=G.dtype) + gram, solved.T).T
        rho = gram.diagonal()
        return (channel * weigh).sum() + gram.sum() + (rho / (1 + rho)).sum()

    def ours(K: torch.Tensor) -> torch.Tensor:
        o = case.operator
        return (o.channel(K) * weigh).sum() + o.gram(K).sum() + o.attenuation(K).sum()

    gradients = []
    for function in (dense, ours):
        K = torch.tensor(x.K, requires_grad=True)
        (gradient,) = torch.autograd.grad(function(K), K)
        gradients.append(gradient.numpy())
    equal(
        gradients[1],
        gradients[0],
        case.tolerance * (1 + np.trace(S)),
        float(np.linalg.norm(gradients[0])) + 1.0,
    )


# -- the spectrum, drift, precision -------------------------------------------------------------


@given(x=inputs(), weight=st.sampled_from([1.0, 10.0, 1e4]))
@checks("T1a", "product")
@checks("T1b", "product")
@checks("T1c", "product")
@checks("T1d", "product")
def test_ridge_obeys_the_spectrum(x: Inputs, weight: float):
    mu, U = np.linalg.eigh(x.C)
    assume(mu[0] > 1e-6)
    limit = make.tolerance(mu[-1] / mu[0], len(mu))
    k = x.K[:, 0]
    a = U.T @ k
    K = torch.from_numpy(k[:, None].copy())
    rho = float(Ridge(torch.from_numpy(x.C), weight).realizability(K))
    equal(rho, suppression.realizability_spectral(weight * mu, a), limit)
    for protected in range(len(mu)):
        outside = float(np.sum(a[:protected] ** 2) / np.sum(a**2))
        bound = suppression.suppression_bound(
            float(np.linalg.norm(k)), outside, weight * mu[protected], weight * mu[0]
        )
        below(rho, bound, limit)
        inside = torch.from_numpy(U[:, protected:] @ a[protected:])[:, None]
        eta = float(Ridge(torch.from_numpy(x.C), weight).attenuation(inside))
        below(eta, suppression.suppression_limit(float(inside.norm()), weight * mu[protected]), limit)
    more = float(Ridge(torch.from_numpy(x.C), 2 * weight).attenuation(K))
    below(more, suppression.attenuation(rho), limit)
    assert more < suppression.attenuation(rho)


@given(geometry=make.geometries(min_size=2, max_exponent=4), exponent=st.integers(0, 6))
@checks("P9", "product")
def test_ridge_suppresses_a_key_that_stays_put(geometry: make.Geometry, exponent: int):
    mu = geometry.mu / geometry.mu[-1]
    mu[-1] = 10.0**exponent
    C = torch.from_numpy((geometry.U * mu) @ geometry.U.T)
    eta = Ridge((C + C.T) / 2, 1.0).attenuation(torch.from_numpy(geometry.U[:, -1:].copy()))
    equal(float(eta), 1 / (1 + mu[-1]), make.tolerance(mu[-1] / mu[0]))


@given(d=make.drifts())
@checks("P10", "product")
def test_ridge_attenuation_drifts_within_the_bound(d: make.Drift):
    eta = [
        float(Ridge(torch.from_numpy(G), 1.0).attenuation(torch.from_numpy(k[:, None])))
        for G, k in zip(d.G, d.k, strict=True)
    ]
    below(
        abs(eta[0] - eta[1]),
        suppression.attenuation_drift_bound(d.key, d.geometry, d.mu) + make.tolerance(1e4),
    )


@given(x=inputs(), seed=make.seeds)
@checks("X12", "product")
def test_two_sided_shares_from_one_sided_operators(x: Inputs, seed: int):
    """In B's eigenbasis every row is an edit of its own with geometry b_j G: n Ridges make one edit."""
    assume(np.linalg.eigvalsh(x.C)[0] > 1e-4)
    b = np.array([0.5, 1.0, 7.0])
    W, r = make.basis(3, seed), x.R[:, 0]
    k = torch.from_numpy(x.K[:, :1].copy())
    rows = [Ridge(torch.from_numpy(x.C), b_j).channel(k)[:, 0].numpy() for b_j in b]
    D = W @ ((W.T @ r)[:, None] * np.stack(rows))
    limit = make.tolerance(float(np.linalg.cond(x.C)))
    equal(D, suppression.two_sided_edit(x.C, (W * b) @ W.T, x.K[:, 0], r), limit)


# -- AlphaEdit ----------------------------------------------------------------------------------


@given(
    x=inputs(),
    keep=st.sampled_from([0.3, 0.6, 1.0]),
    beta=st.sampled_from([0.1, 1.0, 10.0]),
    history=st.booleans(),
)
@checks("T1e", "product")
@checks("T1f", "product")
@checks("X1", "product")
def test_projected_operator_is_alphaedit(x: Inputs, keep: float, beta: float, history: bool):
    """Against the published solve with the projector that the operator's own basis spans."""
    past = x.past if history else np.zeros((len(x.C), 1))
    operator = Projected(
        torch.from_numpy(x.C), beta, keep=keep, past=torch.from_numpy(past) if history else None
    )
    V = operator.basis.numpy()
    P = V @ V.T
    edit = x.R @ operator.channel(torch.from_numpy(x.K)).numpy().T
    condition = 1 + (np.sum(x.K**2) + np.sum(past**2)) / beta
    scale = np.linalg.norm(x.R) / np.sqrt(beta)
    equal(edit, suppression.shipped_edit(P, x.K, x.R, beta, past), make.tolerance(condition**1.5), scale)
    equal(edit, edit @ P, make.tolerance(condition), scale)
    k = x.K[:, 0]
    eta = float(operator.attenuation(torch.from_numpy(k[:, None].copy())))
    free = suppression.projected_attenuation(P, k, beta)
    reach = float(np.linalg.norm(k) * (np.linalg.norm(P @ k) + make.EPS * np.linalg.norm(k)) / beta)
    below(eta, free + make.tolerance(condition) * reach)
    if not history:
        equal(eta, free, make.tolerance(condition), reach)


@pytest.mark.parametrize("kind", ["ridge", "projected"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@EACH
@given(x=inputs())
@checks("T1f", "product")
def test_memory_is_exchanged_and_not_added(kind: str, dtype: torch.dtype, x: Inputs):
    """`with_past` is an operator built with these keys: twice, with others, and with none at all."""
    C, past, K = (torch.from_numpy(a) for a in (x.C, x.past, x.K))

    def build(keys: torch.Tensor | None) -> Geometry:
        if kind == "ridge":
            return Ridge(C, 2.0, 0.5, past=keys, dtype=dtype)
        return Projected(C, 0.5, keep=0.6, past=keys, dtype=dtype)

    plain = build(None)
    for keys in (past, 2 * past[:, :1], None):
        other = build(past).with_past(keys)
        assert (other.dtype, other.device) == (dtype, plain.device)
        assert holds(torch.equal(other.channel(K), build(keys).channel(K)))
        assert other.condition == plain.condition
        if isinstance(other, Projected) and isinstance(plain, Projected):
            assert (other.share, other.l2) == (plain.share, plain.l2)
    assert plain.past is None, "the operator it came from stays as it was"


@given(x=inputs(), exponent=st.integers(2, 6))
@checks("P15", "product")
def test_ridge_tends_to_projected(x: Inputs, exponent: int):
    """`Ridge` with moment I - P and weight t, ridge beta, against `Projected`."""
    beta, t = 1.0, 10.0**exponent
    projected = Projected(torch.from_numpy(x.C), beta, keep=0.5)
    V = projected.basis
    K = torch.from_numpy(x.K)
    ridge = Ridge(torch.eye(len(V), dtype=torch.float64) - V @ V.T, t, beta)
    difference = float((ridge.channel(K) - projected.channel(K)).norm())
    size = float(K.norm())
    below(difference, (size + size**3) / t + make.tolerance(t))


# -- statistics, precision, size ----------------------------------------------------------------


@pytest.mark.parametrize("weight", [1.0, 1e2, 1e4])
@checks("P8", "product")
def test_mean_attenuation_of_the_population(weight: float):
    """Keys drawn from a demo model's own C, exactly: columns of C^1/2 times an orthogonal matrix."""
    C = measured("demo").moment.double()
    mu, U = torch.linalg.eigh(C)
    floor = 1e-4 * mu[-1]
    root = U * mu.clamp_min(0).sqrt()
    turn = torch.from_numpy(make.basis(len(C), 3))
    K = root @ turn * len(C) ** 0.5  # mean of k k^T over the columns is C
    operator = Ridge(C, weight, float(weight * floor))
    rho = operator.realizability(K)
    below(float(rho.mean()), suppression.mean_realizability(len(C), weight), 1e-6)
    eta = operator.attenuation(K)
    below(float(eta.mean()), float(suppression.attenuation(float(rho.mean()))), 1e-9)


def _condition_limited(case: Layer, weight: float, condition: float) -> tuple[torch.Tensor, float]:
    """C of a real layer and the ridge that gives G a condition number."""
    top = float(torch.linalg.eigvalsh(case.moment.double())[-1])
    return case.moment, weight * top / condition


@pytest.mark.parametrize("model", DEMOS)
@pytest.mark.parametrize("condition", [1e2, 1e4, 1e5])
@checks("X4", "product")
@checks("T1", "product")
def test_single_precision_against_double_on_a_real_covariance(model: str, condition: float):
    layer = measured(model)
    moment, beta = _condition_limited(layer, 100.0, condition)
    double = Ridge(moment, 100.0, beta).attenuation(layer.keys).numpy()
    single = Ridge(moment, 100.0, beta, dtype=torch.float32).attenuation(layer.keys).double().numpy()
    bound = suppression.rounding_bound(float(np.finfo(np.float32).eps), condition)
    for got, truth in zip(single, double, strict=True):
        below(abs(got - truth) / truth, bound)


@checks("X4", "product")
def test_rounding_a_covariance_to_bf16_can_destroy_it():
    """Why statistics are kept in fp32: of 30 covariances of condition 1e4, most are indefinite in bf16."""
    broken = {1e2: 0, 1e4: 0}
    for condition in broken:
        for seed in range(30):
            U = make.basis(16, seed + 1)
            C = torch.from_numpy((U * np.geomspace(1 / condition, 1, 16)) @ U.T).to(torch.bfloat16)
            broken[condition] += int(torch.linalg.eigvalsh(C.double())[0] <= 0)
    assert holds(broken[1e2] == 0)
    assert holds(broken[1e4] > 15)
    ledger.counterexample(f"rounded to bf16, {broken[1e4]} of 30 covariances of condition 1e4 are indefinite")


@pytest.mark.deep
@pytest.mark.parametrize("size", [1536, 4096, 6400])
@checks("T1", "product")
@checks("X2", "product")
def test_full_width(size: int):
    """d_k up to GPT2-XL's 6,400, fp32 and fp64, against the spectrum the matrix was made from."""
    torch.manual_seed(0)
    mu = torch.logspace(-4, 0, size, dtype=torch.float64)
    v = torch.randn(size, 1, dtype=torch.float64)
    v /= v.norm()
    a = torch.randn(size, 8, dtype=torch.float64) * mu[:, None].sqrt()
    # one Householder reflection as eigenbasis: dense, orthonormal, and cheap to know exactly
    K = a - 2 * v @ (v.T @ a)
    half = torch.diag(mu) - 2 * v @ (v.T * mu)
    C = half - 2 * (half @ v) @ v.T
    C = (C + C.T) / 2
    S = (a.T / mu) @ a
    for dtype in (torch.float64, torch.float32):
        eps = torch.finfo(dtype).eps
        operator = Ridge(C, 1.0, dtype=dtype)
        limit = suppression.rounding_bound(eps, 1e4)
        equal(_numpy(operator.attenuation(K)), suppression.attenuation(np.diag(S.numpy())), limit)
        realized = _numpy(operator.channel(K)).T @ K.numpy()
        equal(realized, suppression.retention(S.numpy()), limit * (1 + float(S.trace())))
