"""`metake sweep`: methods over a range of the strength of their constraint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metake.commands.common import MethodOptions, data_file, load_model, records_that_fit
from metake.commands.completion import complete_method
from metake.commands.config import ConfigFile, save_options
from metake.commands.option_types import (
    METHOD,
    AsJson,
    Batch,
    Change,
    Data,
    Device,
    Dtype,
    Edits,
    Layers,
    ModelOrDemo,
    Modules,
    OutFolder,
    Preset,
    Stats,
    Text,
    Threads,
)
from metake.console import document
from metake.errors import MetakeError
from metake.files import read_json
from metake.options import parse_numbers

if TYPE_CHECKING:
    from metake.methods.base import Method
    from metake.models.editable import EditableModel
    from metake.tuning.sweep import Expanded

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
    str | None,
    typer.Option(
        metavar="NUMBER,...",
        help="Strengths, as factors of the preset's; default with a preset: 0.1,0.3,1,3,10.",
        rich_help_panel=METHOD,
    ),
]
Attenuations = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER,...",
        help="Strengths, as median attenuations of the first batch's keys; default without a preset: 0.1,0.3,0.5,0.7,0.9.",
        rich_help_panel=METHOD,
    ),
]


def swept_names(model: EditableModel, methods: str | None, preset: Path | None) -> list[str]:
    """Names of the methods, each once.

    Args:
        model: the model.
        methods: value of `--methods`; None for the default ones, with the components of the preset.
        preset: value of `--preset`.

    Returns:
        The names.
    """
    from metake.tuning.searched import searched_names
    from metake.tuning.sweep import METHODS

    names = searched_names(model, METHODS, preset) if methods is None else methods.split(",")
    return list(dict.fromkeys(name.strip() for name in names))


def check_strengths(factors: str | None, attenuations: str | None) -> None:
    """Check both options before the model is loaded, which takes long.

    Args:
        factors: value of `--factors`.
        attenuations: value of `--attenuations`.

    Raises:
        MetakeError: both are given, or one has values that are not possible.
    """
    if factors is not None and attenuations is not None:
        raise MetakeError("--attenuations: does not go with --factors; both state the strength")
    if factors is not None:
        parse_numbers(factors, "--factors")
    if attenuations is not None and max(parse_numbers(attenuations, "--attenuations")) >= 1:
        raise MetakeError(f"--attenuations {attenuations}: all have to be below 1")


def expanded(methods: Sequence[Method], factors: str | None, attenuations: str | None) -> Expanded:
    """Methods at all strengths.

    Args:
        methods: methods at their own strengths.
        factors: value of `--factors`.
        attenuations: value of `--attenuations`; with neither, attenuations if the methods are calibrated.

    Returns:
        The methods, and label -> name and strength.
    """
    from metake.tuning.sweep import at_attenuations, at_factors, calibrated

    if attenuations is None and (factors is not None or not any(map(calibrated, methods))):
        return at_factors(methods, parse_numbers(factors or "0.1,0.3,1,3,10", "--factors"))
    return at_attenuations(methods, parse_numbers(attenuations or "0.1,0.3,0.5,0.7,0.9", "--attenuations"))


def sweep(
    model: ModelOrDemo = "demo",
    methods: Methods = None,
    data: Data = None,
    factors: Factors = None,
    attenuations: Attenuations = None,
    edits: Edits = 60,
    batch: Batch = 20,
    out: OutFolder = Path("results/sweep"),
    threads: Threads = None,
    layers: Layers = None,
    preset: Preset = None,
    change: Change = None,
    stats: Stats = None,
    text: Text = None,
    device: Device = None,
    dtype: Dtype = "float32",
    modules: Modules = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Measure efficacy and generalization against specificity and agreement over a range of the constraint's strength.

    With a preset, lambda is varied (L2 for AlphaEdit, the cost weight of `metake-priced`) around its value; without one, or
    with --attenuations, the attenuation. All other settings are those of the preset, or calibrated on the first batch.
    Consecutive batches, measured at the end. Writes a JSON file, a table and the figure. Rerun the command to resume.

    Example: metake sweep --model demo --factors 0.3,1,3 --out results/sweep
    """
    import torch

    from metake.data.records import read_records
    from metake.tuning.sweep import sweep as run

    torch.set_num_threads(threads or torch.get_num_threads())
    check_strengths(factors, attenuations)
    options = MethodOptions.read(preset, None, change, layers)
    path = data_file(data, model, "test.json")
    everything = read_records(path, edits)
    loaded = load_model(model, device, dtype, modules)
    records, _ = records_that_fit(loaded, everything, path)
    names = swept_names(loaded, methods, preset)
    with document(as_json) as content:
        first = [record.request for record in records[:batch]]
        locations, statistics = options.chosen(loaded, names, first, stats, text)
        cases = expanded([location.method for location in locations], factors, attenuations)
        reasons = {location.method.name: list(location.reasons) for location in locations}
        table = run(loaded, records, cases, statistics, batch=batch, out=out, data=path.name, reasons=reasons)
        typer.echo(table)
        save_options(out)
        content.update(read_json(out / f"{Path(loaded.name).name}.json"), out=str(out))
