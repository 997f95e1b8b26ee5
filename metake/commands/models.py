"""`metake models`: known models, families, methods and kinds of components."""

from __future__ import annotations

import typer

from metake.commands.option_types import AsJson
from metake.console import document


def models(as_json: AsJson = False) -> None:
    """List the known models, families, methods and kinds of components, those of installed packages included.

    Example: metake models --json
    """
    from metake.components import families
    from metake.methods.table import all_methods
    from metake.models.known import KNOWN
    from metake.models.modules import FAMILIES, MIXTURES, TOWERS
    from metake.report.tables import render

    kinds = {family: list(classes) for family, classes in families().items() if family != "method"}
    with document(as_json) as content:
        content.update(
            models=[k.__dict__ for k in KNOWN],
            families=list(FAMILIES),
            mixtures_of_experts=list(MIXTURES),
            vision_language=list(TOWERS),
            methods={m.name: m.summary for m in all_methods().values()},
            kinds=kinds,
        )
    if as_json:
        return
    typer.echo(render("models", ["name", "what", "needs"], [[k.name, k.what, k.needs] for k in KNOWN], 120))
    maps = {"dense": FAMILIES, "mixture of experts": MIXTURES, "vision-language (its language model)": TOWERS}
    known = [[kind, ", ".join(names)] for kind, names in maps.items()]
    typer.echo(render("families", ["kind", "model_type"], known, 120))
    typer.echo("any other dense family can be described with --modules FILE.json (docs/models.md)")
    typer.echo(
        render("methods", ["name", "what"], [[m.name, m.summary] for m in all_methods().values()], 120)
    )
    rows = [[family, ", ".join(names)] for family, names in kinds.items()]
    typer.echo(render("components: --method 'NAME + KIND' exchanges one", ["component", "kinds"], rows, 120))
