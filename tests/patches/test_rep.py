"""REP: the adapter against loops, and the edit on the model with it."""

import pytest
import torch

from metake.patches.rep import KeyAdapter
from metake.prompts import Batch


@pytest.fixture
def adapter():
    torch.manual_seed(0)
    parts = (
        torch.randn(2, 3, 6),
        torch.randn(2, 6, 3),
        torch.randn(2, 4, 6),
        torch.randn(2, 4),
        torch.randn(2, 4),
    )
    return KeyAdapter(0, *parts, torch.randn(2), threshold=0.6)


def test_adapters_whose_gate_is_open_add_up(adapter):
    """One token and one adapter after the other."""
    x = torch.randn(40, 6)
    opened = 0
    for token, after in zip(x, adapter(x, x), strict=True):
        wanted = token.clone()
        for b in range(2):
            inner = torch.nn.functional.gelu(adapter.hidden[b] @ token + adapter.bias[b])
            if torch.sigmoid(adapter.out[b] @ inner + adapter.shift[b]) > 0.6:
                wanted = wanted + adapter.up[b] @ (adapter.down[b] @ token)
                opened += 1
        torch.testing.assert_close(after, wanted)
    assert 0 < opened < 80
    assert adapter.joined(adapter).shift.shape == (4,)
    assert adapter(x.view(2, 20, 6), x.view(2, 20, 6)).shape == (2, 20, 6)


def test_training_moves_keys_in_contexts_towards_the_bare_key(demo, facts, editor_of):
    """After more steps than published the keys are better aligned, and the bare key is as it was to a few per cent."""
    with editor_of(
        "rep", layers=(2,), adapter_steps=100, adapter_lr=0.01, adapter_keep=100.0, steps=1
    ) as editor:
        delta, lookup, contexts = editor.edit(facts[:2]).delta, editor.method.lookup, editor.contexts
    (patch,) = delta.patches
    assert patch.kind == "rep"
    assert delta.weight_layers == (2,)
    bare, *others = (
        row_keys(demo, row) for row in Batch.build(demo, facts[:1], contexts, lookup).lookup_rows
    )
    others = torch.stack(others)
    soft = others + (patch.probability(others)[..., None] * patch.shifts(others)).sum(0)
    before = torch.cosine_similarity(bare[None], others).mean()
    assert torch.cosine_similarity(bare[None], soft).mean() > before
    assert float((patch(bare, bare) - bare).norm()) < 0.2 * float(bare.norm())


@torch.no_grad()
def row_keys(demo, row):
    """Key of the last token of a row at layer 2."""
    keys = []
    handle = demo.down(2).register_forward_pre_hook(lambda _, args: keys.append(args[0][0, -1]))
    demo.model(torch.tensor([row.ids]))
    handle.remove()
    return keys[0]


def test_adapter_that_never_opens_leaves_the_method_that_follows(demo, facts, editor_of):
    """With a gate that no key opens, the weights are those of MEMIT."""
    with editor_of("memit", layers=(2, 3), steps=3) as editor:
        wanted = editor.edit(facts).delta
    with editor_of(
        "rep", steps=3, lam=editor.method.geometry.lam, lr=editor.method.planner.lr, gate_threshold=0.999
    ) as other:
        found = other.edit(facts).delta
    for layer in (2, 3):
        torch.testing.assert_close(found.to_dense(layer), wanted.to_dense(layer))
