"""Several statistics of one model side by side: attenuation of the same keys under each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from metake.errors import MetakeError
from metake.geometry.agreement import correlation_and_scale
from metake.geometry.per_expert import diagonal
from metake.geometry.statistics import Statistics
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.lookup_keys import keys_in_contexts
from metake.models.editable import EditableModel
from metake.models.trace import frozen
from metake.report.tables import render
from metake.requests import EditRequest

LEGEND = (
    "eta: median attenuation of the requests' keys in the bare prompt, with the same settings under each",
    "correlation, scale: of the mean squares of the keys' entries with those of the first; scale is the median quotient",
)


@dataclass(frozen=True)
class LayerComparison:
    """A layer under one of the statistics.

    Attributes:
        name: name of the statistics.
        layer: the layer.
        eta: median attenuation of the requests' keys.
        correlation: correlation of the log mean squares of the entries with those of the first statistics.
        scale: median quotient of these mean squares.
    """

    name: str
    layer: int
    eta: float
    correlation: float
    scale: float


@dataclass(frozen=True)
class Comparison:
    """Statistics side by side.

    Attributes:
        method: name of the method whose geometry was measured.
        tokens: name -> tokens that the statistics were collected from; 0 if it is not known.
        rows: one per layer and statistics.
    """

    method: str
    tokens: dict[str, int]
    rows: tuple[LayerComparison, ...]

    def plain(self) -> dict[str, Any]:
        """All numbers as values that a JSON file can hold."""
        return {"method": self.method, "tokens": self.tokens, "rows": [asdict(row) for row in self.rows]}

    def __str__(self) -> str:
        cells = [
            [row.name, str(row.layer), f"{row.eta:.3f}", f"{row.correlation:.2f}", f"{row.scale:.3g}"]
            for row in self.rows
        ]
        head = ("statistics", "layer", "eta", "correlation", "scale")
        sizes = (f"{name}: {count or 'unknown number of'} tokens" for name, count in self.tokens.items())
        return "\n".join([render(self.method, head, cells), *LEGEND, *sizes])


def compare_statistics(
    model: EditableModel,
    method: LocateThenEdit,
    requests: Sequence[EditRequest],
    statistics: Mapping[str, Statistics],
) -> Comparison:
    """Attenuation of the same keys under several statistics.

    Args:
        model: the model, unedited.
        method: the method with its layers; its geometry's strength is used as it is.
        requests: the requests whose keys are measured.
        statistics: name -> statistics of the method's layers.

    Returns:
        One row per layer and statistics.

    Raises:
        MetakeError: a method that uses no statistics, or statistics that do not fit.
    """
    if not method.needs_statistics:
        raise MetakeError(f"stats: {method.name} uses no statistics, so there is nothing to compare")
    if not method.previews:
        raise MetakeError(f"stats: {method.name} has no attenuation, so there is nothing to compare")
    first = next(iter(statistics.values()))
    rows = []
    for name, given in statistics.items():
        eta = _attenuation(model, method, requests, given)
        for layer in method.layers:
            pair = correlation_and_scale(diagonal(given[layer]), diagonal(first[layer]))
            rows.append(LayerComparison(name, layer, eta[layer], *pair))
    rows.sort(key=lambda row: row.layer)
    return Comparison(
        method.name, {name: given.provenance.tokens for name, given in statistics.items()}, tuple(rows)
    )


def _attenuation(
    model: EditableModel, method: LocateThenEdit, requests: Sequence[EditRequest], statistics: Statistics
) -> dict[int, float]:
    """Layer -> median attenuation of the requests' keys."""
    state = replace(method.init(model, statistics), contexts=())
    with frozen(model.model), torch.no_grad():
        _, prompts = method.batch(model, requests, state)
        keys = keys_in_contexts(model, prompts, method.layers)
        found = {}
        for layer in method.layers:
            geometry = method.geometry_at(model, state, layer)
            eta = geometry.attenuation(prompts.mean_key(keys[layer]).T)
            found[layer] = float(eta.double().median())
    return found
