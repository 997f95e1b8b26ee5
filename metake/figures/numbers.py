"""Orthonormal bases and tolerances of double precision."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
EPS32, EPS64 = (float(np.finfo(t).eps) for t in (np.float32, np.float64))


def tolerance(condition: float = 1.0, size: int = 8, eps: float = EPS64) -> float:
    """Relative error of a backward-stable solve, `16 size eps cond`.

    Args:
        condition: condition number of the matrix.
        size: dimension of the matrix.
        eps: machine epsilon.

    Returns:
        The relative error.
    """
    return 16 * size * eps * max(1.0, condition)


def basis(size: int, seed: int) -> Array:
    """Random orthogonal matrix.

    Args:
        size: number of rows and columns.
        seed: seed of the random generator; 0 gives the identity.

    Returns:
        `size x size`.
    """
    if seed == 0:
        return np.eye(size)
    Q, R = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))
    return Q * np.where(np.diag(R) < 0, -1.0, 1.0)
