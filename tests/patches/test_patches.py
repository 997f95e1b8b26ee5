"""Patches as deltas: applied, reverted, saved, composed; what does not fit is refused."""

from contextlib import nullcontext
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metake.deltas import Delta
from metake.editor import Editor
from metake.errors import MetakeError
from metake.methods.table import METHODS
from metake.models.load import load
from metake.models.patch_hooks import recorded_gates
from metake.models.save import save_model
from metake.patches.base import patches_at
from metake.patches.files import read_patches, tensors_of
from metake.patches.grace import Codebook
from metake.presets import settings_for
from metake.tensor_files import write_tensors
from tests.patches.conftest import QUICK

IDS = torch.tensor([[5, 17, 33, 2, 9, 40], [8, 3, 3, 60, 7, 1]])


def logits(model, ids=IDS):
    with torch.no_grad():
        return model.model(ids).logits


def weights(model):
    return [parameter.detach().clone() for parameter in model.model.parameters()]


@given(st.integers(0, 2**31), st.integers(1, 6))
@settings(max_examples=10, deadline=None)
def test_patch_with_closed_gate_leaves_the_output_bit_for_bit(demo, seed, length):
    """Codebook with keys that no token is near to: the logits are those of the unedited model."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 900, (2, length), generator=generator)
    keys = 100 + torch.randn(3, demo.d_k, generator=generator)
    patch = Codebook(
        3, keys, torch.randn(3, demo.d_v, generator=generator), torch.tensor([[1], [2], [3]]), 1.0
    )
    before = logits(demo, ids)
    with Delta({}, patches=(patch,)).applied(demo):
        assert torch.equal(logits(demo, ids), before)


def test_patch_changes_only_tokens_whose_gate_is_open(demo, edited):
    """Patch of two batches: before the first open gate the logits are those of the model without it, bit for bit."""
    _, delta = edited
    with replace(delta, patches=()).applied(demo) if delta.weight_layers else nullcontext():
        before = logits(demo)
    patched = {patch.layer: demo.down(patch.layer) for patch in delta.patches}
    with delta.applied(demo), recorded_gates(patched) as gates:
        after = logits(demo)
    is_open = torch.stack([torch.cat(found).reshape(IDS.shape) for found in gates.values()]).any(0)
    closed = is_open.cumsum(1) == 0
    assert torch.equal(before[closed], after[closed])


def test_patch_is_reverted_bit_for_bit(demo, edited, facts):
    """Applied and reverted: the weights, the hooks and the fingerprint are as before."""
    _, delta = edited
    before, fingerprint, held = logits(demo), demo.fingerprint(), weights(demo)
    applied = delta.apply(demo)
    assert demo.fingerprint() != fingerprint
    answer = demo.ask(facts[0].text)
    applied.revert()
    assert demo.fingerprint() == fingerprint
    assert torch.equal(logits(demo), before)
    assert all(torch.equal(a, b) for a, b in zip(weights(demo), held, strict=True))
    assert not any(patches_at(demo, layer) for layer in range(len(demo)))
    assert answer != demo.ask(facts[0].text)


@pytest.mark.parametrize("name", sorted(QUICK))
def test_patch_edits_an_fp64_model(name, facts, statistics_of):
    """Another answer to an edited prompt; the model as before once the edit is reverted."""
    model = load("demo", dtype="float64", device="cpu")
    method = settings_for(model, name, **QUICK[name])
    statistics = statistics_of(model) if method.needs_statistics else None
    before, unedited = logits(model), model.ask(facts[0].text)
    with Editor(model, method=method, statistics=statistics, answers=False, progress=False) as editor:
        editor.edit(facts[:2])
        assert model.ask(facts[0].text) != unedited
    assert torch.equal(logits(model), before)


def test_patch_is_the_same_after_save_and_load(demo, edited, tmp_path):
    """Saved and loaded: equal digests, equal logits; equal deltas give equal bytes."""
    _, delta = edited
    path = delta.save(tmp_path / "a")
    found = Delta.load(tmp_path / "a")
    assert found.digest == delta.digest
    assert found.layers == delta.layers
    assert found.save(tmp_path / "b").read_bytes() == path.read_bytes()
    with delta.applied(demo):
        wanted = logits(demo)
    with found.applied(demo):
        assert torch.equal(logits(demo), wanted)


def test_patch_composes_with_a_delta_and_with_a_patch(demo, codebook):
    """Applied one after the other, or as one composed delta: the same model."""
    torch.manual_seed(0)
    weight = Delta({3: (0.1 * torch.randn(demo.d_v, 1), 0.1 * torch.randn(demo.d_k, 1))})
    with torch.no_grad():
        keys = []
        handle = demo.down(4).register_forward_pre_hook(lambda _, args: keys.append(args[0].detach()))
        with weight.applied(demo):
            logits(demo)
        handle.remove()
    near = replace(codebook, keys=keys[0][0, 3:6].clone())
    first, second = Delta({}, patches=(near,)), Delta({}, patches=(codebook,))
    with weight.applied(demo), first.applied(demo), second.applied(demo):
        wanted, fingerprint = logits(demo), demo.fingerprint()
    with weight.applied(demo):
        assert not torch.equal(logits(demo), wanted)
    whole = weight.then(first).then(second)
    assert len(whole.patches) == 1
    assert whole.layers == (3, 4)
    assert whole.weight_layers == (3,)
    with whole.applied(demo):
        assert torch.equal(logits(demo), wanted)
        assert demo.fingerprint() == fingerprint
    assert not whole.foldable
    assert weight.foldable
    assert whole.merged().digest == whole.digest


def test_edited_batches_and_their_composition_are_the_same_patch(demo, facts, edited, editor_of):
    """`editor.delta` is the sequence of the batches' deltas; `undo` returns to the first batch."""
    name, total = edited
    with editor_of(name) as editor:
        first = editor.edit(facts[:2])
        fingerprint = demo.fingerprint()
        second = editor.edit(facts[2:])
        assert first.delta.then(second.delta).digest == editor.delta.digest == total.digest
        editor.undo()
        assert demo.fingerprint() == fingerprint
        assert editor.edit(facts[2:]).delta.digest == second.delta.digest


def test_check_asks_the_model_without_the_patch(demo, facts, edited, editor_of):
    """`Editor.check` has the answers without and with the edit."""
    name, _ = edited
    unedited = demo.ask(facts[0].text)
    with editor_of(name, answers=True) as editor:
        editor.edit(facts[0])
        check = editor.check(neighbors=facts[0].text)
        assert check.neighbors[0].before.strip() == unedited != check.neighbors[0].after.strip()


def test_batches_that_are_merged_are_reverted_together(demo, facts):
    """With one undoable batch the earlier ones are merged; all are reverted bit for bit."""
    fingerprint = demo.fingerprint()
    with Editor(
        demo, method=settings_for(demo, "grace", value_steps=2), undoable=1, progress=False
    ) as editor:
        for fact in facts:
            editor.edit(fact)
        assert len(editor.delta.patches[0].keys) == len(facts)
        editor.undo()
        assert len(editor.delta.patches[0].keys) == len(facts) - 1
    assert demo.fingerprint() == fingerprint


def test_revert_refuses_patches_that_others_changed(demo, codebook):
    """A patch on top has to be reverted first."""
    applied = Delta({}, patches=(codebook,)).apply(demo)
    above = Delta({}, patches=(replace(codebook, keys=codebook.keys + 50),)).apply(demo)
    with pytest.raises(MetakeError, match="revert: the patches of layer 4 were changed after this edit"):
        applied.revert()
    above.revert()
    applied.revert()
    assert patches_at(demo, 4) == ()


def test_exports_refuse_a_gate(demo, codebook, tmp_path):
    """Adapters and model folders hold weights only: one line, and nothing is written."""
    delta = Delta({}, patches=(codebook,))
    with pytest.raises(
        MetakeError, match="export: the grace patch of layer 4 has a gate, so it does not fold"
    ):
        delta.save_pretrained(tmp_path / "adapter", demo)
    with (
        delta.applied(demo),
        pytest.raises(MetakeError, match="save_model: the grace patch of layer 4 has a gate"),
    ):
        save_model(demo, tmp_path / "model")
    assert not (tmp_path / "adapter").exists()
    assert not (tmp_path / "model").exists()


def test_patch_of_another_model_or_not_finite_is_refused(demo, codebook):
    """One line, and the model is as before."""
    fingerprint = demo.fingerprint()
    broken = codebook.values.clone()
    broken[1, 5] = float("nan")
    wrong = {
        "keys is .3, 7., the model's .3, 512.; it was made for another model": replace(
            codebook, keys=torch.ones(3, 7)
        ),
        "values is not finite; nothing was changed": replace(codebook, values=broken),
        "^delta: layers: 9 is out of range; gpt2 has layers 0 to 5; give what metake edit wrote": replace(
            codebook, layer=9
        ),
        "keys is of dtype int64, must be of floating-point numbers; give what": replace(
            codebook, keys=codebook.keys.long()
        ),
        "labels is of dtype float32, must be of whole numbers; give what": replace(
            codebook, labels=codebook.labels.float()
        ),
    }
    for line, patch in wrong.items():
        with pytest.raises(MetakeError, match=line):
            Delta({}, patches=(patch,)).apply(demo)
    with pytest.raises(MetakeError, match="delta: made for another model"):
        Delta({}, "0123", patches=(codebook,)).apply(demo)
    assert demo.fingerprint() == fingerprint


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda meta, tensors: tensors.pop("patch.0.values"), "field values of its grace patch is missing"),
        (
            lambda meta, tensors: meta["patches"][0].pop("radius"),
            "field radius of its grace patch is missing",
        ),
        (
            lambda meta, tensors: meta["patches"][0].update(radius="x"),
            "field radius of its grace patch is not a number",
        ),
        (
            lambda meta, tensors: meta["patches"][0].update(radius=-1.0),
            "field radius of its grace patch: input should be greater than 0 (got -1.0)",
        ),
        (
            lambda meta, tensors: meta["patches"][0].update(radius=0),
            "field radius of its grace patch: input should be greater than 0 (got 0)",
        ),
        (lambda meta, tensors: meta["patches"][0].update(kind="grave"), "patch of an unknown kind, 'grave'"),
        (
            lambda meta, tensors: meta["patches"][0].update(color=1),
            "field color of its grace patch is unknown",
        ),
        (lambda meta, tensors: meta.update(patches=3), "its field patches is not a list of records"),
    ],
)
def test_load_names_the_wrong_field_of_a_patch(codebook, tmp_path, change, line):
    """A file with an intact digest but a wrong patch: one line with the file, the field and the remedy."""
    delta = Delta({}, "m", patches=(codebook,))
    meta, tensors = delta.meta, delta.tensors
    change(meta, tensors)
    write_tensors(tmp_path / "delta.safetensors", "metake-delta-2", tensors, meta)
    with pytest.raises(MetakeError) as error:
        Delta.load(tmp_path)
    assert line in str(error.value)
    assert "delta.safetensors" in str(error.value)
    assert str(error.value).endswith("give what metake edit wrote, or save the edit again")


@pytest.mark.parametrize("name", ["grace", "wise", "memoir", "rep"])
def test_load_refuses_a_truth_value_or_fraction_in_place_of_a_number(facts, editor_of, name):
    """`true` is no layer 1 and no radius of 1, and a count is no fraction."""
    with editor_of(name) as editor:
        (patch, *_) = editor.edit(facts[:2]).delta.patches
    numbers, kinds = dict(patch.numbers), {field.name: field.type for field in fields(patch)}
    numbers.pop("kind", None)
    for field, value in numbers.items():
        with pytest.raises(ValueError, match=f"field {field} of its {name} patch is not a number"):
            type(patch).of({**numbers, field: True}, patch.tensors)
        if kinds[field] == "int":
            with pytest.raises(ValueError, match=f"field {field} of its {name} patch is not a whole number"):
                type(patch).of({**numbers, field: value + 0.5}, patch.tensors)
    assert type(patch).of(numbers, patch.tensors).numbers == patch.numbers


@pytest.mark.parametrize("name", ["grace", "wise", "memoir", "rep"])
def test_every_number_and_tensor_of_a_patch_is_checked(demo, facts, editor_of, name):
    """Of every kind: tensors of another dtype and numbers below the range of their setting are refused by name."""
    with editor_of(name) as editor:
        (patch, *_) = editor.edit(facts[:2]).delta.patches
    for field, tensor in patch.tensors.items():
        other = tensor.float() if field in patch.integers else tensor.long()
        with pytest.raises(
            MetakeError, match=rf"^delta: the {name} patch of layer \d+: {field} is of dtype "
        ):
            Delta({}, patches=(replace(patch, **{field: other}),)).check_values()
    numbers = {field for field in patch.numbers if field not in ("kind", "layer")}
    assert numbers
    for field in numbers:
        wrong = {**patch.numbers, field: -1}
        with pytest.raises(ValueError, match=rf"^field {field} of its {name} patch: "):
            read_patches([wrong], tensors_of([patch]))


def test_dense_names_the_gate_of_a_layer(codebook):
    with pytest.raises(
        MetakeError, match=r"^dense: layer 3 has a gated grace patch and no change of its weight"
    ):
        Delta({}, patches=(replace(codebook, layer=3),)).to_dense(3)


@pytest.mark.parametrize("name", ["grace", "wise", "memoir", "rep"])
def test_step_count_is_of_all_requests_or_of_each(name):
    patch = METHODS[name].prototype.value("patch")
    each = name in ("wise", "memoir")
    assert patch.step_count(7) == patch.steps * (7 if each else 1)
