"""PEFT adapters that peft wrote, read as deltas; folders that are refused."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from metake.deltas import Delta
from metake.errors import MetakeError
from metake.models.editable import EditableModel
from tests.cases import tiny

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
def base(family):
    model = EditableModel(tiny(family))
    model.name = "base"
    return model


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"lora_alpha": 3},
        {"use_rslora": True},
        {"rank_pattern": {"1.mlp.*": 2}, "alpha_pattern": {r".*\.3\..*": 5}},
    ],
    ids=["alpha 2r", "alpha 3", "rslora", "patterns"],
)
def test_folder_of_peft_becomes_a_delta(by_peft, base, logits, config):
    """The model with the delta has the logits of peft's model."""
    folder, wanted = by_peft(**config)
    delta = Delta.from_pretrained(folder, base)
    assert delta.layers == (1, 3)
    assert delta.model == base.fingerprint()
    if config.get("rank_pattern"):
        assert [delta.factors[n][0].shape[1] for n in (1, 3)] == [2, 4]
    with delta.applied(base):
        found = logits(base.model)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def change_config(**fields):
    def change(folder):
        path = folder / CONFIG
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return change


def change_tensors(edit):
    def change(folder):
        tensors = load_file(folder / WEIGHTS)
        save_file(edit(dict(sorted(tensors.items()))), folder / WEIGHTS, {"format": "pt"})

    return change


def first(of):
    def edit(tensors):
        name = next(iter(tensors))
        return {**tensors, name: of(tensors[name])}

    return edit


def to_pickle(folder):
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


REFUSED = {
    "no config": (lambda f: (f / CONFIG).unlink(), "has no adapter_config.json"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "has no adapter_model.safetensors; give a PEFT adapter"),
    "pickle": (to_pickle, "save it as safetensors"),
    "no json": (lambda f: (f / CONFIG).write_text("{"), "not JSON"),
    "list": (lambda f: (f / CONFIG).write_text("[]"), "must be a JSON object"),
    "cut": (lambda f: (f / WEIGHTS).write_bytes(b"0" * 40), "damaged or not safetensors"),
    "kind": (change_config(peft_type="LOHA"), "peft_type: is 'LOHA'"),
    "dora": (change_config(use_dora=True), "use_dora: not supported; merge the adapter"),
    "bias": (change_config(bias="all"), "bias: is 'all'"),
    "heads": (change_config(modules_to_save=["lm_head"]), "modules_to_save: not supported"),
    "pissa": (change_config(init_lora_weights="pissa_niter_4"), "init_lora_weights: 'pissa_niter_4' changes"),
    "rank": (change_config(r=0), "r: must be a number above 0, got 0"),
    "alpha": (change_config(lora_alpha="x"), "lora_alpha: must be a number above 0, got 'x'"),
    "infinite": (change_config(lora_alpha=math.inf), "lora_alpha: must be a number above 0"),
    "huge": (change_config(lora_alpha=10**400), "lora_alpha: must be a number above 0"),
    "pattern's text": (
        change_config(alpha_pattern={"c_proj": "x"}),
        "alpha_pattern: c_proj: must be a number",
    ),
    "pattern's null": (
        change_config(alpha_pattern={"c_proj": None}),
        "alpha_pattern: c_proj: must be a number",
    ),
    "pattern's sign": (
        change_config(alpha_pattern={"c_proj": -3}),
        "alpha_pattern: c_proj: must be a number",
    ),
    "pattern's form": (change_config(alpha_pattern={"(": 2}), "is no regular expression"),
    "pattern": (change_config(rank_pattern=[1]), "rank_pattern: must be an object"),
    "other rank": (change_config(r=3), r"lora_A is \(4, \d+\) and lora_B \(\d+, 4\), not .* for r = 3"),
    "other base": (change_config(base_model_name_or_path="owner/other"), "the model is 'base'.*--force"),
    "half": (change_tensors(lambda t: dict(list(t.items())[1:])), "has only one of lora_A and lora_B"),
    "empty": (change_tensors(lambda _: {}), "holds no lora_A"),
    "name": (change_tensors(lambda t: {**t, "x": torch.ones(1)}), "x: no lora_A or lora_B"),
    "nan": (change_tensors(first(lambda a: a * math.nan)), "is not finite"),
    "shape": (change_tensors(first(lambda a: a[:, :5].contiguous())), r"changes a weight of \d+ x 5"),
    "vector": (change_tensors(first(lambda a: a[0])), r"lora_A is \(\d+,\)"),
    "layer": (
        change_tensors(lambda t: {name.replace(".3.", ".9."): one for name, one in t.items()}),
        "the model has layers 0 to 3",
    ),
}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("case", REFUSED)
def test_bad_folder_is_refused_in_one_line(case, by_peft, base):
    """The line names the folder or its file; the model is unchanged."""
    folder, _ = by_peft()
    damage, complaint = REFUSED[case]
    damage(folder)
    before = base.fingerprint()
    with pytest.raises(MetakeError, match=complaint) as raised:
        Delta.from_pretrained(folder, base)
    assert "\n" not in str(raised.value)
    assert str(folder) in str(raised.value)
    assert base.fingerprint() == before


@pytest.mark.parametrize("family", ["llama"])
def test_base_of_another_name_is_taken_without_the_check(by_peft, base):
    folder, _ = by_peft()
    change_config(base_model_name_or_path="owner/other")(folder)
    assert Delta.from_pretrained(folder, base, check=False).layers == (1, 3)
    change_config(base_model_name_or_path="owner/Base/")(folder)
    assert Delta.from_pretrained(folder, base).layers == (1, 3)


@pytest.mark.parametrize("family", ["llama"])
def test_other_modules_than_down_projections_are_refused(by_peft, base):
    folder, _ = by_peft(targets=["q_proj"])
    with pytest.raises(
        MetakeError, match=r"self_attn.q_proj: not a module that metake edits \(model.layers.N.mlp"
    ):
        Delta.from_pretrained(folder, base)


@pytest.mark.parametrize("family", ["llama"])
def test_folder_of_peft_needs_the_model(by_peft, tmp_path):
    folder, _ = by_peft()
    with pytest.raises(MetakeError, match="does not say which layers its modules are; give model="):
        Delta.from_pretrained(folder)
    with pytest.raises(MetakeError, match="nowhere: no such folder"):
        Delta.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("family", ["qwen2"])
def test_own_folder_belongs_to_its_model(tiny_model, delta, tmp_path):
    """A folder of another model, or with changed weights, is refused; a changed alpha counts."""
    delta.save_pretrained(tmp_path / "a", tiny_model)
    other = EditableModel(tiny("llama"))
    with pytest.raises(MetakeError, match="made for another model"):
        Delta.from_pretrained(tmp_path / "a", other)
    change_config(lora_alpha=16)(tmp_path / "a")
    doubled = Delta.from_pretrained(tmp_path / "a", tiny_model)
    torch.testing.assert_close(doubled.to_dense(3), 2 * delta.to_dense(3))
    path = tmp_path / "a" / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(MetakeError, match="its digest does not match"):
        Delta.from_pretrained(tmp_path / "a", tiny_model)
