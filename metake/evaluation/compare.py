"""Several methods on the same records, with the same prefixes, as one table."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metake.data.records import Record
from metake.evaluation.checkpoint import Checkpoints
from metake.evaluation.glossary import BRIEFLY, LABELS
from metake.evaluation.metrics import Evaluator, Measurement, bootstrap
from metake.evaluation.protocol import MethodRun, check_batches, evaluate_method, result_file, run_key
from metake.geometry.covariance import Statistics, text_fingerprint
from metake.methods.base import Method
from metake.models.load import EditableModel
from metake.phases import phase
from metake.prompts import sample_contexts
from metake.report.tables import markdown, render

WIDTH = 100  # columns of a terminal that a table fits


def short_cell(measurement: Measurement, metric: str) -> str:
    """A mean with half of its interval over records, where it has one."""
    value = measurement.mean(metric)
    if value != value:
        return "-"
    if metric == "perplexity":
        return f"{value:.2f}"
    if np.isfinite(measurement.values[metric]).sum() < 2:
        return f"{100 * value:.1f}"  # one record has no interval
    low, high = bootstrap(measurement.values[metric])
    return f"{100 * value:.1f} ±{50 * (high - low):.1f}"


@dataclass(frozen=True)
class Comparison:
    """Runs of several methods and the result file's content."""

    before: Measurement
    runs: list[MethodRun]
    content: dict[str, Any]

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows; metrics without a value anywhere are left out."""
        measured = [
            m for m in LABELS if m != "seconds_per_edit" and self.before.mean(m) == self.before.mean(m)
        ]
        if not measured:
            measured = ["efficacy", "generalisation", "specificity"]
        head = ["method", *(LABELS[m] for m in measured), LABELS["seconds_per_edit"]]

        def cell(measurement: Measurement, metric: str) -> str:
            value = measurement.mean(metric)
            if value != value:
                return "-"
            return (
                f"{value:.2f}" if metric.startswith(("perplexity", "kl", "fluency")) else f"{100 * value:.1f}"
            )

        rows = [["unedited", *(cell(self.before, m) for m in measured), "-"]]
        for run in self.runs:
            rows.append([run.method, *(cell(run.after, m) for m in measured), f"{run.seconds_per_edit:.2f}"])
        return head, rows

    def headline(self) -> tuple[str, ...]:
        """Metrics of the short table: the published ones of the data, and what else there is of a few."""
        counterfact = ("efficacy_success", "paraphrase_success", "neighbourhood_success")
        zsre = ("efficacy", "generalisation", "specificity")
        measured = {
            m for m in BRIEFLY if m != "seconds_per_edit" and self.before.mean(m) == self.before.mean(m)
        }
        first = counterfact if measured.issuperset(counterfact) else zsre
        return (*first, *(m for m in ("generation", "perplexity") if m in measured), "seconds_per_edit")

    def table(self) -> str:
        """The short table for a terminal, with intervals and a legend."""
        metrics = self.headline()
        rows = [["unedited", *(short_cell(self.before, m) for m in metrics[:-1]), "-"]]
        for run in self.runs:
            cells = [short_cell(run.after, m) for m in metrics[:-1]]
            rows.append([run.method, *cells, f"{run.seconds_per_edit:.2f}"])
        head = ["method", *(LABELS[m] for m in metrics)]
        said = "; ".join(f"{LABELS[m]}: {BRIEFLY[m]}" for m in metrics)
        legend = f"{said}. Shares in per cent, ± half of their 95% interval over records."
        table = render(f"{self.content['model']}: {self.content['edits']} edits", head, rows, WIDTH)
        return "\n".join([table, *textwrap.wrap(legend, WIDTH)])

    def markdown(self) -> str:
        head, rows = self.cells()
        return markdown(head, rows)


def compare(
    loaded: EditableModel,
    records: Sequence[Record],
    methods: Sequence[Method],
    statistics: Statistics | None,
    *,
    batch: int,
    consecutive: bool = True,
    text: str | None = None,
    generate: bool = True,
    folder: Path | None = None,
    tick: Callable[[int], object] = lambda done: None,
    **extra: Any,
) -> Comparison:
    """Run every method.

    Args:
        folder: where every batch is kept, so that the same call goes on where a killed one stopped.
    """
    check_batches(records, batch, consecutive)
    evaluator = Evaluator(loaded.arch, loaded.tokenizer, records, text=text, generate=generate)
    with phase("evaluate the unedited model"):
        before = evaluator.measure()
    contexts: dict[int, tuple[str, ...]] = {}
    runs = []
    for method in methods:
        seed = method.context_seed
        if seed is not None and seed not in contexts:
            contexts[seed] = sample_contexts(loaded.arch, loaded.tokenizer, seed=seed)
        sampled = None if seed is None else contexts[seed]
        checkpoints = None
        if folder is not None:
            key = run_key(
                loaded,
                records,
                method,
                statistics,
                batch=batch,
                contexts=sampled,
                measured=[consecutive, generate, text and text_fingerprint(text)],
            )
            # a folder for every key: another run of the same method is another folder
            checkpoints = Checkpoints(folder / f"{method.name}-{text_fingerprint(json.dumps(key))[:8]}", key)
        run = evaluate_method(
            loaded,
            records,
            method,
            statistics,
            evaluator,
            before,
            batch=batch,
            consecutive=consecutive,
            contexts=sampled,
            checkpoints=checkpoints,
            tick=tick,
        )
        runs.append(run)
    content = result_file(
        loaded,
        before,
        runs,
        statistics,
        edits=len(records),
        batch=batch,
        requests=[
            [r.request.text, r.request.target, r.truth, r.rephrase, r.locality, r.locality_answer]
            for r in records
        ],
        contexts={str(seed): texts for seed, texts in contexts.items()},
        **extra,
    )
    return Comparison(before, runs, content)
