"""The paper's protocol as a command."""

import json

import numpy as np
import pytest

from experiments.run_zsre import PAPER, cells, chosen_methods, draw_records, summarise
from metake.errors import MetakeError
from metake.evaluation.metrics import PER_RECORD, Measurement
from metake.methods import METHODS
from metake.report.tables import latex
from tests.scripts import call, refused

SCRIPT = "run_zsre.py"


def test_the_command_writes_every_form_and_goes_on_where_it_was(tmp_path):
    quick = ("--edits", 4, "--batch", 2, "--seeds", 2, "--look-every", 1, "--no-generate", "--out", tmp_path)
    call(SCRIPT, *quick, "--methods", "rect")
    call(SCRIPT, *quick, "--methods", "rect,rome")
    content = json.loads((tmp_path / "results.json").read_text())
    assert list(content["summary"]) == ["unedited", "rect", "rome"]
    assert [len(runs) for runs in content["methods"].values()] == [2, 2]
    assert [point["edits"] for point in content["curves"]["rome"][1]] == [2, 4]
    assert {p.name for p in tmp_path.iterdir()} == {
        "results.json", "table.md", "table.tex", "table.csv", "curves.png", "runs"
    }  # fmt: skip
    seconds = [b["seconds"] for run in content["methods"]["rect"] for b in run["batches"]]
    call(
        SCRIPT, *quick, "--methods", "rect,rome"
    )  # nothing is done again: the times are those of the first run
    again = json.loads((tmp_path / "results.json").read_text())
    assert [b["seconds"] for run in again["methods"]["rect"] for b in run["batches"]] == seconds
    assert again["summary"] == content["summary"]
    done = call(SCRIPT, *quick, "--methods", "rect", "--batch", 4, check=False)
    assert done.returncode == 2
    assert "another batch" in done.stderr


def test_fluency_is_that_of_the_first_records(tmp_path):
    quick = ("--edits", 3, "--batch", 3, "--seeds", 1, "--methods", "rect", "--no-generate")
    call(SCRIPT, *quick, "--fluency", 2, "--out", tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    for measured in (content["before"], content["methods"]["rect"][0]):
        assert [value is None for value in measured["per_record"]["fluency"]] == [False, False, True]
    assert "fluency" in (tmp_path / "table.md").read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--methods", "nothing"), "unknown 'nothing'"),
        (("--edits", "0"), "--edits"),
        (("--seeds", "0"), "--seeds"),
        (("--model", "smollm2"), "--data"),
        (("--data", "missing.json"), "missing.json"),
    ],
)
def test_bad_input_is_one_line(arguments, complaint, tmp_path):
    assert complaint in refused(SCRIPT, *arguments, out=tmp_path / "out")


def test_methods_by_group():
    assert chosen_methods("paper") == list(PAPER)
    assert chosen_methods("all") == list(METHODS)
    with pytest.raises(MetakeError, match="unknown"):
        chosen_methods("memit, mimet")


def test_seed_0_is_the_files_order_and_others_are_samples():
    records = list(range(50))
    assert draw_records(records, 20, 0) == records[:20]
    drawn = draw_records(records, 20, 1)
    assert len(set(drawn)) == 20
    assert drawn != records[:20]
    assert draw_records(records, 20, 1) == drawn
    assert draw_records(records, 20, 2) != drawn


def measurement(value):
    return Measurement({m: np.full(10, value) for m in PER_RECORD}, 5.0, 4.0, [], [])


def test_intervals_are_over_seeds_from_three_on():
    """Against Student's t by hand: mean .5, deviation .1, n = 3 gives .1 / sqrt 3 * 4.303."""
    table = summarise([measurement(v) for v in (0.4, 0.5, 0.6)], [])
    assert table["efficacy"]["mean"] == pytest.approx(0.5)
    assert table["efficacy"]["high"] == pytest.approx(0.5 + 4.30265 * 0.1 / 3**0.5, rel=1e-4)
    two = summarise([measurement(v) for v in (0.4, 0.6)], [])["efficacy"]
    assert 0.4 <= two["low"] < 0.5 < two["high"] <= 0.6
    head, rows = cells({"unedited": table})
    assert head[1] == "Eff"
    assert rows[0][1] == "50.0 ±24.8"
    tex = latex(["a", "b_c"], [["x & y", "50.0 ±24.8"]])
    assert r"x \& y & 50.0 $\pm$24.8 \\" in tex
    assert r"b\_c" in tex
