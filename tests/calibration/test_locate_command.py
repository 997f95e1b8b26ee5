"""`metake locate`, and the options of the calibrated default on the command line."""

import json

import pytest

from metake.calibration.survey import survey
from metake.data.records import read_records
from metake.shipped import ASSETS
from tests.cases import EDIT

LOCATE = ["locate", "--model", "demo", "--method", "memit"]
FACT = EDIT[3:]


@pytest.fixture
def stats(statistics, tmp_path):
    statistics.save(tmp_path / "stats.safetensors")
    return tmp_path / "stats.safetensors"


def test_locate_writes_table_figure_and_measurements(call, stats, tmp_path, demo, requests, statistics):
    """The rows are those of `survey`, as are the layers and the reasons."""
    file = tmp_path / "facts.json"
    facts = [{"prompt": r.prompt, "subject": r.subject, "target_new": r.target_new} for r in requests]
    file.write_text(json.dumps(facts))
    out = tmp_path / "out"
    code, printed, errors = call(*LOCATE, "--requests", file, "--stats", stats, "--out", out)
    assert code == 0, errors
    expected = survey(demo, requests, "memit", statistics, windows=False)
    content = json.loads((out / "locate.json").read_text())
    assert content["rows"] == [pytest.approx(row) for row in expected.plain()["rows"]]
    assert content["reasons"] == list(expected.location.reasons)
    assert content["requests"] == facts
    assert (content["model"], content["method"]) == ("demo", "memit")
    table = (out / "locate.md").read_text()
    for row in expected.rows:
        assert "| " + " | ".join(row.cells) + " |" in table
        assert all(cell in printed for cell in row.cells)
    for line in expected.location.reasons:
        assert f"- {line}\n" in table
        assert line in printed
    assert (out / "locate.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in out.iterdir()) == ["locate.json", "locate.md", "locate.png"]


def test_locate_takes_one_fact_layers_and_settings(call, stats, tmp_path):
    options = ["--layers", "2-3", "--set", "attenuation=0.4", "--set", "lookup=subject", "--json"]
    code, printed, errors = call(*LOCATE, *FACT, *options, "--stats", stats, "--out", tmp_path / "out")
    assert code == 0, errors
    content = json.loads(printed)
    assert [(row["lookup"], row["layer"]) for row in content["rows"]] == [
        ("subject", 2),
        ("subject", 3),
        ("prompt", 2),
        ("prompt", 3),
    ]
    assert content["constraint"]["prompt"]["attenuation"] == 0.4
    assert "lookup subject: as given" in content["reasons"]
    assert content["out"] == str(tmp_path / "out")
    assert "mean |cos|" in errors


def test_locate_measures_development_facts_of_a_demo_model(call, stats, tmp_path, monkeypatch):
    """Without a request, 20 facts of the world; the folder is named after the model."""
    monkeypatch.chdir(tmp_path)
    code, printed, errors = call(*LOCATE, "--layers", "2", "--stats", stats, "--json")
    assert code == 0, errors
    facts = [record.request for record in read_records(ASSETS / "world" / "dev.json", 20)]
    assert [r["subject"] for r in json.loads(printed)["requests"]] == [r.subject for r in facts]
    assert (tmp_path / "results" / "locate" / "demo" / "locate.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--method", "memitt"], "unknown 'memitt'; did you mean 'memit' or 'memit-fe'?"),
        (["--method", "ultraedit"], "locate: ultraedit has no layered solves"),
        (["--layers", "x"], "layers: cannot read 'x'"),
        (["--layers", "7"], "layers: 7 is out of range"),
        (["--request", "{} is"], "locate: --subject is missing"),
        (["--requests", "no.json"], "no.json"),
        (["--set", "lrr=1"], "unknown 'lrr'; did you mean 'lr'?"),
        (["--set", "attenuation=1"], "attenuation: input should be less than 1"),
        (["--stats", "no.safetensors"], "no.safetensors"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_locate_refuses_bad_input_in_one_line(call, tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    code, printed, errors = call(*LOCATE, *arguments)
    assert (code, printed) == (2, "")
    *phases, last = errors.splitlines()
    assert last.startswith("metake: error: ")
    assert line in last
    assert all(phase.startswith("metake: load demo") for phase in phases)
    assert list(tmp_path.iterdir()) == []


def test_locate_needs_requests_of_another_model(call):
    code, _, errors = call("locate", "--model", "no-such-model")
    assert code == 2
    assert errors.splitlines() == [
        "metake: error: locate: --request is missing; give --request, --subject and --target, or --requests FILE"
    ]


def test_edit_with_preset_none_is_calibrated(call, stats, tmp_path):
    """Reasons are printed and in the result file; with the preset they are not calibrated."""
    edit = [*EDIT, "--method", "memit", "--stats", stats]
    code, printed, errors = call(*edit, "--preset", "none", "--out", tmp_path / "a")
    assert code in (0, 3), errors
    content = json.loads((tmp_path / "a" / "result.json").read_text())
    assert content["reasons"][0] == "settings: calibrated"
    assert all(line in printed for line in content["reasons"])
    assert content["constraint"]["attenuation"] == content["settings"]["geometry"]["attenuation"] == 0.9
    _, printed, _ = call(*edit, "--preview")
    assert "settings: preset demo" in printed
    assert "calibrated" not in printed


def test_edit_with_escalate_succeeds_where_it_fails_without(call, stats, tmp_path):
    """Exit code 3 and a line with the reason; with further attempts exit code 0."""
    settings = ["lam=100000", "lookup=prompt", "steps=10", "clamp=null", "lr=0.5"]
    edit = [*EDIT, "--method", "memit", "--stats", stats, "--layers", "1-3", "--delta-only"]
    edit += [part for setting in settings for part in ("--set", setting)]
    code, _, errors = call(*edit, "--out", tmp_path / "a")
    assert code == 3
    assert "failed edit: Nezan Girok: attenuation: " in errors
    code, _, errors = call(*edit, "--out", tmp_path / "b", "--escalate", "8")
    assert code == 0, errors
    before, after = (
        json.loads((tmp_path / name / "result.json").read_text())["constraint"]["lam"] for name in "ab"
    )
    assert after < before


def test_edit_that_fails_in_all_attempts_is_named(call, stats, tmp_path):
    """Exit code 3, and one line with the number of attempts and the reason."""
    edit = [*EDIT, "--method", "memit", "--stats", stats, "--layers", "1-3", "--delta-only"]
    edit += ["--set", "lam=1e12", "--set", "steps=2"]
    code, _, errors = call(*edit, "--out", tmp_path / "out", "--escalate", "1")
    assert code == 3
    (line,) = (line for line in errors.splitlines() if line.startswith("not edited: "))
    assert line.startswith("not edited: 1 of 1 edit with memit on layers [1, 2, 3], in 2 attempts")
    assert "(attenuation 1)" in line
