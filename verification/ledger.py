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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

import hypothesis
import numpy as np
import pytest

Kind = Literal["compared", "searched", "exact", "derived", "enclosed", "proved", "rejected"]


@dataclass(frozen=True)
class Rung:
    """A kind of evidence, and the obligations of which a test must have discharged at least one.

    Attributes:
        text: explanation in the legend.
        needs: kinds of obligations, recorded by the functions that discharge them.
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
#: Evidence on an assumption or on the paper's form; no rung of the claim itself.
ASIDE: dict[str, Rung] = {
    "needed": _rung("counterexample without an assumption", "rejected"),
    "unneeded": _rung("holds without an assumption", "compared", "proved", "exact"),
    "refuted": _rung("counterexample to the paper's form", "rejected"),
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
        obligations: how many of each kind were discharged.
    """

    examples: int = 0
    ratio: float | None = None
    error: float | None = None
    counterexample: str = ""
    obligations: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


_current = Evidence()
_seen: dict[str, float] = {}  # of the example at hand


def begin() -> Evidence:
    """Start a new record; called before each test."""
    global _current
    _current = Evidence()
    return _current


def checks(claim: str, rung: str, *, drops: str = "", refutes: bool = False) -> Callable[[F], F]:
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


def record(kind: Kind) -> None:
    """Count a discharged obligation. Called by what discharges it, after it succeeded."""
    _current.obligations[kind] = _current.obligations.get(kind, 0) + 1


def evidence_kind(rung: str, refutes: bool) -> str:
    """Name under which a test of this mark counts: its rung, or `refuted`."""
    return "refuted" if refutes else rung


def unmet(marks: Iterable[tuple[str, str, bool]], obligations: Mapping[str, int]) -> list[str]:
    """Marks `(claim, rung, refutes)` for which no obligation was discharged, as text."""
    lines = []
    for claim, rung, refutes in marks:
        name = evidence_kind(rung, refutes)
        needs = (LADDER | ASIDE)[name].needs
        if not any(obligations.get(kind) for kind in needs):
            lines.append(f"{claim} {name}: none of {', '.join(sorted(needs))} happened")
    return lines


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
    record("compared")


def holds(condition: Any, kind: Kind = "compared") -> bool:
    """Whether a condition holds, recorded if it does: `assert holds(trapped == expected)`."""
    if condition:
        record(kind)
    return bool(condition)


def attains(value: float, bound: float, share: float = 0.99, tolerance: float = 0.0) -> None:
    """Assert that a worst case reaches `share` of a bound and stays below it: the bound is tight."""
    below(value, bound, tolerance)
    assert value >= share * bound, f"only {value / bound:.3f} of the bound is reached"
    record("searched")


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
    record("compared")


def reaches(worst: Any, bound: Any, tolerance: float, scale: float | None = None) -> None:
    """Assert that a worst case, known by its construction, equals a bound."""
    equal(worst, bound, tolerance, scale)
    record("searched")


def counterexample(text: str) -> None:
    """Record an instance that breaks the claim without the dropped assumption."""
    _current.counterexample = text
    record("rejected")
