"""Survey of a model's layers at both lookup tokens: what the calibration measures, one row per layer and lookup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from metake.calibration.constants import Constants
from metake.calibration.locate import Location, candidates, constants_of, locate, suited
from metake.calibration.lookup import LOOKUPS
from metake.calibration.reach import few, reach
from metake.calibration.separability import bare_measures
from metake.errors import MetakeError
from metake.geometry.statistics import Statistics
from metake.methods.base import Method
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.state import State
from metake.models.editable import EditableModel
from metake.models.trace import frozen
from metake.prompts import Lookup
from metake.report.tables import render
from metake.requests import EditRequest
from metake.statistics_cache import statistics_for

HEAD = ("lookup", "layer", "mean |cos|", "RMS of h", "eta", "reach", "cost")
LEGEND = (
    "mean |cos|: separability, the mean |cos| of keys of different facts in the metric of C^-1; 0: each fact has its own",
    "RMS of h: root mean square of the residual stream after the layer, median over requests",
    "eta: median attenuation of the keys at one strength per lookup, with which the median over all layers is that of the default",
    "reach: mean probability of the target's tokens after a few virtual edits of this layer alone",
    "cost: mean cost of such an edit on preserved keys, tr(D G D^T) / |h|^2 (X14)",
)


@dataclass(frozen=True)
class LayerSurvey:
    """Measurements of one layer at one lookup token.

    Attributes:
        lookup: the subject's last token, or the prompt's.
        layer: the layer.
        cosine: mean |cos| of the keys of different facts.
        scale: root mean square of the residual stream after the layer, median over requests.
        eta: median attenuation of the keys, at one strength for all layers of a lookup.
        probability: mean probability of the target's tokens after a few virtual edits of the layer alone.
        cost: mean cost of such an edit on preserved keys, tr(D G D^T) / ||h||^2 (X14).
    """

    lookup: str
    layer: int
    cosine: float
    scale: float
    eta: float
    probability: float
    cost: float

    @property
    def cells(self) -> list[str]:
        """Cells of a table whose head is `HEAD`."""
        numbers = [f"{self.cosine:.2f}", f"{self.scale:.3g}", f"{self.eta:.2f}", f"{self.probability:.2f}"]
        return [self.lookup, str(self.layer), *numbers, f"{self.cost:.3g}"]


@dataclass(frozen=True)
class Survey:
    """What was measured of a method on a model, and what the calibrated default would choose.

    Attributes:
        rows: one per lookup and layer.
        constraint: lookup -> strength of the constraint of its rows, by name.
        location: the choice, with its windows and reasons.
    """

    rows: tuple[LayerSurvey, ...]
    constraint: dict[str, dict[str, float]]
    location: Location

    def plain(self) -> dict[str, Any]:
        """All measurements as values that a JSON file can hold."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "constraint": self.constraint,
            "windows": [
                {**asdict(window), "layers": list(window.layers)} for window in self.location.windows
            ],
            "layers": list(self.location.method.layers),
            "settings": self.location.method.model_dump(mode="json"),
            "reasons": list(self.location.reasons),
        }

    def __str__(self) -> str:
        table = render(self.location.method.name, HEAD, [row.cells for row in self.rows])
        return "\n".join([table, *LEGEND, *self.location.reasons])


def check_layered(method: Method) -> LocateThenEdit:
    """The method, if it solves for the weights of layers in a geometry.

    Args:
        method: the method.

    Returns:
        The method itself.

    Raises:
        MetakeError: another kind of method.
    """
    if not isinstance(method, LocateThenEdit):
        raise MetakeError(
            f"locate: {method.name} has no layered solves, so there is nothing to measure per layer"
        )
    return method


def surveyed_layers(
    model: EditableModel, method: str, measured: Sequence[int] | None, windows: bool, **fixed: Any
) -> tuple[int, ...]:
    """Layers whose statistics a survey needs: those that are measured, and those of the candidate windows.

    Args:
        model: the model.
        method: name of the method.
        measured: layers that are measured; None for those of the candidate windows.
        windows: whether there are several windows.
        **fixed: settings that are given.

    Returns:
        Ascending.
    """
    made = candidates(len(model), method, windows, **fixed)
    return tuple(sorted({*(measured or ()), *(layer for one in made for layer in one.layers)}))


def survey(
    model: EditableModel,
    requests: Sequence[EditRequest],
    method: str = "metake",
    statistics: Statistics | None = None,
    *,
    measured: Sequence[int] | None = None,
    constants: Constants | None = None,
    windows: bool = True,
    **fixed: Any,
) -> Survey:
    """Separability, size of the stream, attenuation, reach and cost per layer and lookup. The model is not changed.

    Args:
        model: the model, unedited.
        requests: the first batch, or requests like it.
        method: name of a locate-then-edit method.
        statistics: second moments of the keys of all these layers and of the candidate windows; None collects them, or
            takes them from the cache.
        measured: layers that are measured; by default those of the candidate windows.
        constants: strength and step size; by default those of the planner's kind.
        windows: whether the choice is among several windows of layers; otherwise by depth.
        **fixed: settings that are given and are not chosen.

    Returns:
        One row per lookup and layer, and the choice that `locate` makes.

    Raises:
        MetakeError: unknown method or setting, a method without layered solves, or a layer that the model does not have.

    Example:
        >>> import metake as mk
        >>> from metake.calibration.survey import survey
        >>> request = mk.EditRequest("What is the craft of {}?", "Nezan Girok", "baker")
        >>> [row.lookup for row in survey(mk.load("demo"), [request], "memit", measured=[1]).rows]
        ['subject', 'prompt']
    """
    needed = surveyed_layers(model, method, measured, windows, **fixed)
    model.check_layers(needed)
    first = check_layered(candidates(len(model), method, False, **fixed)[0])
    if statistics is None and first.needs_statistics:
        statistics = statistics_for(model, layers=needed)
    location = locate(model, requests, method, statistics, constants=constants, windows=windows, **fixed)
    rows: list[LayerSurvey] = []
    strengths: dict[str, dict[str, float]] = {}
    for lookup in LOOKUPS:
        base = first.updated(layers=tuple(measured or needed), lookup=lookup)
        found, strengths[lookup] = _rows(
            model, requests, base, statistics, constants or constants_of(first), fixed
        )
        rows += found
    return Survey(tuple(rows), strengths, location)


def _rows(
    model: EditableModel,
    requests: Sequence[EditRequest],
    base: LocateThenEdit,
    statistics: Statistics | None,
    constants: Constants,
    fixed: dict[str, Any],
) -> tuple[list[LayerSurvey], dict[str, float]]:
    """Rows of all layers of a method at its lookup, and the strength of the constraint in all of them."""
    lookup: Lookup = base.lookup
    moments = statistics if base.needs_statistics else None
    cosine, scale = bare_measures(model, requests, lookup, base.layers, moments)
    state = _state_with_strength(model, requests, suited(base, lookup, 1.0, constants, fixed), statistics)
    rows = []
    for layer in base.layers:
        alone = suited(base.updated(layers=(layer,)), lookup, scale[layer], constants, fixed)
        found = reach(model, alone, few(requests), statistics, state.scale)
        measured = (cosine[layer], scale[layer], found.eta, found.probability, found.cost)
        rows.append(LayerSurvey(lookup, layer, *measured))
    return rows, suited(base, lookup, 1.0, constants, fixed).constraint(state)


def _state_with_strength(
    model: EditableModel,
    requests: Sequence[EditRequest],
    method: LocateThenEdit,
    statistics: Statistics | None,
) -> State:
    """State with the strength at which the requests' keys over all layers have the method's attenuation."""
    state = replace(method.init(model, statistics), contexts=())
    with frozen(model.model):
        return method.prepare(model, state, requests)
