"""Presets: settings of known models, and methods with these settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from metake.components import known_kinds
from metake.errors import MetakeError
from metake.files import as_path, read_json
from metake.methods.base import Method
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.settings import check_setting, choice_names, setting_names
from metake.methods.table import find_method, method_named
from metake.models.editable import EditableModel
from metake.models.load import editable_model
from metake.names import unknown_name
from metake.shipped import ASSETS

PRESETS = ASSETS / "presets"
NO_PRESET = "none"  # in place of a preset's name: the model is treated as one without a preset


def default_layers(count: int) -> tuple[int, ...]:
    """Edited layers of locate-then-edit on a model without a preset.

    Args:
        count: number of layers of the model.

    Returns:
        Layers, ascending; see `Method.default_layers`.
    """
    return LocateThenEdit.default_layers(count)


def short_name(name: str) -> str:
    """Name of a model without the hub's owner or the folder's path, by which presets are named.

    Args:
        name: name, path or hub name.

    Returns:
        The short name in lower case.
    """
    return name.rstrip("/").split("/")[-1].lower()


@cache
def _shipped() -> dict[str, dict[str, Any]]:
    """Model name -> its preset."""
    return {name: content for names, content in _files() for name in names}


@cache
def _files() -> list[tuple[list[str], dict[str, Any]]]:
    """Names and content of every preset that ships."""
    files = [read_json(path) for path in sorted(PRESETS.glob("*.json"))]
    return [(content["names"], content) for content in files]


def preset_name(model: EditableModel) -> str:
    """Name of the preset that ships for a model; it does not depend on the model's folder.

    Args:
        model: the model.

    Returns:
        The name; empty if there is none.
    """
    config, embedding = getattr(model.model, "config", None), model.model.get_input_embeddings()
    found = {
        "type": getattr(config, "model_type", ""),
        "layers": len(model),
        "d_v": model.d_v,
        "d_k": model.d_k,
        "vocabulary": embedding.weight.shape[0],
    }
    for name, stated in ((names[0], preset["model"]) for names, preset in _files()):
        if any(stated[field] != value for field, value in found.items()):
            continue
        one_of_many = "embeddings" in stated
        if not one_of_many or getattr(model.model, "name_or_path", "") in stated.get("hub", ()):
            return name
        if model.fingerprint(0) in stated["embeddings"]:
            return name
    return ""


def load_preset(which: str | Path) -> dict[str, Any]:
    """The preset that ships under a name (empty if there is none), or that of a file.

    Args:
        which: a name, or the path of a file; a text that ends in `.json` is a path.

    Returns:
        Numbers by `common`, `geometries` and `methods`.

    Raises:
        MetakeError: the file cannot be read, or is no preset.
    """  # noqa: DOC501 (unknown_name returns a MetakeError)
    if str(which) == NO_PRESET:
        return {}
    if isinstance(which, str) and not which.endswith(".json"):
        return _shipped().get(short_name(which), {})
    content = read_json(as_path(which, "preset"))
    parts = ("common", "geometries", "methods")
    if (
        not isinstance(content, dict)
        or not set(content) <= {"names", "model", "searched", "sources", *parts}
        or not all(isinstance(content.get(part, {}), dict) for part in parts)
    ):
        raise MetakeError(
            f"{which}: a preset holds names, common, geometries and methods; metake tune writes one"
        )
    fields = {
        "common": content.get("common", {}),
        **{f"{part}.{name}": choice for part in parts[1:] for name, choice in content.get(part, {}).items()},
    }
    for name in content.get("geometries", {}):
        if name not in known_kinds("geometry"):
            raise unknown_name(f"{which}: geometries", name, known_kinds("geometry"))
    for name in content.get("methods", {}):
        try:
            method_named(name)
        except MetakeError as error:
            raise MetakeError(f"{which}: methods: {str(error).removeprefix('method: ')}") from error
    for where, choice in fields.items():
        _check_numbers(f"{which}: {where}", choice if isinstance(choice, dict) else [str(choice)])
    return content


def _check_numbers(where: str, settings: Iterable[str]) -> None:
    """Refuse what a preset must not hold: unknown settings, and choices that a method's name determines."""
    known, chosen = setting_names(), choice_names()
    for name in settings:
        if name not in known:
            raise unknown_name(where, name, [setting for setting in known if setting not in chosen])
        if name in chosen:
            raise MetakeError(
                f"{where}: {name} is part of an algorithm, not a number; name the method by it, e.g. 'memit + past-keys'"
            )


def _variants(row: str, names: Iterable[str]) -> list[str]:
    """Those of some methods that are of a row, without a label, the row itself first."""
    return [row, *(name for name in names if name.partition(" + ")[0] == row and "@" not in name)]


def check_changes(changes: Mapping[str, Any]) -> None:
    """Check changed settings one by one, before a model is loaded.

    Args:
        changes: setting -> value.

    Raises:
        MetakeError: unknown setting or a value out of range; the line names it.
    """
    for name, value in changes.items():
        if "." not in name:
            check_setting(name, value)


def settings_for(
    model: EditableModel | nn.Module,
    method: str,
    *,
    name: str | Path | None = None,
    **overrides: Any,
) -> Method:
    """A method of the table with the model's preset: its common part, those for the geometry and the method.

    A method without an entry uses the entry of another variant of its row, or of the row's fallback (`Row.like`). A
    preset contains numbers; which components a method has is determined by its name. A number is used only for a
    component that it was written for: a component of another package with a setting of the same name keeps its
    default, unless its class inherits the setting or the preset has an entry for its kind.

    Args:
        model: the model.
        method: name of the method; see `method_named`.
        name: name of another preset than the model's, or path of a preset file.
        **overrides: setting -> value, which replaces that of the preset; see `Method.updated`.

    Returns:
        The method.

    Raises:
        MetakeError: unknown method or setting, a layer that the model does not have, or no preset in the file.

    Example:
        >>> import metake as mk
        >>> method = mk.settings_for(mk.load("demo"), "memit + past-keys", lr=0.1)
        >>> method.name, method.value("lr")
        ('memit + past-keys', 0.1)
    """
    model, row = editable_model(model), find_method(method)
    made = method_named(method, row.prototype.default_layers(len(model)))
    preset = load_preset(preset_name(model) if name is None else name)
    numbers = made.numbers_of(preset.get("common", {}))
    if isinstance(made, LocateThenEdit):
        entry = preset.get("geometries", {}).get(made.geometry.kind, {})
        numbers |= made.numbers_of(entry, LocateThenEdit(layers=(), geometry=made.geometry))
    entries = preset.get("methods", {})
    names = (
        made.name,
        made.name.partition("@")[0],
        *_variants(row.name, entries),
        *_variants(row.like, entries),
    )
    if found := next((key for key in names if key in entries), ""):
        numbers |= made.numbers_of(entries[found], method_named(found))
    made = made.updated(**numbers).updated(**overrides)
    made.check_overrides(overrides)
    model.check_layers(made.layers)
    return made


def methods_for(
    model: EditableModel | nn.Module,
    names: Sequence[str],
    *,
    preset: str | Path | None = None,
    per_method: Mapping[str, Mapping[str, Any]] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> list[Method]:
    """Several methods of the table with the model's preset.

    Args:
        model: the model.
        names: names of the methods.
        preset: as `name` of `settings_for`.
        per_method: method -> changes of its settings.
        changes: changes of all methods that have such a setting.

    Returns:
        One method per name.

    Raises:
        MetakeError: as `settings_for`; or a setting that none of the methods has.
    """
    if not isinstance(names, list | tuple):
        raise MetakeError(f"methods: must be a list of names, not {type(names).__name__}")
    changes = changes or {}
    made = [settings_for(model, name, name=preset, **(per_method or {}).get(name, {})) for name in names]
    for setting in changes:
        if not any(method.supported_changes({setting: changes[setting]}) for method in made):
            made[0].updated(**{setting: changes[setting]})  # the error says where the setting exists
    changed = [method.updated(**method.supported_changes(changes)) for method in made]
    for method in changed:
        method.check_overrides(method.supported_changes(changes))
        editable_model(model).check_layers(method.layers)
    return changed
