"""What quantization keeps of edits: the measurement itself, and the experiment where its backends are installed."""

import copy
import importlib.util
import json

import pytest

from experiments.quantized_base import METRICS, draw, measured, table, with_adapter
from metake.evaluation.metrics import Evaluator
from tests.cases import editor_of
from tests.scripts import call_here, refused

BACKENDS = ("bitsandbytes", "torchao", "peft")


@pytest.fixture
def delta(demo, statistics_of, records):
    with editor_of(demo, statistics_of(demo), "memit", lam=1.0, answers=False) as editor:
        editor.edit([record.request for record in records[:3]])
        return editor.delta


def test_adapter_is_measured_as_the_edited_model(demo, delta, records):
    """Without quantization: the metrics of the model with the adapter are those of the edited model."""
    pytest.importorskip("peft", reason="peft is not installed (pip install 'metake[dev]')")
    with delta.applied(demo):
        found = Evaluator(demo, records[:3], generate=False).measure()
    wanted = {metric: found.mean(metric) for metric in METRICS}
    before = measured(demo.model, demo, records[:3])
    assert before["efficacy"] < wanted["efficacy"]
    assert measured(with_adapter(copy.deepcopy(demo.model), delta, demo), demo, records[:3]) == wanted
    assert measured(demo.model, demo, records[:3]) == before


def test_table_and_figure_have_every_row(tmp_path):
    numbers = {"efficacy": 0.5, "generalization": 0.25, "specificity": 1.0}
    kinds = [
        ("fp32", "none"),
        ("fp32", "merged"),
        *(("int8", kind) for kind in ("none", "merged", "adapter")),
    ]
    rows = [{"weights": weights, "edit": kind, **numbers} for weights, kind in kinds]
    content = {"demo memit": {"model": "demo", "method": "memit", "rows": rows}}
    assert (
        table(content).splitlines()[-1]
        == "| demo | memit | int8 | 50 / 25 / 100 | 50 / 25 / 100 | 50 / 25 / 100 |  |"
    )
    draw(content, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_experiment_names_its_extra(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "bitsandbytes" else find(n, *a)
    )
    line = refused("quantized_base.py", out=tmp_path / "out")
    assert line.endswith("the package bitsandbytes is missing; pip install 'metake[quantized]'\n")


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, BACKENDS)), reason="not installed (pip install 'metake[quantized]')"
)
def test_experiment_measures_every_backend(tmp_path):
    """On the Llama demo every backend quantizes; the adapter over int8 is as good as the edited model."""
    call_here(
        "quantized_base.py", "--models", "demo-llama", "--methods", "memit", "--edits", 2, "--out", tmp_path
    )
    (part,) = json.loads((tmp_path / "quantized_base.json").read_text()).values()
    rows = {(row["weights"], row["edit"]): row for row in part["rows"]}
    assert len(rows) == len(part["rows"]) == 2 + 4 * 4
    assert rows["torchao int8", "adapter"]["efficacy"] == rows["fp32", "merged"]["efficacy"]
