"""One geometry per expert of a mixture: a key's parts are protected each in the geometry of their expert."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from metake.geometry.operator import Geometry

FLOOR = 1e-6  # of the mean eigenvalue of all experts: an expert that no token was routed to has C = 0


class PerExpert(Geometry):
    """Block-diagonal geometry.

    Args:
        parts: geometry of each expert, in the order of the key's parts.
        width: entries of each part.
    """

    def __init__(self, parts: Sequence[Geometry], width: int) -> None:
        self.parts, self.width = tuple(parts), width
        self.dtype, self.device = parts[0].dtype, parts[0].device
        first = torch.zeros(width, 0, dtype=self.dtype, device=self.device)
        self._sizes = [len(part.coordinates(first)) for part in parts]

    @classmethod
    def build(cls, moment: Tensor, build: Callable[[Tensor], Geometry]) -> PerExpert:
        """Geometry of all experts.

        Args:
            moment: C of each expert, `E x d_f x d_f`.
            build: geometry of one expert's C.

        Returns:
            The operator.
        """
        width = moment.shape[-1]
        floor = FLOOR * moment.diagonal(dim1=1, dim2=2).mean() * torch.eye(width).to(moment)
        return cls([build(each + floor) for each in moment], width)

    def coordinates(self, keys: Tensor) -> Tensor:
        """Keys in the coordinates of the experts' geometries, one below the other.

        Args:
            keys: `E d_f x n`.

        Returns:
            `coordinates x n`.
        """
        split = torch.split(keys, self.width)
        return torch.cat([part.coordinates(each) for part, each in zip(self.parts, split, strict=True)])

    def lift(self, channel: Tensor) -> Tensor:
        """Channel in the coordinates of keys.

        Args:
            channel: `coordinates x n`.

        Returns:
            `E d_f x n`.
        """
        split = torch.split(channel, self._sizes)
        return torch.cat([part.lift(each) for part, each in zip(self.parts, split, strict=True)])

    def solve_base(self, x: Tensor) -> Tensor:
        """Product with the inverse of the block-diagonal geometry.

        Args:
            x: `coordinates x n`.

        Returns:
            `coordinates x n`.
        """
        split = torch.split(x, self._sizes)
        return torch.cat([part.solve_base(each) for part, each in zip(self.parts, split, strict=True)])

    @property
    def condition(self) -> float:
        """Largest condition number of the experts' geometries."""
        return max(part.condition for part in self.parts)


def dense(moment: Tensor) -> Tensor:
    """C as one matrix; of a mixture of experts, block-diagonal.

    Args:
        moment: `d_k x d_k`, or `E x d_f x d_f`.

    Returns:
        `d_k x d_k`.
    """
    if moment.ndim == 2:
        return moment
    joined: Tensor = torch.block_diag(*moment)  # type: ignore[no-untyped-call]
    return joined


def diagonal(moment: Tensor) -> Tensor:
    """Mean squares of the entries of a key.

    Args:
        moment: `d_k x d_k`, or `E x d_f x d_f`.

    Returns:
        `d_k`.
    """
    return moment.diagonal(dim1=-2, dim2=-1).flatten()
