"""The settings of all components as a table."""

from __future__ import annotations

from typing import Any

import metake.methods.table  # noqa: F401  registers the methods
from metake.components import Component, families
from metake.errors import MetakeError
from metake.methods.base import Method
from metake.names import unknown_name


def setting_names() -> list[str]:
    """Names of all settings of all components."""
    classes = (cls for kinds in families().values() for cls in kinds.values())
    return list(dict.fromkeys(name for cls in classes for name in cls.setting_names()))


def choice_names() -> list[str]:
    """Names of the settings that determine an algorithm: components, and a method's `choices`."""
    found = []
    for kinds in families().values():
        for cls in kinds.values():
            for name, field in cls.model_fields.items():
                chosen = issubclass(cls, Method) and name in cls.choices
                if chosen or isinstance(field.default, Component):
                    found.append(cls.aliases.get(name, name))
    return list(dict.fromkeys(found))


def check_setting(name: str, value: Any) -> None:
    """Check a setting before its component is known. An invalid value or an unknown name is a `MetakeError`.

    Args:
        name: short or published name.
        value: its value.
    """
    errors = []
    for kinds in families().values():
        for cls in kinds.values():
            if name in cls.setting_names():
                try:
                    return cls.check_field(cls.setting_names()[name], value)
                except MetakeError as error:
                    errors.append(error)
    raise errors[0] if errors else unknown_name("settings", name, setting_names())


def describe_settings() -> str:
    """Settings of this package's components as a Markdown table: component, setting, default, meaning.

    Components of a family that share a setting share its line.

    Returns:
        The table.
    """
    kinds_of: dict[tuple[str, ...], list[str]] = {}
    for family, kinds in sorted(families().items()):
        own = (cls for cls in kinds.values() if cls.__module__.startswith("metake."))
        for cls in own:
            for name, field in cls.model_fields.items():
                default = "required; a preset gives it" if field.is_required() else _shown(field.default)
                meaning = (field.description or "").replace("|", r"\|")  # a bar would end the cell
                line = (family, f"`{cls.aliases.get(name, name)}`", default, meaning)
                kinds_of.setdefault(line, []).append(f"`{cls.kind}`")
    lines = ["| component | setting | default | meaning |", "| --- | --- | --- | --- |"]
    for (family, *cells), names in kinds_of.items():
        lines.append("| " + " | ".join([f"{family} {', '.join(names)}", *cells]) + " |")
    return "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    return "empty" if value == "" else f"`{getattr(value, 'kind', value)}`"
