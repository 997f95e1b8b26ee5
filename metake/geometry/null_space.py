"""AlphaEdit's geometry: the null space of C."""

from __future__ import annotations

import torch
from torch import Tensor

from metake.errors import MetakeError
from metake.geometry.operator import Geometry


class Projected(Geometry):
    """AlphaEdit's geometry: edits in the near-null space of C, with `G = beta I` there (T1e, X1).

    Args:
        moment: C, `d_k x d_k`.
        l2: beta, AlphaEdit's L2, > 0.
        threshold: directions whose eigenvalue of C is below it form the null space (published: 0.02).
        keep: instead of a threshold, the share of directions, those with the smallest eigenvalues; it has the same meaning
            on every model, unlike an absolute threshold.
        past: keys of earlier batches, `d_k x p`.
        dtype: precision of the solves.

    Raises:
        MetakeError: arguments out of range, or no direction is left.
    """

    def __init__(
        self,
        moment: Tensor,
        l2: float,
        *,
        threshold: float | None = None,
        keep: float | None = None,
        past: Tensor | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if not l2 > 0:
            raise MetakeError(f"geometry: AlphaEdit's L2 must be > 0, got {l2}")
        if (threshold is None) == (keep is None):
            raise MetakeError("geometry: give either a null-space threshold or the share to keep")
        if keep is not None and not 0 < keep <= 1:
            raise MetakeError(f"geometry: the kept share must lie in (0, 1], got {keep}")
        if not bool(torch.isfinite(moment).all()):
            raise MetakeError("statistics: C holds NaN or infinity; collect them again")
        self.dtype, self.device, self.l2 = dtype, moment.device, l2
        values, vectors = torch.linalg.eigh(moment.to(dtype))
        size = max(1, round(keep * len(values))) if keep is not None else int((values < threshold).sum())
        if size == 0:
            raise MetakeError(
                f"geometry: no eigenvalue of C is below {threshold} (smallest {float(values[0]):.3g}); "
                "use a relative null space (keep) instead of an absolute threshold"
            )
        self.basis = vectors[:, :size].contiguous()
        self.share = size / len(values)
        self._remember(past)

    def coordinates(self, keys: Tensor) -> Tensor:
        """Keys in an orthonormal basis of the null space.

        Args:
            keys: `d_k x n`, of any dtype and device.

        Returns:
            `m x n`.
        """
        inside: Tensor = self.basis.T @ keys.to(self.device, self.dtype)
        return inside

    def lift(self, channel: Tensor) -> Tensor:
        """Channel in the coordinates of keys.

        Args:
            channel: `m x n`.

        Returns:
            `d_k x n`.
        """
        lifted: Tensor = self.basis @ channel
        return lifted

    def solve_base(self, x: Tensor) -> Tensor:
        """Product `x / beta`.

        Args:
            x: `m x n`.

        Returns:
            `m x n`.
        """
        return x / self.l2

    def plus(self, moment: Tensor) -> Tensor:
        """Matrix `scale beta I + V^T P V`, `m x m`, in P's dtype.

        Args:
            moment: P, `d_k x d_k`.

        Returns:
            `m x m`.
        """
        basis = self.basis.to(moment)
        inside: Tensor = basis.T @ moment @ basis
        inside.diagonal().add_(self.scale * self.l2)
        return inside

    @property
    def condition(self) -> float:
        """Condition number within the null space, 1."""
        return 1.0
