"""`long_run.py` measures a run batch by batch, resumes it, and its room is that of X13."""

import json
from itertools import islice

import pytest
import torch

from experiments import long_run
from experiments.long_run import Run, draw, facts, room, table, tenths
from metake.data.world import World
from metake.editor import Editor
from metake.solvers.memory import PastKeys
from tests.cases import method_of
from tests.scripts import call_here, refused

FEW = ("--edits", 6, "--batch", 2, "--every", 2, "--sample", 2, "--device", "cpu")
TIMES = ("seconds", "cpu_seconds", "resident")


def rows(folder):
    content = json.loads((folder / "demo.json").read_text())
    return {
        name: [{k: v for k, v in row.items() if k not in TIMES} for row in run]
        for name, run in content["runs"].items()
    }


def test_long_run_cut_and_resumed_writes_equal_numbers(tmp_path, cut_at):
    methods = ("--methods", "ultraedit")
    call_here("long_run.py", *FEW, *methods, "--out", tmp_path / "whole")
    with cut_at(3):
        call_here("long_run.py", *FEW, *methods, "--out", tmp_path / "cut", check=False)
        raise KeyboardInterrupt
    call_here("long_run.py", *FEW, *methods, "--out", tmp_path / "cut")
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    run = rows(tmp_path / "whole")["ultraedit"]
    assert [row["edits"] for row in run] == [2, 4, 6]
    assert ["efficacy" in row for row in run] == [True, False, True]
    pairs = json.loads((tmp_path / "cut" / "demo.json").read_text())["pairs"]["ultraedit"]
    assert len(pairs) == 7
    assert all(seconds > 0 for pair in pairs for seconds in pair)
    assert (tmp_path / "cut" / "demo.png").stat().st_size > 1000
    assert "| ultraedit | 6 |" in (tmp_path / "cut" / "demo.md").read_text()


def test_long_run_left_early_goes_on(tmp_path):
    """A first call whose time is over at once edits nothing more; the table is of what is there."""
    call_here("long_run.py", *FEW, "--methods", "ultraedit", "--out", tmp_path)
    before = rows(tmp_path)
    call_here(
        "long_run.py",
        "--edits",
        8,
        *FEW[2:],
        "--methods",
        "ultraedit",
        "--minutes",
        "1e-9",
        "--out",
        tmp_path,
    )
    assert rows(tmp_path) == before


def test_long_run_without_a_batch_writes_no_table(tmp_path):
    few = (*FEW, "--methods", "ultraedit", "--minutes", "1e-9", "--out", tmp_path)
    done = call_here("long_run.py", *few, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("--minutes 1e-09: no batch was finished; give more")
    assert not list(tmp_path.glob("demo.*"))


def test_facts_are_of_new_people_and_the_same_however_many_are_taken():
    taken = list(islice(facts(), 13_400))
    assert [r.request for r in islice(facts(), 40)] == [r.request for r in taken[:40]]
    assert len({r.request.text for r in taken}) == len(taken)
    assert not {r.request.subject for r in taken} & set(World().subjects)
    assert {r.request.target_new for r in taken} <= {v for r in World().relations for v in r.values}


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_room_is_the_sum_of_attenuations_beside_all_others(demo, statistics_of, records, monkeypatch, share):
    """X13, from the keys themselves; folded or not."""
    monkeypatch.setattr(PastKeys, "fold_share", share)
    method = method_of(demo, "memit + past-keys", layers=(2,), steps=3, lam=30.0, contexts=())
    with Editor(demo, method=method, statistics=statistics_of(demo), answers=False) as editor:
        keys = torch.cat([editor.edit(record.request).memory[2] for record in records[:3]], 1)
        base = editor.state.bases[2]
        each = [
            base.with_past(keys[:, [i for i in range(3) if i != j]]).attenuation(keys[:, j : j + 1])
            for j in range(3)
        ]
        assert room(editor) == pytest.approx(float(sum(each)) / demo.d_k, rel=1e-8)
    with Editor(demo, method=method_of(demo, "ultraedit", layers=(2,)), answers=False) as editor:
        assert room(editor) is None


def test_tenths_are_medians_without_the_first_batch():
    run = [{"x": 99.0}, *({"x": float(i)} for i in range(1, 31))]
    assert tenths(run, "x") == (2.0, 29.0)
    assert tenths(run[:1], "x") == (99.0, 99.0)
    row = {
        "edits": 2,
        "cpu_seconds": 1.0,
        "steps": 12.0,
        "resident": 5.0,
        "eta": 0.5,
        "efficacy": 1.0,
        "efficacy_last": 1.0,
        "locality": 0.5,
    }
    numbers = "| 12.0 | 12.0 | 5 | 5 | 100 | 100 | 50 | 0.500 | - |"
    assert "| m | 2 | 1.00 | 1.00 | - " + numbers in table({"m": Run([row], [])})
    pairs = [(1.0, 3.0), (2.0, 2.0), (4.0, 2.0)]
    assert "| m | 2 | 1.00 | 1.00 | 1.00 (0.50 to 3.00) " + numbers in table({"m": Run([row], pairs)})


def test_draw_tells_methods_without_a_color_of_their_own_apart(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(long_run, "save", lambda figure, path: figures.append(figure) or path)
    rows = [
        {"edits": n, "cpu_seconds": 1.0, "resident": 1.0, "efficacy": 1.0, "locality": 1.0, "eta": 1.0}
        for n in (5, 10)
    ]
    draw({"sphere": rows, "nas": rows}, 8, 5, tmp_path / "run.png")
    for axis in figures[0].axes:
        lines = [line for line in axis.lines if not line.get_label().startswith("d_k")]
        looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}
        assert len(looks) == len(lines) >= 2


def test_long_run_refuses_other_models(tmp_path):
    assert "of the demo models' world" in refused("long_run.py", "--model", "smollm2", out=tmp_path / "out")
