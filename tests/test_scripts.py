"""Whatever a user can get wrong with a script ends in one line that names it, exit code 2, and nothing written."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from typing import get_args, get_type_hints

import pytest

from metake.commands.common import above_zero
from metake.shipped import ASSETS
from tests.scripts import EXPERIMENTS, SCRIPTS, call_here

# scripts that are commands of `metake` under another name
COMMANDS = {
    name: import_module(f"experiments.{name}").main
    for name, text in SCRIPTS.items()
    if "main = Script(" in text
}


def parameters(name):
    """Type and declaration of every option of a script that is a command, by its name."""
    hints = get_type_hints(COMMANDS[name].function, include_extras=True)
    hints.pop("return")
    found = {}
    for field, hint in hints.items():
        kind, info = get_args(hint)
        # typer takes the first declaration in an annotation for a default
        declared = [name for name in (info.default, *(info.param_decls or ())) if isinstance(name, str)]
        option = declared[0] if declared else f"--{field.replace('_', '-')}"
        found[option] = kind, info
    return found


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_scripts_print_under_their_names(name):
    """Every script prints under its name."""
    assert re.search(
        rf'@command\("{name}"\)\ndef main\(|^main = Script\("{name}", ', SCRIPTS[name], re.MULTILINE
    )


@pytest.mark.parametrize(
    "name",
    sorted(
        n
        for n, text in SCRIPTS.items()
        if '"--out"' in text or "--out" in ((n in COMMANDS and parameters(n)) or ())
    ),
)
def test_scripts_refuse_unwritable_paths_before_any_work(name, tmp_path, monkeypatch):
    """A place that cannot be written is named before any work."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    for place, complaint in (
        ("file/x", "Not a directory"),
        ("file", "is a file"),
        ("/proc/x", "cannot be written"),
    ):
        done = call_here(f"{name}.py", "--out", place, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith(f"{name}: error: {place}: ")
        assert complaint in done.stderr
        assert done.stderr.strip().count("\n") == 0
    assert (tmp_path / "file").read_text() == "mine"


def numbers(text):
    """Option, type and least value of every number that a script takes."""
    return re.findall(
        r'"(--[a-z-]+)",\s+(?:dest="strength",\s+)?type=(at_least|positive|int|float)\b(?:\((\d)\))?', text
    )


@pytest.mark.parametrize("name", sorted(name for name, text in SCRIPTS.items() if numbers(text)))
def test_scripts_have_a_range_for_every_number(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for option, kind, low in numbers(SCRIPTS[name]):
        assert kind in ("at_least", "positive")  # not any number there is
        bad = (str(int(low) - 1), "-5", "x", "1.5") if kind == "at_least" else ("0", "-5", "nan", "inf", "x")
        for value in bad:
            done = call_here(f"{name}.py", f"{option}={value}", check=False)
            assert done.returncode == 2
            assert done.stderr.startswith(f"{name}: error: {option}: ")
            assert done.stderr.strip().count("\n") == 0


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("compare_statistics.py --text missing.txt --out out", "missing.txt: cannot be read"),
        ("compare_statistics.py --text text.txt --weights 1,x --out out", "--weights 1,x: write numbers"),
        ("compare_statistics.py --text text.txt --data missing.json --out out", "missing.json"),
        ("full_width.py --arch gpt2-xl --methods memit,nothing --out out", "unknown 'nothing'"),
        ("compare_gradients.py --weights 0 --out out", "--weights 0: all have to be above 0"),
        ("compare_gradients.py --rates x --out out", "--rates x: write numbers"),
        ("compare_gradients.py --dev missing.json --out out", "missing.json"),
        ("drift_overview.py missing --out out", "missing/drift.json: cannot be read"),
        ("demo.py --skip-real --edits 0 --out out", "Invalid value for '--edits': "),
        ("demo.py --skip-real --model /nowhere --out out", "/nowhere: no such model folder"),
        ("statistics_convergence.py --text missing.txt --out out", "missing.txt: cannot be read"),
        ("benchmark.py --batch 0 --out out", "--batch: must be at least 1, got 0"),
        ("fine_tune_after.py --rates 1e-4,x --out out", "--rates 1e-4,x: write numbers"),
        ("fine_tune_after.py --data missing.json --out out", "missing.json"),
        ("sample_text.py --model /nowhere", "/nowhere: no such model folder"),
        ("tune.py --journal out --methods memit,nothing", "unknown 'nothing'"),
        ("tune.py --journal out --trials 0", "Invalid value for '--trials': "),
        ("tune.py --journal out --data missing.json", "missing.json"),
        ("tune.py --journal out --factors 3,-1", "--factors 3,-1: all have to be above 0"),
        ("tune.py --journal out --set nothing=3", "--set: unknown 'nothing'; known: "),
        ("tune.py --journal out --winners-of nothing", "nothing.json: cannot be read"),
        ("tune.py --out out --journal out --model smollm2", "--data: needed for smollm2"),
        (
            "tune.py --out out --journal out --model /nowhere --data records.json",
            "/nowhere: no such model folder",
        ),
    ],
)
def test_scripts_report_bad_input_in_one_line(command, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("The mill is dark.")
    (tmp_path / "records.json").write_bytes((ASSETS / "world" / "dev.json").read_bytes())
    done = call_here(*command.split(), check=False)
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert done.stderr.startswith(command.split(".")[0] + ": error: ")
    assert done.stderr.strip().count("\n") == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_commands_have_a_range_for_every_number(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for option, (kind, info) in parameters(name).items():
        if kind not in (int, float, int | None, float | None):
            continue
        assert info.min is not None or info.parser is above_zero, option  # not any number there is
        bad = ("0", "-5", "nan", "inf", "x") if info.min is None else (str(info.min - 1), "x", "1.5")
        for value in bad:
            done = call_here(f"{name}.py", f"{option}={value}", check=False)
            assert done.returncode == 2
            assert done.stderr.startswith(f"{name}: error: Invalid value for '{option}': ")
            assert done.stderr.strip().count("\n") == 0


def options(text):
    """Name and help of every option that a script's text adds."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            said = [keyword.value for keyword in node.keywords if keyword.arg == "help"]
            yield node.args[0].value, said[0].value if said else ""


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_commands_have_one_line_of_help_per_option(name):
    """Every option of a command has one line of help."""
    assert parameters(name)
    for option, (_, info) in parameters(name).items():
        assert info.help, option
        assert "\n" not in info.help, option


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_scripts_have_one_line_of_help_per_option(name):
    for option, said in options(SCRIPTS[name]):
        assert said, option
        assert "\n" not in said, option


def test_scripts_show_help_without_model_libraries(tmp_path):
    """The help of every script needs no model library.

    In a process of its own, where importing them fails; as `python experiments/NAME.py --help`.
    """
    code = f"""
import runpy, sys
for name in ("torch", "transformers", "numpy", "matplotlib", "optuna", "scipy", "tqdm", "yaml"):
    sys.modules[name] = None
for script in {sorted(SCRIPTS)}:
    sys.argv = [script, "--help"]
    try:
        runpy.run_path(f"{EXPERIMENTS}/{{script}}.py", run_name="__main__")
    except SystemExit as end:
        assert not end.code, script
    else:
        raise AssertionError(script)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.lower().count("usage: ") == len(SCRIPTS)


def test_scripts_list_their_options_in_help(monkeypatch):
    done = call_here("run_zsre.py", "--help")
    assert all(f"  {option}" in done.stdout for option, _ in options(SCRIPTS["run_zsre"]))
    assert "default: 2000, or 100 on a demo model" in done.stdout
    done = call_here("measure_drift.py", "--help")
    assert all(f" {option} " in done.stdout for option in parameters("measure_drift"))
    assert re.search(r"Number of facts\.\s*\[default: 8\]", done.stdout)
