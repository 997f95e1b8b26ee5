"""A stronger version of a method, for requests that an edit did not reach."""

from __future__ import annotations

from metake.errors import MetakeError
from metake.methods.base import Method

WEAKER = 4.0  # factor by which a strength that is given as lambda or L2 decreases
LONGER = 2  # factor of the steps


def check_attempts(escalate: object) -> None:
    """Refuse a number of attempts that is none.

    Args:
        escalate: argument of `Editor.edit`.

    Raises:
        MetakeError: not a whole number, or below 0.
    """
    if isinstance(escalate, bool) or not isinstance(escalate, int) or escalate < 0:
        raise MetakeError(f"edit: escalate must be a number of attempts, at least 0, not {escalate!r}")


def stronger(method: Method) -> Method:
    """A method with a weaker constraint and more steps.

    The attenuation moves half of its distance to 1, or lambda (L2) is divided by `WEAKER`; the steps of both loops (the
    epochs of a fine-tuning) are doubled, and a clamp is removed.

    Args:
        method: the method.

    Returns:
        A copy; the method itself if it has no such setting.
    """
    changes: dict[str, float | None] = {
        name: LONGER * method.value(name) for name in ("steps", "meta_steps", "epochs") if method.paths(name)
    }
    if method.paths("attenuation") and (eta := method.value("attenuation")) is not None:
        changes["attenuation"] = (1 + eta) / 2
    elif method.constraint_setting:
        changes[method.constraint_setting] = method.value(method.constraint_setting) / WEAKER
    changes |= {name: None for name in ("clamp", "norm_constraint") if method.paths(name)}
    return method.updated(**changes)
