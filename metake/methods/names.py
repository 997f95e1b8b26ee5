"""Names of methods: `ROW + CHOICE + ...@label` says which algorithm runs.

A choice is the kind of a component, e.g. `past-keys`, or a field with its value, e.g. `rounds 3` or
`planner.start compensated`. A kind without a field replaces the innermost component that accepts it; to replace
another one, write the field.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

from metake.components import Component, Path, known_kinds
from metake.components import families as all_families
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


def with_choices(method: M, choices: Iterable[str]) -> M:
    """Copy of a method with some choices exchanged, each of another component. An unknown choice is a `MetakeError`.

    Args:
        method: the method.
        choices: kinds of components, or fields with their values.

    Returns:
        A method of the same class.

    Raises:
        MetakeError: two choices of one component.
    """
    chosen: dict[Path, str] = {}
    for choice in choices:
        path, value = _read_choice(method, choice)
        if path in chosen:
            raise MetakeError(
                f"method: {method.label} + ...: {chosen[path]!r} and {choice!r} are both its {'.'.join(path)}; name one of them"
            )
        chosen[path] = choice
        method = method.changed({path: value})
    return method


def _read_choice(method: Method, choice: str) -> tuple[Path, Any]:
    """Path of the field that a choice exchanges, and the field's new value."""
    field, _, value = choice.partition(" ")
    if value:
        path = tuple(field.split("."))
        owner: Any = method
        for part in path[:-1]:
            owner = getattr(owner, part, None)
        if isinstance(owner, Component) and path[-1] in type(owner).model_fields:
            return path, _parsed(value)
    found = _component_path(method, choice)
    if found is None:
        raise _unknown_kind(method, choice)
    return found, choice


def _unknown_kind(method: Method, choice: str) -> MetakeError:
    """Error of a choice that is no kind of the method's components, or of a kind that does not go with the others.

    Args:
        method: the method.
        choice: the kind.

    Returns:
        The kinds of the family that is probably meant, or of every family if none is similar.
    """
    where = f"method: {method.label} + ..."
    families = {part.family: path for path, part in method.named_components() if path}
    kinds = {family: known_kinds(family) for family in families}
    for family, path in families.items():
        if choice in kinds[family]:
            try:
                method.changed({path: choice})
            except (MetakeError, ValueError) as error:
                return MetakeError(
                    f"method: {method.label} + {choice}: {str(error).removeprefix('settings: ')}"
                )
    near = get_close_matches(choice, [kind for known in kinds.values() for kind in known], 1)
    if near:
        family = next(family for family, known in kinds.items() if near[0] in known)
        return unknown_name(f"{where}: {family}", choice, kinds[family])
    for family, others in all_families().items():
        if choice in others and family not in families:
            return MetakeError(
                f"{where}: {choice!r} is a kind of the component {family}, which {method.label} does not have; "
                f"its components: {', '.join(families) or 'none'}"
            )
    listed = "; ".join(f"{family}: {', '.join(known)}" for family, known in kinds.items())
    return MetakeError(
        f"{where}: unknown {choice!r}; known kinds: {listed}. A class of your own needs @mk.register, and an import or an entry point"
    )


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
        alone = isinstance(value, str) and len(path) > 0 and _component_path(made, value) == path
        choices.append(value if alone else f"{'.'.join(path)} {_written(value)}")
        made = made.changed({path: value})
    return " + ".join([row, *choices]) + at


def _component_path(method: Method, kind: str) -> Path | None:
    """The innermost component of a method that can be of a kind."""
    for path, part in reversed(list(method.named_components())):
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
                old = type(new)().with_settings_of(old)
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
