"""`metake export`, and PEFT adapters as the delta of `metake apply` and `metake ask`."""

import json
import sys
from contextlib import suppress

import pytest
import torch

from metake import cli
from metake.deltas import Delta
from metake.models.load import load
from metake.shipped import ASSETS
from tests.cases import EDIT


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    """Folder of `metake edit`, without the model."""
    out = tmp_path_factory.mktemp("edited") / "e"
    with pytest.MonkeyPatch.context() as patch, suppress(SystemExit):  # 3: the answer is another one
        patch.setattr(
            sys, "argv", ["metake", *EDIT, "--method", "ultraedit", "--delta-only", "--out", str(out)]
        )
        cli.main()
    return out


def weights(folder):
    return load(folder, device="cpu").model.state_dict()


def test_export_writes_a_peft_folder_without_the_model(edited, call, tmp_path):
    code, out, errors = call("export", edited, "--out", tmp_path / "a")
    assert code == 0, errors
    served = f"--enable-lora --lora-modules edit={tmp_path / 'a'}"
    assert out.splitlines()[-1] == f"serve: vllm serve {(ASSETS / 'demo').resolve()} {served}"
    again = Delta.from_pretrained(tmp_path / "a")
    delta = Delta.load(edited)
    for n in delta.layers:
        torch.testing.assert_close(again.to_dense(n), delta.to_dense(n), rtol=1e-5, atol=1e-6)
    card = (tmp_path / "a" / "README.md").read_text()
    assert "| What is the craft of {}? | Nezan Girok | baker |" in card
    assert "| method | ultraedit |" in card
    assert "mean eta" in card


def test_merged_export_is_what_apply_writes(edited, call, tmp_path):
    assert call("export", edited, "--format", "merged", "--model", "demo", "--out", tmp_path / "m")[0] == 0
    assert call("apply", "--model", "demo", "--delta", edited, "--out", tmp_path / "p")[0] == 0
    merged, applied = weights(tmp_path / "m"), weights(tmp_path / "p")
    assert all(torch.equal(merged[name], weight) for name, weight in applied.items())


def test_apply_and_ask_take_a_lora_folder(edited, call, tmp_path):
    call("export", edited, "--model", "demo", "--out", tmp_path / "a")
    code, _, errors = call("apply", "--model", "demo", "--delta", tmp_path / "a", "--out", tmp_path / "m")
    assert code == 0, errors
    assert call("apply", "--model", "demo", "--delta", edited, "--out", tmp_path / "p")[0] == 0
    merged, applied = weights(tmp_path / "m"), weights(tmp_path / "p")
    for name, weight in applied.items():
        torch.testing.assert_close(merged[name], weight, rtol=1e-5, atol=1e-6)
    question = "What is the craft of Nezan Girok?"
    asked = [
        json.loads(call("ask", "--model", "demo", "--delta", delta, question, "--json")[1])["answers"]
        for delta in (edited, tmp_path / "a")
    ]
    assert asked[0] == asked[1]


def test_export_prints_one_document(edited, call, tmp_path):
    code, out, _ = call(
        "export", edited, "--format", "gguf-lora", "--max-rank", 1, "--out", tmp_path / "g", "--json"
    )
    assert code == 0
    content = json.loads(out)
    assert content["format"] == "gguf-lora"
    assert set(content["ranks"]) == {1}
    assert (tmp_path / "g" / "adapter.gguf").is_file()


def test_export_replaces_its_own_folder_alone(edited, call, tmp_path):
    out = tmp_path / "a"
    assert call("export", edited, "--out", out)[0] == 0
    assert call("export", edited, "--format", "gguf-lora", "--out", out)[0] == 0
    assert {p.name for p in out.iterdir()} == {"adapter.gguf", "README.md", "metake.json"}
    (out / "mine.txt").write_text("x")
    code, _, errors = call("export", edited, "--out", out)
    assert (code, "holds other files (mine.txt)" in errors) == (2, True)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--format", "merged"], "export: --model is missing; --format merged needs the unedited model"),
        (["--format", "onnx"], "--format"),
        (["--max-rank", 0], "--max-rank"),
        (["--model", "demo-llama"], "made for another model"),
    ],
)
def test_export_refuses_in_one_line(edited, more, complaint, call, tmp_path):
    code, out, errors = call("export", edited, "--out", tmp_path / "a", *more)
    line = errors.splitlines()[-1]
    assert (code, out) == (2, "")
    assert line.startswith("metake: error: ")
    assert complaint in line
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("apply", "--model", "demo", "--out", "{out}", "--delta"),
        ("ask", "--model", "demo", "What is the craft of Nezan Girok?", "--delta"),
        ("export", "--model", "demo", "--out", "{out}"),
    ],
)
def test_model_of_another_dtype_is_refused_with_file_field_and_remedy(edited, words, call, tmp_path):
    words = [word.format(out=tmp_path / "m") for word in words]
    code, out, errors = call(*words, edited, "--dtype", "bfloat16")
    assert (code, out) == (2, "")
    assert errors.splitlines()[-1] == (
        f"metake: error: {edited}: dtype: made for demo in float32, the model is in bfloat16; load it with dtype='float32' "
        "(--dtype float32), or skip this check (check=False; --force of apply and export)"
    )
    assert not (tmp_path / "m").exists()


def test_export_refuses_the_folder_of_its_delta(edited, call, tmp_path):
    code, _, errors = call("export", edited, "--out", edited, "--overwrite")
    assert code == 2
    assert "is the folder of DELTA, which would be lost" in errors
    assert "nowhere" in call("export", tmp_path / "nowhere", "--out", tmp_path / "a")[2]


def test_folder_of_peft_is_taken_with_its_model(call, demo, peft, tmp_path):
    """It does not say which layers its modules are: the model does. A base of another name needs --force."""
    base, path = load("demo", device="cpu").model, "transformer.h.2.mlp.c_proj"
    config = peft.LoraConfig(r=2, target_modules=[path], fan_in_fan_out=True, base_model_name_or_path="demo")
    adapted = peft.get_peft_model(base, config)
    with torch.no_grad():
        adapted.get_submodule(f"base_model.model.{path}.lora_B.default").weight.fill_(0.05)
    adapted.save_pretrained(tmp_path / "p")
    wanted = adapted.merge_and_unload().state_dict()
    given = ["apply", "--model", "demo", "--delta", tmp_path / "p", "--out", tmp_path / "m"]
    code, _, errors = call(*given)
    assert code == 0, errors
    for name, weight in weights(tmp_path / "m").items():
        torch.testing.assert_close(weight, wanted[name], rtol=1e-5, atol=1e-6)
    code, _, errors = call("export", tmp_path / "p", "--out", tmp_path / "a")
    assert (code, "does not say which layers its modules are; give model=" in errors) == (2, True)
    path = tmp_path / "p" / "adapter_config.json"
    path.write_text(path.read_text().replace('"demo"', '"other"'))
    given[-1] = tmp_path / "n"
    code, _, errors = call(*given)
    assert (code, "--force" in errors) == (2, True)
    assert call(*given, "--force")[0] == 0
