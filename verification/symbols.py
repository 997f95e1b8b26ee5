"""Symbolic expressions: identities that are confirmed, and derived expressions as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from verification.ledger import record


def vanishes(residual: sp.Expr | sp.Matrix) -> bool:
    """Whether every entry simplifies to zero, recorded if it does."""
    found = all(sp.simplify(x) == 0 for x in sp.Matrix([residual]))
    if found:
        record("derived")
    return found


def number(
    derived: sp.Expr | sp.Matrix, values: Mapping[sp.Symbol, Any] | None = None
) -> NDArray[np.float64]:
    """fp64 of a derived expression at a point, a matrix as a vector."""
    found = sp.sympify(derived).subs(values or {})
    record("derived")
    return np.array(found, float).ravel() if isinstance(found, sp.MatrixBase) else np.array(float(found))
