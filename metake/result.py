"""What an editor gives back: predictions before an edit, and an executed edit that can be looked at and taken back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metake.answers import CHECKED, Answer, count_successes, show_answers
from metake.deltas import Applied, Delta
from metake.files import as_path
from metake.hparams import Settings
from metake.report.tables import render
from metake.requests import Request
from metake.solvers.layered import Solution
from metake.targets.target import Targets

# of SmolLM2's first 300 CounterFact prompts 8 are below, the others above 0.13, zsRE's above 0.56
ADRIFT = 0.1


@dataclass(frozen=True)
class Preview:
    """Predicted realisation of requests, `layers x n`, before anything is done.

    Attributes:
        rho, eta: of each request's key, the mean over its contexts.
        steady: cosine of the bare prompt's key with its mean in contexts.
    """

    requests: tuple[Request, ...]
    layers: tuple[int, ...]
    rho: Tensor
    eta: Tensor
    steady: Tensor

    @property
    def adrift(self) -> tuple[str, ...]:
        """Subjects whose key in the bare prompt is at some layer another one than in contexts (cosine below 0.1)."""
        return tuple(
            r.subject for r, low in zip(self.requests, self.steady.amin(0), strict=True) if low < ADRIFT
        )

    def __str__(self) -> str:
        rows = []
        for j, request in enumerate(self.requests):
            keeps, steady = self.eta[-1, j].item(), self.steady[:, j].min().item()
            cells = [
                f"{eta:.3f} ({rho:.3g})" for eta, rho in zip(self.eta[:, j], self.rho[:, j], strict=True)
            ]
            rows.append([request.subject, *cells, f"keeps {keeps:.0%} of its residual", f"{steady:.2f}"])
        head = [
            "subject",
            *(f"layer {layer}: eta (rho)" for layer in self.layers),
            "at the last layer",
            "cos(bare key, contexts')",
        ]
        return render("predicted realisation", head, rows)


@dataclass(frozen=True)
class Stage:
    """One plan and its solve, on the model that the stages before it edited.

    Attributes:
        members: which of the batch's requests it is for.
    """

    targets: Targets
    solution: Solution
    members: slice


@dataclass(repr=False)
class EditResult:
    """One executed batch.

    Attributes:
        delta: the change of the weights; save it, apply it elsewhere.
        settings, method: how it was made.
        stages: plans and solves: one for most methods, several for more rounds than one, for a target
            at each of two layers, and for requests in groups.
        seconds: wall time.
        learned: layer -> `d_k x n`, the keys that geometries remember of this batch.
        answers: greedy answers to the prompts before and after; empty if they were not read.
        edited: whether the model holds the edit now.
    """

    requests: tuple[Request, ...]
    method: str
    settings: Settings
    delta: Delta
    stages: tuple[Stage, ...]
    seconds: float
    _applied: Applied
    _take_back: Callable[[EditResult], None] = field(repr=False)
    _before: dict[int, Tensor | None] = field(repr=False, default_factory=dict)

    learned: dict[int, Tensor] = field(repr=False, default_factory=dict)
    answers: tuple[Answer, ...] = ()

    @property
    def success(self) -> tuple[bool, ...]:
        """Per request, whether the greedy answer begins with the target; empty if answers were not read."""
        return tuple(answer.success for answer in self.answers)

    @property
    def failed(self) -> tuple[Request, ...]:
        """Requests whose answer does not begin with the target."""
        return tuple(r for r, took in zip(self.requests, self.success, strict=False) if not took)

    @property
    def edited(self) -> bool:
        return bool(self._applied.originals)

    def revert(self) -> None:
        """Put back the weights and the editor's memory as they were before this batch, bit for bit.

        Raises:
            MetakeError: a later batch stands on this one, or something else has changed the weights since.
        """
        if self.edited:
            self._take_back(self)

    def _each(self, of: Callable[[Stage], Tensor], *, add: bool = False) -> Tensor:
        """A value per request, `n`: of its last stage, or the sum over its stages."""
        values = torch.zeros(len(self.requests))
        for stage in self.stages:
            value = of(stage).detach().float().cpu()
            values[stage.members] = values[stage.members] + value if add else value
        return values

    def _by_layer(self, of: Callable[[Stage], dict[int, Tensor]]) -> dict[int, Tensor]:
        """Layer -> a value per request, `n`, of the last stage that solved the layer."""
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
        """Gradient steps each request took in all, `n`."""

        def of(stage: Stage) -> Tensor:
            plan, closed = stage.targets.plan, stage.targets.closed
            return plan.steps if closed is None else plan.steps + closed.steps

        return self._each(of, add=True)

    @property
    def size(self) -> Tensor:
        """Norm of the stream that each residual is added to, `n`."""
        return self._each(lambda stage: stage.targets.hidden.norm(dim=1))

    @property
    def planned(self) -> Tensor:
        """Norm of each planned shift at the last edited layer, `n`."""
        return self._each(lambda stage: stage.solution.planned.norm(dim=1))

    @property
    def fraction(self) -> Tensor:
        """Executed share of each planned residual, `n`."""
        return self._each(lambda stage: stage.solution.fraction)

    def __str__(self) -> str:
        length, fraction, steps, eta = self.planned / self.size, self.fraction, self.steps, self.eta
        rows = [
            [
                request.subject,
                request.target,
                f"{length[j]:.2f}",
                f"{fraction[j]:.2f}",
                *(f"{values[j]:.3f}" for values in eta.values()),
                str(int(steps[j])),
            ]
            for j, request in enumerate(self.requests)
        ]
        head = ["subject", "target", "|r|/|h|", "executed", *(f"eta {layer}" for layer in eta), "steps"]
        state = "the model is edited" if self.edited else "reverted: the model is as it was before"
        table = render(
            f"{self.method}: {len(self.requests)} edits, {self.seconds:.1f} s; {state}", head, rows
        )
        if not self.answers:
            return table
        return "\n".join([table, show_answers(self.answers), count_successes(self.answers)])

    def __repr__(self) -> str:
        took = f", {sum(self.success)} took" if self.answers else ""
        state = "edited" if self.edited else "reverted"
        return f"<EditResult: {self.method}, {len(self.requests)} edits{took}, layers {list(self.delta.layers)}, {state}>"

    def plot(self, path: Path | str) -> Path:
        """Planned against executed residual, per layer; writes a figure (png, pdf or svg)."""
        from metake.report.figures import plot_realisation

        return plot_realisation({self.method: [self.summary()]}, as_path(path, "plot: path"))

    def summary(self) -> dict[str, Any]:
        """The numbers of the batch as plain values, for a result file."""
        size, eta = self.size, self.eta
        missing = self._by_layer(lambda stage: stage.solution.missing)
        executed = self._each(lambda stage: stage.solution.shift.norm(dim=1))
        left = self._each(lambda stage: (stage.solution.planned - stage.solution.shift).norm(dim=1))
        return {
            "requests": [
                {"prompt": r.prompt, "subject": r.subject, "target": r.target} for r in self.requests
            ],
            "layers": list(eta),
            "eta": [[round(x, 6) for x in values.tolist()] for values in eta.values()],
            "missing_before": [(m / size).tolist() for m in missing.values()],
            "planned": (self.planned / size).tolist(),
            "executed": (executed / size).tolist(),
            "missing_after": (left / size).tolist(),
            "fraction": self.fraction.tolist(),
            "scale": self._each(lambda stage: stage.targets.scale).tolist(),
            "steps": [int(x) for x in self.steps],
            "seconds": self.seconds,
        } | self._checked()

    def _checked(self) -> dict[str, Any]:
        """What was read of the answers, for a result file; nothing if they were not read."""
        if not self.answers:
            return {}
        answers = [answer.plain() for answer in self.answers]
        return {"checked": CHECKED, "success": list(self.success), "answers": answers}

    def advice(self) -> str:
        """The setting that most likely held back the requests that did not take; empty if all took.

        Below half of the planned shift executed, it is the constraint; else the target itself.
        """
        if not self.failed:
            return ""
        s, missed = self.settings, torch.tensor([not took for took in self.success])
        executed = float(self.fraction[missed].mean()) if self.stages else 1.0
        eta = min((float(values[missed].mean()) for values in self.eta.values()), default=1.0)
        names = ", ".join(r.name for r in self.failed[:5]) + (", ..." if len(self.failed) > 5 else "")
        head = f"did not take: {names}: {executed:.0%} of the planned shift was executed (eta {eta:.2g})"
        if executed < 0.5 and s.needs_statistics:
            name, value = ("weight", s.weight) if s.geometry == "ridge" else ("l2", s.l2)
            return f"{head}; weaken the constraint: --set {name}={value / 10:g} (now {value:g})"
        return f"{head}; the target falls short: --set steps={2 * s.steps} (now {s.steps}), or other --layers"
