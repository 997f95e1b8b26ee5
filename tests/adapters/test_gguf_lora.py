"""A GGUF adapter: its fields, and tensors whose scaled product is the change."""

import pytest
import torch

from metake.adapters.export import save_gguf
from metake.deltas import Delta
from metake.errors import MetakeError
from metake.models.editable import EditableModel
from tests.cases import tiny

gguf = pytest.importorskip("gguf", reason="gguf is not installed (pip install 'metake[adapters]')")
NAMES = {
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
    "gpt_neox": "gptneox",
    "llama": "llama",
    "mistral": "llama",
    "olmo2": "olmo2",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}


@pytest.mark.parametrize("family", sorted(NAMES))
def test_gguf_holds_the_change_with_a_scaling_of_one(tiny_model, delta, family, tmp_path):
    """llama.cpp adds `alpha / rank * lora_b @ lora_a`, where the rank is that of the tensor."""
    done = save_gguf(delta.as_adapter(tiny_model), tmp_path / "a", {})
    assert done.serve == f"llama-server --model BASE.gguf --lora {tmp_path / 'a' / 'adapter.gguf'}"
    reader = gguf.GGUFReader(tmp_path / "a" / "adapter.gguf")
    fields = {
        name: reader.get_field(name).contents() for name in reader.fields if not name.startswith("GGUF.")
    }
    assert fields["general.type"] == "adapter"
    assert fields["adapter.type"] == "lora"
    assert fields["general.architecture"] == NAMES[family]
    tensors = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
    assert sorted(tensors) == [f"blk.{n}.ffn_down.weight.lora_{ab}" for n in (1, 3) for ab in "ab"]
    for n in (1, 3):
        a, b = (tensors[f"blk.{n}.ffn_down.weight.lora_{ab}"] for ab in "ab")
        scale = fields["adapter.lora.alpha"] / b.shape[1]
        torch.testing.assert_close((scale * b @ a).double(), delta.to_dense(n), rtol=1e-5, atol=1e-5)
    card = (tmp_path / "a" / "README.md").read_text()
    assert "llama-server" in card
    assert "library_name: gguf" in card
    assert "PeftModel" not in card


@pytest.mark.parametrize("family", ["gptj"])
def test_gguf_refuses_a_family_without_architecture(tiny_model, delta, tmp_path):
    with pytest.raises(MetakeError, match=r"gguf-lora: gptj: no architecture of llama\.cpp"):
        save_gguf(delta.as_adapter(tiny_model), tmp_path / "a", {})
    assert not (tmp_path / "a").exists()


def test_gguf_refuses_modules_that_llama_cpp_does_not_name(tmp_path):
    model = EditableModel(tiny("llama"))
    delta = Delta({1: (torch.zeros(32, 1), torch.zeros(48, 1))}).as_adapter(model)
    delta.modules["down"] = "mlp.other"
    with pytest.raises(MetakeError, match=r"model.layers.1.mlp.other: no module of llama"):
        save_gguf(delta, tmp_path / "a", {})
