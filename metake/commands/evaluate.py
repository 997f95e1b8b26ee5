"""`metake evaluate`: several methods on the records of a file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from metake.commands.common import (
    AsJson,
    Change,
    Chats,
    Device,
    Dtype,
    Hparams,
    Layers,
    Model,
    Modules,
    Overwrite,
    Preset,
    Stats,
    Text,
    load_model,
    parse_changes,
)
from metake.console import document, draw_or_note, if_interrupted
from metake.errors import MetakeError
from metake.files import read_text, write_json, write_text
from metake.folders import check_run_folder
from metake.options import find_statistics, output_path
from metake.processes import rank_and_size

EVALUATION = (
    "under_way",
    "results.json",
    "table.md",
    "realisation.png",
    "report.html",
)  # what evaluate writes under --out


def evaluate(
    model: Model,
    data: Annotated[
        Path,
        typer.Option(
            help="File of records (JSON, JSON Lines, CSV or TSV): own facts, zsRE, CounterFact, EasyEdit, KnowEdit."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            parser=output_path,
            metavar="PATH",
            help="Folder for results.json, table.md, report.html and the figure.",
        ),
    ],
    methods: Annotated[
        str, typer.Option(help="Comma-separated rows of the method table.")
    ] = "metake,alphaedit,memit",
    edits: Annotated[
        int | None, typer.Option(min=1, help="Use the first records, this many; default: all.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Edits per batch.")] = 20,
    alone: Annotated[
        bool, typer.Option("--alone", help="Evaluate each batch alone, on an otherwise unedited model.")
    ] = False,
    generate: Annotated[bool, typer.Option(help="Also evaluate free generation.")] = True,
    held_out: Annotated[
        Path | None, typer.Option(help="Text for perplexity; default: the included text.")
    ] = None,
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
    as_json: AsJson = False,
) -> None:
    """Edit the records of a file in consecutive batches with several methods, and compare the methods.

    Every batch is checkpointed under --out; rerun the command to resume.

    Example: metake evaluate --model demo --data zsre.json --methods metake,memit --edits 100 --batch 20 --out results
    """
    from metake.data.records import read_records
    from metake.evaluation.checks import fitting_records
    from metake.evaluation.page import write_comparison_page
    from metake.evaluation.protocol import Protocol
    from metake.methods.table import method_named
    from metake.presets import check_changes, methods_for, preset_name, preset_of
    from metake.published import parse_files, published_for
    from metake.texts import held_out_text

    with document(as_json) as content:
        names = list(dict.fromkeys(name.strip() for name in methods.split(",") if name.strip()))
        if not names:
            raise MetakeError("evaluate: --methods names none; write e.g. --methods metake,memit")
        for name in names:
            method_named(name)
        check_run_folder(out, EVALUATION, overwrite=overwrite)
        records = read_records(data, edits)
        changes = parse_changes(change, layers)
        check_changes(changes)
        if preset is not None:
            preset_of(preset)  # read before a model is
        files = parse_files(hparams)
        given = None if held_out is None else read_text(held_out)
        if given is not None and not given.strip():
            raise MetakeError(f"{held_out}: holds no text; give one for perplexity, or leave out --held-out")
        loaded = load_model(model, device, dtype, modules, chat)
        published = published_for(files, names, loaded.arch)
        chosen = methods_for(loaded.arch, names, preset=preset, own=published, changes=changes)
        records, left_out = fitting_records(loaded, records)
        for line in left_out:
            typer.echo(f"left out: {line}", err=True)
        if not records:
            raise MetakeError(f"{data}: no record fits the model")
        statistics = find_statistics(loaded, chosen, stats, text)
        perplexity_text = held_out_text(preset_name(loaded.arch)) if given is None else given
        checkpoints = out / "under_way"
        if_interrupted(f"finished batches are in {checkpoints}; rerun the command to resume")
        protocol = Protocol(records, batch, not alone, generate, perplexity_text)
        with tqdm(total=len(records) * len(names), unit="edit", desc="editing", disable=None) as bar:
            results = protocol.run(
                loaded,
                chosen,
                statistics,
                checkpoints,
                on_edit=bar.update,
                data=str(data),
                left_out=left_out,
            )
        if rank_and_size()[0] > 0:
            return
        write_json(out / "results.json", results.content)
        write_text(out / "table.md", results.markdown())
        # a finished evaluation is never resumed: the next one may run other code
        shutil.rmtree(checkpoints, ignore_errors=True)
        if_interrupted(f"the results are saved in {out}")
        typer.echo(results.table())
        typer.echo(f"written: {out}/results.json and table.md, with all metrics")

        content.update(results.content, out=str(out))
        for page in draw_or_note(lambda: write_comparison_page(out / "report.html", results)):
            typer.echo(f"written: {page}")
