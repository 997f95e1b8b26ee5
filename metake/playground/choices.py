"""What the playground offers: methods, their strength, and the choice of one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from metake.calibration.locate import Location, locate
from metake.editor import Editor
from metake.errors import MetakeError
from metake.methods.table import all_methods
from metake.models.editable import EditableModel
from metake.presets import preset_name, settings_for
from metake.requests import EditRequest
from metake.statistics_cache import statistics_for


@dataclass(frozen=True)
class Offer:
    """A method of the table in the playground.

    Attributes:
        name: name of the row.
        summary: one line.
        source: the paper that introduced it.
        has_strength: whether the strength of its constraint can be set as an attenuation.
    """

    name: str
    summary: str
    source: str
    has_strength: bool


@dataclass(frozen=True)
class Choice:
    """A method with its strength, and where its other settings come from.

    Attributes:
        method: name of a method.
        strength: median attenuation eta of the first edit's key over the edited layers; None for that of the settings.
        calibrate: whether settings are calibrated on the first edit, although the model has a preset.
    """

    method: str = "metake"
    strength: float | None = None
    calibrate: bool = False


def offers() -> list[Offer]:
    """Methods of the table, without those that change the total update after the last batch.

    Returns:
        The methods in the order of the table.
    """
    return [
        Offer(row.name, row.summary, row.source, bool(row.prototype.paths("attenuation")))
        for row in all_methods().values()
        if not row.prototype.finalizes
    ]


def make_editor(model: EditableModel, choice: Choice, request: EditRequest) -> Editor:
    """Editor of an unedited model with the chosen method.

    Args:
        model: the model.
        choice: the method.
        request: the first edit; settings of a model without a preset are measured on it.

    Returns:
        The editor, with statistics and reasons of its settings.

    Raises:
        MetakeError: unknown method, a strength out of range, or one for a method without a constraint.
    """
    offered = {offer.name: offer for offer in offers()}
    if choice.method not in offered:
        raise MetakeError(f"method: {choice.method!r} is not offered here; take one of {', '.join(offered)}")
    if choice.strength is not None and not offered[choice.method].has_strength:
        raise MetakeError(f"strength: {choice.method} has no constraint; leave the strength as it is")
    fixed: dict[str, Any] = {} if choice.strength is None else {"attenuation": choice.strength}
    preset = preset_name(model)
    if preset and not choice.calibrate:
        made = settings_for(model, choice.method, **fixed)
        location = Location(made, reasons=(f"settings: preset {preset}",))
    else:
        location = locate(model, [request], choice.method, **fixed)
    method = location.method
    statistics = None
    if method.needs_statistics:
        statistics = statistics_for(model, layers=method.layers, gradients=method.needs_gradients)
    return Editor(model, method=method, statistics=statistics, progress=False, reasons=location.reasons)
