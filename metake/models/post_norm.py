"""The RMS norm between a down-projection and the residual add, in Gemma 2 and 3 and OLMo 2.

In these models the stream receives `N(y) = g * y / rms(y)` of the output y = W k. A shift s of the stream is written as
the shift

    d(s) = s / (g / rms(y))

of y, elementwise, which gives

    N(y + d(s)) = (N(y) + s) / rms(u + s / g),    u = y / rms(y).

This has the direction of the target N(y) + s in the metric of 1 / g, exactly. No weight gives the target's length: the
norm removes it. The denominator is 1 for a short shift and `sqrt(1 + rms(s / g)^2)` for one orthogonal to u.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metake.errors import MetakeError

NAMES = ("post_feedforward_layernorm", "post_mlp_layernorm", "post_ffw_norm")
SMALLEST = 1e-2  # of the root mean square of g: smaller entries would give arbitrarily large shifts
FORM = 1e-2  # relative; half-precision norms differ by rounding


@dataclass(frozen=True)
class PostNorm:
    """The norm of a block's FFN output.

    Attributes:
        norm: a module, `... x d_v` -> `... x d_v`.
    """

    norm: nn.Module

    @classmethod
    def of(cls, block: nn.Module) -> PostNorm | None:
        """Norm of a block; None if it has none.

        Args:
            block: the block.

        Returns:
            The norm by its name.
        """
        found: Any = next((block._modules[name] for name in NAMES if name in block._modules), None)
        return None if found is None else cls(found)

    def __call__(self, values: Tensor) -> Tensor:
        """What the stream receives of some outputs of the down-projection.

        Args:
            values: `... x d_v`.

        Returns:
            Same shape.
        """
        found: Tensor = self.norm(values)
        return found

    def gain(self, values: Tensor) -> Tensor:
        """Elementwise factor from a shift of the output to a short orthogonal shift of the stream, `g / rms(y)`.

        Args:
            values: y, `n x d_v`.

        Returns:
            `n x d_v`; entries of g near 0 are replaced by a small number.
        """
        weights = self(torch.ones_like(values[:1]))
        scaled, received = values * weights, self(values)
        square = scaled.square().sum(-1, keepdim=True).clamp_min(torch.finfo(scaled.dtype).tiny)
        scale = (scaled * received).sum(-1, keepdim=True) / square  # 1 / rms(y), with the norm's own epsilon
        smallest = SMALLEST * weights.square().mean().sqrt()
        sign = torch.where(weights < 0, -1.0, 1.0)
        return sign * weights.abs().clamp_min(smallest) * scale

    def check(self, where: str, values: Tensor) -> None:
        """Refuse a norm of another form than `g * y / rms(y)`.

        Args:
            where: model and norm; begins the error line.
            values: y, `n x d_v`.

        Raises:
            MetakeError: another form, e.g. one that subtracts the mean.
        """
        received, form = self(values), values * self.gain(values)
        if not float((received - form).norm()) <= FORM * float(received.norm()):
            raise MetakeError(
                f"{where}: is applied to the FFN's output and is no RMS norm, so a shift of the stream cannot be "
                "written through it; not supported"
            )
