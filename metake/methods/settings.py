"""The settings of all components as a table."""

from __future__ import annotations

import metake.methods.table  # noqa: F401  registers the methods
from metake.components import families


def setting_names() -> list[str]:
    """Names of all settings of all components."""
    classes = (cls for kinds in families().values() for cls in kinds.values())
    return list(dict.fromkeys(name for cls in classes for name in cls.setting_names()))


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
