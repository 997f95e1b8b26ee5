"""The commands of the README, end to end on a demo model."""

import json
import shutil
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import metake
from metake import cli
from metake.commands.edit import NOT_EDITED
from metake.deltas import Delta
from metake.editor import Editor
from metake.geometry.statistics import Statistics
from metake.models.load import load
from metake.models.modules import DESCRIBED, FAMILIES
from metake.shipped import ASSETS
from tests.cases import EDIT, EVALUATE, editor_of


@pytest.fixture(scope="module")
def stats(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "s.safetensors"
    sys.argv = [
        "metake",
        "stats",
        "--model",
        "demo",
        "--layers",
        "1-3",
        "--tokens",
        "4000",
        "--out",
        str(path),
    ]
    cli.main()
    return path


@pytest.fixture
def run(monkeypatch, capsys, stats):
    def go(*arguments):
        monkeypatch.setattr(sys, "argv", ["metake", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            if end.code != NOT_EDITED:  # most edits here are too short to take
                raise
        return capsys.readouterr().out

    return go


def logits(folder, tokenizer_from=None):
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_from or folder)
    with torch.no_grad():
        return model(torch.tensor([tokenizer("What is the craft of Nezan Girok?").input_ids])).logits


def test_edit_saves_the_model_that_apply_makes(run, stats, tmp_path):
    common = ["--layers", "1-3", "--stats", stats, "--set", "lam=10", "--set", "steps=8"]
    out = run(*EDIT, *common, "--out", tmp_path / "a")
    assert "before:" in out
    assert {f.name for f in (tmp_path / "a").iterdir()} >= {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "delta.safetensors",
        "result.json",
        "realization.png",
    }
    run("apply", "--model", "demo", "--delta", tmp_path / "a", "--out", tmp_path / "b")
    edited = logits(tmp_path / "a")
    torch.testing.assert_close(edited, logits(tmp_path / "b"), rtol=1e-4, atol=1e-4)
    assert (edited - logits(ASSETS / "demo")).abs().max() > 0.1
    # an edited folder is a model like any other
    out = run(
        "edit",
        "--model",
        tmp_path / "a",
        *EDIT[3:],
        "--layers",
        "1-3",
        "--preview",
        "--text",
        write_world(tmp_path),
    )
    assert "predicted: share of the planned shift" in out


def write_world(folder):
    from metake.texts import default_text

    path = folder / "world.txt"
    path.write_text(default_text("demo")[:60_000])
    return path


def test_edit_replaces_a_model_by_its_delta_alone(run, stats, tmp_path):
    """The change alone takes the place of an edited model.

    And a model the place of a change; whose file is named says `apply`, whole changes too.
    """
    quick = [
        "--method",
        "rect",
        "--layers",
        "1-2",
        "--stats",
        stats,
        "--set",
        "steps=2",
        "--out",
        tmp_path / "o",
    ]
    model = {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    alone = {"delta.safetensors", "result.json", "options.json", "metake.json", "realization.png"}
    for more, files in (([], model | alone), (["--delta-only"], alone), ([], model | alone)):
        run(*EDIT, *quick, *more)
        assert {file.name for file in (tmp_path / "o").iterdir()} == files
    out = run("apply", "--model", "demo", "--delta", tmp_path / "o", "--out", tmp_path / "p")
    assert "(1 edit, layers [1, 2])" in out
    shutil.copytree(tmp_path / "o", tmp_path / "q")
    run("apply", "--model", "demo", "--delta", tmp_path / "q" / "delta.safetensors", "--out", tmp_path / "o")
    assert {file.name for file in (tmp_path / "o").iterdir()} == model | {"metake.json"}


def test_stats_overwrites_statistics_alone(run, stats, tmp_path):
    """Statistics may be written again and over nothing else."""
    again = tmp_path / "s.safetensors"
    arguments = ["stats", "--model", "demo", "--layers", "1", "--tokens", "700", "--out", again]
    run(*arguments)
    run(*arguments)
    again.write_text("mine")
    with pytest.raises(SystemExit):
        run(*arguments)
    assert again.read_text() == "mine"
    run(*arguments, "--overwrite")
    assert Statistics.load(again).provenance.tokens == 700
    assert Statistics.load(again).provenance.name == "demo"


def test_edit_saves_equal_bytes_for_equal_edits(run, stats, tmp_path):
    """And the change says what it is of: method, model, its fingerprint, version, settings and requests."""
    for folder in ("a", "b"):
        run(
            *EDIT,
            "--method",
            "memit",
            "--layers",
            "2",
            "--stats",
            stats,
            "--set",
            "steps=2",
            "--delta-only",
            "--out",
            tmp_path / folder,
        )
    a, b = ((tmp_path / folder / "delta.safetensors").read_bytes() for folder in ("a", "b"))
    assert a == b
    delta = Delta.load(tmp_path / "a")
    assert {k: delta.note[k] for k in ("method", "model", "version")} == {
        "method": "memit",
        "model": "demo",
        "version": metake.__version__,
    }
    assert delta.model == load("demo", device="cpu").fingerprint()
    assert delta.note["settings"]["layers"] == [2]
    assert delta.note["edits"][0]["subject"] == "Nezan Girok"


def test_preview_changes_nothing(run, stats, tmp_path):
    out = run(*EDIT, "--layers", "1-3", "--stats", stats, "--preview")
    assert "predicted: share of the planned shift" in out
    assert not list(tmp_path.iterdir())


def test_preview_names_keys_that_differ_in_contexts(monkeypatch, capsys, stats):
    for below, said in ((-1.0, False), (1.0, True)):
        monkeypatch.setattr("metake.preview.MIN_KEY_COSINE", below)
        monkeypatch.setattr(
            sys, "argv", ["metake", *EDIT, "--layers", "1-3", "--stats", str(stats), "--preview"]
        )
        cli.main()
        assert ("note: " in capsys.readouterr().err) == said


def test_edit_that_fails_has_its_own_exit_code(monkeypatch, capsys, stats, tmp_path):
    """An edit that does not take ends with its own code."""
    for strength, code, said in (("lam=1e9", 3, "0 of 1 answers"), ("lam=1", 0, "1 of 1 answers")):
        monkeypatch.setattr(
            sys,
            "argv",
            [
                "metake",
                *EDIT,
                "--method",
                "memit",
                "--layers",
                "2-3",
                "--stats",
                str(stats),
                "--delta-only",
                "--set",
                "lr=1",
                "--set",
                "clamp=null",
                "--set",
                strength,
                "--out",
                str(tmp_path / strength),
            ],
        )
        try:
            cli.main()
            ended = 0
        except SystemExit as end:
            ended = end.code
        out, errors = capsys.readouterr()
        assert ended == code
        assert said in out
        assert ("failed edits: " in errors and "--set lam=1e+08 (now 1e+09)" in errors) == (code == 3)
        assert "no preset" not in errors
        content = json.loads((tmp_path / strength / "result.json").read_text(encoding="utf-8"))
        assert content["success"] == [code == 0]
        assert content["answers"][0]["success"] == (code == 0)
        assert content["answers"][0]["after"].startswith(content["answers"][0]["wanted"]) == (code == 0)
        assert content["checked"] == "the greedy answer begins with the target, which ends where a word does"
        assert (content["model"], content["method"], content["version"]) == (
            "demo",
            "memit",
            metake.__version__,
        )
        assert content["digest"] == Delta.load(tmp_path / strength).digest


@pytest.mark.parametrize(("change", "said"), [(0.0, False), (1e-3, True)])
def test_edit_says_where_settings_come_from(change, said, monkeypatch, capsys, tmp_path):
    """The legend has the preset's name, or that there is none.

    A copy under another name has one; a model with other embeddings has none.
    """
    model = load("demo", device="cpu")
    with torch.no_grad():
        model.model.get_input_embeddings().weight.add_(change)
    model.model.save_pretrained(tmp_path / "mine")
    model.tokenizer.save_pretrained(tmp_path / "mine")
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "metake",
            "edit",
            "--model",
            str(tmp_path / "mine"),
            *EDIT[3:],
            "--method",
            "ultraedit",
            "--preview",
        ],
    )
    cli.main()
    printed = capsys.readouterr().out
    assert ("settings: preset demo" in printed) != said
    assert ("settings: published" in printed) == said


def test_edit_result_has_questions_and_answers(demo, statistics_of, records):
    """A result has what was asked and answered."""
    requests = [r.request for r in records[:2]]
    with editor_of(demo, statistics_of(demo), "memit", lam=1e9) as editor:
        result = editor.edit(requests)
        assert result.success == (False, False)
        assert result.failed == tuple(requests)
        text = str(result)
        for request, answer in zip(requests, result.answers, strict=True):
            assert request.text in text
            assert repr(answer.before) in text
            assert answer.before == answer.after
        assert "0 of 2 answers" in text
        assert len(repr(result)) < 200
        assert "--set lam=1e+08" in result.advice()
    with editor_of(demo, statistics_of(demo), "memit", answers=False) as editor:
        result = editor.edit(requests)
        assert (result.answers, result.success, result.failed, result.advice()) == ((), (None, None), (), "")
        assert not all(result.success)
        assert "2 edits, answers not read, layers" in repr(result)
        assert "answers" not in result.summary()


def test_edit_saves_results_although_a_figure_fails(monkeypatch, capsys, stats, tmp_path):
    def fails(*_):
        assert (tmp_path / "o").is_dir()
        raise RuntimeError("no font\nto be found")

    monkeypatch.setattr("metake.report.figures.plot_realization", fails)
    for command, files in (
        (EDIT, {"model.safetensors", "delta.safetensors", "result.json"}),
        (
            [*EVALUATE, "--data", ASSETS / "world" / "test.json", "--edits", 2, "--no-generate"],
            {"results.json", "table.md"},
        ),
    ):
        monkeypatch.setattr(
            sys,
            "argv",
            [
                "metake",
                *map(str, command),
                "--layers",
                "1-3",
                "--stats",
                str(stats),
                "--set",
                "steps=2",
                "--out",
                str(tmp_path / "o"),
            ],
        )
        cli.main()
        notes = [line for line in capsys.readouterr().err.splitlines() if "note: a figure" in line]
        assert notes == [
            "note: a figure was not drawn (RuntimeError: no font to be found); the results are saved"
        ]
        assert {file.name for file in (tmp_path / "o").iterdir()} >= files
        shutil.rmtree(tmp_path / "o")


def test_edit_reads_a_requests_file(run, stats, tmp_path):
    path = tmp_path / "r.json"
    path.write_text(
        json.dumps(
            [
                {"prompt": "What is the craft of {}?", "subject": "Nezan Girok", "target": "baker"},
                {"prompt": "What is the craft of Zumi Bama?", "subject": "Zumi Bama", "target": "miner"},
            ]
        )
    )
    run(
        "edit",
        "--model",
        "demo",
        "--requests",
        path,
        "--layers",
        "2",
        "--stats",
        stats,
        "--set",
        "steps=3",
        "--out",
        tmp_path / "o",
        "--delta-only",
    )
    result = json.loads((tmp_path / "o" / "result.json").read_text())
    assert len(result["requests"]) == 2
    assert not (tmp_path / "o" / "model.safetensors").exists()


def test_edit_collects_no_statistics_for_methods_without(run, tmp_path, monkeypatch):
    """A method without statistics collects none."""
    monkeypatch.setattr("metake.statistics_cache.statistics_for", None)  # whoever asks for them fails
    out = run(*EDIT, "--method", "ultraedit", "--out", tmp_path / "o", "--delta-only")
    assert "ultraedit: 1 edit" in out
    assert (tmp_path / "o" / "realization.png").stat().st_size > 5000
    run(
        "evaluate",
        "--model",
        "demo",
        "--data",
        ASSETS / "world" / "test.json",
        "--methods",
        "ultraedit",
        "--edits",
        4,
        "--no-generate",
        "--out",
        tmp_path / "e",
    )
    assert json.loads((tmp_path / "e" / "results.json").read_text())["statistics"] is None


def test_edit_runs_in_a_conversation(run, talking, tmp_path):
    shutil.copytree(talking, tmp_path / "m")
    (tmp_path / "m" / "generation_config.json").write_text('{"eos_token_id": 3, "repetition_penalty": 1.3}')
    run(
        "edit",
        "--model",
        tmp_path / "m",
        *EDIT[3:],
        "--method",
        "ultraedit",
        "--chat",
        "--out",
        tmp_path / "o",
    )
    result = json.loads((tmp_path / "o" / "result.json").read_text())
    assert result["chat"]["after"] == "\nAnswered:"
    assert result["generation"]["decoding"] == "greedy"
    assert result["generation"]["set_aside"] == {"repetition_penalty": 1.3}
    assert AutoTokenizer.from_pretrained(tmp_path / "o").chat_template  # the model talks as before


def test_edit_reads_settings_from_published_files(run, stats, tmp_path):
    path = tmp_path / "memit.json"
    path.write_text(json.dumps({"layers": [1, 2], "v_num_grad_steps": 3, "mom2_update_weight": 7}))
    run(
        *EDIT,
        "--method",
        "memit",
        "--hparams",
        path,
        "--set",
        "lam=9",
        "--stats",
        stats,
        "--delta-only",
        "--out",
        tmp_path / "o",
    )
    used = json.loads((tmp_path / "o" / "result.json").read_text())["settings"]
    assert (used["layers"], used["planner"]["steps"], used["geometry"]["lam"]) == (
        [1, 2],
        3,
        9,
    )  # --set wins


def test_evaluate_writes_table_json_and_figure(run, stats, tmp_path):
    out = run(
        "evaluate",
        "--model",
        "demo",
        "--data",
        ASSETS / "world" / "test.json",
        "--methods",
        "metake,alphaedit,memit",
        "--edits",
        6,
        "--batch",
        3,
        "--layers",
        "1-3",
        "--stats",
        stats,
        "--set",
        "steps=3",
        "--set",
        "meta_steps=2",
        "--out",
        tmp_path / "o",
    )
    assert "unedited" in out
    content = json.loads((tmp_path / "o" / "results.json").read_text())
    assert [m["method"] for m in content["methods"]] == ["metake", "alphaedit", "memit"]
    assert content["glossary"]["efficacy"]
    assert content["statistics"]["tokens"] == 4000
    steps = [m["settings"]["planner"]["steps"] for m in content["methods"]]
    assert steps == [2, 3, 3]  # of the closed loop, and of both plans
    assert content["methods"][0]["settings"]["planner"]["start"]["steps"] == 3
    assert (tmp_path / "o" / "table.md").read_text().count("\n") == 6
    assert (tmp_path / "o" / "realization.png").stat().st_size > 5000
    assert "<h2>Methods compared</h2>" in (tmp_path / "o" / "report.html").read_text(encoding="utf-8")


def test_evaluate_resumes_and_restarts_after_the_end(run, stats, tmp_path, monkeypatch, write):
    """Evaluate goes on where it was and a finished one begins anew."""
    edit, edited, dies = Editor.edit, [], set()

    def counted(self, requests):
        edited.append(requests)
        if len(edited) in dies:
            raise SystemExit(9)
        return edit(self, requests)

    monkeypatch.setattr(Editor, "edit", counted)
    entries = json.loads((ASSETS / "world" / "test.json").read_text())[:4]

    def evaluate(folder, data):
        edited.clear()
        run(
            "evaluate",
            "--model",
            "demo",
            "--data",
            data,
            "--methods",
            "memit",
            "--no-generate",
            "--batch",
            2,
            "--layers",
            "1-3",
            "--stats",
            stats,
            "--set",
            "steps=2",
            "--out",
            folder,
        )
        (method,) = json.loads((folder / "results.json").read_text())["methods"]
        return len(edited), method["per_record"]

    data = write("data.json", json.dumps(entries))
    whole = evaluate(tmp_path / "whole", data)
    assert not (tmp_path / "whole" / "checkpoints").exists()
    dies.add(2)
    with pytest.raises(SystemExit):
        evaluate(tmp_path / "cut", data)
    assert evaluate(tmp_path / "cut", data) == (1, whole[1])
    dies.clear()
    assert evaluate(tmp_path / "cut", data) == whole
    dies.add(2)
    with pytest.raises(SystemExit):
        evaluate(tmp_path / "cut", data)
    dies.clear()
    entries[0]["loc"] = entries[1]["loc"]  # other questions of the same edits are another run
    assert evaluate(tmp_path / "cut", write("data.json", json.dumps(entries)))[0] == 2


def test_models_lists_names(run):
    listed = run("models")
    assert "smollm2" in listed
    assert all(family in listed for family in (*FAMILIES, *DESCRIBED))
    assert "demo-llama" in json.dumps(json.loads(run("models", "--json")))


@pytest.mark.deep
def test_edit_edits_the_real_model(run, tmp_path):
    out = run(
        "edit",
        "--model",
        "smollm2",
        "--request",
        "Which city was {} born in?",
        "--subject",
        "Niels Bohr",
        "--target",
        "Oslo",
        "--out",
        tmp_path / "o",
        "--delta-only",
    )
    assert "after:  'Oslo" in out
