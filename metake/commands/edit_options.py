"""Options of `metake edit`; `locate` and `stats` share those of the facts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metake.commands.option_types import METHOD, OUTPUT, RECORDS
from metake.options import output_path

Prompt = Annotated[
    str | None, typer.Option("--request", help="Prompt with {} for the subject.", rich_help_panel=RECORDS)
]
Subject = Annotated[
    str | None,
    typer.Option("--subject", help="The subject, as it stands in the prompt.", rich_help_panel=RECORDS),
]
Target = Annotated[str | None, typer.Option("--target", help="The new answer.", rich_help_panel=RECORDS)]
Requests = Annotated[
    Path | None,
    typer.Option(
        help="File of facts (JSON, JSON Lines, CSV or TSV; docs/data.md); edited as one batch.",
        rich_help_panel=RECORDS,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        parser=output_path,
        metavar="PATH",
        help="Folder for the edited model, the delta and the result.",
        rich_help_panel=OUTPUT,
    ),
]
Escalate = Annotated[
    int,
    typer.Option(
        "--escalate",
        min=0,
        help="Further attempts, each with a weaker constraint and more steps, while some answers do not begin with "
        "their target.",
        rich_help_panel=METHOD,
    ),
]
DeltaOnly = Annotated[
    bool, typer.Option("--delta-only", help="Save only the delta, not the model.", rich_help_panel=OUTPUT)
]
PreviewOnly = Annotated[
    bool,
    typer.Option(
        "--preview", help="Print the predicted realization (rho, eta) and stop.", rich_help_panel=OUTPUT
    ),
]
