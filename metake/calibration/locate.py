"""Default settings of a method on a model without a preset, measured on the first batch's requests.

Nothing of an evaluation is used: no rephrase, no neighbor, no answer but the requests' own targets.

lookup      the prompt's last token where facts have different keys there, otherwise the subject's last token; where that
            is not clear, the one that is reached
layers      the last window of layers that is reached as well as any other by a few virtual edits: later edits leave
            more of other facts' recall alone
strength    a median attenuation, the same on every model (P8)
step size   a share of the residual stream's root mean square
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from metake.calibration.constants import CLOSED_STEPS, CONSTANTS, TOLERANCE, Constants
from metake.calibration.lookup import LOOKUPS, choose_lookup
from metake.calibration.reach import Reach, few, reach
from metake.calibration.separability import bare_measures
from metake.geometry.statistics import Statistics
from metake.methods.base import Method
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.table import find_method, method_named
from metake.models.editable import EditableModel
from metake.presets import default_layers
from metake.prompts import Lookup
from metake.requests import EditRequest
from metake.statistics_cache import statistics_for


@dataclass(frozen=True)
class Location:
    """What was measured of a method on a model, and the method that follows from it.

    Attributes:
        method: the method with the settings that were chosen.
        cosine: lookup -> layer -> mean |cos| of the keys of different facts.
        scale: lookup -> layer -> root mean square of the residual stream at the lookup token, median over requests.
        windows: reach of each candidate window at the chosen lookup; empty if there was no choice.
        reasons: one line per choice.
    """

    method: Method
    cosine: dict[str, dict[int, float]] = field(default_factory=dict)
    scale: dict[str, dict[int, float]] = field(default_factory=dict)
    windows: tuple[Reach, ...] = ()
    reasons: tuple[str, ...] = ()


def window_starts(count: int, width: int) -> list[int]:
    """First layers of the candidate windows: the default one, half a window later, and about a window later.

    Args:
        count: number of layers of the model.
        width: layers of a window.

    Returns:
        Ascending; windows that would reach the last tenth of the model are left out, but never the first.
    """
    first, step = default_layers(count)[0], max(1, width // 2)
    starts = (first, first + step, first + 2 * step)
    return [start for start in starts if start == first or start + width <= 0.9 * count]


def candidates(count: int, name: str, windows: bool = True, **fixed: Any) -> list[Method]:
    """Methods with each candidate window of layers, before anything is measured.

    Args:
        count: number of layers of the model.
        name: name of the method.
        windows: whether there is more than the default window.
        **fixed: settings that are given; with `layers` there is one window.

    Returns:
        The methods, the default window first; one method if it does not locate and then edit.
    """
    if "layers" in fixed:
        return [method_named(name, tuple(fixed["layers"])).updated(**fixed)]
    prototype = find_method(name).prototype
    if not isinstance(prototype, LocateThenEdit):
        return [method_named(name, prototype.default_layers(count)).updated(**fixed)]
    width = len(default_layers(count))
    starts = window_starts(count, width)[: None if windows else 1]
    return [method_named(name, tuple(range(n, n + width))).updated(**fixed) for n in starts]


def locate(
    model: EditableModel,
    requests: Sequence[EditRequest],
    method: str = "metake",
    statistics: Statistics | None = None,
    *,
    constants: Constants | None = None,
    windows: bool = True,
    **fixed: Any,
) -> Location:
    """Settings of a method that suit a model, measured on requests. The model is not changed.

    Args:
        model: the model, unedited.
        requests: the first batch, or requests like it.
        method: name of the method.
        statistics: second moments of the keys of all candidate layers; None collects them, or takes them from the cache.
        constants: strength and step size; by default those of the planner's kind.
        windows: whether layers are chosen among several windows; otherwise by depth.
        **fixed: settings that are given and are not chosen.

    Returns:
        The method with its settings, and all that was measured.

    Raises:
        MetakeError: unknown method or setting, a layer that the model does not have, or statistics of another model or
            without a layer of a candidate window (`windows=False` needs those of the default one alone).

    Example:
        >>> import metake as mk
        >>> model = mk.load("demo")
        >>> request = mk.EditRequest("What is the craft of {}?", "Nezan Girok", "baker")
        >>> located = mk.locate(model, [request], "memit", layers=(1, 2))
        >>> located.method.value("lookup"), located.method.value("attenuation")
        ('subject', 0.9)
    """
    methods = candidates(len(model), method, windows, **fixed)
    first, edits = methods[0], [made for made in methods if isinstance(made, LocateThenEdit)]
    model.check_layers(first.layers)
    if not isinstance(first, LocateThenEdit):
        where = "as given" if "layers" in fixed else first.depth
        return Location(first, reasons=("settings: published", f"layers {_span(first.layers)}: {where}"))
    layers = tuple(sorted({layer for made in methods for layer in made.layers}))
    if first.needs_statistics:
        statistics = statistics_for(model, layers=layers) if statistics is None else statistics
        statistics.check(model, layers)
    measures = {
        lookup: bare_measures(model, requests, lookup, layers, statistics if first.needs_statistics else None)
        for lookup in LOOKUPS
    }
    cosine: dict[str, dict[int, float]] = {lookup: found[0] for lookup, found in measures.items()}
    scale: dict[str, dict[int, float]] = {lookup: found[1] for lookup, found in measures.items()}
    trials = _Trials(model, few(requests), statistics, constants or constants_of(first), fixed, scale)
    lookup, reason = _lookup(first, cosine, trials)
    reached = [trials.reach(made, lookup) for made in edits] if len(edits) > 1 else []
    best = max((found.probability for found in reached), default=0.0)
    chosen = max((i for i, found in enumerate(reached) if found.probability >= best - TOLERANCE), default=0)
    located = trials.suited(edits[chosen], lookup)
    reasons = ("settings: calibrated", reason, *_reasons(located, reached, chosen, fixed))
    return Location(located, cosine, scale, tuple(reached), reasons)


@dataclass(frozen=True)
class _Trials:
    """Short virtual edits of a few requests with methods that suit the model; each is measured once.

    Attributes:
        requests: the few requests.
        statistics, constants, fixed: as in `locate`.
        scale: lookup -> layer -> root mean square of the residual stream.
        known: (lookup, layers) -> what was measured.
    """

    model: EditableModel
    requests: Sequence[EditRequest]
    statistics: Statistics | None
    constants: Constants
    fixed: Mapping[str, Any]
    scale: Mapping[str, Mapping[int, float]]
    known: dict[tuple[str, tuple[int, ...]], Reach] = field(default_factory=dict)

    def suited(self, method: LocateThenEdit, lookup: Lookup) -> LocateThenEdit:
        """The method with strength and step sizes at a lookup."""
        return suited(method, lookup, self.scale[lookup][method.layers[-1]], self.constants, self.fixed)

    def reach(self, method: LocateThenEdit, lookup: Lookup) -> Reach:
        """What virtual edits with the method achieve at a lookup."""
        key = (lookup, method.layers)
        if key not in self.known:
            made = self.suited(method, lookup)
            self.known[key] = reach(self.model, made, self.requests, self.statistics)
        return self.known[key]


def _lookup(
    method: LocateThenEdit, cosine: Mapping[str, Mapping[int, float]], trials: _Trials
) -> tuple[Lookup, str]:
    """The lookup token, and the reason."""
    if any(("lookup",) in method.paths(name) for name in trials.fixed):
        return method.lookup, f"lookup {method.lookup}: as given"
    alike = {name: sum(of[n] for n in method.layers) / len(method.layers) for name, of in cosine.items()}
    return choose_lookup(alike, lambda lookup: trials.reach(method, lookup).probability)


def _span(layers: Sequence[int]) -> str:
    return f"{layers[0]}-{layers[-1]}" if len(layers) > 1 else str(layers[0])


def constants_of(method: LocateThenEdit) -> Constants:
    """Strength and step size of a method's planner.

    Args:
        method: the method.

    Returns:
        Those of an open-loop plan for a planner from outside.
    """
    return CONSTANTS.get(method.planner.kind, CONSTANTS["open-loop"])


def suited(
    method: LocateThenEdit, lookup: Lookup, scale: float, constants: Constants, fixed: Mapping[str, Any]
) -> LocateThenEdit:
    """A method with the strength and the step sizes that suit a model.

    Args:
        method: the method, with its layers and the given settings.
        lookup: token at which keys are read.
        scale: root mean square of the residual stream after the last layer, at that token.
        constants: strength, and step size per `scale`.
        fixed: settings that are given and stay.

    Returns:
        A copy.
    """
    given = {path for name in fixed for path in method.paths(name)}
    step = constants.step * scale
    chosen = {
        "lookup": lookup,
        "consistent_lookup": True,
        "attenuation": constants.attenuation,
        "lr": step,
        "meta_lr": step,
        "meta_steps": CLOSED_STEPS,
        "from_lookup": True,
    }
    if not method.constraint_setting or method.paths(method.constraint_setting)[0] in given:
        del chosen["attenuation"]
    fitting = method.supported_changes(chosen)
    return method.updated(
        **{name: value for name, value in fitting.items() if not given.intersection(method.paths(name))}
    )


def _reasons(
    method: LocateThenEdit, windows: Sequence[Reach], chosen: int, fixed: dict[str, Any]
) -> list[str]:
    """Reasons of layers, strength and step size."""
    lines = []
    if windows:
        others = ", ".join(
            f"{_span(w.layers)}: {w.probability:.2f}" for i, w in enumerate(windows) if i != chosen
        )
        lines.append(
            f"layers {_span(method.layers)}: a few virtual edits reach a target probability of "
            f"{windows[chosen].probability:.2f} (layers {others})"
        )
    elif "layers" in fixed:
        lines.append(f"layers {_span(method.layers)}: as given")
    else:
        lines.append(f"layers {_span(method.layers)}: by depth")
    if method.geometry.attenuation is not None:
        lines.append(
            f"attenuation {method.geometry.attenuation:g}: the constraint's strength follows from it"
        )
    return lines
