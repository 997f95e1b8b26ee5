"""`metake edit`: one fact or a file of facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from metake.commands.common import MethodOptions, load_model
from metake.commands.config import ConfigFile, save_options
from metake.commands.edit_options import (
    DeltaOnly,
    Escalate,
    Out,
    PreviewOnly,
    Prompt,
    Requests,
    Subject,
    Target,
)
from metake.commands.option_types import (
    AsJson,
    Change,
    Chats,
    Columns,
    Device,
    Dtype,
    Format,
    Hparams,
    Layers,
    MethodName,
    Model,
    Modules,
    Overwrite,
    Preset,
    Stats,
    Text,
)
from metake.console import document, draw_or_note, set_interrupt_message
from metake.errors import MetakeError
from metake.files import write_json
from metake.folders import check_folder, result_folder
from metake.processes import is_first
from metake.words import counted

if TYPE_CHECKING:
    from metake.editor import Editor
    from metake.methods.base import Method
    from metake.models.editable import EditableModel
    from metake.preview import Preview
    from metake.requests import EditRequest
    from metake.result import EditResult

NOT_EDITED = 3  # exit code where an answer does not begin with its target


def read_requests(
    request: str | None,
    subject: str | None,
    target: str | None,
    file: Path | None,
    name: str,
    form: str | None = None,
    columns: str | None = None,
) -> tuple[EditRequest, ...]:
    """Requests from the options or from a file, without duplicates.

    Args:
        request: value of `--request`.
        subject: value of `--subject`.
        target: value of `--target`.
        file: value of `--requests`.
        name: name of the command, for the error line.
        form: value of `--format`.
        columns: value of `--columns`.

    Returns:
        The requests; without a subject if the format is given and has none.

    Raises:
        MetakeError: an option is missing or redundant, or a request is invalid.
    """
    from metake.data.columns import parse_columns
    from metake.data.records import read_file, require_all
    from metake.requests import EditRequest, distinct

    given = {"--request": request, "--subject": subject, "--target": target}
    if file is not None:
        if extra := [option for option, value in given.items() if value is not None]:
            raise MetakeError(f"{name}: --requests and {extra[0]} exclude each other; give one of them")
        try:
            named = parse_columns(columns)
            reading = read_file(file, form=form, columns=named, subject_optional=bool(form or named))
            require_all(reading)
            return distinct([record.request for record in reading.records])
        except MetakeError as error:
            raise error if str(file) in str(error) else MetakeError(f"{file}: {error}") from error
    for option, value in given.items():
        if value is None:
            raise MetakeError(
                f"{name}: {option} is missing; give --request, --subject and --target, or --requests FILE"
            )
    return distinct([EditRequest.parse(*given.values())])  # type: ignore[arg-type]


def read_options(
    method: str, preset: Path | None, hparams: list[str] | None, change: list[str] | None, layers: str | None
) -> MethodOptions:
    """Options of one method, checked before a model is loaded; an unknown method or setting raises a `MetakeError`.

    Args:
        method: value of `--method`.
        preset: value of `--preset`.
        hparams: values of `--hparams`.
        change: values of `--set`.
        layers: value of `--layers`.

    Returns:
        The options.
    """
    from metake.methods.table import method_named

    plain = method_named(method)
    options = MethodOptions.read(preset, hparams, change, layers)
    plain.updated(**options.changes)
    return options


def check_subjects(method: Method, facts: Sequence[EditRequest]) -> None:
    """Refuse a fact without a subject for a method that reads keys at the subject's last token.

    Args:
        method: the method.
        facts: the requests.

    Raises:
        MetakeError: such a fact; the line names it.
    """
    lacking = [fact.name for fact in facts if not fact.has_subject]
    if lacking and method.needs_subject:
        raise MetakeError(
            f"{lacking[0]}: no subject in the prompt, which {method.name} needs; add the field subject, or give "
            "--set lookup=prompt"
        )


def check_out(out: Path | None, preview: bool, overwrite: bool) -> None:
    """Check the output folder, before a model is loaded.

    Args:
        out: value of `--out`.
        preview: whether the command ends after the preview.
        overwrite: value of `--overwrite`.

    Raises:
        MetakeError: the folder is missing, or holds other files.
    """
    if out is None and not preview:
        raise MetakeError("edit: --out is missing; name a folder for the edited model (or use --preview)")
    if out is not None:
        check_folder(out, overwrite=overwrite)


def check_whole(model: EditableModel, is_kept: bool) -> EditableModel:
    """Refuse to save a model that no process holds whole, before it is edited.

    Args:
        model: the model.
        is_kept: whether the command saves no model.

    Returns:
        The model.

    Raises:
        MetakeError: the model is divided over processes.
    """
    if model.is_sharded and not is_kept:
        raise MetakeError("--delta-only: is needed with a sharded model, which no process holds whole")
    return model


def show_preview(editor: Editor, requests: tuple[EditRequest, ...]) -> Preview:
    """Print a preview, and a note on subjects with inconsistent keys.

    Args:
        editor: the editor.
        requests: the requests.

    Returns:
        The preview.
    """
    predicted = editor.preview(requests)
    typer.echo(predicted)
    if predicted.inconsistent_subjects:
        typer.echo(
            f"note: {', '.join(predicted.inconsistent_subjects)}: the subject's key in the bare prompt differs from its key after other text "
            "(cosine below 0.1), so the edit may fail in both; give --set consistent_lookup=true, begin the prompt with other words, or "
            "give --chat",
            err=True,
        )
    return predicted


def preview_content(predicted: Preview) -> dict[str, Any]:
    """Plain values of a preview; matrices are `layers x requests`.

    Args:
        predicted: the preview.

    Returns:
        Values that a JSON file can hold.
    """
    return {
        "requests": [
            {"prompt": r.prompt, "subject": r.subject, "target_new": r.target_new} for r in predicted.requests
        ],
        "layers": list(predicted.layers),
        "rho": predicted.rho.tolist(),
        "eta": predicted.eta.tolist(),
        "key_cosine": predicted.cosine.tolist(),
        "inconsistent_subjects": list(predicted.inconsistent_subjects),
        "constraint": dict(predicted.constraint),
        "reasons": list(predicted.reasons),
    }


def description(model: EditableModel, method: Method, preset: Path | None) -> dict[str, Any]:
    """Model, method, settings and decoding of a result file.

    Args:
        model: the model.
        method: the method.
        preset: value of `--preset`.

    Returns:
        Values that a JSON file can hold.
    """
    from metake.models.chat import described
    from metake.models.greedy import described_decoding
    from metake.presets import preset_name
    from metake.provenance import provenance

    return {
        **provenance(model.name, model, method.name),
        "preset": str(preset or preset_name(model)),
        "settings": method.model_dump(),
        "chat": described(model.tokenizer),
        "generation": described_decoding(model.model, model.tokenizer),
    }


def show_result(result: EditResult, predicted: Preview | None, escalate: int = 0) -> None:
    """Print the report of an edit, and advice if it failed; after further attempts, which edits failed.

    Args:
        result: the report.
        predicted: the preview, whose legend is not printed again.
        escalate: number of further attempts that were allowed.
    """
    typer.echo(result.as_text(explained=predicted.legend if predicted else ()))
    if result.failed:
        for name, reason in result.failure_reasons.items():
            typer.echo(f"failed edit: {name}: {reason}", err=True)
        typer.echo(unreachable_line(result, escalate) if escalate else result.advice(), err=True)


def unreachable_line(result: EditResult, escalate: int) -> str:
    """Line on the edits that failed in all attempts, with the reason of each kind.

    Args:
        result: the report of the best attempt, with failed requests.
        escalate: number of further attempts.

    Returns:
        The line.
    """
    kinds = Counter(reason.partition(":")[0] for reason in result.failure_reasons.values())
    reasons = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
    return (
        f"not edited: {len(result.failed)} of {counted(len(result.requests), 'edit')} with {result.method.name} on layers "
        f"{list(result.method.layers)}, in {escalate + 1} attempts ({reasons}); take other --layers, another wording, or a "
        "larger model"
    )


def save_edit(
    editor: Editor, summary: dict[str, Any], out: Path, *, delta_only: bool, overwrite: bool
) -> None:
    """Save the delta, the result file and, unless only the delta is wanted or it has gated patches, the edited model.

    Args:
        editor: editor with the edit.
        summary: content of the result file.
        out: folder of the files.
        delta_only: value of `--delta-only`.
        overwrite: value of `--overwrite`.
    """
    from metake.models.save import write_model

    foldable = editor.delta.foldable
    with result_folder(out, overwrite=overwrite) as folder:
        editor.delta.save(folder)
        write_json(folder / "result.json", summary)
        save_options(folder)
        if foldable and not delta_only:
            write_model(editor.model, folder)
    set_interrupt_message(f"the result is saved in {out}")
    if not foldable:
        typer.echo(
            f"saved the patch: {out}/delta.safetensors (its gate does not fold into weights; metake ask --delta {out})"
        )
    elif delta_only:
        typer.echo(f"saved the delta: {out}/delta.safetensors (metake apply writes the edited model)")
    else:
        typer.echo(f"saved the edited model: {out} (the delta alone: {out}/delta.safetensors)")


def exit_if_failed(result: EditResult) -> None:
    """End the command if some answers do not begin with their target.

    Args:
        result: report of the edit.

    Raises:
        typer.Exit: with the code `NOT_EDITED`.
    """
    if result.failed:
        raise typer.Exit(NOT_EDITED)


def draw_realization(result: EditResult, out: Path) -> None:
    """Draw the planned and realized shifts, if the method plans targets.

    Args:
        result: result of the edit.
        out: folder of the figure.
    """
    if result.stages:
        draw_or_note(lambda: result.plot(out / "realization.png"))


def edit(
    model: Model,
    request: Prompt = None,
    subject: Subject = None,
    target: Target = None,
    requests: Requests = None,
    out: Out = None,
    method: MethodName = "metake",
    escalate: Escalate = 0,
    delta_only: DeltaOnly = False,
    preview: PreviewOnly = False,
    form: Format = None,
    columns: Columns = None,
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
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Edit one fact, or a file of facts, and save the edited model.

    Exit codes: 0 all answers begin with their target, 3 some do not (the result is saved), 2 invalid input.

    Example: metake edit --model demo --request 'Which city was {} born in?' --subject 'Nezan Girok' --target Trumas --out edited
    """
    from metake.editor import Editor

    with document(as_json) as content:
        options = read_options(method, preset, hparams, change, layers)
        facts = read_requests(request, subject, target, requests, "edit", form, columns)
        check_out(out, preview, overwrite)
        loaded = check_whole(load_model(model, device, dtype, modules, chat), delta_only or preview)
        check_subjects(options.method(loaded, method), facts)
        (location,), statistics = options.chosen(loaded, [method], facts, stats, text)
        editor = Editor(loaded, method=location.method, statistics=statistics, reasons=location.reasons)
        predicted = show_preview(editor, facts) if preview or location.method.previews else None
        used = description(loaded, location.method, preset)
        if preview and predicted is not None:
            content.update(preview_content(predicted), **used)
            return
        assert out is not None  # `check_out`
        set_interrupt_message(f"nothing was saved in {out}; rerun the command to start again")
        editor.edit(facts, preview=predicted, escalate=escalate)
        result = editor.finalize()[-1]
        show_result(result, predicted, escalate)
        if not is_first():
            return
        summary = {**result.summary(), **used, "digest": editor.delta.digest}
        save_edit(editor, summary, out, delta_only=delta_only, overwrite=overwrite)
        content.update(summary, out=str(out))
        draw_realization(result, out)
        exit_if_failed(result)
