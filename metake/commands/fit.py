"""`metake fit`: the map of a method that is fitted before it edits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metake.commands.common import MethodOptions, data_file, load_model
from metake.commands.completion import complete_method
from metake.commands.config import ConfigFile, save_options
from metake.commands.option_types import (
    METHOD,
    AsJson,
    Change,
    Chats,
    Columns,
    Data,
    Device,
    Dtype,
    Format,
    Layers,
    ModelOrDemo,
    Modules,
    OutFolder,
    Overwrite,
    Preset,
)
from metake.console import document, set_interrupt_message
from metake.errors import MetakeError
from metake.files import read_json
from metake.words import counted

if TYPE_CHECKING:
    from metake.data.record import Record
    from metake.methods.base import Method
    from metake.methods.learned_map import LearnedMap
    from metake.models.editable import EditableModel

FittedMethod = Annotated[
    str,
    typer.Option(
        "--method",
        help="A method with a fitted map, e.g. malmen.",
        autocompletion=complete_method,
        rich_help_panel=METHOD,
    ),
]


def check_fitted(method: Method) -> LearnedMap:
    """A method with a fitted map.

    Args:
        method: any method.

    Returns:
        The method itself.

    Raises:
        MetakeError: it has nothing to fit.
    """
    from metake.methods.learned_map import LearnedMap
    from metake.methods.table import METHODS

    if not isinstance(method, LearnedMap):
        known = [name for name, row in METHODS.items() if isinstance(row.prototype, LearnedMap)]
        raise MetakeError(f"fit: {method.name} has no map to fit; methods with one: {', '.join(known)}")
    return method


def fitting_records(model: EditableModel, path: Path, form: str | None, columns: str | None) -> list[Record]:
    """Records of a file that fit the model; a line on stderr counts what is left out.

    Args:
        model: the model.
        path: the file.
        form: value of `--format`.
        columns: value of `--columns`.

    Returns:
        The records.
    """
    from metake.commands.common import records_that_fit
    from metake.data.columns import parse_columns
    from metake.data.records import read_file

    reading = read_file(path, form=form, columns=parse_columns(columns), subject_optional=True)
    typer.echo(f"{path}: {reading.summary}", err=True)
    return records_that_fit(model, reading.records, path)[0]


def summary_lines(content: dict[str, Any]) -> list[str]:
    """Lines on a fit.

    Args:
        content: content of the file of its curve.

    Returns:
        Number of steps, and the held-out loss if there is one.
    """
    from metake.maps.fit import held_out_losses

    curve, records = content["curve"], content["records"]
    why = ", stopped early" if content["stopped_early"] else ""
    lines = [
        f"{content['method']}: {counted(content['steps'], 'step')} on {counted(records['fitted'], 'record')}{why}"
    ]
    held = held_out_losses(curve)
    if held:
        lines.append(
            f"loss on {counted(records['held_out'], 'held-out record')}: {held[0]:.3g} before the fit, {min(held):.3g} of the saved map"
        )
        if min(held) == held[0]:
            lines.append(
                "no step lowered it: the saved map is the one before the fit; fit longer, or with a smaller fit_lr"
            )
    return lines


def fit(
    out: OutFolder,
    model: ModelOrDemo = "demo",
    method: FittedMethod = "malmen",
    data: Data = None,
    form: Format = None,
    columns: Columns = None,
    layers: Layers = None,
    preset: Preset = None,
    change: Change = None,
    device: Device = None,
    dtype: Dtype = "float32",
    modules: Modules = None,
    chat: Chats = False,
    overwrite: Overwrite = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Fit the map of MALMEN, MEND, RLEdit or HORSE to records; give `--set map=FOLDER` to edit with it. Rerun to resume.

    Use other records than those of an evaluation. A folder may hold the maps of several methods.

    Example: metake fit --method malmen --model demo --data dev.json --out maps
    """
    from metake.maps.files import map_file
    from metake.maps.fit import SAVE_EVERY
    from metake.methods.learned_map import free_file
    from metake.methods.table import method_named

    with document(as_json) as content:
        row = check_fitted(method_named(method)).row
        free_file(out, row, overwrite)
        options = MethodOptions.read(preset, None, change, layers)
        path = data_file(data, model, "dev.json")
        loaded = load_model(model, device, dtype, modules, chat)
        made = check_fitted(options.method(loaded, method))
        records = fitting_records(loaded, path, form, columns)
        set_interrupt_message(
            f"the fit is saved every {SAVE_EVERY:g} s in {out}; rerun the command to resume"
        )
        made.fit(loaded, records, out, overwrite=overwrite)
        file = map_file(out, made.row)
        found = read_json(file.with_suffix(".json"))
        save_options(out)
        for line in summary_lines(found):
            typer.echo(line)
        typer.echo(f"written: {file} and {file.with_suffix('.json').name}; edit with --set map={out}")
        content.update(found, data=str(path), map=str(file))
