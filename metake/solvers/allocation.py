"""How a residual is shared out over the layers, as data.

Shares are a list of `(layer, share)`: at that layer `share` times what is still missing is asked for.
An allocation is a list of stages, each planned and solved on the model that the ones before it edited.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

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


def predicted_share(shares: Shares, eta: Mapping[int, Tensor], fit: str = "soft") -> Tensor:
    """Executed share of each residual after all layers of a stage, `1 - prod(1 - share * eta)`, shape `n`.

    It is exact for one request alone whose keys, and whose shift on its way to the last layer, are left as they are
    by what the layers below write.

    Args:
        eta: layer -> attenuation of each key, `n`.
        fit: an exact fit executes all that a layer is asked for, whatever its eta.
    """
    missing = torch.ones(())
    for layer, share in shares:
        missing = missing * (1 - share * (torch.ones_like(eta[layer]) if fit == "exact" else eta[layer]))
    return 1 - missing


def describe_shares(shares: Shares, fit: str = "soft") -> str:
    """The formula of `predicted_share` for these layers, in terms of their eta."""
    if fit == "exact":
        return "1 (the fit is exact, whatever eta)"
    if len(shares) == 1 and shares[0][1] == 1:
        return f"eta {shares[0][0]}"
    factors = (f"eta {n}" if share == 1 else f"{share:.2g} eta {n}" for n, share in shares)
    return "1 - " + " ".join(f"(1 - {factor})" for factor in factors)


ALLOCATIONS: dict[str, Callable[[tuple[int, ...]], list[Shares]]] = {
    "spread": lambda layers: [spread(layers)],
    "last": lambda layers: [last(layers)],
    "forward": lambda layers: [each(layers)],
    "each": lambda layers: [each(layers)],
    "boundary": boundary,
}
