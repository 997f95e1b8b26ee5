"""`metake tune`: a search of each method's settings on development records."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from metake.commands.common import data_file, load_model, records_that_fit
from metake.commands.config import ConfigFile, save_options
from metake.commands.option_types import (
    METHOD,
    OUTPUT,
    AsJson,
    Batch,
    Data,
    Device,
    Dtype,
    Edits,
    Methods,
    ModelOrDemo,
    Modules,
    Seed,
    Stats,
    Text,
    Threads,
)
from metake.console import document
from metake.errors import MetakeError
from metake.extras import needs
from metake.files import read_json
from metake.names import unknown_name
from metake.options import output_folder, parse_numbers

Trials = Annotated[int, typer.Option(min=1, help="Trials per method.", rich_help_panel=METHOD)]
Held = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Setting of all new trials, e.g. lookup=prompt. Repeatable.",
        rich_help_panel=METHOD,
    ),
]
Factors = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER,...",
        help="Also start from the shipped settings at these relative strengths.",
        rich_help_panel=METHOD,
    ),
]
Extend = Annotated[
    bool,
    typer.Option(
        "--extend",
        help="Continue from the trials in the model's result file, if its data, batch and seed are the same.",
        rich_help_panel=METHOD,
    ),
]
AllLayerSets = Annotated[
    bool,
    typer.Option(
        "--all-layer-sets",
        help="Also start from the shipped settings at every other layer set.",
        rich_help_panel=METHOD,
    ),
]
Published = Annotated[
    bool, typer.Option("--published", help="Also start from the published defaults.", rich_help_panel=METHOD)
]
WinnersOf = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL,...",
        help="Also start from the settings that these models ship with.",
        rich_help_panel=METHOD,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        parser=output_folder,
        metavar="PATH",
        help="Default: results/search/MODEL; in a checkout, the shipped preset files if the model has any, which are overwritten.",
        rich_help_panel=OUTPUT,
    ),
]
JournalFolder = Annotated[
    Path,
    typer.Option(
        parser=output_folder,
        metavar="PATH",
        help="Folder of the journals, from which a search resumes.",
        rich_help_panel=OUTPUT,
    ),
]


def parse_held(pairs: list[str]) -> tuple[tuple[str, Any], ...]:
    """Names and values of `--set NAME=VALUE`; an invalid value raises a `MetakeError`.

    Args:
        pairs: values of the option.

    Returns:
        Pairs of setting and value.

    Raises:
        MetakeError: a setting is unknown.
    """  # noqa: DOC501 (unknown_name returns a MetakeError)
    import yaml

    from metake.methods.settings import setting_names
    from metake.presets import check_changes

    parts = [pair.partition("=") for pair in pairs]
    held = tuple((name, yaml.safe_load(value)) for name, _, value in parts)
    for name, _ in held:
        if name not in setting_names():
            raise unknown_name("--set", name, setting_names())
    check_changes(dict(held))
    return held


def parse_models(text: str | None) -> tuple[str, ...]:
    """Names of `--winners-of`; a model without a shipped preset raises a `MetakeError`.

    Args:
        text: value of the option.

    Returns:
        The names.
    """
    from metake.presets import PRESETS

    names = tuple(text.split(",")) if text else ()
    for name in names:
        read_json(PRESETS / f"{name}.json")
    return names


def searched_row(name: str) -> str:
    """Name of a row; a name with components is refused, as a search gives every trial those of `--set`.

    Args:
        name: a name of `--methods`.

    Returns:
        The name itself.

    Raises:
        MetakeError: the name has components.
    """
    from metake.methods.names import split_name
    from metake.methods.table import method_named

    row, choices, _ = split_name(name)
    if not choices:
        return name
    parts = {part.kind: path[-1] for path, part in method_named(name).named_components() if path}
    given = [
        f"{parts[choice]}={choice}" if choice in parts else choice.replace(" ", "=") for choice in choices
    ]
    raise MetakeError(
        f"--methods: {name!r} has components, which a search takes from --set; give {row} and "
        + " ".join(f"--set {setting}" for setting in given)
    )


def tune(
    model: ModelOrDemo = "demo",
    methods: Methods = "memit,alphaedit,metake,metake-proxy,memit-compensated",
    trials: Trials = 40,
    data: Data = None,
    edits: Edits = 60,
    batch: Batch = 20,
    seed: Seed = 0,
    change: Held = None,
    factors: Factors = None,
    extend: Extend = False,
    all_layer_sets: AllLayerSets = False,
    published: Published = False,
    winners_of: WinnersOf = None,
    out: Out = None,
    journal: JournalFolder = Path("results/search"),
    threads: Threads = None,
    stats: Stats = None,
    text: Text = None,
    device: Device = None,
    dtype: Dtype = "float32",
    modules: Modules = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Search settings on development records, with the same number of trials for every method.

    The score of a trial is the harmonic mean of efficacy, generalization and specificity at the end. Writes search.json
    (every trial) and preset.json (the winners), which --preset of edit and evaluate reads. Rerun the command to resume.

    Example: metake tune --model gpt2-xl --data dev.json --edits 100 --batch 100 --trials 16
    """
    with needs("search"):
        import torch

        from metake.data.records import read_records
        from metake.methods.table import find_method
        from metake.presets import PRESETS
        from metake.tuning.run import model_words
        from metake.tuning.run import tune as search
        from metake.tuning.search import Budget
    torch.set_num_threads(threads or torch.get_num_threads())
    warnings.simplefilter("ignore")
    names = [find_method(searched_row(name)).name for name in methods.split(",")]
    begin = tuple(parse_numbers(factors, "--factors")) if factors else ()
    held, others = parse_held(change or []), parse_models(winners_of)
    path = data_file(data, model, "dev.json")
    everything = read_records(path, edits, need=("rephrase", "locality"))
    loaded = load_model(model, device, dtype, modules)
    records, _ = records_that_fit(loaded, everything, path)
    budget = Budget(path, edits, batch, seed, trials, journal, held, begin, all_layer_sets, published, others)
    words = model_words(model, modules, device, dtype)
    with document(as_json) as content:
        written = search(
            loaded, names, records, budget, extend=extend, out=out, stats=stats, text=text, options=words
        )
        if written.parent != PRESETS:
            save_options(written.parent)
        content.update(read_json(written), out=str(written.parent))
