"""`metake edit`: one fact or a file of facts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metake.commands.common import (
    AsJson,
    Change,
    Chats,
    Device,
    Dtype,
    Hparams,
    Layers,
    Model,
    Modules,
    Overwrite,
    Preset,
    Stats,
    Text,
    load_model,
    parse_changes,
)
from metake.console import document, draw_or_note, if_interrupted
from metake.errors import MetakeError
from metake.files import write_json
from metake.folders import check_folder, result_folder
from metake.options import find_statistics, output_path
from metake.processes import rank_and_size

if TYPE_CHECKING:
    from metake.requests import EditRequest
    from metake.result import Preview

NOT_EDITED = 3  # exit code where an answer does not begin with its target


def read_requests(
    request: str | None, subject: str | None, target: str | None, file: Path | None, name: str
) -> tuple[EditRequest, ...]:
    """Requests from the options or from a file, without duplicates.

    Raises:
        MetakeError: an option is missing or redundant, or a request is invalid.
    """
    from metake.data.records import read_records
    from metake.requests import EditRequest, distinct

    given = {"--request": request, "--subject": subject, "--target": target}
    if file is not None:
        if extra := [option for option, value in given.items() if value is not None]:
            raise MetakeError(f"{name}: --requests and {extra[0]} exclude each other; give one of them")
        try:
            return distinct([record.request for record in read_records(file)])
        except MetakeError as error:
            raise error if str(file) in str(error) else MetakeError(f"{file}: {error}") from error
    for option, value in given.items():
        if value is None:
            raise MetakeError(
                f"{name}: {option} is missing; give --request, --subject and --target, or --requests FILE"
            )
    return distinct([EditRequest.parse(*given.values())])  # type: ignore[arg-type]


def preview_content(predicted: Preview) -> dict[str, Any]:
    """A preview as plain values, `layers x requests`."""
    return {
        "requests": [
            {"prompt": r.prompt, "subject": r.subject, "target_new": r.target_new} for r in predicted.requests
        ],
        "layers": list(predicted.layers),
        "rho": predicted.rho.tolist(),
        "eta": predicted.eta.tolist(),
        "key_cosine": predicted.cosine.tolist(),
        "inconsistent_subjects": list(predicted.inconsistent_subjects),
    }


def edit(
    model: Model,
    request: Annotated[str | None, typer.Option(help="Prompt with {} for the subject.")] = None,
    subject: Annotated[str | None, typer.Option(help="The subject, as it stands in the prompt.")] = None,
    target: Annotated[str | None, typer.Option(help="The new answer.")] = None,
    requests: Annotated[
        Path | None,
        typer.Option(help="File of facts (JSON, JSON Lines, CSV or TSV; docs/data.md), edited as one batch."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=output_path, metavar="PATH", help="Folder for the edited model, the delta and the result."
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help="A row of the method table, e.g. metake, alphaedit, memit.")
    ] = "metake",
    delta_only: Annotated[
        bool, typer.Option("--delta-only", help="Save only the delta, not the model.")
    ] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Print the predicted realization (rho, eta) and stop.")
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
    as_json: AsJson = False,
) -> None:
    """Edit one fact, or a file of facts, and save the edited model.

    Exit codes: 0 all answers begin with their target, 3 some do not (the result is saved), 2 invalid input.

    Example: metake edit --model smollm2 --request 'Which city was {} born in?' --subject 'Niels Bohr'
    --target 'Oslo' --out edited
    """
    from metake.editor import Editor
    from metake.methods.table import method_named
    from metake.models.chat import described
    from metake.models.greedy import described_decoding
    from metake.models.load import write_model
    from metake.presets import preset_name, preset_of, settings_for
    from metake.provenance import provenance
    from metake.published import parse_files, published_for

    with document(as_json) as content:
        plain = method_named(method)
        wishes = read_requests(request, subject, target, requests, "edit")
        if out is None and not preview:
            raise MetakeError("edit: --out is missing; name a folder for the edited model (or use --preview)")
        if out is not None:
            check_folder(out, overwrite=overwrite)
        changes = parse_changes(change, layers)
        plain.updated(**changes)  # before a model is loaded, which takes long
        if preset is not None:
            preset_of(preset)  # read before a model is
        files = parse_files(hparams)
        loaded = load_model(model, device, dtype, modules, chat)
        published = published_for(files, [method], loaded.arch)[method]
        chosen = settings_for(loaded.arch, method, name=preset, **{**published, **changes})
        if preset is None and hparams is None and not preset_name(loaded.arch):
            typer.echo(
                f"note: no preset for {loaded.name}: using settings published for other models, with which an edit may have little "
                "effect; search settings with metake tune and give --preset, or change them with --set and --layers",
                err=True,
            )
        statistics = find_statistics(loaded, [chosen], stats, text)
        editor = Editor(
            loaded.model,
            loaded.tokenizer,
            chosen,
            statistics=statistics,
            modules=loaded.arch.modules,
            progress=True,
        )
        predicted = editor.preview(wishes) if preview or chosen.previews else None
        if predicted is not None:
            typer.echo(predicted)
        if predicted is not None and predicted.inconsistent_subjects:
            typer.echo(
                f"note: {', '.join(predicted.inconsistent_subjects)}: the subject's key in the bare prompt differs from its key after other text "
                "(cosine below 0.1), so the edit may fail in both; begin the prompt with other words, or give --chat",
                err=True,
            )
        used = {
            **provenance(loaded.name, loaded.arch, chosen.name),
            "preset": str(preset or preset_name(loaded.arch)),
            "settings": chosen.model_dump(),
            "chat": described(loaded.tokenizer),
            "generation": described_decoding(loaded.model, loaded.tokenizer),
        }
        if preview and predicted is not None:
            content.update(preview_content(predicted), **used)
            return
        assert out is not None
        if_interrupted(f"nothing was saved in {out}; rerun the command to start again")
        editor.edit(wishes)
        result = editor.finalize()[-1]
        typer.echo(result.as_text(explained=predicted.legend if predicted else ()))
        if result.failed:
            typer.echo(result.advice(), err=True)
        if rank_and_size()[0] > 0:
            return
        summary = {**result.summary(), **used, "digest": editor.delta.digest}
        with result_folder(out, overwrite=overwrite) as folder:
            editor.delta.save(folder)
            write_json(folder / "result.json", summary)
            if not delta_only:
                write_model(loaded, folder)
        if_interrupted(f"the result is saved in {out}")
        content.update(summary, out=str(out))
        if delta_only:
            typer.echo(f"saved the delta: {out}/delta.safetensors (metake apply writes the edited model)")
        else:
            typer.echo(f"saved the edited model: {out} (the delta alone: {out}/delta.safetensors)")
        draw_or_note(lambda: result.plot(out / "realisation.png"))
        if result.failed:
            raise typer.Exit(NOT_EDITED)
