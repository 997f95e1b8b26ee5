"""Options that several commands declare, as annotated types; each has its help here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metake.commands.completion import complete_method, complete_model, complete_setting
from metake.options import output_folder

# Panels of the help
MODEL = "Model"
METHOD = "Method and settings"
RECORDS = "Facts and batches"
OUTPUT = "Output and options"

# The model

Model = Annotated[
    str,
    typer.Option(
        "--model",
        help="A name from `metake models`, a local folder, a .gguf file or a hub name.",
        autocompletion=complete_model,
        rich_help_panel=MODEL,
    ),
]
ModelOrDemo = Annotated[
    str,
    typer.Option(
        "--model",
        help="A name from `metake models`, a local folder, a .gguf file or a hub name; default: demo.",
        autocompletion=complete_model,
        rich_help_panel=MODEL,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda, cuda:1; auto: blocks on all GPUs; sharded: weights divided over torchrun's processes. Default: a GPU, if any.",
        rich_help_panel=MODEL,
    ),
]
Dtype = Annotated[str, typer.Option(help="Weights: float32, bfloat16 or float16.", rich_help_panel=MODEL)]
Modules = Annotated[
    Path | None,
    typer.Option(
        help='JSON module map for other families: {"blocks": ..., "down": ..., "head": ...}.',
        rich_help_panel=MODEL,
    ),
]
Chats = Annotated[
    bool,
    typer.Option(
        "--chat", help="Put prompts into the model's chat template, as user turns.", rich_help_panel=MODEL
    ),
]

# Methods and their settings

MethodName = Annotated[
    str,
    typer.Option(
        "--method",
        help="A row of the method table, e.g. metake, alphaedit, memit.",
        autocompletion=complete_method,
        rich_help_panel=METHOD,
    ),
]
Methods = Annotated[
    str,
    typer.Option(
        "--methods",
        metavar="NAME,...",
        help="Rows of the method table, comma-separated.",
        autocompletion=complete_method,
        rich_help_panel=METHOD,
    ),
]

Layers = Annotated[
    str | None,
    typer.Option(
        metavar="N,...",
        help="Edited layers, e.g. 4,5,6 or 4-8; default: the model's preset, or calibrated.",
        rich_help_panel=METHOD,
    ),
]
Hparams = Annotated[
    list[str] | None,
    typer.Option(
        "--hparams",
        help="[METHOD=]FILE: published hyper-parameter file of ROME, MEMIT, AlphaEdit, BLUE, UltraEdit or EasyEdit. "
        "Repeatable.",
        rich_help_panel=METHOD,
    ),
]
Preset = Annotated[
    Path | None,
    typer.Option(
        "--preset",
        help="Preset file written by `metake tune`, or none to calibrate; default: the model's preset.",
        rich_help_panel=METHOD,
    ),
]
Change = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change a setting: NAME=VALUE (JSON), e.g. --set lr=0.1. Repeatable.",
        autocompletion=complete_setting,
        rich_help_panel=METHOD,
    ),
]
Stats = Annotated[
    Path | None,
    typer.Option(
        "--stats",
        help="Statistics of keys: a file written by `metake stats`, or a SOURCE of its --from; default: collected from --text.",
        rich_help_panel=METHOD,
    ),
]
Text = Annotated[
    Path | None,
    typer.Option(
        "--text",
        help="Text file to collect statistics from; default: the included text.",
        rich_help_panel=METHOD,
    ),
]

# Records, runs and output

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="File of records; default for a demo model: facts of its synthetic world.",
        rich_help_panel=RECORDS,
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="Format of the records (docs/data.md); default: recognized.",
        rich_help_panel=RECORDS,
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="FIELD=COLUMN,...",
        help="Columns that stand for fields of a fact, e.g. prompt=question,target=answer.",
        rich_help_panel=RECORDS,
    ),
]
Edits = Annotated[int, typer.Option("--edits", min=1, help="Number of facts.", rich_help_panel=RECORDS)]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Edits per batch.", rich_help_panel=RECORDS)]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of all random draws.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of torch; default: torch's.")]
OutFolder = Annotated[
    Path,
    typer.Option(
        "--out",
        parser=output_folder,
        metavar="PATH",
        help="Folder of the results.",
        rich_help_panel=OUTPUT,
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Write even if --out holds other files.", rich_help_panel=OUTPUT)
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="One JSON document on stdout; everything else on stderr.",
        rich_help_panel=OUTPUT,
    ),
]
