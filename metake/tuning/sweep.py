"""Methods over a range of the strength of their constraint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from metake.console import draw_or_note, set_interrupt_message
from metake.data.record import Record
from metake.evaluation.glossary import GLOSSARY
from metake.evaluation.metrics import bootstrap
from metake.evaluation.protocol import Protocol
from metake.evaluation.results import MethodRun
from metake.files import write_json, write_text
from metake.methods.base import Method
from metake.models.editable import EditableModel
from metake.options import find_statistics
from metake.planners.closed_loop import ClosedLoop
from metake.provenance import provenance
from metake.report.figures import plot_tradeoff
from metake.report.tables import markdown
from metake.words import counted

METHODS = ("memit", "memit@unstopped", "memit-compensated", "alphaedit", "metake")
METRICS = ("efficacy", "generalization", "specificity", "same_subject")


def swept_setting(method: Method) -> str:
    """Name of the setting that is swept: the cost weight of a priced loop, else the constraint's strength; a step's length.

    Args:
        method: the method.

    Returns:
        Name of a setting.
    """
    planner = getattr(method, "planner", None)
    if isinstance(planner, ClosedLoop) and planner.cost_weight:
        return "cost_weight"
    return method.constraint_setting or method.step_setting


def at_strengths(
    bases: Sequence[Method], factors: Sequence[float]
) -> tuple[list[Method], dict[str, tuple[str, float]]]:
    """Each method at several strengths, and the name and strength of each label.

    Args:
        bases: methods at their own strengths.
        factors: strengths relative to those.

    Returns:
        The methods, and label -> name and strength.
    """
    methods, strengths = [], {}
    for base in bases:
        field = swept_setting(base)
        for value in sorted({base.value(field) * factor for factor in factors}):
            label = f"{base.name}{'-' if '@' in base.name else '@'}{value:.3g}"
            methods.append(base.updated(**{field: value}, label=label))
            strengths[label] = (base.name, value)
    return methods, strengths


def sweep(
    model: EditableModel,
    records: list[Record],
    bases: Sequence[Method],
    factors: Sequence[float],
    *,
    batch: int,
    out: Path,
    data: str,
    stats: Path | None = None,
    text: Path | None = None,
) -> str:
    """Edit the records with each method at several strengths, and save table, figure and results.

    Args:
        model: the unedited model.
        records: edited in consecutive batches.
        bases: methods at their own strengths.
        factors: strengths relative to those.
        batch: edits per batch.
        out: folder of the files.
        data: name of the records.
        stats: file of statistics; None to collect them.
        text: text to collect statistics from; None for the included one.

    Returns:
        The table as Markdown.

    Raises:
        MetakeError: statistics cannot be used, or an edit fails.
    """
    methods, strengths = at_strengths(bases, factors)
    statistics = find_statistics(model, methods, stats, text)
    short = Path(model.name).name
    folder = out / "runs" / short
    set_interrupt_message(f"finished batches are in {folder}; rerun the command to resume")
    with tqdm(total=len(records) * len(methods), unit="edit", desc=model.name, disable=None) as bar:
        protocol = Protocol(records, batch, generate=False)
        runs = protocol.run(model, methods, statistics, folder, on_edit=bar.update).runs
    points = [_point(run, *strengths[run.method.name]) for run in runs]
    content = {
        **provenance(model.name, model, strengths),
        "data": data,
        "edits": len(records),
        "batch": batch,
        "moment": "end",
        "points": points,
        "glossary": {m: GLOSSARY[m] for m in METRICS},
    }
    write_json(out / f"{short}.json", content)
    table = _table(points)
    write_text(out / f"{short}.md", table)
    title = f"{model.name}, {counted(len(records), 'fact')} in batches of {batch}"
    draw_or_note(lambda: plot_tradeoff(points, out / f"{short}.png", title=title))
    return table


def _point(run: MethodRun, method: str, strength: float) -> dict[str, Any]:
    return {
        "method": method,
        "strength": strength,
        "eta": [float(torch.tensor(layer).median()) for layer in run.batches[0]["eta"]],
        **{m: run.after.mean(m) for m in METRICS},
        "interval": {m: bootstrap(run.after.values[m]) for m in METRICS},
        "settings": run.method.model_dump(),
    }


def _table(points: Sequence[dict[str, Any]]) -> str:
    rows = [
        [
            p["method"],
            f"{p['strength']:.3g}",
            f"{p['eta'][-1]:.2f}" if p["eta"] else "-",
            *(_percent(p[m]) for m in METRICS),
        ]
        for p in points
    ]
    return markdown(
        ["method", "lambda, L2 or cost weight", "eta, last layer", "Eff", "Gen", "Spe", "same subj."], rows
    )


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"  # no same-subject prompts
