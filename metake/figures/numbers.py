"""Orthonormal bases and tolerances of double precision."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
EPS32, EPS64 = (float(np.finfo(t).eps) for t in (np.float32, np.float64))


def tolerance(condition: float = 1.0, size: int = 8, eps: float = EPS64) -> float:
    """Relative error of a backward-stable solve: a few `size eps cond`."""
    return 16 * size * eps * max(1.0, condition)


def basis(size: int, seed: int) -> Array:
    """Orthonormal columns, `size x size`; seed 0 is the identity."""
    if seed == 0:
        return np.eye(size)
    Q, R = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))
    return Q * np.where(np.diag(R) < 0, -1.0, 1.0)
