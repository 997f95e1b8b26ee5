"""`closed_loop_cost.py` measures settings side by side, keeps what is finished, and does not mix runs."""

import json

import pytest
import torch

from experiments.closed_loop_cost import settings_of
from metake.shipped import ASSETS
from tests.scripts import call_here

FEW = ("--model", "demo", "--data", ASSETS / "world" / "dev.json")


def test_closed_loop_cost_goes_on_with_further_settings(tmp_path):
    def call(*variants, edits=2):
        options = ("--edits", edits, "--out", tmp_path, "--variants", *variants)
        return call_here("closed_loop_cost.py", *FEW, *options, check=False)

    def rows():
        return json.loads((tmp_path / "closed_loop_cost.json").read_text())["rows"]

    plain = "geometry=identity,steps=2,meta_steps=2"
    shared = f"from_lookup=true,{plain}"
    call(shared)
    first = rows()
    call(shared, plain)
    both = rows()
    assert list(both) == [shared, plain]
    assert both[shared] == first[shared]
    assert all(0 <= low <= mean <= high <= 1 for mean, low, high in both[plain]["metrics"].values())

    done = call(plain, edits=3)
    assert done.returncode == 2
    assert "holds another run; give another --out, or remove it" in done.stderr
    done = call(plain)
    assert done.returncode == 0
    assert rows() == both
    table = (tmp_path / "closed_loop_cost.md").read_text()
    assert f"| {plain} |" in table
    assert f"| {shared} |" in table
    assert table.strip() == done.stdout.strip()


def test_settings_of_a_variant_may_hold_commas_and_texts():
    assert settings_of('layers=[1,2],loss_dtype=bfloat16,planner.lr=0.5,x="a,b"') == {
        "layers": [1, 2],
        "loss_dtype": "bfloat16",
        "planner.lr": 0.5,
        "x": "a,b",
    }
    assert settings_of("-") == {}


@pytest.mark.parametrize(
    ("variant", "line"),
    [
        ("from_lookup", "--variants 'from_lookup': write NAME=VALUE,NAME=VALUE, or - for no settings"),
        ("", "--variants '': write NAME=VALUE"),
        ("loss_dtype=bfloat16", "loss_dtype bfloat16: not used, this CPU has no bf16 instructions"),
    ],
)
def test_closed_loop_cost_refuses_what_is_no_setting_or_has_no_effect(tmp_path, monkeypatch, variant, line):
    """In one line, before anything is measured or written."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    out = tmp_path / "out"
    done = call_here("closed_loop_cost.py", *FEW, "--out", out, "--variants", variant, check=False)
    assert done.returncode == 2
    assert line in done.stderr.splitlines()[-1]
    assert not out.exists()


def test_closed_loop_cost_measures_a_method_without_targets_or_statistics(tmp_path):
    call_here(
        "closed_loop_cost.py", *FEW, "--edits", 1, "--method", "grace", "--out", tmp_path, "--variants", "-"
    )
    (row,) = json.loads((tmp_path / "closed_loop_cost.json").read_text())["rows"].values()
    assert row["steps"] == []
    assert row["settings"]["patch"]["kind"] == "grace"
