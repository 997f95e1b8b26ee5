"""`metake stats`: second moments of keys."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metake.commands.common import load_model
from metake.commands.option_types import AsJson, Device, Dtype, Layers, Model, Modules, Overwrite
from metake.console import document, set_interrupt_message
from metake.errors import MetakeError
from metake.files import check_writable, kind_of, read_text
from metake.options import output_path, parse_layers
from metake.phases import phase
from metake.processes import rank_and_size

if TYPE_CHECKING:
    from metake.geometry.statistics import Statistics
    from metake.models.editable import EditableModel

Out = Annotated[Path, typer.Option(parser=output_path, metavar="PATH", help="File to write (safetensors).")]
TextFile = Annotated[Path | None, typer.Option(help="A text file.")]
Dataset = Annotated[
    str | None,
    typer.Option(help="Streamed dataset instead of a file: NAME or NAME:CONFIG (needs the hub extra)."),
]
Tokens = Annotated[int | None, typer.Option(min=1, help="Number of tokens; default: the whole text.")]


def check_options(out: Path, text: Path | None, dataset: str | None, overwrite: bool) -> None:
    """Check source and output file, before a model is loaded.

    Args:
        out: value of `--out`.
        text: value of `--text`.
        dataset: value of `--dataset`.
        overwrite: value of `--overwrite`.

    Raises:
        MetakeError: two sources, or an output file that holds something else.
    """
    from metake.geometry.statistics import FORMAT

    if text is not None and dataset is not None:
        raise MetakeError("stats: give --text or --dataset, not both")
    check_writable(out)
    if out.exists() and kind_of(out) != FORMAT and not overwrite:
        raise MetakeError(f"{out}: exists and holds no statistics; choose another file, or give --overwrite")


def memit_layers(model: EditableModel) -> tuple[int, ...]:
    """Layers that MEMIT edits in a model by default.

    Args:
        model: the model.

    Returns:
        The layers, ascending.
    """
    from metake.presets import default_layers, settings_for

    return settings_for(model, "memit").layers or default_layers(len(model))


def open_source(
    model: EditableModel, text: Path | None, dataset: str | None, tokens: int | None
) -> str | Iterable[str]:
    """Text that the statistics are collected from: a file, a stream, or the included text.

    Args:
        model: the model.
        text: value of `--text`.
        dataset: value of `--dataset`.
        tokens: value of `--tokens`.

    Returns:
        One text, or a stream of texts.

    Raises:
        MetakeError: a stream without a number of tokens.
    """
    from metake.presets import preset_name
    from metake.streaming import stream_dataset
    from metake.texts import default_text

    if dataset is None:
        return default_text(preset_name(model)) if text is None else read_text(text)
    if tokens is None:
        raise MetakeError("stats: --tokens is missing; a streamed dataset has no length")
    return stream_dataset(dataset)


def show_statistics(statistics: Statistics, out: Path, d_k: int) -> None:
    """Print what was collected, and a note if there are few tokens.

    Args:
        statistics: the statistics.
        out: file that holds them.
        d_k: width of a key.
    """
    tokens = statistics.provenance.tokens
    typer.echo(
        f"written: {out}, layers {list(statistics.provenance.layers)}, {tokens} tokens ({tokens / d_k:.0f} per key entry)"
    )
    if statistics.is_undersampled:
        typer.echo(
            "note: fewer than 20 tokens per key entry; C is not converged, and eta is overestimated", err=True
        )


def stats(
    model: Model,
    out: Out,
    text: TextFile = None,
    dataset: Dataset = None,
    tokens: Tokens = None,
    layers: Layers = None,
    device: Device = None,
    dtype: Dtype = "float32",
    modules: Modules = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Collect second moments of keys for the edited layers. Rerun an interrupted command to resume.

    Example: metake stats --model gpt2-xl --text wiki.txt --layers 13-17 --tokens 1000000 --out stats.safetensors
    """
    from metake.geometry.covariance import KEEP_EVERY, collect

    with document(as_json) as content:
        check_options(out, text, dataset, overwrite)
        given = () if layers is None else tuple(parse_layers(layers))
        loaded = load_model(model, device, dtype, modules)
        chosen = given or memit_layers(loaded)
        source = open_source(loaded, text, dataset, tokens)
        partial = out.with_name(out.name + ".partial")
        set_interrupt_message(
            f"{out} was not written; rerun the command to resume from {partial.name}, which is saved every {KEEP_EVERY:g} s or less often"
        )
        with phase("statistics"):
            statistics = collect(loaded, loaded.tokenizer, source, chosen, tokens=tokens, partial=partial)
        if rank_and_size()[0] > 0:
            return
        statistics.save(out)
        show_statistics(statistics, out, loaded.d_k)
        content.update(out=str(out), thin=statistics.is_undersampled, **asdict(statistics.provenance))
