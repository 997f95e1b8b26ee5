"""The open loop and the closed loop under the same constraint, and sentences on a run of the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metake.evaluation.page import write_layers
from metake.methods.base import Method
from metake.models.editable import EditableModel
from metake.presets import settings_for
from metake.words import counted

OPEN, CLOSED, CONTROL = "memit", "metake", "memit-compensated"
STEPS, PLAN = 20, 8  # gradient steps of either method; of these, steps of the closed loop's plan
LAMBDA = {"smollm2": 15_000.0, "demo": 3_000.0}  # MEMIT's published value, and one for the small models


def story_methods(model: EditableModel) -> list[Method]:
    """Methods that differ in the target alone: same lambda, layers, rate, contexts, and number of steps.

    Args:
        model: the model.

    Returns:
        The open loop, the closed loop, and the control.
    """
    base = settings_for(model, OPEN)
    same = {name: base.value(name) for name in ("layers", "contexts", "lr", "clamp", "decay", "kl")}
    same |= {"lam": LAMBDA.get(model.name, LAMBDA["demo"]), "steps": STEPS, "stop": "planning_loss"}
    closed = {
        "steps": PLAN,
        "meta_steps": STEPS - PLAN,
        "meta_lr": same["lr"],
        "locality": same["kl"],
        "meta_stop": "post_edit_loss",
    }
    return [
        settings_for(model, name, **same | (closed if name == CLOSED else {}))
        for name in (OPEN, CLOSED, CONTROL)
    ]


def right_answers(row: Mapping[str, Any]) -> int:
    """Number of edits whose greedy answer begins with the target.

    Args:
        row: a method's row of the result file.

    Returns:
        The number.
    """
    return int(sum(row["per_record"]["generation_start"]))


def median_eta(row: Mapping[str, Any]) -> float:
    """Median attenuation over edits and layers.

    Args:
        row: a method's row of the result file.

    Returns:
        The median.
    """
    return float(np.median(np.concatenate([np.ravel(batch["eta"]) for batch in row["batches"]])))


def realized(row: Mapping[str, Any]) -> float:
    """Median over edits of the realized shift, relative to the hidden state.

    Args:
        row: a method's row of the result file.

    Returns:
        The median.
    """
    return float(np.median(np.concatenate([batch["realized_norm"] for batch in row["batches"]])))


def missed_by_open(content: Mapping[str, Any]) -> list[int]:
    """Positions of the edits that the open loop misses and the closed loop makes.

    Args:
        content: content of the result file.

    Returns:
        The positions, ascending.
    """
    rows = {row["method"]: row["per_record"]["generation_start"] for row in content["methods"]}
    return [i for i, (a, b) in enumerate(zip(rows[OPEN], rows[CLOSED], strict=True)) if b and not a]


def tell_result(content: Mapping[str, Any]) -> list[str]:
    """Sentences on the methods, and on how often each loop succeeds.

    Args:
        content: content of the result file.

    Returns:
        Two sentences.
    """
    rows = {row["method"]: row for row in content["methods"]}
    count, right, setting = (
        content["edits"],
        {name: right_answers(row) for name, row in rows.items()},
        rows[OPEN]["settings"],
    )
    return [
        f"{OPEN} (open loop) and {CLOSED} (closed loop) edit the same {counted(count, 'fact')} under the same constraint: lambda "
        f"{setting['geometry']['lam']:,.0f}, layers {write_layers(setting['layers'])}, at most {STEPS} gradient steps.",
        f"{OPEN} plans a target and then solves for the weights: {right[OPEN]} of {count} answers begin with the target. "
        f"{CLOSED} optimizes the target for the loss after the solve: {right[CLOSED]} of {count} do.",
    ]


def tell_reason(content: Mapping[str, Any]) -> list[str]:
    """Sentences on the attenuation, on the difference of the two loops, and on the control.

    Args:
        content: content of the result file.

    Returns:
        Three sentences.
    """
    rows = {row["method"]: row for row in content["methods"]}
    open_loop, closed, control = (rows[name] for name in (OPEN, CLOSED, CONTROL))
    count, right = content["edits"], {name: right_answers(row) for name, row in rows.items()}
    said = [
        f"The median attenuation of {OPEN} is eta = {median_eta(open_loop):.2f}: a layer writes about "
        f"{100 * median_eta(open_loop):.0f} % of the residual that it is given."
    ]
    if right[CLOSED] > right[OPEN]:
        longer = realized(closed) > realized(open_loop)
        said.append(
            f"In this run the closed loop succeeds on {right[CLOSED] - right[OPEN]} more"
            + (
                f": the shift that reaches the last edited layer is {realized(closed):.2f} of the hidden state's norm "
                f"instead of {realized(open_loop):.2f}."
                if longer
                else "."
            )
        )
    elif right[CLOSED] == right[OPEN]:
        said.append("In this run both succeed equally often: they do not differ under this constraint.")
    else:
        said.append("In this run the open loop succeeds more often: it does not support the closed loop.")
    said.append(
        f"Control: {CONTROL} lengthens the open-loop plan until it is realized in full; {right[CONTROL]} of {count} are right"
        + kl_sentence(control, closed)
    )
    return said


def kl_sentence(control: Mapping[str, Any], closed: Mapping[str, Any]) -> str:
    """Divergence of the control and the closed loop on unrelated prompts, as the end of a sentence.

    Args:
        control: the control's row of the result file.
        closed: the closed loop's row.

    Returns:
        The end; a full stop alone if it was not measured.
    """
    kl = [row["mean"].get("kl") for row in (control, closed)]
    if None in kl:
        return "."
    return f", with a KL divergence of {kl[0]:.2f} nats on unrelated prompts ({CLOSED}: {kl[1]:.2f})."


def conclusion(content: Mapping[str, Any]) -> Sequence[str]:
    """Conclusion of a run in which the closed loop succeeds more often.

    Args:
        content: content of the result file.

    Returns:
        Sentences; none for another run.
    """
    rows = {row["method"]: row for row in content["methods"]}
    if right_answers(rows[CLOSED]) <= right_answers(rows[OPEN]):
        return []
    shifts = f"{realized(rows[CONTROL]):.2f} of the hidden state's norm, the closed loop's {realized(rows[CLOSED]):.2f}"
    also = right_answers(rows[CONTROL]) >= right_answers(rows[CLOSED])
    more = f"Lengthening the plan also works; its realized shift is {shifts}. " if also else ""
    return [
        f"Conclusion: a plan that ignores the solver can be attenuated until the edit fails. {more}"
        f"This is one run with {counted(content['edits'], 'fact')}; docs/results has the large ones."
    ]
