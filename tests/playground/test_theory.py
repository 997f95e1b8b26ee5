"""The theory tab: bounds and laws hold for the library's results at any place of the sliders."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metake.errors import MetakeError
from metake.geometry.operator import Ridge
from metake.playground import theory
from metake.playground.theory_figures import RANGES, answer

START = {
    "lam": 3000.0, "norm": 3.0, "angle": 30, "condition": 1e4, "between": 30, "residuals": 90,
    "theta": 0.1, "ratio": 1.0, "penalty": 10.0, "key_drift": 1e-3,
}  # fmt: skip
LOGARITHMIC = {"lam", "norm", "condition", "theta", "ratio", "penalty", "key_drift"}


def anywhere():
    """Values of all sliders, log-uniform where the slider is logarithmic."""
    of = {}
    for name, (low, high) in RANGES.items():
        if name in LOGARITHMIC:
            exponents = st.floats(math.log10(low), math.log10(high))
            of[name] = exponents.map(lambda x, low=low, high=high: min(max(10**x, low), high))
        else:
            of[name] = st.floats(low, high)
    return st.fixed_dictionaries(of)


@settings(max_examples=60, deadline=None)
@given(anywhere())
@example(START | {"angle": 0.0})  # the bound is closest
@pytest.mark.parametrize("name", ["suppression", "requests", "drift"])
def test_relations_hold_everywhere(name, values):
    """Every law and bound of the tab holds for the library's results."""
    _, found = theory.part(name, values)
    assert [line for line in found.lines if not line.holds] == []


@settings(max_examples=60, deadline=None)
@given(anywhere())
def test_trap_interval_says_which_penalties_serve(values):
    """The library's steps serve both requests exactly where the interval of penalties says so."""
    s, found = theory.part("trap", values)
    safe = np.interp(np.log(s.condition), np.log(found.kappas), np.log(found.safe))
    for penalty, served in zip(found.penalties, found.served, strict=True):
        margin = min(abs(math.log(penalty) - safe), abs(math.log(penalty / found.progress)))
        if margin > 1e-9:  # not on the edge itself
            assert served == (safe <= math.log(penalty) <= math.log(found.progress))


def test_geometry_is_what_the_sliders_say():
    """Norm, angle and condition number of the key and of C; both keys have one norm, and their angle is the slider's."""
    s = theory.Sliders(**START)
    values = np.linalg.eigvalsh(s.moment())
    assert values[-1] / values[0] == pytest.approx(s.condition, rel=1e-6)
    key = s.coordinates()
    assert np.linalg.norm(key) == pytest.approx(s.norm)
    half = theory.D_K // 2
    assert np.degrees(np.arctan2(np.linalg.norm(key[half:]), np.linalg.norm(key[:half]))) == pytest.approx(
        s.angle
    )
    for degrees in (0, 30, 90):
        other = s.second(degrees)
        assert np.linalg.norm(other) == pytest.approx(s.norm)
        assert key @ other / s.norm**2 == pytest.approx(np.cos(np.deg2rad(degrees)), abs=1e-12)


def test_wrong_solver_violates_the_relations(monkeypatch):
    """The points come from the library: a solver that overshoots breaks every part that uses it."""
    channel = Ridge.channel
    monkeypatch.setattr(Ridge, "channel", lambda self, keys: 1.5 * channel(self, keys))
    verdicts = {name: [line.holds for line in theory.part(name, START)[1].lines] for name in theory.PARTS}
    assert not all(verdicts["suppression"])
    assert not all(verdicts["requests"])
    solve = Ridge.solve
    monkeypatch.setattr(Ridge, "solve", lambda self, x: 0.01 * solve(self, x))
    lines = theory.part("trap", START | {"penalty": 1.0, "condition": 1.0})[1].lines
    assert not all(line.holds for line in lines)


@pytest.mark.parametrize("name", theory.PARTS)
def test_answer_has_a_figure_and_plain_lines(name):
    found = answer({**START, "part": name})
    assert "<svg" in found["figure"]
    assert found["alt"]
    assert all(type(line["library"]) is float and type(line["holds"]) is bool for line in found["lines"])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"part": "nowhere"}, "theory: no part 'nowhere'"),
        ({"lam": 0}, "lam: must be from 0.01 to 1e"),
        ({"angle": math.nan}, "angle: must be a number, not nan"),
        ({"norm": "3"}, "norm: must be a number, not '3'"),
        ({"theta": None}, "theta: must be a number, not None"),
    ],
)
def test_answer_refuses_values_out_of_range(change, line):
    with pytest.raises(MetakeError, match=line):
        answer({**START, "part": "suppression", **change})
