"""Records of `--data`, and those that a command can use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from metake.commands.common import records_that_fit
from metake.errors import MetakeError

if TYPE_CHECKING:
    from metake.data.record import Record
    from metake.data.records import Reading
    from metake.methods.base import Method
    from metake.models.editable import EditableModel


def read_data(data: Path, edits: int | None, seeds: int, form: str | None, columns: str | None) -> Reading:
    """Records of a file: the first ones for a single draw, all for several.

    Args:
        data: value of `--data`.
        edits: value of `--edits`.
        seeds: value of `--seeds`.
        form: value of `--format`.
        columns: value of `--columns`.

    Returns:
        The records, and what is left out.
    """
    from metake.data.columns import parse_columns
    from metake.data.records import read_file

    limit = edits if seeds == 1 else None
    return read_file(data, limit, form=form, columns=parse_columns(columns), subject_optional=True)


def usable_records(
    model: EditableModel, reading: Reading, methods: Sequence[Method]
) -> tuple[list[Record], dict[str, Any]]:
    """The records that all methods can edit and the model can take; a line on stderr counts what is left out.

    Args:
        model: the model.
        reading: records of a file.
        methods: the methods; none for a model that was edited elsewhere.

    Returns:
        The records, and values for the result file.

    Raises:
        MetakeError: no record is left.
    """
    needing = [method.name for method in methods if method.needs_subject]
    usable = reading.without_subjects() if needing else reading
    if not usable.records:
        raise MetakeError(
            f"{reading.where}: no record names its subject in the prompt, which {needing[0]} needs; add the field "
            "subject, or give --set lookup=prompt"
        )
    typer.echo(f"{reading.where}: {usable.summary}", err=True)
    records, left_out = records_that_fit(model, usable.records, reading.where)
    return records, {"data": str(reading.where), "reading": usable.plain(), "left_out": left_out}
