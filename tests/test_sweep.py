"""Every method over the strength of its constraint, as a command."""

import json

import pytest

from metake.models.load import load
from metake.presets import settings_for
from tests.scripts import call_here, refused

SCRIPT = "sweep.py"


def test_a_sweep_that_was_cut_goes_on_and_ends_the_same(tmp_path, cut_at):
    quick = ("--methods", "memit-compensated,ultraedit", "--factors", "3,0.3", "--edits", 4, "--batch", 2)
    with cut_at(4) as edited:  # in the second run of two batches
        call_here(SCRIPT, *quick, "--out", tmp_path / "cut")
    call_here(SCRIPT, *quick, "--out", tmp_path / "cut")
    call_here(SCRIPT, *quick, "--out", tmp_path / "whole")
    assert len(edited) == 4
    cut, whole = (json.loads((tmp_path / name / "demo.json").read_text()) for name in ("cut", "whole"))
    assert cut == whole
    assert {p.name for p in (tmp_path / "cut").iterdir()} == {"demo.json", "demo.md", "demo.png", "runs"}
    assert len(list((tmp_path / "cut").glob("runs/demo/*/batch-0001/batch.json"))) == 4
    arch = load("demo", device="cpu").arch
    weight = settings_for(arch, "memit-compensated").weight
    step = settings_for(arch, "ultraedit").gradient_lr
    assert [(p["method"], p["strength"]) for p in whole["points"]] == [
        ("memit-compensated", pytest.approx(0.3 * weight)), ("memit-compensated", pytest.approx(3 * weight)),
        ("ultraedit", pytest.approx(0.3 * step)), ("ultraedit", pytest.approx(3 * step)),
    ]  # fmt: skip
    weak, strong = (p["eta"][-1] for p in whole["points"][:2])
    assert weak > strong


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--methods", "nothing"), "unknown 'nothing'"),
        (("--edits", "0"), "--edits"),
        (("--batch", "0"), "--batch"),
        (("--factors", "0,1"), "--factors"),
        (("--model", "smollm2"), "--data"),
        (("--data", "missing.json"), "missing.json"),
        (("--stats", "missing.safetensors"), "missing.safetensors"),
    ],
)
def test_bad_input_is_one_line(arguments, complaint, tmp_path):
    assert complaint in refused(SCRIPT, *arguments, out=tmp_path / "out")
