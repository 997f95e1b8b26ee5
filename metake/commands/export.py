"""`metake export`: a saved delta as an adapter or as an edited model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metake.adapters.serving import MAX_RANK
from metake.commands.apply import Force, check_folders, edited_content, save_edited
from metake.commands.common import load_model, read_delta
from metake.commands.option_types import AsJson, Device, Dtype, Modules, Overwrite
from metake.console import document, set_interrupt_message
from metake.errors import MetakeError
from metake.files import read_json
from metake.folders import check_folder
from metake.options import output_path

if TYPE_CHECKING:
    from metake.deltas import Delta
    from metake.models.editable import EditableModel


class ExportFormat(StrEnum):
    """Values of `--format`."""

    PEFT = "peft"
    MERGED = "merged"
    GGUF_LORA = "gguf-lora"


DeltaPath = Annotated[
    Path,
    typer.Argument(metavar="DELTA", help="Folder or file written by `metake edit`, or a PEFT adapter."),
]
Form = Annotated[
    ExportFormat,
    typer.Option(
        "--format",
        help="PEFT adapter (peft), GGUF adapter for llama.cpp (gguf-lora), or edited model (merged).",
    ),
]
Out = Annotated[
    Path, typer.Option(parser=output_path, metavar="PATH", help="Folder for the adapter or the edited model.")
]
Base = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Unedited model: a name from `metake models`, a local folder, a .gguf file or a hub name. Required for merged, for a "
        "delta of an earlier metake version, and for a PEFT adapter that peft wrote.",
    ),
]
BaseName = Annotated[
    str | None,
    typer.Option(
        "--base",
        help="Hub name or folder of the base model, written into the adapter; default: that of --model or of the delta.",
    ),
]
MaxRank = Annotated[
    int,
    typer.Option("--max-rank", min=1, help="Maximum rank of a layer; larger changes are truncated by SVD."),
]
Exact = Annotated[
    bool,
    typer.Option(
        "--exact-ranks",
        help="Keep the rank of each layer; default: pad all layers to one rank that vLLM supports.",
    ),
]


def check_model(form: ExportFormat, model: str | None) -> None:
    """Refuse an edited model without the unedited one.

    Args:
        form: value of `--format`.
        model: value of `--model`.

    Raises:
        MetakeError: `--model` is missing.
    """
    if form is ExportFormat.MERGED and model is None:
        raise MetakeError("export: --model is missing; --format merged needs the unedited model")


def read_report(delta: Path) -> dict[str, Any]:
    """Measurements in the `result.json` beside a delta, for the model card.

    Args:
        delta: value of `DELTA`.

    Returns:
        Values by name; empty if there is no such file.

    Raises:
        MetakeError: a field has another form than metake edit writes.
    """
    from metake.adapters.card import check_report

    path = (delta if delta.is_dir() else delta.parent) / "result.json"
    content = read_json(path) if path.is_file() else {}
    check_report(content, str(path))
    return dict(content)


def save_adapter(
    change: Delta,
    model: EditableModel | None,
    form: ExportFormat,
    out: Path,
    report: dict[str, Any],
    overwrite: bool,
    **options: Any,
) -> dict[str, Any]:
    """Write an adapter and print what was lost and how it is served.

    Args:
        change: the delta.
        model: the unedited model, if it was loaded.
        form: value of `--format`.
        out: folder of the adapter.
        report: measurements for the model card.
        overwrite: value of `--overwrite`.
        **options: of `Delta.as_adapter`.

    Returns:
        Plain values for `--json`.
    """
    from metake.adapters.export import save_gguf, save_peft

    save = save_gguf if form is ExportFormat.GGUF_LORA else save_peft
    done = save(change.as_adapter(model, **options), out, report, overwrite=overwrite)
    typer.echo(done)
    return {"out": str(out), "format": form.value, **done.plain()}


def export(
    delta: DeltaPath,
    out: Out,
    form: Form = ExportFormat.PEFT,
    model: Base = None,
    base: BaseName = None,
    max_rank: MaxRank = MAX_RANK,
    exact_ranks: Exact = False,
    force: Force = False,
    device: Device = None,
    dtype: Dtype = "float32",
    modules: Modules = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a saved edit as a PEFT adapter, a GGUF adapter for llama.cpp, or an edited model.

    Example: metake export edited --format peft --model smollm2 --out adapter
    """
    from metake.adapters.base_name import loadable_base

    with document(as_json) as content:
        check_model(form, model)
        check_folder(out, overwrite=overwrite)
        set_interrupt_message(f"nothing was saved in {out}; rerun the command to start again")
        delta_for, report = read_delta(delta, folded_by="export"), read_report(delta)
        check_folders(out, delta, "DELTA", "export")
        loaded = None if model is None else load_model(model, device, dtype, modules)
        change = delta_for(loaded, not force)
        if form is ExportFormat.MERGED and loaded is not None:
            save_edited(change, loaded, out, force=force, overwrite=overwrite)
            content.update(edited_content(change, loaded, out, delta), format=form.value)
            return
        options = {
            "base": base or loadable_base(model or "", relative=True),
            "max_rank": max_rank,
            "pad": not exact_ranks,
            "check": not force,
        }
        content.update(save_adapter(change, loaded, form, out, report, overwrite, **options))
