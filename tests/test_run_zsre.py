"""The paper's protocol as a command."""

import json
import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.run_zsre import PAPER, chosen_methods
from metake.data.records import Record
from metake.errors import MetakeError
from metake.evaluation.consistency import find_references
from metake.evaluation.draws import draw_records
from metake.evaluation.metrics import PER_RECORD, Measurement
from metake.evaluation.summary import differences, signed, summarize, summary_table
from metake.methods.table import METHODS
from metake.report.tables import latex
from metake.requests import EditRequest
from tests.scripts import call, call_here, refused

SCRIPT = "run_zsre.py"


def test_run_zsre_writes_every_format_and_resumes(tmp_path):
    """The command writes every form and goes on where it was."""
    quick = (
        "--edits",
        4,
        "--batch",
        2,
        "--seeds",
        2,
        "--measure-every",
        1,
        "--no-generate",
        "--out",
        tmp_path,
    )
    call(SCRIPT, *quick, "--methods", "rect")
    call_here(SCRIPT, *quick, "--methods", "rect,ultraedit", "--against", "ultraedit")
    content = json.loads((tmp_path / "results.json").read_text())
    assert list(content["summary"]) == ["unedited", "rect", "ultraedit"]
    assert [len(runs) for runs in content["methods"].values()] == [2, 2]
    points, second = content["curves"]["rect"][1], content["methods"]["rect"][1]["batches"][1]
    assert [point["edits"] for point in points] == [2, 4]
    assert len(second["eta"]) > 1, "several layers, of which the curve shows the last"
    assert points[1]["attenuation"] == pytest.approx(np.mean(second["eta"][-1]))
    assert {p.name for p in tmp_path.iterdir()} == {
        "results.json",
        "table.md",
        "table.tex",
        "table.csv",
        "curves.png",
        "differences.md",
        "runs",
    }
    rect, other = (
        np.concatenate([run["per_record"]["efficacy"] for run in content["methods"][name]])
        for name in ("rect", "ultraedit")
    )
    assert content["differences"]["rect"]["efficacy"]["mean"] == pytest.approx((rect - other).mean())
    assert "| rect | " in (tmp_path / "differences.md").read_text()
    seconds = [b["seconds"] for run in content["methods"]["rect"] for b in run["batches"]]
    # nothing is done again: the times are those of the first run
    call_here(SCRIPT, *quick, "--methods", "rect,ultraedit")
    again = json.loads((tmp_path / "results.json").read_text())
    assert [b["seconds"] for run in again["methods"]["rect"] for b in run["batches"]] == seconds
    assert again["summary"] == content["summary"]
    done = call_here(SCRIPT, *quick, "--methods", "rect", "--batch", 4, check=False)
    assert done.returncode == 2
    assert "another batch" in done.stderr


def test_run_zsre_interrupted_shows_what_was_measured(tmp_path, cut_at):
    """An interrupted run shows what was measured."""
    command = (
        SCRIPT,
        "--edits",
        6,
        "--batch",
        2,
        "--seeds",
        1,
        "--measure-every",
        1,
        "--no-generate",
        "--methods",
        "ultraedit",
        "--out",
        tmp_path,
    )
    with cut_at(3):
        call_here(*command)
    cut = json.loads((tmp_path / "partial.json").read_text())
    assert (cut["method"], cut["seed"], [p["edits"] for p in cut["curve"]]) == ("ultraedit", 0, [2, 4])
    call_here(*command)
    whole = json.loads((tmp_path / "results.json").read_text())["curves"]["ultraedit"][0]
    assert [p["edits"] for p in whole] == [2, 4, 6]
    assert all(seen.items() <= p.items() for seen, p in zip(cut["curve"], whole, strict=False))
    assert not (tmp_path / "partial.json").exists()


@pytest.fixture
def counterfact(records, write):
    """Three of the world's records in CounterFact's original format, with an attribute each."""
    entries = [
        {
            "requested_rewrite": {
                "prompt": r.request.prompt,
                "subject": r.request.subject,
                "relation_id": "P1",
                "target_new": {"str": r.request.target_new, "id": f"Q{i}"},
                "target_true": {"str": r.ground_truth},
            },
            "paraphrase_prompts": [r.rephrase],
            "neighborhood_prompts": [r.locality],
            "generation_prompts": ["The market", "The mill"],
        }
        for i, r in enumerate(records[:3])
    ]
    return write("counterfact.json", json.dumps(entries))


@pytest.fixture
def references(write):
    """Texts about the attributes of the first and third of them."""
    about = {"Q0": "The market is in the old town.", "Q2": "The mill stands by the river."}
    entries = [
        {"relation_id": "P1", "target_id": k, "samples": [{"text": text}]} for k, text in about.items()
    ]
    return write("snippets.json", json.dumps(entries))


def test_run_zsre_judges_sampled_text_before_and_after(counterfact, references, tmp_path):
    """Fluency of the first two records; consistency where there are reference texts as well."""
    quick = ("--data", counterfact, "--edits", 3, "--batch", 3, "--seeds", 1, "--methods", "rect")
    sampled = ("--no-generate", "--fluency", 2, "--references", references, "--out", tmp_path / "out")
    call_here(SCRIPT, *quick, *sampled)
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    for measured in (content["before"], content["methods"]["rect"][0]):
        values = measured["per_record"]
        assert [value is None for value in values["fluency"]] == [False, False, True]
        assert [value is None for value in values["consistency"]] == [False, True, True]
        assert 0 < values["consistency"][0] == measured["mean"]["consistency"] < 1
    assert {"fluency", "consistency"} <= set(content["glossary"])
    head = (tmp_path / "out" / "table.md").read_text().splitlines()[0]
    assert "| fluency | cons. |" in head
    references.write_text(references.read_text().replace("river", "sea"))  # other texts, another run
    done = call_here(SCRIPT, *quick, *sampled, check=False)
    assert done.returncode == 2
    assert "another measured" in done.stderr


def test_run_zsre_refuses_references_of_other_records(records, references):
    known = [replace(records[0], attribute=("P1", "Q0"))]
    assert find_references(references, known, "data.json").about(known[0]).startswith("The market")
    with pytest.raises(MetakeError, match=r"data.json: no record has relation_id .* give multi_counterfact"):
        find_references(references, records, "data.json")
    others = [replace(records[0], attribute=("P1", "Q9"))]
    with pytest.raises(MetakeError, match=r"snippets.json: no text is about an attribute of data.json"):
        find_references(references, others, "data.json")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--methods", "nothing"), "unknown 'nothing'"),
        (("--edits", "0"), "--edits"),
        (
            ("--methods", "rect", "--against", "rome"),
            "--against: unknown 'rome'; known: rect; name one of --methods",
        ),
        (("--seeds", "0"), "--seeds"),
        (("--untuned", "--preset", "missing.json"), "--preset: --untuned takes the published defaults"),
        (("--preset", "missing.json"), "missing.json: cannot be read"),
        (("--per-subject", "9"), "no subject with so many"),
        (("--model", "smollm2"), "--data"),
        (("--data", "missing.json"), "missing.json"),
        (("--references", "missing.json"), "give --fluency N as well"),
        (("--references", "missing.json", "--fluency", 2), "missing.json: cannot be read"),
    ],
)
def test_run_zsre_reports_bad_input_in_one_line(arguments, complaint, tmp_path):
    assert complaint in refused(SCRIPT, *arguments, out=tmp_path / "out")


def test_run_zsre_has_methods_by_group():
    assert chosen_methods("paper") == list(PAPER)
    assert set(METHODS) - set(chosen_methods("all")) == {"malmen", "mend", "rledit", "horse"}  # need a map
    with pytest.raises(MetakeError, match="unknown"):
        chosen_methods("memit, mimet")


def test_run_zsre_samples_seeds_but_0():
    """Seed 0 is the file's order and others are samples."""
    records = [Record(EditRequest("Where was {} born?", f"Person {i}", "Oslo")) for i in range(50)]
    assert draw_records(records, 20, 0) == records[:20]
    drawn = draw_records(records, 20, 1)
    assert len({record.request.subject for record in drawn}) == 20
    assert drawn != records[:20]
    assert draw_records(records, 20, 1) == drawn
    assert draw_records(records, 20, 2) != drawn


def test_run_zsre_keeps_facts_of_a_subject_together(records):
    """Facts of a subject stand side by side."""
    about = {"a": 3, "b": 1, "c": 2, "d": 4}
    made = [
        replace(records[0], request=replace(records[0].request, subject=s))
        for s, n in about.items()
        for _ in range(n)
    ]
    random.Random(0).shuffle(made)
    for seed in (0, 1, 2):
        drawn = [r.request.subject for r in draw_records(made, 100, seed, per_subject=2)]
        assert sorted(drawn) == ["a", "a", "c", "c", "d", "d"]
        assert drawn[::2] == drawn[1::2]
    assert draw_records(made, 100, 0, per_subject=5) == []


def measurement(value):
    return Measurement({m: np.full(10, value) for m in PER_RECORD}, 5.0, 4.0, [], [])


def test_run_zsre_has_intervals_from_three_seeds_on():
    """Against Student's t by hand: mean .5, deviation .1, n = 3 gives .1 / sqrt 3 * 4.303."""
    table = summarize([measurement(v) for v in (0.4, 0.5, 0.6)], [])
    assert table["efficacy"]["mean"] == pytest.approx(0.5)
    assert table["efficacy"]["high"] == pytest.approx(0.5 + 4.30265 * 0.1 / 3**0.5, rel=1e-4)
    two = summarize([measurement(v) for v in (0.4, 0.6)], [])["efficacy"]
    assert 0.4 <= two["low"] < 0.5 < two["high"] <= 0.6
    head, rows = summary_table({"unedited": table})
    assert head[1] == "Eff"
    assert rows[0][1] == "50.0 ±24.8"
    tex = latex(["a", "b_c"], [["x & y", "50.0 ±24.8"]])
    assert r"x \& y & 50.0 $\pm$24.8 \\" in tex
    assert r"b\_c" in tex


def test_run_zsre_compares_methods_fact_by_fact():
    """A difference is taken fact by fact.

    Facts differ by far more than methods do; a seed that only one of them has run is left out.
    """
    rng = np.random.default_rng(0)
    hard = [rng.random(50) for _ in range(2)]
    hard[0][7] = np.nan  # nothing to ask about this one

    def run(values):
        measured = Measurement({name: values for name in PER_RECORD}, 1.0, 1.0, [], [])
        return SimpleNamespace(after=measured)

    ours = [run(values) for values in hard]
    rows = {"metake": ours, "memit": [run(hard[0] - 0.1 + rng.normal(0, 0.02, 50))]}
    found = differences(rows, "metake")
    assert set(found) == {"memit"}
    apart = found["memit"]["generalization"]
    assert apart["low"] < -0.1 < apart["high"]
    assert apart["high"] - apart["low"] < 0.02
    assert signed(apart).startswith("-10.")
    assert signed({"mean": None, "low": None, "high": None}) == "-"
