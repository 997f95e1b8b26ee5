"""A pass that skips, alters or stops must agree with the whole model, for every family."""

from types import SimpleNamespace

import pytest
import torch

from metake.models.editable import EditableModel
from metake.models.kv_cache import KVCache
from metake.models.modules import ModuleMap
from metake.models.tokens import Row, length_buckets, pad
from metake.models.trace import _gelu, run
from tests.cases import CONFIGS, DESCRIBED, tiny

IDS = torch.tensor([[5, 9, 17, 30, 2, 7], [8, 1, 4, 4, 90, 11]])


@torch.no_grad()
def test_run_of_a_suffix_equals_the_full_run(tiny_model):
    full = run(tiny_model, IDS, outputs=(0, 1, 2, 3), inputs=(2,))
    for start in range(1, len(tiny_model) + 1):
        suffix = run(tiny_model, IDS, start=start, hidden=full.outputs[start - 1])
        torch.testing.assert_close(suffix.logits, full.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(full.inputs[2], full.outputs[1])


class Tupled(torch.nn.Module):
    """Blocks that return the stream as the first of two things, as some versions of `transformers` write them."""

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = torch.nn.Linear(8, 16), torch.nn.Linear(16, 8)

        def forward(self, hidden_states):
            return hidden_states + self.down(self.up(hidden_states).relu()), None

    def __init__(self):
        super().__init__()
        self.embed, self.head = torch.nn.Embedding(100, 8), torch.nn.Linear(8, 100)
        self.blocks = torch.nn.ModuleList(self.Block() for _ in range(3))

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids, use_cache=False):
        stream = self.embed(input_ids)
        for block in self.blocks:
            stream = block(stream)[0]
        return SimpleNamespace(logits=self.head(stream))


@torch.no_grad()
def test_run_skips_blocks_with_their_return_type(tiny_model):
    torch.manual_seed(0)
    tupled = EditableModel(Tupled(), modules=ModuleMap("blocks", "down", "head"))
    assert tupled.returns_tuples
    seen = []
    handle = tiny_model.blocks[0].register_forward_hook(
        lambda _, __, output: seen.append(isinstance(output, tuple))
    )
    run(tiny_model, IDS, stop=0)
    handle.remove()
    assert [tiny_model.returns_tuples] == seen
    full = run(tupled, IDS, outputs=(1,))
    suffix = run(tupled, IDS, start=2, hidden=full.outputs[1])
    torch.testing.assert_close(suffix.logits, full.logits)


@torch.no_grad()
def test_run_computes_gelus_as_written(tiny_model):
    """In one operation or in eight: against the model's own pass, which is left as it was."""
    torch.testing.assert_close(
        run(tiny_model, IDS).logits, tiny_model.model(input_ids=IDS).logits, rtol=1e-5, atol=1e-5
    )
    for act in tiny_model.unfused_gelus:
        assert "forward" not in act.__dict__
        x = torch.linspace(-6, 6, 1000, dtype=torch.float64)
        torch.testing.assert_close(_gelu(x), act(x), rtol=1e-12, atol=1e-12)
    assert len(tiny_model.unfused_gelus) == (len(tiny_model) if tiny_model.family in ("gpt2", "gptj") else 0)


@torch.no_grad()
def test_run_takes_stop_and_positions(tiny_model):
    full = run(tiny_model, IDS, outputs=(1,))
    stopped = run(tiny_model, IDS, stop=1, outputs=(1,))
    assert stopped.logits.numel() == 0
    torch.testing.assert_close(stopped.outputs[1], full.outputs[1])
    some = run(tiny_model, IDS, positions=(torch.tensor([0, 1, 1]), torch.tensor([5, 0, 3])))
    torch.testing.assert_close(some.logits, full.logits[[0, 1, 1], [5, 0, 3]], rtol=1e-5, atol=1e-5)


def test_run_runs_the_last_ffn_only_for_logits(tiny_model):
    """The last ffn runs only where logits are wanted.

    With a virtual edit of that very layer too: logits, and gradients by the stream, are those at all places.
    """
    last, places = len(tiny_model) - 1, (torch.tensor([0, 1, 1]), torch.tensor([5, 0, 3]))
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(n, 2, generator=generator) for n in (tiny_model.d_v, tiny_model.d_k))
    stream = run(tiny_model, IDS, outputs=(1,), stop=1).outputs[1].detach()
    seen, gradients, found = [], [], []
    handle = tiny_model.down(last).register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:-1]))
    for positions in (places, None):
        hidden = stream.clone().requires_grad_(True)
        logits = run(
            tiny_model, IDS, start=2, hidden=hidden, edits={last: (left, right)}, positions=positions
        ).logits
        found.append(logits if positions is not None else logits[places])
        gradients.append(torch.autograd.grad(found[-1].log_softmax(-1)[..., 0].sum(), hidden)[0])
    handle.remove()
    assert seen == [(3,), (2, 6)]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)
    assert gradients[0].norm() > 1e-3
    observed = run(
        tiny_model, IDS, keys=(last,), positions=places
    )  # whoever looks at the layer sees all of it
    assert observed.keys[last].shape[:-1] == IDS.shape
    assert "forward" not in tiny_model.ffn(last).__dict__


def test_run_runs_every_ffn_of_described_models():
    model = tiny("gpt2")
    assert EditableModel(model).ffn(0) is model.transformer.h[0].mlp
    assert EditableModel(tiny("phi"), modules=DESCRIBED["phi"][1]).ffn(0) is None


def received(model, values):
    """What the stream receives of the FFN's output: itself, or its norm (OLMo 2, Gemma 2 and 3)."""
    norm = model.post_norm(2)
    return values if norm is None else norm(values)


@torch.no_grad()
def test_run_has_keys_that_the_down_projection_reads(tiny_model):
    trace = run(tiny_model, IDS, keys=(2,), outputs=(1, 2))
    assert trace.keys[2].shape == (*IDS.shape, tiny_model.d_k)
    weight = tiny_model.weight(2)
    saved = weight.clone()
    weight.zero_()  # without the FFN the block's output changes by exactly W k (a bias stays), or by its norm
    without = run(tiny_model, IDS, outputs=(2,)).outputs[2]
    weight.copy_(saved)
    wanted = received(tiny_model, trace.keys[2] @ saved.T)
    torch.testing.assert_close(trace.outputs[2] - without, wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_run_with_a_virtual_edit_equals_written_weights(tiny_model):
    left, right = torch.randn(tiny_model.d_v, 3), torch.randn(tiny_model.d_k, 3)
    virtual = run(tiny_model, IDS, edits={1: (left, right)}).logits
    tiny_model.weight(1).add_(left @ right.T)
    torch.testing.assert_close(virtual, run(tiny_model, IDS).logits, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_run_has_values_with_virtual_edits(tiny_model):
    """Values are what the down projection puts out with virtual edits.

    `W k + b + left (right^T k)`; seen, and the stream after the block moves by the edit's part.
    """
    left, right = torch.randn(tiny_model.d_v, 3), torch.randn(tiny_model.d_k, 3)
    still = run(tiny_model, IDS, keys=(2,), values=(2,), outputs=(2,))
    trace = run(tiny_model, IDS, keys=(2,), values=(2,), outputs=(2,), edits={2: (left, right)})
    bias = getattr(tiny_model.down(2), "bias", None)
    wanted = still.keys[2] @ tiny_model.weight(2).T + (0 if bias is None else bias)
    edit = still.keys[2] @ right @ left.T
    torch.testing.assert_close(still.values[2], wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(trace.values[2], wanted + edit, rtol=1e-4, atol=1e-3)
    moved = received(tiny_model, wanted + edit) - received(tiny_model, wanted)
    torch.testing.assert_close(trace.outputs[2] - still.outputs[2], moved, rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_run_adds_virtual_edits_in_their_precision():
    """A virtual edit is as precise as its factors.

    In a bf16 model fp32 factors meet fp32 keys, and the sum is rounded once; below `start` no edit is run.
    """
    model = EditableModel(tiny("llama").bfloat16())
    left, right = torch.randn(model.d_v, 3), torch.randn(model.d_k, 3)
    still = run(model, IDS, keys=(1,), values=(1,), inputs=(2,))
    edited = run(model, IDS, values=(1,), edits={1: (left, right)}).values[1]
    part = (still.keys[1].float() @ right @ left.T).bfloat16()
    assert torch.equal(edited, still.values[1] + part)
    later = run(model, IDS, start=2, hidden=still.inputs[2], edits={1: (left, right)})
    assert torch.equal(later.logits, run(model, IDS, start=2, hidden=still.inputs[2]).logits)


def test_run_from_the_middle_needs_the_stream():
    """A pass from the middle needs the stream there."""
    model = EditableModel(tiny("gpt2"))
    with pytest.raises(ValueError, match="needs the hidden state before it"):
        run(model, IDS, start=1)


@torch.no_grad()
def test_run_does_not_depend_on_right_padding(tiny_model):
    rows = [Row((5, 9, 17), 2), Row((8, 1, 4, 4, 90, 11), 5)]
    padded = run(tiny_model, pad(rows, filler=3)).logits
    for i, row in enumerate(rows):
        alone = run(tiny_model, torch.tensor([row.ids])).logits[0]
        torch.testing.assert_close(padded[i, : len(row)], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_run_resumes_after_any_token(tiny_model, attention):
    """A pass resumes after any token of each row.

    Logits, and gradients by a change of the stream, are those of the pass over whole rows.
    """
    if (tiny_model.family, attention) == ("gemma2", "sdpa"):
        pytest.skip("Gemma 2 caps its attention logits and has no fused attention")
    tiny_model.model.set_attn_implementation(attention)
    begins, width = torch.tensor([3, 1, 0]), 3
    ids = torch.cat([IDS, IDS.flip(0)[:1]])
    full = run(tiny_model, ids, outputs=(0,), record_from=1)
    assert set(full.key_values) == set(range(1, len(tiny_model)))
    states = {
        layer: (k[:, :, :3].detach(), v[:, :, :3].detach()) for layer, (k, v) in full.key_values.items()
    }
    rows, columns = torch.arange(3)[:, None], begins[:, None] + torch.arange(width)
    change = torch.randn(3, width, tiny_model.d_v, generator=torch.Generator().manual_seed(0))
    got, wanted = change.clone().requires_grad_(True), change.clone().requires_grad_(True)
    stream = full.outputs[0].detach()
    a = run(
        tiny_model,
        ids[rows, columns],
        start=1,
        hidden=stream[rows, columns] + got,
        cache=KVCache(states, begins),
    ).logits
    moved = stream.index_put((rows.expand(-1, width), columns), wanted, accumulate=True)
    b = run(tiny_model, ids, start=1, hidden=moved).logits[rows, columns]
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    for logits in (a, b):
        logits.log_softmax(-1)[..., 0].sum().backward()
    assert float(wanted.grad.norm()) > 1e-3
    torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_run_resumes_with_a_shared_past(tiny_model):
    """Rows may share a past."""
    common, ends = IDS[:1, :4], torch.tensor([[2, 7], [90, 11], [3, 3]])
    states = run(tiny_model, common, record_from=0).key_values
    past = KVCache(states, torch.tensor([4])).rows(torch.tensor([0, 0, 0]))
    shared = run(tiny_model, ends, cache=past).logits
    whole = run(tiny_model, torch.cat([common.expand(3, -1), ends], 1)).logits[:, 4:]
    torch.testing.assert_close(shared, whole, rtol=1e-4, atol=1e-4)


def test_can_resume_refuses_special_attention(family):
    """Described models fused attention and short windows do not resume."""
    model = EditableModel(tiny(family))
    assert model.can_resume(8)
    assert model.can_resume(9) == (family != "mistral")
    model.model.config._attn_implementation = "flash_attention_2"
    assert not model.can_resume(1)
    model.model.config._attn_implementation = "sdpa"
    assert model.can_resume(1)
    model.family = "described"
    assert not model.can_resume(1)


def test_run_removes_hooks_and_forwards(tiny_model):
    """Hooks and forwards are gone afterwards."""
    run(
        tiny_model,
        IDS,
        start=2,
        hidden=torch.zeros(*IDS.shape, tiny_model.d_v),
        keys=(3,),
        outputs=(3,),
        inputs=(3,),
    )
    for module in tiny_model.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "forward" not in module.__dict__


def test_run_removes_hooks_after_an_exception(tiny_model):
    """An exception leaves no hook behind."""
    with pytest.raises((RuntimeError, IndexError)):
        run(tiny_model, torch.tensor([[-1]]), keys=(1,))
    assert not any(m._forward_pre_hooks for m in tiny_model.model.modules())


def test_chunks_cover_each_row_once_within_budget():
    rows = [Row(tuple(range(n)), 0) for n in (3, 50, 7, 7, 20, 1)]
    groups = list(length_buckets([len(row) for row in rows], 40))
    assert sorted(i for g in groups for i in g) == list(range(len(rows)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(len(rows[i]) for i in group) <= 40


def test_chunks_pad_by_about_a_tenth_at_most():
    """A group pads by a little more than a tenth of the budget at most."""
    lengths = [1] * 30 + [2] * 30 + [5] * 4 + [6] * 2 + [9] * 3
    groups = list(length_buckets(lengths, 100))
    assert sorted(i for g in groups for i in g) == list(range(len(lengths)))
    padding = [len(g) * max(lengths[i] for i in g) - sum(lengths[i] for i in g) for g in groups]
    assert max(padding) <= 10
    assert [len(g) for g in groups] == [30, 30, 6, 3]


def test_run_is_tested_for_every_family():
    from metake.models.modules import FAMILIES

    assert set(CONFIGS) == set(FAMILIES)


@torch.no_grad()
def test_run_keeps_hooks_of_sharded_models(family):
    """accelerate replaces forwards by its own; skipping blocks must put those back."""
    accelerate = pytest.importorskip("accelerate")
    network = tiny(family)
    wanted = EditableModel(network)
    full = run(wanted, IDS, outputs=(1,))
    accelerate.dispatch_model(network, {"": "cpu"}, force_hooks=True)
    for name, module in network.named_modules():
        if name.endswith((".0", ".1", ".2", ".3")):
            accelerate.hooks.add_hook_to_module(module, accelerate.hooks.AlignDevicesHook("cpu"))
    model = EditableModel(network)
    before = [block.forward for block in model.blocks]
    again = run(model, IDS, start=2, hidden=full.outputs[1])
    assert [block.forward for block in model.blocks] == before
    torch.testing.assert_close(again.logits, full.logits, rtol=1e-4, atol=1e-4)
