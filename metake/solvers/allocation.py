"""Allocation of a residual over the layers.

Shares are a list of `(layer, share)`: each layer solves for `share` times the remaining residual.
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
        per_layer: whether every layer has its own goal. Residuals are then shifts at the first layer of a stage, and
            the goals of later layers are what the model makes of that shift; otherwise they are shifts at the last layer.
        at_value: whether residuals are shifts of the output of the last layer's down-projection, not of the stream.

    Example:
        >>> import metake as mk
        >>> class First(mk.Allocation):
        ...     kind = "first"
        ...     def stages(self, layers):
        ...         return [[(layers[0], 1.0)]]
        >>> First().stages((4, 5))
        [[(4, 1.0)]]
    """

    family = "allocation"
    per_layer: ClassVar[bool] = False
    at_value: ClassVar[bool] = False

    def stages(self, layers: tuple[int, ...]) -> list[Shares]:
        """Shares of every stage.

        Args:
            layers: edited layers, ascending.

        Returns:
            One list of (layer, share) per stage.
        """
        raise NotImplementedError

    def counted(self, shares: Shares) -> Shares:
        """Shares of the layers that change what the residual is measured at.

        Args:
            shares: shares of a stage.

        Returns:
            The last one for the output of the last layer's down-projection, all of them for the stream.
        """
        return shares[-1:] if self.at_value else shares


@register
class Spread(Allocation):
    """MEMIT: the n-th layer from the end takes 1/n of what is missing."""

    kind = "spread"

    def stages(self, layers: tuple[int, ...]) -> list[Shares]:
        """One stage over all layers with MEMIT's shares.

        Args:
            layers: edited layers, ascending.

        Returns:
            See `spread`.
        """
        return [spread(layers)]


@register
class SquareRoots(Allocation):
    """PMET: the n-th layer from the end takes 1/sqrt(n) of what is missing in the last down-projection's output.

    That output holds nothing of what the lower layers write into the stream: it changes only as far as its key does.
    """

    kind = "square-roots"
    at_value = True

    def stages(self, layers: tuple[int, ...]) -> list[Shares]:
        """One stage over all layers with the square roots of MEMIT's shares.

        Args:
            layers: edited layers, ascending.

        Returns:
            A list of one stage.
        """
        return [[(layer, share**0.5) for layer, share in spread(layers)]]


@register
class Last(Allocation):
    """All of the residual at the last layer (ROME)."""

    kind = "last"

    def stages(self, layers: tuple[int, ...]) -> list[Shares]:
        """One stage at the last layer.

        Args:
            layers: edited layers, ascending.

        Returns:
            See `last`.
        """
        return [last(layers)]


@register
class Forward(Allocation):
    """Target at the first layer, propagated to the later ones; each layer is asked for its whole goal (FE)."""

    kind = "forward"
    per_layer = True

    def stages(self, layers: tuple[int, ...]) -> list[Shares]:
        """One stage over all layers, each with share 1.

        Args:
            layers: edited layers, ascending.

        Returns:
            A list of one stage.
        """
        return [[(layer, 1.0) for layer in layers]]


@register
class Boundary(Allocation):
    """One target at the first layer, then one at the last, each asked for in full (BLUE)."""

    kind = "boundary"

    def stages(self, layers: tuple[int, ...]) -> list[Shares]:
        """Two stages, at the first and at the last layer.

        Args:
            layers: edited layers, ascending.

        Returns:
            A list of two stages; of one if there is one layer.
        """
        return [last((layer,)) for layer in dict.fromkeys((layers[0], layers[-1]))]


def spread(layers: tuple[int, ...]) -> Shares:
    """Shares of MEMIT: the n-th layer from the end takes 1/n of what is missing.

    Args:
        layers: edited layers, ascending.

    Returns:
        A list of (layer, share).
    """
    return [(layer, 1 / (len(layers) - i)) for i, layer in enumerate(layers)]


def last(layers: tuple[int, ...]) -> Shares:
    """Share 1 at the last layer.

    Args:
        layers: edited layers, ascending.

    Returns:
        A list of one (layer, share).
    """
    return [(layers[-1], 1.0)]


def predicted_share(shares: Shares, eta: Mapping[int, Tensor], fit: str = "least_squares") -> Tensor:
    """Predicted share of each residual that all layers of a stage realize, `1 - prod(1 - share * eta)`.

    It is exact for one request alone, if the updates of lower layers change neither its keys nor the transport of its
    shift to the last layer.

    Args:
        shares: (layer, share) of the stage.
        eta: layer -> attenuation of each key, `n`.
        fit: `equality_constrained` realizes all that a layer is asked for, whatever its eta.

    Returns:
        Shape `n`.
    """
    return 1 - list(predicted_missing(shares, eta, fit).values())[-1]


def predicted_missing(
    shares: Shares, eta: Mapping[int, Tensor], fit: str = "least_squares"
) -> dict[int, Tensor]:
    """Predicted share of each residual that is missing after each layer, as in `predicted_share`.

    A layer without a share leaves what the layer before it left.

    Args:
        shares: (layer, share) of the stage.
        eta: layer -> attenuation of each key, `n`.
        fit: fit of each solve.

    Returns:
        Layer -> `n`.
    """
    found, missing = {}, torch.ones(())
    share_of = dict(shares)
    for layer in sorted({*eta, *share_of}):
        realized = torch.ones_like(eta[layer]) if fit == "equality_constrained" else eta[layer]
        missing = missing * (1 - share_of.get(layer, 0.0) * realized)
        found[layer] = missing
    return found


def describe_shares(shares: Shares, fit: str = "least_squares") -> str:
    """Formula of `predicted_share` in terms of the layers' eta.

    Args:
        shares: (layer, share) of the stage.
        fit: `least_squares` or `equality_constrained`.

    Returns:
        One line of text.
    """
    if fit == "equality_constrained":
        return "1 (exact fit, independent of eta)"
    if len(shares) == 1 and shares[0][1] == 1:
        return f"eta {shares[0][0]}"
    factors = (f"eta {n}" if share == 1 else f"{share:.2g} eta {n}" for n, share in shares)
    return "1 - " + " ".join(f"(1 - {factor})" for factor in factors)
