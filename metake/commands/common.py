"""Options shared by several commands, and the functions that read them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metake.errors import MetakeError
from metake.options import parse_layers
from metake.phases import phase

if TYPE_CHECKING:
    from metake.models.load import EditableModel

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
    bool,
    typer.Option("--chat", help="Put prompts into the model's chat template, as user turns."),
]
Change = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a setting: NAME=VALUE (JSON), e.g. --set lr=0.1. Repeatable."),
]
Stats = Annotated[Path | None, typer.Option("--stats", help="Statistics written by `metake stats`.")]
Text = Annotated[
    Path | None, typer.Option("--text", help="Text to collect statistics from; default: the included text.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write even if --out holds other files.")]
Layers = Annotated[
    str | None, typer.Option(help="Edited layers, e.g. 4,5,6 or 4-8; default: the model's preset.")
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
        help="Preset file written by `metake tune`; default: the model's preset.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="File of records; default, on a demo model: facts of its made-up world."),
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of torch; default: torch's.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of all random draws.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout; everything else on stderr.")
]


def above_zero(text: str) -> float:
    """Number of an option that has to be above 0.

    Raises:
        typer.BadParameter: it is not.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise typer.BadParameter(f"must be a number above 0, got {text}")
    return value


def parse_changes(pairs: list[str] | None, layers: str | None) -> dict[str, Any]:
    """Settings from `--set NAME=VALUE` and `--layers`. Strings need no quotes.

    Raises:
        MetakeError: a pair without a value, or unreadable layers.
    """
    changes: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise MetakeError(f"--set {pair}: write NAME=VALUE, as in --set lr=0.1")
        try:
            changes[name.strip()] = json.loads(value)
        except ValueError:
            changes[name.strip()] = value
    if layers is not None:
        changes["layers"] = parse_layers(layers)
    return changes


def load_model(
    model: str, device: str | None, dtype: str, modules: Path | None, chat: bool | None = None
) -> EditableModel:
    """Model selected by a command's options.

    Args:
        chat: as in `load`; None for a command without prompts.

    Raises:
        MetakeError: it cannot be loaded.
    """
    with phase(f"load {model}"):
        from metake.models.load import load

        return load(model, device=device, dtype=dtype, modules=modules, chat=chat)
