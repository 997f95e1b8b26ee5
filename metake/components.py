"""Components: validated, immutable parts of a method (geometry, planner, ...), and the registry of their kinds.

A component is a frozen record of numbers with the behavior that uses them. Components of one family (geometries,
planners, allocations, ...) are interchangeable. A class becomes usable by its `kind` from Python, from presets and
from the command line when it is registered:

    @register
    class Scaled(GeometrySpec):
        kind = "scaled"
        factor: float = 2.0

A package may also name its classes in an entry point of the family's group; they are then loaded when an unknown kind
is looked up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_serializer, model_validator

from metake.errors import MetakeError
from metake.names import unknown_name
from metake.packages import entry_points

if TYPE_CHECKING:
    from pydantic import SerializerFunctionWrapHandler, ValidatorFunctionWrapHandler

_REGISTRY: dict[str, dict[str, type[Component]]] = {}
C = TypeVar("C", bound="type[Component]")
Path = tuple[str, ...]  # fields from a component to a value inside it


class Component(BaseModel):
    """Base class of all components.

    Attributes:
        family: what the component is interchangeable with; set by the family's base class.
        kind: name of the class within its family; set by the class.
        aliases: field -> name of its setting, where the two differ (e.g. lr -> meta_lr).
        published: name in published hyper-parameter files -> field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    family: ClassVar[str] = ""
    kind: ClassVar[str] = ""
    aliases: ClassVar[dict[str, str]] = {}
    published: ClassVar[dict[str, str]] = {}

    if not TYPE_CHECKING:  # type checkers read the fields

        def __init__(self, **fields: Any) -> None:
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise _to_metake_error(error, type(self)) from error

    @model_validator(mode="wrap")
    @classmethod
    def _from_kind(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Self:
        """Accept a component, a kind, or a record with a kind."""
        if isinstance(value, str):
            value = {"kind": value}
        if isinstance(value, Component):
            if not isinstance(value, cls):
                raise ValueError(f"a {value.family} of kind {value.kind} is not accepted here")
            if value.kind not in _REGISTRY.get(value.family, {}) and value.kind not in known_kinds(
                value.family
            ):
                raise ValueError(
                    f"{type(value).__name__} is not registered; decorate the class with @mk.register"
                )
        if isinstance(value, dict) and "kind" in value:
            found = find_kind(cls.family, value["kind"])
            rest = {name: content for name, content in value.items() if name != "kind"}
            if found is not cls:
                if not issubclass(found, cls):
                    raise ValueError(f"a {cls.family} of kind {found.kind} is not accepted here")
                return found(**rest)
            value = rest
        elif cls.family and not cls.kind and not isinstance(value, cls):
            raise ValueError(
                f"must be a {cls.family} or the kind of one: {', '.join(known_kinds(cls.family))}"
            )
        made: Self = handler(value)
        return made

    @model_serializer(mode="wrap")
    def _with_kind(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"kind": self.kind, **handler(self)}

    @classmethod
    def setting_names(cls) -> dict[str, str]:
        """Name of a setting, published ones included -> field."""
        return {cls.aliases.get(name, name): name for name in cls.model_fields} | cls.published

    @classmethod
    def shares_meaning(cls, name: str, other: type[Component], other_name: str) -> bool:
        """Whether a field means the same as one of another class: both come from one class, or from one package.

        Args:
            name: a field.
            other: the other class.
            other_name: its field.

        Returns:
            False for fields of two packages that merely have the same name.
        """
        ours, theirs = cls._origin(name), other._origin(other_name)
        return ours is theirs or _package(ours) == _package(theirs)

    @classmethod
    def _origin(cls, name: str) -> type[Component]:
        """Class that introduced a field."""
        owners = [base for base in cls.__mro__ if issubclass(base, Component) and name in base.model_fields]
        return owners[-1]

    @classmethod
    def check_field(cls, name: str, value: Any) -> None:
        """Validate the value of one field on its own. An invalid value is a `MetakeError` that names the field.

        Args:
            name: the field.
            value: its value.
        """  # noqa: DOC501 (_to_metake_error returns a MetakeError)
        field = cls.model_fields[name]
        if isinstance(field.default, Component):
            if not isinstance(value, dict | Component):
                find_kind(field.default.family, value)
            return
        kind: Any = Annotated[field.annotation, field]
        try:
            TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
        except ValidationError as error:
            raise _to_metake_error(error, cls, name) from error

    def named_components(self) -> Iterator[tuple[Path, Component]]:
        """The component and all components in it, each with its path of fields."""
        yield (), self
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Component):
                for path, part in value.named_components():
                    yield (name, *path), part

    def changed(self, changes: Mapping[Path, Any]) -> Self:
        """Copy with other values at some paths of fields. An invalid value is a `MetakeError`.

        Every component is validated once, with all its changes. A component that is named by its kind alone keeps the settings
        of the one that it replaces, by their names.

        Args:
            changes: path of fields -> value.

        Returns:
            A component of the same class.
        """
        fields = {name: getattr(self, name) for name in self.model_fields_set}
        for name in dict.fromkeys(path[0] for path in changes):
            inner = {path[1:]: value for path, value in changes.items() if path[0] == name and len(path) > 1}
            value = changes.get((name,), getattr(self, name))
            old = getattr(self, name)
            if isinstance(old, Component) and isinstance(value, str):
                value = find_kind(old.family, value)().with_settings_of(old)
            fields[name] = value.changed(inner) if inner else value
        return type(self)(**fields)

    def replaced(self, name: str, value: Any) -> Self:
        """Copy with another value of one field; see `changed`.

        Args:
            name: the field.
            value: its new value.

        Returns:
            A component of the same class.
        """
        return self.changed({(name,): value})

    def with_settings_of(self, other: Component) -> Self:
        """Copy that takes over the settings that were set explicitly in another component.

        A setting is taken over if this component has one of the same name that means the same; see `shares_meaning`.

        Args:
            other: the component that is replaced.

        Returns:
            A component of the same class.
        """
        given = {
            type(part).aliases.get(name, name): (type(part), name, value)
            for _, part in other.named_components()
            for name in part.model_fields_set
            if not isinstance(value := getattr(part, name), Component)
        }
        changes = {}
        for path, part in self.named_components():
            for name in type(part).model_fields:
                owner, field, value = given.get(type(part).aliases.get(name, name), (None, "", None))
                if owner is not None and type(part).shares_meaning(name, owner, field):
                    changes[*path, name] = value
        return self.changed(changes) if changes else self


def register(cls: C) -> C:
    """Class decorator: register a component under its `kind`.

    Args:
        cls: a subclass of `Component` with a family and a kind.

    Returns:
        The class itself.

    Raises:
        MetakeError: not a component, no family or kind, a kind of another class, or a method that it has to define.

    Example:
        >>> import metake as mk
        >>> @mk.register
        ... class First(mk.Allocation):
        ...     kind = "first"
        ...     def stages(self, layers):
        ...         return [[(layers[0], 1.0)]]
        >>> mk.memit([4, 5]).updated(allocation="first").name
        'memit + first'
    """
    if not (isinstance(cls, type) and issubclass(cls, Component)):
        raise MetakeError(f"register: must be a class of components, not {type(cls).__name__}")
    if not cls.family or not cls.kind:
        raise MetakeError(f"register: {cls.__name__} needs a family (by its base class) and a kind")
    kinds = _REGISTRY.setdefault(cls.family, {})
    other = kinds.get(cls.kind)
    if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
        raise MetakeError(
            f"register: {cls.family} {cls.kind!r} is already {other.__module__}.{other.__qualname__}"
        )
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise MetakeError(
            f"register: {cls.family} {cls.kind!r}: {cls.__name__} must define {', '.join(missing)}"
        )
    kinds[cls.kind] = cls
    return cls


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _load_entry_points(family: str) -> None:
    """Register the classes that installed packages name in the family's group, `metake.geometry` etc."""
    for point in entry_points(group=f"metake.{family}"):
        cls = point.load()
        if not (isinstance(cls, type) and issubclass(cls, Component) and cls.family == family):
            raise MetakeError(f"entry point {point.name} of metake.{family}: {point.value} is not a {family}")
        register(cls)


def find_kind(family: str, kind: object) -> type[Component]:
    """Class of a kind. An unknown kind is a `MetakeError` that lists the known ones.

    Args:
        family: a family of components.
        kind: name of a class within it.

    Returns:
        A registered class.
    """  # noqa: DOC501 (unknown_name returns a MetakeError)
    kinds = _REGISTRY.get(family, {})
    if isinstance(kind, str) and kind not in kinds:
        _load_entry_points(family)
        kinds = _REGISTRY.get(family, {})
    if not isinstance(kind, str) or kind not in kinds:
        raise unknown_name(f"settings: {family}", kind, known_kinds(family))
    return kinds[kind]


def known_kinds(family: str) -> list[str]:
    """Registered kinds of a family, those of installed packages included.

    Args:
        family: a family of components.

    Returns:
        Their names, in the order of registration.
    """
    _load_entry_points(family)
    return list(_REGISTRY.get(family, {}))


def families() -> dict[str, dict[str, type[Component]]]:
    """Registered classes: family -> kind -> class."""
    for family in _REGISTRY:
        _load_entry_points(family)
    return _REGISTRY


def _to_metake_error(error: ValidationError, cls: type[Component], *within: str) -> MetakeError:
    """Error of pydantic as one line: the field, what is wrong, the value."""
    first = error.errors()[0]
    name = ".".join(cls.aliases.get(str(part), str(part)) for part in (*within, *first["loc"]))
    if first["type"] == "extra_forbidden":
        return unknown_name("settings", name, [cls.aliases.get(field, field) for field in cls.model_fields])
    message = first["msg"].removeprefix("Value error, ")
    if not name:  # about several fields
        return MetakeError(f"settings: {message}")
    given = first.get("input")
    if first["type"] == "literal_error":
        known = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        return unknown_name(f"settings: {name}", given, known)
    if first["type"] == "value_error":
        shown = "" if isinstance(given, Component) else f" (got {given!r})"
        return MetakeError(f"settings: {name}: {message}{shown}")
    return MetakeError(f"settings: {name}: {message.lower()} (got {given!r})")
