"""Low-rank forms of a change: exact where the rank permits, else the best of their rank, with the error that they state."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metake.adapters.low_rank import of_dense, of_factors
from metake.adapters.serving import VLLM_RANKS, served_limit, served_rank, vllm_line
from metake.deltas import Delta


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def measured(low, change):
    return float((low.left @ low.right.T - change).norm() / change.norm())


SIZES = st.integers(1, 12)


@settings(max_examples=60, deadline=None)
@given(rows=SIZES, columns=SIZES, n=SIZES, limit=SIZES, seed=st.integers(0, 1000))
def test_factors_state_the_error_that_is_measured(rows, columns, n, limit, seed):
    """The relative error equals the measured one, and that of the SVD of the whole matrix."""
    left, right = random(rows, n, seed=seed), random(columns, n, seed=seed + 1)
    low, change = of_factors(left, right, limit), left @ right.T
    assert low.rank == min(n, limit, rows, columns)
    values = torch.linalg.svdvals(change)
    best = float(values[low.rank :].norm() / values.norm())
    assert low.error == pytest.approx(best, abs=1e-12)
    assert measured(low, change) == pytest.approx(low.error, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(rows=SIZES, columns=SIZES, limit=SIZES, seed=st.integers(0, 1000))
def test_dense_change_states_the_error_that_is_measured(rows, columns, limit, seed):
    change = random(rows, columns, seed=seed)
    low = of_dense(change, limit)
    assert low.rank <= min(limit, rows, columns)
    assert measured(low, change) == pytest.approx(low.error, abs=1e-12)
    assert low.rank == limit or low.error <= torch.finfo(torch.float32).eps


def test_factors_within_the_limit_are_unchanged():
    left, right = random(9, 3), random(7, 3)
    low = of_factors(left, right, 3)
    assert low.left is left
    assert low.right is right
    assert low.error == 0


def test_dense_change_has_the_rank_of_its_matrix():
    """Rounding to fp32 adds no rank."""
    change = (random(20, 3) @ random(30, 3, seed=1).T).float()
    low = of_dense(change, 512)
    assert low.rank == 3
    assert low.error < 1e-5
    zero = of_dense(torch.zeros(4, 5), 512)
    assert (zero.rank, zero.error) == (1, 0.0)


def test_dense_change_of_a_wide_matrix_loses_only_the_rounding_of_fp32():
    """Many small singular values are kept, whatever the width is: together they exceed the rounding."""
    q, p = (torch.linalg.qr(random(600, 40, seed=seed))[0] for seed in (1, 2))
    values = torch.full((40,), 3e-5, dtype=torch.float64)  # below eps * 600 of the largest
    values[0] = 1
    low = of_dense(q @ torch.diag(values) @ p.T, 512)
    assert low.rank == 40
    assert low.error <= torch.finfo(torch.float32).eps


def test_dense_change_keeps_small_singular_values():
    """Down to a hundred-thousandth of the largest."""
    q, p = (torch.linalg.qr(random(8, 8, seed=seed))[0] for seed in (1, 2))
    change = q @ torch.diag(torch.logspace(0, -5, 8, dtype=torch.float64)) @ p
    low = of_dense(change, 512)
    assert low.rank == 8
    assert measured(low, change) < 1e-12


def test_padding_appends_zeros():
    low = of_factors(random(5, 2), random(4, 2), 8)
    wide = low.padded(6)
    assert wide.rank == 6
    assert torch.equal(wide.left[:, :2], low.left)
    assert not wide.left[:, 2:].any()
    assert not wide.right[:, 2:].any()


@pytest.mark.parametrize(
    ("rank", "served"), [(1, 1), (2, 8), (8, 8), (9, 16), (17, 32), (257, 320), (512, 512), (600, 600)]
)
def test_served_rank_is_the_next_of_the_list(rank, served):
    assert served_rank(rank) == served
    assert served in VLLM_RANKS or rank > max(VLLM_RANKS)


@pytest.mark.parametrize(("limit", "written"), [(1, 1), (7, 1), (8, 8), (40, 32), (512, 512), (600, 600)])
def test_written_rank_is_within_the_limit(tiny_model, limit, written):
    """A padded adapter has no rank above the limit that was given."""
    dense = random(tiny_model.d_v, tiny_model.d_k)
    adapter = Delta({}, dense_updates={1: dense.float()}).as_adapter(tiny_model, max_rank=limit)
    largest = min(limit, *dense.shape)
    assert served_limit(limit) == written
    assert adapter.written[1].rank <= max(limit, served_rank(largest))
    assert limit >= 64 or adapter.written[1].rank == min(written, served_rank(largest)) <= limit


def test_flag_is_given_above_the_default():
    assert "--max-lora-rank" not in vllm_line("a", "b", 16)
    assert "--max-lora-rank 32" in vllm_line("a", "b", 20)
    assert "above 512" in vllm_line("a", "b", 513)
