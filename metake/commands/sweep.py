"""`metake sweep`: methods over a range of the strength of their constraint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metake.commands.common import data_file, load_model, records_that_fit
from metake.commands.completion import complete_method
from metake.commands.config import ConfigFile, save_options
from metake.commands.option_types import (
    METHOD,
    AsJson,
    Batch,
    Data,
    Device,
    Dtype,
    Edits,
    ModelOrDemo,
    Modules,
    OutFolder,
    Stats,
    Text,
    Threads,
)
from metake.console import document
from metake.files import read_json
from metake.options import parse_numbers

if TYPE_CHECKING:
    from metake.methods.base import Method
    from metake.models.editable import EditableModel

Methods = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...",
        help="Rows of the method table, comma-separated; default: MEMIT, its controls, AlphaEdit and MetaKE, with the "
        "preset's components.",
        autocompletion=complete_method,
        rich_help_panel=METHOD,
    ),
]
Factors = Annotated[
    str,
    typer.Option(
        metavar="NUMBER,...", help="Strengths, as factors of the searched one.", rich_help_panel=METHOD
    ),
]


def swept_methods(model: EditableModel, methods: str | None) -> list[Method]:
    """Methods at their own strengths, with the model's preset.

    Args:
        model: the model.
        methods: value of `--methods`; None for the default ones, with the components of the preset.

    Returns:
        The methods, each once.
    """
    from metake.presets import methods_for
    from metake.tuning.searched import searched_names
    from metake.tuning.sweep import METHODS

    names = searched_names(model, METHODS) if methods is None else methods.split(",")
    return methods_for(model, list(dict.fromkeys(name.strip() for name in names)))


def sweep(
    model: ModelOrDemo = "demo",
    methods: Methods = None,
    data: Data = None,
    factors: Factors = "0.1,0.3,1,3,10",
    edits: Edits = 60,
    batch: Batch = 20,
    out: OutFolder = Path("results/sweep"),
    threads: Threads = None,
    stats: Stats = None,
    text: Text = None,
    device: Device = None,
    dtype: Dtype = "float32",
    modules: Modules = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Measure efficacy and generalization against specificity over a range of lambda.

    For AlphaEdit, L2 is varied; for `metake-priced`, the cost weight; all other settings are the searched ones. Consecutive
    batches, measured at the end. Writes a JSON file, a table and the figure. Rerun the command to resume.

    Example: metake sweep --model demo --factors 0.3,1,3 --out results/sweep
    """
    import torch

    from metake.data.records import read_records
    from metake.tuning.sweep import sweep as run

    torch.set_num_threads(threads or torch.get_num_threads())
    path = data_file(data, model, "test.json")
    scale = parse_numbers(factors, "--factors")
    everything = read_records(path, edits)
    loaded = load_model(model, device, dtype, modules)
    records, _ = records_that_fit(loaded, everything, path)
    bases = swept_methods(loaded, methods)
    with document(as_json) as content:
        table = run(
            loaded, records, bases, scale, batch=batch, out=out, data=path.name, stats=stats, text=text
        )
        typer.echo(table)
        save_options(out)
        content.update(read_json(out / f"{Path(loaded.name).name}.json"), out=str(out))
