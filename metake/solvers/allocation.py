"""How a residual is shared out over the layers, as data.

Shares are a list of `(layer, share)`: at that layer `share` times what is still missing is asked for.
An allocation is a list of stages, each planned and solved on the model that the ones before it edited.
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


def each(layers: tuple[int, ...]) -> Shares:
    """At each layer everything: FE's goals (see `LayeredSolver.aim`), or a gradient step of its own."""
    return [(layer, 1.0) for layer in layers]


def boundary(layers: tuple[int, ...]) -> list[Shares]:
    """BLUE: a target of its own at the first layer, then one at the last, each asked for in full."""
    return [last((layer,)) for layer in dict.fromkeys((layers[0], layers[-1]))]


ALLOCATIONS: dict[str, Callable[[tuple[int, ...]], list[Shares]]] = {
    "spread": lambda layers: [spread(layers)],
    "last": lambda layers: [last(layers)],
    "forward": lambda layers: [each(layers)],
    "each": lambda layers: [each(layers)],
    "boundary": boundary,
}
