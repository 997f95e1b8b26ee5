"""Reach of a method at some layers: what a few short virtual edits achieve, and at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from metake.calibration.constants import REQUESTS, STEPS
from metake.geometry.statistics import Statistics
from metake.methods.locate_then_edit import LocateThenEdit
from metake.models.editable import EditableModel
from metake.models.trace import frozen
from metake.planners.problem import PlanningProblem
from metake.planners.target_optimization import Penalty
from metake.requests import EditRequest


@dataclass(frozen=True)
class Reach:
    """Virtual edits of a few requests with a method, on its layers.

    Attributes:
        layers: edited layers.
        eta: median attenuation of the requests' keys.
        constraint: strength of the constraint by name.
        probability: mean probability of the target's tokens after the solve (the geometric mean over a target's tokens).
        cost: mean cost of an edit on preserved keys, tr(D G D^T) / ||h||^2 (X14).
    """

    layers: tuple[int, ...]
    eta: float
    constraint: dict[str, float]
    probability: float
    cost: float


def few(requests: Sequence[EditRequest]) -> Sequence[EditRequest]:
    """At most `REQUESTS` requests, at equal distances.

    Args:
        requests: the requests.

    Returns:
        Some of them, in their order.
    """
    return requests[:: -(-len(requests) // REQUESTS)]


def shortened(method: LocateThenEdit, steps: int = STEPS) -> LocateThenEdit:
    """A method whose loops take few steps.

    Args:
        method: the method.
        steps: largest number of steps of each loop.

    Returns:
        A copy.
    """
    names = [name for name in ("steps", "meta_steps") if method.supported_changes({name: steps})]
    return method.updated(**{name: min(steps, method.value(name)) for name in names})


def reach(
    model: EditableModel,
    method: LocateThenEdit,
    requests: Sequence[EditRequest],
    statistics: Statistics | None,
    scale: float | None = None,
) -> Reach:
    """What short virtual edits achieve; the model is not changed.

    Only bare prompts are used. The edits are planned and solved together, in the first stage of the method.

    Args:
        model: the model.
        method: the method, with its layers and its attenuation.
        requests: a few requests.
        statistics: second moments of the layers' keys.
        scale: factor of the geometries, if it is known; otherwise it follows from the method's attenuation.

    Returns:
        Probability of the targets after the solve, and the cost.
    """
    method = shortened(method)
    state = replace(method.init(model, statistics), contexts=(), scale=scale)
    with frozen(model.model):
        state = method.prepare(model, state, requests)
        solver = method.solver(model, state)
        batch, prompts = method.batch(model, requests, state)
        targets = method.plan(model, solver, batch, prompts)
        with torch.no_grad():
            solution = solver.solve(prompts, targets.residuals)
            problem = PlanningProblem(model, solver, batch, prompts, None, method.max_tokens)
            nll = problem.evaluate_post_edit(targets.residuals, Penalty()).nll
        eta = torch.stack(list(solution.eta.values()))
        cost = solution.cost(False).cpu() / targets.hidden.norm(dim=1).square().cpu()
    return Reach(
        method.layers,
        float(eta.double().quantile(0.5)),
        method.constraint(state),
        float(nll.neg().exp().mean()),
        float(cost.mean()),
    )
