"""What a run has to say about a claim: tests write evidence here, verdicts are read off it.

A test is tied to its claim by `@checks("T1b", "random")` and tells what it saw with `observe`:

    @given(geometries(), ...)
    @checks("T1b", "random")
    def test_bound(...):
        below(rho, bound)            # asserts, and records the ratio rho / bound

Evidence travels in the `user_properties` of pytest's reports, so that it survives parallel workers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import hypothesis
import numpy as np
import pytest

#: The ladder, lowest rung first. `needed` and `unneeded` concern assumptions, not the claim itself.
Rung = Literal[
    "derived", "random", "searched", "exact", "enclosed", "proved", "product", "needed", "unneeded"
]
LADDER: dict[str, str] = {
    "random": "property test over random instances",
    "searched": "worst case searched for",
    "exact": "rational arithmetic, tolerance zero",
    "derived": "derived symbolically",
    "enclosed": "rigorous error bound on a real model's matrices",
    "proved": "proved for all reals",
    "product": "holds in the library's code",
}

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Evidence:
    """What one test saw.

    Attributes:
        examples: how often its body ran.
        ratio: largest value / bound of an inequality; 1 is tight, above 1 breaks it.
        error: largest error / tolerance of an identity.
        counterexample: of a dropped assumption or of a refuted form.
    """

    examples: int = 0
    ratio: float | None = None
    error: float | None = None
    counterexample: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


_current = Evidence()
_seen: dict[str, float] = {}  # of the example at hand


def begin() -> Evidence:
    """Start a new record; called before each test."""
    global _current
    _current = Evidence()
    return _current


def checks(claim: str, rung: Rung, *, drops: str = "", refutes: bool = False) -> Callable[[F], F]:
    """Tie a test to a claim.

    Args:
        drops: for `needed` and `unneeded`: the key of the assumption that the test drops.
        refutes: the test shows a counterexample to the paper's form. It passes when it finds one.

    Put it below `@given`, so that every example counts.
    """

    def decorate(test: F) -> F:
        if hasattr(test, "counted"):
            body: Any = test
        else:

            @functools.wraps(test)
            def body(*args: Any, **kwargs: Any) -> Any:
                _current.examples += 1
                _seen.clear()
                result = test(*args, **kwargs)
                _point_hypothesis_upwards()
                return result

            body.counted = True
        return pytest.mark.checks(claim, rung, drops=drops, refutes=refutes)(body)

    return decorate


def _see(label: str, value: float) -> None:
    """Note a number of this example, and its largest of the whole test."""
    value = float(value)  # evidence crosses process borders as plain numbers
    _seen[label] = max(_seen.get(label, 0.0), value)
    setattr(_current, label, max(getattr(_current, label) or 0.0, value))


def _point_hypothesis_upwards() -> None:
    """Where a test runs under hypothesis: look for larger ratios and errors."""
    if hypothesis.currently_in_test_context():
        for label, value in _seen.items():
            if math.isfinite(value):
                hypothesis.target(value, label=label)


def below(value: float, bound: float, tolerance: float = 0.0) -> None:
    """Assert `value <= bound (1 + tolerance)` and record the ratio.

    Args:
        tolerance: relative, for the rounding of both sides.
    """
    value, bound = float(value), float(bound)
    if bound > 0 and math.isfinite(bound):
        _see("ratio", value / bound)
    assert value <= bound * (1 + tolerance) + np.finfo(float).tiny, f"{value!r} > {bound!r}"


def attains(value: float, bound: float, share: float = 0.99, tolerance: float = 0.0) -> None:
    """Assert that a worst case reaches `share` of a bound and stays below it: the bound is tight."""
    below(value, bound, tolerance)
    assert value >= share * bound, f"only {value / bound:.3f} of the bound is reached"


def equal(actual: Any, expected: Any, tolerance: float, scale: float | None = None) -> None:
    """Assert that two arrays agree to `tolerance` times their size, and record the error.

    Args:
        tolerance: relative to the norm of `expected`, or to `scale` where that norm may vanish.
    """
    actual, expected = np.asarray(actual, float), np.asarray(expected, float)
    assert actual.shape == expected.shape, f"{actual.shape} != {expected.shape}"
    assert np.isfinite(actual).all(), "not finite"
    size = float(np.linalg.norm(expected)) if scale is None else scale
    error = float(np.linalg.norm(actual - expected))
    allowed = tolerance * size + np.finfo(float).tiny
    _see("error", error / allowed)
    assert error <= allowed, f"differs by {error:.3e}, allowed {allowed:.3e}\n{actual}\n{expected}"


def counterexample(text: str) -> None:
    """Record an instance that breaks the claim without the dropped assumption."""
    _current.counterexample = text
