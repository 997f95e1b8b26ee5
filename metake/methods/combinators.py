"""Combinators: each function returns a copy of a method with one component exchanged."""

from __future__ import annotations

from metake.errors import MetakeError
from metake.methods.locate_then_edit import LocateThenEdit
from metake.planners.closed_loop import ClosedLoop
from metake.planners.compensated import Compensated
from metake.planners.gradients import Gradient, UnrolledGradient
from metake.planners.open_loop import OpenLoop
from metake.planners.windows import WindowByWindow
from metake.solvers.allocation import Boundary, Forward
from metake.solvers.memory import PastKeys
from metake.solvers.postprocess import Postprocess
from metake.windows import AnswerWindows, Windows


def _check(method: LocateThenEdit) -> None:
    if not isinstance(method, LocateThenEdit):
        raise MetakeError(f"method: {type(method).__name__} has no planner or solver to exchange")


def _changed(method: LocateThenEdit, label: str, **parts: object) -> LocateThenEdit:
    _check(method)
    return method.changed({(name,): part for name, part in {**parts, "label": label}.items()})


def metake(
    method: LocateThenEdit, gradient: Gradient | None = None, *, cost_weight: float = 0.0, label: str = ""
) -> LocateThenEdit:
    """MetaKE over the lower level of a method: its planner chooses the initial target.

    Args:
        method: a method with an open-loop planner, e.g. `memit(layers)`.
        gradient: gradient of the closed loop; the exact hypergradient by default.
        cost_weight: weight of the update's cost on preserved keys (X14).
        label: name of the result; `metake(NAME)` by default.

    Returns:
        A copy with a closed-loop planner.

    Raises:
        MetakeError: the method has no open-loop planner.
    """
    _check(method)
    start = method.planner
    if not isinstance(start, OpenLoop):
        raise MetakeError(f"metake: needs a method with an open-loop planner, not {start.kind}")
    planner = ClosedLoop(start=start, gradient=gradient or UnrolledGradient(), cost_weight=cost_weight)
    return _changed(method, label or f"metake({method.name})", planner=planner)


def compensated(method: LocateThenEdit, *, label: str = "") -> LocateThenEdit:
    """Method whose plans are scaled until the solver realizes them in full (P4).

    Args:
        method: a method with an open-loop planner.
        label: name of the result; `compensated(NAME)` by default.

    Returns:
        A copy with a compensated planner.

    Raises:
        MetakeError: the method has no open-loop planner.

    Example:
        >>> import metake as mk
        >>> mk.compensated(mk.memit([1, 2])).planner.kind
        'compensated'
    """
    _check(method)
    plan = method.planner
    if type(plan) is not OpenLoop:
        raise MetakeError(f"compensated: needs a method with an open-loop planner, not {plan.kind}")
    numbers = {name: getattr(plan, name) for name in plan.model_fields_set}
    return _changed(method, label or f"compensated({method.name})", planner=Compensated(**numbers))


def iterated(method: LocateThenEdit, rounds: int, *, label: str = "") -> LocateThenEdit:
    """Method of several rounds of plan and solve, each on the model edited so far, with the same total number of steps.

    Args:
        method: the method of each round.
        rounds: number of rounds.
        label: name of the result; `iterated(NAME, ROUNDS)` by default.

    Returns:
        A copy with `rounds`.

    Example:
        >>> import metake as mk
        >>> mk.iterated(mk.memit([1, 2]), 3).rounds
        3
    """
    return _changed(method, label or f"iterated({method.name}, {rounds})", rounds=rounds)


def with_past_keys(method: LocateThenEdit, *, label: str = "") -> LocateThenEdit:
    """Method with the keys of earlier batches in its geometry (AlphaEdit).

    Args:
        method: any locate-then-edit method.
        label: name of the result; `NAME + past-keys` by default.

    Returns:
        A copy with that memory.

    Example:
        >>> import metake as mk
        >>> mk.with_past_keys(mk.memit([1, 2])).name
        'memit + past-keys'
    """
    return _changed(method, label or f"{method.name} + past-keys", memory=PastKeys())


def forward_replay(method: LocateThenEdit, *, label: str = "") -> LocateThenEdit:
    """Method with a target at the first layer, propagated to the later ones (FE).

    Args:
        method: any locate-then-edit method.
        label: name of the result; `forward_replay(NAME)` by default.

    Returns:
        A copy with that allocation.

    Example:
        >>> import metake as mk
        >>> mk.forward_replay(mk.memit([1, 2])).allocation.kind
        'forward'
    """
    return _changed(method, label or f"forward_replay({method.name})", allocation=Forward())


def with_boundary_targets(method: LocateThenEdit, *, label: str = "") -> LocateThenEdit:
    """Method with a target at the first and one at the last layer (BLUE).

    Args:
        method: any locate-then-edit method.
        label: name of the result; `with_boundary_targets(NAME)` by default.

    Returns:
        A copy with that allocation.
    """
    return _changed(method, label or f"with_boundary_targets({method.name})", allocation=Boundary())


def in_windows(
    method: LocateThenEdit,
    planner: OpenLoop | None = None,
    windows: Windows | None = None,
    *,
    label: str = "",
) -> LocateThenEdit:
    """Method with a target per window of the answer (AnyEdit), without contexts.

    Args:
        method: any locate-then-edit method.
        planner: planner of the windows; one after the other by default.
        windows: division of the answer; by default windows of equal size, with the keys of all other tokens preserved.
        label: name of the result; `in_windows(NAME)` by default.

    Returns:
        A copy with that planner and these windows.
    """
    parts = {"planner": planner or WindowByWindow(), "windows": windows or AnswerWindows()}
    return _changed(method, label or f"in_windows({method.name})", **parts)


def postprocessed(method: LocateThenEdit, postprocess: Postprocess, *, label: str = "") -> LocateThenEdit:
    """Method with a change of its updates after the solve.

    Args:
        method: any locate-then-edit method.
        postprocess: the change.
        label: name of the result; `NAME + KIND` by default.

    Returns:
        A copy with that postprocess.
    """
    return _changed(method, label or f"{method.name} + {postprocess.kind}", postprocess=postprocess)
