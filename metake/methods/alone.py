"""Requests that are edited alone, each into the unedited model: their open-loop plans are found in one optimization.

The loss of an open-loop plan depends on neither the solve nor the other requests, so the plans of many requests cost few
passes with many rows in place of many with few. The solves, and closed loops, stay one per request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from metake.methods.base import Method
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.lookup_keys import Group
from metake.methods.state import State
from metake.models.editable import EditableModel
from metake.models.trace import frozen
from metake.planners.base import Planner
from metake.planners.closed_loop import ClosedLoop
from metake.planners.open_loop import OpenLoop
from metake.planners.target_optimization import TargetOptimization
from metake.requests import EditRequest


def open_loop(planner: Planner) -> OpenLoop | None:
    """Planner of the open-loop plans, which a closed loop starts from; None if there is none.

    Args:
        planner: any planner.

    Returns:
        The planner itself, or the start of a closed loop.
    """
    start = planner.start if isinstance(planner, ClosedLoop) else planner
    return start if isinstance(start, OpenLoop) else None


def plans_alone(method: Method) -> bool:
    """Whether the open-loop plan of a request depends on no solve and on no other request.

    Args:
        method: any method.

    Returns:
        False for several rounds or stages, for shared targets, and for an early stop on the loss after the solve.
    """
    if not isinstance(method, LocateThenEdit) or method.merge or len(method.stages) > 1:
        return False
    start = open_loop(method.planner)
    return start is not None and start.stop != "post_edit_loss"


def plan_key(method: LocateThenEdit, state: State) -> str:
    """Text that two methods have in common if their open-loop plans are the same.

    Args:
        method: a method that `plans_alone`.
        state: its state, with contexts.

    Returns:
        The settings that a plan depends on.
    """
    start = open_loop(method.planner)
    assert start is not None
    numbers = method.model_dump(include={"windows", "loss_dtype", "consistent_lookup", "max_tokens"})
    return json.dumps([start.model_dump(), numbers, method.lookup_token, method.stages, state.contexts])


def plan_together(
    method: LocateThenEdit,
    model: EditableModel,
    requests: Sequence[EditRequest],
    state: State,
    on_step: Callable[[], object] = lambda: None,
) -> list[TargetOptimization]:
    """Open-loop plan of each request as if it were edited alone; all are found in one optimization.

    Args:
        method: a method that `plans_alone`.
        model: the unedited model.
        requests: the requests.
        state: state of the method, with contexts and without memory.
        on_step: called after every gradient step.

    Returns:
        One plan per request, for `group_of`. The history of each is that of all.
    """
    start = open_loop(method.planner)
    assert start is not None
    batch, prompts = method.batch(model, requests, state)
    whole, solver = method.replaced("planner", start), method.solver(model, state)
    with frozen(model.model):
        plan = whole.plan(model, solver, batch, prompts, on_step).plan
    return [part_of(plan, batch.owners == i) for i in range(len(requests))]


def group_of(
    method: LocateThenEdit, model: EditableModel, request: EditRequest, state: State, plan: TargetOptimization
) -> Group:
    """Input of `method.step` for one request with a known plan.

    Args:
        method: the method.
        model: the unedited model.
        request: the request.
        state: state of the method, as of `plan_together`.
        plan: its open-loop plan.

    Returns:
        A group, for `method.step(model, [request], state, on_step, inputs=(group,))`.
    """
    return Group(slice(0, 1), *method.batch(model, [request], state), plan)


def part_of(plan: TargetOptimization, rows: Tensor) -> TargetOptimization:
    """Optimization of some residuals, from one of more.

    Args:
        plan: the optimization.
        rows: `n` flags of the residuals.

    Returns:
        Their residuals, steps and losses; the history is that of all.
    """
    names = ("residuals", "steps", "nll", "post_edit_nll", "clamped")
    parts = {name: getattr(plan, name)[rows.to(getattr(plan, name).device)] for name in names}
    return replace(plan, **parts)
