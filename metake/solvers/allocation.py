"""How a residual at the last edited layer is shared out over the layers, as data.

An allocation is a list of `(layer, share)`: at that layer `share` times what is still missing is
asked for.
"""

from __future__ import annotations

from collections.abc import Callable

Shares = list[tuple[int, float]]


def spread(layers: tuple[int, ...]) -> Shares:
    """MEMIT: the n-th layer from the end takes 1/n of what is missing."""
    return [(layer, 1 / (len(layers) - i)) for i, layer in enumerate(layers)]


def last(layers: tuple[int, ...]) -> Shares:
    """ROME: everything at the last layer."""
    return [(layers[-1], 1.0)]


ALLOCATIONS: dict[str, Callable[[tuple[int, ...]], Shares]] = {"spread": spread, "last": last}
