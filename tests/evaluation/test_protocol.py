"""What a run of the protocol tells while it is under way."""

import io
import json
from dataclasses import replace

import torch
from tqdm import tqdm

from metake.evaluation.metrics import Evaluator
from metake.evaluation.protocol import evaluate_method, run_key
from metake.presets import settings_for


def test_a_run_tells_its_steps_its_edits_and_what_it_sees(demo, statistics_of, records, monkeypatch):
    bars, ticks, seen = [], [], []

    def bar(**options):
        bars.append(tqdm(**{**options, "file": io.StringIO(), "disable": False}))
        return bars[-1]

    monkeypatch.setattr("metake.editor.tqdm", bar)
    chosen = records[:4]
    evaluator = Evaluator(demo.arch, demo.tokenizer, chosen, generate=False)
    settings = settings_for(demo.arch, "metake", name="none").updated(
        layers=(1, 2), contexts=(), steps=2, meta_steps=3, stop="none", meta_stop="none"
    )
    run = evaluate_method(
        demo, chosen, "metake", settings, statistics_of(demo), evaluator, evaluator.measure(), batch=3,
        look_every=1, seen=lambda edits, look: seen.append((edits, look)), tick=ticks.append,
    )  # fmt: skip
    assert ticks == [3, 1]
    assert [(b.desc, b.n, b.total) for b in bars] == 2 * [("metake: targets", 5, 5)]
    assert seen == [(3, run.looks[3]), (4, run.after)]


def test_a_runs_key_changes_with_whatever_its_numbers_depend_on(demo, statistics_of, records):
    """One ingredient at a time; the same ones give the same key."""
    statistics, settings = statistics_of(demo), settings_for(demo.arch, "memit", name="none", layers=(1, 2))
    plain = {"records": records[:2], "method": "memit", "settings": settings, "statistics": statistics, "batch": 2,
             "contexts": ("The mill is dark",), "measured": [True, True, None]}  # fmt: skip

    def key(**changes):
        given = {**plain, **changes}
        return run_key(demo, given.pop("records"), given.pop("method"), given.pop("settings"),
                       given.pop("statistics"), **given)  # fmt: skip

    provenance = statistics.provenance
    other = [
        {"records": records[1:3]}, {"records": records[:1]},
        {"records": [replace(records[0], rephrase="Who?"), records[1]]},
        {"method": "memit@label"}, {"settings": settings.updated(lr=0.3)}, {"batch": 1},
        {"contexts": ("Today it rains",)}, {"contexts": None}, {"statistics": None},
        {"statistics": replace(statistics, provenance=replace(provenance, text="another"))},
        {"statistics": replace(statistics, provenance=replace(provenance, tokens=7))},
        {"measured": [False, True, None]},
    ]  # fmt: skip
    assert key() == key()
    keys = [json.dumps(key(**changes)) for changes in ({}, *other)]
    assert len(set(keys)) == len(keys)
    saved = demo.arch.weight(0).clone()
    try:
        with torch.no_grad():
            demo.arch.weight(0).add_(1e-3)
        assert json.dumps(key()) not in keys
    finally:
        with torch.no_grad():
            demo.arch.weight(0).copy_(saved)
