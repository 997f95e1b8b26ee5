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
from metake.models.trace import frozen
from metake.prompts import Batch, Trunks, sample_contexts
from metake.requests import Request
from metake.result import EditResult, Preview, Stage
from metake.solvers.allocation import ALLOCATIONS, Shares
from metake.solvers.layered import Aim, LayeredSolver
from metake.solvers.restraints import bounded_spectrum, largest_changes
from metake.targets.target import plan_targets


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
        if self.settings.allocation not in ALLOCATIONS:
            known = ", ".join(ALLOCATIONS)
            raise MetakeError(f"settings: allocation: unknown {self.settings.allocation!r}; known: {known}")
        if statistics is None:
            statistics = statistics_for(self.arch, tokenizer, self.settings.layers, progress=progress)
        statistics.check(self.arch, self.settings.layers)
        self.statistics = statistics
        self.batches: list[EditResult] = []
        self._memory: dict[int, Tensor | None] = {layer: None for layer in self.settings.layers}
        self._contexts: tuple[str, ...] | None = self.settings.contexts
        self._bases: dict[int, Geometry] = {}
        self._finished: tuple[Applied, Delta] | None = None

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
        return LayeredSolver(self.arch, geometries, shares, self.settings.fit, aim, self.settings.max_tokens)

    def keys(self, trunks: Trunks, layers: Sequence[int]) -> dict[int, Tensor]:
        """Keys of a batch (`n x d_k`) at several layers, with the model as it is."""
        with torch.no_grad():
            trace, _ = trunks.split.run(
                self.arch, start=trunks.start, hidden=trunks.hidden, stop=max(layers), keys=layers
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
        self._unfinish()
        size = s.group or len(requests)
        groups = [slice(i, i + size) for i in range(0, len(requests), size)]
        jobs = [(members, shares) for members in groups for shares in self.shares]
        total = len(jobs) // s.rounds * (s.steps + (s.meta_steps if s.target == "bilevel" else 0))
        bar = tqdm(total=total, desc=f"{self.method}: targets", leave=False) if self.progress else None
        note = {
            "method": self.method,
            "settings": s.model_dump(),
            "edits": [{"prompt": r.prompt, "subject": r.subject, "target": r.target} for r in requests],
        }
        delta, stages = Delta({}, self.arch.fingerprint(), note), []
        with frozen(self.arch.model), bar or nullcontext():
            tick = bar.update if bar else lambda: None
            batches = [Batch.build(self.arch, self.tokenizer, requests[g], self.contexts) for g in groups]
            trunks = [Trunks.build(self.arch, batch, self.shares[0][0][0]) for batch in batches]
            with ExitStack() as earlier:  # every stage sees the ones before it; written is their sum
                for i, (members, shares) in enumerate(jobs):
                    at = groups.index(members)
                    stages.append(self._plan(shares, batches[at], trunks[at], members, tick))
                    factors = stages[-1].solution.factors
                    step = Delta({n: (left.cpu(), right.cpu()) for n, (left, right) in factors.items()})
                    delta = delta.then(step)
                    if i + 1 < len(jobs):
                        earlier.enter_context(step.applied(self.arch, check=False))
            if s.restraint == "rect":
                weights = {layer: self.arch.weight(layer).cpu() for layer in delta.layers}
                kept = {n: largest_changes(delta.dense(n).to(w), w, s.largest) for n, w in weights.items()}
                delta = Delta({}, delta.model, delta.note, kept)
            applied = delta.apply(self.arch, check=False)
            try:
                learned = self._keys_to_learn(trunks, delta.layers) if s.history else {}
                self._learn(learned)
            except BaseException:
                applied.revert()
                self._memory = before
                raise
        seconds = time.perf_counter() - started
        result = EditResult(
            requests, self.method, s, delta, tuple(stages), seconds, applied, self._take_back, before, learned
        )
        self.batches.append(result)
        return result

    def restore(
        self, requests: Sequence[Request], delta: Delta, learned: dict[int, Tensor], seconds: float = 0.0
    ) -> EditResult:
        """Put a batch that was edited and saved earlier into the model, as if it had been edited now.

        Args:
            delta, learned: of its `EditResult`.

        Raises:
            MetakeError: the delta does not fit the model.
        """
        self._unfinish()
        before = dict(self._memory)
        with torch.no_grad():
            applied = delta.apply(self.arch, check=False)
        self._learn(learned)
        result = EditResult(
            tuple(requests),
            self.method,
            self.settings,
            delta,
            (),
            seconds,
            applied,
            self._take_back,
            before,
            learned,
        )
        self.batches.append(result)
        return result

    def _plan(
        self, shares: Shares, batch: Batch, trunks: Trunks, members: slice, tick: Callable[[], object]
    ) -> Stage:
        """Targets of some requests, and their solve, on the model as it is now."""
        solver = self.solver(shares)
        targets = plan_targets(self.arch, solver, batch, trunks, self.settings, tick)
        return Stage(targets, solver.solve(trunks, targets.residuals), members)

    def finish(self) -> None:
        """What some methods do once, after the last batch: PRUNE bounds the whole change.

        Further edits, and `revert`, take this back first.
        """
        s = self.settings
        if s.restraint not in ("prune", "prune-added") or not self.batches or self._finished is not None:
            return
        raw = self.delta
        originals: dict[int, Tensor] = {}
        for result in reversed(self.batches):
            originals |= result._applied.originals
        bounded = {
            n: bounded_spectrum(left, right, originals[n].to(left.device))
            for n, (left, right) in raw.factors.items()
        }
        delta = Delta(bounded, raw.model, raw.note)
        with torch.no_grad():
            held = Applied(self.arch, {n: self.arch.weight(n).clone() for n in delta.layers})
            try:
                if s.restraint == "prune":
                    Applied(self.arch, originals).revert()
                delta.apply(self.arch, check=False)
            except BaseException:
                held.revert()
                raise
        self._finished = held, delta if s.restraint == "prune" else raw.then(delta)

    def _unfinish(self) -> None:
        if self._finished is not None:
            with torch.no_grad():
                self._finished[0].revert()
            self._finished = None

    def _keys_to_learn(self, trunks: Sequence[Trunks], layers: tuple[int, ...]) -> dict[int, Tensor]:
        """A batch's keys in the edited model, as AlphaEdit remembers them: layer -> `d_k x n`."""
        groups = [self.keys(group, layers) for group in trunks]
        dtype = self.settings.torch_dtype
        return {n: torch.cat([keys[n] for keys in groups]).T.to(dtype).contiguous() for n in layers}

    def _learn(self, keys: dict[int, Tensor]) -> None:
        for layer, columns in keys.items():
            past = self._memory[layer]
            columns = columns.to(self.arch.weight(layer).device)
            self._memory[layer] = columns if past is None else torch.cat([past, columns], 1)

    def _take_back(self, result: EditResult) -> None:
        if self.batches[-1] is not result:
            raise MetakeError("revert: a later batch stands on this one; revert that one first")
        self._unfinish()
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
        if self._finished is not None:
            return self._finished[1]
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
