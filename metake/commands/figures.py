"""`metake figures`: figures that check the theory against the library's code."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from metake.commands.option_types import AsJson
from metake.console import document
from metake.extras import needs
from metake.options import output_folder

Out = Annotated[Path, typer.Option(parser=output_folder, metavar="PATH", help="Folder of the figures.")]
Claims = Annotated[
    str | None, typer.Option(metavar="CLAIM,...", help="Only the figures of these claims, e.g. T1,L2.")
]


def draw(claims: str | None, out: Path) -> list[dict[str, Any]]:
    """Draw figures; a row that breaks its relation ends the program with exit code 1.

    Args:
        claims: value of `--claims`.
        out: folder of the figures.

    Returns:
        Entries of the index, one per figure.

    Raises:
        typer.Exit: a row does not satisfy its relation.
    """
    from metake.figures.core import RelationViolated
    from metake.figures.gallery import choose, write

    try:
        return write(choose(claims), out)
    except RelationViolated as error:
        typer.echo(f"{Path(sys.argv[0]).stem}: a law is broken: {error}", err=True)
        raise typer.Exit(1) from error


def figures(out: Out = Path("results/figures"), claims: Claims = None, as_json: AsJson = False) -> None:
    """Draw figures that check the theory: theory as a line, the library's code as points.

    Writes one PDF, PNG and CSV per figure, captions.md and index.json. Each row of a CSV states its relation to the
    theory (equal, below or above).

    Exit codes: 0 every row satisfies its relation, 1 one does not, 2 invalid input.

    Example: metake figures --out results/figures --claims T1,L2
    """
    # before torch is imported: sums in another order would be other bytes
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    with needs("theory"):
        from metake.figures.gallery import missing_models
    with document(as_json) as content:
        entries = draw(claims, out)
        for entry in entries:
            typer.echo(f"{entry['name']}: {entry['summary']}")
        typer.echo(f"{len(entries)} figures in {out}")
        content.update(figures=entries, out=str(out))
    for name, models in missing_models([entry["name"] for entry in entries]).items():
        typer.echo(
            f"note: {name}: drawn without {', '.join(models)}, which this installation leaves out; "
            "run the command in a checkout of the repository to include them"
        )
