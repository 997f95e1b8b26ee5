"""`metake apply`: add a saved delta to a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metake.commands.common import load_model, read_delta
from metake.commands.option_types import AsJson, Device, Dtype, Model, Modules, Overwrite
from metake.console import document, set_interrupt_message
from metake.errors import MetakeError
from metake.folders import check_folder
from metake.options import output_path
from metake.words import counted

if TYPE_CHECKING:
    from metake.deltas import Delta
    from metake.models.editable import EditableModel

DeltaPath = Annotated[Path, typer.Option(help="Folder or file written by `metake edit`, or a PEFT adapter.")]
Out = Annotated[Path, typer.Option(parser=output_path, metavar="PATH", help="Folder for the edited model.")]
Force = Annotated[
    bool, typer.Option("--force", help="Skip the check that the delta was made for this model.")
]


def check_folders(out: Path, delta: Path, option: str = "--delta", name: str = "apply") -> None:
    """Check that the delta's folder is not replaced by the result's.

    Args:
        out: value of `--out`.
        delta: path of the delta.
        option: option or argument that named the delta.
        name: name of the command.

    Raises:
        MetakeError: both are the same folder.
    """
    if out.exists() and out.samefile(delta if delta.is_dir() else delta.parent):
        raise MetakeError(
            f"{name}: --out {out} is the folder of {option}, which would be lost; choose another folder"
        )


def save_edited(
    change: Delta, model: EditableModel, out: Path, *, force: bool = False, overwrite: bool = False
) -> None:
    """Apply a delta to the unedited model, and save the edited model.

    Args:
        change: the delta.
        model: the unedited model.
        out: folder of the edited model.
        force: skip the check that the delta was made for this model.
        overwrite: value of `--overwrite`.
    """
    from metake.models.save import save_model

    change.apply(model, check=not force)
    save_model(model, out, overwrite=overwrite)
    edits = len(change.note.get("edits", []))
    typer.echo(f"saved the edited model: {out} ({counted(edits, 'edit')}, layers {list(change.layers)})")


def edited_content(change: Delta, model: EditableModel, out: Path, delta: Path) -> dict[str, Any]:
    """Plain values of what was saved.

    Args:
        change: the delta.
        model: the edited model.
        out: folder of the edited model.
        delta: path of the delta.

    Returns:
        Values that a JSON file can hold.
    """
    return {
        "out": str(out),
        "model": model.name,
        "delta": str(delta),
        "digest": change.digest,
        "layers": list(change.layers),
        "note": change.note,
    }


def apply(
    model: Model,
    delta: DeltaPath,
    out: Out,
    force: Force = False,
    device: Device = None,
    dtype: Dtype = "float32",
    modules: Modules = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Apply a saved delta to the unedited model, and save the edited model.

    Example: metake apply --model smollm2 --delta edited --out model
    """
    with document(as_json) as content:
        check_folder(out, overwrite=overwrite)
        set_interrupt_message(f"nothing was saved in {out}; rerun the command to start again")
        delta_for = read_delta(delta, folded_by="apply")
        check_folders(out, delta)
        loaded = load_model(model, device, dtype, modules)
        change = delta_for(loaded, not force)
        save_edited(change, loaded, out, force=force, overwrite=overwrite)
        content.update(edited_content(change, loaded, out, delta))
