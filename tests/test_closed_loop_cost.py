"""`closed_loop_cost.py` measures settings side by side, keeps what is finished, and does not mix runs."""

import json

from metake.shipped import ASSETS
from tests.scripts import call_here

FEW = ("--model", "demo", "--data", ASSETS / "world" / "dev.json")


def test_closed_loop_cost_goes_on_with_further_settings(tmp_path):
    def rows(*variants):
        call_here("closed_loop_cost.py", *FEW, "--edits", 2, "--out", tmp_path, "--variants", *variants)
        return json.loads((tmp_path / "closed_loop_cost.json").read_text())["rows"]

    first = rows("from_lookup=true,steps=2,meta_steps=2")
    both = rows("from_lookup=true,steps=2,meta_steps=2", "steps=2,meta_steps=2")
    assert list(both) == ["from_lookup=true,steps=2,meta_steps=2", "steps=2,meta_steps=2"]
    assert both["from_lookup=true,steps=2,meta_steps=2"] == first["from_lookup=true,steps=2,meta_steps=2"]
    assert all(
        0 <= low <= mean <= high <= 1 for mean, low, high in both["steps=2,meta_steps=2"]["metrics"].values()
    )

    done = call_here(
        "closed_loop_cost.py", *FEW, "--edits", 3, "--out", tmp_path, "--variants", "steps=2", check=False
    )
    assert done.returncode == 2
    assert "holds another run; give another --out, or remove it" in done.stderr
