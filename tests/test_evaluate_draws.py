"""`metake evaluate` with several draws, a paired comparison, and measurements in between."""

import json
import sys

import numpy as np
import pytest

from metake import cli
from metake.shipped import ASSETS
from tests.scripts import call_here

WORLD = ASSETS / "world" / "test.json"
QUICK = ["--methods", "rect,ultraedit", "--edits", 4, "--batch", 2, "--no-generate", "--data", WORLD]


@pytest.fixture
def evaluate(monkeypatch, capfd, tmp_path):
    """`evaluate(options)`: exit code, lines on stderr, and content of the result file."""

    def go(*options):
        arguments = ["evaluate", "--model", "demo", *QUICK, *options, "--out", tmp_path / "out"]
        monkeypatch.setattr(sys, "argv", ["metake", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("metake: error")]
        file = tmp_path / "out" / "results.json"
        return code, errors, json.loads(file.read_text()) if file.is_file() else {}

    return go


def test_evaluate_draws_and_compares_as_the_paper_does(evaluate, tmp_path):
    """The same means, intervals, differences and curves as `run_zsre.py`, number by number."""
    code, errors, found = evaluate("--seeds", 2, "--against", "ultraedit", "--measure-every", 1)
    assert (code, errors) == (0, [])
    options = ("--seeds", 2, "--against", "ultraedit", "--measure-every", 1, "--out", tmp_path / "paper")
    call_here("run_zsre.py", *QUICK, *options)
    wanted = json.loads((tmp_path / "paper" / "results.json").read_text())
    for content in (found, wanted):
        for metrics in content["summary"].values():
            metrics.pop("seconds_per_edit", None)
    assert found["summary"] == wanted["summary"]
    assert found["against"] == wanted["against"] == "ultraedit"
    assert found["differences"] == wanted["differences"]
    assert found["curves"] == wanted["curves"]
    assert [point["edits"] for point in found["curves"]["rect"][1]] == [2, 4]


def test_evaluate_keeps_the_rows_of_every_draw(evaluate, tmp_path):
    """Draw 0 at the top, as without `--seeds`; the differences are those of its records and the others'."""
    _, _, found = evaluate("--seeds", 2, "--against", "ultraedit")
    assert (found["seeds"], [draw["seed"] for draw in found["draws"]]) == (2, [1])
    assert found["requests"] != found["draws"][0]["requests"]
    rows = [found["methods"], found["draws"][0]["methods"]]
    assert [[row["method"] for row in draw] for draw in rows] == [["rect", "ultraedit"]] * 2
    rect, other = (np.concatenate([draw[i]["per_record"]["efficacy"] for draw in rows]) for i in (0, 1))
    assert found["differences"]["rect"]["efficacy"]["mean"] == pytest.approx((rect - other).mean(), abs=1e-6)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        "results.json",
        "options.json",
        "table.md",
        "differences.md",
        "realization.png",
        "report.html",
    }
    assert "| rect | " in (tmp_path / "out" / "differences.md").read_text()
    assert "±" in (tmp_path / "out" / "table.md").read_text()
    code, _, alone = evaluate("--overwrite")
    assert code == 0
    assert not {"seeds", "draws", "summary", "curves", "differences"} & set(alone)
    assert not (tmp_path / "out" / "differences.md").exists()
    for row, again in zip(found["methods"], alone["methods"], strict=True):
        assert (row["mean"], row["per_record"]) == (again["mean"], again["per_record"])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--seeds", 0), "--seeds"),
        (("--against", "rome"), "--against: unknown 'rome'; known: rect, ultraedit; name one of --methods"),
        (("--measure-every", 0), "--measure-every"),
        (("--measure-every", 1, "--alone"), "--alone measures after every batch"),
    ],
)
def test_evaluate_refuses_options_that_contradict(evaluate, options, complaint):
    code, errors, content = evaluate(*options)
    assert (code, len(errors), content) == (2, 1, {})
    assert complaint in errors[0]
