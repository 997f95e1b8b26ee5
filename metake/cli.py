"""The command line: `metake edit | evaluate | stats | apply | models`.

Over several GPUs: `torchrun --nproc-per-node 4 -m metake.cli stats ...`
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from metake import __version__
from metake.console import command, draw_or_note, if_interrupted
from metake.errors import MetakeError
from metake.files import check_writable, kind_of, read_text, write_json, write_text
from metake.folders import check_folder, check_run_folder, result_folder
from metake.options import find_statistics, parse_layers
from metake.processes import joined, place

app = typer.Typer(
    help="Edit facts in language models, and see what execution keeps of each edit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

NOT_EDITED = 3  # exit code where an answer does not begin with its target
EVALUATION = (
    "under_way",
    "results.json",
    "table.md",
    "realisation.png",
    "report.html",
)  # what evaluate writes under --out

# typer may carry its own copy of click, so its usage error is reached through typer
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

Model = Annotated[
    str,
    typer.Option("--model", help="A name from `metake models`, a local folder, a .gguf file or a hub name."),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, or auto to shard; default: a GPU if there is one.")
]
Dtype = Annotated[str, typer.Option(help="Weights: float32, bfloat16 or float16.")]
Modules = Annotated[
    Path | None,
    typer.Option(help='JSON module map of an unknown family: {"blocks": ..., "down": ..., "head": ...}.'),
]
Chats = Annotated[
    bool,
    typer.Option(
        "--chat", help="Prompts are a user's turns of a conversation, by the model's chat template."
    ),
]
Change = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a setting, NAME=VALUE (JSON values); repeat. E.g. --set lr=0.1"),
]
Stats = Annotated[Path | None, typer.Option("--stats", help="Statistics written by `metake stats`.")]
Text = Annotated[
    Path | None, typer.Option("--text", help="Text to collect statistics from; default: one that ships.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Write even where --out holds files of something else.")
]
Layers = Annotated[
    str | None, typer.Option(help="Edited layers, e.g. 4,5,6 or 4-8; default: the model's preset.")
]


Hparams = Annotated[
    list[str] | None,
    typer.Option(
        "--hparams",
        help="[METHOD=]FILE: settings from a file of ROME, MEMIT, AlphaEdit, UltraEdit or EasyEdit; repeat it for "
        "several methods.",
    ),
]


Preset = Annotated[
    Path | None,
    typer.Option(
        "--preset",
        help="Searched settings, as experiments/tune.py writes them, instead of the model's preset.",
    ),
]


def _changes(pairs: list[str] | None, layers: str | None) -> dict[str, Any]:
    """`--set NAME=VALUE` as plain values; texts need no quotes."""
    changes: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise MetakeError(f"--set {pair}: write NAME=VALUE")
        try:
            changes[name.strip()] = json.loads(value)
        except ValueError:
            changes[name.strip()] = value
    if layers is not None:
        changes["layers"] = parse_layers(layers)
    return changes


def _load(model: str, device: str | None, dtype: str, modules: Path | None, chat: bool = False):
    from metake.models.load import load

    return load(model, device=device, dtype=dtype, modules=modules, chat=chat)


def _requests(request: str | None, subject: str | None, target: str | None, file: Path | None, name: str):
    from metake.data.records import read_records
    from metake.requests import Request, distinct

    given = {"--request": request, "--subject": subject, "--target": target}
    if file is not None:
        if extra := [option for option, value in given.items() if value is not None]:
            raise MetakeError(f"{name}: --requests and {extra[0]} are two ways to say it; give one of them")
        try:
            return distinct([record.request for record in read_records(file)])
        except MetakeError as error:
            raise error if str(file) in str(error) else MetakeError(f"{file}: {error}") from error
    for option, value in given.items():
        if value is None:
            raise MetakeError(
                f"{name}: {option} is missing; give --request, --subject and --target, or --requests FILE"
            )
    return distinct([Request.parse(*given.values())])  # type: ignore[arg-type]


@app.command()
def edit(
    model: Model,
    request: Annotated[str | None, typer.Option(help="Prompt with {} for the subject.")] = None,
    subject: Annotated[str | None, typer.Option(help="The subject, as it stands in the prompt.")] = None,
    target: Annotated[str | None, typer.Option(help="What the model shall answer.")] = None,
    requests: Annotated[
        Path | None,
        typer.Option(
            help="JSON, JSON Lines, CSV or TSV with the fields prompt, subject and target, edited as one batch."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the edited model, the delta and the result.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="A row of the method table, e.g. metake, alphaedit, memit.")
    ] = "metake",
    delta_only: Annotated[
        bool, typer.Option("--delta-only", help="Save the change alone, not the model.")
    ] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Print the predicted realisation (rho, eta) and stop.")
    ] = False,
    layers: Layers = None,
    hparams: Hparams = None,
    preset: Preset = None,
    change: Change = None,
    stats: Stats = None,
    text: Text = None,
    device: Device = None,
    dtype: Dtype = "float32",
    modules: Modules = None,
    chat: Chats = False,
    overwrite: Overwrite = False,
) -> None:
    """Edit one fact, or a file of facts, and save the edited model.

    Exit codes: 0 all answers begin with their target, 3 some do not (files are saved all the same), 2 invalid input.

    Example: metake edit --model smollm2 --request 'Which city was {} born in?' --subject 'Niels Bohr'
    --target 'Oslo' --out edited
    """
    from metake.editor import Editor
    from metake.methods import find_method
    from metake.models.chat import described
    from metake.models.load import write_model
    from metake.presets import preset_of, settings_for
    from metake.published import parse_files, published_for

    find_method(method)
    wishes = _requests(request, subject, target, requests, "edit")
    if out is None and not preview:
        raise MetakeError("edit: --out is missing; name a folder for the edited model (or use --preview)")
    if out is not None:
        check_folder(out, overwrite=overwrite)
    changes = _changes(change, layers)
    if preset is not None:
        preset_of(preset)  # read before a model is
    loaded = _load(model, device, dtype, modules, chat)
    published = published_for(parse_files(hparams), [method], loaded.arch)[method]
    settings = settings_for(loaded.arch, method, name=preset, **{**published, **changes})
    if preset is None and hparams is None and not preset_of(loaded.name):
        typer.echo(
            f"note: no preset for {loaded.name}: settings published for other models are used, of which an edit may take little; "
            "search some with experiments/tune.py and give --preset, or change them with --set and --layers",
            err=True,
        )
    statistics = find_statistics(loaded, [settings], stats, text)
    editor = Editor(
        loaded.model, loaded.tokenizer, method, settings=settings, statistics=statistics,
        modules=loaded.arch.modules, progress=True,
    )  # fmt: skip
    predicted = editor.preview(wishes)
    typer.echo(predicted)
    if predicted.adrift:
        typer.echo(
            f"note: {', '.join(predicted.adrift)}: the model reads the subject's key otherwise in the bare prompt than after other text, "
            "and an edit may hold in neither; begin the prompt with other words, or give --chat",
            err=True,
        )
    if preview:
        return
    assert out is not None
    if_interrupted(f"nothing was saved in {out}; the same command starts again")
    result = editor.edit(wishes)
    editor.finish()
    typer.echo(result)
    if result.failed:
        typer.echo(result.advice(), err=True)
    if place()[0] > 0:
        return
    summary = {**result.summary(), "model": loaded.name, "fingerprint": result.delta.model, "method": method,
               "version": __version__, "digest": editor.delta.digest, "settings": settings.model_dump(),
               "chat": described(loaded.tokenizer)}  # fmt: skip
    with result_folder(out, overwrite=overwrite) as folder:
        editor.delta.save(folder)
        write_json(folder / "result.json", summary)
        if not delta_only:
            write_model(loaded, folder)
    if_interrupted(f"the result is saved in {out}")
    if delta_only:
        typer.echo(f"saved the change: {out}/delta.safetensors (metake apply writes the edited model)")
    else:
        typer.echo(f"saved the edited model: {out} (the change alone: {out}/delta.safetensors)")
    draw_or_note(lambda: result.plot(out / "realisation.png"))
    if result.failed:
        raise typer.Exit(NOT_EDITED)


@app.command()
def evaluate(
    model: Model,
    data: Annotated[
        Path,
        typer.Option(help="Records (JSON, JSON Lines, CSV or TSV): facts of one's own, zsRE or CounterFact."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for results.json, table.md and the figure.")],
    methods: Annotated[
        str, typer.Option(help="Comma-separated rows of the method table.")
    ] = "metake,alphaedit,memit",
    edits: Annotated[
        int | None, typer.Option(min=1, help="How many records, from the first; default all.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Edits per batch.")] = 20,
    alone: Annotated[
        bool, typer.Option("--alone", help="Judge each batch on an otherwise unedited model.")
    ] = False,
    generate: Annotated[bool, typer.Option(help="Also let the model answer freely.")] = True,
    held_out: Annotated[
        Path | None, typer.Option(help="Text for perplexity; default: one that ships.")
    ] = None,
    layers: Layers = None,
    hparams: Hparams = None,
    preset: Preset = None,
    change: Change = None,
    stats: Stats = None,
    text: Text = None,
    device: Device = None,
    dtype: Dtype = "float32",
    modules: Modules = None,
    chat: Chats = False,
    overwrite: Overwrite = False,
) -> None:
    """Edit the records of a file in consecutive batches with several methods, and compare.

    Batches are kept under --out until the end: the same command goes on where a killed one stopped.

    Example: metake evaluate --model demo --data zsre.json --methods metake,memit --edits 100 --batch 20 --out results
    """
    from metake.data.records import read_records
    from metake.evaluation.compare import compare
    from metake.evaluation.page import write_comparison_page
    from metake.evaluation.protocol import usable
    from metake.methods import find_method
    from metake.presets import held_out_text, preset_name, preset_of, settings_for
    from metake.published import parse_files, published_for

    names = list(dict.fromkeys(name.strip() for name in methods.split(",") if name.strip()))
    if not names:
        raise MetakeError("evaluate: --methods names none; write e.g. --methods metake,memit")
    for name in names:
        find_method(name)
    check_run_folder(out, EVALUATION, overwrite=overwrite)
    records = read_records(data, edits)
    changes = _changes(change, layers)
    if preset is not None:
        preset_of(preset)  # read before a model is
    given = None if held_out is None else read_text(held_out)
    if given is not None and not given.strip():
        raise MetakeError(f"{held_out}: holds no text; give one for perplexity, or leave out --held-out")
    loaded = _load(model, device, dtype, modules, chat)
    published = published_for(parse_files(hparams), names, loaded.arch)
    settings = {
        name: settings_for(loaded.arch, name, name=preset, **{**published[name], **changes}) for name in names
    }
    records, left_out = usable(loaded, records)
    for line in left_out:
        typer.echo(f"left out: {line}", err=True)
    if not records:
        raise MetakeError(f"{data}: no record fits the model")
    statistics = find_statistics(loaded, settings.values(), stats, text)
    perplexity_text = held_out_text(preset_name(loaded.arch)) if given is None else given
    under_way = out / "under_way"
    if_interrupted(f"finished batches are in {under_way}; give the same command again to resume")
    with tqdm(total=len(records) * len(names), unit="edit", desc="editing") as bar:
        comparison = compare(
            loaded, records, settings, statistics, batch=batch, consecutive=not alone,
            text=perplexity_text, generate=generate, folder=under_way, tick=bar.update, data=str(data), left_out=left_out,
        )  # fmt: skip
    if place()[0] > 0:
        return
    write_json(out / "results.json", comparison.content)
    write_text(out / "table.md", comparison.markdown())
    # a finished evaluation is not gone on with: the next may be of other code
    shutil.rmtree(under_way, ignore_errors=True)
    if_interrupted(f"the results are saved in {out}")
    typer.echo(comparison.table())
    typer.echo(f"written: {out}/results.json, table.md")

    for page in draw_or_note(lambda: write_comparison_page(out / "report.html", comparison)):
        typer.echo(f"written: {page}")


@app.command()
def stats(
    model: Model,
    out: Annotated[Path, typer.Option(help="File to write (safetensors).")],
    text: Annotated[Path | None, typer.Option(help="A text file.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Instead of a file: a streamed dataset, NAME or NAME:CONFIG (needs the hub extra)."
        ),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many tokens; default: the whole text.")
    ] = None,
    layers: Layers = None,
    device: Device = None,
    dtype: Dtype = "float32",
    modules: Modules = None,
    overwrite: Overwrite = False,
) -> None:
    """Collect second moments of keys for the edited layers; an interrupted run continues.

    Example: metake stats --model gpt2-xl --text wiki.txt --layers 13-17 --tokens 1000000 --out stats.safetensors
    """
    from metake.geometry.covariance import FORMAT, collect
    from metake.presets import default_layers, default_text, preset_name, settings_for, stream_dataset

    if text is not None and dataset is not None:
        raise MetakeError("stats: give --text or --dataset, not both")
    check_writable(out)
    if out.exists() and kind_of(out) != FORMAT and not overwrite:
        raise MetakeError(f"{out}: exists and holds no statistics; choose another file, or give --overwrite")
    wanted = None if layers is None else tuple(parse_layers(layers))
    loaded = _load(model, device, dtype, modules)
    if wanted is None:
        wanted = settings_for(loaded.arch, "memit").layers or default_layers(len(loaded.arch))
    if dataset is not None:
        if tokens is None:
            raise MetakeError("stats: --tokens is missing; a stream has no end")
        source: Any = stream_dataset(dataset)
    else:
        source = default_text(preset_name(loaded.arch)) if text is None else read_text(text)
    partial = out.with_name(out.name + ".partial")
    if_interrupted(
        f"{out} was not written; the same command resumes from {partial.name}, which is saved every 20 s or less often"
    )
    statistics = collect(loaded.arch, loaded.tokenizer, source, wanted, tokens=tokens, partial=partial)
    if place()[0] > 0:
        return
    statistics.save(out)
    seen = statistics.provenance.tokens
    typer.echo(
        f"written: {out}, layers {list(wanted)}, {seen} tokens ({seen / loaded.arch.d_k:.0f} per key entry)"
    )
    if statistics.thin:
        typer.echo("thin: want 20 tokens per key entry or more; eta will look higher than it is", err=True)


@app.command()
def apply(
    model: Model,
    delta: Annotated[Path, typer.Option(help="Folder or file written by `metake edit`.")],
    out: Annotated[Path, typer.Option(help="Folder for the edited model.")],
    force: Annotated[
        bool, typer.Option("--force", help="Apply to another model than it was made for, if shapes fit.")
    ] = False,
    device: Device = None,
    dtype: Dtype = "float32",
    modules: Modules = None,
    overwrite: Overwrite = False,
) -> None:
    """Apply a saved change to a model and save the edited model.

    Example: metake apply --model smollm2 --delta edited --out model
    """
    from metake.deltas import Delta
    from metake.models.load import save_model

    check_folder(out, overwrite=overwrite)
    if_interrupted(f"nothing was saved in {out}; the same command starts again")
    change = Delta.load(delta)
    loaded = _load(model, device, dtype, modules)
    change.apply(loaded.arch, check=not force)
    save_model(loaded, out, overwrite=overwrite)
    typer.echo(
        f"saved the edited model: {out} ({len(change.note.get('edits', []))} edits, layers {list(change.layers)})"
    )


@app.command()
def models(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
) -> None:
    """List the names that --model understands, the families, and the methods."""
    from metake.methods import METHODS
    from metake.models.architecture import FAMILIES
    from metake.models.load import KNOWN
    from metake.report.tables import render

    if as_json:
        typer.echo(json.dumps({"models": [k.__dict__ for k in KNOWN], "families": list(FAMILIES),
                               "methods": list(METHODS)}, indent=1))  # fmt: skip
        return
    typer.echo(render("models", ["name", "what", "needs"], [[k.name, k.what, k.needs] for k in KNOWN], 120))
    typer.echo(f"families: {', '.join(FAMILIES)}; any other can be described with --modules FILE.json")
    typer.echo(render("methods", ["name", "what"], [[m.name, m.summary] for m in METHODS.values()], 120))


def main() -> None:
    """Run; whatever a user can mend ends as one line on stderr and exit code 2."""
    with command("metake"):
        try:
            with joined():
                code = app(standalone_mode=False)  # of an Exit; 130 of Ctrl-C
                if code == 130:
                    raise KeyboardInterrupt
                if isinstance(code, int) and code:
                    sys.exit(code)
        except UsageError as error:
            line = error.format_message()  # type: ignore[attr-defined]
            if not line:  # no command was named, and the help stands there already
                sys.exit(2)
            raise MetakeError(line) from error
        except typer.Abort as error:
            raise KeyboardInterrupt from error


if __name__ == "__main__":
    main()
