"""`metake stats`: second moments of keys."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metake.commands.common import load_model
from metake.commands.option_types import (
    AsJson,
    Device,
    Dtype,
    Layers,
    MethodName,
    Model,
    Modules,
    Overwrite,
    Text,
)
from metake.console import document, set_interrupt_message
from metake.errors import MetakeError
from metake.files import check_writable, read_text
from metake.options import output_path, parse_layers
from metake.phases import phase
from metake.processes import is_first
from metake.tensor_files import kind_of

if TYPE_CHECKING:
    from metake.geometry.statistics import Statistics
    from metake.models.editable import EditableModel

Out = Annotated[
    Path | None,
    typer.Option(
        parser=output_path, metavar="PATH", help="File to write (safetensors); required without --compare."
    ),
]
Source = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="SOURCE",
        help="Published statistics to read instead of collecting them: MEMIT's .npz files (a folder or one file), AlphaEdit's "
        "null_space_project.pt, or a hub repository with MEMIT's files.",
    ),
]
Compared = Annotated[
    list[str] | None,
    typer.Option(
        "--compare",
        metavar="SOURCE",
        help="Statistics whose eta is printed side by side: a file of `metake stats`, or a SOURCE of --from. Repeatable.",
    ),
]
Facts = Annotated[
    Path | None,
    typer.Option(
        "--requests",
        help="Facts whose eta --compare prints (JSON, JSON Lines, CSV or TSV file); default for a demo model: facts of its world.",
    ),
]
Dataset = Annotated[
    str | None,
    typer.Option(help="Dataset of the hub to stream instead of --text: NAME or NAME:CONFIG (extra: hub)."),
]
Tokens = Annotated[int | None, typer.Option(min=1, help="Number of tokens; default: the whole text.")]


def check_options(out: Path | None, sources: dict[str, object], overwrite: bool) -> Path:
    """Check source and output file, before a model is loaded.

    Args:
        out: value of `--out`.
        sources: option -> value of `--text`, `--dataset`, `--from`.
        overwrite: value of `--overwrite`.

    Returns:
        The output file.

    Raises:
        MetakeError: two sources, no output file, or one that holds something else.
    """
    from metake.geometry.statistics import FORMAT

    given = [option for option, value in sources.items() if value is not None]
    if len(given) > 1:
        raise MetakeError(f"stats: give {given[0]} or {given[1]}, not both")
    if out is None:
        raise MetakeError("stats: --out is missing; name the file to write")
    check_writable(out)
    if out.exists() and kind_of(out) != FORMAT and not overwrite:
        raise MetakeError(f"{out}: exists and holds no statistics; choose another file, or give --overwrite")
    return out


def check_alone(option: str, others: dict[str, object]) -> None:
    """Check that options without effect beside another one are not given.

    Args:
        option: the option.
        others: option -> its value, None if it is not given.

    Raises:
        MetakeError: one of them is given.
    """
    for other, value in others.items():
        if value is not None:
            raise MetakeError(f"stats: give {option} or {other}, not both")


def memit_layers(model: EditableModel) -> tuple[int, ...]:
    """Layers that MEMIT edits in a model by default.

    Args:
        model: the model.

    Returns:
        The layers, ascending.
    """
    from metake.presets import default_layers, settings_for

    return settings_for(model, "memit").layers or default_layers(len(model))


def compared(
    sources: list[str],
    model: str,
    layers: tuple[int, ...],
    requests: Path | None,
    method: str,
    device: str | None,
    dtype: str,
    modules: Path | None,
) -> dict[str, Any]:
    """Eta under several statistics, printed as a table.

    Args:
        sources: values of `--compare`.
        model: value of `--model`.
        layers: layers of `--layers`; empty for those of the method.
        requests: value of `--requests`.
        method: value of `--method`.
        device: value of `--device`.
        dtype: value of `--dtype`.
        modules: value of `--modules`.

    Returns:
        The numbers as plain values.
    """
    from metake.calibration.compare import compare_statistics
    from metake.calibration.survey import check_layered
    from metake.commands.locate import located_requests
    from metake.methods.table import method_named
    from metake.presets import settings_for
    from metake.statistics_sources import read_statistics

    check_layered(method_named(method))
    facts = located_requests(None, None, None, requests, model)
    loaded = load_model(model, device, dtype, modules)
    made = settings_for(loaded, method)
    made = made.updated(layers=layers) if layers else made
    with phase("statistics"):
        found = {source: read_statistics(source, loaded, made.layers) for source in sources}
    comparison = compare_statistics(loaded, check_layered(made), facts, found)
    typer.echo(comparison)
    return comparison.plain()


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
    """Print what was collected or read, and a note if there are few tokens.

    Args:
        statistics: the statistics.
        out: file that holds them.
        d_k: width of a key.
    """
    found = statistics.provenance
    amount = (
        ""
        if statistics.is_projection
        else f", {found.tokens} tokens ({found.tokens / d_k:.0f} per key entry)"
    )
    whose = f", from {found.source}" if found.source else ""
    typer.echo(f"written: {out}, layers {list(found.layers)}{amount}{whose}")
    if statistics.is_undersampled:
        typer.echo(
            "note: fewer than 20 tokens per key entry; C is not converged, and eta is overestimated", err=True
        )


def collected(
    model: EditableModel,
    layers: tuple[int, ...],
    out: Path,
    source: str | Iterable[str],
    tokens: int | None,
) -> Statistics:
    """Statistics collected from a text; rerun to resume from the file beside `out`.

    Args:
        model: the model.
        layers: the layers.
        out: file that will hold them.
        source: one text, or a stream of texts.
        tokens: value of `--tokens`.

    Returns:
        The statistics.
    """
    from metake.geometry.covariance import KEEP_EVERY, collect

    partial = out.with_name(out.name + ".partial")
    set_interrupt_message(
        f"{out} was not written; rerun the command to resume from {partial.name}, which is saved every {KEEP_EVERY:g} s or less often"
    )
    return collect(model, model.tokenizer, source, layers, tokens=tokens, partial=partial)


def stats(
    model: Model,
    out: Out = None,
    text: Text = None,
    dataset: Dataset = None,
    source: Source = None,
    compare: Compared = None,
    requests: Facts = None,
    method: MethodName = "memit",
    tokens: Tokens = None,
    layers: Layers = None,
    device: Device = None,
    dtype: Dtype = "float32",
    modules: Modules = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Collect second moments of keys for the edited layers, or read published ones. Rerun to resume.

    Example: metake stats --model gpt2-xl --text wiki.txt --layers 13-17 --tokens 1000000 --out stats.safetensors
    """
    with document(as_json) as content:
        given = () if layers is None else tuple(parse_layers(layers))
        if compare:
            check_alone("--compare", {"--out": out, "--from": source, "--text": text, "--dataset": dataset})
            content.update(compared(compare, model, given, requests, method, device, dtype, modules))
            return
        if source is not None:
            check_alone("--from", {"--tokens": tokens})
        out = check_options(out, {"--text": text, "--dataset": dataset, "--from": source}, overwrite)
        loaded = load_model(model, device, dtype, modules)
        chosen = given or memit_layers(loaded)
        with phase("statistics"):
            if source is not None:
                from metake.statistics_sources import read_statistics

                statistics = read_statistics(source, loaded, chosen)
            else:
                statistics = collected(
                    loaded, chosen, out, open_source(loaded, text, dataset, tokens), tokens
                )
        if not is_first():
            return
        statistics.save(out)
        show_statistics(statistics, out, loaded.d_k)
        content.update(out=str(out), thin=statistics.is_undersampled, **asdict(statistics.provenance))
