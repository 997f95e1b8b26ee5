"""A delta as a PEFT adapter: the edited model's logits, `metake apply`, and the same delta again."""

import json

import pytest
import torch
from safetensors import safe_open

from metake.adapters.adapter import described_modules
from metake.deltas import Delta
from metake.errors import MetakeError
from metake.models.editable import EditableModel
from tests.cases import tiny
from tests.models.test_experts import network_of


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("pad", [True, False])
def test_peft_model_has_the_logits_of_the_edited_model(
    tiny_model, delta, family, peft, logits, pad, tmp_path
):
    """In fp32, with and without padding, for every family; the unedited model has others."""
    done = delta.save_pretrained(tmp_path / "a", tiny_model, pad=pad)
    assert dict(done.ranks) == ({1: 8, 3: 8} if pad else {1: 2, 3: 5})
    with delta.applied(tiny_model):
        wanted = logits(tiny_model.model)
    assert not torch.allclose(logits(tiny_model.model), wanted, rtol=1e-2)
    close(logits(peft.PeftModel.from_pretrained(tiny(family), tmp_path / "a").eval()), wanted)


@torch.no_grad()
def test_merged_adapter_equals_apply(tiny_model, delta, family, peft, tmp_path):
    """All weights of `merge_and_unload` are those of the applied delta."""
    delta.save_pretrained(tmp_path / "a", tiny_model)
    merged = peft.PeftModel.from_pretrained(tiny(family), tmp_path / "a").merge_and_unload().state_dict()
    delta.apply(tiny_model)
    edited = tiny_model.model.state_dict()
    assert merged.keys() == edited.keys()
    for name, weight in edited.items():
        torch.testing.assert_close(merged[name], weight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pad", [True, False])
def test_folder_reads_back_to_the_same_delta(tiny_model, delta, pad, tmp_path):
    delta.save_pretrained(tmp_path / "a", tiny_model, pad=pad)
    for again in (
        Delta.from_pretrained(tmp_path / "a"),
        Delta.from_pretrained(str(tmp_path / "a"), tiny_model),
    ):
        assert again.digest == delta.digest
        assert again.note["edits"] == delta.note["edits"]
    again.save_pretrained(tmp_path / "b", pad=pad)  # says where its modules are
    assert Delta.from_pretrained(tmp_path / "b").digest == delta.digest
    again.save_pretrained(tmp_path / "c", pad=pad)
    b, c = (tmp_path / name / "adapter_model.safetensors" for name in "bc")
    assert b.read_bytes() == c.read_bytes()


def test_config_names_every_module_by_its_full_path(tiny_model, delta, family, tmp_path):
    delta.save_pretrained(tmp_path / "a", tiny_model, base="owner/name", pad=False)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    modules = dict(tiny_model.model.named_modules())
    assert [modules[path] for path in config["target_modules"]] == [tiny_model.down(1), tiny_model.down(3)]
    first, second = config["target_modules"]
    assert (config["r"], config["lora_alpha"], config["rank_pattern"]) == (2, 2, {second: 5})
    assert config["alpha_pattern"] == config["rank_pattern"]
    assert config["fan_in_fan_out"] is (family == "gpt2")
    assert config["base_model_name_or_path"] == "owner/name"
    with safe_open(tmp_path / "a" / "adapter_model.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"
        assert json.loads(file.metadata()["metake"])["model"] == tiny_model.fingerprint()
        assert file.get_slice(f"base_model.model.{first}.lora_A.weight").get_shape() == [2, tiny_model.d_k]
        assert file.get_slice(f"base_model.model.{first}.lora_B.weight").get_shape() == [tiny_model.d_v, 2]


@torch.no_grad()
def test_recompressed_and_dense_changes_lose_what_is_reported(tiny_model, delta, tmp_path):
    """Layer 1: two factors and a dense matrix; layer 3: five factors at rank 4."""
    whole = torch.randn(tiny_model.d_v, tiny_model.d_k)
    delta = delta.then(Delta({}, dense_updates={1: whole}))
    done = delta.save_pretrained(tmp_path / "a", tiny_model, max_rank=4, pad=False)
    again = Delta.from_pretrained(tmp_path / "a", tiny_model)
    for n in (1, 3):
        change = delta.to_dense(n)
        measured = float((again.to_dense(n) - change).norm() / change.norm())
        assert done.errors[n] == pytest.approx(measured, rel=1e-4)
        assert measured > 0.01
        assert again.factors[n][0].shape[1] == 4
        assert (
            f"layer {n}: {'dense change' if n == 1 else 'recompressed'}: {measured:.2%} of its norm"
            in str(done)
        )
    assert done.dense == (1,)
    complete = delta.save_pretrained(tmp_path / "b", tiny_model)
    again = Delta.from_pretrained(tmp_path / "b", tiny_model)
    assert max(complete.errors.values()) < 1e-5
    torch.testing.assert_close(again.to_dense(1), delta.to_dense(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"max_rank": 0}, "max_rank: must be a whole number above 0, got 0"),
        ({"max_rank": 2.5}, "max_rank: must be a whole number above 0, got 2.5"),
    ],
)
def test_save_refuses_bad_options(tiny_model, delta, change, complaint, tmp_path):
    with pytest.raises(MetakeError) as raised:
        delta.save_pretrained(tmp_path / "a", tiny_model, **change)
    assert str(raised.value) == complaint
    assert not (tmp_path / "a").exists()


def test_save_refuses_what_is_no_adapter(tiny_model, delta, tmp_path):
    other = EditableModel(tiny("gpt2" if tiny_model.family != "gpt2" else "llama"))
    broken = Delta({1: (torch.full((tiny_model.d_v, 1), float("nan")), torch.zeros(tiny_model.d_k, 1))})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    for use, complaint in (
        (lambda: delta.save_pretrained(tmp_path / "a"), "does not say which modules it changes.*give model="),
        (lambda: delta.save_pretrained(tmp_path / "a", other), "made for another model"),
        (lambda: broken.save_pretrained(tmp_path / "a", tiny_model), "layer 1 is not finite"),
        (lambda: Delta({}).save_pretrained(tmp_path / "a", tiny_model), "the delta changes no layer"),
        (lambda: delta.save_pretrained(tmp_path / "full", tiny_model), "holds other files"),
        (lambda: delta.save_pretrained(3, tiny_model), "Delta.save_pretrained: folder: must be a path"),
    ):
        with pytest.raises(MetakeError, match=complaint):
            use()
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_layer_without_columns_is_left_out_by_name(tiny_model, delta, family, peft, pad, logits, tmp_path):
    """peft loads no rank of 0. Without any other layer the export is refused."""
    empty = {2: (torch.zeros(tiny_model.d_v, 0), torch.zeros(tiny_model.d_k, 0))}
    with pytest.warns(UserWarning, match=r"layers \[2\] are left out: their factors have no columns"):
        done = Delta({**delta.factors, **empty}).save_pretrained(tmp_path / "a", tiny_model, pad=pad)
    assert set(done.ranks) == {1, 3}
    with delta.applied(tiny_model):
        wanted = logits(tiny_model.model)
    close(logits(peft.PeftModel.from_pretrained(tiny(family), tmp_path / "a").eval()), wanted)
    with pytest.raises(
        MetakeError, match=r"the factors of layers \[2\] have no columns; nothing was written"
    ):
        Delta(empty).save_pretrained(tmp_path / "b", tiny_model, pad=pad)
    assert not (tmp_path / "b").exists()


def test_save_refuses_modules_of_another_path(tiny_model, delta, monkeypatch, tmp_path):
    monkeypatch.setattr(tiny_model, "blocks", tiny_model.blocks[::-1])
    with pytest.raises(MetakeError, match=r"no nn.Linear or Conv1D of this path, which LoRA needs"):
        Delta(delta.factors).save_pretrained(tmp_path / "a", tiny_model)


def test_save_refuses_fused_experts(tmp_path):
    """With the model, and by the note alone."""
    model = EditableModel(network_of("qwen3_moe"))
    factors = {1: (torch.ones(model.d_v, 1), torch.ones(model.d_k, 1))}
    noted = Delta(factors, model.fingerprint(), {"modules": described_modules(model)})
    with pytest.raises(MetakeError, match=r"mlp\.experts\.down_proj: no nn.Linear or Conv1D of this path"):
        Delta(factors).save_pretrained(tmp_path / "a", model)
    with pytest.raises(MetakeError, match=r"mlp\.experts\.down_proj: fused experts.*give --format merged"):
        noted.save_pretrained(tmp_path / "a")
    assert not (tmp_path / "a").exists()
