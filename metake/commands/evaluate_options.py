"""Options of `metake evaluate` alone, and checks of what they say together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metake.commands.completion import complete_model
from metake.commands.option_types import MODEL, OUTPUT, RECORDS
from metake.errors import MetakeError
from metake.extras import require
from metake.folders import check_run_folder
from metake.names import unknown_name
from metake.options import output_path

EVALUATION = (
    "checkpoints",
    "results.json",
    "options.json",
    "answers.jsonl",
    "table.md",
    "differences.md",
    "curves.png",
    "realization.png",
    "exactness.png",
    "report.html",
)  # what evaluate writes under --out

ModelToEdit = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="A name from `metake models`, a local folder, a .gguf file or a hub name.",
        autocompletion=complete_model,
        rich_help_panel=MODEL,
    ),
]
Edited = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Edited model to evaluate instead of --methods: a model folder (safetensors) from any program, a delta, or a PEFT adapter.",
        rich_help_panel=MODEL,
    ),
]
Base = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Unedited model of --edited; any value of --model.", rich_help_panel=MODEL
    ),
]
OF_METHODS = (
    "model",
    "methods",
    "batch",
    "seeds",
    "against",
    "measure_every",
    "alone",
    "layers",
    "hparams",
    "preset",
    "change",
    "stats",
    "text",
)  # parameters that --edited has no use for

Data = Annotated[
    Path,
    typer.Option(
        help="File of records (JSON, JSON Lines, CSV or TSV) in a format of docs/data.md, or a known name, e.g. "
        "knowedit-wiki-recent.",
        rich_help_panel=RECORDS,
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        parser=output_path,
        metavar="PATH",
        help="Folder for results.json, table.md, report.html and the figure.",
        rich_help_panel=OUTPUT,
    ),
]
Edits = Annotated[
    int | None,
    typer.Option(min=1, help="Number of records, from the first on; default: all.", rich_help_panel=RECORDS),
]
Seeds = Annotated[
    int,
    typer.Option(
        min=1,
        help="Number of draws of the records: draw 0 has the first ones, each other draw a random sample and its own context prefixes.",
        rich_help_panel=RECORDS,
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        metavar="METHOD",
        help="Method that the others are compared with: paired differences per record, with confidence intervals.",
        rich_help_panel="Measurement",
    ),
]
MeasureEvery = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="BATCHES",
        help="Interval of additional measurements, in batches; default: measure only after the last batch.",
        rich_help_panel="Measurement",
    ),
]
Alone = Annotated[
    bool,
    typer.Option(
        "--alone",
        help="Evaluate each batch by itself, on the unedited model, instead of in sequence.",
        rich_help_panel="Measurement",
    ),
]
ProtocolName = Annotated[
    str,
    typer.Option(
        "--protocol",
        metavar="NAME",
        help="published, or wild: complete greedy answers, compared after normalization (docs/data.md).",
        rich_help_panel="Measurement",
    ),
]
Generate = Annotated[bool, typer.Option(help="Also evaluate generated text.", rich_help_panel="Measurement")]
HeldOut = Annotated[
    Path | None,
    typer.Option(help="Text file for perplexity; default: the included text.", rich_help_panel="Measurement"),
]


def method_names(methods: str, against: str | None) -> list[str]:
    """Names of `--methods`, each once; an unknown one raises a `MetakeError`.

    Args:
        methods: value of the option.
        against: value of `--against`, which has to be one of them.

    Returns:
        The names.

    Raises:
        MetakeError: there is none.
    """  # noqa: DOC501 (unknown_name returns a MetakeError)
    from metake.methods.table import method_named

    names = list(dict.fromkeys(name.strip() for name in methods.split(",") if name.strip()))
    if not names:
        raise MetakeError("evaluate: --methods names none; write e.g. --methods metake,memit")
    for name in names:
        method_named(name)
    if against is not None and against not in names:
        raise unknown_name("--against", against, names, "name one of --methods")
    return names


def check_draws(seeds: int, measure_every: int | None, alone: bool) -> None:
    """Check the options of draws and measurements, before anything is loaded.

    Args:
        seeds: value of `--seeds`.
        measure_every: value of `--measure-every`.
        alone: value of `--alone`.

    Raises:
        MetakeError: they contradict each other.
    """
    if measure_every is not None and alone:
        raise MetakeError("evaluate: --alone measures after every batch; leave out --measure-every")
    if seeds >= 3:
        require("theory", "scipy", what=f"--seeds {seeds}: intervals over three or more draws")


def check_edited(context: typer.Context, model: str | None, edited: Path | None, base: str | None) -> None:
    """Check the options that name a model, before anything is loaded.

    Args:
        context: of the command.
        model: value of `--model`.
        edited: value of `--edited`.
        base: value of `--base`.

    Raises:
        MetakeError: there is none, or they contradict each other, or an option of methods is given with `--edited`.
    """
    if edited is None:
        if base is not None:
            raise MetakeError(
                "evaluate: --base is the unedited model of --edited; give --edited FOLDER, or --model"
            )
        if model is None:
            raise MetakeError("evaluate: --model is missing; give it, or --edited FOLDER and --base NAME")
        return
    if base is None:
        raise MetakeError("evaluate: --edited needs the unedited model; give --base NAME")
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if parameter.name in OF_METHODS and source is not None and source.name == "COMMANDLINE":
            option = parameter.opts[0]
            raise MetakeError(f"evaluate: {option} is about edits made here; leave it out with --edited")


def check_protocol(name: str, generate: bool) -> None:
    """Check the name of the protocol before anything is loaded; a wrong one raises a `MetakeError`.

    Args:
        name: value of `--protocol`.
        generate: value of `--generate`.
    """
    from metake.evaluation.protocol import Protocol

    Protocol([], 1, generate=generate, name=name)


def check_options(context: typer.Context) -> list[str]:
    """Check all options before anything is loaded; wrong ones raise a `MetakeError`.

    Args:
        context: of the command.

    Returns:
        Names of the methods.
    """
    given = context.params
    check_edited(context, given["model"], given["edited"], given["base"])
    names = method_names(given["methods"], given["against"])
    check_draws(given["seeds"], given["measure_every"], given["alone"])
    check_protocol(given["protocol"], given["generate"])
    check_run_folder(given["out"], EVALUATION, overwrite=given["overwrite"])
    return names
