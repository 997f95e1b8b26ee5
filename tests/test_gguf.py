"""A GGUF file is loaded, edited, saved as an ordinary folder, and loaded again."""

import json

import numpy as np
import pytest
import torch

from metake.editor import Editor
from metake.models.load import load
from metake.models.save import save_model
from metake.requests import EditRequest
from metake.shipped import ASSETS
from tests.cases import method_of

WIDTH, INNER, BLOCKS = 32, 64, 2


def write_gguf(path, seed=0):
    """A random Llama with quantized matrices (Q8_0) and the demo model's vocabulary."""
    gguf = pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    coded = json.loads((ASSETS / "demo" / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    tokens = sorted(coded["vocab"], key=coded["vocab"].get)
    writer, random = gguf.GGUFWriter(path, "llama"), np.random.default_rng(seed)
    writer.add_block_count(BLOCKS)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // 2)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_merges([" ".join(pair) for pair in coded["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)

    def add(name, *shape):
        values = random.standard_normal(shape, dtype=np.float32) / WIDTH**0.5
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(f"{name}.weight", gguf.quantize(values, kind), raw_dtype=kind)

    for name in ("output_norm", *(f"blk.{n}.{part}_norm" for n in range(BLOCKS) for part in ("attn", "ffn"))):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    for name in ("token_embd", "output"):
        add(name, len(tokens), WIDTH)
    for n in range(BLOCKS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{n}.{name}", WIDTH, WIDTH)
        add(f"blk.{n}.ffn_gate", INNER, WIDTH)
        add(f"blk.{n}.ffn_up", INNER, WIDTH)
        add(f"blk.{n}.ffn_down", WIDTH, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_load_reads_an_edited_gguf_model_again(tmp_path):
    """An edited GGUF model is saved and loaded again."""
    write_gguf(tmp_path / "small.gguf")
    model = load(str(tmp_path / "small.gguf"), device="cpu")
    before = model.fingerprint()
    method = method_of(model, "ultraedit", layers=(1,))
    requests = [
        EditRequest("The {} is", "old mill", "dark"),
        EditRequest("The {} is", "river", "cold and wide"),
    ]
    editor = Editor(model, method=method)
    editor.edit(requests)
    assert model.fingerprint() != before
    save_model(model, tmp_path / "o")
    again = load(str(tmp_path / "o"), device="cpu")
    assert again.fingerprint() == model.fingerprint()
    weights = again.model.state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in model.model.state_dict().items())
    text = "The old mill is dark\n and the river <|endoftext|> cold"
    assert again.tokenizer(text).input_ids == model.tokenizer(text).input_ids
    assert "quantization_config" not in json.loads((tmp_path / "o" / "config.json").read_text())
    editor.revert()
    assert load(str(tmp_path / "small.gguf"), device="cpu").fingerprint() == model.fingerprint()
