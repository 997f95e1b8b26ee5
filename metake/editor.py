"""The face of the library: a model, a method, and edits that can be looked at and taken back.

editor = Editor(model, tokenizer, method="metake", settings=..., statistics=...)
print(editor.preview(requests))       # what execution will keep of each edit, before any edit
result = editor.edit(requests)        # the model is edited now
print(result); result.plot("edit.png"); result.delta.save("edit"); result.revert()
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from metake.deltas import Applied, Delta
from metake.errors import MetakeError
from metake.geometry.covariance import Statistics
from metake.geometry.operator import Geometry, Projected, Ridge
from metake.hparams import Settings
from metake.methods import find_method
from metake.models.architecture import Architecture, ModuleMap
from metake.models.trace import frozen, run
from metake.prompts import Batch, Trunks, sample_contexts
from metake.report.tables import render
from metake.requests import Request
from metake.solvers.allocation import ALLOCATIONS, Shares
from metake.solvers.layered import Aim, LayeredSolver, Solution
from metake.targets.target import Targets, plan_targets


@dataclass(frozen=True)
class Preview:
    """Predicted realisation of requests: rho and eta, `layers x n`, before anything is done."""

    requests: tuple[Request, ...]
    layers: tuple[int, ...]
    rho: Tensor
    eta: Tensor

    def __str__(self) -> str:
        rows = []
        for j, request in enumerate(self.requests):
            keeps = self.eta[-1, j].item()
            cells = [
                f"{eta:.3f} ({rho:.3g})" for eta, rho in zip(self.eta[:, j], self.rho[:, j], strict=True)
            ]
            rows.append([request.subject, *cells, f"keeps {keeps:.0%} of its residual"])
        head = ["subject", *(f"layer {layer}: eta (rho)" for layer in self.layers), "at the last layer"]
        return render("predicted realisation", head, rows)


@dataclass(frozen=True)
class Stage:
    """One plan and its solve, on the model that the stages before it edited."""

    targets: Targets
    solution: Solution


@dataclass
class EditResult:
    """One executed batch.

    Attributes:
        delta: the change of the weights; save it, apply it elsewhere.
        settings, method: how it was made.
        stages: plan and solve, once for most methods; several for BLUE and for more rounds than one.
        seconds: wall time.
        edited: whether the model holds the edit now.
    """

    requests: tuple[Request, ...]
    method: str
    settings: Settings
    delta: Delta
    stages: tuple[Stage, ...]
    seconds: float
    _applied: Applied
    _editor: Editor = field(repr=False)
    _before: dict[int, Tensor | None] = field(repr=False, default_factory=dict)

    @property
    def edited(self) -> bool:
        return bool(self._applied.originals)

    def revert(self) -> None:
        """Put back the weights and the editor's memory as they were before this batch, bit for bit.

        Raises:
            MetakeError: a later batch stands on this one; revert that one first.
        """
        if self.edited:
            self._editor._take_back(self)

    @property
    def targets(self) -> Targets:
        """Planned residuals and the descents that found them; of the last stage."""
        return self.stages[-1].targets

    @property
    def solution(self) -> Solution:
        """Keys, residuals and attenuation of every layer; of the last stage."""
        return self.stages[-1].solution

    @property
    def eta(self) -> dict[int, Tensor]:
        """Layer -> attenuation of each key, `n`, when that layer was last solved."""
        return {layer: eta for stage in self.stages for layer, eta in stage.solution.eta.items()}

    @property
    def steps(self) -> Tensor:
        """Gradient steps each request took in all, `n`."""
        runs = [run for s in self.stages for run in (s.targets.plan, s.targets.closed) if run is not None]
        return torch.stack([run.steps for run in runs]).sum(0)

    @property
    def fraction(self) -> Tensor:
        """Executed share of each planned residual, `n`."""
        return self.solution.fraction

    def __str__(self) -> str:
        planned = self.solution.planned.norm(dim=1)
        size = self.targets.hidden.norm(dim=1)
        rows = [
            [
                request.subject,
                request.target,
                f"{planned[j] / size[j]:.2f}",
                f"{self.fraction[j]:.2f}",
                *(f"{eta[j]:.3f}" for eta in self.eta.values()),
                str(int(self.steps[j])),
            ]
            for j, request in enumerate(self.requests)
        ]
        etas = [f"eta {layer}" for layer in self.eta]
        head = ["subject", "target", "|r|/|h|", "executed", *etas, "steps"]
        state = "the model is edited" if self.edited else "reverted: the model is as it was before"
        return render(f"{self.method}: {len(self.requests)} edits, {self.seconds:.1f} s; {state}", head, rows)

    def plot(self, path: Path | str) -> Path:
        """Planned against executed residual, per layer; writes a figure (png, pdf or svg)."""
        from metake.report.figures import plot_realisation

        return plot_realisation({self.method: [self.summary()]}, Path(path))

    def summary(self) -> dict[str, Any]:
        """The numbers of the batch as plain values, for a result file."""
        solution, size = self.solution, self.targets.hidden.norm(dim=1)
        missing = {layer: m for stage in self.stages for layer, m in stage.solution.missing.items()}
        return {
            "requests": [
                {"prompt": r.prompt, "subject": r.subject, "target": r.target} for r in self.requests
            ],
            "layers": list(self.eta),
            "eta": [[round(float(x), 6) for x in eta] for eta in self.eta.values()],
            "missing_before": [[float(x) for x in m.cpu() / size.cpu()] for m in missing.values()],
            "planned": [float(x) for x in solution.planned.norm(dim=1).cpu() / size.cpu()],
            "executed": [float(x) for x in solution.shift.norm(dim=1).cpu() / size.cpu()],
            "missing_after": [
                float(x) for x in (solution.planned - solution.shift).norm(dim=1).cpu() / size.cpu()
            ],
            "fraction": [float(x) for x in solution.fraction],
            "scale": [float(x) for x in self.targets.scale],
            "seconds": self.seconds,
        }


class Editor:
    """Edits a model in place.

    Args:
        model: a causal language model (`transformers`), on any device, fp32 or bf16.
        tokenizer: its tokenizer (a fast one).
        method: a row of `metake.methods.METHODS`.
        settings: all numbers; `metake.presets.settings_for` makes them for known models.
        statistics: second moments of the edited layers' keys.
        modules: for a model family that is not known.
        progress: show a bar while targets are optimised.

    Raises:
        MetakeError: unknown method or family, layers out of range, statistics of another model.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        method: str = "metake",
        *,
        settings: Settings | None = None,
        statistics: Statistics | None = None,
        modules: ModuleMap | None = None,
        progress: bool = False,
    ) -> None:
        from metake.presets import settings_for, statistics_for

        find_method(method)
        self.arch = Architecture(model, modules)
        self.tokenizer, self.method, self.progress = tokenizer, method, progress
        self.settings = settings or settings_for(self.arch, method)
        self.arch.check_layers(self.settings.layers)
        if statistics is None:
            statistics = statistics_for(self.arch, tokenizer, self.settings.layers, progress=progress)
        statistics.check(self.arch, self.settings.layers)
        self.statistics = statistics
        self.batches: list[EditResult] = []
        self._memory: dict[int, Tensor | None] = {layer: None for layer in self.settings.layers}
        self._contexts: tuple[str, ...] | None = self.settings.contexts
        self._bases: dict[int, Geometry] = {}

    @property
    def contexts(self) -> tuple[str, ...]:
        """Texts put before prompts; sampled once, from the model as it is at the first edit."""
        if self._contexts is None:
            self._contexts = sample_contexts(self.arch, self.tokenizer, seed=self.settings.seed)
        return self._contexts

    def geometry(self, layer: int) -> Geometry:
        """The effective geometry of a layer now, with the keys of earlier batches if the method remembers."""
        if layer not in self._bases:
            moment = self.statistics[layer].to(self.arch.weight(layer).device)
            s = self.settings
            if s.geometry == "ridge":
                self._bases[layer] = Ridge(
                    moment, s.weight, s.ridge * s.weight * float(moment.trace()), dtype=s.torch_dtype
                )
            else:
                keep = s.keep if s.threshold is None else None
                self._bases[layer] = Projected(
                    moment, s.l2, threshold=s.threshold, keep=keep, dtype=s.torch_dtype
                )
        past = self._memory[layer]
        return self._bases[layer] if past is None else self._bases[layer].with_past(past)

    @property
    def shares(self) -> list[Shares]:
        """The allocation: one list of shares per stage of an edit."""
        return ALLOCATIONS[self.settings.allocation](self.settings.layers) * self.settings.rounds

    def solver(self, shares: Shares | None = None) -> LayeredSolver:
        """The lower level of a stage (the first, by default), with the geometries as they stand now."""
        shares = shares or self.shares[0]
        geometries = {layer: self.geometry(layer) for layer, _ in shares}
        aim: Aim = "own" if self.settings.allocation == "forward" else "top"
        return LayeredSolver(self.arch, geometries, shares, self.settings.fit, aim)

    def keys(self, trunks: Trunks, layers: Sequence[int]) -> dict[int, Tensor]:
        """Keys of a batch (`n x d_k`) at several layers, with the model as it is."""
        with torch.no_grad():
            trace = run(
                self.arch, trunks.ids, start=trunks.start, hidden=trunks.hidden, stop=max(layers), keys=layers
            )
        return {layer: trunks.mean_key(trunks.at_lookup(trace.keys[layer]).float()) for layer in layers}

    def preview(self, requests: Sequence[Request]) -> Preview:
        """What the geometry will keep of each request at each layer: rho and eta of its key."""
        layers = self.settings.layers
        with frozen(self.arch.model):
            batch = Batch.build(self.arch, self.tokenizer, requests, self.contexts)
            keys = self.keys(Trunks.build(self.arch, batch, layers[0]), layers)
        rho = torch.stack([self.geometry(layer).realisability(keys[layer].T).cpu() for layer in layers])
        return Preview(tuple(requests), layers, rho, rho / (1 + rho))

    def edit(self, requests: Sequence[Request] | Request) -> EditResult:
        """Plan, solve and write one batch of edits. On any failure the model stays as it was."""
        requests = (requests,) if isinstance(requests, Request) else tuple(requests)
        started = time.perf_counter()
        s, before = self.settings, dict(self._memory)
        solvers = [self.solver(shares) for shares in self.shares]
        steps = len(solvers) * (s.steps + (s.meta_steps if s.target == "bilevel" else 0))
        bar = tqdm(total=steps, desc=f"{self.method}: targets", leave=False) if self.progress else None
        with frozen(self.arch.model), bar or nullcontext():
            batch = Batch.build(self.arch, self.tokenizer, requests, self.contexts)
            trunks = Trunks.build(self.arch, batch, solvers[0].layers[0])
            stages, delta = self._plan(solvers, batch, trunks, bar.update if bar else lambda: None)
            applied = delta.apply(self.arch, check=False)
            try:
                if s.history:
                    self._learn(trunks, tuple(delta.factors))
            except BaseException:
                applied.revert()
                self._memory = before
                raise
        seconds = time.perf_counter() - started
        result = EditResult(requests, self.method, s, delta, stages, seconds, applied, self, before)
        self.batches.append(result)
        return result

    def _plan(
        self, solvers: Sequence[LayeredSolver], batch: Batch, trunks: Trunks, tick: Callable[[], object]
    ) -> tuple[tuple[Stage, ...], Delta]:
        """Every stage on the model that the ones before it edit; the model is as before afterwards."""
        edits = [{"prompt": r.prompt, "subject": r.subject, "target": r.target} for r in batch.requests]
        note = {"method": self.method, "settings": self.settings.model_dump(), "edits": edits}
        total, stages = Delta({}, self.arch.fingerprint(), note), []
        with ExitStack() as earlier:
            for i, solver in enumerate(solvers):
                targets = plan_targets(self.arch, solver, batch, trunks, self.settings, tick)
                solution = solver.solve(trunks, targets.residuals)
                factors = {n: (left.cpu(), right.cpu()) for n, (left, right) in solution.factors.items()}
                step = Delta(factors)
                if i + 1 < len(solvers):
                    earlier.enter_context(step.applied(self.arch, check=False))
                total = total.then(step)
                stages.append(Stage(targets, solution))
        return tuple(stages), total

    def _learn(self, trunks: Trunks, layers: Sequence[int]) -> None:
        """Remember the batch's keys, taken from the edited model, as AlphaEdit does."""
        for layer, keys in self.keys(trunks, layers).items():
            past = self._memory[layer]
            columns = keys.T.to(self.settings.torch_dtype)
            self._memory[layer] = columns if past is None else torch.cat([past, columns], 1)

    def _take_back(self, result: EditResult) -> None:
        if self.batches[-1] is not result:
            raise MetakeError("revert: a later batch stands on this one; revert that one first")
        with torch.no_grad():
            result._applied.revert()
        self._memory = result._before
        self.batches.pop()

    def revert(self) -> None:
        """Take back every batch."""
        while self.batches:
            self.batches[-1].revert()

    @property
    def delta(self) -> Delta:
        """All batches so far as one delta, for the model as it was at the beginning."""
        if not self.batches:
            return Delta({}, self.arch.fingerprint())
        total = self.batches[0].delta
        for result in self.batches[1:]:
            total = total.then(result.delta)
        return total

    def __enter__(self) -> Editor:
        return self

    def __exit__(self, *_: object) -> None:
        self.revert()
