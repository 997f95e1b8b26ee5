"""Where updates act, against one pass per prompt, and the command."""

import json

import pytest
import torch

import metake as mk
from experiments.where_updates_act import KINDS, moved_by
from metake.models.tokens import encode
from metake.models.trace import frozen, run
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


def test_refused_folders(tmp_path, delta):
    for name in ("a", "b"):
        delta.save(tmp_path / name / "same")
    for folders, line in (
        ([tmp_path / "a" / "same", tmp_path / "b" / "same"], "rename one"),
        ([tmp_path / "missing"], "missing"),
    ):
        said = refused("where_updates_act.py", *folders, "--data", DATA, out=tmp_path / "r")
        assert line in said
