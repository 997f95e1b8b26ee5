"""What an editor gives back: predictions before an edit, and an executed edit that can be looked at and taken back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from metake.answers import CHECKED, HEAD, Answer, Check, count_successes, show_answers
from metake.deltas import Applied, Delta
from metake.errors import MetakeError
from metake.files import as_path
from metake.methods.base import Learned, Method, Stage, State
from metake.report.tables import html, render
from metake.requests import Request, check_texts
from metake.solvers.allocation import Shares, describe_shares, predicted_share


class Owner(Protocol):
    """What an executed batch needs of the editor that made it."""

    def _take_back(self, result: EditResult) -> None: ...

    def _check(
        self, result: EditResult, rephrases: list[str], targets: list[str], neighbours: list[str]
    ) -> Check: ...


# of SmolLM2's first 300 CounterFact prompts 8 are below, the others above 0.13, zsRE's above 0.56
ADRIFT = 0.1


@dataclass(frozen=True, repr=False)
class Preview:
    """Predicted realisation of requests, `layers x n`, before anything is done (layers that are edited).

    Attributes:
        rho: of each request's key, the mean over its contexts.
        cosine: cosine of the bare prompt's key with its mean in contexts.
        shares, fit: what each layer is asked for, and how it is solved.
    """

    requests: tuple[Request, ...]
    layers: tuple[int, ...]
    rho: Tensor
    cosine: Tensor
    shares: Shares
    fit: str

    @property
    def eta(self) -> Tensor:
        """Attenuation, rho / (1 + rho)."""
        return self.rho / (1 + self.rho)

    @property
    def predicted(self) -> Tensor:
        """Share of each residual that all layers together execute, `n`, from the keys of the unedited model."""
        return predicted_share(self.shares, dict(zip(self.layers, self.eta, strict=True)), self.fit)

    @property
    def adrift(self) -> tuple[str, ...]:
        """Subjects whose key in the bare prompt is at some layer another one than in contexts (cosine below 0.1)."""
        return tuple(
            r.subject for r, low in zip(self.requests, self.cosine.amin(0), strict=True) if low < ADRIFT
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
        """What the columns are, a line each."""
        return [
            "eta: share of what is asked of a layer that it executes; rho = eta / (1 - eta)",
            predicted_line(self.shares, self.fit),
        ]

    def __str__(self) -> str:
        return "\n".join([render(*self._table()), *self.legend])

    def __repr__(self) -> str:
        return f"<Preview: {len(self.requests)} edits, layers {list(self.layers)}>"

    def _repr_html_(self) -> str:
        return html(*self._table(), self.legend)


def predicted_line(shares: Shares, fit: str) -> str:
    """Legend of the column `predicted`."""
    return (
        f"predicted: share of the planned shift that all layers together execute, {describe_shares(shares, fit)}; "
        "for one request alone, if no layer changes the keys above it"
    )


@dataclass(repr=False)
class EditResult:
    """One executed batch.

    Attributes:
        delta: the change of the weights; save it, apply it elsewhere.
        method: how it was made.
        stages: plans and solves: one for most methods, several for more rounds than one, for a target
            at each of two layers, and for requests in groups.
        seconds: wall time.
        learned: layer -> `d_k x n`, the keys that geometries remember of this batch.
        answers: greedy answers to the prompts before and after; empty if they were not read.
        edited: whether the model holds the edit now.
    """

    requests: tuple[Request, ...]
    method: Method
    delta: Delta
    stages: tuple[Stage, ...]
    seconds: float
    _applied: Applied
    _editor: Owner
    _state: State
    learned: Learned
    answers: tuple[Answer, ...] = ()

    @property
    def success(self) -> tuple[bool | None, ...]:
        """Per request, whether the greedy answer begins with the target; None if answers were not read."""
        if not self.answers:
            return (None,) * len(self.requests)
        return tuple(answer.success for answer in self.answers)

    @property
    def failed(self) -> tuple[Request, ...]:
        """Requests whose answer does not begin with the target; empty if answers were not read."""
        return tuple(r for r, took in zip(self.requests, self.success, strict=True) if took is False)

    @property
    def edited(self) -> bool:
        return bool(self._applied.originals)

    def revert(self) -> None:
        """Put back the weights and the editor's memory as they were before this batch, bit for bit.

        Raises:
            MetakeError: a later batch stands on this one, or something else has changed the weights since.
        """
        if self.edited:
            self._editor._take_back(self)

    def check(self, rephrases: Any = (), neighbours: Any = ()) -> Check:
        """Answers without this edit and with it, to rephrased questions and to questions that it is not about.

        Without it: the model as it was before this batch, and without later ones. The model is as it was afterwards,
        bit for bit.

        Args:
            rephrases: complete prompts whose answer should begin with the target: a text or a list of texts; for a
                batch of several requests a list with an entry (a text or a list of texts) for each.
            neighbours: complete prompts whose answer should stay as it is, a text or a list of texts.

        Raises:
            MetakeError: no question, something else than texts, an edit that was taken back, or a model that something
                else has changed since.
        """
        if not self.edited:
            raise MetakeError("check: the edit was taken back; edit again first")
        texts, targets = self._rephrases(rephrases)
        none = neighbours is None or (isinstance(neighbours, list | tuple) and not neighbours)
        others = [] if none else check_texts("check", "neighbour", neighbours)
        if not texts and not others:
            raise MetakeError("check: no question given; give rephrases, neighbours or both")
        return self._editor._check(self, texts, targets, others)

    def _rephrases(self, given: Any) -> tuple[list[str], list[str]]:
        """Rephrased prompts, and the target of each."""
        given = () if given is None else given
        if not isinstance(given, str | list | tuple):
            raise MetakeError(
                f"check: rephrases must be a text or a list of texts, not {type(given).__name__}"
            )
        if not given and not isinstance(given, str):
            return [], []
        entries = [given] if len(self.requests) == 1 else given
        if isinstance(entries, str) or len(entries) != len(self.requests):
            raise MetakeError(
                f"check: rephrases must be a list with an entry for each of the {len(self.requests)} requests"
            )
        pairs = [
            (text, request.target)
            for request, entry in zip(self.requests, entries, strict=True)
            for text in (
                []
                if isinstance(entry, list | tuple) and not entry
                else check_texts("check", "rephrase", entry)
            )
        ]
        return [text for text, _ in pairs], [target for _, target in pairs]

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
    def predicted(self) -> Tensor:
        """Share of each planned residual that the eta of its solve predict to be executed, `n`.

        For each request alone; see `metake.solvers.allocation.predicted_share`.
        """
        return self._each(lambda stage: predicted_share(stage.shares, stage.solution.eta, stage.fit))

    @property
    def fraction(self) -> Tensor:
        """Executed share of each planned residual, `n`."""
        return self._each(lambda stage: stage.solution.fraction)

    def _table(self) -> tuple[str, list[str], list[list[str]]]:
        state = "the model is edited" if self.edited else "reverted: the model is as it was before"
        title = f"{self.method.name}: {len(self.requests)} edits, {self.seconds:.1f} s; {state}"
        if not self.stages:
            return title, ["subject", "target"], [[r.subject, r.target] for r in self.requests]
        length, eta = self.planned / self.size, self.eta
        rows = [
            [
                request.subject,
                request.target,
                f"{length[j]:.2f}",
                *(f"{values[j]:.3f}" for values in eta.values()),
                f"{self.predicted[j]:.2f}",
                f"{self.fraction[j]:.2f}",
                str(int(self.steps[j])),
            ]
            for j, request in enumerate(self.requests)
        ]
        head = ["subject", "target", "|r|/|h|", *(f"eta {n}" for n in eta), "predicted", "executed", "steps"]
        return title, head, rows

    @property
    def legend(self) -> list[str]:
        """What the columns are, a line each; empty for a batch that was restored from a file."""
        if not self.stages:
            return []
        cut = f", before {self.method.cut} cuts the update" if self.method.cut else ""
        last = (
            " (of the last plan)"
            if len(self.stages) > len({stage.members.start for stage in self.stages})
            else ""
        )
        return [
            "|r|/|h|: length of the planned shift r over that of the stream h; eta: share of what is asked of a layer "
            "that it executes",
            predicted_line(self.stages[-1].shares, self.stages[-1].fit) + last,
            f"executed: share that was measured, along r{cut}; it differs by the other requests of the batch, by keys "
            "in other contexts, and by what the blocks between make of the updates",
        ]

    def __str__(self) -> str:
        lines = [render(*self._table()), *self.legend]
        if self.answers:
            lines += [show_answers(self.answers), count_successes(self.answers)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        table = html(*self._table(), self.legend)
        if not self.answers:
            return table
        return table + html(count_successes(self.answers), HEAD, [answer.cells for answer in self.answers])

    def __repr__(self) -> str:
        took = f"{sum(a.success for a in self.answers)} took" if self.answers else "answers not read"
        state = "edited" if self.edited else "reverted"
        return f"<EditResult: {self.method.name}, {len(self.requests)} edits, {took}, layers {list(self.delta.layers)}, {state}>"

    def plot(self, path: Path | str) -> Path:
        """Planned against executed residual, per layer; writes a figure (png, pdf or svg)."""
        from metake.report.figures import plot_realisation

        return plot_realisation({self.method.name: [self.summary()]}, as_path(path, "plot: path"))

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
        method, missed = self.method, torch.tensor([not took for took in self.success])
        executed = float(self.fraction[missed].mean()) if self.stages else 1.0
        eta = min((float(values[missed].mean()) for values in self.eta.values()), default=1.0)
        names = ", ".join(r.name for r in self.failed[:5]) + (", ..." if len(self.failed) > 5 else "")
        head = f"did not take: {names}: {executed:.0%} of the planned shift was executed (eta {eta:.2g})"
        if executed < 0.5 and method.strength:
            value = method.value(method.strength)
            return f"{head}; weaken the constraint: --set {method.strength}={value / 10:g} (now {value:g})"
        if not method.effort:
            return f"{head}; change the settings (--set) or the --layers"
        value = method.value(method.effort)
        return f"{head}; the target falls short: --set {method.effort}={2 * value:g} (now {value:g}), or other --layers"
