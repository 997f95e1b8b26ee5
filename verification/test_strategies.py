"""The strategies themselves: they reach the extremes, keep their promises, and shrink to something small."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from verification import strategies as make

#: to see that something occurs; nothing is shrunk
quick = settings(max_examples=3000, derandomize=True, database=None, phases=(Phase.generate,))


@given(make.geometries())
def test_a_geometry_is_what_its_spectrum_says(g: make.Geometry):
    assert (np.diff(g.mu) >= 0).all()
    assert g.mu[0] > 0
    np.testing.assert_allclose(g.U.T @ g.U, np.eye(g.size), atol=1e-14 * g.size)
    np.testing.assert_allclose(np.linalg.eigvalsh(g.G), g.mu, rtol=0, atol=1e-14 * g.size * g.mu[-1])


@pytest.mark.parametrize("exponent", [0, 1, 6, 11])
def test_conditions_from_one_to_a_trillion_are_reached(exponent: int):
    found = find(make.geometries(), lambda g: 10**exponent <= g.condition * 1.001, settings=quick)
    assert found.condition >= 10**exponent / 1.001


@pytest.mark.parametrize("family", make.FAMILIES)
def test_every_family_of_spectra_occurs(family: str):
    size, condition = 5, 1e4
    wanted = np.sort(make.FAMILIES[family](size, condition))
    wanted = wanted / wanted[-1]
    find(make.spectra(size), lambda mu: np.allclose(mu / mu[-1], wanted, rtol=1e-9), settings=quick)


def test_a_measured_spectrum_is_not_a_textbook_one():
    mu = np.sort(make.FAMILIES["measured"](8, 1e8))
    steps = np.diff(np.log(mu))
    assert steps.max() > 2 * np.median(steps)


def test_keys_reach_the_protected_subspace_and_single_eigenvectors():
    pair = make.geometries(min_size=4, max_size=4).flatmap(lambda g: make.keys(g).map(lambda k: (g, k)))

    def share(case) -> np.ndarray:
        g, k = case
        a = (g.U.T @ k) ** 2
        return a / a.sum()

    find(pair, lambda c: share(c)[:2].sum() < 1e-9, settings=quick)
    find(pair, lambda c: share(c)[0] > 1 - 1e-9, settings=quick)
    find(pair, lambda c: share(c).min() > 0.05, settings=quick)


def test_batches_hold_duplicates_and_nearly_parallel_keys():
    batch = make.geometries(min_size=3).flatmap(make.batches)

    def angle(K: np.ndarray) -> float:
        if K.shape[1] < 2:
            return np.inf
        x, y = (K[:, j] / np.linalg.norm(K[:, j]) for j in (0, 1))
        return float(np.linalg.norm(x - y))

    find(batch, lambda K: angle(K) == 0, settings=quick)
    find(batch, lambda K: 0 < angle(K) < 1e-5, settings=quick)
    find(batch, lambda K: 0.5 < angle(K) < 1.9, settings=quick)


@pytest.mark.parametrize("rank", range(5))
def test_projectors_of_every_rank(rank: int):
    V = find(make.projectors(4), lambda V: V.shape[1] == rank, settings=quick)
    np.testing.assert_allclose(V.T @ V, np.eye(rank), atol=1e-14)


@given(make.drifts())
def test_drifting_layers_keep_their_floor(d: make.Drift):
    for G in d.G:
        assert np.linalg.eigvalsh(G)[0] >= d.mu * (1 - 1e-12)


def test_drift_is_nothing_and_far():
    find(make.drifts(), lambda d: d.geometry == 0 and d.key > 0, settings=quick)
    find(make.drifts(), lambda d: d.geometry > 100 * d.mu and d.key == 0, settings=quick)


def test_stacks_have_any_gap_and_any_tail():
    def tail(s: make.Stack) -> float:
        g = [np.linalg.norm(J.T @ G @ q) for J, G, q in zip(s.J, s.Gamma, s.q, strict=True)]
        return float(sum(g[:-1]) / g[-1])

    find(make.stacks(), lambda s: 0 < tail(s) < 1e-3, settings=quick)
    find(make.stacks(), lambda s: tail(s) > 2, settings=quick)
    find(make.stacks(), lambda s: np.allclose(s.J[-1], np.eye(len(s.J[-1]))), settings=quick)


def test_failures_shrink_to_something_small():
    """The smallest geometry of condition 1e6: two dimensions, the identity as basis."""
    g = find(
        make.geometries(), lambda g: g.condition >= 1e6, settings=settings(max_examples=3000, database=None)
    )
    assert g.size <= 2
    np.testing.assert_array_equal(g.U, np.eye(g.size))
    k = find(
        make.vectors(6), lambda k: np.linalg.norm(k) > 0, settings=settings(max_examples=500, database=None)
    )
    assert np.count_nonzero(k) == 1


def test_examples_do_not_depend_on_loaded_modules(tmp_path, monkeypatch):
    """A local module full of one number leaves the derandomized examples as they are."""

    def drawn() -> list[str]:
        seen: list[str] = []

        @settings(max_examples=300, derandomize=True, database=None)
        @given(st.floats())
        def collect(x: float):
            seen.append(repr(x))

        collect()
        return seen

    before = drawn()
    (tmp_path / "numbers_of_a_neighbor.py").write_text("X = 1234.56789\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("numbers_of_a_neighbor")
    assert drawn() == before
