"""Fine-tuning rows against a plain loop of Adam on the model's own weight."""

import math

import pytest
import torch

from metake.calibration.locate import locate
from metake.deltas import Delta
from metake.editor import Editor
from metake.errors import MetakeError
from metake.evaluation.protocol import Protocol
from metake.methods.fine_tune import FineTune
from metake.methods.table import METHODS, method_named
from metake.models.editable import EditableModel
from metake.models.end_token import end_token, ended
from metake.models.tokens import encode
from metake.planners.weight_loss import WeightLoss, scored_columns
from metake.presets import load_preset, settings_for
from metake.prompts import Batch
from tests.cases import tiny

FT = ("ft-l", "ft-m", "locft-bf")


@pytest.fixture
def requests(records):
    return [r.request for r in records[:5]]


@pytest.fixture
def wide(demo):
    """A small model in fp64, in which the signs of gradients near 0 do not depend on rounding."""
    torch.manual_seed(1)
    return EditableModel(tiny("llama").double(), demo.tokenizer)


def plain_loop(model, requests, method):
    """Change of a weight by a loop as in the published code: whole passes of one row at a time on the weight itself."""
    (layer,) = method.layers
    parameter = model.down(layer).weight
    before = parameter.detach().clone()
    rows = [encode(model.tokenizer, r.text, r.target_new) for r in requests]
    if method.end == "end-token":
        rows = [row.ended(end_token(model)) for row in rows]
    generator = torch.Generator().manual_seed(method.seed)
    parameter.requires_grad_(True)
    adam = torch.optim.Adam([parameter], lr=method.lr)
    for _ in range(method.epochs):
        order, total = torch.randperm(len(rows), generator=generator).tolist(), 0.0
        for start in range(0, len(rows), method.mini_batch):
            chunk = [rows[i] for i in order[start : start + method.mini_batch]]
            losses = []
            for row in chunk:
                scores = model.model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
                at = scored_columns(row, method.objective)
                losses.append(-scores[at, list(row.answer_ids)].mean())
            loss = torch.stack(losses).mean()
            total += float(loss.detach()) * len(chunk)
            if float(loss.detach()) >= method.stop_loss:
                adam.zero_grad()
                loss.backward()
                adam.step()
            if method.norm_constraint is not None:
                with torch.no_grad():
                    bound = method.norm_constraint
                    parameter.copy_(torch.clamp(parameter, before - bound, before + bound))
        if total / len(rows) < method.stop_loss:
            break
    change = parameter.detach() - before
    with torch.no_grad():
        parameter.copy_(before)
    parameter.requires_grad_(False)
    return change


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("ft-l", {}),
        ("ft-m", {}),
        ("locft-bf", {"mini_batch": 2, "seed": 3}),
        ("ft-m", {"norm_constraint": 2e-3, "mini_batch": 3}),
        (
            "ft-m",
            {"norm_constraint": None, "weight_lr": 0.02, "epoch_loss": 2.0, "epochs": 40},
        ),  # stops early
        (
            "ft-m",
            {"norm_constraint": None, "weight_lr": 0.02, "epoch_loss": 5.0, "mini_batch": 1, "epochs": 6},
        ),  # takes no step on a mini-batch below the loss
    ],
)
def test_fine_tune_is_adam_on_the_weight(wide, requests, name, changes):
    method = method_named(name, (2,)).updated(epochs=8).updated(**changes)
    delta, _, stages = method.step(wide, requests, method.init(wide), lambda: None)
    wanted = plain_loop(wide, requests, method)
    assert stages == ()
    assert float(wanted.abs().max()) > 0
    torch.testing.assert_close(delta.dense_updates[2], wanted, rtol=1e-6, atol=1e-6 * method.lr)


def test_fine_tune_stops_after_an_epoch_below_the_loss(demo, requests):
    steps = []
    method = method_named("ft-m", (4,)).updated(norm_constraint=None, weight_lr=0.005, epochs=200)
    method.step(demo, requests, method.init(demo), lambda: steps.append(1))
    assert 1 < len(steps) < method.step_count(len(requests)) == 200


@pytest.mark.parametrize(
    ("group", "mini_batch", "requests", "steps"),
    [(None, 100, 7, 1), (None, 3, 7, 3), (1, 100, 7, 7), (3, 2, 7, 5), (10, 4, 7, 2)],
)
def test_fine_tune_counts_its_steps(group, mini_batch, requests, steps):
    method = FineTune(layers=(1,), group=group, mini_batch=mini_batch, epochs=10)
    assert method.step_count(requests) == 10 * steps


def test_fine_tune_takes_all_counted_steps(demo, requests):
    steps = []
    method = method_named("ft-m", (2,)).updated(group=2, mini_batch=1, epochs=3)
    method.step(demo, requests, method.init(demo), lambda: steps.append(1))
    assert len(steps) == method.step_count(len(requests)) == 15


@pytest.mark.parametrize("name", FT)
def test_fine_tune_edits_and_reverts_bit_exactly(model, requests, name):
    """The loss falls, one weight changes, and after `revert` the model is as it was."""
    before = {k: v.clone() for k, v in model.model.state_dict().items()}
    method = settings_for(model, name, layers=(4,), norm_constraint=None, epochs=15, weight_lr=2e-3)
    rows = ended(model, Batch.build(model, requests, ()).edits, method.end)
    everyone, zero = range(len(rows)), {4: torch.zeros_like(model.weight(4))}
    with Editor(model, method=method, progress=False) as editor:
        first = WeightLoss(model, rows, (4,), method.objective)(zero, everyone)[0]
        result = editor.edit(requests)
        last = WeightLoss(model, rows, (4,), method.objective)(zero, everyone)[0]
        changed = [k for k, v in model.model.state_dict().items() if not torch.equal(v, before[k])]
        assert last < 0.8 * first
        assert (len(changed), result.delta.layers, dict(result.delta.factors)) == (1, (4,), {})
        assert requests[0].subject in str(result)
        summary = result.summary()
        assert (summary["layers"], summary["eta"]) == ([4], [])
    assert all(torch.equal(v, before[k]) for k, v in model.model.state_dict().items())


def test_fine_tune_in_groups_is_one_edit_after_the_other(demo, requests):
    method = settings_for(demo, "ft-m", layers=(4,), norm_constraint=1e-3, epochs=5)
    together = method.updated(group=2)
    assert together.name == "ft-m + group 2"
    with Editor(demo, method=together, progress=False) as editor:
        delta = editor.edit(requests).delta
    with Editor(demo, method=method, progress=False) as editor:
        for start in (0, 2, 4):
            editor.edit(requests[start : start + 2])
        wanted = editor.delta
    # the sum of the groups' changes is rounded once, not after each
    torch.testing.assert_close(delta.dense_updates[4], wanted.dense_updates[4], rtol=1e-4, atol=1e-6)
    assert float(delta.dense_updates[4].abs().max()) > 2e-3  # each group has a box of its own


def test_fine_tune_batches_add_up_and_are_undone_one_by_one(demo, requests):
    method = settings_for(demo, "ft-m", layers=(4,), epochs=3)
    before = demo.weight(4).clone()
    with Editor(demo, method=method, progress=False) as editor:
        editor.edit(requests[:2])
        between = demo.weight(4).clone()
        editor.edit(requests[2:])
        after = demo.weight(4).clone()
        total = editor.delta
        editor.undo()
        assert torch.equal(demo.weight(4), between)
        editor.undo()
        assert torch.equal(demo.weight(4), before)
        with total.applied(demo):
            torch.testing.assert_close(demo.weight(4), after, rtol=0, atol=1e-7)


def test_fine_tune_depends_on_the_seed_through_the_order_only(demo, requests):
    def change(**settings):
        method = settings_for(demo, "locft-bf", layers=(4,), epochs=2, **settings)
        return method.step(demo, requests, method.init(demo), lambda: None)[0].dense_updates[4]

    once, again, other = change(mini_batch=2), change(mini_batch=2), change(mini_batch=2, seed=1)
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    torch.testing.assert_close(
        change(seed=1), change(), rtol=1e-3, atol=1e-5
    )  # one mini-batch: a sum in another order


@pytest.mark.parametrize("group", [None, 1])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_fine_tune_that_fails_leaves_the_model_as_it_was(demo, requests, monkeypatch, group, error):
    """Wherever a step fails, in a later group too, nothing of the edit is left."""
    before = {k: v.clone() for k, v in demo.model.state_dict().items()}
    wanted, calls = [p.requires_grad for p in demo.model.parameters()], []
    whole = WeightLoss.__call__

    def stop(self, *given):
        calls.append(1)
        if len(calls) == 4:
            raise error
        return whole(self, *given)

    monkeypatch.setattr(WeightLoss, "__call__", stop)
    method = settings_for(demo, "ft-m", layers=(4,), epochs=2, group=group, mini_batch=2)
    editor = Editor(demo, method=method, progress=False)
    with pytest.raises(error):
        editor.edit(requests)
    assert all(torch.equal(v, before[k]) for k, v in demo.model.state_dict().items())
    assert [p.requires_grad for p in demo.model.parameters()] == wanted
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in demo.model.modules())
    assert editor.batches == []


def test_fine_tune_refuses_a_loss_that_is_not_finite(demo, requests):
    before = demo.weight(4).clone()
    method = settings_for(demo, "ft-m", layers=(4,), norm_constraint=None, weight_lr=1e30)
    with pytest.raises(
        MetakeError, match=r"^ft-m: the loss of epoch \d+ is not finite; .*; lower weight_lr \(now 1e\+30\)$"
    ):
        Editor(demo, method=method, progress=False).edit(requests)
    assert torch.equal(demo.weight(4), before)


def test_fine_tune_runs_in_bfloat16(requests):
    """Small steps are kept in fp32: their sum exceeds the resolution of the weights, each alone does not."""
    from metake.models.load import load

    model = load("demo", dtype="bfloat16", device="cpu")
    method = settings_for(model, "ft-m", layers=(4,), norm_constraint=None, epochs=30, weight_lr=2e-5)
    delta = method.step(model, requests, method.init(model), lambda: None)[0]
    assert delta.dense_updates[4].dtype == torch.float32
    one = method.updated(epochs=1).step(model, requests, method.init(model), lambda: None)[0]
    before = model.weight(4).clone()
    moved = []
    for change in (one, delta):
        with change.applied(model, check=False):
            moved.append(float((model.weight(4) != before).float().mean()))
    assert moved[1] > 2 * moved[0]


@pytest.mark.parametrize("name", FT)
def test_fine_tune_resumes_a_run_with_equal_results(demo, records, cut_at, tmp_path, name):
    """A run that is interrupted in its second batch and started again gives the numbers of an uninterrupted one."""
    method = settings_for(demo, name, layers=(4,), epochs=3)
    protocol = Protocol(records[:6], 2, generate=False)
    whole = protocol.run(demo, [method])
    with cut_at(2):
        protocol.run(demo, [method], folder=tmp_path)
    again = protocol.run(demo, [method], folder=tmp_path)
    for metric in ("efficacy", "generalization", "specificity"):
        assert again.runs[0].after.mean(metric) == whole.runs[0].after.mean(metric)


def test_fine_tune_rows_are_those_of_their_code():
    assert METHODS["ft-l"].prototype == FineTune(layers=(), objective="prompt_last", norm_constraint=5e-4)
    assert METHODS["ft-m"].prototype == FineTune(layers=(), norm_constraint=5e-4)
    assert METHODS["locft-bf"].prototype == FineTune(layers=(), end="end-token")
    default = FineTune(layers=())
    assert (default.lr, default.epochs, default.stop_loss, default.mini_batch) == (5e-4, 25, 1e-2, 100)


@pytest.mark.parametrize(
    ("preset", "layers"),
    [
        ("llama3-8b", {"ft-l": 21, "ft-m": 21, "locft-bf": 22}),
        ("gpt2-xl", {"ft-l": 0, "ft-m": 0}),
        ("gpt-j-6b", {"ft-l": 21, "ft-m": 21}),
    ],
)
def test_fine_tune_takes_the_published_layer(preset, layers):
    entries = load_preset(preset)["methods"]
    assert {name: entries[name]["layers"] for name in layers} == {n: [layer] for n, layer in layers.items()}


def test_fine_tune_without_a_preset_tunes_one_layer_at_two_thirds(demo, requests):
    """Also where the preset's common part has layers, which are those of locate-then-edit."""
    assert settings_for(demo, "ft-m", name="none").layers == (4,)
    assert FineTune.default_layers(32) == (21,)
    assert FineTune.default_layers(1) == (0,)
    made = method_named("ft-m", (4,))
    assert made.numbers_of({"layers": [1, 2], "lr": 0.1, "steps": 20}) == {}
    found = locate(demo, requests, "locft-bf")
    assert found.method.layers == (4,)
    assert found.reasons == (
        "settings: published",
        "layers 4: at two thirds of the depth (published for Llama-3-8B: 21 and 22 of 32)",
    )
    given = locate(demo, requests, "ft-m", layers=(2,))
    assert given.method.layers == (2,)
    assert given.reasons[-1] == "layers 2: as given"


def test_fine_tune_has_no_preview(demo, requests):
    editor = Editor(demo, method="ft-m", progress=False)
    with pytest.raises(
        MetakeError, match=r"^preview: ft-m does not solve in a geometry, so there is no attenuation$"
    ):
        editor.preview(requests)


def test_fine_tune_that_misses_names_a_setting(demo, requests):
    method = settings_for(demo, "ft-m", layers=(4,), epochs=1, norm_constraint=5e-4, weight_lr=5e-4)
    with Editor(demo, method=method, progress=False) as editor:
        advice = editor.edit(requests).advice()
    assert advice.startswith("failed edits: ")
    assert "eta" not in advice
    assert advice.endswith("--set weight_lr=0.001 (now 0.0005), or other --layers")


def test_dense_delta_of_a_fine_tuning_is_saved_and_loaded(demo, requests, tmp_path):
    method = settings_for(demo, "ft-m", layers=(4,), epochs=2)
    with Editor(demo, method=method, progress=False) as editor:
        delta, edited = editor.edit(requests).delta, demo.weight(4).clone()
    delta.save(tmp_path)
    again = Delta.load(tmp_path)
    assert again.digest == delta.digest
    size = (tmp_path / "delta.safetensors").stat().st_size
    assert size < 4 * math.prod(edited.shape) + 20_000  # one fp32 matrix
    with again.applied(demo):
        assert torch.equal(demo.weight(4), edited)
