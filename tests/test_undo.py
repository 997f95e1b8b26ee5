"""Undo in the wrong order is refused by name, and leaves the weights as they are."""

import copy

import pytest
import torch

from metake.applied import bit_sum
from metake.deltas import Delta
from metake.errors import MetakeError
from metake.models.editable import EditableModel
from tests.cases import editor_of, tiny

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@pytest.fixture
def model():
    return EditableModel(tiny("gpt2"))


def delta_of(model, seed):
    generator = torch.Generator().manual_seed(seed)
    factors = {
        n: (torch.randn(model.d_v, 2, generator=generator), torch.randn(model.d_k, 2, generator=generator))
        for n in (1, 3)
    }
    return Delta(factors, "", {})


def weights(model):
    return [model.weight(n).clone() for n in range(len(model))]


def same(model, kept):
    return all(torch.equal(model.weight(n), weight) for n, weight in enumerate(kept))


@pytest.mark.parametrize("dtype", DTYPES)
def test_bit_sum_depends_on_every_bit(dtype):
    """The bit sum depends on each single bit."""
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).to(dtype).T
    before = bit_sum(weight)
    assert bit_sum(weight.clone()) == before
    bits = weight.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()])
    bits[3, 2] ^= 1
    assert bit_sum(weight) != before


@pytest.mark.parametrize("dtype", DTYPES)
def test_revert_in_order_restores_every_bit(model, dtype):
    model = EditableModel(model.model.to(dtype))
    states = [weights(model)]
    applied = []
    for seed in (0, 1):
        applied.append(delta_of(model, seed).apply(model))
        states.append(weights(model))
    assert not same(model, states[1])
    applied[1].revert()
    assert same(model, states[1])
    applied[0].revert()
    assert same(model, states[0])
    applied[0].revert()  # a second call does nothing
    assert same(model, states[0])


def test_revert_of_deep_copies_is_independent(model):
    """Deep copies are edited and reverted each by itself.

    Of an unedited model, and of an edited one, which is another model from then on.
    """
    states = [weights(model)]
    plain = EditableModel(copy.deepcopy(model.model))
    applied = delta_of(model, 0).apply(model)
    states.append(weights(model))
    edited = EditableModel(copy.deepcopy(model.model))
    more = delta_of(edited, 1).apply(edited)
    assert same(plain, states[0])
    assert same(model, states[1])
    assert not same(edited, states[1])
    again = delta_of(plain, 0).apply(plain)
    assert same(plain, states[1])
    applied.revert()
    assert same(model, states[0])
    assert same(plain, states[1])
    more.revert()
    assert same(edited, states[1])
    again.revert()
    assert same(plain, states[0])


def test_revert_below_another_change_is_refused(model):
    first = delta_of(model, 0).apply(model)
    second = delta_of(model, 1).apply(model)
    now = weights(model)
    with pytest.raises(MetakeError, match="revert: layer 1 was changed after this edit"):
        first.revert()
    assert same(model, now)
    assert first.originals, "the way back is still known"
    second.revert()
    first.revert()


def test_revert_after_a_step_of_training_is_refused(model):
    applied = delta_of(model, 0).apply(model)
    with torch.no_grad():
        model.weight(3).add_(1e-3)
    with pytest.raises(MetakeError, match="layer 3 was changed"):
        applied.revert()


def test_applied_refuses_to_end_after_an_inner_edit(model):
    """Leaving a context with an edit made inside is refused."""

    def leave():
        with delta_of(model, 0).applied(model):
            delta_of(model, 1).apply(model)

    with pytest.raises(MetakeError, match="was changed after this edit"):
        leave()


def test_applied_shows_an_inner_error(model):
    """An error inside a context is shown and not replaced."""
    before = weights(model)

    def fail():
        with delta_of(model, 0).applied(model):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert same(model, before)


@pytest.mark.parametrize("whole", [True, False])
def test_revert_of_two_editors_is_in_order_alone(demo, statistics_of, records, whole):
    before = weights(demo)
    a, b = (editor_of(demo, statistics_of(demo)) for _ in range(2))
    first = a.edit([records[0].request])
    second = b.edit([records[1].request])
    both = weights(demo)
    with pytest.raises(MetakeError, match="was changed after this edit"):
        a.revert(None if whole else first)
    assert same(demo, both)
    assert a.batches == [first]
    b.revert(None if whole else second)
    a.revert(None if whole else first)
    assert same(demo, before)
    assert a.batches == b.batches == []


def test_finalize_over_another_editors_edit_is_refused(demo, statistics_of, records):
    before = weights(demo)
    a, b = editor_of(demo, statistics_of(demo), "prune"), editor_of(demo, statistics_of(demo))
    a.edit([records[0].request])
    b.edit([records[1].request])
    with pytest.raises(MetakeError, match="was changed after this edit"):
        a.finalize()
    b.revert()
    a.finalize()
    b.edit([records[1].request])
    with pytest.raises(MetakeError, match="was changed after this edit"):
        a.revert()
    b.revert()
    a.revert()
    assert same(demo, before)


def test_revert_of_another_change_is_refused(demo, statistics_of, records):
    """Undo and revert of what the model does not hold are refused."""
    before = weights(demo)
    a, b = editor_of(demo, statistics_of(demo)), editor_of(demo, statistics_of(demo))
    with pytest.raises(MetakeError, match=r"^undo: the model holds no edit"):
        a.undo()
    result = a.edit([records[0].request])
    with pytest.raises(MetakeError, match=r"^revert: the model does not hold this edit"):
        b.revert(result)
    with pytest.raises(MetakeError, match=r"^revert: result must be an EditResult, not int"):
        a.revert(7)
    a.undo()
    assert same(demo, before)
    with pytest.raises(MetakeError, match=r"^revert: the model does not hold this edit"):
        a.revert(result)
    a.revert()  # nothing is left
