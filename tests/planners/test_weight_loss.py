"""The loss of rows as a function of dense changes, against passes of the whole changed model."""

import pytest
import torch

from metake.deltas import Delta
from metake.models.editable import EditableModel
from metake.models.tokens import Row
from metake.planners.weight_loss import WeightLoss, scored_columns
from tests.cases import tiny

ROWS = (
    Row((5, 9, 2, 7, 11), 2, 2),
    Row((3, 8, 4), 1, 1),
    Row((6, 1, 2, 9, 12, 13, 4), 1, 3),
    Row((6, 1, 2, 9, 12), 1, 2).ended(4),
)


def wide(family):
    return EditableModel(tiny(family).double())


def changes_of(model, layers, size=1e-2):
    torch.manual_seed(0)
    return {n: size * torch.randn_like(model.weight(n)) for n in layers}


def plain_loss(model, rows, objective):
    """Mean over rows of the mean NLL of their answers, of whole passes, one row at a time."""
    found = []
    for row in rows:
        scores = model.model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
        at = scored_columns(row, objective)
        found.append(-scores[at, list(row.answer_ids)].mean())
    return torch.stack(found).mean()


def test_scored_columns_read_tokens_off_their_predecessor_or_the_prompt():
    row = Row((5, 9, 2, 7, 11), 0, 3)
    assert scored_columns(row, "target_new") == [1, 2, 3]
    assert scored_columns(row, "prompt_last") == [1, 1, 1]


@pytest.mark.parametrize("objective", ["target_new", "prompt_last"])
def test_scored_columns_read_an_end_off_the_token_before_it(objective):
    """The prompt's last token must not predict the end: the answer would be empty."""
    row = Row((5, 9, 2, 7), 0, 2)
    assert scored_columns(row.ended(11), objective) == [*scored_columns(row, objective), 3]


@pytest.mark.parametrize("layers", [(1,), (3,), (0, 2, 3)])
@pytest.mark.parametrize("objective", ["target_new", "prompt_last"])
def test_weight_loss_is_that_of_the_changed_model(family, layers, objective):
    """Loss and gradient of the model whose weights are changed, for rows of several lengths and several passes."""
    model = wide(family)
    loss = WeightLoss(model, ROWS, layers, objective, max_tokens=64)
    changes = changes_of(model, layers)
    value, gradients = loss(changes, [3, 2, 0])
    with Delta({}, dense_updates=changes).applied(model):
        parameters = [model.down(n).weight.requires_grad_(True) for n in layers]
        wanted = plain_loss(model, [ROWS[3], ROWS[2], ROWS[0]], objective)
        found = torch.autograd.grad(wanted, parameters)
    assert value == pytest.approx(float(wanted.detach()), rel=1e-10)
    for layer, gradient in zip(layers, found, strict=True):
        gradient = gradient.T if model.family == "gpt2" else gradient
        torch.testing.assert_close(gradients[layer], gradient, rtol=1e-8, atol=1e-12)


def test_weight_loss_runs_long_rows_in_several_passes():
    model = wide("llama")
    whole, parts = (WeightLoss(model, ROWS, (1,), max_tokens=tokens) for tokens in (1000, 6))
    assert (len(whole._passes(range(3))), len(parts._passes(range(3)))) == (1, 3)
    changes = changes_of(model, (1,))
    (value, gradients), (again, others) = (loss(changes, [0, 1, 2]) for loss in (whole, parts))
    assert value == pytest.approx(again, rel=1e-12)
    torch.testing.assert_close(gradients[1], others[1], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("layers", [(1,), (1, 2)])
def test_weight_loss_rounds_changes_as_bfloat16_weights_do(layers):
    """A change below the weights' resolution has no effect; another one has that of the rounded weights."""
    model = EditableModel(tiny("llama").bfloat16())
    loss = WeightLoss(model, ROWS, layers)
    none = {n: torch.zeros_like(model.weight(n), dtype=torch.float32) for n in layers}
    tiny_changes = {n: 1e-3 * model.weight(n).float().abs() for n in layers}
    assert loss(tiny_changes, [0, 1])[0] == loss(none, [0, 1])[0]
    changes = {n: 0.3 * torch.randn_like(x) for n, x in none.items()}
    rounded = {
        n: (model.weight(n).float() + x).bfloat16().float() - model.weight(n).float()
        for n, x in changes.items()
    }
    assert loss(changes, [0, 1])[0] == loss(rounded, [0, 1])[0] != loss(none, [0, 1])[0]


def test_weight_loss_leaves_the_model_as_it_was(demo):
    before = {k: v.clone() for k, v in demo.model.state_dict().items()}
    loss = WeightLoss(demo, ROWS, (3, 4))
    loss(changes_of(demo, (3, 4)), [0, 1, 2])
    assert all(torch.equal(v, before[k]) for k, v in demo.model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in demo.model.modules())
    assert not any("forward" in m.__dict__ for m in demo.model.modules())
