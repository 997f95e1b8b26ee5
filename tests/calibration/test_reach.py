"""Reach: short virtual edits of a few requests."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metake.calibration.constants import REQUESTS, STEPS
from metake.calibration.reach import few, reach, shortened
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.table import METHODS, method_named

LAYERED = [name for name, row in METHODS.items() if isinstance(row.prototype, LocateThenEdit)]


@given(st.integers(1, 200))
def test_few_are_spread_over_the_requests(count):
    found = few(range(count))
    assert found[0] == 0
    assert min(count, REQUESTS // 2 + 1) <= len(found) <= REQUESTS
    assert len({b - a for a, b in itertools.pairwise(found)}) <= 1
    assert count - found[-1] <= -(-count // REQUESTS)


@pytest.mark.parametrize("name", LAYERED)
def test_shortened_bounds_steps_and_changes_nothing_else(name):
    method = method_named(name, (1, 2))
    short = shortened(method)
    names = [n for n in ("steps", "meta_steps") if method.paths(n)]
    assert names
    assert all(short.value(n) == min(STEPS, method.value(n)) for n in names)
    assert short.updated(**{n: method.value(n) for n in names}) == method
    assert shortened(method.updated(steps=2)).value("steps") == 2


@pytest.fixture
def memit():
    return method_named("memit", (1, 2)).updated(lookup="prompt", attenuation=0.8, lr=0.4)


def test_reach_has_the_attenuation_that_was_asked_for(unchanged, requests, statistics, memit):
    found = reach(unchanged, memit, requests, statistics)
    assert found.layers == (1, 2)
    assert found.eta == pytest.approx(0.8, abs=0.1)  # keys of the second layer follow the first one's update
    assert found.constraint["attenuation"] == 0.8
    assert 0 < found.probability <= 1
    assert found.cost > 0


def test_reach_is_deterministic(unchanged, requests, statistics, memit):
    assert reach(unchanged, memit, requests, statistics) == reach(unchanged, memit, requests, statistics)


def test_reach_increases_with_the_attenuation(unchanged, requests, statistics, memit):
    """More of the plan is realized, and preserved keys change more: the cost in units of lambda C is larger."""
    weak, strong = (
        reach(unchanged, memit.updated(attenuation=eta), requests, statistics) for eta in (0.1, 0.9)
    )
    assert strong.probability > weak.probability + 0.1
    assert strong.cost / strong.constraint["lam"] > weak.cost / weak.constraint["lam"]


def test_reach_takes_a_known_strength(unchanged, requests, statistics, memit):
    """A factor of the geometry in place of the attenuation; it is not derived again."""
    derived = reach(unchanged, memit, requests, statistics)
    factor = derived.constraint["lam"] / memit.value("lam")
    assert reach(unchanged, memit, requests, statistics, factor) == derived
    weaker = reach(unchanged, memit, requests, statistics, factor / 10)
    assert weaker.constraint["lam"] == pytest.approx(derived.constraint["lam"] / 10)
    assert weaker.eta > derived.eta


@pytest.mark.parametrize("name", LAYERED)
def test_reach_of_every_method(unchanged, requests, statistics, name):
    method = method_named(name, (1,)).updated(attenuation=0.7, lookup="prompt")
    found = reach(unchanged, shortened(method, 2), requests[:2], statistics)
    assert found.eta == pytest.approx(0.7, abs=0.02)
    assert 0 < found.probability <= 1
