"""Models are recognized, described, or refused with a line that helps."""

import copy
import hashlib
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GraniteConfig, OPTConfig

from metake.errors import MetakeError
from metake.models.editable import EditableModel
from metake.models.modules import ModuleMap
from tests.cases import DESCRIBED, tiny


def test_editable_model_has_its_shapes(family):
    model = EditableModel(tiny(family))
    assert len(model) == 4
    assert model.weight(0).shape == (model.d_v, model.d_k) == (32, 128 if family in ("gpt2", "gptj") else 48)


def test_editable_model_refuses_another_norm_of_the_ffn_output():
    """A norm that subtracts the mean is no RMS norm."""
    network = tiny("olmo2")
    norm = torch.nn.LayerNorm(32)
    torch.nn.init.normal_(norm.bias)
    network.model.layers[1].post_feedforward_layernorm = norm
    with pytest.raises(
        MetakeError, match="LayerNorm of block 1: is applied to the FFN's output and is no RMS norm"
    ):
        EditableModel(network)


def test_editable_model_names_the_remedy_for_unknown_families():
    """An unknown family says how to describe it."""
    with pytest.raises(MetakeError, match="ModuleMap"):
        EditableModel(tiny("opt"))


SMALL = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
ALTERED = {
    "normalized after it was added": (
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
def test_editable_model_refuses_a_described_value_outside_the_stream(why, dtype):
    """A described value that the stream does not receive is refused."""
    config, modules = ALTERED[why]
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    with pytest.raises(MetakeError) as refused:
        EditableModel(model, modules=modules)
    assert str(refused.value) == (
        f"{model.config.model_type}: the output of {modules.down} of block 0 is normalized, scaled, mixed or dropped "
        "before it is added to the residual stream, so the stream would not receive the edit; not supported"
    )


def test_editable_model_leaves_a_described_model_unchanged():
    config, modules = DESCRIBED["opt"]
    network = AutoModelForCausalLM.from_config(config)
    network.train()
    model = EditableModel(network, modules=modules)
    assert network.training
    assert not any(m._forward_hooks for m in network.modules())
    assert model.modules == modules


@pytest.mark.parametrize(
    ("modules", "complaint"),
    [
        (ModuleMap("transformer.nowhere", "mlp.c_proj"), "no module"),
        (ModuleMap("transformer.h", "mlp.nothing"), "no module"),
        (ModuleMap("transformer.h", "ln_1"), "must be nn.Linear or Conv1D"),
        (ModuleMap("transformer.h", "mlp.c_proj", "tail"), "no module"),
    ],
)
def test_editable_model_names_a_wrong_description(modules, complaint):
    with pytest.raises(MetakeError, match=complaint):
        EditableModel(tiny("gpt2"), modules=modules)


def test_editable_model_refuses_quantized_weights():
    model = tiny("llama")
    model.model.layers[0].mlp.down_proj.weight = nn.Parameter(
        torch.zeros(32, 48, dtype=torch.int8), requires_grad=False
    )
    with pytest.raises(MetakeError, match="quantized"):
        EditableModel(model)


@pytest.mark.parametrize("layers", [(), (3, 1), (1, 1), (0, 4), (-1,)])
def test_check_layers_refuses_range_and_order(layers):
    with pytest.raises(MetakeError, match="layers"):
        EditableModel(tiny("gpt2")).check_layers(layers)


@pytest.mark.parametrize("layers", [3, None, {1}, (1.0,), ("1",), (True,), "12"])
def test_check_layers_refuses_other_types(layers):
    """Layers that are no list of whole numbers."""
    with pytest.raises(MetakeError) as refused:
        EditableModel(tiny("gpt2")).check_layers(layers)
    assert str(refused.value) == f"layers: must be a list of whole numbers, got {layers!r}"


def test_fingerprint_depends_on_weights_up_to_its_depth(family):
    """Fingerprint sees an edit and only below its depth."""
    model = EditableModel(tiny(family))
    whole, below = model.fingerprint(), model.fingerprint(1)
    model.weight(2).add_(torch.randn(model.d_v, 1) @ torch.randn(1, model.d_k) * 1e-3)
    assert model.fingerprint() != whole
    assert model.fingerprint(1) == below


def fingerprint_by_hand(model, parts, modules):
    """sha256 of the module map, then name, shape and 512 fp32 numbers, evenly spaced, of every weight; 16 digits."""
    text = json.dumps({"blocks": modules.blocks, "down": modules.down, "head": modules.head})
    digest = hashlib.sha256(text.encode())
    for part in parts:
        for name, weight in part.state_dict().items():
            flat = weight.flatten().float()
            step = len(flat) // 512 or 1
            digest.update(f"{name}{tuple(weight.shape)}".encode())
            digest.update(flat[::step][:512].numpy().tobytes())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fingerprint_is_that_of_earlier_files(dtype):
    """Fingerprint is what earlier deltas and statistics were saved with.

    Another value would make every saved delta one of another model.
    """
    network = copy.deepcopy(tiny("llama")).to(dtype)  # with a configuration of its own
    network.resize_token_embeddings(30)  # 960 numbers, of which the first 512 count
    model, inner = EditableModel(network), network.model
    assert model.fingerprint() == fingerprint_by_hand(
        network, [inner.embed_tokens, *inner.layers], model.modules
    )
    below = fingerprint_by_hand(network, [inner.embed_tokens, *inner.layers[:2]], model.modules)
    assert model.fingerprint(2) == below
    assert model.fingerprint(0) == fingerprint_by_hand(network, [inner.embed_tokens], model.modules)


def test_fingerprint_in_another_precision_is_of_rounded_weights(family):
    model = EditableModel(tiny(family))
    rounded = EditableModel(tiny(family).bfloat16())
    assert model.fingerprint(dtype=torch.bfloat16) == rounded.fingerprint() != model.fingerprint()
    assert model.fingerprint(2, torch.bfloat16) == rounded.fingerprint(2)


def test_max_positions_is_that_of_the_configuration():
    """Longest input is the one that the configuration states.

    `max_position_embeddings` goes before GPT-2's older name; without either, or without a number, no limit.
    """
    model = EditableModel(tiny("gpt2"))
    for stated, limit in (
        ({"max_position_embeddings": 70, "n_positions": 90}, 70),
        ({"n_positions": 90}, 90),
        ({"max_position_embeddings": None, "n_positions": 90}, 90),
        ({"max_position_embeddings": None}, None),
        ({}, None),
    ):
        model.model = SimpleNamespace(config=SimpleNamespace(**stated))
        assert model.max_positions == limit
    model.model = SimpleNamespace()
    assert model.max_positions is None


@pytest.mark.parametrize(("device", "tokens"), [("cpu", 1024), ("cuda", 8192), ("meta", 8192)])
def test_pass_tokens_suit_the_device(monkeypatch, device, tokens):
    """A pass holds as many tokens as suit the device."""
    model = EditableModel(tiny("gpt2"))
    monkeypatch.setattr(EditableModel, "device", torch.device(device))
    assert model.pass_tokens == tokens


def test_ids_are_moved_to_the_input_embeddings_device():
    model = EditableModel(tiny("gpt2"))
    model.model.transformer.wte.to("meta")
    assert model.device == torch.device("meta")


def test_weight_is_a_view_in_the_papers_orientation(family):
    """Writing to it writes to the model; GPT-2's Conv1D keeps it transposed."""
    model = EditableModel(tiny(family))
    model.weight(1)[3, 5] = 7.0
    parameter = model.down(1).weight
    assert parameter[(5, 3) if family == "gpt2" else (3, 5)] == 7.0
    assert not model.weight(1).requires_grad


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"blocks": "a"}', "holds the keys blocks, down and optionally head"),
        ('["blocks", "down"]', "holds the keys blocks, down and optionally head"),
        ('{"blocks": "a", "down": "b", "hed": "c"}', "unknown 'hed'; did you mean 'head'?"),
        ('{"blocks": "a", "down": ""}', "down: must be a dotted module name in quotes, got ''"),
        ('{"blocks": 3, "down": "b"}', "blocks: must be a dotted module name in quotes, got 3"),
    ],
)
def test_module_map_read_names_the_bad_field(write, content, complaint):
    """A module map that cannot be read is refused by its field."""
    path = write("map.json", content)
    with pytest.raises(MetakeError) as refused:
        ModuleMap.read(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert complaint in str(refused.value)


def test_module_map_refuses_another_type():
    with pytest.raises(MetakeError) as refused:
        ModuleMap.of({"blocks": "a", "down": "b"})
    assert str(refused.value) == (
        "modules: must be a ModuleMap or a JSON file with one, not dict; "
        "write ModuleMap(blocks=..., down=..., head=...)"
    )


def test_module_map_has_the_usual_head_by_default(write):
    path = write("map.json", '{"blocks": "a", "down": "b.c"}')
    assert ModuleMap.read(str(path)) == ModuleMap("a", "b.c", "lm_head")


def test_check_layers_states_the_range():
    """Layers out of range are given with the range."""
    with pytest.raises(MetakeError, match=r"^layers: 4 is out of range; gpt2 has layers 0 to 3$"):
        EditableModel(tiny("gpt2")).check_layers((0, 4))
    with pytest.raises(
        MetakeError, match=r"^layers: \[1, 1\] must be in ascending order without repetition$"
    ):
        EditableModel(tiny("gpt2")).check_layers((1, 1))
    with pytest.raises(MetakeError, match=r"^layers: none given"):
        EditableModel(tiny("gpt2")).check_layers(())
    EditableModel(tiny("gpt2")).check_layers((0, 3))


def test_editable_model_needs_a_down_projection_in_every_block():
    model = tiny("llama")
    model.model.layers[3].mlp.down_proj = nn.Identity()
    with pytest.raises(MetakeError, match=r"^llama: mlp\.down_proj of block 3 is a .*Identity; "):
        EditableModel(model)


def test_editable_model_passes_attention_memory_by_its_name():
    """Attention's memory is given by the name that the model takes it by."""
    model = EditableModel(tiny("gpt2"))
    for forward, name in (
        (lambda input_ids, past_key_values=None: None, "past_key_values"),
        (lambda input_ids, cache=None: None, "cache"),
        (lambda input_ids, **options: None, "past_key_values"),
    ):
        model.model = SimpleNamespace(forward=forward)
        assert model.cache_argument == name


def test_editable_model_probes_without_dropout():
    """Dropout is off while a described model is measured.

    A model in training mode is measured as it will be edited, and its random state is not used.
    """
    config = OPTConfig(**SMALL, ffn_dim=24, word_embed_proj_dim=16, dropout=0.5, layerdrop=0.5)
    model = AutoModelForCausalLM.from_config(config).train()
    state = torch.random.get_rng_state()
    assert len(EditableModel(model, modules=ModuleMap("model.decoder.layers", "fc2"))) == 2
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training


@pytest.mark.parametrize("name", ["", None, 3])
def test_module_map_names_field_and_value(name):
    with pytest.raises(MetakeError) as caught:
        ModuleMap("model.layers", name)
    assert str(caught.value) == f"modules: down: must be a dotted module name, got {name!r}"
