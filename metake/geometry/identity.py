"""UltraEdit's geometry: the identity."""

from __future__ import annotations

import torch
from torch import Tensor

from metake.geometry.operator import Geometry


class Identity(Geometry):
    """Geometry `G = I`: only the size of the change is penalized (UltraEdit).

    Args:
        past: keys of earlier batches, `d_k x p`.
        dtype: precision of the solves.
        device: device of the solves.
    """

    def __init__(
        self,
        *,
        past: Tensor | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        self.dtype, self.device = dtype, torch.device(device)
        self._remember(past)

    def plus(self, moment: Tensor) -> Tensor:
        """Matrix `scale I + P`, `d_k x d_k`, in P's dtype.

        Args:
            moment: P, `d_k x d_k`.

        Returns:
            `d_k x d_k`.
        """
        return moment + self.scale * torch.eye(len(moment)).to(moment)

    def solve_base(self, x: Tensor) -> Tensor:
        """The argument itself.

        Args:
            x: `d_k x n`.

        Returns:
            `d_k x n`.
        """
        return x

    @property
    def condition(self) -> float:
        """Condition number, 1."""
        return 1.0
