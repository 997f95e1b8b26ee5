"""Settings of a method by name: short, published or dotted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from metake.components import Component, Path, families
from metake.errors import MetakeError
from metake.names import unknown_name


class NamedSettings(Component):
    """Component whose settings, and those of its components, are read and changed by name.

    Attributes:
        shares_layers: whether the layers that all methods of a preset share are meant for this one, too.
        choices: fields other than components that determine the algorithm.
    """

    shares_layers: ClassVar[bool] = True
    choices: ClassVar[tuple[str, ...]] = ()

    @property
    def name(self) -> str:
        """Name, for the error line of a setting that does not exist."""
        return self.kind

    def value(self, name: str) -> Any:
        """Value of a setting. An unknown name is a `MetakeError`.

        Args:
            name: its short, published or dotted name.

        Returns:
            A number, a text, or a component.
        """
        found: Any = self
        for part in self._paths(name)[0]:
            found = getattr(found, part)
        return found

    def updated(self, **changes: Any) -> Self:
        """Copy with some settings changed.

        A name that several components have changes all of them. The method's name says which components differ from its
        row's. A setting that the method does not have, or a value out of range, is a `MetakeError` that names it.

        Args:
            changes: short, published or dotted name of a setting -> value; a component by its kind.

        Returns:
            A method of the same class.
        """
        made = self
        choices = {
            path: value
            for name, value in changes.items()
            if made._is_choice(name)
            for path in made._paths(name)
        }
        for path in sorted(choices, key=len):  # the settings of a chosen component exist after it is chosen
            made = made.changed({path: choices[path]})
        numbers = {name: value for name, value in changes.items() if not self._is_choice(name)}
        return made.changed({path: value for name, value in numbers.items() for path in made._paths(name)})

    def supported_changes(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Changes that the method has a setting for.

        Args:
            changes: name of a setting -> value.

        Returns:
            Those of them that `updated` accepts.
        """
        made = self.updated(**{name: value for name, value in changes.items() if self._is_choice(name)})
        return {name: value for name, value in changes.items() if made._paths(name, missing_ok=True)}

    def without_choices(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings that the method has and that leave its algorithm as it is.

        Args:
            settings: name of a setting -> value.

        Returns:
            Those of them that are numbers.
        """
        return {
            name: value
            for name, value in self.supported_changes(settings).items()
            if not self._is_choice(name) and self._paths(name)[0][-1] not in self.choices
        }

    def numbers_of(self, settings: Mapping[str, Any], source: NamedSettings | None = None) -> dict[str, Any]:
        """Numbers of a preset for the components that they were written for.

        Args:
            settings: name of a setting -> value.
            source: method that they were written for; None for the numbers that all methods of a preset share.

        Returns:
            Dotted name of a setting -> value, without the settings of other packages' components that merely have
            the same name.
        """
        if source is None and not self.shares_layers:
            settings = {name: value for name, value in settings.items() if name != "layers"}

        def is_meant(name: str, path: Path) -> bool:
            written = [] if source is None else source._paths(name, missing_ok=True)
            fields = [((source or self)._owner(other), other[-1]) for other in written]
            fields = fields or [(type(self), "layers")]  # any setting of this package
            return any(self._owner(path).shares_meaning(path[-1], cls, field) for cls, field in fields)

        return {
            ".".join(path) if len(path) > 1 else name: value
            for name, value in self.without_choices(settings).items()
            for path in self._paths(name)
            if is_meant(name, path)
        }

    def _owner(self, path: Path) -> type[Component]:
        """Class of the component that has a setting."""
        found: Any = self
        for part in path[:-1]:
            found = getattr(found, part)
        return type(found)

    def paths(self, name: str) -> list[Path]:
        """Paths of fields from the method to a setting; none if it does not have the setting.

        Args:
            name: its short, published or dotted name.

        Returns:
            One path per component that has the setting.
        """
        return self._paths(name, missing_ok=True)

    def _is_choice(self, name: str) -> bool:
        """Whether a setting holds a component."""
        found: Any = self
        for part in next(iter(self._paths(name, missing_ok=True)), ("layers",)):
            found = getattr(found, part)
        return isinstance(found, Component)

    def _paths(self, name: str, missing_ok: bool = False) -> list[Path]:
        """Paths of fields from the method to a setting."""
        found: list[Path] = []
        if isinstance(name, str) and "." in name:
            path = tuple(name.split("."))
            found = [
                path
                for owner, part in self.named_components()
                if owner == path[:-1] and path[-1] in type(part).model_fields
            ]
        elif isinstance(name, str):
            found = [
                (*path, part.setting_names()[name])
                for path, part in self.named_components()
                if name in part.setting_names()
            ]
        if not found and not missing_ok:
            raise self._unknown(name)
        return found

    def _unknown(self, name: str) -> MetakeError:
        names = [list(type(part).setting_names()) for _, part in self.named_components()]
        known = list(dict.fromkeys(setting for group in names for setting in group))
        owners = [
            f"{family} {kind}"
            for family, kinds in families().items()
            for kind, cls in kinds.items()
            if isinstance(name, str) and name in cls.setting_names()
        ]
        if owners:
            return MetakeError(
                f"settings: {self.name} has no {name}; it is a setting of {', '.join(owners[:3])}; known: {', '.join(known)}"
            )
        return unknown_name("settings", name, known)
