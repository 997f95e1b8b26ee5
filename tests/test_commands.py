"""The command line itself: help, versions, and what each command prints where."""

import ast
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

import metake
from metake import cli
from metake.deltas import Delta
from metake.methods.table import METHODS
from metake.presets import check_changes, settings_for
from metake.report.tables import ellipsis
from metake.shipped import ASSETS
from metake.words import shown
from tests.cases import EDIT, EVALUATE, editor_of, tiny

COMMANDS = sorted(command.callback.__name__ for command in cli.app.registered_commands)


@pytest.fixture
def stats_of_demo(demo, statistics_of, tmp_path):
    statistics_of(demo).save(tmp_path / "stats.safetensors")
    return tmp_path / "stats.safetensors"


def test_help_and_versions_import_no_model_library():
    """In a process of its own: `metake` and every command's help, without torch or transformers."""
    code = f"""
import sys
from metake import cli
heavy = {{"torch", "transformers", "matplotlib", "numpy", "pydantic"}} & set(sys.modules)
for line in (["--help"], ["--version"], [], *([c, "--help"] for c in {COMMANDS})):
    sys.argv = ["metake", *line]
    try:
        cli.main()
    except SystemExit as end:
        assert end.code == (0 if line else 2)
heavy |= {{"torch", "transformers", "matplotlib", "numpy"}} & set(sys.modules)
sys.exit(f"imported: {{heavy}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_command_has_an_example(command, call):
    code, out, _ = call(command, "--help")
    assert code == 0
    assert f"Example: metake {command} " in " ".join(out.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_option_of_a_command_has_a_help(command):
    """The docstring of a command does not describe its arguments; the help of each option does."""
    options = typer.main.get_command(cli.app).commands[command].params
    assert [option.name for option in options if not getattr(option, "help", None)] == []


@pytest.mark.parametrize("folder", ["commands", "demo", "tuning"])
def test_command_functions_are_short(folder):
    """At most 60 lines, the declarations of the options included."""
    files = sorted((Path(metake.__file__).parent / folder).glob("*.py"))
    lengths = {
        f"{file.stem}.{node.name}": node.end_lineno - node.lineno + 1
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert {name: length for name, length in lengths.items() if length > 60} == {}


def test_versions_are_those_of_the_packages(call):
    code, out, errors = call("--version")
    assert (code, errors) == (0, "")
    assert out.splitlines()[0] == f"metake {metake.__version__}"
    assert f"torch {version('torch')}" in out.splitlines()
    assert f"transformers {version('transformers')}" in out.splitlines()


def test_command_names_a_missing_package(call, monkeypatch):
    def missing(name):
        raise cli.PackageNotFoundError(name)

    monkeypatch.setattr(cli, "version", missing)
    assert "torch: not installed" in call("--version")[1]


def test_bare_command_prints_the_help(call):
    code, out, errors = call()
    assert code == 2
    assert "Usage: metake" in out + errors
    assert "error" not in errors


def test_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "metake", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Usage: metake " in done.stdout


WORLD = ["--data", ASSETS / "world" / "test.json", "--edits", 2, "--no-generate"]
ULTRA = ["--method", "ultraedit"]
DOCUMENTS = {
    "models": (["models"], {"models", "families", "methods"}, 0),
    "preview": (
        [*EDIT, *ULTRA, "--preview"],
        {"model", "method", "version", "layers", "rho", "eta", "requests"},
        0,
    ),
    "edit": (
        [*EDIT, *ULTRA, "--out", "o"],
        {"model", "method", "version", "digest", "success", "answers", "out"},
        3,
    ),
    "evaluate": (
        [*EVALUATE[:-1], "ultraedit", *WORLD, "--out", "o"],
        {"model", "versions", "methods", "before", "out"},
        0,
    ),
    "sweep": (
        ["sweep", "--methods", "ultraedit", "--factors", "1", "--edits", 2, "--out", "o"],
        {"model", "points", "glossary", "out"},
        0,
    ),
    "drift": (
        ["drift", "--edits", 1, "--steps", 0, "--norms", 0, "--factors", "1", "--layers", 1, "--out", "o"],
        {"model", "verdicts", "edits", "out"},
        0,
    ),
    "stats": (
        ["stats", "--model", "demo", "--layers", 1, "--tokens", 700, "--out", "o"],
        {"model", "tokens", "layers", "thin", "out"},
        0,
    ),
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_json_output_is_one_document_on_stdout(case, call, monkeypatch, tmp_path):
    """JSON is one document and all else is on stderr."""
    monkeypatch.chdir(tmp_path)
    command, fields, ended = DOCUMENTS[case]
    code, out, errors = call(*command, "--json")
    assert code == ended, errors
    content = json.loads(out)
    assert set(content) >= fields
    if case == "models":
        assert errors == ""
    else:
        assert "metake: load demo: " in errors


def test_apply_prints_one_document(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    call(*EDIT, *ULTRA, "--delta-only", "--out", "o")
    code, out, errors = call("apply", "--model", "demo", "--delta", "o", "--out", "p", "--json")
    assert code == 0
    content = json.loads(out)
    assert content["digest"] == Delta.load(tmp_path / "o").digest
    assert content["out"] == "p"
    assert "saved the edited model" in errors


@pytest.mark.parametrize(
    "command", [["edit", "--color"], [*EDIT, "--method", "magic", "--out", "o"], ["apply"]]
)
def test_json_output_of_a_failed_command_is_empty(command, call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, errors = call(*command, "--json")
    assert (code, out) == (2, "")
    assert errors.count("\n") == 1
    assert errors.startswith("metake: error: ")


ASKED = ["What is the craft of Nezan Girok?", "What is the craft of Zumi Bama?"]


def test_ask_prints_greedy_answers(call, demo, write):
    answers = demo.ask(ASKED)
    code, out, _ = call("ask", "--model", "demo", ASKED[0], "--questions", write("q.txt", f"\n{ASKED[1]}\n"))
    assert code == 0
    assert out.splitlines() == [ASKED[0], f"  {answers[0]}", ASKED[1], f"  {answers[1]}"]


def test_ask_with_a_delta_prints_answers_before_and_after(call, demo, statistics_of, records, tmp_path):
    with editor_of(demo, statistics_of(demo), "memit", lam=1.0, lr=1.0, clamp=None) as editor:
        (answer,) = editor.edit(records[0].request).answers
        editor.delta.save(tmp_path / "d")
    assert answer.before != answer.after
    given = ["ask", "--model", "demo", "--delta", tmp_path / "d", "--tokens", 12, answer.question]
    code, out, _ = call(*given)
    assert (code, out) == (0, f"{answer.question}\n  before: {answer.before}\n  after:  {answer.after}\n")
    content = json.loads(call(*given, "--json")[1])
    row = {"question": answer.question, "before": answer.before, "after": answer.after}
    assert content["answers"] == [row]
    assert content["fingerprint"] == demo.fingerprint()
    assert content["delta"]["digest"] == Delta.load(tmp_path / "d").digest


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ([], "ask: no question"),
        (["--questions", "none.txt"], "none.txt: cannot be read"),
        (["x", "--delta", "none"], "none"),
        (["x", "--tokens", 0], "--tokens"),
        ([" "], "question is empty"),
    ],
)
def test_ask_refuses_bad_questions(more, complaint, call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, errors = call("ask", "--model", "demo", *more)
    assert (code, out) == (2, "")
    assert complaint in errors.splitlines()[-1]
    assert errors.splitlines()[-1].startswith("metake: error: ")


def test_ask_displays_truncated_answers_with_an_ellipsis(call, demo):
    """An answer that was cut ends with a word and an ellipsis.

    On display only: the document has the answer as the model gave it.
    """
    whole = demo.ask(ASKED[0], max_new_tokens=1)
    assert shown(whole, "…") != whole
    given = ("ask", "--model", "demo", "--tokens", 1, ASKED[0])
    code, out, _ = call(*given)
    assert (code, out.splitlines()[1]) == (0, f"  {shown(whole, ellipsis())}")
    assert json.loads(call(*given, "--json")[1])["answers"] == [{"question": ASKED[0], "answer": whole}]


def test_command_with_prompts_notes_an_unused_template(call, talking, tmp_path):
    """A template that is not used is a note of commands with prompts."""
    told = "metake: note: "
    _, _, errors = call("ask", "--model", talking, "Who?")
    assert [line for line in errors.splitlines() if "chat template" in line and line.startswith(told)] != []
    assert errors.count("chat template") == 1
    assert "chat template" not in call("ask", "--model", talking, "--chat", "Who?")[2]
    text = tmp_path / "t.txt"
    text.write_text("The mill is dark. " * 100)
    code, _, errors = call(
        "stats", "--model", talking, "--text", text, "--layers", "1", "--out", tmp_path / "s.safetensors"
    )
    assert (code, errors.count("chat template")) == (0, 0)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            "allocation=magic",
            "settings: allocation: unknown 'magic'; known: spread, square-roots, last, forward, boundary",
        ),
        ("fit=hard", "settings: fit: unknown 'hard'; known: least_squares, equality_constrained"),
        ("geometry=flat", "settings: geometry: unknown 'flat'; known: ridge, projected, identity"),
        ("stop=never", "settings: stop: unknown 'never'; known: planning_loss, post_edit_loss, none"),
        ("dtype=float16", "settings: dtype: unknown 'float16'; did you mean"),
        ("lr=-1", "settings: lr: "),
        ("lr=fast", "settings: lr: "),
        ("lamb=3", "settings: unknown 'lamb'; did you mean 'lam'?"),
    ],
)
@pytest.mark.parametrize("command", ["edit", "evaluate"])
def test_command_checks_settings_before_any_work(command, change, complaint, call, monkeypatch, tmp_path):
    """A changed setting is checked before any work.

    Before the model is loaded and statistics are collected.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f"metake.commands.{command}.load_model", None)
    given = EDIT if command == "edit" else (*EVALUATE, "--data", ASSETS / "world" / "dev.json")
    code, out, errors = call(*given, "--set", change, "--out", "o")
    assert (code, out) == (2, "")
    assert errors.startswith(f"metake: error: {complaint}")
    assert errors.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_check_settings_takes_every_shipped_setting():
    """Every setting that is shipped passes the check of changes.

    Each alone, as `--set` gives it: what a method's row and the defaults are made of.
    """
    model = tiny("gpt2")
    for row in METHODS.values():
        method = settings_for(model, row.name, layers=[1, 2])
        for _, part in method.named_components():
            for name in type(part).model_fields:
                value = getattr(part, name)
                check_changes({type(part).aliases.get(name, name): getattr(value, "kind", value)})


def test_edit_explains_every_column_once(call, stats_of_demo, tmp_path):
    code, out, _ = call(
        *EDIT,
        "--stats",
        stats_of_demo,
        "--layers",
        "2",
        "--set",
        "steps=2",
        "--set",
        "meta_steps=1",
        "--delta-only",
        "--out",
        tmp_path / "o",
    )
    assert code in (0, 3)
    lines = [line.split(": ")[0] for line in out.splitlines()]
    assert {name: lines.count(name) for name in ("eta", "predicted", "|r|/|h|", "realized")} == dict.fromkeys(
        ("eta", "predicted", "|r|/|h|", "realized"), 1
    )


def test_log_has_a_line_per_phase(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    _, _, errors = call(
        *EDIT, "--method", "memit", "--layers", "2", "--set", "steps=2", "--delta-only", "--out", "o"
    )
    said = [
        line.split(": ")[1]
        for line in errors.splitlines()
        if line.startswith("metake: ") and line.endswith(" s")
    ]
    assert said == ["load demo", "statistics", "evaluate", "plan", "solve", "evaluate"]
    assert "\r" not in errors
    assert "%|" not in errors
