"""Where updates act, against one pass per prompt, and the command."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import metake as mk
from experiments import where_updates_act as script
from experiments.where_updates_act import KINDS, moved_by, read_deltas
from metake.models.tokens import encode
from metake.models.trace import frozen, run
from metake.patches.grace import Codebook
from metake.prompts import Batch
from metake.shipped import ASSETS
from tests.scripts import call_here, refused

LAYER, DATA = 2, ASSETS / "world" / "dev.json"


@pytest.fixture
def delta(demo):
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(d, 3, generator=generator) for d in (demo.d_v, demo.d_k))
    return mk.Delta({LAYER: (left, right)}, model=demo.fingerprint())


def changes(model, text, delta):
    """D k of every token of a text, by a pass of its own."""
    with frozen(model.model), torch.no_grad():
        ids = torch.tensor([encode(model.tokenizer, text).ids])
        return (
            run(model, ids, keys=(LAYER,), stop=LAYER).keys[LAYER][0].double()
            @ delta.to_dense(LAYER).T.double()
        )


def test_norms_are_those_of_passes_of_one_prompt(demo, records, delta):
    chosen = records[:4]
    found = moved_by(demo, chosen, {"some": delta}, max_tokens=24)["some"][LAYER]  # several passes
    assert set(found) <= set(KINDS)
    unrelated = [changes(demo, record.locality, delta) for record in chosen]
    edited = [changes(demo, record.request.text, delta) for record in chosen]
    lookups = [row.lookup for row in Batch.build(demo, [record.request for record in chosen], ()).edits]
    expected = {
        "subject": torch.stack([x[at] for x, at in zip(edited, lookups, strict=True)]),
        "last": torch.stack([x[-1] for x, at in zip(edited, lookups, strict=True) if at < len(x) - 1]),
        "unrelated_last": torch.stack([x[-1] for x in unrelated]),
        "unrelated_rest": torch.cat([x[1:-1] for x in unrelated]),
    }
    for kind, moved in expected.items():
        assert found[kind]["mean"] == pytest.approx(float(moved.norm(dim=1).mean()), rel=1e-4)
        assert found[kind]["common"] == pytest.approx(float(moved.mean(0).norm()), rel=1e-4)


def test_common_part_of_equal_tokens_is_all_of_it(demo, records, delta):
    found = moved_by(demo, [records[0]] * 3, {"some": delta})["some"][LAYER]
    for kind in ("subject", "last", "unrelated_last"):
        assert found[kind]["common"] == pytest.approx(found[kind]["mean"], rel=1e-5)


def test_where_updates_act_writes_its_table_and_figure(tmp_path, demo, delta):
    delta.save(tmp_path / "one")
    done = call_here(
        "where_updates_act.py", tmp_path / "one", "--data", DATA, "--edits", 5, "--out", tmp_path / "r"
    )
    assert "unrelated last" in done.stdout
    content = json.loads((tmp_path / "r" / "demo.json").read_text())
    assert set(content["moved"]["one"]) == {str(LAYER)}
    assert (tmp_path / "r" / "demo.png").stat().st_size > 1000


def test_labels_are_names_of_folders(tmp_path, delta, monkeypatch):
    """Also of the folder that is the current one, and of the folder of a file."""
    for name in ("one", "two"):
        delta.save(tmp_path / name)
    monkeypatch.chdir(tmp_path / "one")
    assert list(read_deltas([Path(), Path("../two/delta.safetensors")])) == ["one", "two"]


def test_refused_folders(tmp_path, demo, delta, monkeypatch):
    """Before a model is loaded, but for the one that does not fit it; nothing is written."""
    for name in ("a", "b"):
        delta.save(tmp_path / name / "same")
    keys, values, labels = (
        torch.ones(1, demo.d_k),
        torch.ones(1, demo.d_v),
        torch.zeros(1, 1, dtype=torch.long),
    )
    gated = Codebook(layer=LAYER, keys=keys, values=values, labels=labels, radius=1.0)
    mk.Delta({}, patches=(gated,)).save(tmp_path / "gated")
    mk.Delta({}).save(tmp_path / "nothing")
    replace(delta, model="0" * 16).save(tmp_path / "other")
    loads = []
    monkeypatch.setattr(script, "chosen_model", lambda args: loads.append(args.model) or demo)
    for folders, line, loaded in (
        (["a/same", "b/same"], "rename one", 0),
        (["missing"], "missing", 0),
        (["a/same", "gated"], "has a gate", 0),
        (["nothing"], "changes no weight", 0),
        (["a/same", "other"], "made for another model", 1),
    ):
        folders = [tmp_path / folder for folder in folders]
        loads.clear()
        said = refused("where_updates_act.py", *folders, "--data", DATA, out=tmp_path / "r")
        assert line in said
        assert len(loads) == loaded
        assert not (tmp_path / "r").exists()
