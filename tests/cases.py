"""Models, methods, commands and editors that several test files use."""

from __future__ import annotations

import copy
import json

import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

from metake.deltas import Delta
from metake.editor import Editor
from metake.methods.settings import setting_names
from metake.models.modules import ModuleMap
from metake.presets import settings_for

# the shortest complete commands
EDIT = [
    "edit",
    "--model",
    "demo",
    "--request",
    "What is the craft of {}?",
    "--subject",
    "Nezan Girok",
    "--target",
    "baker",
]
EVALUATE = ["evaluate", "--model", "demo", "--methods", "memit"]

TINY = {
    "vocab_size": 1024,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
}
GROUPED = {**TINY, "num_key_value_heads": 2}
CONFIGS = {
    "gpt2": GPT2Config(
        vocab_size=1024,
        bos_token_id=0,
        eos_token_id=0,
        n_embd=32,
        n_layer=4,
        n_head=4,
        n_positions=128,
        resid_pdrop=0,
        embd_pdrop=0,
        attn_pdrop=0,
    ),
    "gptj": GPTJConfig(
        vocab_size=1024,
        bos_token_id=0,
        eos_token_id=0,
        n_embd=32,
        n_layer=4,
        n_head=4,
        n_positions=128,
        rotary_dim=4,
        resid_pdrop=0,
        embd_pdrop=0,
        attn_pdrop=0,
        tie_word_embeddings=False,
    ),
    "gpt_neox": GPTNeoXConfig(**TINY),
    "llama": LlamaConfig(**GROUPED),
    "mistral": MistralConfig(**GROUPED, sliding_window=8),
    "qwen2": Qwen2Config(**GROUPED),
    "qwen3": Qwen3Config(**GROUPED, head_dim=8),
    "phi3": Phi3Config(**GROUPED, pad_token_id=0),
    "olmo2": Olmo2Config(**GROUPED),
    "gemma2": Gemma2Config(**GROUPED, head_dim=8),
    "gemma3_text": Gemma3TextConfig(**GROUPED, head_dim=8),
}
# families outside the table, which a user describes
DESCRIBED = {
    "bloom": (
        BloomConfig(vocab_size=1024, hidden_size=32, n_layer=4, n_head=4),
        ModuleMap("transformer.h", "mlp.dense_4h_to_h"),
    ),
    "falcon": (
        FalconConfig(vocab_size=1024, hidden_size=32, num_hidden_layers=4, num_attention_heads=4),
        ModuleMap("transformer.h", "mlp.dense_4h_to_h"),
    ),  # attention is added in place to what the FFN returns
    "opt": (
        OPTConfig(
            vocab_size=1024,
            hidden_size=32,
            num_hidden_layers=4,
            num_attention_heads=4,
            ffn_dim=48,
            word_embed_proj_dim=32,
            max_position_embeddings=128,
            dropout=0.0,
        ),
        ModuleMap("model.decoder.layers", "fc2"),
    ),  # rows of the FFN are laid end to end
    "phi": (PhiConfig(**TINY), ModuleMap("model.layers", "mlp.fc2")),
}


def tiny(family: str) -> torch.nn.Module:
    """A seeded random model of a family, large enough in its weights for edits to matter."""
    torch.manual_seed(0)
    config = CONFIGS[family] if family in CONFIGS else DESCRIBED[family][0]
    model = AutoModelForCausalLM.from_config(copy.deepcopy(config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


def method_of(model, name, **changes):
    """A method of the table without a preset, with those of some changes that it has a setting for.

    A setting that no method has is refused, as everywhere.
    """
    known, fitting = setting_names(), settings_for(model, name, name="none").supported_changes(changes)
    kept = {setting: v for setting, v in changes.items() if setting in fitting or setting not in known}
    return settings_for(model, name, name="none", **kept)


# settings of short edits of the demo models
QUICK = {
    "layers": (1, 2, 3),
    "steps": 8,
    "lr": 0.5,
    "meta_steps": 5,
    "clamp": None,
    "contexts": ("The mill is dark",),
}


def editor_of(model, statistics, method="metake", answers=True, **changes):
    chosen = method_of(model, method, **{**QUICK, **changes})
    return Editor(model.model, model.tokenizer, chosen, statistics=statistics, answers=answers)


def results_of(out):
    """Results of a run without times, and all its deltas."""
    content = json.loads((out / "results.json").read_text())
    for runs in content["methods"].values():
        for run in runs:
            del run["seconds_per_edit"]
            for batch in run["batches"]:
                del batch["seconds"]
    for summary in content["summary"].values():
        summary.pop("seconds_per_edit", None)
    del content["arguments"], content["written"]
    deltas = {str(p.parent.relative_to(out)): Delta.load(p) for p in out.glob("runs/*/*/delta.safetensors")}
    return content, deltas
