"""A model that was edited elsewhere is measured as an edit made here is."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from metake.deltas import Delta
from metake.editor import Editor
from metake.errors import MetakeError
from metake.evaluation.cases import case_records
from metake.evaluation.edited import changed_weights, judge_edited, read_edited
from metake.evaluation.page import settings_line
from metake.evaluation.protocol import Protocol
from metake.models.editable import EditableModel
from metake.models.load import load
from metake.models.save import save_model
from metake.presets import settings_for
from metake.shipped import ASSETS
from metake.texts import held_out_text

WORLD = ASSETS / "world" / "dev.json"


@pytest.fixture(scope="module")
def protocol(records):
    return Protocol(records[:3], 3, text=held_out_text("demo"))


@pytest.fixture(scope="module")
def edited(demo, protocol, tmp_path_factory):
    """Folders of one edit, as a model, a delta and an adapter, and the run of the same edit."""
    folder, method = tmp_path_factory.mktemp("edited"), settings_for(demo, "ultraedit", layers=(2, 3))
    (run,) = protocol.run(demo, [method]).runs
    with Editor(demo, method=method, answers=False, progress=False) as editor:
        result = editor.edit([record.request for record in protocol.records])
        save_model(demo, folder / "model")
        result.delta.save(folder / "delta")
        result.delta.save_pretrained(folder / "adapter")
    return folder, run


def copied(model, change):
    """A copy of a model after a change of its module."""
    module = copy.deepcopy(model.model)
    change(module)
    return EditableModel(module, model.tokenizer, name="edited")


@pytest.mark.parametrize("kind", ["model", "delta", "adapter"])
def test_edited_model_has_the_metrics_of_the_same_edit_made_here(kind, edited, demo, protocol):
    folder, run = edited
    before = demo.fingerprint()
    results = judge_edited(protocol, demo, read_edited(folder / kind, demo), str(folder / kind))
    assert demo.fingerprint() == before
    (given,) = results.runs
    assert (given.method.name, given.method.layers, given.moment) == (kind, (2, 3), "given")
    assert given.after.answers == run.after.answers
    assert given.after.perplexity == pytest.approx(run.after.perplexity, rel=1e-6)
    for name, values in run.after.values.items():
        assert given.after.values[name] == pytest.approx(values, abs=1e-6, nan_ok=True), name
    assert run.after.mean("kl") > 0  # the edit changed something
    (row,) = results.content["methods"]
    assert set(row["settings"]["changed"]) == {f"transformer.h.{n}.mlp.c_proj.weight" for n in (2, 3)}
    assert row["settings"]["source"] == str(folder / kind)
    assert row["seconds_per_edit"] is None
    assert f"| {kind} | " in results.markdown()
    assert results.table().count("nan") == 0


def test_changed_weights_are_relative_to_the_unedited_ones(demo):
    def change(module):
        with torch.no_grad():
            module.transformer.h[1].mlp.c_proj.weight.mul_(1.25)

    found = changed_weights(demo, copied(demo, change))
    assert found == {"transformer.h.1.mlp.c_proj.weight": pytest.approx(0.25, rel=1e-5)}


def test_equal_model_gives_a_note(demo, protocol):
    same = copied(demo, lambda module: None)
    with pytest.warns(UserWarning, match=r"^edited: equal to demo, bit for bit$"):
        (run,) = judge_edited(protocol, demo, same).runs
    assert run.after.mean("kl") == 0
    assert run.after.mean("agreement") == 1


@pytest.mark.parametrize("folder", ["grace", "before", "unedited"])
def test_gated_patch_is_an_edit(folder, demo, protocol, tmp_path, recwarn):
    """A delta without a changed weight is not equal to the base, and a folder's name is never that of the base."""
    method = settings_for(demo, "grace", value_steps=20)
    with Editor(demo, method=method, answers=False, progress=False) as editor:
        editor.edit([record.request for record in protocol.records]).delta.save(tmp_path / folder)
    results = judge_edited(protocol, demo, read_edited(tmp_path / folder, demo), str(tmp_path / folder))
    (given,) = results.runs
    assert not [warning for warning in recwarn if "bit for bit" in str(warning.message)]
    assert (given.method.layers, given.method.patches) == (method.layers, ("grace",))
    (row,) = results.content["methods"]
    assert (row["settings"]["changed"], row["settings"]["patches"]) == ({}, ["grace"])
    assert settings_line(given.method).endswith(": 0 changed tensors, 1 gated patch")
    (first, *_) = case_records(results.content)
    assert first["before"] == given.before.answers[0][0]
    assert [after["answer"] for after in first["after"].values()] == [given.after.answers[0][0]]


def test_model_of_another_family_or_shape_is_refused(demo, protocol, monkeypatch):
    monkeypatch.setattr("metake.evaluation.metrics.Evaluator.measure", None)  # nothing is measured
    with pytest.raises(
        MetakeError, match=r"^demo-llama: is a llama model, demo is gpt2; give the model that"
    ):
        judge_edited(protocol, demo, load("demo-llama"))
    wider = copied(demo, lambda module: module.resize_token_embeddings(5000, mean_resizing=False))
    with pytest.raises(
        MetakeError, match=r"^edited: transformer.wte.weight is \[5000, \d+\], in demo it is \["
    ):
        judge_edited(protocol, demo, wider)
    shorter = copied(demo, lambda module: module.transformer.h.__delitem__(-1))
    with pytest.raises(MetakeError, match=r"^edited: transformer\.h\.5\.\S+ is missing, in demo it is \["):
        judge_edited(protocol, demo, shorter)


def test_model_with_other_tokens_is_refused(demo, protocol):
    same = copied(demo, lambda module: None)
    same.tokenizer = copy.deepcopy(demo.tokenizer)
    same.tokenizer.add_tokens(["qqq"])
    with pytest.raises(MetakeError, match=r"^edited: the tokenizer has another vocabulary than demo's; save"):
        judge_edited(protocol, demo, same)

    class Other:
        """The same vocabulary, with other tokens for a text."""

        def __getattr__(self, name):
            return getattr(demo.tokenizer, name)

        def __call__(self, text, **options):
            return demo.tokenizer(text.lower() if isinstance(text, str) else text, **options)

    same.tokenizer = Other()
    with pytest.raises(
        MetakeError, match=r"^edited: the tokenizer splits record 1 into other tokens than demo's"
    ):
        judge_edited(protocol, demo, same)


def test_delta_of_another_model_is_refused(demo, protocol):
    delta = Delta({2: (torch.ones(demo.d_v, 1), torch.ones(demo.d_k, 1))}, model="another")
    with pytest.raises(MetakeError, match=r"^delta: made for another model"):
        judge_edited(protocol, demo, delta)


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()


def without_a_weight(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.h.3.mlp.c_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def of_other_shape(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_inner": 64}))


def with_code(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "strange",
        "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('code was run')")


def adapter(folder):
    (folder / "config.json").rename(folder / "adapter_config.json")


DAMAGED = {
    "pickle": (pickled, "pytorch_model.bin is a pickle, which may run code; save the model as safetensors"),
    "no tokenizer": (without_tokenizer, "has no tokenizer (tokenizer.json); save the unedited model's there"),
    "no weight": (without_a_weight, "has no weights for transformer.h.3.mlp.c_proj.weight"),
    "shape": (of_other_shape, "cannot be loaded"),
    "code": (with_code, "cannot be loaded"),
    "adapter": (adapter, "peft_type: is None, must be 'LORA'"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_evaluate_refuses_a_folder_that_is_no_edited_model(case, call, edited, tmp_path):
    """One line that names the folder and the remedy, exit code 2, and no file."""
    folder, (damage, complaint) = tmp_path / "mine", DAMAGED[case]
    folder.mkdir()
    for path in (edited[0] / "model").iterdir():
        if path.name != "metake.json":
            (folder / path.name).write_bytes(path.read_bytes())
    damage(folder)
    given = ["--edited", folder, "--base", "demo", "--data", WORLD, "--edits", 2, "--out", tmp_path / "out"]
    code, out, errors = call("evaluate", *given)
    (line,) = [line for line in errors.splitlines() if "error" in line]
    assert (code, out) == (2, "")
    assert line.startswith((f"metake: error: {folder}: ", f"metake: error: {folder}/adapter_config.json: "))
    assert complaint in line
    assert not (tmp_path / "out").exists()


CONTRADICTING = {
    "no model": ([], "--model is missing; give it, or --edited FOLDER and --base NAME"),
    "base alone": (["--base", "demo"], "give --edited FOLDER, or --model"),
    "no base": (["--edited", "x"], "--edited needs the unedited model; give --base NAME"),
    "model": (["--edited", "x", "--base", "demo", "--model", "demo"], "--model is about edits made here"),
    "batch": (["--edited", "x", "--base", "demo", "--batch", 20], "--batch is about edits made here"),
    "set": (["--edited", "x", "--base", "demo", "--set", "lr=1"], "--set is about edits made here"),
    "nothing": (
        ["--edited", "none", "--base", "demo"],
        "none: holds neither config.json and safetensors nor",
    ),
}


@pytest.mark.parametrize("case", CONTRADICTING)
def test_evaluate_refuses_options_that_contradict_an_edited_model(case, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options, complaint = CONTRADICTING[case]
    code, out, errors = call("evaluate", *options, "--data", WORLD, "--out", "o")
    (line,) = [line for line in errors.splitlines() if "error" in line]
    assert (code, out) == (2, "")
    assert complaint in line
    assert not list(tmp_path.iterdir())


def test_evaluate_writes_the_results_of_an_edited_model(call, edited, tmp_path):
    folder = edited[0] / "model"
    given = ["--edited", folder, "--base", "demo", "--data", WORLD, "--edits", 2, "--out", tmp_path / "out"]
    code, out, _ = call("evaluate", *given, "--json")
    content = json.loads(out)
    assert (code, content["edits"], [row["method"] for row in content["methods"]]) == (0, 2, ["model"])
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "model: 2 changed tensors" in page
    assert "attenuation" not in page.lower()  # nothing was planned here
