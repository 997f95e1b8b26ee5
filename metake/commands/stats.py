"""`metake stats`: second moments of keys."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from metake.commands.common import AsJson, Device, Dtype, Layers, Model, Modules, Overwrite, load_model
from metake.console import document, if_interrupted
from metake.errors import MetakeError
from metake.files import check_writable, kind_of, read_text
from metake.options import output_path, parse_layers
from metake.phases import phase
from metake.processes import rank_and_size


def stats(
    model: Model,
    out: Annotated[
        Path, typer.Option(parser=output_path, metavar="PATH", help="File to write (safetensors).")
    ],
    text: Annotated[Path | None, typer.Option(help="A text file.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Streamed dataset instead of a file: NAME or NAME:CONFIG (needs the hub extra)."),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Number of tokens; default: the whole text.")
    ] = None,
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
    from metake.geometry.covariance import collect
    from metake.geometry.statistics import FORMAT
    from metake.presets import default_layers, preset_name, settings_for
    from metake.streaming import stream_dataset
    from metake.texts import default_text

    with document(as_json) as content:
        if text is not None and dataset is not None:
            raise MetakeError("stats: give --text or --dataset, not both")
        check_writable(out)
        if out.exists() and kind_of(out) != FORMAT and not overwrite:
            raise MetakeError(
                f"{out}: exists and holds no statistics; choose another file, or give --overwrite"
            )
        wanted = None if layers is None else tuple(parse_layers(layers))
        loaded = load_model(model, device, dtype, modules)
        if wanted is None:
            wanted = settings_for(loaded.arch, "memit").layers or default_layers(len(loaded.arch))
        if dataset is not None:
            if tokens is None:
                raise MetakeError("stats: --tokens is missing; a stream has no end")
            source: Any = stream_dataset(dataset)
        else:
            source = default_text(preset_name(loaded.arch)) if text is None else read_text(text)
        partial = out.with_name(out.name + ".partial")
        if_interrupted(
            f"{out} was not written; rerun the command to resume from {partial.name}, which is saved every 20 s or less often"
        )
        with phase("statistics"):
            statistics = collect(
                loaded.arch, loaded.tokenizer, source, wanted, tokens=tokens, partial=partial
            )
        if rank_and_size()[0] > 0:
            return
        statistics.save(out)
        seen = statistics.provenance.tokens
        typer.echo(
            f"written: {out}, layers {list(wanted)}, {seen} tokens ({seen / loaded.arch.d_k:.0f} per key entry)"
        )
        if statistics.thin:
            typer.echo(
                "note: fewer than 20 tokens per key entry; C is not converged, and eta is overestimated",
                err=True,
            )
        content.update(out=str(out), thin=statistics.thin, **asdict(statistics.provenance))
