"""The settings of all components as a table."""

from __future__ import annotations

import metake.methods.table  # noqa: F401  registers the methods
from metake.components import Component, families
from metake.methods.base import Method


def setting_names() -> list[str]:
    """Names of all settings of all components."""
    classes = (cls for kinds in families().values() for cls in kinds.values())
    return list(dict.fromkeys(name for cls in classes for name in cls.setting_names()))


def choice_names() -> list[str]:
    """Names of those that determine an algorithm: components, and a method's `choices`."""
    found = []
    for kinds in families().values():
        for cls in kinds.values():
            for name, field in cls.model_fields.items():
                chosen = issubclass(cls, Method) and name in cls.choices
                if chosen or isinstance(field.default, Component):
                    found.append(cls.short.get(name, name))
    return list(dict.fromkeys(found))


def describe_settings() -> str:
    """All settings as a Markdown table: component, name, published name, default, meaning."""
    lines = ["| component | setting | default | meaning |", "| --- | --- | --- | --- |"]
    for family, kinds in families().items():
        for kind, cls in kinds.items():
            for name, field in cls.model_fields.items():
                default = (
                    "required; a preset gives it" if field.is_required() else f"`{_shown(field.default)}`"
                )
                meaning = (field.description or "").replace("|", r"\\|")  # a bar would end the cell
                lines.append(f"| {family} `{kind}` | `{cls.short.get(name, name)}` | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def _shown(value: object) -> object:
    return getattr(value, "kind", value)
