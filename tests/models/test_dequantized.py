"""Quantized modules as dense ones: the same outputs, weights that an edit changes, and one line where it cannot be had."""

import json

import pytest
import torch
from torch import nn

from metake.deltas import Delta
from metake.errors import MetakeError
from metake.models import dequantized
from metake.models.dequantized import dense_linear, dequantize, is_quantized
from metake.models.editable import EditableModel
from metake.models.load import load
from tests.cases import tiny

IDS = torch.tensor([[3, 5, 8, 13]])


class Int8Linear(nn.Module):
    """A linear module with an int8 weight and a scale per output."""

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        scale = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        self.weight = nn.Parameter((linear.weight / scale).round().to(torch.int8), requires_grad=False)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x):
        out = x @ (self.weight.float() * self.scale).T
        return out if self.bias is None else out + self.bias


def quantized(family="qwen2", kind=Int8Linear):
    model = tiny(family)
    for block in model.model.layers:
        for name, linear in list(block.named_modules()):
            if type(linear) is nn.Linear:
                parent, _, leaf = name.rpartition(".")
                setattr(block.get_submodule(parent), leaf, kind(linear))
    return model


@torch.no_grad()
def test_dense_model_has_the_outputs_of_the_quantized_one():
    """Attention's modules have biases in Qwen 2."""
    model = quantized()
    wanted, modules = model(input_ids=IDS).logits, 7 * len(model.model.layers)
    weight = model.model.layers[1].mlp.down_proj
    assert dequantize(model, "name", torch.float32) == modules
    assert not any(is_quantized(module) for module in model.modules())
    torch.testing.assert_close(model(input_ids=IDS).logits, wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(model.model.layers[1].mlp.down_proj.weight, weight.weight.float() * weight.scale)
    editable = EditableModel(model)
    with Delta({}, dense_updates={1: torch.ones(32, 48)}).applied(editable):
        assert not torch.allclose(model(input_ids=IDS).logits, wanted, rtol=1e-2)


@pytest.mark.parametrize("rows", [1, 5, 48, 100])
@torch.no_grad()
def test_dense_weight_is_read_in_any_number_of_passes(rows, monkeypatch):
    monkeypatch.setattr(dequantized, "ROWS", rows)
    packed = Int8Linear(nn.Linear(48, 7))
    dense = dense_linear(packed, torch.float64)
    assert torch.equal(dense.weight, (packed.weight.float() * packed.scale).double())
    assert torch.equal(dense.bias, packed.bias.double())
    assert packed.bias is not None


def test_module_that_does_not_run_here_is_one_line():
    class Broken(Int8Linear):
        def forward(self, x):
            raise RuntimeError("needs\na GPU")

    model = quantized(kind=Broken)
    with pytest.raises(MetakeError) as raised:
        dequantize(model, "big", torch.float32)
    assert str(raised.value) == (
        "big: model.layers.0.self_attn.q_proj (Broken) cannot be dequantized here (RuntimeError); edit the unquantized model, and "
        "serve the edit as an adapter over the quantized one (metake export)"
    )


@pytest.mark.filterwarnings("ignore")
def test_dynamic_quantization_of_torch_is_recognized():
    model = torch.ao.quantization.quantize_dynamic(tiny("llama"), {nn.Linear}, dtype=torch.qint8)
    assert is_quantized(model.model.layers[0].mlp.down_proj)
    assert not any(is_quantized(module) for module in tiny("gpt2").modules())


@pytest.mark.parametrize("bits", [4, 8])
@torch.no_grad()
def test_checkpoint_of_bitsandbytes_is_loaded_dense(bits, tmp_path):
    """With a note; the model can be edited and saved."""
    pytest.importorskip(
        "bitsandbytes", reason="bitsandbytes is not installed (pip install 'metake[quantized]')"
    )
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    from metake.models.save import save_model
    from metake.shipped import ASSETS

    config = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    folder = ASSETS / "demo-llama"
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, dtype=torch.float32)
    model.save_pretrained(tmp_path / "q")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "q")
    wanted = model(input_ids=IDS).logits
    with pytest.warns(
        UserWarning, match=r"q: 42 quantized modules are dequantized; deliver an edit as an adapter"
    ):
        loaded = load(tmp_path / "q", device="cpu")
    found = loaded.model(input_ids=IDS).logits
    assert float((found - wanted).norm() / wanted.norm()) < 0.03  # the library rounds activations, too
    save_model(loaded, tmp_path / "dense")
    assert "quantization_config" not in json.loads((tmp_path / "dense" / "config.json").read_text())
    assert load(tmp_path / "dense", device="cpu").fingerprint() == loaded.fingerprint()
