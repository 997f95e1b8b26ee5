"""Logs: bars on a terminal only, and a line with its duration for each phase elsewhere."""

import ast
import io
import re
import sys
from pathlib import Path

import pytest

from metake import phases
from metake.models.load import bars_on_terminals
from metake.phases import log_phases, note, phase

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def program():
    log_phases("x")
    yield
    log_phases(None)


def bars(path):
    """Line and names of the keywords of every tqdm bar that a file makes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "tqdm":
            yield node.lineno, {keyword.arg: keyword.value for keyword in node.keywords}


def test_bars_are_hidden_without_a_terminal():
    """Every bar is hidden where stderr is no terminal."""
    found = 0
    for path in [*ROOT.glob("metake/**/*.py"), *ROOT.glob("experiments/**/*.py")]:
        for line, keywords in bars(path):
            found += 1
            assert "disable" in keywords, f"{path}:{line}"
            value = keywords["disable"]
            assert not (isinstance(value, ast.Constant) and value.value is False), f"{path}:{line}"
    assert found > 8


def test_phase_prints_a_line_with_its_duration(program, capsys):
    with phase("load"):
        pass
    assert re.fullmatch(r"x: load: \d+\.\d s\n", capsys.readouterr().err)


def test_phase_includes_phases_within_it(program, capsys, monkeypatch):
    """Phases within a phase are parts of its line."""
    times = iter([0.0, 1.0, 3.0, 3.0, 3.5, 4.0, 6.0, 7.0])
    monkeypatch.setattr(phases.time, "perf_counter", lambda: next(times))
    with phase("batch"):
        with phase("plan"):
            pass
        with phase("solve"):
            pass
        with phase("plan"):
            pass
    assert capsys.readouterr().err == "x: batch: 7.0 s (plan 4.0 s, solve 0.5 s)\n"


def test_phase_that_fails_prints_no_line(program, capsys):
    """A failed phase has no line and leaves none open."""
    with pytest.raises(ValueError, match="no"), phase("batch"), phase("plan"):
        raise ValueError("no")
    assert capsys.readouterr().err == ""
    with phase("load"):
        pass
    assert capsys.readouterr().err.startswith("x: load: ")


def test_phase_prints_nothing_on_a_terminal_or_in_python(program, capsys, monkeypatch):
    """No phase is printed on a terminal or outside of a program."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with phase("load"):
        pass
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    log_phases(None)
    with phase("load"):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("terminal", [False, True])
def test_gguf_bar_is_shown_on_a_terminal_only(terminal, monkeypatch):
    from transformers import modeling_gguf_pytorch_utils as reader

    own = reader.tqdm
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    with bars_on_terminals():
        assert bool(reader.tqdm([1], file=stream).disable) is not terminal
    assert reader.tqdm is own


def test_note_is_printed_at_once(program, capsys, monkeypatch):
    """A note is printed at once where phases are."""
    note("statistics: collecting")
    assert capsys.readouterr().err == "x: statistics: collecting\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    note("hidden by bars")
    log_phases(None)
    note("in Python")
    assert capsys.readouterr().err == ""
