"""Models are recognised, described, or refused with a line that helps."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma3TextConfig, GraniteConfig, OPTConfig

from metake.errors import MetakeError
from metake.models.architecture import Architecture, ModuleMap
from tests.conftest import DESCRIBED, tiny


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


def test_an_unknown_family_says_how_to_describe_it():
    with pytest.raises(MetakeError, match="ModuleMap"):
        Architecture(tiny("opt"))


SMALL = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
ALTERED = {
    "normalised after it was added": (
        OPTConfig(**SMALL, ffn_dim=24, word_embed_proj_dim=16, do_layer_norm_before=False),
        ModuleMap("model.decoder.layers", "fc2"),
    ),
    "scaled": (
        GraniteConfig(**SMALL, intermediate_size=24, residual_multiplier=0.2),
        ModuleMap("model.layers", "mlp.down_proj"),
    ),
    "not the down-projection": (
        GraniteConfig(**SMALL, intermediate_size=16),
        ModuleMap("model.layers", "mlp.up_proj"),
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("why", sorted(ALTERED))
def test_a_described_value_that_the_stream_does_not_receive_is_refused(why, dtype):
    config, modules = ALTERED[why]
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    with pytest.raises(MetakeError, match="not what the stream receives"):
        Architecture(model, modules)


def test_looking_at_a_described_model_leaves_it_as_it_was():
    config, modules = DESCRIBED["opt"]
    model = AutoModelForCausalLM.from_config(config)
    model.train()
    arch = Architecture(model, modules)
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())
    assert arch.modules == modules


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
