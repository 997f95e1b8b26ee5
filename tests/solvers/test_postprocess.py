"""Restraints, against plain formulas on whole matrices."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metake.solvers.postprocess import bounded_spectrum, largest_changes

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 10_000))


def matrices(rows, columns, rank, seed):
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.randn(rows, rank, generator=generator),
        torch.randn(columns, rank, generator=generator),
    )
    return left.double(), right.double(), torch.randn(rows, columns, generator=generator).double()


@given(SHAPES, st.floats(0.05, 1))
def test_largest_changes_keeps_the_largest_relative_changes(shape, keep):
    """The largest relative changes are kept unchanged."""
    left, right, weight = matrices(*shape)
    change = left @ right.T
    kept = largest_changes(change, weight, keep)
    inside = kept != 0
    assert torch.equal(kept[inside], change[inside])
    relative = (change / (weight + 1e-8)).abs()
    dropped = int((1 - keep) * change.numel())
    assert int((~inside).sum()) == max(0, dropped - 1)  # the border itself is kept, as published
    if 0 < int(inside.sum()) < inside.numel():
        assert relative[inside].min() >= relative[~inside].max()


@given(SHAPES, st.floats(0.01, 100))
def test_bounded_spectrum_bounds_singular_values_by_the_weights(shape, size):
    """Singular values above the weight's largest are pulled to it."""
    left, right, weight = matrices(*shape)
    left = left * size
    bounded = np.linalg.svd(np.asarray(torch.matmul(*_transposed(bounded_spectrum(left, right, weight)))))[1]
    s = np.linalg.svd(np.asarray(left @ right.T))[1]
    most = np.linalg.svd(np.asarray(weight))[1][0]
    wanted = np.where(s > most, np.log(np.maximum(s, 1e-300) / most) + most, s)
    np.testing.assert_allclose(np.sort(bounded), np.sort(wanted), atol=1e-12 * max(s[0], most))


def _transposed(factors):
    left, right = factors
    return left, right.T


@given(SHAPES)
def test_bounded_spectrum_leaves_a_small_change_and_its_directions(shape):
    """A small change is left alone and directions are kept."""
    left, right, weight = matrices(*shape)
    left = left * 1e-3 / max(1.0, float((left @ right.T).norm()))
    weight = weight / torch.linalg.matrix_norm(weight, 2).clamp_min(1e-6)
    new_left, new_right = bounded_spectrum(left, right, weight)
    torch.testing.assert_close(new_left @ new_right.T, left @ right.T, rtol=1e-9, atol=1e-14)


def test_bounded_spectrum_keeps_singular_vectors():
    left, right, weight = matrices(6, 8, 2, 3)
    new_left, new_right = bounded_spectrum(100 * left, right, weight)
    before, after = 100 * left @ right.T, new_left @ new_right.T
    product = before.T @ after  # symmetric exactly if both have the same singular vectors
    torch.testing.assert_close(product, product.T)
    assert float(after.norm()) < float(before.norm())
    assert float(torch.linalg.matrix_norm(after, 2)) == pytest.approx(
        np.log(np.linalg.svd(before)[1][0] / (m := np.linalg.svd(weight)[1][0])) + m
    )
