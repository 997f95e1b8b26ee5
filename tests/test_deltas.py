"""A change apart from its model."""

import pytest
import torch

from metake.deltas import Delta
from metake.errors import MetakeError
from metake.models.architecture import Architecture
from metake.models.trace import run
from tests.conftest import tiny

IDS = torch.tensor([[3, 5, 8, 13]])


@pytest.fixture
def arch(family):
    return Architecture(tiny(family))


@pytest.fixture
def delta(arch):
    torch.manual_seed(0)
    factors = {n: (torch.randn(arch.d_v, 2), torch.randn(arch.d_k, 2)) for n in (1, 3)}
    return Delta(factors, arch.fingerprint(), {"edits": [{"subject": "x"}]})


@torch.no_grad()
def test_apply_is_the_dense_sum_and_revert_is_bit_exact(arch, delta):
    before = {n: arch.weight(n).clone() for n in range(4)}
    applied = delta.apply(arch)
    for n in (1, 3):
        torch.testing.assert_close(arch.weight(n), (before[n].double() + delta.dense(n)).float())
    assert torch.equal(arch.weight(0), before[0])
    applied.revert()
    assert all(torch.equal(arch.weight(n), before[n]) for n in before)
    applied.revert()  # again: nothing happens
    assert all(torch.equal(arch.weight(n), before[n]) for n in before)


@torch.no_grad()
def test_save_load_apply_gives_the_same_logits(arch, delta, tmp_path):
    with delta.applied(arch):
        wanted = run(arch, IDS).logits
    path = delta.save(tmp_path / "edit")
    for place in (path, path.parent):
        again = Delta.load(place)
        assert again.note == delta.note
        with again.applied(arch):
            assert torch.equal(run(arch, IDS).logits, wanted)


def test_a_digest_is_of_the_change_and_not_of_its_note(arch, delta, tmp_path):
    whole = {0: torch.zeros(arch.d_v, arch.d_k)}
    assert Delta(delta.factors, delta.model, {"version": "0"}).digest == delta.digest
    delta.save(tmp_path)
    assert Delta.load(tmp_path).digest == delta.digest
    left, right = delta.factors[1]
    others = [
        Delta(delta.factors, "another", delta.note),
        Delta({**delta.factors, 1: (right.T.contiguous().T, left)}, delta.model),
        Delta({1: delta.factors[1], 2: delta.factors[3]}, delta.model),
        Delta({**delta.factors, 1: (left + 1e-7, right)}, delta.model),
        Delta({**delta.factors, 1: (left.double(), right)}, delta.model),
        Delta(delta.factors, delta.model, {}, whole),
    ]
    assert len({other.digest for other in (*others, delta)}) == 7


@torch.no_grad()
def test_composition_equals_one_after_the_other(arch, delta):
    other = Delta(
        {
            0: (torch.randn(arch.d_v, 1), torch.randn(arch.d_k, 1)),
            3: (torch.randn(arch.d_v, 1), torch.randn(arch.d_k, 1)),
        }
    )
    with delta.applied(arch), other.applied(arch):
        wanted = run(arch, IDS).logits
    both = delta.then(other)
    assert list(both.factors) == [0, 1, 3]
    with both.applied(arch):
        torch.testing.assert_close(run(arch, IDS).logits, wanted, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_change_that_is_not_thin(arch, delta, tmp_path):
    """Whole matrices are applied, saved, composed and measured as factors are."""
    whole = Delta({}, delta.model, {}, {1: torch.randn(arch.d_v, arch.d_k)})
    both = delta.then(whole)
    assert (both.layers, whole.layers) == ((1, 3), (1,))
    torch.testing.assert_close(both.dense(1), delta.dense(1) + whole.dense(1))
    torch.testing.assert_close(both.then(whole).dense(1), delta.dense(1) + 2 * whole.dense(1))
    assert both.norms()[1] == pytest.approx(float(both.dense(1).norm()))
    both.save(tmp_path)
    again = Delta.load(tmp_path)
    before = arch.weight(1).clone()
    for n in both.layers:
        assert torch.equal(again.dense(n), both.dense(n))
    with again.applied(arch):
        torch.testing.assert_close(arch.weight(1), (before.double() + both.dense(1)).float())
    assert torch.equal(arch.weight(1), before)
    broken = Delta({}, "", {}, {1: torch.full((arch.d_v, arch.d_k), float("inf"))})
    with pytest.raises(MetakeError, match="not finite"):
        broken.apply(arch)


def test_norms_without_the_dense_matrix(delta):
    for n, norm in delta.norms().items():
        assert norm == pytest.approx(float(delta.dense(n).norm()), rel=1e-4)


def test_the_context_restores_after_an_exception(arch, delta):
    before = arch.fingerprint()

    def fails():
        with delta.applied(arch):
            assert arch.fingerprint() != before
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        fails()
    assert arch.fingerprint() == before


def test_what_does_not_fit_is_refused(arch, delta):
    before = arch.fingerprint()
    wrong = Delta({1: (torch.zeros(3, 1), torch.zeros(arch.d_k, 1))})
    broken = Delta({1: (torch.full((arch.d_v, 1), float("nan")), torch.zeros(arch.d_k, 1))})
    elsewhere = Delta({9: (torch.zeros(arch.d_v, 1), torch.zeros(arch.d_k, 1))})
    foreign = Delta(delta.factors, "0123456789abcdef")
    for bad, complaint in ((wrong, "another model"), (broken, "not finite"), (elsewhere, "out of range"),
                           (foreign, "another model")):  # fmt: skip
        with pytest.raises(MetakeError, match=complaint):
            bad.apply(arch)
    assert arch.fingerprint() == before
    with torch.no_grad():
        foreign.apply(arch, check=False).revert()


def test_a_damaged_file_is_named(delta, tmp_path):
    path = delta.save(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(MetakeError, match=r"delta\.safetensors"):
        Delta.load(tmp_path)
    with pytest.raises(MetakeError, match="no such file"):
        Delta.load(tmp_path / "nowhere")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_factors_are_saved_as_precise_as_they_are(tmp_path, dtype):
    """Every bit of a change comes back, in the precision it was solved in."""
    generator = torch.Generator().manual_seed(0)
    pair = tuple(torch.randn(5, 2, dtype=torch.float64, generator=generator).to(dtype) for _ in range(2))
    whole = torch.randn(4, 4, dtype=torch.float64, generator=generator).to(dtype)
    Delta({1: pair}, "m", {}, {2: whole}).save(tmp_path)
    again = Delta.load(tmp_path)
    for found, saved in zip((*again.factors[1], again.whole[2]), (*pair, whole), strict=True):
        assert found.dtype == dtype
        assert torch.equal(found, saved)
