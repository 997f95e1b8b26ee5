"""The table of methods: a method is a row of choices, and a new method is a new row."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from metake.errors import MetakeError
from metake.names import unknown_name


@dataclass(frozen=True)
class Method:
    """One row. The first four fields tell about it, the others are columns: fields of `Settings`.

    Attributes:
        like: the row whose preset it takes where a model's preset has none for itself.
        source: the paper it is from.
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
        Method("rome", "one request after the other, in full, at one layer", "arXiv:2202.05262", "memit",
               fit="exact", allocation="last", group=1, relative="value"),
        Method("memit", "open-loop plan, spread over the layers", "arXiv:2210.07229"),
        Method("prune", "MEMIT, singular values of the whole change bounded at the end", "arXiv:2405.16821",
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
        Method("metake-parallel", "closed-loop target, every layer's gradient at once (X11)", "ours", "metake",
               target="bilevel", hypergradient="parallel"),
        Method("metake-priced", "closed-loop target that pays for what it disturbs (X14)", "ours", "metake",
               target="bilevel", price=1.0),
        Method("metake-alphaedit", "closed-loop target over AlphaEdit's solver", "ours", "alphaedit",
               target="bilevel", **_NULL),
        Method("metake-blue", "closed-loop target at the first and at the last layer", "ours", "alphaedit",
               target="bilevel", allocation="boundary", **_NULL),
        # rivals since
        Method("emmet", "ROME's exact fit for a whole batch", "arXiv:2403.14236", "memit", fit="exact",
               allocation="last"),
        Method("memit-fe", "MEMIT with a target at the first layer, replayed upwards", "arXiv:2605.00358",
               "memit", allocation="forward", history=True),
        Method("alphaedit-fe", "AlphaEdit with a target at the first layer, replayed upwards",
               "arXiv:2605.00358", "alphaedit", allocation="forward", **_NULL),
        Method("memit-merge", "MEMIT, requests of the same subject share a target", "arXiv:2502.07322", "memit",
               merge=True),
        Method("ultraedit", "one normalised gradient step at the answer's tokens, least squares, no statistics",
               "arXiv:2505.14679", target="gradient", geometry="identity", allocation="each"),
        # controls: what closing the loop has to be measured against
        Method("memit-compensated", "MEMIT's plan, lengthened until it is executed in full", "P4", "memit",
               target="compensated"),
        Method("alphaedit-compensated", "AlphaEdit's plan, lengthened until it is executed in full", "P4",
               "alphaedit", target="compensated", **_NULL),
        Method("memit-iterated", "MEMIT three times over, at the same number of steps", "arXiv:2503.11895",
               "memit", rounds=3),
        Method("alphaedit-iterated", "AlphaEdit three times over, at the same number of steps",
               "arXiv:2503.11895", "alphaedit", rounds=3, **_NULL),
        # published code where it does not do what its paper says
        Method("prune-added", "PRUNE as its rows were published: the bounded change added to the change",
               "AlphaEdit's code", "memit", restraint="prune-added"),
    )
}  # fmt: skip


def find_method(name: str) -> Method:
    """The row of a name, which may carry a label after `@` to tell two settings of it apart.

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
