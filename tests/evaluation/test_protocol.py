"""What a run of the protocol tells while it is under way."""

import io

from tqdm import tqdm

from metake.evaluation.metrics import Evaluator
from metake.evaluation.protocol import evaluate_method
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
