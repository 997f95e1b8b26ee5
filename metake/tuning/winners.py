"""Winners of a search, their preset, and the command that uses them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metake.data.record import Record
from metake.methods.settings import choice_names
from metake.methods.table import method_named
from metake.tuning.points import settings_of


def winners(result: Mapping[str, Any], methods: Sequence[str]) -> list[str]:
    """The best trial of each method, one line each.

    Args:
        result: method -> its trials, content of the result file.
        methods: rows of the method table.

    Returns:
        The lines.
    """
    lines = []
    for method in methods:
        trials = result[method]["trials"]
        best = trials[0]
        low, high = best.get("interval", (math.nan, math.nan))
        interval = f" (95% interval over records {low:.3f} to {high:.3f})" if low == low else ""
        choice = ", ".join(f"{name}={value}" for name, value in best["choice"].items())
        lines.append(
            f"{method}: {best['score']:.3f}{interval}, trial {best['number']} of {len(trials)}: {choice}"
        )
    return lines


def next_command(
    options: Sequence[str], demo: bool, record: Record, best: str, methods: Sequence[str], preset: Path
) -> str:
    """Command that uses a preset: of a demo model the comparison on test facts, else the edit of a record.

    Args:
        options: options that select the model.
        demo: whether it is a demo model.
        record: the record.
        best: name of the best variant.
        methods: names of all variants.
        preset: file of the preset.

    Returns:
        A command line.
    """
    model = list(options)
    searched = ["--preset", str(preset)]
    if demo:
        command = ["python", "experiments/run_zsre.py", *model, *searched, "--methods", ",".join(methods)]
        return shlex.join(command)
    request = record.request
    edit = [
        "--request",
        request.prompt,
        "--subject",
        request.subject,
        "--target",
        request.target_new,
        "--out",
        "edited",
    ]
    return shlex.join(["metake", "edit", *model, *searched, "--method", best, *edit])


def preset_entry(choice: dict[str, Any], name: str, preset: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A choice as it is in a preset: the method's name with its components, and its numbers.

    Settings of the geometry's part of the preset that the choice leaves out are at their defaults.

    Args:
        choice: setting -> value.
        name: row of the method table.
        preset: the preset.

    Returns:
        Name of the variant, and its numbers.
    """
    method = method_named(name)
    components = {setting: choice[setting] for setting in choice_names() if setting in choice}
    method = method.updated(**components)
    added = preset.get("geometries", {}).get(settings_of(method).get("geometry"), {})
    defaults = {setting: method.value(setting) for setting in added}
    return method.name, {**defaults, **{s: value for s, value in choice.items() if s not in components}}


def replace_variant(preset: dict[str, Any], name: str, choice: dict[str, Any], label: str = "") -> str:
    """Put a choice into a preset, in place of the row's earlier variants.

    Args:
        preset: the preset; it is changed.
        name: row of the method table.
        choice: setting -> value.
        label: text after the name; variants with another label stay.

    Returns:
        Name of the variant.
    """
    methods = preset["methods"]
    for held in list(methods):
        variant, at, other = held.partition("@")
        if variant.partition(" + ")[0] == name and at + other == label:
            del methods[held]
    variant, entry = preset_entry(choice, name, preset)
    methods[variant + label] = entry
    return variant
