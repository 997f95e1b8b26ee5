"""The table of methods: a method is a row of choices, and a new method is a new row."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from metake.errors import MetakeError


@dataclass(frozen=True)
class Method:
    """One row. `name` and `summary` aside, the columns are fields of `Settings`."""

    name: str
    target: str
    geometry: str
    summary: str
    fit: str = "soft"
    allocation: str = "spread"
    rounds: int = 1
    hypergradient: str = "parallel"
    group: int | None = None
    restraint: str = "none"
    history: bool = False

    @property
    def choices(self) -> dict[str, Any]:
        fields = asdict(self)
        del fields["name"], fields["summary"]
        return fields


METHODS: dict[str, Method] = {
    row.name: row
    for row in (
        Method("rome", "plan", "ridge", "one request after the other, in full, at one layer", fit="exact",
               allocation="last", group=1),
        Method("emmet", "plan", "ridge", "ROME for a whole batch at once", fit="exact", allocation="last"),
        Method("memit", "plan", "ridge", "open-loop plan, ridge geometry, spread over the layers"),
        Method("rect", "plan", "ridge", "MEMIT that keeps the largest relative changes", restraint="rect"),
        Method("prune", "plan", "ridge", "MEMIT with singular values of the whole change bounded at the end",
               restraint="prune"),
        Method("prune-added", "plan", "ridge", "PRUNE as its published rows were made: the bounded change added to the change",
               restraint="prune-added"),
        Method("alphaedit", "plan", "projected", "open-loop plan, null space of C, history of keys",
               history=True),
        Method("metake", "bilevel", "ridge", "closed-loop target over MEMIT's solver, all layers in parallel"),
        Method("metake-proxy", "bilevel", "ridge", "closed-loop target along the paper's structural proxy",
               hypergradient="proxy"),
        Method("metake-alphaedit", "bilevel", "projected", "closed-loop target over AlphaEdit's solver",
               history=True),
        Method("metake-blue", "bilevel", "projected", "closed-loop target at the first and at the last layer",
               allocation="boundary", history=True),
        Method("memit-compensated", "compensated", "ridge",
               "MEMIT's plan, lengthened until it is executed in full (control)"),
        Method("memit-iterated", "plan", "ridge", "MEMIT three times over, on the model edited so far (control)",
               rounds=3),
        Method("alphaedit-iterated", "plan", "projected", "AlphaEdit three times over (control)", rounds=3,
               history=True),
        Method("memit-fe", "plan", "ridge", "MEMIT with a target at the first layer, replayed upwards (FE)",
               allocation="forward"),
        Method("alphaedit-fe", "plan", "projected", "AlphaEdit with a target at the first layer, replayed upwards (FE)",
               allocation="forward", history=True),
        Method("alphaedit-blue", "plan", "projected", "AlphaEdit with a target at the first and one at the last layer",
               allocation="boundary", history=True),
        Method("alphaedit-compensated", "compensated", "projected",
               "AlphaEdit's plan, lengthened until it is executed in full (control)", history=True),
    )
}  # fmt: skip


def find_method(name: str) -> Method:
    """The row of a name, which may carry a label after `@` to tell two settings of it apart.

    Raises:
        MetakeError: the name is not in the table.
    """
    row = name.split("@")[0]
    if row not in METHODS:
        raise MetakeError(f"method: unknown {row!r}; known: {', '.join(METHODS)}")
    return METHODS[row]
