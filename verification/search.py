"""Worst cases that are searched for and not waited for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from verification.ledger import below, record

Array = NDArray[np.float64]


def worst(ratio: Callable[[Array], float], size: int, *, starts: int = 12, seed: int = 0) -> float:
    """Largest `ratio(x)` found over x in R^size, by Nelder and Mead from seeded starts.

    Args:
        ratio: value / bound of an instance that x parametrizes; not finite counts as a bad start.
    """
    rng = np.random.default_rng(seed)

    def loss(x: Array) -> float:
        value = ratio(x)
        return -value if np.isfinite(value) else np.inf

    best = 0.0
    for _ in range(starts):
        found = minimize(
            loss,
            rng.standard_normal(size),
            method="Nelder-Mead",
            options={"maxiter": 400 * size, "xatol": 1e-9, "fatol": 1e-12},
        )
        best = max(best, -float(found.fun))
    record("searched")
    return best


def attained(ratio: Callable[[Array], float], size: int, share: float = 0.99, starts: int = 4) -> None:
    """The worst case found keeps the bound and reaches `share` of it."""
    found = worst(ratio, size, starts=starts)
    below(found, 1, 1e-9)
    assert found >= share, f"only {found:.3f} of the bound was reached"


def lowest(value: Callable[[float], float], low: float, high: float) -> tuple[float, float]:
    """Least `value(t)` found over [low, high], and its t."""
    found = minimize_scalar(value, bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    record("searched")
    return float(found.fun), float(found.x)
