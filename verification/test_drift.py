"""L3, L4: how far a channel moves while it is edited."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from theory import fidelity, suppression
from verification import ledger
from verification.ledger import below, checks, equal
from verification.nets import norm
from verification.search import attained
from verification.strategies import (
    EPS,
    Drift,
    basis,
    drifts,
    seeds,
    spectra,
    tolerance,
    vectors,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """Two symmetric matrices >= mu I; their difference has eigenvalues of both signs."""

    X: Array
    Y: Array
    mu: float

    @property
    def drift(self) -> float:
        return fidelity.spectral(self.X - self.Y)

    @property
    def slack(self) -> float:
        """Rounding of an inverse, absolute: its size times eps cond."""
        return max(tolerance(np.linalg.cond(M), len(M)) for M in (self.X, self.Y)) / self.mu


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    size = draw(st.integers(1, 5))
    mu = 10.0 ** draw(st.integers(-3, 3))
    parts = []
    for _ in range(2):
        U = basis(size, draw(seeds))
        amount = draw(st.sampled_from([0.0, 1e-6, 1e-2, 1.0, 1e3]))
        values = draw(spectra(size, 6)) * (np.arange(size) >= draw(st.integers(0, size)))
        P = (U * values) @ U.T
        parts.append(mu * (np.eye(size) + amount * (P + P.T) / 2))
    return Pair(parts[0], parts[1], mu)


@given(pairs())
@checks("L3", "random")
def test_inverses_of_bounded_matrices_drift_little(p: Pair):
    change = fidelity.spectral(np.linalg.inv(p.X) - np.linalg.inv(p.Y))
    below(change, fidelity.inverse_drift(p.mu, p.drift) + p.slack)


@given(pairs(), seeds, st.sampled_from([0.0, 1e-6, 0.1, 0.5, 0.99, 1 - 1e-6]))
@checks("L3", "random")
def test_inverse_under_any_small_perturbation(p: Pair, seed: int, size: float):
    """E need not be symmetric, and X + E need not be >= mu I."""
    E = np.random.default_rng(seed).standard_normal(p.X.shape)
    E *= size * p.mu / fidelity.spectral(E)
    drift = fidelity.spectral(E)
    change = fidelity.spectral(np.linalg.inv(p.X + E) - np.linalg.inv(p.X))
    bound = fidelity.inverse_drift_stated(p.mu, drift)
    rounding = tolerance(np.linalg.cond(p.X) / (1 - size) ** 2, len(E)) / p.mu
    below(change, bound + rounding)
    below(fidelity.inverse_drift(p.mu, drift), bound, 4 * EPS)


def _floored(x: Array) -> Array:
    """`I + x x^T`-like: any symmetric 2 x 2 matrix >= I, from four numbers."""
    root = x[:4].reshape(2, 2)
    return np.eye(2) + root @ root.T


@checks("L3", "searched")
def test_sharp_inverse_drift_is_attained():
    def ratio(x: Array) -> float:
        X, Y = _floored(x[:4]), _floored(x[4:])
        drift = fidelity.spectral(X - Y)
        change = fidelity.spectral(np.linalg.inv(X) - np.linalg.inv(Y))
        return change / fidelity.inverse_drift(1.0, drift) if drift > 1e-3 else np.nan

    attained(ratio, 8)


@checks("L3", "searched")
def test_stated_inverse_drift_is_attained():
    def ratio(x: Array) -> float:
        X, E = (
            _floored(x[:4]),
            0.9 * np.tanh(x[8]) * x[4:8].reshape(2, 2) / fidelity.spectral(x[4:8].reshape(2, 2)),
        )
        drift = fidelity.spectral(E)
        change = fidelity.spectral(np.linalg.inv(X + E) - np.linalg.inv(X))
        return change / fidelity.inverse_drift_stated(1.0, drift) if drift > 1e-3 else np.nan

    attained(ratio, 9)


@checks("L3", "needed", drops="floor")
def test_a_small_eigenvalue_breaks_the_inverse_drift():
    change = 1 / 0.1 - 1 / 0.6
    assert change > fidelity.inverse_drift_stated(1.0, 0.5) > fidelity.inverse_drift(1.0, 0.5)
    ledger.counterexample("mu = 1, X = 0.1, E = 0.5: the inverses differ by 8.3, the bounds say 1 and 1/3")


@checks("L3", "needed", drops="small")
def test_a_perturbation_of_size_mu_may_leave_no_inverse():
    assert np.isinf([fidelity.inverse_drift_stated(1.0, e) for e in (1.0, 2.0)]).all()
    assert np.isfinite(fidelity.inverse_drift_stated(1.0, 1 - 1e-9))
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.inv(np.eye(1) - 1)
    ledger.counterexample("X = 1, E = -1, mu = 1: X + E = 0 has no inverse")


@checks("L3", "needed", drops="both")
def test_the_sharp_form_needs_both_floors():
    change = 1 / 0.5 - 1
    assert change > fidelity.inverse_drift(1.0, 0.5)
    assert change == fidelity.inverse_drift_stated(1.0, 0.5)
    ledger.counterexample("X = 1, E = -1/2, mu = 1: the inverses differ by 1, the sharp form says 1/3")


@st.composite
def layer_pairs(draw: st.DrawFn) -> Drift:
    """Two layers that have only mu in common, or nearly everything."""
    p = draw(pairs())
    k = draw(vectors(len(p.X))) * np.sqrt(p.mu)
    away = draw(st.sampled_from([0.0, 1e-6, 1e-2, 1.0, 10.0])) * np.sqrt(p.mu)
    return Drift((p.X, p.Y), (k, k + away * basis(len(k), draw(seeds))[:, -1]), p.mu)


def _channel_change(d: Drift) -> float:
    q = [suppression.channel(G, k) for G, k in zip(d.G, d.k, strict=True)]
    return norm(q[0] - q[1])


def _channel_slack(d: Drift) -> float:
    """Rounding of q, absolute: ||q|| <= 1/(2 sqrt mu), and its solve knows cond(G) alone."""
    return max(tolerance(np.linalg.cond(G), len(G)) for G in d.G) / np.sqrt(d.mu)


@given(st.one_of(drifts(), layer_pairs()))
@checks("L4", "random")
def test_channels_drift_little(d: Drift):
    below(_channel_change(d), fidelity.channel_drift(d.key, d.geometry, d.mu, d.longest) + _channel_slack(d))


@given(st.one_of(drifts(), layer_pairs()))
@checks("L4", "random")
def test_stated_channel_drift_holds_and_is_never_smaller(d: Drift):
    """(57), (58): true wherever it is finite, and above the corrected form."""
    stated = fidelity.channel_drift_stated(d.key, d.geometry, d.mu, d.longest)
    below(_channel_change(d), stated + _channel_slack(d))
    below(fidelity.channel_drift(d.key, d.geometry, d.mu, d.longest), stated, 8 * EPS)


@given(st.sampled_from([1e-3, 1.0, 1e3]), st.sampled_from([0.5, 0.9, 1 - 1e-3, 1 - 1e-9]))
@checks("L4", "random")
def test_stated_channel_drift_blows_up_where_the_drift_reaches_mu(mu: float, share: float):
    """With B = sqrt(mu) and e = share mu: from 4 times too much at 1/2 to no bound at all."""
    stated, corrected = (
        f(0.0, share * mu, mu, np.sqrt(mu)) for f in (fidelity.channel_drift_stated, fidelity.channel_drift)
    )
    equal(stated * np.sqrt(mu), share / (1 - share), 1e-6)
    below(corrected * np.sqrt(mu), share / 2, 8 * EPS)
    assert np.isinf(fidelity.channel_drift_stated(0.0, mu, mu, np.sqrt(mu)))
    assert np.isinf(fidelity.channel_drift_stated(mu / 2, 0.0, mu, 1.0))  # e = 2 B eps_k


@checks("L4", "searched")
@pytest.mark.parametrize("key", [1e-3, 0.3, 1.0])
def test_geometry_part_of_the_channel_drift_is_attained(key: float):
    """Short keys attain `B eps_C/(mu (mu + eps_C))`; keys of length sqrt(mu) the other, for small drift."""

    def ratio(x: Array) -> float:
        small = 1e-3 if key == 1 else 1.0
        X, Y = (np.eye(2) + small * (_floored(part) - np.eye(2)) for part in (x[:4], x[4:8]))
        k = key * np.array([np.cos(x[8]), np.sin(x[8])])
        d = Drift((X, Y), (k, k), 1.0)
        if not 1e-5 < d.geometry < 10:
            return np.nan
        return _channel_change(d) / fidelity.channel_drift(0.0, d.geometry, 1.0, key)

    # between the two ends the minimum of two bounds cannot be reached
    attained(ratio, 9, 0.99 if key != 0.3 else 0.7, starts=3)


@checks("L4", "searched")
def test_key_part_of_the_channel_drift_is_attained():
    def ratio(x: Array) -> float:
        d = Drift((_floored(x[:4]),) * 2, (1e-3 * x[4:6], 1e-3 * x[6:8]), 1.0)
        return (
            _channel_change(d) / fidelity.channel_drift(d.key, 0.0, 1.0, d.longest)
            if d.key > 1e-5
            else np.nan
        )

    attained(ratio, 8)


@checks("L4", "needed", drops="floor")
def test_a_small_eigenvalue_breaks_the_channel_drift():
    k = np.array([0.1])
    d = Drift((np.array([[0.01]]), np.array([[1.0]])), (k, k), 1.0)
    assert _channel_change(d) > 4 > 1 > fidelity.channel_drift(0.0, d.geometry, d.mu, 0.1)
    ledger.counterexample("mu = 1, G = 0.01 and 1, k = 0.1: channels differ by 4.9, the bound says 0.05")


@given(layer_pairs(), st.sampled_from([1e2, 1e8]))
@checks("L4", "unneeded", drops="bounded")
def test_keys_need_no_bound(d: Drift, longer: float):
    far = replace(d, k=(d.k[0] * longer, d.k[0] * longer + (d.k[1] - d.k[0])))
    slack = _channel_slack(far) * (1 + EPS * norm(far.k[0]) / np.sqrt(d.mu))
    below(_channel_change(far), fidelity.channel_drift(far.key, far.geometry, d.mu, np.inf) + slack)


@given(layer_pairs())
@checks("L4", "unneeded", drops="small")
def test_drift_need_not_be_small(d: Drift):
    assume(d.geometry + 2 * d.longest * d.key >= d.mu)
    assert np.isinf(fidelity.channel_drift_stated(d.key, d.geometry, d.mu, d.longest))
    below(_channel_change(d), fidelity.channel_drift(d.key, d.geometry, d.mu, d.longest) + _channel_slack(d))
