"""Variants of methods that a model's preset has numbers for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from metake.methods.table import find_method
from metake.models.editable import EditableModel
from metake.presets import load_preset, preset_name


def searched_names(model: EditableModel, names: Sequence[str], preset: str | Path | None = None) -> list[str]:
    """Names with the components of their variant in a preset, as `memit + past-keys` for `memit`.

    A row without a variant of its own takes the components of the one that it is like.

    Args:
        model: the model.
        names: rows of the method table, with or without a label after `@`.
        preset: name or file; the model's by default.

    Returns:
        One name per row.
    """
    held = list(load_preset(preset_name(model) if preset is None else preset).get("methods", {}))
    return [_variant(name, held) for name in names]


def _variant(name: str, held: Iterable[str]) -> str:
    base, at, label = name.partition("@")
    row = find_method(base)
    own = {part.kind for _, part in row.prototype.named_components()}
    unlabeled = [other.split(" + ") for other in held if "@" not in other]
    for like in (row.name, row.like):
        for first, *kinds in unlabeled:
            if first == like:
                return " + ".join([base, *(kind for kind in kinds if kind not in own)]) + at + label
    return name
