"""Allocation of a residual over the layers.

Shares are a list of `(layer, share)`: the layer is asked for `share` times what is still missing.
An allocation is a list of stages, each planned and solved on the model that the ones before it edited.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from metake.components import Component, register

Shares = list[tuple[int, float]]


class Allocation(Component):
    """Choice of an allocation; a subclass defines `stages`.

    Attributes:
        per_layer: residuals are shifts at the first layer of a stage, and every layer has a goal of its own, what the
            model makes of that shift further up; otherwise they are shifts at the last layer.
    """

    family = "allocation"
    per_layer: ClassVar[bool] = False

    def stages(self, layers: tuple[int, ...]) -> list[Shares]:
        """Shares of every stage over the edited layers (ascending)."""
        raise NotImplementedError


@register
class Spread(Allocation):
    """MEMIT: the n-th layer from the end takes 1/n of what is missing."""

    kind = "spread"

    def stages(self, layers: tuple[int, ...]) -> list[Shares]:
        return [spread(layers)]


@register
class Last(Allocation):
    """ROME: everything at the last layer."""

    kind = "last"

    def stages(self, layers: tuple[int, ...]) -> list[Shares]:
        return [last(layers)]


@register
class Forward(Allocation):
    """FE: a target at the first layer, propagated to the later ones; each layer is asked for its whole goal."""

    kind = "forward"
    per_layer = True

    def stages(self, layers: tuple[int, ...]) -> list[Shares]:
        return [[(layer, 1.0) for layer in layers]]


@register
class Boundary(Allocation):
    """BLUE: a target of its own at the first layer, then one at the last, each asked for in full."""

    kind = "boundary"

    def stages(self, layers: tuple[int, ...]) -> list[Shares]:
        return [last((layer,)) for layer in dict.fromkeys((layers[0], layers[-1]))]


def spread(layers: tuple[int, ...]) -> Shares:
    """The n-th layer from the end takes 1/n of what is missing."""
    return [(layer, 1 / (len(layers) - i)) for i, layer in enumerate(layers)]


def last(layers: tuple[int, ...]) -> Shares:
    """Everything at the last layer."""
    return [(layers[-1], 1.0)]


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
