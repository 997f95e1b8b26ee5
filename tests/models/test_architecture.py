"""Models are recognised, described, or refused with a line that helps."""

import json

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma3TextConfig, OPTConfig

from metake.errors import MetakeError
from metake.models.architecture import Architecture, ModuleMap
from metake.models.trace import run
from tests.conftest import tiny


def test_shapes(family):
    arch = Architecture(tiny(family))
    assert len(arch) == 4
    assert arch.weight(0).shape == (arch.d_v, arch.d_k) == (32, 128 if family in ("gpt2", "gptj") else 48)


@pytest.mark.parametrize("config", [Gemma2Config, Gemma3TextConfig])
def test_a_normalised_ffn_output_is_refused(config):
    model = AutoModelForCausalLM.from_config(
        config(vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
               num_key_value_heads=1, intermediate_size=32, head_dim=8)
    )  # fmt: skip
    with pytest.raises(MetakeError, match="post_feedforward_layernorm"):
        Architecture(model)
    with pytest.raises(MetakeError, match="post_feedforward_layernorm"):  # nor when described
        Architecture(model, ModuleMap("model.layers", "mlp.down_proj"))


def opt():
    torch.manual_seed(0)
    config = OPTConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=24,
                       max_position_embeddings=32, word_embed_proj_dim=16, dropout=0.0)  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


def test_an_unknown_family_says_how_to_describe_it():
    with pytest.raises(MetakeError, match="ModuleMap"):
        Architecture(opt())


def test_a_described_model_works(write):
    path = write("map.json", json.dumps({"blocks": "model.decoder.layers", "down": "fc2"}))
    arch = Architecture(opt(), ModuleMap.read(path))
    ids = torch.tensor([[4, 5, 6]])
    with torch.no_grad():
        trace = run(arch, ids, keys=(1,), outputs=(0,))
        again = run(arch, ids, start=1, hidden=trace.outputs[0])
    assert trace.keys[1].shape[-1] == 24
    torch.testing.assert_close(trace.logits, again.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("modules", "complaint"),
    [
        (ModuleMap("transformer.nowhere", "mlp.c_proj"), "no module"),
        (ModuleMap("transformer.h", "mlp.nothing"), "no module"),
        (ModuleMap("transformer.h", "ln_1"), "must be nn.Linear or Conv1D"),
        (ModuleMap("transformer.h", "mlp.c_proj", "tail"), "no module"),
    ],
)
def test_a_wrong_description_is_named(modules, complaint):
    with pytest.raises(MetakeError, match=complaint):
        Architecture(tiny("gpt2"), modules)


def test_quantised_weights_are_refused():
    model = tiny("llama")
    model.model.layers[0].mlp.down_proj.weight = nn.Parameter(
        torch.zeros(32, 48, dtype=torch.int8), requires_grad=False
    )
    with pytest.raises(MetakeError, match="quantised"):
        Architecture(model)


@pytest.mark.parametrize("layers", [(), (3, 1), (1, 1), (0, 4), (-1,)])
def test_layers_out_of_range_or_order(layers):
    with pytest.raises(MetakeError, match="layers"):
        Architecture(tiny("gpt2")).check_layers(layers)


def test_fingerprint_sees_an_edit_and_only_below_its_depth(family):
    arch = Architecture(tiny(family))
    whole, below = arch.fingerprint(), arch.fingerprint(1)
    arch.weight(2).add_(torch.randn(arch.d_v, 1) @ torch.randn(1, arch.d_k) * 1e-3)
    assert arch.fingerprint() != whole
    assert arch.fingerprint(1) == below
