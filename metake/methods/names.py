"""Names of methods: `ROW + CHOICE + ...@label` says which algorithm runs.

A choice is the kind of a component, e.g. `past-keys`, or a field with its value, e.g. `rounds 3` or
`planner.start compensated`. A kind alone is that of the innermost component that it can be; if another one is meant,
the field is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from metake.components import Component, Path, known_kinds
from metake.errors import MetakeError
from metake.names import unknown_name

if TYPE_CHECKING:
    from metake.methods.base import Method

PROTOTYPES: dict[str, Method] = {}  # row of the table -> its method, without layers
M = TypeVar("M", bound="Method")


def split_name(name: str) -> tuple[str, list[str], str]:
    """Row, choices, and `@label` of a name `ROW + CHOICE@label`.

    Args:
        name: name of a method.

    Returns:
        The label with its `@`; empty texts for missing parts.

    Raises:
        MetakeError: not a text.
    """
    if not isinstance(name, str):
        raise MetakeError(f"method: must be a name of the table, e.g. 'metake', not {type(name).__name__}")
    algorithm, at, label = name.partition("@")
    row, *choices = (part.strip() for part in algorithm.split("+"))
    return row, choices, at + label


def with_choice(method: M, choice: str) -> M:
    """Copy of a method with one choice exchanged. An unknown choice is a `MetakeError`.

    Args:
        method: the method.
        choice: kind of a component, or a field with its value.

    Returns:
        A method of the same class.
    """  # noqa: DOC501 (unknown_name returns a MetakeError)
    field, _, value = choice.partition(" ")
    if value:
        path = tuple(field.split("."))
        owner: Any = method
        for part in path[:-1]:
            owner = getattr(owner, part, None)
        if isinstance(owner, Component) and path[-1] in type(owner).model_fields:
            return method.changed({path: _parsed(value)})
    found = _place(method, choice)
    if found is None:
        kinds = [kind for path, part in method.parts() if path for kind in known_kinds(part.family)]
        raise unknown_name(f"method: {method.label} + ...", choice, dict.fromkeys(kinds))
    return method.changed({found: choice})


def written_name(method: Method) -> str:
    """Name of a method: its row, the choices in which it differs, its label; the label alone if it is of no row.

    A method without a label is named by its kind, and the choices in which it differs from the defaults.

    Args:
        method: the method.

    Returns:
        A name that `method_named` reads.
    """
    row, _, at = split_name(method.label or method.kind)
    made = PROTOTYPES.get(row) if method.label else type(method)(layers=())
    if type(made) is not type(method):
        return method.label
    choices = []
    for path, value in _differences(made, method):
        alone = isinstance(value, str) and len(path) > 0 and _place(made, value) == path
        choices.append(value if alone else f"{'.'.join(path)} {_written(value)}")
        made = made.changed({path: value})
    return " + ".join([row, *choices]) + at


def _place(method: Method, kind: str) -> Path | None:
    """The innermost component of a method that can be of a kind."""
    for path, part in reversed(list(method.parts())):
        if path and kind in known_kinds(part.family):
            try:
                method.changed({path: kind})
            except (MetakeError, ValueError):
                continue
            return path
    return None


def _differences(base: Component, method: Component, within: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Choices in which a method differs from another one: path and kind of a component, or a field and its value."""
    for name in type(method).model_fields:
        old, new, path = getattr(base, name), getattr(method, name), (*within, name)
        if isinstance(new, Component):
            if old.kind != new.kind:
                yield path, new.kind
                old = type(new)().keeping(old)
            yield from _differences(old, new, path)
        elif name in getattr(type(method), "choices", ()) and old != new:
            yield path, new


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
