"""Reasons of failed edits: attenuation, planning, key, or none that is known."""

from types import SimpleNamespace

import pytest
import torch

from metake.answers import Answer
from metake.deltas import Delta
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.state import Stage
from metake.requests import EditRequest
from metake.result import EditResult
from metake.solvers.layered import Solution

NAN = float("nan")


def losses(planned, post_edit):
    """A plan of one request with its NLL while planning and after the solve."""
    return SimpleNamespace(
        steps=torch.tensor([7]), nll=torch.tensor([planned]), post_edit_nll=torch.tensor([post_edit])
    )


def result_of(success, realized, plan, closed=None, stages=True):
    """Report of one request at one layer, from values written down here."""
    request, one = EditRequest("{} is", "Ann", "x"), torch.ones(1, 1)
    solution = Solution({}, {}, {1: torch.zeros(1)}, {1: torch.zeros(1)}, realized * one, one)
    targets = SimpleNamespace(hidden=one, plan=plan, closed=closed, scale=torch.ones(1))
    method = LocateThenEdit(layers=(1,), label="memit")
    answer = Answer("Ann is", "x", "y", "x" if success else "y")
    made = (Stage(targets, solution, slice(0, 1), [(1, 1.0)]),) if stages else ()
    return EditResult((request,), method, Delta({}), made, 1.0, {}, (answer,))


@pytest.mark.parametrize(
    ("realized", "planned", "post_edit", "reason"),
    [
        (0.4, 0.01, 0.01, "attenuation: 40% of the planned shift was realized"),
        (0.4, 5.0, 5.0, "attenuation: 40% of the planned shift was realized"),
        (0.9, 0.01, 3.0, "planning: the target's probability was 0.05 after 7 steps"),
        (0.9, 3.0, NAN, "planning: the target's probability was 0.05 after 7 steps"),
        (0.9, 3.0, 0.01, "key: the target was reached in the mean over contexts, but not in the bare prompt"),
        (0.9, 0.01, NAN, "key: the target was reached in the mean over contexts, but not in the bare prompt"),
        (0.5, 0.69, 0.70, "planning: the target's probability was 0.50 after 7 steps"),
        (
            0.5,
            0.70,
            0.69,
            "key: the target was reached in the mean over contexts, but not in the bare prompt",
        ),
    ],
)
def test_failure_reasons_name_what_limits_the_edit(realized, planned, post_edit, reason):
    """Less than half of the shift, then a probability below a half after the solve (or of the plan), then the key."""
    result = result_of(False, realized, losses(planned, post_edit))
    assert result.failure_reasons == {"Ann": reason}
    assert result.summary()["failures"] == {"Ann": reason}


def test_failure_reasons_take_the_loss_of_the_closed_loop():
    """Where there is one; the steps of both loops add up."""
    found = result_of(False, 0.9, losses(0.01, 0.01), losses(3.0, NAN)).failure_reasons
    assert found == {"Ann": "planning: the target's probability was 0.05 after 14 steps"}
    found = result_of(False, 0.9, losses(3.0, 3.0), losses(0.01, NAN)).failure_reasons
    assert found["Ann"].startswith("key:")


def test_failure_reasons_are_empty_after_a_success():
    assert result_of(True, 0.1, losses(5.0, 5.0)).failure_reasons == {}


def test_failure_reasons_without_a_plan_are_not_known():
    found = result_of(False, 0.9, losses(0.1, 0.1), stages=False).failure_reasons
    assert found == {"Ann": "not known: the method plans no targets"}
