"""Summaries of several draws: means and intervals, paired differences between methods, and curves over the edits."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metake.evaluation.glossary import definition_of, label_of
from metake.evaluation.metrics import WILD, Measurement, bootstrap
from metake.evaluation.probes import group_metrics
from metake.evaluation.results import MethodRun, Results
from metake.files import write_text
from metake.report.figures import PUBLISHED
from metake.report.tables import latex, markdown

SHOWN = (
    "efficacy",
    "generalization",
    "specificity",
    "generation",
    *WILD,
    "efficacy_success",
    "paraphrase_success",
    "neighborhood_success",
    "agreement",
    "same_subject",
    "kl",
    "overlap",
    "perplexity",
    "perplexity_median",
    "fluency",
    "consistency",
)
Interval = dict[str, float | None]  # mean, low, high
Table = tuple[list[str], list[list[str]]]  # head and rows


def summarize(measured: Sequence[Measurement], runs: Sequence[MethodRun] = ()) -> dict[str, Interval]:
    """Mean of each metric over draws, and its 95% interval.

    The interval is over draws from three on (Student's t), over records otherwise (bootstrap).

    Args:
        measured: one measurement per draw.
        runs: runs of a method, for the time per edit; none of the unedited model.

    Returns:
        Metric -> `mean`, `low` and `high`; None for a value that is not finite.
    """
    table: dict[str, Interval] = {}
    groups = dict.fromkeys(metric for m in measured for metric in group_metrics(m.values))
    for metric in (*SHOWN, *groups):
        means = np.array([m.mean(metric) for m in measured])
        low = high = float("nan")
        if len(means) >= 3 and np.isfinite(means).all():
            from scipy.stats import t

            half = float(t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means)))
            low, high = float(means.mean()) - half, float(means.mean()) + half
        elif any(metric in m.values for m in measured):
            low, high = bootstrap(np.concatenate([m.values[metric] for m in measured if metric in m.values]))
        table[metric] = _interval(float(means.mean()), low, high)
    if runs:
        seconds = float(np.mean([run.seconds_per_edit for run in runs]))
        table["seconds_per_edit"] = {"mean": seconds, "low": None, "high": None}
    return table


def differences(rows: Mapping[str, Sequence[MethodRun]], to: str) -> dict[str, dict[str, Interval]]:
    """Paired differences of methods to one method, over the records that both have edited.

    Args:
        rows: method -> its runs, one per draw. A run under way has fewer; its further draws are left out.
        to: name of the method that is subtracted.

    Returns:
        Method -> published metric -> mean difference and its 95% interval (bootstrap over records).
    """
    table: dict[str, dict[str, Interval]] = {}
    for name, runs in rows.items():
        if name == to:
            continue
        table[name] = {}
        for metric in PUBLISHED:
            apart = [
                run.after.values[metric] - other.after.values[metric]
                for run, other in zip(runs, rows[to], strict=False)
            ]
            above = np.concatenate(apart)
            above = above[np.isfinite(above)]
            mean = float(above.mean()) if len(above) else float("nan")
            table[name][metric] = _interval(mean, *bootstrap(above))
    return table


def _interval(mean: float, low: float, high: float) -> Interval:
    return {"mean": _plain(mean), "low": _plain(low), "high": _plain(high)}


def _plain(value: float) -> float | None:
    return value if np.isfinite(value) else None


def point(edits: int, measurement: Measurement) -> dict[str, Any]:
    """Published metrics after some edits.

    Args:
        edits: number of edits so far.
        measurement: measurement of the records edited so far.

    Returns:
        Plain values.
    """
    return {"edits": edits, **{m: _plain(measurement.mean(m)) for m in PUBLISHED}}


def curve(run: MethodRun) -> list[dict[str, Any]]:
    """Published metrics over the number of edits, and the attenuation of the batch just edited.

    Args:
        run: a run with measurements in between.

    Returns:
        One point per measurement; `attenuation` is the mean eta of the batch at the last edited layer, left out where a
        method has none.
    """
    ends = np.cumsum([batch.get("records", len(batch["requests"])) for batch in run.batches]).tolist()
    eta = {
        end: {"attenuation": float(np.mean(batch["eta"][-1]))} if batch["eta"] else {}
        for end, batch in zip(ends, run.batches, strict=True)
    }
    return [
        {**point(count, measurement), **eta[count]} for count, measurement in sorted(run.measurements.items())
    ]


def summary_content(
    befores: Sequence[Measurement], rows: Mapping[str, Sequence[MethodRun]], against: str | None = None
) -> dict[str, Any]:
    """Part of a result file about several draws.

    Args:
        befores: measurements of the unedited model, one per draw.
        rows: method -> its runs, one per draw.
        against: name of the method that the others are compared with.

    Returns:
        `summary` and `curves`; with a method to compare with that has run, also `against` and `differences`.
    """
    summary = {"unedited": summarize(befores)}
    summary |= {name: summarize([run.after for run in runs], runs) for name, runs in rows.items()}
    apart: dict[str, Any] = {}
    if against is not None and against in rows:
        apart = {"against": against, "differences": differences(rows, against)}
    return {
        **apart,
        "summary": summary,
        "curves": {name: [curve(run) for run in runs] for name, runs in rows.items()},
    }


def draws_content(draws: Sequence[Results], against: str | None = None) -> dict[str, Any]:
    """Content of a result file of several draws: that of the first one, and what the others add to it.

    Args:
        draws: results of every draw, of the same methods.
        against: name of the method that the others are compared with.

    Returns:
        Values that a JSON file can hold. `curves` is there with measurements in between, `differences` with a method to
        compare with; `seeds`, `summary` and `draws` (the further ones) with several draws.
    """
    first = draws[0].content
    rows = {run.method.name: [draw.runs[i] for draw in draws] for i, run in enumerate(draws[0].runs)}
    found = summary_content([draw.before for draw in draws], rows, against)
    if not any(len(points) > 1 for runs in found["curves"].values() for points in runs):
        del found["curves"]
    if len(draws) == 1:
        del found["summary"]
        return {**first, **found}
    own = ("requests", "contexts", "before", "methods")
    further = [
        {"seed": seed, **{name: draw.content[name] for name in own}}
        for seed, draw in enumerate(draws[1:], start=1)
    ]
    return {**first, **found, "seeds": len(draws), "draws": further}


def summary_table(summary: Mapping[str, Mapping[str, Interval]]) -> Table:
    """Table of the means with half of their intervals; metrics that were not measured are left out.

    Args:
        summary: `summary` of a result file.

    Returns:
        Head and rows.
    """
    shown = [m for m, value in summary["unedited"].items() if value["mean"] is not None]
    shown += ["seconds_per_edit"]
    rows = [
        [name, *(_cell(metric, metrics.get(metric)) for metric in shown)] for name, metrics in summary.items()
    ]
    return ["method", *(label_of(m) for m in shown)], rows


def _cell(metric: str, value: Interval | None) -> str:
    if value is None or value["mean"] is None:
        return "-"
    mean, low, high = value["mean"], value["low"], value["high"]
    if metric.startswith(("perplexity", "kl", "seconds", "fluency")):
        scale, digits = 1.0, 2
    else:
        scale, digits = 100.0, 1
    half = "" if low is None or high is None else f" ±{scale * (high - low) / 2:.{digits}f}"
    return f"{scale * mean:.{digits}f}{half}"


def difference_table(content: Mapping[str, Any]) -> Table:
    """Table of the differences of a result file, in percentage points.

    Args:
        content: a result file with `against` and `differences`.

    Returns:
        Head and rows.
    """
    rows = [[name, *(signed(found[m]) for m in PUBLISHED)] for name, found in content["differences"].items()]
    return [f"above {content['against']}", *(label_of(m) for m in PUBLISHED)], rows


def signed(value: Interval) -> str:
    """Cell of a difference with its interval, in percentage points.

    Args:
        value: mean, low and high.

    Returns:
        The cell; `-` without a value.
    """
    numbers = [100 * x for x in value.values() if x is not None]
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*numbers) if numbers else "-"


def summary_csv(summary: Mapping[str, Mapping[str, Interval]]) -> str:
    """All means and intervals as CSV, with the definition of each metric.

    Args:
        summary: `summary` of a result file.

    Returns:
        Text of the file.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["method", "metric", "mean", "low", "high", "meaning"])
    for name, metrics in summary.items():
        for metric, value in metrics.items():
            writer.writerow([name, metric, value["mean"], value["low"], value["high"], definition_of(metric)])
    return stream.getvalue()


def write_tables(content: Mapping[str, Any], out: Path) -> list[str]:
    """Write the tables of a result file: Markdown, LaTeX and CSV, and the differences in Markdown.

    Args:
        content: a result file with `summary`, and perhaps `differences`.
        out: folder of the files.

    Returns:
        Names of the files.
    """
    head, rows = summary_table(content["summary"])
    files = {
        "table.md": markdown(head, rows),
        "table.tex": latex(head, rows),
        "table.csv": summary_csv(content["summary"]),
    }
    if "differences" in content:
        files["differences.md"] = markdown(*difference_table(content))
    for name, text in files.items():
        write_text(out / name, text)
    return list(files)
