"""`metake evaluate`: several methods on the records of a file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tqdm import tqdm

from metake.commands.common import MethodOptions, load_model, records_that_fit
from metake.commands.option_types import (
    AsJson,
    Batch,
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
)
from metake.console import document, draw_or_note, if_interrupted
from metake.errors import MetakeError
from metake.files import read_text, write_json, write_text
from metake.folders import check_run_folder
from metake.options import find_statistics, output_path
from metake.processes import rank_and_size

if TYPE_CHECKING:
    from metake.evaluation.results import Results
    from metake.models.load import EditableModel

EVALUATION = (
    "under_way",
    "results.json",
    "table.md",
    "realization.png",
    "report.html",
)  # what evaluate writes under --out

Data = Annotated[
    Path,
    typer.Option(
        help="File of records (JSON, JSON Lines, CSV or TSV): own facts, zsRE, CounterFact, EasyEdit, KnowEdit."
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        parser=output_path,
        metavar="PATH",
        help="Folder for results.json, table.md, report.html and the figure.",
    ),
]
Methods = Annotated[str, typer.Option(help="Comma-separated rows of the method table.")]
Edits = Annotated[int | None, typer.Option(min=1, help="Use the first records, this many; default: all.")]
Alone = Annotated[
    bool, typer.Option("--alone", help="Evaluate each batch alone, on an otherwise unedited model.")
]
Generate = Annotated[bool, typer.Option(help="Also evaluate free generation.")]
HeldOut = Annotated[Path | None, typer.Option(help="Text for perplexity; default: the included text.")]


def method_names(methods: str) -> list[str]:
    """Names of `--methods`, each once; an unknown one raises a `MetakeError`.

    Args:
        methods: value of the option.

    Returns:
        The names.

    Raises:
        MetakeError: there is none.
    """
    from metake.methods.table import method_named

    names = list(dict.fromkeys(name.strip() for name in methods.split(",") if name.strip()))
    if not names:
        raise MetakeError("evaluate: --methods names none; write e.g. --methods metake,memit")
    for name in names:
        method_named(name)
    return names


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


def included_text(loaded: EditableModel) -> str:
    """Included text for the perplexity of a model.

    Args:
        loaded: the model.

    Returns:
        The text.
    """
    from metake.presets import preset_name
    from metake.texts import held_out_text

    return held_out_text(preset_name(loaded.arch))


def save_results(results: Results, out: Path) -> None:
    """Save the result file and the table, print a short table, and remove the checkpoints.

    Args:
        results: the results.
        out: folder of the files.
    """
    write_json(out / "results.json", results.content)
    write_text(out / "table.md", results.markdown())
    # a finished evaluation is never resumed: the next one may run other code
    shutil.rmtree(out / "under_way", ignore_errors=True)
    if_interrupted(f"the results are saved in {out}")
    typer.echo(results.table())
    typer.echo(f"written: {out}/results.json and table.md, with all metrics")


def draw_page(results: Results, out: Path) -> None:
    """Write the page and its figure, after everything else is saved.

    Args:
        results: the results.
        out: folder of the files.
    """
    from metake.evaluation.page import write_comparison_page

    for page in draw_or_note(lambda: write_comparison_page(out / "report.html", results)):
        typer.echo(f"written: {page}")


def evaluate(
    model: Model,
    data: Data,
    out: Out,
    methods: Methods = "metake,alphaedit,memit",
    edits: Edits = None,
    batch: Batch = 20,
    alone: Alone = False,
    generate: Generate = True,
    held_out: HeldOut = None,
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
    from metake.evaluation.protocol import Protocol

    with document(as_json) as content:
        names = method_names(methods)
        check_run_folder(out, EVALUATION, overwrite=overwrite)
        everything = read_records(data, edits)
        options = MethodOptions.read(preset, hparams, change, layers)
        perplexity_text = read_held_out(held_out)
        loaded = load_model(model, device, dtype, modules, chat)
        chosen = options.methods(loaded, names)
        records, left_out = records_that_fit(loaded, everything, data)
        statistics = find_statistics(loaded, chosen, stats, text)
        protocol = Protocol(records, batch, not alone, generate, perplexity_text or included_text(loaded))
        if_interrupted(f"finished batches are in {out / 'under_way'}; rerun the command to resume")
        with tqdm(total=len(records) * len(names), unit="edit", desc="editing", disable=None) as bar:
            results = protocol.run(
                loaded,
                chosen,
                statistics,
                out / "under_way",
                on_edit=bar.update,
                data=str(data),
                left_out=left_out,
            )
        if rank_and_size()[0] > 0:
            return
        save_results(results, out)
        content.update(results.content, out=str(out))
        draw_page(results, out)
