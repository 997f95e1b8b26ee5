"""Evidence on claims: tests record it here, and verdicts are computed from it.

`@checks("T1b", "random")` assigns a test to a claim and a rung; the assertions below record evidence:

    @given(geometries(), ...)
    @checks("T1b", "random")
    def test_bound(...):
        below(rho, bound)            # asserts, and records the ratio rho / bound

Evidence is passed on in the `user_properties` of pytest's reports, which reach the controller of parallel workers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

import hypothesis
import numpy as np
import pytest

Kind = Literal["compared", "searched", "exact", "derived", "enclosed", "proved", "rejected"]


@dataclass(frozen=True)
class Rung:
    """A kind of evidence, with the obligations of which a test must discharge at least one.

    Attributes:
        text: explanation in the legend.
        needs: kinds of obligations; the functions that discharge them record them.
    """

    text: str
    needs: frozenset[Kind]


def _rung(text: str, *needs: Kind) -> Rung:
    return Rung(text, frozenset(needs))


#: The ladder, lowest rung first. A new rung is a line here and a function that calls `record` with its kind.
LADDER: dict[str, Rung] = {
    "random": _rung("property test over random instances", "compared"),
    "searched": _rung("worst case searched for", "searched"),
    "exact": _rung("rational arithmetic, tolerance zero", "exact"),
    "derived": _rung("derived symbolically", "derived"),
    "enclosed": _rung("rigorous error bound on a real model's matrices", "enclosed"),
    "proved": _rung("proved for all reals", "proved"),
    "product": _rung("holds in the library's code", "compared"),
}
#: Evidence on an assumption or on the paper's form of a claim; not part of the ladder.
ASIDE: dict[str, Rung] = {
    "needed": _rung("counterexample without an assumption", "rejected"),
    "unneeded": _rung("holds without an assumption", "compared", "proved", "exact"),
    "refuted": _rung("counterexample to the paper's form", "rejected"),
}


F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Evidence:
    """Evidence of one test.

    Attributes:
        examples: number of runs of its body.
        ratio: largest value / bound of an inequality; 1 is tight, above 1 the inequality is violated.
        error: largest error / tolerance of an identity.
        counterexample: to the claim without an assumption, or to the paper's form.
        obligations: number of discharged obligations per kind.
    """

    examples: int = 0
    ratio: float | None = None
    error: float | None = None
    counterexample: str = ""
    obligations: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


_current = Evidence()
_seen: dict[str, float] = {}  # of the current example


def begin() -> Evidence:
    """Start a new record; called before each test."""
    global _current
    _current = Evidence()
    return _current


def checks(claim: str, rung: str, *, drops: str = "", refutes: bool = False) -> Callable[[F], F]:
    """Assign a test to a claim and a rung.

    Args:
        drops: for `needed` and `unneeded`: key of the assumption that the test drops.
        refutes: the test gives a counterexample to the paper's form, and passes if it finds one.

    Put it below `@given`, so that every example is counted.
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


def record(kind: Kind) -> None:
    """Count a discharged obligation; the function that discharges it calls this after success."""
    _current.obligations[kind] = _current.obligations.get(kind, 0) + 1


def evidence_kind(rung: str, refutes: bool) -> str:
    """Kind of evidence of a mark: its rung, or `refuted`."""
    return "refuted" if refutes else rung


def unmet(marks: Iterable[tuple[str, str, bool]], obligations: Mapping[str, int]) -> list[str]:
    """Marks `(claim, rung, refutes)` without a discharged obligation, one line each."""
    lines = []
    for claim, rung, refutes in marks:
        name = evidence_kind(rung, refutes)
        needs = (LADDER | ASIDE)[name].needs
        if not any(obligations.get(kind) for kind in needs):
            lines.append(f"{claim} {name}: discharged no obligation of the kind {' or '.join(sorted(needs))}")
    return lines


def _see(label: str, value: float) -> None:
    """Record a value of this example, and the largest of the test."""
    value = float(value)  # workers send evidence as plain numbers
    _seen[label] = max(_seen.get(label, 0.0), value)
    setattr(_current, label, max(getattr(_current, label) or 0.0, value))


def _point_hypothesis_upwards() -> None:
    """Direct hypothesis, if it runs the test, to larger ratios and errors."""
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
    record("compared")


def holds(condition: Any, kind: Kind = "compared") -> bool:
    """Whether a condition holds, recorded if it does: `assert holds(trapped == expected)`."""
    if condition:
        record(kind)
    return bool(condition)


def attains(value: float, bound: float, share: float = 0.99, tolerance: float = 0.0) -> None:
    """Assert that a worst case is below a bound and reaches `share` of it, i.e. that the bound is tight."""
    below(value, bound, tolerance)
    assert value >= share * bound, f"only {value / bound:.3f} of the bound is reached"
    record("searched")


def equal(actual: Any, expected: Any, tolerance: float, scale: float | None = None) -> None:
    """Assert that two arrays agree to `tolerance` times their size, and record the error.

    Args:
        tolerance: relative to the norm of `expected`, or to `scale` if that norm can be zero.
    """
    actual, expected = np.asarray(actual, float), np.asarray(expected, float)
    assert actual.shape == expected.shape, f"{actual.shape} != {expected.shape}"
    assert np.isfinite(actual).all(), "not finite"
    size = float(np.linalg.norm(expected)) if scale is None else scale
    error = float(np.linalg.norm(actual - expected))
    allowed = tolerance * size + np.finfo(float).tiny
    _see("error", error / allowed)
    assert error <= allowed, f"differs by {error:.3e}, allowed {allowed:.3e}\n{actual}\n{expected}"
    record("compared")


def reaches(worst: Any, bound: Any, tolerance: float, scale: float | None = None) -> None:
    """Assert that a constructed worst case equals a bound."""
    equal(worst, bound, tolerance, scale)
    record("searched")


def counterexample(text: str) -> None:
    """Record an instance for which the claim without the dropped assumption is false."""
    _current.counterexample = text
    record("rejected")
