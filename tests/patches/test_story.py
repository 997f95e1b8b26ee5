"""Gated memories from the command line and in a protocol: edited, asked, refused where weights are written, resumed."""

import numpy as np
import pytest
import torch

from metake.editor import Editor
from metake.evaluation.protocol import Protocol
from metake.models.load import load
from metake.patches.base import patches_at
from metake.presets import settings_for
from metake.requests import EditRequest
from tests.patches.conftest import QUICK

FACT = (
    "--request",
    "Which guild does {} belong to?",
    "--subject",
    "Nezan Girok",
    "--target",
    "Green Lantern",
)
QUESTION = "Which guild does Nezan Girok belong to?"


@pytest.mark.parametrize("name", ["grace", "wise", "memoir"])
def test_gated_memory_is_edited_saved_and_asked(call, tmp_path, name):
    """`edit` saves the patch alone; `ask --delta` applies it; `apply` and `export` refuse it, before a model is loaded."""
    (setting, value), *_ = QUICK[name].items()
    out, edit = tmp_path / "edit", ("edit", "--model", "demo", "--method", name, *FACT)
    code, said, _ = call(*edit, "--set", f"{setting}={max(value, 30)}", "--out", out)
    assert code == 0
    assert "saved the patch" in said
    assert not (out / "model.safetensors").exists()
    code, said, _ = call("ask", "--model", "demo", "--delta", out, QUESTION)
    assert code == 0
    assert "Green Lantern" in said.partition("after:")[2]
    for line in (
        ("apply", "--model", "demo", "--delta", out, "--out", tmp_path / "model"),
        ("export", out, "--format", "merged", "--model", "demo", "--out", tmp_path / "model"),
        ("export", out, "--out", tmp_path / "model"),
    ):
        code, _, error = call(*line)
        assert code == 2
        assert error.startswith(
            f"metake: error: {line[0]}: the {name} patch of layer 4 has a gate, so it does not fold"
        )
        assert error.count("\n") == 1
        assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("merges", [False, True])
def test_run_of_a_gated_memory_resumes(demo, records, tmp_path, cut_at, monkeypatch, merges):
    """Interrupted and resumed, with single or merged batches: the numbers are those of a run without interruption."""
    if merges:
        monkeypatch.setattr("metake.evaluation.checkpoint.bytes_when_merged", lambda editor: 0)
    protocol, method = Protocol(records[:6], 2, generate=False), settings_for(demo, "grace", value_steps=10)
    (whole,) = protocol.run(demo, [method]).runs
    with cut_at(3) as edited:
        protocol.run(demo, [method], folder=tmp_path)
    assert len(edited) == 3
    (resumed,) = protocol.run(demo, [method], folder=tmp_path).runs
    for name, values in whole.after.values.items():
        np.testing.assert_array_equal(resumed.after.values[name], values)
    assert bool(list(tmp_path.glob("*/merged.safetensors"))) is merges
    assert not any(patches_at(demo, layer) for layer in range(len(demo)))


@pytest.mark.parametrize("name", ["grace", "wise", "memoir"])
def test_gated_memory_of_a_model_in_bf16(name):
    """The memory is trained and kept in fp32, the model stays in bf16 and is restored bit for bit."""
    model = load("demo", device="cpu", dtype="bfloat16")
    fingerprint, fact = model.fingerprint(), EditRequest.parse(*FACT[1::2])
    (setting, _), *_ = QUICK[name].items()
    with Editor(model, method=settings_for(model, name, **{setting: 30}), progress=False) as editor:
        result = editor.edit(fact)
        assert result.success == (True,)
        assert all(
            t.dtype != torch.bfloat16 for patch in result.delta.patches for t in patch.tensors.values()
        )
    assert model.fingerprint() == fingerprint
