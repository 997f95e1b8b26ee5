"""Four sentences for a newcomer: attenuation, and what closing the loop did in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metake.evaluation.conclusion import begins_with_target

LOOPS = {"open-loop": "open loop", "closed-loop": "closed loop"}
Row = Mapping[str, Any]
ATTENUATION = (
    "Attenuation: an edit first plans a shift of a hidden state and then solves for weights that must also preserve other "
    "knowledge, and so a layer writes only the share eta of the shift that is planned there."
)


def rows_by_loop(content: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Rows of the open-loop and of the closed-loop methods; controls and methods without a plan are left out.

    Args:
        content: content of a result file.

    Returns:
        `open loop` and `closed loop`, if there are any -> rows.
    """
    found: dict[str, list[Row]] = {}
    for kind, loop in LOOPS.items():
        for row in content["methods"]:
            settings = row["settings"]
            planner = settings.get("planner") or {}
            if planner.get("kind") == kind and settings.get("rounds", 1) == 1 and row["batches"]:
                found.setdefault(loop, []).append(row)
    return found


def median_of(rows: Sequence[Row], field: str) -> float:
    """Median over the edits (and layers) of some methods.

    Args:
        rows: rows of a result file.
        field: a field of their batches.

    Returns:
        The median.
    """
    return float(
        np.median(np.concatenate([np.ravel(batch[field]) for row in rows for batch in row["batches"]]))
    )


def _each(loops: Mapping[str, Sequence[Row]], say: Any) -> str:
    """A value per loop: `0.17 with the open loop and 0.20 with the closed loop`."""
    return " and ".join(f"{say(rows)} with the {loop}" for loop, rows in loops.items())


def _named(rows: Sequence[Row]) -> str:
    return ", ".join(row["method"] for row in rows)


def _right(rows: Sequence[Row]) -> str:
    found = {row["method"]: begins_with_target(row) for row in rows}
    return ", ".join(f"{sum(right)} ({name})" for name, right in found.items() if right)


def explain_run(content: Mapping[str, Any]) -> list[str]:
    """At most four sentences on attenuation and on the two loops, with numbers of this run.

    Args:
        content: content of a result file.

    Returns:
        The sentences; those about what the run does not have are left out, and all without a planned edit.
    """
    loops = rows_by_loop(content)
    if not loops:
        return []
    meaning = {
        "open loop": "an open loop ({}) plans the shift as if all of it were written",
        "closed loop": "a closed loop ({}) optimizes the plan for the loss after the solve",
    }
    said = "; ".join(meaning[loop].format(_named(rows)) for loop, rows in loops.items())
    eta = _each(loops, lambda rows: f"{median_of(rows, 'eta'):.2f}")
    share = _each(loops, lambda rows: f"{100 * median_of(rows, 'realized_share'):.0f} %")
    reached = _each(loops, lambda rows: f"{median_of(rows, 'realized_norm'):.2f}")
    sentences = [
        ATTENUATION,
        f"{said[0].upper()}{said[1:]}.",
        f"In this run the median eta is {eta}; the median realized share of the planned shift is {share}.",
    ]
    last = f"Relative to the hidden state's norm, the median shift that reached the last edited layer is {reached}"
    if all(_right(rows) for rows in loops.values()):
        last += f"; of {content['edits']} answers, {_each(loops, _right)} begin with the target"
    return [*sentences, f"{last}."]
