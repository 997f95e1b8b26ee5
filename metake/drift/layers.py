"""Comparison of layers: spectra of their second moments, leading eigenvectors, and the keys in their bases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

LEADING = 50  # eigenvectors whose spans are compared
PROTECTED = 0.2  # share of directions, those with the largest eigenvalues, that AlphaEdit would close


def spectra(moments: Mapping[int, Tensor], keys: Mapping[int, Tensor]) -> dict[str, Any]:
    """Spectra per layer, and distances between layers, as plain numbers.

    Args:
        moments: layer -> C, `d_k x d_k`.
        keys: layer -> unedited keys of the edits, `n x d_k`.

    Returns:
        `layers`: quantities per layer; `geometry drift` and `overlap`: matrices over pairs of layers; and constants.
    """
    layers = list(moments)
    d_k = len(moments[layers[0]])
    count, out = min(LEADING, d_k // 4), {}
    leading: dict[int, Tensor] = {}
    for layer, moment in moments.items():
        values, vectors = torch.linalg.eigh(moment.double())
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
        leading[layer] = vectors[:, :count].clone()
        share = values / values.sum()
        seen = share[share > 0]
        unit = keys[layer].double().to(vectors.device)
        mass = (unit @ vectors).square() / unit.square().sum(1, keepdim=True)
        positive = values[values > values[0] * d_k * torch.finfo(moment.dtype).eps]
        out[str(layer)] = {
            "trace": float(values.sum()),
            "condition": float(values[0] / positive[-1]),
            "rank": len(positive),
            "effective rank": float((-(seen * seen.log()).sum()).exp()),
            "top share": float(share[0]),
            "keys' mass protected": [float(m) for m in mass[:, : round(PROTECTED * d_k)].sum(1)],
            "eigenvalues": _thinned(values),
            "keys' mass": _thinned(mass.mean(0).cumsum(0)),
            "text's mass": _thinned(share.cumsum(0)),
            "places": _thinned(torch.arange(1, d_k + 1).double()),
        }
    norms = {layer: float(moment.double().norm()) for layer, moment in moments.items()}
    return {
        "layers": out,
        "geometry drift": [
            [float((moments[a].double() - moments[b].double()).norm()) / norms[b] for b in layers]
            for a in layers
        ],
        "overlap": [
            [float((leading[a].T @ leading[b]).square().sum()) / count for b in layers] for a in layers
        ],
        "chance overlap": count / d_k,
        "compared": count,
        "protected share": PROTECTED,
    }


def _thinned(values: Tensor, most: int = 200) -> list[float]:
    """At most `most` of some values, evenly spaced on a logarithmic scale of their index."""
    places = torch.logspace(0, torch.log10(torch.tensor(float(len(values)))), most).round().long() - 1
    return [float(x) for x in values[torch.unique(places.clamp(0, len(values) - 1))]]
