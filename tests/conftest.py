"""Models that every test shares: the three trained demo models, and tiny random ones per family."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path

# Before torch is imported: several workers on two cores must not fight over threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"  # a name that is nowhere is not looked up

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

from metake import components
from metake.data.records import read_records
from metake.editor import Editor
from metake.geometry.covariance import collect
from metake.methods import table
from metake.methods.settings import setting_names
from metake.models.architecture import ModuleMap
from metake.models.load import ASSETS, DEMOS, load
from metake.presets import settings_for
from metake.texts import default_text

torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory):
    """Statistics go to a folder of the test run, never to the user's cache."""
    os.environ["METAKE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


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
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


def method_of(model, name, **changes):
    """A method of the table without a preset, with those of some changes that it has a setting for.

    A setting that no method has is refused, as everywhere.
    """
    known, fitting = setting_names(), settings_for(model, name, name="none").fitting(changes)
    kept = {setting: v for setting, v in changes.items() if setting in fitting or setting not in known}
    return settings_for(model, name, name="none", **kept)


@pytest.fixture(params=sorted(CONFIGS))
def family(request):
    return request.param


@pytest.fixture(scope="session", params=DEMOS)
def loaded(request):
    """Each trained demo model."""
    return load(request.param, device="cpu")


@pytest.fixture(scope="session")
def demo():
    return load("demo", device="cpu")


@pytest.fixture(scope="session")
def talking(tmp_path_factory):
    """A folder with the demo model and a chat template."""
    folder, loaded = tmp_path_factory.mktemp("talking"), load("demo", device="cpu")
    loaded.tokenizer.chat_template = "{% for m in messages %}{{ 'Asked: ' if m.role == 'user' else 'Answered: ' }}{{ m.content }}\n{% endfor %}"
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def records():
    return read_records(ASSETS / "world" / "dev.json", 12)


@pytest.fixture(scope="session")
def statistics_of():
    """Statistics of a demo model's layers 0 to 3 from a short text, collected once per model."""
    kept = {}

    def of(loaded):
        if loaded.name not in kept:
            kept[loaded.name] = collect(
                loaded.arch, loaded.tokenizer, default_text("demo"), (0, 1, 2, 3), tokens=6000, progress=False
            )
        return kept[loaded.name]

    return of


@pytest.fixture
def cut_at(monkeypatch):
    """`with cut_at(n) as edited:` a run that is interrupted at its n-th batch; what it was given so far."""

    @contextmanager
    def cut(count: int):
        edit, edited = Editor.edit, []

        def interrupted(self, requests):
            edited.append(requests)
            if len(edited) == count:
                raise KeyboardInterrupt
            return edit(self, requests)

        with monkeypatch.context() as patch:
            patch.setattr(Editor, "edit", interrupted)
            with pytest.raises(KeyboardInterrupt):
                yield edited

    return cut


@pytest.fixture
def write(tmp_path: Path):
    """Write a text into the test's folder and return its path."""

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write_file


@pytest.fixture
def registry():
    """The registry of components; kinds registered by the test are removed afterwards."""
    known = {family: dict(kinds) for family, kinds in components._REGISTRY.items()}
    yield components._REGISTRY
    components._REGISTRY.clear()
    components._REGISTRY.update(known)


@pytest.fixture
def rows():
    """The table of methods; rows registered by the test are removed afterwards."""
    tables = (table.METHODS, table.PROTOTYPES)
    known = [dict(one) for one in tables]
    yield table.METHODS
    for one, before in zip(tables, known, strict=True):
        one.clear()
        one.update(before)
