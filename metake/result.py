"""Results of an editor: predictions before an edit, and the report of a batch of edits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metake.answers import CHECKED, HEAD, Answer, count_successes, show_answers
from metake.deltas import Delta
from metake.files import as_path
from metake.methods.base import LayerMemory, Method, Stage, State
from metake.report.tables import html, render
from metake.requests import EditRequest
from metake.solvers.allocation import Shares, describe_shares, predicted_missing, predicted_share

# of SmolLM2's first 300 CounterFact prompts 8 are below, the others above 0.13, zsRE's above 0.56
MIN_KEY_COSINE = 0.1
ETA = "eta: share of the requested residual that a layer realizes; rho = eta / (1 - eta)"
LENGTH = "|r|/|h|: norm of the planned shift r, relative to that of the residual stream h"


@dataclass(frozen=True, repr=False)
class Preview:
    """Predicted realization of requests on the unedited model.

    Attributes:
        layers: the edited layers.
        rho: realizability of each request's mean key over contexts, `layers x n`.
        cosine: cosine between the key in the bare prompt and the mean key over contexts, `layers x n`.
        shares, fit: allocation of the residual over the layers, and the fit of each layer's solve.
        inputs: inputs of an edit of the same requests; None if there are none.
        state: state of the method that the inputs were built with.
        model: fingerprint of the model that they were built with.
        constraint: strength of the constraint by name, with the attenuation it was derived from, if any.
    """

    requests: tuple[EditRequest, ...]
    layers: tuple[int, ...]
    rho: Tensor
    cosine: Tensor
    shares: Shares
    fit: str
    inputs: Any = None
    state: State | None = None
    model: str = ""
    constraint: Mapping[str, float] = field(default_factory=dict)

    def inputs_for(self, requests: Sequence[EditRequest], state: State, model: str) -> Any:
        """Inputs of an edit, if they were built for the same requests, contexts, memory and weights.

        Args:
            requests: requests of the edit.
            state: state of the method before the edit.
            model: fingerprint of the model before the edit.

        Returns:
            The inputs; None if they are of something else.
        """
        same = self.requests == tuple(requests) and self.state is state and self.model == model
        return self.inputs if same else None

    @property
    def eta(self) -> Tensor:
        """Attenuation, rho / (1 + rho)."""
        return self.rho / (1 + self.rho)

    @property
    def predicted(self) -> Tensor:
        """Predicted share of each residual that all layers together realize, `n`."""
        return predicted_share(self.shares, dict(zip(self.layers, self.eta, strict=True)), self.fit)

    @property
    def inconsistent_subjects(self) -> tuple[str, ...]:
        """Subjects whose key in the bare prompt differs from the mean key over contexts (cosine below 0.1 at a layer)."""
        return tuple(
            r.subject
            for r, low in zip(self.requests, self.cosine.amin(0), strict=True)
            if low < MIN_KEY_COSINE
        )

    def _table(self) -> tuple[str, list[str], list[list[str]]]:
        rows = []
        for j, request in enumerate(self.requests):
            cells = [
                f"{eta:.3f} ({rho:.3g})" for eta, rho in zip(self.eta[:, j], self.rho[:, j], strict=True)
            ]
            cosine = self.cosine[:, j].min().item()
            rows.append([request.subject, *cells, f"{self.predicted[j]:.2f}", f"{cosine:.2f}"])
        etas = (f"eta {layer} (rho)" for layer in self.layers)
        return "predicted realization", ["subject", *etas, "predicted", "cos(bare key, contexts')"], rows

    @property
    def legend(self) -> list[str]:
        """Meanings of the table's columns, one line each."""
        return [ETA, predicted_line(self.shares, self.fit), *constraint_lines(self.constraint)]

    def __str__(self) -> str:
        return "\n".join([render(*self._table()), *self.legend])

    def __repr__(self) -> str:
        return f"<Preview: {len(self.requests)} edits, layers {list(self.layers)}>"

    def _repr_html_(self) -> str:
        return html(*self._table(), self.legend)


def predicted_line(shares: Shares, fit: str) -> str:
    """Legend of the column `predicted`.

    Args:
        shares: share of the residual per edited layer.
        fit: fit of each solve.

    Returns:
        The line.
    """
    return (
        f"predicted: share of the planned shift that all layers together realize, {describe_shares(shares, fit)}, "
        "for a single request if the update of a layer leaves the keys of later layers unchanged"
    )


def constraint_lines(constraint: Mapping[str, float]) -> list[str]:
    """Line about a strength that was derived from an attenuation; none for another.

    Args:
        constraint: see `Method.constraint`.

    Returns:
        At most one line.
    """
    if "attenuation" not in constraint:
        return []
    name, value = next((n, v) for n, v in constraint.items() if n != "attenuation")
    eta = constraint["attenuation"]
    return [f"constraint: {name} = {value:.4g}, so that the first batch's keys have a median eta of {eta:g}"]


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
            value = of(stage).detach().float().cpu()
            values[stage.members] = values[stage.members] + value if add else value
        return values

    def _by_layer(self, of: Callable[[Stage], dict[int, Tensor]]) -> dict[int, Tensor]:
        """Layer -> one value per request, `n`, from the last stage that solved the layer."""
        layers = dict.fromkeys(layer for stage in self.stages for layer in of(stage))
        values = {layer: torch.zeros(len(self.requests)) for layer in layers}
        for stage in self.stages:
            for layer, value in of(stage).items():
                values[layer][stage.members] = value.detach().float().cpu()
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
    def _clamped(self) -> Tensor:
        """1 for each request whose plan has the largest norm that the clamp allows, else 0, `n`."""
        return self._each(lambda stage: stage.targets.plan.clamped)

    def _table(self) -> tuple[str, list[str], list[list[str]]]:
        title = f"{self.method.name}: {len(self.requests)} edits, {self.seconds:.1f} s"
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
        return f"<EditResult: {self.method.name}, {len(self.requests)} edits, {success}, layers {layers}>"

    def plot(self, path: Path | str) -> Path:
        """Draw the planned and the realized residual per layer.

        Args:
            path: the file (png, pdf or svg).

        Returns:
            Path of the file.
        """
        from metake.report.figures import plot_realization

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
            "layers": list(eta),
            "constraint": dict(self.constraint),
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
        return {"checked": CHECKED, "success": list(self.success), "answers": answers}

    def advice(self) -> str:
        """The setting to change for the requests whose answer does not begin with the target; empty if there are none.

        If less than half of the planned shift was realized, the constraint limits the edit. Otherwise the postprocess
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
        head = (
            f"failed edits: {names}: {realized:.0%} of the planned shift was realized (eta {eta:.2g}{after})"
        )
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
