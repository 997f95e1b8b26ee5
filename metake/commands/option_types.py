"""Options that several commands declare, as annotated types; each has its help here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metake.options import output_folder

# The model

Model = Annotated[
    str,
    typer.Option("--model", help="A name from `metake models`, a local folder, a .gguf file or a hub name."),
]
ModelOrDemo = Annotated[
    str,
    typer.Option(
        "--model",
        help="A name from `metake models`, a local folder, a .gguf file or a hub name; default: demo.",
    ),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, or auto to shard; default: a GPU if there is one.")
]
Dtype = Annotated[str, typer.Option(help="Weights: float32, bfloat16 or float16.")]
Modules = Annotated[
    Path | None,
    typer.Option(help='JSON module map for other families: {"blocks": ..., "down": ..., "head": ...}.'),
]
Chats = Annotated[
    bool, typer.Option("--chat", help="Put prompts into the model's chat template, as user turns.")
]

# Methods and their settings

Layers = Annotated[
    str | None,
    typer.Option(help="Edited layers, e.g. 4,5,6 or 4-8; default: the model's preset, or calibrated."),
]
Hparams = Annotated[
    list[str] | None,
    typer.Option(
        "--hparams",
        help="[METHOD=]FILE: published hyper-parameter file of ROME, MEMIT, AlphaEdit, BLUE, UltraEdit or EasyEdit. "
        "Repeatable.",
    ),
]
Preset = Annotated[
    Path | None,
    typer.Option(
        "--preset",
        help="Preset file written by `metake tune`, or none to calibrate; default: the model's preset.",
    ),
]
Change = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a setting: NAME=VALUE (JSON), e.g. --set lr=0.1. Repeatable."),
]
Stats = Annotated[
    Path | None,
    typer.Option("--stats", help="Statistics: a file of `metake stats`, or a source of its --from."),
]
Text = Annotated[
    Path | None, typer.Option("--text", help="Text to collect statistics from; default: the included text.")
]

# Records, runs and output

Data = Annotated[
    Path | None,
    typer.Option("--data", help="File of records; default, on a demo model: facts of its made-up world."),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", metavar="NAME", help="Format of the records (docs/data.md); default: recognized."
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="FIELD=COLUMN,...",
        help="Columns that stand for fields of a fact, e.g. prompt=question,target=answer.",
    ),
]
Edits = Annotated[int, typer.Option("--edits", min=1, help="Number of facts.")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Edits per batch.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of all random draws.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of torch; default: torch's.")]
OutFolder = Annotated[
    Path, typer.Option("--out", parser=output_folder, metavar="PATH", help="Folder of the results.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write even if --out holds other files.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout; everything else on stderr.")
]
