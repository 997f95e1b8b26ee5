"""Updates from mapped (key, gradient) pairs: factors of each layer's change of weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from metake.components import Component, register
from metake.geometry.identity import Identity
from metake.models.ambient import exact_device


@dataclass(frozen=True)
class Pairs:
    """Pairs of one layer, `t` answer tokens, with the layer's learned scalars.

    Attributes:
        key: `t x d_k`, as the model computes it.
        scaled_key: `t x d_k`, normalized.
        mapped_key: `t x d_k`, pseudo keys.
        mapped_gradient: `t x d_v`, pseudo gradients.
        step: eta of the layer, a scalar.
        log_lambda: lambda of the layer, whose exponential is the weight of the ridge; a scalar.
    """

    key: Tensor
    scaled_key: Tensor
    mapped_key: Tensor
    mapped_gradient: Tensor
    step: Tensor
    log_lambda: Tensor


@dataclass(frozen=True)
class Factors:
    """Change of one weight, `left right^T`.

    Attributes:
        left: `d_v x t`.
        right: `d_k x t`.
        eta: `t`, attenuation of each key alone; None where nothing is solved.
    """

    left: Tensor
    right: Tensor
    eta: Tensor | None = None


class Update(Component):
    """Choice of the change of the weights.

    Attributes:
        solves: whether the change is the solution of a least-squares problem, so that there is an attenuation.
    """

    family = "update"
    solves: ClassVar[bool] = False

    def factors(self, pairs: Mapping[int, Pairs], dtype: torch.dtype) -> dict[int, Factors]:
        """Factors of the change of each layer, differentiable in the pairs and scalars.

        Args:
            pairs: layer -> its pairs, layers ascending.
            dtype: precision of the solves.

        Returns:
            Layer -> factors.

        Raises:
            NotImplementedError: by default.
        """
        raise NotImplementedError


@register
class LeastSquares(Update):
    """Change that gives each key its value difference, in the sense of least squares with a ridge (MALMEN).

    `d_t = -eta (k_t . k^_t) g^_t` and `W = D K^T (K K^T + e^lambda I)^-1 = D Q^T`, with the channel Q of the geometry
    `e^lambda I` (X8). So `dL/dD = (dL/dW) Q`.

    Reference: Tan, Zhang, Fu, Massive Editing for Large Language Models via Meta Learning, arXiv:2311.04661.
    """

    kind = "least-squares"
    solves = True

    inner: Literal["key", "normalized"] = Field(
        "key",
        description="what the pseudo key is multiplied with: the key (MALMEN), or the normalized key (UltraEdit)",
    )

    def values(self, pairs: Mapping[int, Pairs]) -> dict[int, Tensor]:
        """Value differences of each layer.

        Args:
            pairs: layer -> its pairs.

        Returns:
            Layer -> `t x d_v`.
        """
        found = {}
        for layer, pair in pairs.items():
            key = pair.key if self.inner == "key" else pair.scaled_key
            product = (key.to(pair.mapped_key) * pair.mapped_key).sum(1, keepdim=True)
            found[layer] = (-pair.step.to(product) * product * pair.mapped_gradient).to(pair.key)
        return found

    def factors(self, pairs: Mapping[int, Pairs], dtype: torch.dtype) -> dict[int, Factors]:
        """Value differences and channel of each layer.

        Args:
            pairs: layer -> its pairs.
            dtype: precision of the solves.

        Returns:
            Layer -> factors.
        """
        return {
            layer: Factors(value.T, *ridge_channel(pairs[layer].key, pairs[layer].log_lambda, dtype))
            for layer, value in self.values(pairs).items()
        }


def ridge_channel(key: Tensor, log_lambda: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Channel of the geometry `e^lambda I`, differentiable in lambda.

    `(K K^T + e^lambda I)^-1 K = s (C C^T + I)^-1 C` with `s = e^(-lambda/2)` and `C = s K`.

    Args:
        key: K^T, `t x d_k`.
        log_lambda: lambda, a scalar.
        dtype: precision of the solve.

    Returns:
        The channel, `d_k x t`, and the attenuation of each key alone, `t`; dtype and device of the keys.
    """
    geometry = Identity(dtype=dtype, device=exact_device(key.device))
    shrink = (-log_lambda.to(geometry.device, dtype) / 2).exp()
    channel, eta = geometry.channel_and_attenuation(shrink * key.T.to(geometry.device, dtype))
    return (shrink * channel).to(key), eta.to(key)


@register
class Orthogonal(LeastSquares):
    """Least squares for value differences that are orthogonal to those of the previous edited layer (HORSE).

    `D_l <- D_l - (<D_l, D_l-1> / <D_l-1, D_l-1>) D_l-1`, layer by layer, with the D_l-1 that is written.

    Reference: HORSE, arXiv:2601.11441, whose published code subtracts a multiple of the raw gradient in place of D_l-1.
    """

    kind = "orthogonal"

    def values(self, pairs: Mapping[int, Pairs]) -> dict[int, Tensor]:
        """Value differences of each layer without their component along those of the layer before.

        Args:
            pairs: layer -> its pairs, layers ascending.

        Returns:
            Layer -> `t x d_v`.
        """
        found: dict[int, Tensor] = {}
        previous: Tensor | None = None
        for layer, value in super().values(pairs).items():
            if previous is not None:
                before = previous.to(value)
                square = (before * before).sum().clamp_min(torch.finfo(before.dtype).tiny)
                value = value - (value * before).sum() / square * before
            previous = found[layer] = value
        return found


@register
class OuterProduct(Update):
    """Step along the pseudo gradient of the weight, `W = -eta sum_t g^_t k^_t^T` (MEND); nothing is solved.

    Reference: Mitchell et al., Fast Model Editing at Scale, arXiv:2110.11309.
    """

    kind = "outer-product"

    def factors(self, pairs: Mapping[int, Pairs], dtype: torch.dtype) -> dict[int, Factors]:
        """Pseudo gradients times the step, and pseudo keys, of each layer.

        Args:
            pairs: layer -> its pairs.
            dtype: not used.

        Returns:
            Layer -> factors.
        """
        return {
            layer: Factors(
                (-pair.step.to(pair.mapped_gradient) * pair.mapped_gradient).T.to(pair.key),
                pair.mapped_key.T.to(pair.key),
            )
            for layer, pair in pairs.items()
        }
