"""Report of a batch of edits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metake.answers import CHECKED, HEAD, Answer, count_successes, show_answers
from metake.deltas import Delta
from metake.errors import MetakeError
from metake.files import as_path
from metake.methods.base import Method
from metake.methods.state import LayerMemory, Stage
from metake.preview import ETA, constraint_lines, moved_lines, predicted_line
from metake.report.tables import html, render
from metake.requests import EditRequest
from metake.solvers.allocation import predicted_missing, predicted_share
from metake.words import counted

LENGTH = "|r|/|h|: norm of the planned shift r, relative to that of the residual stream h"


def _nll(stage: Stage) -> Tensor:
    """NLL of each target after the solve, or of the plan where that was not evaluated, `n`."""
    last = stage.targets.plan if stage.targets.closed is None else stage.targets.closed
    return torch.where(last.post_edit_nll.isnan(), last.nll, last.post_edit_nll)


@dataclass(frozen=True, eq=False, repr=False)
class EditResult:
    """Report of one batch of edits.

    Attributes:
        delta: the weight update.
        method: method that produced it, with all settings.
        stages: plans with their solves: one for most methods; several with several rounds, groups of requests, or
            targets at two layers; none for a method that plans no targets.
        seconds: wall time of planning, solving and writing.
        memory: layer -> what the method remembers of the batch: its keys (past-keys), or its moments (UltraEdit).
        answers: greedy answers to the prompts before and after the edit; empty if they were not read.
        constraint: strength of the constraint by name, with the attenuation it was derived from, if any.
        reasons: where the settings come from, one line per choice.

    Example:
        >>> import metake as mk
        >>> model = mk.load("demo")
        >>> with mk.Editor(model, method=mk.settings_for(model, "ultraedit", layers=(2,))) as editor:
        ...     result = editor.edit([mk.EditRequest("The craft of {} is", name, "baker") for name in ("Ann", "Bo")])
        >>> list(result.eta), result.summary()["layers"]
        ([2], [2])
    """

    requests: tuple[EditRequest, ...]
    method: Method
    delta: Delta
    stages: tuple[Stage, ...]
    seconds: float
    memory: LayerMemory
    answers: tuple[Answer, ...] = ()
    constraint: Mapping[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()

    @property
    def success(self) -> tuple[bool | None, ...]:
        """Per request, whether the greedy answer begins with the target; None if answers were not read."""
        if not self.answers:
            return (None,) * len(self.requests)
        return tuple(answer.success for answer in self.answers)

    @property
    def failed(self) -> tuple[EditRequest, ...]:
        """Requests whose answer does not begin with the target; empty if answers were not read."""
        return tuple(r for r, success in zip(self.requests, self.success, strict=True) if success is False)

    def _each(self, of: Callable[[Stage], Tensor], *, add: bool = False) -> Tensor:
        """One value per request, `n`: that of its last stage, or the sum over its stages."""
        values = torch.zeros(len(self.requests))
        for stage in self.stages:
            value = stage.per_request(of(stage).detach().float().cpu())
            values[stage.members] = values[stage.members] + value if add else value
        return values

    def _by_layer(self, of: Callable[[Stage], dict[int, Tensor]]) -> dict[int, Tensor]:
        """Layer -> one value per request, `n`, from the last stage that solved the layer."""
        layers = dict.fromkeys(layer for stage in self.stages for layer in of(stage))
        values = {layer: torch.zeros(len(self.requests)) for layer in layers}
        for stage in self.stages:
            for layer, value in of(stage).items():
                values[layer][stage.members] = stage.per_request(value.detach().float().cpu())
        return values

    @property
    def eta(self) -> dict[int, Tensor]:
        """Layer -> attenuation of each key, `n`."""
        return self._by_layer(lambda stage: stage.solution.eta)

    @property
    def steps(self) -> Tensor:
        """Total number of gradient steps per request, `n`."""

        def of(stage: Stage) -> Tensor:
            plan, closed = stage.targets.plan, stage.targets.closed
            return plan.steps if closed is None else plan.steps + closed.steps

        return self._each(of, add=True)

    @property
    def hidden_norm(self) -> Tensor:
        """Norm of the residual stream to which each residual is added, `n`."""
        return self._each(lambda stage: stage.targets.hidden.norm(dim=1))

    @property
    def planned_norm(self) -> Tensor:
        """Norm of each planned shift at the last edited layer, `n`."""
        return self._each(lambda stage: stage.solution.planned.norm(dim=1))

    @property
    def predicted(self) -> Tensor:
        """Realized share of each planned residual as predicted from eta, `n`, with each request taken alone.

        See `metake.solvers.allocation.predicted_share`.
        """
        return self._each(lambda stage: predicted_share(stage.shares, stage.solution.eta, stage.fit))

    @property
    def realized_share(self) -> Tensor:
        """Realized share of each planned residual, `n`."""
        return self._each(lambda stage: stage.solution.realized_share)

    @property
    def moved(self) -> tuple[bool, ...]:
        """Per request, whether its key was read at the prompt's last token because that at the subject's is inconsistent."""
        found = [False] * len(self.requests)
        for stage in self.stages:
            if stage.moved:
                found[stage.members] = stage.moved
        return tuple(found)

    @property
    def _clamped(self) -> Tensor:
        """1 for each request whose plan has the largest norm that the clamp allows, else 0, `n`."""
        return self._each(lambda stage: stage.targets.plan.clamped)

    def _table(self) -> tuple[str, list[str], list[list[str]]]:
        title = f"{self.method.name}: {counted(len(self.requests), 'edit')}, {self.seconds:.1f} s"
        if not self.stages:
            return title, ["subject", "target"], [[r.subject, r.target_new] for r in self.requests]
        length, eta = self.planned_norm / self.hidden_norm, self.eta
        rows = [
            [
                request.subject,
                request.target_new,
                f"{length[j]:.2f}",
                *(f"{values[j]:.3f}" for values in eta.values()),
                f"{self.predicted[j]:.2f}",
                f"{self.realized_share[j]:.2f}",
                str(int(self.steps[j])),
            ]
            for j, request in enumerate(self.requests)
        ]
        head = ["subject", "target", "|r|/|h|", *(f"eta {n}" for n in eta), "predicted", "realized", "steps"]
        return title, head, rows

    @property
    def legend(self) -> list[str]:
        """Meanings of the table's columns, one line each; empty for a batch that was restored from a file."""
        if not self.stages:
            return []
        before = (
            f", before the postprocess {self.method.postprocess_kind}" if self.method.postprocess_kind else ""
        )
        last = (
            " (of the last plan)"
            if len(self.stages) > len({stage.members.start for stage in self.stages})
            else ""
        )
        return [
            LENGTH,
            ETA,
            predicted_line(self.stages[-1].shares, self.stages[-1].fit) + last,
            f"realized: measured share of the planned shift, along r{before}; it differs from the prediction because of the "
            "batch's other requests, keys in other contexts, and the blocks between the edited layers",
            *constraint_lines(self.constraint),
            *self.reasons,
            *moved_lines(self.requests, self.moved),
        ]

    def as_text(self, explained: Sequence[str] = ()) -> str:
        """The table, its legend and the answers.

        Args:
            explained: lines of the legend to leave out, e.g. those of a preview that was printed before.

        Returns:
            Lines of text.
        """
        lines = [render(*self._table()), *(line for line in self.legend if line not in explained)]
        if self.answers:
            lines += [show_answers(self.answers), count_successes(self.answers)]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.as_text()

    def _repr_html_(self) -> str:
        table = html(*self._table(), self.legend)
        if not self.answers:
            return table
        return table + html(count_successes(self.answers), HEAD, [answer.cells for answer in self.answers])

    def __repr__(self) -> str:
        count = sum(answer.success for answer in self.answers)
        success = f"{count} successful" if self.answers else "answers not read"
        layers = list(self.delta.layers)
        return f"<EditResult: {self.method.name}, {counted(len(self.requests), 'edit')}, {success}, layers {layers}>"

    def plot(self, path: Path | str) -> Path:
        """Draw the planned and the realized residual per layer.

        Args:
            path: the file (png, pdf or svg).

        Returns:
            Path of the file.

        Raises:
            MetakeError: the method plans no targets.
        """
        from metake.report.figures import plot_realization

        if not self.stages:
            raise MetakeError(f"plot: {self.method.name} plans no targets, so there is no realization")
        return plot_realization({self.method.name: [self.summary()]}, as_path(path, "plot: path"))

    def summary(self) -> dict[str, Any]:
        """Measurements of the batch as plain values, for a result file."""
        hidden, eta = self.hidden_norm, self.eta
        missing = self._by_layer(lambda stage: stage.solution.missing)
        predicted = self._by_layer(lambda s: predicted_missing(s.shares, s.solution.eta, s.fit))
        realized = self._each(lambda stage: stage.solution.shift.norm(dim=1))
        left = self._each(lambda stage: (stage.solution.planned - stage.solution.shift).norm(dim=1))
        return {
            "requests": [
                {"prompt": r.prompt, "subject": r.subject, "target_new": r.target_new} for r in self.requests
            ],
            "moved": list(self.moved),
            "layers": list(eta) or list(self.delta.layers),
            "constraint": dict(self.constraint),
            "reasons": list(self.reasons),
            "eta": [[round(x, 6) for x in values.tolist()] for values in eta.values()],
            "missing_before": [(m / hidden).tolist() for m in missing.values()],
            "predicted_missing": [values.tolist() for values in predicted.values()],
            "planned_norm": (self.planned_norm / hidden).tolist(),
            "realized_norm": (realized / hidden).tolist(),
            "missing_after": (left / hidden).tolist(),
            "realized_share": self.realized_share.tolist(),
            "scale": self._each(lambda stage: stage.targets.scale).tolist(),
            "steps": [int(x) for x in self.steps],
            "seconds": self.seconds,
        } | self._checked()

    def _checked(self) -> dict[str, Any]:
        """Answers and their successes for a result file; empty if answers were not read."""
        if not self.answers:
            return {}
        answers = [answer.plain() for answer in self.answers]
        found = {"checked": CHECKED, "success": list(self.success), "answers": answers}
        return found | {"failures": self.failure_reasons}

    @property
    def failure_reasons(self) -> dict[str, str]:
        """Name of each failed request -> why its answer does not begin with the target.

        It is the attenuation, or the norm of the FFN output in models that have one, if less than half of the planned shift
        was realized; the planning, if the target's
        probability after the solve is below a half; otherwise the key, which differs in the bare prompt from the other
        contexts, where the target was reached.
        """
        found = {}
        realized, nll = self.realized_share, self._each(_nll)
        for j, request in enumerate(self.requests):
            if self.success[j] is not False:
                continue
            if not self.stages:
                reason = "not known: the method plans no targets"
            elif realized[j] < 0.5:
                cause = "norm of the FFN output" if self._shortened(j) else "attenuation"
                reason = f"{cause}: {max(0.0, float(realized[j])):.0%} of the planned shift was realized"
            elif not nll[j] < math.log(2):
                probability = math.exp(-float(nll[j]))
                reason = f"planning: the target's probability was {probability:.2f} after {int(self.steps[j])} steps"
            else:
                reason = "key: the target was reached in the mean over contexts, but not in the bare prompt"
            found[request.name] = reason
        return found

    def _shortened(self, request: int) -> bool:
        """Whether the norm of the FFN output (Gemma 2 and 3, OLMo 2) limits a request, and not the attenuation."""
        through_norm = any(stage.solution.gains for stage in self.stages)
        return through_norm and float(self.predicted[request]) >= 0.5

    def advice(self) -> str:
        """The setting to change for the requests whose answer does not begin with the target; empty if there are none.

        If less than half of the planned shift was realized, the constraint limits the edit, or the norm of the FFN output
        in models that have one. Otherwise the postprocess
        does, if there is one; else the target is too weak: because of the clamp if it bounds most of the plans, else
        because of the number of steps.

        Returns:
            One line with the option of the command line and its present value.
        """
        if not self.failed:
            return ""
        method, missed = self.method, torch.tensor([not success for success in self.success])
        realized = float(self.realized_share[missed].mean()) if self.stages else 1.0
        eta = min((float(values[missed].mean()) for values in self.eta.values()), default=1.0)
        names = ", ".join(r.name for r in self.failed[:5]) + (", ..." if len(self.failed) > 5 else "")
        after = f", before the postprocess {method.postprocess_kind}" if method.postprocess_kind else ""
        head = f"failed edits: {names}"
        if self.stages:
            head += f": {realized:.0%} of the planned shift was realized (eta {eta:.2g}{after})"
        if realized < 0.5 and all(self._shortened(int(j)) for j in missed.nonzero()):
            return f"{head}; the norm of the FFN output removes the length of a shift: edit more --layers"
        if realized < 0.5 and "attenuation" in self.constraint:
            asked = self.constraint["attenuation"]
            weaker = (1 + asked) / 2
            return f"{head}; weaken the constraint: --set attenuation={weaker:g} (now {asked:g})"
        if realized < 0.5 and method.constraint_setting:
            value = method.value(method.constraint_setting)
            return f"{head}; weaken the constraint: --set {method.constraint_setting}={value / 10:g} (now {value:g})"
        if method.postprocess_kind:
            return f"{head}; the postprocess may limit the edit: change its settings, or leave it out"
        clamp = method.clamp
        if clamp is not None and self.stages and self._clamped[missed].mean() > 0.5:
            return f"{head}; the clamp bounds the target: --set clamp={2 * clamp:g} (now {clamp:g})"
        if not method.step_setting:
            return f"{head}; change the settings (--set) or the --layers"
        value = method.value(method.step_setting)
        return f"{head}; the target is too weak (its loss was not reached): --set {method.step_setting}={2 * value:g} (now {value:g}), or other --layers"
