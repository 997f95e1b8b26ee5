"""The table of methods: a method is a row of choices, and a new method is a new row."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from metake.errors import MetakeError
from metake.names import unknown_name


@dataclass(frozen=True)
class Method:
    """One row. The first four fields describe it; the others are columns, i.e. fields of `Settings`.

    Attributes:
        like: the row whose preset is used if the model's preset has none for this row.
        source: the paper that introduced it.
    """

    name: str
    summary: str
    source: str
    like: str = ""
    target: str = "plan"
    geometry: str = "ridge"
    fit: str = "soft"
    allocation: str = "spread"
    rounds: int = 1
    hypergradient: str = "unrolled"
    group: int | None = None
    merge: bool = False
    restraint: str = "none"
    history: bool = False
    relative: str = "stream"
    price: float = 0.0

    @property
    def choices(self) -> dict[str, Any]:
        fields = asdict(self)
        for name in ("name", "summary", "source", "like"):
            del fields[name]
        return fields


_NULL: dict[str, Any] = {
    "geometry": "projected",
    "history": True,
}  # AlphaEdit's geometry, for the rows that build on it

METHODS: dict[str, Method] = {
    row.name: row
    for row in (
        # what the paper compares
        Method("rome", "exact fit of one request after the other, at one layer", "arXiv:2202.05262", "memit",
               fit="exact", allocation="last", group=1, relative="value"),
        Method("memit", "open-loop plan, spread over the layers", "arXiv:2210.07229"),
        Method("prune", "MEMIT, singular values of the total update bounded at the end", "arXiv:2405.16821",
               "memit", restraint="prune"),
        Method("rect", "MEMIT that keeps the largest relative changes", "arXiv:2401.04700", "memit",
               restraint="rect"),
        Method("alphaedit", "MEMIT in the null space of C, with history of keys", "arXiv:2410.02355", **_NULL),
        Method("alphaedit-blue", "AlphaEdit with a target at the first and one at the last layer",
               "arXiv:2502.03285", "alphaedit", allocation="boundary", **_NULL),
        # MetaKE over every lower level
        Method("metake", "closed-loop target along the exact hypergradient (X10)", "ours", target="bilevel"),
        Method("metake-proxy", "closed-loop target along the structural proxy, as in the paper",
               "MetaKE, Algorithm 1", "metake", target="bilevel", hypergradient="proxy"),
        Method("metake-parallel", "closed-loop target along the sum of all layers' gradients (X11)", "ours", "metake",
               target="bilevel", hypergradient="parallel"),
        Method("metake-priced", "closed-loop target with a cost on preserved keys (X14)", "ours", "metake",
               target="bilevel", price=1.0),
        Method("metake-alphaedit", "closed-loop target over AlphaEdit's solver", "ours", "alphaedit",
               target="bilevel", **_NULL),
        Method("metake-blue", "closed-loop target at the first and at the last layer", "ours", "alphaedit",
               target="bilevel", allocation="boundary", **_NULL),
        # other published methods
        Method("emmet", "ROME's exact fit for a whole batch", "arXiv:2403.14236", "memit", fit="exact",
               allocation="last"),
        Method("memit-fe", "MEMIT with a target at the first layer, propagated upwards", "arXiv:2605.00358",
               "memit", allocation="forward", history=True),
        Method("alphaedit-fe", "AlphaEdit with a target at the first layer, propagated upwards",
               "arXiv:2605.00358", "alphaedit", allocation="forward", **_NULL),
        Method("memit-merge", "MEMIT, requests of the same subject share a target", "arXiv:2502.07322", "memit",
               merge=True),
        Method("ultraedit", "one normalized gradient step at the answer's tokens, least squares, no statistics",
               "arXiv:2505.14679", target="gradient", geometry="identity", allocation="each"),
        # controls for the closed loop
        Method("memit-compensated", "MEMIT's plan, lengthened until it is fully realized", "P4", "memit",
               target="compensated"),
        Method("alphaedit-compensated", "AlphaEdit's plan, lengthened until it is fully realized", "P4",
               "alphaedit", target="compensated", **_NULL),
        Method("memit-iterated", "three rounds of MEMIT with the same total number of steps", "arXiv:2503.11895",
               "memit", rounds=3),
        Method("alphaedit-iterated", "three rounds of AlphaEdit with the same total number of steps",
               "arXiv:2503.11895", "alphaedit", rounds=3, **_NULL),
        # published code that differs from its paper
        Method("prune-added", "PRUNE as published results ran it: the bounded update added to the unbounded one",
               "AlphaEdit's code", "memit", restraint="prune-added"),
    )
}  # fmt: skip


def find_method(name: str) -> Method:
    """The row of a name. A label after `@` may distinguish several settings of one method.

    Raises:
        MetakeError: the name is not in the table.
    """
    if not isinstance(name, str):
        raise MetakeError(f"method: must be a name of the table, e.g. 'metake', not {type(name).__name__}")
    row = name.split("@")[0]
    if row not in METHODS:
        raise unknown_name("method", row, METHODS)
    return METHODS[row]


def describe_methods() -> str:
    """The table as Markdown: name, its choices, what it is, where it is from."""
    columns = ("target", "geometry", "fit", "allocation", "restraint")
    lines = ["| method | " + " | ".join(columns) + " | history | what | from |", "| --- " * 9 + "|"]
    for row in METHODS.values():
        target = f"{row.target}, {row.hypergradient}" if row.target == "bilevel" else row.target
        target += f", {row.rounds} rounds" if row.rounds > 1 else ""
        target += ", one by one" if row.group == 1 else ""
        target += ", per subject" if row.merge else ""
        target += ", priced" if row.price else ""
        choices = [target, *(getattr(row, column) for column in columns[1:])]
        cells = [f"`{row.name}`", *choices, "yes" if row.history else "no", row.summary, row.source]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
