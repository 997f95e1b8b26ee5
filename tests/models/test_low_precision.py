"""A model with products in bf16, and plans whose losses it computes."""

import copy
import json
import warnings

import pytest
import torch

from metake.editor import Editor
from metake.models import low_precision
from metake.models.editable import EditableModel
from metake.models.low_precision import obstacle, with_bf16_products
from metake.models.trace import run
from metake.presets import settings_for
from metake.requests import EditRequest
from metake.shipped import ASSETS
from tests.cases import CONFIGS, DESCRIBED, tiny

REQUEST = EditRequest("Which city was {} born in?", "Nezan Girok", "Trumas")
HALF = 2.0**-8  # relative rounding of bf16
LINE = "loss_dtype bfloat16: not used, this CPU has no bf16 instructions (avx512_bf16)"


@pytest.fixture
def able(monkeypatch):
    """A CPU with bf16 instructions; those without them compute the same products more slowly."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)


def stream(model, ids):
    return run(model, ids, outputs=(len(model) - 1,)).outputs[len(model) - 1]


def test_products_are_rounded_and_the_model_stays(demo):
    """The stream of the copy is in fp32 and near the model's, but differs; the model's weights and stream do not change."""
    ids = torch.arange(5, 25).reshape(2, 10)
    with torch.no_grad():
        exact = stream(demo, ids)
        twin = with_bf16_products(demo)
        rounded = stream(twin, ids)
        assert torch.equal(stream(demo, ids), exact)
    assert rounded.dtype == torch.float32
    distance = float((rounded - exact).norm() / exact.norm())
    assert 0.01 * HALF < distance < 4 * HALF
    assert demo.dtype == torch.float32
    assert twin.dtype == torch.bfloat16
    assert twin.model.get_input_embeddings().weight is demo.model.get_input_embeddings().weight


def test_losses_use_the_copy_and_the_solve_does_not(demo, statistics_of, able, monkeypatch):
    """A plan with `loss_dtype` computes its losses with the copy; the update solves for its targets in full precision."""
    made = []
    monkeypatch.setattr(
        "metake.methods.locate_then_edit.with_bf16_products",
        lambda model: made.append(with_bf16_products(model)) or made[-1],
    )
    models = []

    def spy(model, *args, **options):
        models.append(id(model))
        return run(model, *args, **options)

    monkeypatch.setattr("metake.planners.objective.run", spy)
    plain = settings_for(demo, "metake", layers=(1, 2), steps=3, meta_steps=2, from_lookup=True)
    found = {}
    for name, method in (("plain", plain), ("bf16", plain.updated(loss_dtype="bfloat16"))):
        editor = Editor(demo, method=method, statistics=statistics_of(demo), answers=False, progress=False)
        models.clear()
        result = editor.edit(REQUEST)
        editor.revert()
        found[name] = result.stages[0]
        assert set(models) == {id(made[0]) if name == "bf16" else id(demo)}
    plain_residual, residual = (found[name].targets.residuals for name in ("plain", "bf16"))
    assert torch.cosine_similarity(plain_residual, residual).min() > 0.9
    assert not torch.equal(plain_residual, residual)
    assert all(right.dtype == torch.float32 for _, right in found["bf16"].solution.factors.values())


def test_obstacle_is_a_reason_of_the_preview(demo, statistics_of, monkeypatch):
    """Without bf16 instructions the setting has no effect, and the preview says so."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(low_precision, "with_bf16_products", None)
    method = settings_for(demo, "memit", layers=(1, 2), steps=2)
    results = []
    for made in (method, method.updated(loss_dtype="bfloat16")):
        with warnings.catch_warnings(record=True) as caught:
            editor = Editor(demo, method=made, statistics=statistics_of(demo), answers=False, progress=False)
        assert [str(warning.message) for warning in caught] == [LINE] * bool(made.loss_dtype)
        results.append((str(editor.preview(REQUEST)), editor.edit(REQUEST)))
        editor.revert()
    assert [LINE in text for text, _ in results] == [False, True]
    assert [LINE in result.reasons for _, result in results] == [False, True]
    assert torch.equal(results[0][1].stages[0].targets.residuals, results[1][1].stages[0].targets.residuals)


def test_evaluate_says_and_records_that_the_setting_is_not_used(call, monkeypatch, tmp_path):
    """Otherwise the result file would state products in bf16 that were not computed."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    options = (
        "--methods",
        "memit",
        "--edits",
        1,
        "--no-generate",
        "--data",
        ASSETS / "world" / "dev.json",
    )
    changes = ("--set", "loss_dtype=bfloat16", "--set", "geometry=identity", "--set", "steps=1")
    code, _, errors = call("evaluate", "--model", "demo", *options, *changes, "--out", tmp_path / "o")
    assert code == 0
    assert errors.count(f"metake: note: {LINE}") == 1
    (reasons,) = json.loads((tmp_path / "o" / "results.json").read_text())["reasons"].values()
    assert LINE in reasons


def test_losses_on_gated_patches_are_named_as_the_obstacle(demo, statistics_of, able):
    """REP plans on the model with its adapters, which the unedited model does not have."""
    method = settings_for(demo, "rep", layers=(2,), steps=1, loss_dtype="bfloat16")
    assert method.reasons(demo) == (
        "loss_dtype bfloat16: not used, the method plans on a model with gated patches",
    )
    assert method.updated(loss_dtype=None).reasons(demo) == ()


def test_every_family_has_a_copy_near_it_or_an_obstacle(demo, able):
    """A copy that leaves a family's own linear layers in fp32 would save nothing."""
    ids = torch.arange(5, 25).reshape(2, 10)
    for family in (*CONFIGS, *DESCRIBED):
        model = EditableModel(tiny(family), modules=DESCRIBED.get(family, (None, None))[1])
        if family == "falcon":
            assert (
                obstacle(model) == "the model's linear layers are FalconLinear, neither nn.Linear nor Conv1D"
            )
            continue
        assert obstacle(model) == "", family
        twin = with_bf16_products(model)
        assert {twin.weight(layer).dtype for layer in range(len(twin))} == {torch.bfloat16}, family
        with torch.no_grad():
            exact, rounded = (one.model(input_ids=ids).logits for one in (model, twin))
        assert 0.1 * HALF < float((rounded - exact).norm() / exact.norm()) < 8 * HALF, family


def test_what_a_copy_cannot_share_is_an_obstacle(demo, able, monkeypatch):
    """Experts, gated patches and divided weights; a map of one device divides nothing."""
    for name, value, words in (
        ("experts", {99: None}, "mixture of experts"),
        ("model.hf_device_map", {"transformer": 0, "lm_head": 1}, "divided over devices"),
        ("model.hf_device_map", {"": 0}, ""),
    ):
        with monkeypatch.context() as patch:
            owner, _, field = name.rpartition(".")
            patch.setattr(demo.model if owner else demo, field, value, raising=False)
            assert (words in obstacle(demo)) if words else obstacle(demo) == ""
    with monkeypatch.context() as patch:
        patch.setattr(low_precision, "patches_on", lambda down: ["a patch"] * (down is demo.down(3)))
        assert obstacle(demo) == "the model has gated patches"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_weights_are_an_obstacle(demo, able, dtype):
    """A model in another precision keeps it."""
    other = EditableModel(copy.deepcopy(demo.model).to(dtype), demo.tokenizer)
    assert obstacle(demo) == ""
    assert "weights are" in obstacle(other)
