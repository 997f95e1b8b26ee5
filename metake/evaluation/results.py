"""Results of a protocol: the runs of its methods, their tables, and the content of the result file."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from metake.evaluation.glossary import (
    EVALUATION_TIMES,
    GLOSSARY,
    LABELS,
    SHORT_DEFINITIONS,
    definition_of,
    label_of,
)
from metake.evaluation.metrics import Measurement, bootstrap
from metake.evaluation.probes import column_metrics, group_metrics
from metake.geometry.statistics import Statistics
from metake.methods.base import Method
from metake.models.chat import described
from metake.models.editable import EditableModel
from metake.models.greedy import described_decoding
from metake.provenance import provenance
from metake.report.tables import markdown, render
from metake.words import counted

WIDTH = 100  # columns of a terminal that a table fits


@dataclass(frozen=True)
class GivenEdit:
    """An edit that was not made here, in place of the method of a run.

    Attributes:
        name: its name in tables.
        source: the folder that it was read from; empty for a model in memory.
        changed: changed tensor -> Frobenius norm of the change, relative to the unedited tensor's.
        layers: layers with a changed tensor or a gated patch, ascending.
        patches: kinds of the gated patches.
    """

    name: str
    source: str
    changed: Mapping[str, float]
    layers: tuple[int, ...]
    patches: tuple[str, ...] = ()

    def model_dump(self) -> dict[str, Any]:
        """Plain values for a result file."""
        return {
            "kind": "given",
            "source": self.source,
            "layers": list(self.layers),
            "changed": dict(self.changed),
            "patches": list(self.patches),
        }


@dataclass(frozen=True)
class MethodRun:
    """A method's run over all batches, or the measurement of an edit that was given.

    Attributes:
        method: the method, or the edit.
        before, after: measurements of the unedited and the edited model.
        batches: summaries of every batch (see `EditResult.summary`).
        moment: when `after` was measured, a key of `glossary.EVALUATION_TIMES`.
        measurements: number of edits -> measurement after so many; empty where each batch is measured alone.
    """

    method: Method | GivenEdit
    before: Measurement
    after: Measurement
    batches: list[dict[str, Any]]
    moment: str
    measurements: dict[int, Measurement] = field(default_factory=dict)

    @property
    def seconds_per_edit(self) -> float:
        """Mean wall time of an edit, in seconds, without evaluation; NaN for an edit that was given."""
        if self.moment == "given":
            return float("nan")
        seconds = float(sum(b["seconds"] for b in self.batches))
        return seconds / max(1, sum(len(b["requests"]) for b in self.batches))

    def row(self) -> dict[str, Any]:
        """Means, intervals and per-record values as plain data."""
        return {
            "method": self.method.name,
            "moment": self.moment,
            "settings": self.method.model_dump(),
            **_plain(self.after),
            "seconds_per_edit": None if self.moment == "given" else self.seconds_per_edit,
            "batches": self.batches,
        }


def _time_cell(seconds: float) -> str:
    return "-" if seconds != seconds else f"{seconds:.2f}"


def _plain(measurement: Measurement) -> dict[str, Any]:
    def number(value: float) -> float | None:
        return None if not np.isfinite(value) else round(float(value), 6)

    measured = [name for name, values in measurement.values.items() if np.isfinite(values).any()]
    return {
        "mean": {n: number(measurement.mean(n)) for n in (*measured, "perplexity", "perplexity_median")},
        "interval": {name: [number(x) for x in bootstrap(measurement.values[name])] for name in measured},
        "per_record": {name: [number(x) for x in measurement.values[name]] for name in measured},
        "answers": measurement.answers,
    }


def short_cell(measurement: Measurement, metric: str) -> str:
    """A cell of the short table: a mean with half of its interval over records, for metrics that have one.

    Args:
        measurement: the measurement.
        metric: a name of `LABELS` that it has.

    Returns:
        the cell; `-` without a value.
    """
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
class Results:
    """Runs of several methods and the result file's content."""

    before: Measurement
    runs: list[MethodRun]
    content: dict[str, Any]

    @property
    def metrics(self) -> list[str]:
        """Metrics that have a value, with those of probe groups; three of zsRE if none has."""
        every = [metric for metric in LABELS if metric != "seconds_per_edit"]
        every += group_metrics(self.before.values)
        measured = [metric for metric in every if self.before.mean(metric) == self.before.mean(metric)]
        return measured or ["efficacy", "generalization", "specificity"]

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows; metrics without a value anywhere are left out."""
        measured = self.metrics
        head = ["method", *(label_of(m) for m in measured), LABELS["seconds_per_edit"]]

        def cell(measurement: Measurement, metric: str) -> str:
            value = measurement.mean(metric)
            if value != value:
                return "-"
            return (
                f"{value:.2f}" if metric.startswith(("perplexity", "kl", "fluency")) else f"{100 * value:.1f}"
            )

        rows = [["unedited", *(cell(self.before, m) for m in measured), "-"]]
        for run in self.runs:
            rows.append(
                [run.method.name, *(cell(run.after, m) for m in measured), _time_cell(run.seconds_per_edit)]
            )
        return head, rows

    def headline(self) -> tuple[str, ...]:
        """Metrics of the short table: those of the protocol, or else of the data's publication; perplexity and time."""
        counterfact = ("efficacy_success", "paraphrase_success", "neighborhood_success")
        zsre = ("efficacy", "generalization", "specificity")
        measured = {
            m
            for m in SHORT_DEFINITIONS
            if m != "seconds_per_edit" and self.before.mean(m) == self.before.mean(m)
        }
        wild = ("wild_exact", "wild_exact_rephrase", "wild_locality")
        if "wild_exact" in measured:
            return (*(m for m in (*wild, "efficacy", "perplexity") if m in measured), "seconds_per_edit")
        first = counterfact if measured.issuperset(counterfact) else zsre
        return (*first, *(m for m in ("generation", "perplexity") if m in measured), "seconds_per_edit")

    def table(self) -> str:
        """The short table, which fits a terminal, with intervals and a legend."""
        metrics = self.headline()
        rows = [["unedited", *(short_cell(self.before, m) for m in metrics[:-1]), "-"]]
        for run in self.runs:
            cells = [short_cell(run.after, m) for m in metrics[:-1]]
            rows.append([run.method.name, *cells, _time_cell(run.seconds_per_edit)])
        head = ["method", *(LABELS[m] for m in metrics)]
        definitions = "; ".join(f"{LABELS[m]}: {SHORT_DEFINITIONS[m]}" for m in metrics)
        legend = f"{definitions}. Shares in per cent, ± half of their 95% interval over records."
        table = render(
            f"{self.content['model']}: {counted(self.content['edits'], 'edit')}", head, rows, WIDTH
        )
        return "\n".join([table, *textwrap.wrap(legend, WIDTH), *self._group_table()])

    def _group_table(self) -> list[str]:
        """The table of probe groups, a row per group, with its legend; nothing without groups."""
        metrics = column_metrics(metric for metric in self.metrics if metric not in LABELS)
        if not metrics:
            return []
        runs = [self.before, *(run.after for run in self.runs)]
        rows = [[label_of(metric), *(short_cell(run, metric) for run in runs)] for metric in metrics]
        head = ["probe group", "unedited", *(run.method.name for run in self.runs)]
        legend = (
            "Probe groups: correct tokens of the accepted answer; of groups that the edit should leave as they were "
            "(agreement), tokens as from the unedited model."
        )
        return [render("", head, rows, WIDTH), *textwrap.wrap(legend, WIDTH)]

    def markdown(self) -> str:
        """The table of all metrics in Markdown."""
        head, rows = self.cells()
        return markdown(head, rows)


def result_file(
    model: EditableModel,
    before: Measurement,
    runs: Sequence[MethodRun],
    statistics: Statistics | None,
    **extra: Any,
) -> dict[str, Any]:
    """The content of a result file: provenance, settings, measurements and definitions, as plain data.

    Args:
        model: the model.
        before: measurement of the unedited model.
        runs: runs of methods on it.
        statistics: statistics of all runs; None if there are none.
        extra: further plain values.

    Returns:
        values that a JSON file can hold.
    """
    return {
        **provenance(model.name, model, [run.method.name for run in runs]),
        "statistics": None if statistics is None else statistics.provenance.__dict__,
        "chat": described(model.tokenizer),
        "generation": described_decoding(model.model, model.tokenizer),
        **extra,
        "before": _plain(before),
        "methods": [run.row() for run in runs],
        "glossary": GLOSSARY | {m: definition_of(m) for m in group_metrics(before.values)},
        "moments": EVALUATION_TIMES,
    }
