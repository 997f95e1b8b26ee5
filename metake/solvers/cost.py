"""Cost of a change in the statistics of old keys, for any method: with or without a solve, low-rank or dense."""

from __future__ import annotations

import torch

from metake.deltas import Delta
from metake.geometry.per_expert import dense
from metake.geometry.statistics import Statistics

ROWS = 1024  # of a dense change that are held in fp64 at a time


@torch.no_grad()
def old_key_cost(delta: Delta, statistics: Statistics) -> dict[int, float]:
    """Mean squared change of each layer's output over old keys, tr(D C D^T) (X14 for G = C).

    In MEMIT's geometry the cost of X14 is lambda times this number. It is defined for fine-tuning too, which has no
    geometry.

    Args:
        delta: the change D of the weights.
        statistics: second moments C of the keys of all changed layers.

    Returns:
        Layer -> tr(D C D^T), computed in fp64.
    """
    found = {}
    for layer in delta.layers:
        moment = dense(statistics[layer]).double()
        if layer in delta.dense_updates:
            parts = torch.split(delta.dense_updates[layer], ROWS)
            if layer in delta.factors:
                parts = torch.split(delta.to_dense(layer), ROWS)
            blocks = (part.to(moment) for part in parts)
            found[layer] = sum(float(((block @ moment) * block).sum()) for block in blocks)
        else:
            left, right = (part.to(moment) for part in delta.factors[layer])
            found[layer] = float(((left.T @ left) * (right.T @ moment @ right)).sum())
    return found
