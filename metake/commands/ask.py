"""`metake ask`: greedy answers of a model; with a saved delta, before and after the edit."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated

import typer

from metake.commands.common import load_model, read_delta
from metake.commands.option_types import AsJson, Chats, Device, Dtype, Model, Modules
from metake.console import document
from metake.errors import MetakeError
from metake.files import read_text
from metake.phases import phase

if TYPE_CHECKING:
    from metake.models.editable import EditableModel


Question = Annotated[list[str] | None, typer.Argument(help="Complete prompts, each in quotes.")]
Questions = Annotated[Path | None, typer.Option(help="File of questions, one per line.")]
DeltaPath = Annotated[
    Path | None,
    typer.Option(
        help="Folder or file written by `metake edit`, or a PEFT adapter; prints the answers of --model before and after this edit."
    ),
]
Tokens = Annotated[int, typer.Option(min=1, help="Maximum number of tokens per answer.")]


def read_questions(given: list[str] | None, file: Path | None) -> list[str]:
    """Questions from the command line, followed by those of a file, one per line.

    Args:
        given: arguments of the command.
        file: value of `--questions`.

    Returns:
        The questions.

    Raises:
        MetakeError: there is none.
    """
    lines = [] if file is None else read_text(file).splitlines()
    questions = [*(given or []), *(line.strip() for line in lines if line.strip())]
    if not questions:
        raise MetakeError("ask: no question; give some in quotes, or --questions FILE with one per line")
    return questions


def answer(model: EditableModel, questions: list[str], tokens: int) -> list[str]:
    """Greedy answers of a model.

    Args:
        model: the model.
        questions: complete prompts.
        tokens: maximum number of tokens per answer.

    Returns:
        One answer per question.
    """
    with phase("evaluate"):
        return model.ask(questions, max_new_tokens=tokens)


def show_answers(questions: list[str], rows: list[dict[str, str]]) -> None:
    """Print questions and answers; on a terminal, an answer that was cut ends with an ellipsis.

    Args:
        questions: the questions.
        rows: per question, kind (`answer`, or `before` and `after`) -> answer.
    """
    from metake.report.tables import ellipsis
    from metake.words import shown

    for question, row in zip(questions, rows, strict=True):
        typer.echo(question)
        for kind, whole in row.items():
            text = shown(whole, ellipsis())
            typer.echo(indent(text if len(row) == 1 else f"{kind + ':':7} {text}", "  "))


def ask(
    model: Model,
    question: Question = None,
    questions: Questions = None,
    delta: DeltaPath = None,
    tokens: Tokens = 40,
    device: Device = None,
    dtype: Dtype = "float32",
    modules: Modules = None,
    chat: Chats = False,
    as_json: AsJson = False,
) -> None:
    """Print greedy answers; with --delta, before and after a saved edit. No file is written.

    Example: metake ask --model smollm2 --delta edited 'Which city was Niels Bohr born in?'
    """
    with document(as_json) as content:
        asked = read_questions(question, questions)
        delta_for = None if delta is None else read_delta(delta)
        loaded = load_model(model, device, dtype, modules, chat)
        change = None if delta_for is None else delta_for(loaded, True)
        kinds = {"answer": answer(loaded, asked, tokens)}
        if change is not None:
            with change.applied(loaded):
                kinds = {"before": kinds["answer"], "after": answer(loaded, asked, tokens)}
        rows = [dict(zip(kinds, each, strict=True)) for each in zip(*kinds.values(), strict=True)]
        show_answers(asked, rows)
        content.update(
            model=loaded.name,
            fingerprint=loaded.fingerprint(),
            delta=None if change is None else {"path": str(delta), "digest": change.digest},
            answers=[{"question": text, **row} for text, row in zip(asked, rows, strict=True)],
        )
