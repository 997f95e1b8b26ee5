"""Families of `transformers`, each as a tiny random model: an edit shifts the stream as solved and is taken back bit
for bit, or the model is refused in one line before anything is edited."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from metake.editor import Editor
from metake.errors import MetakeError
from metake.geometry.covariance import collect
from metake.models.editable import EditableModel
from metake.models.modules import FAMILIES, ModuleMap
from metake.models.trace import run
from metake.requests import EditRequest
from metake.texts import default_text
from tests.cases import method_of

OLD = {"vocab_size": 1024, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 128}
BASE = {
    "vocab_size": 1024,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
GROUPED = {**BASE, "num_key_value_heads": 2}
NARROW = {**GROUPED, "head_dim": 8}
SHORT = {"vocab_size": 1024, "hidden_size": 32, "num_hidden_layers": 4}
LLAMA = ModuleMap("model.layers", "mlp.down_proj")

EDITED: dict[str, tuple[dict, ModuleMap]] = {
    "gpt2": (OLD, FAMILIES["gpt2"]),
    "gptj": ({**OLD, "rotary_dim": 4}, FAMILIES["gptj"]),
    "gpt_neox": (BASE, FAMILIES["gpt_neox"]),
    "llama": (GROUPED, LLAMA),
    "mistral": (GROUPED, LLAMA),
    "qwen2": (GROUPED, LLAMA),
    "qwen3": (NARROW, LLAMA),
    "gpt_neo": (
        {
            "vocab_size": 1024,
            "hidden_size": 32,
            "num_layers": 4,
            "num_heads": 4,
            "window_size": 4,
            "attention_types": [[["global", "local"], 2]],
        },
        ModuleMap("transformer.h", "mlp.c_proj"),
    ),
    "gpt_bigcode": (OLD, ModuleMap("transformer.h", "mlp.c_proj")),
    "bloom": (
        {"vocab_size": 1024, "hidden_size": 32, "n_layer": 4, "n_head": 4},
        ModuleMap("transformer.h", "mlp.dense_4h_to_h"),
    ),
    "falcon": ({**SHORT, "num_attention_heads": 4}, ModuleMap("transformer.h", "mlp.dense_4h_to_h")),
    "opt": (
        {
            **SHORT,
            "num_attention_heads": 4,
            "ffn_dim": 48,
            "word_embed_proj_dim": 32,
            "max_position_embeddings": 128,
        },
        ModuleMap("model.decoder.layers", "fc2"),
    ),
    "phi": (BASE, ModuleMap("model.layers", "mlp.fc2")),
    "phi3": (GROUPED, LLAMA),
    "gemma": (NARROW, LLAMA),
    "olmo": (GROUPED, LLAMA),
    "stablelm": (GROUPED, LLAMA),
    "starcoder2": (GROUPED, ModuleMap("model.layers", "mlp.c_proj")),
    "cohere": (GROUPED, LLAMA),
    "granite": (GROUPED, LLAMA),
    "persimmon": (BASE, ModuleMap("model.layers", "mlp.dense_4h_to_h")),
    "mpt": (
        {
            "vocab_size": 1024,
            "d_model": 32,
            "n_heads": 4,
            "n_layers": 4,
            "max_seq_len": 128,
            "expansion_ratio": 2,
        },
        ModuleMap("transformer.blocks", "ffn.down_proj"),
    ),
    "codegen": ({**OLD, "rotary_dim": 4}, ModuleMap("transformer.h", "mlp.fc_out")),
    "xglm": (
        {"vocab_size": 1024, "d_model": 32, "ffn_dim": 48, "num_layers": 4, "attention_heads": 4},
        ModuleMap("model.layers", "fc2"),
    ),
    "nemotron": (GROUPED, LLAMA),
    "gemma2": (NARROW, LLAMA),
    "gemma3_text": (NARROW, LLAMA),
    "olmo2": (GROUPED, LLAMA),
    "olmo3": (GROUPED, LLAMA),
    "exaone4": (GROUPED, LLAMA),
    "glm4": (NARROW, LLAMA),
    "smollm3": (GROUPED, LLAMA),
    "helium": (NARROW, LLAMA),
    "ernie4_5": (NARROW, LLAMA),
    "arcee": (GROUPED, LLAMA),
    "diffllama": (GROUPED, LLAMA),
    "ctrl": (
        {"vocab_size": 1024, "n_embd": 32, "dff": 48, "n_layer": 4, "n_head": 4, "n_positions": 128},
        ModuleMap("transformer.h", "ffn.2"),
    ),
    "lfm2": (
        {
            **GROUPED,
            "layer_types": ["conv", "full_attention"] * 2,
            "block_ff_dim": 48,
            "block_auto_adjust_ff_dim": False,
        },
        ModuleMap("model.layers", "feed_forward.w2"),
    ),
    "mamba": ({**SHORT, "state_size": 8}, ModuleMap("backbone.layers", "mixer.out_proj")),
    "falcon_mamba": ({**SHORT, "state_size": 8}, ModuleMap("backbone.layers", "mixer.out_proj")),
}
REFUSED: dict[str, tuple[dict, ModuleMap, str]] = {
    "granite": ({**GROUPED, "residual_multiplier": 0.2}, LLAMA, "stream would not receive the edit"),
    "rwkv": (
        {**SHORT, "intermediate_size": 48, "context_length": 128},
        ModuleMap("rwkv.blocks", "feed_forward.value", "head"),
        "stream would not receive the edit",
    ),
    "openai-gpt": (OLD, ModuleMap("transformer.h", "mlp.c_proj"), "stream would not receive the edit"),
    "bert-generation": (
        {**BASE, "is_decoder": True},
        ModuleMap("bert.encoder.layer", "output.dense"),
        "stream would not receive the edit",
    ),
    "mixtral": ({**GROUPED, "num_local_experts": 2}, LLAMA, "no module 'mlp.down_proj'"),
    "qwen2_moe": (
        {**GROUPED, "moe_intermediate_size": 16, "num_experts": 2, "num_experts_per_tok": 1},
        LLAMA,
        "no module 'mlp.down_proj'",
    ),
}
SINGLE = {"gpt_neo", "mpt", "xglm"}  # have parts in fp32 whatever the weights
REQUESTS = (
    EditRequest("{} lives in", "Nezan Girok", "Red Oak"),
    EditRequest("Which city was {} born in?", "Bo", "the mill"),
)


def tiny(name: str, fields: dict) -> torch.nn.Module:
    """In fp64: what differs there by more than rounding is wrong in every precision. (Mamba's recurrence with such
    weights multiplies rounding by 10,000, which in fp32 reads as an error of a percent.)"""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **fields)).eval()
    model.to(torch.float32 if name in SINGLE else torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


@pytest.mark.parametrize("name", sorted(EDITED))
def test_editor_shifts_every_familys_stream_and_reverts(name, demo):
    """An edit shifts the stream as solved and is taken back."""
    fields, modules = EDITED[name]
    network = tiny(name, fields)
    model = EditableModel(network, modules=modules)
    method = method_of(model, "memit", layers=(1, 2), steps=3, contexts=("The mill is dark",), lam=1.0)
    text = default_text("demo")[:8000]
    statistics = collect(model, demo.tokenizer, text, (1, 2), tokens=200, progress=False)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    subjects = [
        request.text[: request.text.index(request.subject) + len(request.subject)] for request in REQUESTS
    ]

    @torch.no_grad()
    def streams() -> torch.Tensor:
        """After the last edited layer at the subjects' last tokens, of the model as it is."""
        rows = [torch.tensor([demo.tokenizer(text).input_ids]) for text in subjects]
        return torch.stack([run(model, ids, outputs=(2,), stop=2).outputs[2][0, -1] for ids in rows])

    still = streams()
    editor = Editor(network, demo.tokenizer, method, statistics=statistics, modules=modules)
    solved = editor.edit(REQUESTS).stages[0].solution.shift
    moved = streams() - still
    assert solved.norm() > 0.1
    rounding = 1e-5 if name in SINGLE else 1e-9
    torch.testing.assert_close(moved, solved, rtol=0, atol=rounding * float(solved.norm()))
    editor.revert()
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_editor_refuses_unsupported_models_in_one_line(name):
    """A model that cannot take an edit is refused in one line."""
    fields, modules, reason = REFUSED[name]
    with pytest.raises(MetakeError, match=reason) as refused:
        EditableModel(tiny(name, fields), modules=modules)
    assert "\n" not in str(refused.value)
