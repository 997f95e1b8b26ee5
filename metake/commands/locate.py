"""`metake locate`: what the calibration measures on a model, and what it would choose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metake.commands.common import data_file, load_model, parse_changes
from metake.commands.edit import read_requests
from metake.commands.edit_options import Prompt, Subject, Target
from metake.commands.option_types import (
    AsJson,
    Change,
    Chats,
    Device,
    Dtype,
    MethodName,
    Model,
    Modules,
    Stats,
    Text,
)
from metake.console import document, draw_or_note
from metake.files import write_file, write_json
from metake.options import output_folder, parse_layers

if TYPE_CHECKING:
    from metake.calibration.survey import Survey
    from metake.methods.base import Method
    from metake.models.editable import EditableModel
    from metake.requests import EditRequest

DEVELOPMENT = 20  # facts of a demo model's world that are measured by default

Facts = Annotated[
    Path | None,
    typer.Option(
        "--requests",
        help="File of facts to measure (JSON, JSON Lines, CSV or TSV; docs/data.md); default for a demo model: facts of its world.",
    ),
]
Measured = Annotated[
    str | None,
    typer.Option(
        "--layers",
        metavar="N,...",
        help="Layers to measure, e.g. 0-11; default: those that the default chooses from.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(parser=output_folder, metavar="PATH", help="Default: results/locate/MODEL."),
]


def located_requests(
    request: str | None, subject: str | None, target: str | None, file: Path | None, model: str
) -> tuple[EditRequest, ...]:
    """Requests from the options or from a file; on a demo model, facts of its world if there are none.

    Args:
        request: value of `--request`.
        subject: value of `--subject`.
        target: value of `--target`.
        file: value of `--requests`.
        model: value of `--model`.

    Returns:
        The requests. An option that is missing or redundant raises a `MetakeError`.
    """
    from metake.data.records import read_records
    from metake.requests import distinct
    from metake.shipped import DEMOS

    if model in DEMOS and not any(value is not None for value in (request, subject, target, file)):
        path = data_file(None, model, "dev.json")
        return distinct([record.request for record in read_records(path, DEVELOPMENT)])
    return read_requests(request, subject, target, file, "locate")


def measure(
    model: EditableModel,
    requests: tuple[EditRequest, ...],
    method: Method,
    measured: tuple[int, ...] | None,
    changes: dict[str, Any],
    stats: Path | None,
    text: Path | None,
) -> Survey:
    """The survey, with statistics from the options.

    Args:
        model: the model.
        requests: the requests.
        method: the method by its name, without layers.
        measured: layers of `--layers`; None without it.
        changes: values of `--set`.
        stats: value of `--stats`.
        text: value of `--text`.

    Returns:
        The survey. Layers or statistics that do not fit the model raise a `MetakeError`.
    """
    from metake.calibration.survey import survey, surveyed_layers
    from metake.options import find_statistics
    from metake.phases import phase

    needed = surveyed_layers(model, method.name, measured, stats is None, **changes)
    model.check_layers(needed)
    statistics = find_statistics(model, [method.updated(layers=needed)], stats, text)
    with phase("locate"):
        return survey(
            model, requests, method.name, statistics, measured=measured, windows=stats is None, **changes
        )


def locate(
    model: Model,
    request: Prompt = None,
    subject: Subject = None,
    target: Target = None,
    requests: Facts = None,
    method: MethodName = "metake",
    layers: Measured = None,
    change: Change = None,
    out: Out = None,
    stats: Stats = None,
    text: Text = None,
    device: Device = None,
    dtype: Dtype = "float32",
    modules: Modules = None,
    chat: Chats = False,
    as_json: AsJson = False,
) -> None:
    """Measure where and how strongly facts can be edited: per layer and lookup token, without an edit.

    Measures separability of the keys, size of the residual stream, attenuation, reach and cost of short virtual edits,
    and says which settings the calibrated default of a model without a preset would choose. Writes locate.json,
    locate.md and locate.png.

    Example: metake locate --model demo --method metake --out results/locate/demo
    """
    from metake.calibration.survey import check_layered
    from metake.methods.table import method_named

    with document(as_json) as content:
        plain = check_layered(method_named(method))
        measured = None if layers is None else tuple(parse_layers(layers))
        facts = located_requests(request, subject, target, requests, model)
        changes = parse_changes(change, None)
        plain.updated(**changes)  # before a model is loaded
        out = out or output_folder(f"results/locate/{Path(model).name}")
        loaded = load_model(model, device, dtype, modules, chat)
        found = measure(loaded, facts, plain, measured, changes, stats, text)
        typer.echo(found)
        content.update(save(found, loaded, facts, out), out=str(out))


def save(found: Survey, model: EditableModel, requests: tuple[EditRequest, ...], out: Path) -> dict[str, Any]:
    """Write locate.json, locate.md and locate.png.

    Args:
        found: the survey.
        model: the model.
        requests: the requests.
        out: folder of the files.

    Returns:
        Content of locate.json.
    """
    from metake.calibration.survey import HEAD
    from metake.provenance import provenance
    from metake.report.survey import plot_survey
    from metake.report.tables import markdown

    facts = [{"prompt": r.prompt, "subject": r.subject, "target_new": r.target_new} for r in requests]
    content = {
        **provenance(model.name, model, found.location.method.name),
        "requests": facts,
        **found.plain(),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "locate.json", content)
    reasons = "".join(f"- {line}\n" for line in found.location.reasons)
    table = markdown(HEAD, [row.cells for row in found.rows]) + "\n" + reasons
    write_file(out / "locate.md", lambda path: path.write_text(table, encoding="utf-8"))
    draw_or_note(lambda: plot_survey(content["rows"], content["layers"], out / "locate.png"))
    typer.echo(f"saved {out}/locate.json, locate.md and locate.png")
    return content
