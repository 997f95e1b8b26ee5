"""Ctrl-C ends every command and script in one line that says what is saved, and exit code 130."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from metake import cli
from metake.console import NO_PARTIAL_FILES, command, set_interrupt_message
from metake.editor import Editor
from metake.shipped import ASSETS
from tests.cases import EDIT, EVALUATE
from tests.scripts import SCRIPTS, call_here

DATA = str(ASSETS / "world" / "test.json")


def interrupted(*_, **__):
    raise KeyboardInterrupt


@pytest.fixture
def stopped(monkeypatch, capsys):
    """`stopped(arguments)`: the line of an interrupted `metake` command."""

    def go(*arguments):
        monkeypatch.setattr(sys, "argv", ["metake", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 130
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "interrupted" in line]
        return line

    return go


def test_edit_interrupted_saves_nothing(stopped, monkeypatch, tmp_path):
    monkeypatch.setattr(Editor, "edit", interrupted)
    out = tmp_path / "o"
    line = stopped(*EDIT, "--method", "ultraedit", "--out", out)
    assert line == f"metake: interrupted: nothing was saved in {out}; rerun the command to start again"
    assert not out.exists()


def test_edit_interrupted_at_its_figure_is_saved(stopped, monkeypatch, tmp_path):
    monkeypatch.setattr("metake.report.figures.plot_realization", interrupted)
    out = tmp_path / "o"
    line = stopped(*EDIT, "--method", "ultraedit", "--delta-only", "--out", out)
    assert line == f"metake: interrupted: the result is saved in {out}"
    assert (out / "delta.safetensors").is_file()


def test_evaluate_interrupted_resumes(stopped, monkeypatch, tmp_path):
    """What the line promises: the batch before Ctrl-C is not edited again."""
    edit, edited, out = Editor.edit, [], tmp_path / "o"

    def second(self, requests):
        edited.append(requests)
        return interrupted() if len(edited) == 2 else edit(self, requests)

    monkeypatch.setattr(Editor, "edit", second)
    arguments = [
        *EVALUATE[:-1],
        "ultraedit",
        "--data",
        DATA,
        "--edits",
        4,
        "--batch",
        2,
        "--no-generate",
        "--out",
        out,
    ]
    line = stopped(*arguments)
    assert (
        line
        == f"metake: interrupted: finished batches are in {out / 'checkpoints'}; rerun the command to resume"
    )
    monkeypatch.setattr(sys, "argv", ["metake", *map(str, arguments)])
    cli.main()
    assert len(edited) == 3
    assert json.loads((out / "results.json").read_text())["methods"][0]["method"] == "ultraedit"


def test_stats_interrupted_names_its_partial_file(stopped, monkeypatch, tmp_path):
    """Interrupted statistics name their partial file."""
    monkeypatch.setattr("metake.geometry.covariance.collect", interrupted)
    line = stopped("stats", "--model", "demo", "--layers", 1, "--out", tmp_path / "s.safetensors")
    assert f"{tmp_path / 's.safetensors'} was not written" in line
    assert "resume from s.safetensors.partial" in line


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_script_interrupted_exits_with_130(name, monkeypatch):
    """Every script ends with 130."""
    monkeypatch.setattr("argparse.ArgumentParser.parse_args", interrupted)
    monkeypatch.setattr("typer.core.TyperCommand.make_context", interrupted)
    done = call_here(f"{name}.py", check=False)
    assert done.returncode == 130
    assert done.stderr == f"\n{name}: interrupted: {NO_PARTIAL_FILES}\n"


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        (
            "run_zsre",
            ("--methods", "ultraedit", "--edits", 2, "--batch", 1, "--seeds", 1),
            "finished batches are in {}/runs",
        ),
        ("sweep", ("--methods", "ultraedit", "--edits", 2), "finished batches are in {}/runs/demo"),
        ("compare_gradients", ("--edits", 2), "finished trials are in {}"),
    ],
)
def test_script_interrupted_names_its_resumption(script, arguments, said, monkeypatch, tmp_path):
    """Scripts that resume say so."""
    monkeypatch.setattr(Editor, "edit", interrupted)
    done = call_here(f"{script}.py", *arguments, "--out", tmp_path / "o", check=False)
    assert done.returncode == 130
    assert f"{script}: interrupted: {said.format(tmp_path / 'o')}" in done.stderr
    assert "rerun the command to resume" in done.stderr


def test_tune_interrupted_names_its_journal(monkeypatch, tmp_path):
    tuning = pytest.importorskip("metake.tuning.run")
    monkeypatch.setattr(tuning, "search", interrupted)
    monkeypatch.setattr(tuning, "find_statistics", lambda *_: None)
    done = call_here("tune.py", "--journal", tmp_path / "j", "--out", tmp_path / "o", check=False)
    assert done.returncode == 130
    assert f"finished trials are in {tmp_path / 'j'}; rerun the command to resume" in done.stderr


def test_command_inherits_no_line_of_another(capsys):
    """A command does not inherit what another printed."""

    @command("x")
    def program(line):
        if line:
            set_interrupt_message(line)
        interrupted()

    for line, wanted in (("all is saved", "all is saved"), (None, NO_PARTIAL_FILES)):
        with pytest.raises(SystemExit):
            program(line)
        assert capsys.readouterr().err == f"\nx: interrupted: {wanted}\n"


def test_command_ends_at_a_real_signal(tmp_path):
    out = tmp_path / "s.safetensors"
    arguments = [
        "-m",
        "metake.cli",
        "stats",
        "--model",
        "demo",
        "--layers",
        "1-4",
        "--text",
        str(tmp_path / "t"),
        "--out",
        str(out),
    ]
    (tmp_path / "t").write_text("The mill is dark and the river is cold. " * 20_000)
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a background job of a shell ignores it
    )
    begun = process.stderr.read(1)  # its first note or bar
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    errors = begun + process.communicate(timeout=300)[1]
    assert process.returncode == 130, errors
    assert "metake: interrupted: " in errors
    assert "Traceback" not in errors
    assert not out.exists()
