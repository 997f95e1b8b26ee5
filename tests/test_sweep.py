"""Every method over the strength of its constraint, as a command."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metake.commands.sweep import expanded
from metake.errors import MetakeError
from metake.geometry.operator import Ridge
from metake.methods.base import Method
from metake.methods.table import method_named
from metake.models.load import load
from metake.presets import load_preset, settings_for
from metake.tuning.searched import searched_names
from metake.tuning.sweep import METHODS, METRICS, _table, at_factors
from tests.scripts import call_here, refused

SCRIPT = "sweep.py"


def test_sweep_interrupted_resumes_with_equal_results(tmp_path, cut_at):
    """An interrupted sweep resumes and ends the same."""
    quick = ("--methods", "memit-compensated,ultraedit", "--factors", "3,0.3", "--edits", 4, "--batch", 2)
    with cut_at(4) as edited:  # in the second run of two batches
        call_here(SCRIPT, *quick, "--out", tmp_path / "cut")
    call_here(SCRIPT, *quick, "--out", tmp_path / "cut")
    call_here(SCRIPT, *quick, "--out", tmp_path / "whole")
    assert len(edited) == 4
    cut, whole = (json.loads((tmp_path / name / "demo.json").read_text()) for name in ("cut", "whole"))
    assert {**cut, "written": ""} == {**whole, "written": ""}
    assert {p.name for p in (tmp_path / "cut").iterdir()} == {
        "demo.json",
        "demo.md",
        "demo.png",
        "options.json",
        "runs",
    }
    assert len(list((tmp_path / "cut").glob("runs/demo/*/batch-0001/batch.json"))) == 4
    model = load("demo", device="cpu")
    weight = settings_for(model, "memit-compensated").value("lam")
    step = settings_for(model, "ultraedit").value("gradient_lr")
    assert [(p["method"], p["strength"]) for p in whole["points"]] == [
        ("memit-compensated", pytest.approx(0.3 * weight)),
        ("memit-compensated", pytest.approx(3 * weight)),
        ("ultraedit", pytest.approx(0.3 * step)),
        ("ultraedit", pytest.approx(3 * step)),
    ]
    weak, strong = (p["eta"][-1] for p in whole["points"][:2])
    assert weak > strong


def test_sweep_varies_the_cost_of_a_loop_with_cost(tmp_path):
    """A loop with a cost is swept over its weight."""
    quick = ("--methods", "metake-priced", "--factors", "0.3,3", "--edits", 2, "--batch", 2)
    call_here(SCRIPT, *quick, "--out", tmp_path)
    points = json.loads((tmp_path / "demo.json").read_text())["points"]
    base = settings_for(load("demo", device="cpu"), "metake-priced")
    price = base.value("cost_weight")
    assert [p["strength"] for p in points] == pytest.approx([0.3 * price, 3 * price])
    used = [Method.model_validate(p["settings"]) for p in points]
    assert [method.value("cost_weight") for method in used] == [p["strength"] for p in points]
    assert {method.value("lam") for method in used} == {base.value("lam")}


def test_sweep_over_attenuations_has_the_same_ones_for_all_methods(tmp_path):
    """Without a preset methods are calibrated, and each one's first batch has the median attenuation that was asked for."""
    quick = ("--methods", "memit,alphaedit", "--attenuations", "0.6,0.2", "--edits", 5, "--batch", 5)
    call_here(
        SCRIPT, *quick, "--preset", "none", "--set", "steps=3", "--set", "layers=[3]", "--out", tmp_path
    )
    found = json.loads((tmp_path / "demo.json").read_text())
    assert [(p["method"], p["strength"]) for p in found["points"]] == [
        (name, eta) for name in ("memit", "alphaedit") for eta in (0.2, 0.6)
    ]
    for point in found["points"]:
        assert point["eta"] == [pytest.approx(point["strength"], abs=1e-3)]
        assert point["agreement"] >= 0.5
    assert found["reasons"]["memit"][0] == "settings: calibrated"


def test_strength_of_a_calibrated_method_is_an_attenuation():
    """Without either option calibrated methods have attenuations."""
    plain, calibrated = memit(), memit(attenuation=0.9)
    assert [m.value("lam") for m in expanded([plain], "1,2", None)[0]] == [15000, 30000]
    assert [m.value("attenuation") for m in expanded([calibrated], None, None)[0]] == [
        0.1,
        0.3,
        0.5,
        0.7,
        0.9,
    ]
    assert [m.value("attenuation") for m in expanded([plain], None, "0.4")[0]] == [0.4]
    assert len(expanded([plain], None, None)[0]) == 5
    with pytest.raises(MetakeError, match="--attenuations: grace has no constraint"):
        expanded([method_named("grace")], None, "0.5")


@given(eta=st.floats(0.01, 0.99), factor=st.floats(0.01, 100))
def test_factor_of_an_attenuation_is_that_of_lambda(eta, factor):
    """The geometry under the swept attenuation gives a key the eta that it has under lambda times the factor."""
    key = torch.tensor([[0.5], [2.0]], dtype=torch.float64)
    moment = torch.tensor([[2.0, 0.3], [0.3, 1.0]], dtype=torch.float64)
    rho = Ridge(moment, 1.0).attenuation(key)
    lam = float(rho / (1 - rho)) * (1 - eta) / eta  # the key has eta
    found = Ridge(moment, factor * lam).attenuation(key)
    (method,), _ = at_factors([memit(attenuation=eta)], [factor])
    torch.testing.assert_close(found, torch.tensor([method.value("attenuation")], dtype=torch.float64))


def memit(**changes):
    return method_named("memit").updated(**changes)


def test_table_leaves_out_the_eta_of_methods_without_a_constraint():
    """A gated memory has a step to vary and no attenuation."""
    point = dict.fromkeys(METRICS, 0.5) | {"method": "grace", "strength": 2.0, "eta": []}
    assert "| grace | 2 | - | 50.0 |" in _table([point])


def test_sweep_takes_constraints_of_the_preset_by_default(demo):
    """What is swept by default is what the preset has numbers for."""
    found = searched_names(demo, METHODS)
    assert found == [
        "memit + past-keys",
        "memit + past-keys@unstopped",
        "memit-compensated + past-keys",
        "alphaedit",
        "metake + past-keys",
    ]
    assert set(found) <= set(load_preset("demo")["methods"])
    assert searched_names(demo, ["rome", "memit-fe", "ultraedit"]) == [
        "rome + past-keys",
        "memit-fe",
        "ultraedit",
    ]
    assert searched_names(demo, METHODS, "none") == list(METHODS)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--methods", "nothing"), "unknown 'nothing'"),
        (("--edits", "0"), "--edits"),
        (("--batch", "0"), "--batch"),
        (("--factors", "0,1"), "--factors"),
        (("--attenuations", "a"), "--attenuations"),
        (("--attenuations", "0.5,1"), "below 1"),
        (("--attenuations", "0.5", "--factors", "1"), "--attenuations"),
        (("--preset", "missing.json"), "missing.json"),
        (("--set", "nothing=1"), "nothing"),
        (("--model", "smollm2"), "--data"),
        (("--data", "missing.json"), "missing.json"),
        (("--stats", "missing.safetensors"), "missing.safetensors"),
    ],
)
def test_sweep_reports_bad_input_in_one_line(arguments, complaint, tmp_path):
    assert complaint in refused(SCRIPT, *arguments, out=tmp_path / "out")
