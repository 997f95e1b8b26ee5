"""`metake drift`: premises and conclusions of Theorem 3 on a model, edit by edit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metake.commands.common import above_zero, load_model
from metake.commands.option_types import (
    AsJson,
    Chats,
    Device,
    Dtype,
    Edits,
    Layers,
    ModelOrDemo,
    Modules,
    Seed,
    Stats,
    Text,
)
from metake.console import document
from metake.errors import MetakeError
from metake.extras import needs
from metake.files import read_json
from metake.options import output_folder, parse_layers, parse_numbers
from metake.shipped import ASSETS, DEMOS

METHODS = ("memit", "alphaedit")

Data = Annotated[Path | None, typer.Option(help="zsRE or CounterFact records; default: the included ones.")]
MethodName = Annotated[str, typer.Option(help="Geometry and memory: memit or alphaedit.")]
Strength = Annotated[
    float | None,
    typer.Option(
        "--lambda",
        parser=above_zero,
        metavar="NUMBER",
        help="lambda (for alphaedit: L2); default: the model's preset.",
    ),
]
Factors = Annotated[
    str,
    typer.Option(
        metavar="NUMBER,...", help="Strengths of the constraint that are measured, as factors of it."
    ),
]
Norms = Annotated[int, typer.Option(min=0, help="Golub-Kahan steps per Jacobian norm; 0 to skip.")]
Steps = Annotated[
    int, typer.Option(min=0, help="Optimization steps along which cosines are recorded; 0 to skip.")
]
Out = Annotated[
    Path | None,
    typer.Option(parser=output_folder, metavar="PATH", help="Default: results/drift/MODEL."),
]


def check_options(method: str, data: Path | None) -> None:
    """Check method and file of records, before a model is loaded.

    Args:
        method: value of `--method`.
        data: value of `--data`.

    Raises:
        MetakeError: another method, or no such file.
    """
    if method not in METHODS:
        raise MetakeError(f"--method {method}: choose one of {', '.join(METHODS)}")
    if data is not None and not data.is_file():
        raise MetakeError(f"--data {data}: no such file")


def drift(
    model: ModelOrDemo = "demo",
    layers: Layers = None,
    edits: Edits = 8,
    data: Data = None,
    method: MethodName = "memit",
    strength: Strength = None,
    factors: Factors = "0.1,1,10",
    norms: Norms = 4,
    steps: Steps = 8,
    seed: Seed = 0,
    out: Out = None,
    stats: Stats = None,
    text: Text = None,
    device: Device = None,
    dtype: Dtype = "float32",
    modules: Modules = None,
    chat: Chats = False,
    as_json: AsJson = False,
) -> None:
    """Measure the premises and conclusions of Theorem 3 on a model, edit by edit.

    Every edit is planned open loop and measured alone, on the unedited model: at the plan, at the plan compensated
    for attenuation, over the strength of the constraint, and along MetaKE's descent. Writes drift.json, drift.csv,
    figures and report.html. Rerun the command to resume.

    Example: metake drift --model gpt2-xl --out results/drift/gpt2-xl
    """
    check_options(method, data)
    out = out or output_folder(f"results/drift/{Path(model).name}")
    with needs("theory"):
        from metake.data.records import read_records
        from metake.drift.bench import DriftSetup
        from metake.drift.report import report
        from metake.drift.run import run
    edited = None if layers is None else tuple(parse_layers(layers))
    numbers = parse_numbers(factors, "--factors")
    loaded = load_model(model, device, dtype, modules, chat)
    bench = DriftSetup.build(
        loaded,
        method,
        layers=edited,
        strength=strength,
        factors=numbers,
        norms=norms,
        steps=steps,
        seed=seed,
        stats=stats,
        text=text,
    )
    path = data or ASSETS / "world" / ("test.json" if loaded.name in DEMOS else "real_facts.json")
    requests = [record.request for record in read_records(path, edits)]
    with document(as_json) as content:
        report(run(bench, requests, path.name, out, seed), out)
        content.update(read_json(out / "drift.json"), out=str(out))
