"""What counts as a proof for all reals."""

from __future__ import annotations

import pytest
import z3

from verification import smt
from verification.smt import (
    prove,
    reals,
    refute,
    refute_without,
    settle,
)


def test_what_is_false_undecided_or_vacuous_is_not_proved(monkeypatch):
    x, y = reals("x y")
    prove({"positive": x > 0}, x * x > 0)
    with pytest.raises(AssertionError, match="broken by x = "):
        prove({"positive": x > 0}, x * x > x)
    with pytest.raises(AssertionError, match="contradict"):
        prove({"above": x > 0, "below": x < 0}, x == y)
    with pytest.raises(AssertionError, match="without size: no counterexample"):
        refute_without({"positive": x > 0, "size": x > -1}, x * x > 0)
    monkeypatch.setattr(smt, "LIMIT", 10)
    with pytest.raises(AssertionError, match="undecided"):
        prove({"positive": x > 0}, x * x > 0)


def test_a_counterexample_divides_by_nothing_that_vanishes():
    x, y = reals("x y")
    with pytest.raises(AssertionError, match="no counterexample"):
        refute({}, (x / y) * y == x)


def test_a_loose_bound_is_not_settled():
    x = z3.Real("x")
    settle(({"long": x >= 1}, 1 / x <= 1, []))
    for loose in (1 / x <= 2, 1 / x < 2, x > 0):
        with pytest.raises(AssertionError, match="no counterexample"):
            settle(({"long": x >= 1}, loose, []))
