"""Results as a page: questions and answers, the table, and the realized part of each plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metake.console import draw_or_note
from metake.evaluation.cases import answer_sections
from metake.evaluation.conclusion import conclude
from metake.evaluation.glossary import explain, explained, label_of
from metake.evaluation.loops import explain_run
from metake.evaluation.probes import group_metrics
from metake.evaluation.results import GivenEdit, Results
from metake.methods.base import Method
from metake.methods.locate_then_edit import LocateThenEdit
from metake.report.page import Picture, Section, write_page
from metake.words import counted

ATTENUATION = (
    "Attenuation: of a residual r (the shift of the hidden state that an edit plans), a layer with key k and constraint "
    "lambda C writes only the share eta = rho / (1 + rho), with rho = k^T (lambda C)^-1 k. The stronger the constraint "
    "and the more common the key's direction, the smaller eta."
)
COMPARING = (
    "Methods whose settings differ have different constraints, and eta differs with them. A low eta is not a failure: the "
    "target can be longer. Compare methods by their right answers and by what changed elsewhere (Spe, agree, KL), and eta "
    "only under the same constraint."
)
PRESETS = (
    "Each method has its own preset (strength of the constraint, layers, rate, steps): the best of a search with the same "
    f"number of trials for every method. {COMPARING}"
)


def write_layers(layers: Sequence[int]) -> str:
    """Layers in the form of `--layers`: `4-8`, or `3,5,6` if they are not consecutive.

    Args:
        layers: indices of layers, in ascending order.

    Returns:
        the option's value.
    """
    if len(layers) > 1 and list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}-{layers[-1]}"
    return ",".join(str(layer) for layer in layers)


def settings_line(method: Method | GivenEdit) -> str:
    """The settings that differ most between presets, in one line.

    Args:
        method: the method, or an edit that was given.

    Returns:
        e.g. `memit: lam 15,000, layers 3-4, at most 25 steps`.
    """
    parts = [method.name]
    if isinstance(method, GivenEdit):
        patches = f", {counted(len(method.patches), 'gated patch')}" if method.patches else ""
        return f"{method.name}: {counted(len(method.changed), 'changed tensor')}{patches}"
    if method.constraint_setting:
        parts = [f"{method.name}: {method.constraint_setting} {method.value(method.constraint_setting):,g}"]
    parts.append(f"layers {write_layers(method.layers)}")
    if isinstance(method, LocateThenEdit):
        parts.append(f"at most {method.planner.step_count} steps")
    return ", ".join(parts)


def draw(runs: Mapping[str, Any], figure: Path) -> Path:
    """Path of the figure. The plotting library is imported here, so that its failure does not affect the page.

    Args:
        runs: name of a method -> summaries of its batches.
        figure: the figure's path.

    Returns:
        `figure`.
    """
    from metake.report.figures import plot_realization

    return plot_realization(runs, figure)


def describe(runs: Mapping[str, Any]) -> str:
    """Text alternative of the figure.

    Args:
        runs: name of a method -> summaries of its batches.

    Returns:
        one sentence per method.
    """
    from metake.report.figures import describe_realization

    return describe_realization(runs)


def metric_table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table with a row per metric; with intervals for metrics that have one value per record.

    Args:
        results: the results.

    Returns:
        the head, and a row of cells per metric.
    """
    (_, *labels), (before, *rows) = results.cells()
    names = {label_of(metric): metric for metric in (*results.metrics, "seconds_per_edit")}
    intervals = [row["interval"] for row in results.content["methods"]]

    def interval(metric: str, of: Mapping[str, Sequence[float]]) -> str:
        if metric not in of:
            return ""
        low, high = of[metric]
        if low == high:  # of equal values, which say nothing about others
            return ""
        nats = metric in ("kl", "fluency")
        return f" [{low:.2f}, {high:.2f}]" if nats else f" [{100 * low:.0f}, {100 * high:.0f}]"

    made = [
        [
            explained(label),
            before[j],
            *(row[j] + interval(names[label], of) for row, of in zip(rows, intervals, strict=True)),
        ]
        for j, label in enumerate(labels, start=1)
    ]
    return ["metric", before[0], *(row[0] for row in rows)], made


def result_section(results: Results, figure: Path, *, title: str, paragraphs: Sequence[str] = ()) -> Section:
    """The table with the figure, which is drawn now.

    Args:
        results: the results.
        figure: the figure's path.
        title: title of the section.
        paragraphs: text before the table.

    Returns:
        the section of a page.
    """
    runs = {run.method.name: run.batches for run in results.runs if isinstance(run.method, LocateThenEdit)}
    pictures = [
        Picture(
            path,
            describe(runs),
            "Above: residual that is still missing after each layer's write, relative to the "
            "planned one; dotted: the prediction from eta alone, as if every layer's write reached the last layer "
            "unchanged. Below: attenuation eta. Medians over the edits, bars: quartiles.",
        )
        for path in (draw_or_note(lambda: draw(runs, figure)) if runs else [])
    ]
    head, rows = metric_table(results)
    used = "; ".join(settings_line(run.method) for run in results.runs)
    return Section(
        title,
        [*paragraphs, f"Settings: {used}."],
        head=head,
        rows=rows,
        pictures=pictures,
        caption="Means over the edits; in brackets: 95 % intervals over the edits (bootstrap)",
    )


def draw_exactness(rows: Sequence[Mapping[str, Any]], figure: Path) -> Path:
    """Path of the figure of free answers; imports as in `draw`.

    Args:
        rows: methods of a result file.
        figure: the figure's path.

    Returns:
        `figure`.
    """
    from metake.report.exactness import plot_exactness

    return plot_exactness(rows, figure)


def exactness_pictures(rows: Sequence[Mapping[str, Any]], figure: Path) -> list[Picture]:
    """The figure of free answers, which is drawn now; none without at least two methods with free answers and agreement.

    Args:
        rows: methods of a result file.
        figure: the figure's path.

    Returns:
        one picture, or none.
    """
    if len(rows) < 2 or not all({"agreement", "generation"} <= set(row["interval"]) for row in rows):
        return []
    return [
        Picture(
            path,
            "Exact free answers against agreement, a point per method; the table has the numbers.",
            "Free answers that equal the target and then end, against agreement with the unedited model on unrelated "
            "prompts. Bars: 95 % intervals.",
        )
        for path in draw_or_note(lambda: draw_exactness(rows, figure))
    ]


def short_sections(content: Mapping[str, Any]) -> list[Section]:
    """The sentences for a newcomer in one section; none for a run without a planned edit.

    Args:
        content: content of the result file.

    Returns:
        one section, or none.
    """
    sentences = explain_run(content)
    return [Section("In short", [" ".join(sentences)])] if sentences else []


def write_comparison_page(path: Path, results: Results) -> Path:
    """Path of the page of one results; its figure is written beside it as `realization.png`.

    Args:
        path: path of the page.
        results: the results.

    Returns:
        `path`.
    """
    content = results.content
    title = f"{content['model']}: {counted(content['edits'], 'edit')} with {', '.join(run.method.name for run in results.runs)}"
    planned = any(isinstance(run.method, LocateThenEdit) for run in results.runs)
    paragraphs = [*conclude(content), *([ATTENUATION, COMPARING] if planned else [])]
    result = result_section(
        results, path.with_name("realization.png"), title="Methods compared", paragraphs=paragraphs
    )
    free = exactness_pictures(content["methods"], path.with_name("exactness.png"))
    result = replace(result, pictures=[*result.pictures, *free])
    sections = [*short_sections(content), result, *answer_sections(content, "Answers")]
    glossary = explain(results.cells()[0], group_metrics(results.metrics))
    return write_page(path, title=title, sections=sections, glossary=glossary)
