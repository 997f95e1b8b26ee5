"""Low-rank form of a weight update: factors of bounded rank, with the error of a truncation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LowRank:
    """Factors of a change of one weight, `left @ right.T`.

    Attributes:
        left: `d_v x r`.
        right: `d_k x r`.
        error: Frobenius norm of what the factors leave out, relative to that of the whole change.
    """

    left: Tensor
    right: Tensor
    error: float = 0.0

    @property
    def rank(self) -> int:
        """Number of columns of each factor."""
        return self.left.shape[1]

    def padded(self, rank: int) -> LowRank:
        """The same change with columns of zeros appended.

        Args:
            rank: number of columns, at least the present one.

        Returns:
            Factors of that rank.
        """

        def widen(factor: Tensor) -> Tensor:
            return torch.cat([factor, factor.new_zeros(len(factor), rank - self.rank)], 1)

        return LowRank(widen(self.left), widen(self.right), self.error)


def _largest(u: Tensor, s: Tensor, vt: Tensor, limit: int) -> LowRank:
    """The `limit` largest singular values of `u @ diag(s) @ vt`, shared equally by both factors."""
    total, root = s.norm(), s[:limit].sqrt()
    error = float(s[limit:].norm() / total) if total > 0 else 0.0
    return LowRank(u[:, :limit] * root, vt[:limit].T * root, error)


def of_factors(left: Tensor, right: Tensor, limit: int) -> LowRank:
    """Low-rank form of `left @ right.T`: the factors themselves, recompressed if they have more than `limit` columns.

    The recompression is a QR decomposition of both factors and an SVD of the product of the small triangular
    matrices, in fp64. It is the best approximation of its rank in the Frobenius norm (Eckart and Young, 1936).

    Args:
        left: `d_v x n`.
        right: `d_k x n`.
        limit: largest rank.

    Returns:
        Factors of rank `min(n, limit, d_v, d_k)`.
    """
    limit = min(limit, len(left), len(right))
    if left.shape[1] <= limit:
        return LowRank(left, right)
    (q_left, r_left), (q_right, r_right) = torch.linalg.qr(left.double()), torch.linalg.qr(right.double())
    u, s, vt = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
    core = _largest(u, s, vt, limit)
    return LowRank(q_left @ core.left, q_right @ core.right, core.error)


def of_dense(change: Tensor, limit: int) -> LowRank:
    """Low-rank form of a dense change, by SVD in fp64.

    The smallest rank whose relative error is at most the rounding of fp32, `eps = 2^-23`; at most `limit`. So a low-rank
    change that was rounded to fp32 has its own rank again.

    Args:
        change: `d_v x d_k`.
        limit: largest rank.

    Returns:
        Factors of rank at most `limit`, and at least 1.
    """
    u, s, vt = torch.linalg.svd(change.double(), full_matrices=False)
    left_out = s.square().flip(0).cumsum(0).flip(0).sqrt()  # by the rank of what is kept: norm of s[rank:]
    found = int((left_out > torch.finfo(torch.float32).eps * s.norm()).sum())
    return _largest(u, s, vt, max(1, min(limit, found)))
