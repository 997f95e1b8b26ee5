"""`metake apply`: add a saved delta to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metake.commands.common import load_model
from metake.commands.option_types import AsJson, Device, Dtype, Model, Modules, Overwrite
from metake.console import document, set_interrupt_message
from metake.errors import MetakeError
from metake.folders import check_folder
from metake.options import output_path

DeltaPath = Annotated[Path, typer.Option(help="Folder or file written by `metake edit`.")]
Out = Annotated[Path, typer.Option(parser=output_path, metavar="PATH", help="Folder for the edited model.")]
Force = Annotated[
    bool, typer.Option("--force", help="Skip the check that the delta was made for this model.")
]


def check_folders(out: Path, delta: Path) -> None:
    """Check that the delta's folder is not replaced by the model's.

    Args:
        out: value of `--out`.
        delta: value of `--delta`.

    Raises:
        MetakeError: both are the same folder.
    """
    if out.exists() and out.samefile(delta if delta.is_dir() else delta.parent):
        raise MetakeError(
            f"apply: --out {out} is the folder of --delta, which would be lost; choose another folder"
        )


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
    from metake.deltas import Delta
    from metake.models.load import save_model

    with document(as_json) as content:
        check_folder(out, overwrite=overwrite)
        set_interrupt_message(f"nothing was saved in {out}; rerun the command to start again")
        change = Delta.load(delta)
        check_folders(out, delta)
        loaded = load_model(model, device, dtype, modules)
        change.apply(loaded, check=not force)
        save_model(loaded, out, overwrite=overwrite)
        typer.echo(
            f"saved the edited model: {out} ({len(change.note.get('edits', []))} edits, layers {list(change.layers)})"
        )
        content.update(
            out=str(out),
            model=loaded.name,
            delta=str(delta),
            digest=change.digest,
            layers=list(change.layers),
            note=change.note,
        )
