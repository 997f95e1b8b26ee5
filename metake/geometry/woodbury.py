"""Woodbury's identity: solves with G + K K^T from solves with G."""

from __future__ import annotations

import torch
from torch import Tensor

from metake.errors import MetakeError


def cholesky(matrix: Tensor, what: str) -> Tensor:
    """Lower Cholesky factor of a matrix.

    Args:
        matrix: `n x n`, symmetric.
        what: names the matrix in the error line.

    Returns:
        `n x n`.

    Raises:
        MetakeError: the matrix is not positive definite.
    """
    factor: Tensor
    factor, info = torch.linalg.cholesky_ex(matrix)
    if int(info):
        raise MetakeError(
            f"{what} is not positive definite in {str(matrix.dtype).removeprefix('torch.')}; "
            "raise beta (--set jitter=...), collect statistics from more tokens, or solve in float64"
        )
    return factor


def columns_of(moment: Tensor) -> Tensor:
    """Columns F with `F F^T = P`, at most as many as P has rows.

    Args:
        moment: P, `d x d`, symmetric positive semidefinite up to rounding.

    Returns:
        `d x r`, from the eigenvalues above the rounding of the largest.
    """
    values, vectors = torch.linalg.eigh(moment)
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    columns: Tensor = vectors[:, kept] * values[kept].sqrt()
    return columns


class Woodbury:
    """Correction of solves with G to solves with `G + K K^T`; the small system `I + K^T G^-1 K` is factored once.

    Args:
        keys: K, `d x p`.
        solved: `G^-1 K`, `d x p`.

    Raises:
        MetakeError: the small system is not positive definite.
    """

    def __init__(self, keys: Tensor, solved: Tensor) -> None:
        small = keys.T @ solved
        small.diagonal().add_(1)
        self._keys, self._solved = keys, solved
        self._factor = cholesky(small, "I + K_p^T G^-1 K_p")

    def correct(self, solved: Tensor) -> Tensor:
        """Product `(G + K K^T)^-1 x`.

        Args:
            solved: `G^-1 x`, `d x n`.

        Returns:
            `d x n`.
        """
        return solved - self._solved @ torch.cholesky_solve(self._keys.T @ solved, self._factor)
