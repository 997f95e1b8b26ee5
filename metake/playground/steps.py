"""Steps of a session with the values that the page sends and receives."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from metake.errors import MetakeError
from metake.playground.choices import Choice
from metake.playground.content import edits, planned
from metake.playground.session import Session
from metake.requests import EditRequest

Given = Mapping[str, Any]
Step = Callable[[Session, Given], dict[str, Any]]


def number(given: Given, name: str, low: float, high: float) -> float:
    """A number that the page sends.

    Args:
        given: values by name.
        name: name of the number.
        low: smallest number that is accepted.
        high: largest one.

    Returns:
        The number.

    Raises:
        MetakeError: it is missing, no number, or out of range.
    """
    value = given.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise MetakeError(f"{name}: must be a number, not {value!r}")
    if not low <= value <= high:
        raise MetakeError(f"{name}: must be from {low:g} to {high:g}, not {value:g}")
    return float(value)


def _text(given: Given, name: str) -> str:
    value = given.get(name, "")
    if not isinstance(value, str):
        raise MetakeError(f"{name}: must be a text, not {type(value).__name__}")
    return value


def _lines(given: Given, name: str) -> list[str]:
    """Prompts of a text box, one a line."""
    return [line.strip() for line in _text(given, name).splitlines() if line.strip()]


def _request(given: Given) -> EditRequest:
    for name, label in (("prompt", "prompt"), ("subject", "subject"), ("target", "new target")):
        if not _text(given, name).strip():
            raise MetakeError(f"{label}: it is empty; give it a text")
    return EditRequest.parse(_text(given, "prompt"), _text(given, "subject"), _text(given, "target"))


def _choice(given: Given) -> Choice:
    strength = None if given.get("strength") is None else number(given, "strength", 0.01, 0.999)
    return Choice(_text(given, "method"), strength, bool(given.get("calibrate")))


def _check_revision(session: Session, given: Given) -> None:
    """Refuse a change of a model that is not the one that the page shows."""
    if given.get("revision") != session.revision:
        raise MetakeError("the model was changed in another window; its edits are shown now, press again")


def preview(session: Session, given: Given) -> dict[str, Any]:
    """Predicted realization of an edit.

    Args:
        session: the session.
        given: prompt, subject, target, method, strength and calibrate.

    Returns:
        See `planned`.
    """
    return planned(session.plan(_request(given), _choice(given)))


def edit(session: Session, given: Given) -> dict[str, Any]:
    """Make an edit, of the model that the page shows.

    Args:
        session: the session.
        given: as for `preview`, and the revision.

    Returns:
        The edits.
    """
    _check_revision(session, given)
    session.edit(_request(given), _choice(given))
    return edits(session)


def undo(session: Session, given: Given) -> dict[str, Any]:
    """Revert the last edit, or all of them, of the model that the page shows.

    Args:
        session: the session.
        given: the revision, and `all`.

    Returns:
        The edits.
    """
    _check_revision(session, given)
    if given.get("all"):
        session.undo_all()
    else:
        session.undo()
    return edits(session)


def compare(session: Session, given: Given) -> dict[str, Any]:
    """Answers without and with the edits.

    Args:
        session: the session.
        given: prompt, subject and target, and the three text boxes.

    Returns:
        The comparisons.
    """
    fact = any(_text(given, name).strip() for name in ("prompt", "subject", "target"))
    found = session.compare(
        _request(given) if fact else None,
        _lines(given, "own"),
        _lines(given, "rephrasings"),
        _lines(given, "neighbors"),
    )
    return {
        "revision": session.revision,
        "edits": len(session.entries),
        "rows": [asdict(row) for row in found],
    }


STEPS: dict[str, Step] = {"preview": preview, "edit": edit, "undo": undo, "compare": compare}
