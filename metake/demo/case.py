"""One edit of a run that the open loop misses and the closed loop makes, with its figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metake.demo.story import CLOSED, OPEN, missed_by_open
from metake.evaluation.cases import question
from metake.report.answers import judge_target
from metake.report.figures import line_styles, panels, save, styled
from metake.report.page import shortened

RULE = (
    "The figure shows one case, chosen by rule: the first edit, in the order of the file, whose answer does not begin with the target before the "
    f"edit and with {OPEN}, and does with {CLOSED}."
)
NONE = f"No edit of this run is missed by {OPEN} and made by {CLOSED}, so no single case is shown."


@dataclass(frozen=True)
class Case:
    """An edit with both loops.

    Attributes:
        prompt, target: the question and the new target.
        before: the unedited model's answer.
        answers: method -> answer.
        planned, realized: method -> length of the shift at the last edited layer, relative to the hidden state's norm.
    """

    prompt: str
    target: str
    before: str
    answers: Mapping[str, str]
    planned: Mapping[str, float]
    realized: Mapping[str, float]

    def described(self) -> str:
        """The case in words, also the figure's text alternative."""
        said = [
            f"{name} plans a shift of {self.planned[name]:.2f} of the hidden state's norm, of which {self.realized[name]:.2f} is "
            f"realized, and the answer is {shortened(self.answers[name], 60)!r}"
            for name in (OPEN, CLOSED)
        ]
        return f"{self.prompt} → {self.target}. Before the edit: {shortened(self.before, 60)!r}. {'; '.join(said)}."


def choose_case(content: Mapping[str, Any]) -> Case | None:
    """The case that `RULE` states.

    Args:
        content: content of a result file with both loops.

    Returns:
        The case; None if there is no such edit.
    """
    rows = {row["method"]: row for row in content["methods"]}
    for index in missed_by_open(content):
        prompt, target = content["requests"][index][:2]
        before = content["before"]["answers"][index][0]
        if judge_target(before, target).good:
            continue
        answers = {name: rows[name]["answers"][index][0] for name in (OPEN, CLOSED)}
        planned = {name: _of_edit(rows[name], prompt, target, "planned_norm") for name in answers}
        realized = {name: _of_edit(rows[name], prompt, target, "realized_norm") for name in answers}
        return Case(question(prompt), target, before, answers, planned, realized)
    return None


def _of_edit(row: Mapping[str, Any], prompt: str, target: str, field: str) -> float:
    """A field of the batches for one edit, which its prompt and target identify: equal requests are edited once."""
    return next(
        float(batch[field][position])
        for batch in row["batches"]
        for position, request in enumerate(batch["requests"])
        if (request["prompt"].replace("{}", request["subject"]), request["target_new"]) == (prompt, target)
    )


def plot_case(case: Case, path: Path) -> Path:
    """Draw the planned and the realized shift of both loops, with their answers.

    Args:
        case: the case.
        path: the file (png, pdf or svg).

    Returns:
        Path of the file.
    """
    names = {OPEN: "open loop", CLOSED: "closed loop"}
    with styled():
        figure, axis = panels(figsize=(3.6, 2.7))
        for place, (name, loop) in enumerate(names.items()):
            color = line_styles([name])[name][0]
            right = judge_target(case.answers[name], case.target).good
            axis.barh(place, case.planned[name], 0.5, color="white", edgecolor=color, hatch="////", lw=1)
            axis.barh(place, case.realized[name], 0.5, color=color)
            verdict = f"{'right' if right else 'wrong'}: {shortened(case.answers[name], 34)}"
            axis.annotate(
                f"{name} ({loop}), {verdict}", (0, place - 0.27), (3, 2), textcoords="offset points"
            )
        axis.set_ylim(1.45, -0.75)
        axis.set_yticks([])
        axis.set_xlabel("length of the shift / norm of the hidden state")
        axis.set_title(f"{shortened(case.prompt, 46)} → {shortened(case.target, 20)}", loc="left")
        handles = [
            axis.barh(0, 0, color="0.4", label="realized"),
            axis.barh(0, 0, color="white", edgecolor="0.4", hatch="////", label="planned"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
        return save(figure, path)
