"""`metake sweep`: methods over a range of the strength of their constraint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metake.commands.common import (
    Data,
    Device,
    Dtype,
    ModelOrDemo,
    Modules,
    Stats,
    Text,
    Threads,
    load_model,
)
from metake.errors import MetakeError
from metake.options import output_folder, parse_numbers
from metake.shipped import ASSETS, DEMOS


def sweep(
    model: ModelOrDemo = "demo",
    methods: Annotated[
        str | None,
        typer.Option(
            help="Names of methods, comma-separated; default: MEMIT, its controls, AlphaEdit and MetaKE, with the preset's "
            "components."
        ),
    ] = None,
    data: Data = None,
    factors: Annotated[
        str, typer.Option(help="Strengths, as factors of the searched one.")
    ] = "0.1,0.3,1,3,10",
    edits: Annotated[int, typer.Option(min=1, help="Number of facts.")] = 60,
    batch: Annotated[int, typer.Option(min=1, help="Edits per batch.")] = 20,
    out: Annotated[
        Path, typer.Option(parser=output_folder, metavar="PATH", help="Folder of the results.")
    ] = Path("results/sweep"),
    threads: Threads = None,
    stats: Stats = None,
    text: Text = None,
    device: Device = None,
    dtype: Dtype = "float32",
    modules: Modules = None,
) -> None:
    """Measure efficacy and generalization against specificity over a range of lambda.

    Of AlphaEdit the L2 changes, of a priced loop the price; all other settings are the searched ones. Consecutive
    batches, measured at the end. Writes a JSON file, a table and the figure. Rerun the command to resume.

    Example: metake sweep --model demo --factors 0.3,1,3 --out results/sweep
    """
    import torch

    from metake.data.records import read_records
    from metake.evaluation.checks import fitting_records
    from metake.presets import methods_for
    from metake.tuning.searched import searched_names
    from metake.tuning.sweep import METHODS
    from metake.tuning.sweep import sweep as run

    torch.set_num_threads(threads or torch.get_num_threads())
    if data is None and model not in DEMOS:
        raise MetakeError(f"--data: needed for {model}; give a zsRE or CounterFact file")
    scale = parse_numbers(factors, "--factors")
    path = data or ASSETS / "world" / "test.json"
    records = read_records(path, edits)
    loaded = load_model(model, device, dtype, modules)
    records, left_out = fitting_records(loaded, records)
    for line in left_out:
        typer.echo(f"left out: {line}", err=True)
    if not records:
        raise MetakeError(f"{path}: no record fits the model")
    names = searched_names(loaded.arch, METHODS) if methods is None else methods.split(",")
    bases = methods_for(loaded, list(dict.fromkeys(name.strip() for name in names)))
    table = run(loaded, records, bases, scale, batch=batch, out=out, data=path.name, stats=stats, text=text)
    typer.echo(table)
