"""Escalation: further attempts with a weaker constraint and more steps."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metake.calibration.escalation import LONGER, WEAKER, stronger
from metake.errors import MetakeError
from metake.methods.table import METHODS, method_named
from tests.cases import editor_of

HELPS = {"attenuation": 0.2, "lookup": "prompt"}  # two of three facts fail, then one, then none
WITH_LAMBDA = {"lam": 1000.0, "lookup": "prompt"}


def editor(model, statistics, **changes):
    return editor_of(model, statistics, "memit", **changes)


@given(st.floats(0.01, 0.99), st.integers(1, 50))
def test_stronger_moves_the_attenuation_half_way_to_one(eta, steps):
    method = method_named("metake", (1,)).updated(attenuation=eta, steps=steps, clamp=0.5)
    found = stronger(method)
    assert found.value("attenuation") == pytest.approx(eta + (1 - eta) / 2)
    assert found.value("lam") == method.value("lam")
    assert found.value("steps") == LONGER * steps
    assert found.value("meta_steps") == LONGER * method.value("meta_steps")
    assert found.value("clamp") is None


@pytest.mark.parametrize("name", METHODS)
def test_stronger_of_every_method(name):
    """Without an attenuation the strength decreases; the name stays."""
    method = method_named(name, (1, 2))
    found = stronger(method)
    assert found.name == method.name
    if setting := method.constraint_setting:
        assert found.value(setting) == method.value(setting) / WEAKER


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "2", None])
def test_check_attempts_refuses_what_is_no_number_of_attempts(demo, statistics, requests, wrong):
    with editor(demo, statistics) as made, pytest.raises(MetakeError, match="escalate must be a number"):
        made.edit(requests, escalate=wrong)


@pytest.mark.parametrize("changes", [HELPS, WITH_LAMBDA], ids=["attenuation", "lambda"])
def test_escalation_succeeds_where_the_first_attempt_fails(unchanged, statistics, requests, changes):
    """The result is that of an edit with its method alone; the constraint is the one that was solved with."""
    with editor(unchanged, statistics, **changes) as made:
        assert made.edit(requests).failed
        made.undo()
        result = made.edit(requests, escalate=3)
        assert not result.failed
        assert result.method == stronger(stronger(made.method))
        assert len(made.batches) == 1
    alone = editor(unchanged, statistics, **changes)
    alone = type(alone)(unchanged, method=result.method, statistics=statistics, progress=False)
    with alone:
        expected = alone.edit(requests)
        assert result.constraint == expected.constraint == result.delta.note["constraint"]
        assert result.delta.layers == expected.delta.layers
        for layer in result.delta.layers:
            assert torch.equal(result.delta.to_dense(layer), expected.delta.to_dense(layer))
    assert result.delta.note["settings"] == result.method.model_dump()


@pytest.mark.parametrize("changes", [HELPS, WITH_LAMBDA], ids=["attenuation", "lambda"])
def test_escalation_leaves_later_batches_as_they_were(unchanged, statistics, requests, records, changes):
    """Method, scale and update of the next batch equal those after the escalated delta was restored."""
    later = [records[6].request]
    with editor(unchanged, statistics, **changes) as made:
        method = made.method
        first = made.edit(requests)
        scale, first_constraint = made.state.scale, first.constraint
        made.undo()
        result = made.edit(requests, escalate=3)
        assert made.method == method
        assert made.state.scale == scale
        found = made.edit(later)
        assert (found.method, found.constraint) == (method, first_constraint)
    with editor(unchanged, statistics, **changes) as other:
        other.restore(requests, result.delta, result.memory)
        assert other.state.scale == scale
        expected = other.edit(later)
    for layer in expected.delta.layers:
        assert torch.equal(found.delta.to_dense(layer), expected.delta.to_dense(layer))


def test_escalation_that_does_not_help_keeps_the_best(unchanged, statistics, requests):
    """With lambda = 1e12 no attempt succeeds; weights and result are those of the first."""
    with editor(unchanged, statistics, lam=1e12, lookup="prompt") as made:
        first = made.edit(requests)
        weight = unchanged.weight(2).clone()
        made.undo()
        result = made.edit(requests, escalate=2)
        assert len(result.failed) == len(first.failed) == 3
        assert result.method == made.method
        assert made.batches == [result]
        assert torch.equal(unchanged.weight(2), weight)


def test_escalation_stops_at_the_first_success(unchanged, statistics, requests, monkeypatch):
    """No attempt after a success, and none if nothing failed."""
    from metake import editor as module

    attempts = []
    monkeypatch.setattr(module, "stronger", lambda method: attempts.append(method) or stronger(method))
    with editor(unchanged, statistics, **HELPS) as made:
        made.edit(requests, escalate=9)
        assert len(attempts) == 2
    with editor(unchanged, statistics, lam=10.0, lookup="prompt", steps=30) as made:
        assert not made.edit(requests, escalate=9).failed
        assert len(attempts) == 2
