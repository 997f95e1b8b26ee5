"""`metake evaluate`: several methods on the records of a file."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from tqdm import tqdm

from metake.commands.common import MethodOptions, load_model
from metake.commands.config import ConfigFile, save_options
from metake.commands.evaluate_options import (
    Against,
    Alone,
    Base,
    Data,
    Edited,
    Edits,
    Generate,
    HeldOut,
    MeasureEvery,
    ModelToEdit,
    Out,
    ProtocolName,
    Seeds,
    check_options,
)
from metake.commands.option_types import (
    AsJson,
    Batch,
    Change,
    Chats,
    Columns,
    Device,
    Dtype,
    Format,
    Hparams,
    Layers,
    Methods,
    Modules,
    Overwrite,
    Preset,
    Stats,
    Text,
)
from metake.commands.records import read_data, usable_records
from metake.console import document, draw_or_note, set_interrupt_message
from metake.errors import MetakeError
from metake.files import read_text, write_json, write_text
from metake.phases import phase
from metake.processes import is_first
from metake.words import counted

if TYPE_CHECKING:
    from metake.evaluation.protocol import Protocol
    from metake.evaluation.results import Results
    from metake.geometry.statistics import Statistics
    from metake.methods.base import Method
    from metake.models.editable import EditableModel


def read_held_out(path: Path | None) -> str | None:
    """Text of `--held-out`.

    Args:
        path: value of the option.

    Returns:
        The text; None without a file.

    Raises:
        MetakeError: the file holds no text.
    """
    text = None if path is None else read_text(path)
    if text is not None and not text.strip():
        raise MetakeError(f"{path}: holds no text; give one for perplexity, or leave out --held-out")
    return text


def included_text(model: EditableModel) -> str:
    """Included text for the perplexity of a model.

    Args:
        model: the model.

    Returns:
        The text.
    """
    from metake.presets import preset_name
    from metake.texts import held_out_text

    return held_out_text(preset_name(model))


def draw_data(protocol: Protocol, edits: int | None, seeds: int) -> list[Protocol]:
    """Protocols of all draws.

    Args:
        protocol: the protocol, with all records that fit the model.
        edits: value of `--edits`.
        seeds: value of `--seeds`.

    Returns:
        One protocol per draw.
    """
    from metake.evaluation.draws import draw_protocols

    return [protocol] if seeds == 1 else draw_protocols(protocol, edits or len(protocol.records), seeds)


def run_protocols(
    protocols: Sequence[Protocol],
    model: EditableModel,
    methods: Sequence[Method],
    statistics: Statistics | None,
    out: Path,
    **extra: Any,
) -> list[Results]:
    """Results of every draw, with a progress bar and checkpoints.

    Args:
        protocols: one protocol per draw.
        model: the model.
        methods: the methods.
        statistics: statistics of all their layers.
        out: folder of the results.
        extra: further values for the result file.

    Returns:
        One results per draw.
    """
    checkpoints = out / "checkpoints"
    set_interrupt_message(f"finished batches are in {checkpoints}; rerun the command to resume")
    total = sum(len(protocol.records) for protocol in protocols) * len(methods)
    with tqdm(total=total, unit="edit", desc="editing", disable=None) as bar:
        return [
            protocol.run(model, methods, statistics, checkpoints, on_edit=bar.update, **extra)
            for protocol in protocols
        ]


def save_results(draws: Sequence[Results], content: dict[str, Any], out: Path) -> dict[str, Any]:
    """Save the result file and the tables, print a short table, and remove the checkpoints.

    Args:
        draws: results of every draw.
        content: content of the result file.
        out: folder of the files.

    Returns:
        The content of `--json`.
    """
    from metake.evaluation.cases import write_answers
    from metake.evaluation.summary import difference_table, summary_table
    from metake.report.tables import markdown, render

    short, full = draws[0].table(), draws[0].markdown()
    if len(draws) > 1:
        table = summary_table(content["summary"])
        short = render(
            f"{content['model']}: {counted(content['edits'], 'edit')}, {len(draws)} draws", *table, 150
        )
        full = markdown(*table)
    write_json(out / "results.json", content)
    save_options(out)
    write_text(out / "table.md", full)
    texts = "".join(f", the texts of every case: {name}" for name in write_answers(content, out))
    for name in ("differences.md", "curves.png"):  # of an earlier evaluation
        (out / name).unlink(missing_ok=True)
    typer.echo(short)
    if "differences" in content:
        table = difference_table(content)
        write_text(out / "differences.md", markdown(*table))
        typer.echo(render("paired differences, percentage points", *table, 150))
    # a finished evaluation is never resumed: the next one may run other code
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    set_interrupt_message(f"the results are saved in {out}")
    typer.echo(f"written: {out}/results.json and table.md, with all metrics{texts}")
    return {**content, "out": str(out)}


def draw_pages(results: Results, content: dict[str, Any], d_k: int, out: Path) -> None:
    """Draw the curves, and write the page with its figure, after everything else is saved.

    Args:
        results: results of the first draw, which the page is about.
        content: content of the result file.
        d_k: width of a key.
        out: folder of the files.
    """
    from metake.evaluation.page import write_comparison_page
    from metake.report.figures import plot_sequence

    if "curves" in content:
        draw_or_note(lambda: plot_sequence(content["curves"], out / "curves.png", d_k, content["batch"]))
    for page in draw_or_note(lambda: write_comparison_page(out / "report.html", results)):
        typer.echo(f"written: {page}")


def edit_and_measure(
    protocol: Protocol,
    model: EditableModel,
    names: Sequence[str],
    options: MethodOptions,
    sources: tuple[Path | None, Path | None],
    draws: tuple[int | None, int],
    out: Path,
    **extra: Any,
) -> list[Results]:
    """Results of several methods, each with the model's preset or calibrated.

    Args:
        protocol: the protocol, with all records that fit the model.
        model: the model.
        names: names of the methods.
        options: changes of their settings.
        sources: values of `--stats` and `--text`.
        draws: values of `--edits` and `--seeds`.
        out: folder of the results.
        **extra: further values for the result file.

    Returns:
        One results per draw.
    """
    first = [record.request for record in protocol.records[: protocol.batch_size]]
    locations, statistics = options.chosen(model, names, first, *sources)
    methods = [location.method for location in locations]
    reasons = {made.method.name: [*made.reasons, *made.method.reasons(model)] for made in locations}
    return run_protocols(
        draw_data(protocol, *draws), model, methods, statistics, out, reasons=reasons, **extra
    )


def measure_edited(
    folder: Path, base: EditableModel, protocol: Protocol, dtype: str, modules: Path | None, **extra: Any
) -> Results:
    """Results of a model or a delta that was made elsewhere.

    Args:
        folder: value of `--edited`.
        base: the unedited model.
        protocol: the protocol, with all records that fit the model.
        dtype: value of `--dtype`.
        modules: value of `--modules`.
        **extra: further values for the result file.

    Returns:
        The results.
    """
    from metake.evaluation.edited import judge_edited, read_edited

    with phase(f"load {folder}"):
        edited = read_edited(folder, base, dtype=dtype, modules=modules)
    return judge_edited(protocol, base, edited, str(folder), **extra)


def evaluate(
    context: typer.Context,
    data: Data,
    out: Out,
    model: ModelToEdit = None,
    edited: Edited = None,
    base: Base = None,
    methods: Methods = "metake,alphaedit,memit",
    edits: Edits = None,
    batch: Batch = 20,
    seeds: Seeds = 1,
    against: Against = None,
    measure_every: MeasureEvery = None,
    alone: Alone = False,
    protocol: ProtocolName = "published",
    generate: Generate = True,
    held_out: HeldOut = None,
    form: Format = None,
    columns: Columns = None,
    layers: Layers = None,
    hparams: Hparams = None,
    preset: Preset = None,
    change: Change = None,
    stats: Stats = None,
    text: Text = None,
    device: Device = None,
    dtype: Dtype = "float32",
    modules: Modules = None,
    chat: Chats = False,
    overwrite: Overwrite = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Edit the records of a file in consecutive batches with several methods, and compare the methods.

    Every batch is checkpointed under --out; rerun the command to resume. With several draws the page has the first.

    Example: metake evaluate --model demo --data zsre.json --methods metake,memit --edits 100 --batch 20 --out results
    """
    from metake.evaluation.protocol import Protocol
    from metake.evaluation.summary import draws_content

    with document(as_json) as content:
        names, options = check_options(context), MethodOptions.read(preset, hparams, change, layers)
        reading = read_data(data, edits, seeds, form, columns)
        held = read_held_out(held_out)
        loaded = load_model(str(model or base), device, dtype, modules, chat)
        known = [] if edited else options.methods(loaded, names)  # a setting that no method has is an error
        records, extra = usable_records(loaded, reading, known)
        held = held or included_text(loaded)
        run = Protocol(records, batch, not alone, generate, held, measure_every, name=protocol)
        if edited is not None:
            draws = [measure_edited(edited, loaded, run, dtype, modules, **extra)]
        else:
            draws = edit_and_measure(run, loaded, names, options, (stats, text), (edits, seeds), out, **extra)
        if not is_first():
            return
        found = draws_content(draws, against and draws[0].runs[names.index(against)].method.name)
        content.update(save_results(draws, found, out))
        draw_pages(draws[0], found, loaded.d_k, out)
