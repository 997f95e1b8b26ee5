"""Effective geometry of a layer in a state: base, scale and earlier keys."""

from __future__ import annotations

import torch

from metake.geometry.operator import Geometry
from metake.geometry.specs import GeometrySpec, checked
from metake.methods.state import State
from metake.models.ambient import exact_device


def base_at(
    spec: GeometrySpec, state: State, layer: int, dtype: torch.dtype, device: torch.device
) -> Geometry:
    """Geometry of a layer with its scale and without earlier keys, built once.

    Args:
        spec: choice of the geometry.
        state: statistics; its `bases` are filled.
        layer: an edited layer.
        dtype: precision of the solves.
        device: device of the layer's weight.

    Returns:
        The operator.
    """
    if layer not in state.bases:
        device, moment = exact_device(device), None
        if state.statistics is not None:
            spec = spec.for_statistics(state.statistics)
            moment = state.statistics[layer].to(device)
            moment = moment.clone() if moment.is_inference() else moment  # it would pass no gradient
        state.bases[layer] = checked(spec.build_all(moment, dtype, device), spec.kind)
    base = state.bases[layer]
    return base if state.scale is None else base.scaled(state.scale)


def with_earlier_keys(base: Geometry, state: State, layer: int) -> Geometry:
    """Geometry of a layer with all earlier keys: by their moment those that are folded, by Woodbury's identity the others.

    Args:
        base: geometry of the layer, with its scale.
        state: memory; its `with_folded` is filled.
        layer: an edited layer.

    Returns:
        The operator; `base` itself without earlier keys.
    """
    if layer in state.folded:
        place = (layer, state.scale)
        if place not in state.with_folded:
            state.with_folded[place] = base.with_moment(state.folded[layer])
        base = state.with_folded[place]
    recent = [keys.to(base.device) for keys in state.of_layer(layer)]
    return base.with_past(torch.cat(recent, 1)) if recent else base
