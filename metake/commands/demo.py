"""`metake demo`: a demonstration in a few minutes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from metake.commands.option_types import AsJson
from metake.console import document
from metake.files import read_json
from metake.options import output_folder

Out = Annotated[
    Path, typer.Option(parser=output_folder, metavar="PATH", help="Folder of the page and the numbers.")
]
ModelName = Annotated[str, typer.Option("--model", help="Demo model of part (c).")]
Edits = Annotated[int, typer.Option(min=1, help="Facts of part (c).")]
Batch = Annotated[int, typer.Option(min=1, help="Edits per batch of part (c).")]
SkipReal = Annotated[bool, typer.Option("--skip-real", help="Leave out the real model.")]


def demo(
    out: Out = Path("results/demo"),
    model: ModelName = "demo",
    edits: Edits = 60,
    batch: Batch = 20,
    skip_real: SkipReal = False,
    as_json: AsJson = False,
) -> None:
    """Compare an open and a closed loop on a real and a demo model, in a few minutes.

    (a) Six well-known facts in a real pretrained model, by both loops under the same constraint. (b) A dozen facts in
    the same model, each method with its preset. (c) Sixty facts of a synthetic world in a demo model, in batches. Writes
    report.html and results.json. If the real model is not installed, (a) runs on the demo model.

    Example: metake demo --out results/demo
    """
    from metake.demo.run import demonstrate

    warnings.simplefilter("ignore")
    with document(as_json) as content:
        demonstrate(model, edits, batch, out, with_real=not skip_real)
        content.update(read_json(out / "results.json"), out=str(out))
