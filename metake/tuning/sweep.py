"""Methods over a range of the strength of their constraint."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from metake.console import draw_or_note, set_interrupt_message
from metake.data.record import Record
from metake.errors import MetakeError
from metake.evaluation.glossary import GLOSSARY
from metake.evaluation.metrics import bootstrap
from metake.evaluation.protocol import Protocol
from metake.evaluation.results import MethodRun
from metake.files import write_json, write_text
from metake.geometry.statistics import Statistics
from metake.methods.base import Method
from metake.models.editable import EditableModel
from metake.planners.closed_loop import ClosedLoop
from metake.provenance import provenance
from metake.report.figures import plot_tradeoff
from metake.report.tables import markdown
from metake.words import counted

METHODS = ("memit", "memit@unstopped", "memit-compensated", "alphaedit", "metake")
METRICS = ("efficacy", "generalization", "specificity", "agreement", "same_subject")


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


def calibrated(method: Method) -> bool:
    """Whether the strength of a method's constraint is given as an attenuation.

    Args:
        method: the method.

    Returns:
        False for a strength of its own, and for a method without a constraint.
    """
    return bool(method.supported_changes({"attenuation": 0.5})) and method.value("attenuation") is not None


Expanded = tuple[list[Method], dict[str, tuple[str, float]]]


def at_factors(bases: Sequence[Method], factors: Sequence[float]) -> Expanded:
    """Each method at several strengths, relative to its own.

    Args:
        bases: methods at their own strengths.
        factors: strengths relative to those.

    Returns:
        The methods, and label -> name and strength; a method whose strength is an attenuation has the attenuation under
        lambda or L2 times the factor.
    """
    cases = []
    for base in bases:
        if calibrated(base):
            eta = base.value("attenuation")
            values = [
                eta / (eta + factor * (1 - eta)) for factor in factors
            ]  # rho = eta / (1 - eta) is divided by it
            cases.append((base, "attenuation", values, "eta-"))
        else:
            field = swept_setting(base)
            cases.append((base, field, [base.value(field) * factor for factor in factors], ""))
    return _expanded(cases)


def at_attenuations(bases: Sequence[Method], attenuations: Sequence[float]) -> Expanded:
    """Each method at several strengths, which are the same for all methods as attenuations.

    Args:
        bases: methods with a geometry.
        attenuations: median attenuations of the first batch's keys.

    Returns:
        The methods, and label -> name and attenuation.

    Raises:
        MetakeError: a method has no geometry, or an attenuation is not between 0 and 1.
    """
    for base in bases:
        if not base.supported_changes({"attenuation": 0.5}):
            raise MetakeError(f"--attenuations: {base.name} has no constraint; leave it out of --methods")
    return _expanded((base, "attenuation", attenuations, "eta-") for base in bases)


def _expanded(cases: Iterable[tuple[Method, str, Sequence[float], str]]) -> Expanded:
    """Methods with a setting at several values, from the smallest on; the last entry of a case begins the values' labels."""
    methods, strengths = [], {}
    for base, field, values, prefix in cases:
        for value in sorted(set(values)):
            label = f"{base.name}{'-' if '@' in base.name else '@'}{prefix}{value:.3g}"
            methods.append(base.updated(**{field: value}, label=label))
            strengths[label] = (base.name, value)
    return methods, strengths


def sweep(
    model: EditableModel,
    records: list[Record],
    expanded: Expanded,
    statistics: Statistics | None,
    *,
    batch: int,
    out: Path,
    data: str,
    **extra: Any,
) -> str:
    """Edit the records with each method at several strengths, and save table, figure and results.

    Args:
        model: the unedited model.
        records: edited in consecutive batches.
        expanded: the methods, and label -> name and strength, of `at_factors` or `at_attenuations`.
        statistics: statistics of all their layers; None if no method needs them.
        batch: edits per batch.
        out: folder of the files.
        data: name of the records.
        **extra: further values for the result file.

    Returns:
        The table as Markdown.

    Raises:
        MetakeError: statistics cannot be used, or an edit fails.
    """
    methods, strengths = expanded
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
        **extra,
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
        ["method", "strength", "eta, last layer", "Eff", "Gen", "Spe", "agree", "same subj."], rows
    )


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"  # no same-subject prompts
