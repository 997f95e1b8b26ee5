"""Edits of a model with a method: preview, edit, check, revert.

editor = Editor(load("demo"), method="metake", settings=..., statistics=...)
print(editor.preview(requests))       # predicted realization; the model is not changed
result = editor.edit(requests)        # the model is edited
print(result); result.check(rephrases, neighbours); result.delta.save("edit"); result.revert()
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import metake
from metake.answers import Answer, Check, Neighbour, compare_answers, read_answers
from metake.console import hidden
from metake.deltas import Applied, Delta, swapped_weights
from metake.errors import MetakeError
from metake.geometry.covariance import Statistics
from metake.geometry.operator import Geometry, Identity, Projected, Ridge
from metake.hparams import Settings
from metake.methods import find_method
from metake.models.ambient import neutral, refuse_inference_tensors
from metake.models.architecture import ModuleMap
from metake.models.ask import MAX_NEW_TOKENS, ask, check_room
from metake.models.load import Loaded, as_loaded
from metake.models.tokens import encode
from metake.models.trace import frozen, wide
from metake.phases import phase
from metake.prompts import Batch, Trunks, sample_contexts
from metake.requests import Request, distinct
from metake.result import EditResult, Preview, Stage
from metake.solvers.allocation import ALLOCATIONS, Shares, last
from metake.solvers.layered import Aim, LayeredSolver, Solution
from metake.solvers.restraints import bounded_spectrum, largest_changes
from metake.targets.gradient import Moments, Signals, answer_signals, gradient_step
from metake.targets.target import plan_targets

# stages, the weight update, and a function for the keys that later geometries include, called after the update
Written = tuple[tuple[Stage, ...], Delta, Callable[[], dict[int, Tensor]]]


REMEDIES = {
    "settings": "metake.settings_for(model, method, lr=0.1) makes them",
    "statistics": "metake.Statistics.load(path) reads a file of metake stats",
}


def _change(solution: Solution) -> Delta:
    return Delta({n: (left.cpu(), right.cpu()) for n, (left, right) in solution.factors.items()})


class Editor:
    """Edits a model in place.

    Args:
        model: what `load` returns, or a causal language model (`transformers`), on any device, fp32 or bf16.
        tokenizer: the model's (fast) tokenizer; not needed with the result of `load`.
        method: name of a row of `metake.methods.METHODS`.
        settings: default: those of `metake.presets.settings_for`.
        statistics: second moments of the edited layers' keys, for geometries that use them; default: from the cache,
            or collected.
        modules: module map of an unknown model family, or the path of its file.
        answers: read greedy answers before and after each batch, to determine whether an edit succeeded.
        progress: show a progress bar for target optimizations longer than a second, on a terminal or in a notebook.

    Raises:
        MetakeError: unknown method or family, layers out of range, statistics of another model.
    """

    def __init__(
        self,
        model: Loaded | nn.Module,
        tokenizer: Any = None,
        method: str = "metake",
        *,
        settings: Settings | None = None,
        statistics: Statistics | None = None,
        modules: ModuleMap | Path | str | None = None,
        answers: bool = True,
        progress: bool = True,
    ) -> None:
        from metake.presets import check_allocation, settings_for, statistics_for

        find_method(method)
        self.loaded = as_loaded(model, tokenizer, modules)
        self.arch, self.tokenizer = self.loaded.arch, self.loaded.tokenizer
        refuse_inference_tensors(self.arch.model)
        self.method, self.progress = method, progress
        self.reads_answers = answers and hasattr(self.arch.model, "generate")
        for name, value, kind in (("settings", settings, Settings), ("statistics", statistics, Statistics)):
            if value is not None and not isinstance(value, kind):
                raise MetakeError(
                    f"{name}: must be {kind.__name__}, not {type(value).__name__}; {REMEDIES[name]}"
                )
        self.settings = settings or settings_for(self.arch, method)
        self.arch.check_layers(self.settings.layers)
        check_allocation(self.settings.allocation)
        if self.settings.needs_statistics:
            if statistics is None:
                statistics = statistics_for(
                    self.arch, self.tokenizer, self.settings.layers, progress=progress
                )
            statistics.check(self.arch, self.settings.layers)
        self.statistics = statistics
        self.batches: list[EditResult] = []
        self._memory: dict[int, Tensor | None] = {layer: None for layer in self.settings.layers}
        self._contexts: tuple[str, ...] | None = self.settings.contexts
        self._bases: dict[int, Geometry] = {}
        self._finished: tuple[Applied, Delta] | None = None

    @property
    def contexts(self) -> tuple[str, ...]:
        """Texts put before prompts; sampled once, from the model at the first edit or preview."""
        if self._contexts is None:
            self._contexts = sample_contexts(self.arch, self.tokenizer, seed=self.settings.seed)
        return self._contexts

    def geometry(self, layer: int) -> Geometry:
        """The current effective geometry of a layer, including the keys of earlier batches if the method has a history."""
        if layer not in self._bases:
            with neutral():
                self._bases[layer] = self._base(layer)
        past = self._memory[layer] if self.settings.history else None
        return self._bases[layer] if past is None else self._bases[layer].with_past(past)

    def _base(self, layer: int) -> Geometry:
        """The geometry of a layer without the keys of earlier batches."""
        s, device = self.settings, self.arch.weight(layer).device
        if self.statistics is None or not s.needs_statistics:
            return Identity(dtype=s.torch_dtype, device=device)
        moment = self.statistics[layer].to(device)
        moment = moment.clone() if moment.is_inference() else moment  # no gradient passes an inference tensor
        if s.geometry == "ridge":
            beta = s.ridge * s.weight * float(moment.trace())
            return Ridge(moment, s.weight, beta, dtype=s.torch_dtype)
        keep = s.keep if s.threshold is None else None
        return Projected(moment, s.l2, threshold=s.threshold, keep=keep, dtype=s.torch_dtype)

    @property
    def shares(self) -> list[Shares]:
        """Shares of the allocation, one list per stage of an edit."""
        return ALLOCATIONS[self.settings.allocation](self.settings.layers) * self.settings.rounds

    def _measured(self, shares: Shares) -> Shares:
        """Shares that produce the measured shift; for a gradient step, that of the last layer only."""
        return last(self.settings.layers) if self.settings.target == "gradient" else shares

    def solver(self, shares: Shares | None = None) -> LayeredSolver:
        """The lower-level solver of a stage (default: the first), with the current geometries."""
        shares = shares or self.shares[0]
        geometries = {layer: self.geometry(layer) for layer, _ in shares}
        aim: Aim = "own" if self.settings.allocation == "forward" else "top"
        return LayeredSolver(self.arch, geometries, shares, self.settings.fit, aim, self.settings.max_tokens)

    def keys(self, trunks: Trunks, layers: Sequence[int]) -> dict[int, Tensor]:
        """Layer -> mean keys of a batch in the current model, `n x d_k`."""
        return {layer: trunks.mean_key(keys) for layer, keys in self._lookups(trunks, layers).items()}

    def _lookups(self, trunks: Trunks, layers: Sequence[int]) -> dict[int, Tensor]:
        """Layer -> keys of a batch in every context, `rows x d_k`."""
        with torch.no_grad():
            trace, _ = trunks.split.run(
                self.arch, start=trunks.start, hidden=trunks.hidden, stop=max(layers), keys=layers
            )
        return {layer: wide(trunks.at_lookup(trace.keys[layer])) for layer in layers}

    def ask(self, questions: str | Iterable[str], *, max_new_tokens: int = MAX_NEW_TOKENS) -> str | list[str]:
        """Greedy answers of the current model; see `Loaded.ask`."""
        return ask(self.arch, self.tokenizer, questions, max_new_tokens)

    def __repr__(self) -> str:
        count = len(self.batches)
        return f"<Editor: {self.method} of {self.loaded.name}, layers {list(self.settings.layers)}, {count} batches>"

    def preview(self, requests: Sequence[Request] | Request) -> Preview:
        """Predicted realization of each request at each layer: rho and eta of its mean key. The model is not changed."""
        requests = distinct(requests)
        layers = tuple(sorted({layer for shares in self.shares for layer, _ in shares}))
        steady = torch.ones(len(layers), len(requests))
        with frozen(self.arch.model):
            if self.settings.target == "gradient":
                signals = self._signals(requests)
                keys = {layer: signals.mean(key) for layer, key in signals.keys.items()}
            else:
                batch = Batch.build(self.arch, self.tokenizer, requests, self.contexts, self.settings.lookup)
                trunks = Trunks.build(self.arch, batch, layers[0])
                found = self._lookups(trunks, layers)
                keys = {layer: trunks.mean_key(found[layer]) for layer in layers}
                steady = torch.stack([trunks.steadiness(found[layer]) for layer in layers])
        rho = torch.stack([self.geometry(layer).realisability(keys[layer].T).cpu() for layer in layers])
        return Preview(
            tuple(requests), layers, rho, rho / (1 + rho), steady, self._measured(self.shares[-1]), self.settings.fit
        )  # fmt: skip

    def edit(self, requests: Sequence[Request] | Request) -> EditResult:
        """Result of one batch of edits, which is planned, solved and written. If this fails, the model is unchanged.

        Identical requests are merged, with a warning.

        Raises:
            MetakeError: no request, or two requests with different targets for one prompt.
        """
        requests = distinct(requests)
        s, before = self.settings, dict(self._memory)
        self._unfinish()
        earlier = self._answers(requests)
        started = time.perf_counter()
        write = self._one_step if s.target == "gradient" else self._planned
        with frozen(self.arch.model):
            stages, delta, learn = write(requests)
            if s.restraint == "rect":
                weights = {layer: self.arch.weight(layer).cpu() for layer in delta.layers}
                kept = {n: largest_changes(delta.dense(n).to(w), w, s.largest) for n, w in weights.items()}
                delta = Delta({}, delta.model, delta.note, kept)
            applied = delta.apply(self.arch, check=False)
            try:
                learned = learn()
                self._learn(learned)
                seconds = time.perf_counter() - started
                answers = self._compared(requests, earlier)
            except BaseException:
                applied.revert()
                self._memory = before
                raise
        result = EditResult(
            requests,
            self.method,
            s,
            delta,
            stages,
            seconds,
            applied,
            self._take_back,
            self._check,
            before,
            learned,
            answers,
        )
        self.batches.append(result)
        return result

    def _answers(self, requests: Sequence[Request]) -> list[str]:
        """Greedy answers of the current model; empty if answers are not read."""
        if not self.reads_answers:
            return []
        asked = [r.text for r in requests], [r.target for r in requests]
        with phase("evaluate"):
            return read_answers(self.arch, self.tokenizer, *asked)

    def _compared(self, requests: Sequence[Request], earlier: Sequence[str]) -> tuple[Answer, ...]:
        """Current answers paired with earlier ones; empty if there are none."""
        if not earlier:
            return ()
        asked = [r.text for r in requests], [r.target for r in requests]
        return compare_answers(self.tokenizer, *asked, earlier, self._answers(requests))

    def _planned(self, requests: tuple[Request, ...]) -> Written:
        """Targets and their solves, by groups and stages, each on the model as edited by the earlier ones."""
        s = self.settings
        size = s.group or len(requests)
        groups = [slice(i, i + size) for i in range(0, len(requests), size)]
        jobs = [(members, shares) for members in groups for shares in self.shares]
        total = len(jobs) // s.rounds * (s.steps + (s.meta_steps if s.target == "bilevel" else 0))
        options = {"total": total, "desc": f"{self.method}: targets", "unit": "step", "leave": False}
        bar = tqdm(**options, delay=1, disable=hidden(self.progress)) if self.progress else None
        delta, stages = self._empty(requests), []
        with bar or nullcontext():
            tick = bar.update if bar else lambda: None
            batches = [
                Batch.build(self.arch, self.tokenizer, requests[g], self.contexts, self.settings.lookup)
                for g in groups
            ]
            trunks = [Trunks.build(self.arch, batch, self.shares[0][0][0]) for batch in batches]
            with ExitStack() as earlier:  # every stage sees the ones before it; written is their sum
                for i, (members, shares) in enumerate(jobs):
                    at = groups.index(members)
                    stages.append(self._plan(shares, batches[at], trunks[at], members, tick))
                    step = _change(stages[-1].solution)
                    delta = delta.then(step)
                    if i + 1 < len(jobs):
                        earlier.enter_context(step.applied(self.arch, check=False))
        layers = delta.layers
        return tuple(stages), delta, lambda: self._keys_to_learn(trunks, layers) if s.history else {}

    def _one_step(self, requests: tuple[Request, ...]) -> Written:
        """UltraEdit: one gradient step of the whole batch, normalized by the moments of all batches so far."""
        s = self.settings
        signals = self._signals(requests)
        mine = signals.moments
        past = {n: packed for n in s.layers if (packed := self._memory[n]) is not None}
        seen = {n: m.merged(Moments.unpack(past[n])) if n in past else m for n, m in mine.items()}
        targets, solution = gradient_step(
            signals, seen, {n: self.geometry(n) for n in s.layers}, s.gradient_lr
        )
        stage = Stage(targets, solution, slice(0, len(requests)), self._measured(self.shares[-1]))
        delta = self._empty(requests).then(_change(solution))
        return (stage,), delta, lambda: {n: m.pack() for n, m in mine.items()}

    def _signals(self, requests: Sequence[Request]) -> Signals:
        rows = Batch.build(self.arch, self.tokenizer, requests, ()).edits
        return answer_signals(self.arch, rows, self.settings.layers, self.settings.max_tokens)

    def _empty(self, requests: tuple[Request, ...]) -> Delta:
        """An empty delta with the note of the batch."""
        note = {
            "method": self.method,
            "model": getattr(self.arch.model, "name_or_path", "") or "",
            "version": metake.__version__,
            "settings": self.settings.model_dump(),
            "edits": [{"prompt": r.prompt, "subject": r.subject, "target": r.target} for r in requests],
        }
        return Delta({}, self.arch.fingerprint(), note)

    def restore(
        self, requests: Sequence[Request], delta: Delta, learned: dict[int, Tensor], seconds: float = 0.0
    ) -> EditResult:
        """Result of a batch that was edited and saved earlier, and is now applied to the model again.

        Args:
            delta, learned: attributes of its `EditResult`.

        Raises:
            MetakeError: an argument is of another type, or the delta does not fit the model.
        """
        requests = distinct(requests)
        if not isinstance(delta, Delta):
            raise MetakeError(f"restore: delta must be a Delta, not {type(delta).__name__}")
        if not isinstance(learned, dict) or not all(isinstance(t, Tensor) for t in learned.values()):
            raise MetakeError("restore: learned must be the dictionary `learned` of the edit's result")
        if other := [layer for layer in learned if layer not in self._memory]:
            raise MetakeError(f"restore: learned holds layer {other[0]!r}, which the editor does not edit")
        self._unfinish()
        before = dict(self._memory)
        with torch.no_grad():
            applied = delta.apply(self.arch, check=False)
        self._learn(learned)
        result = EditResult(
            requests,
            self.method,
            self.settings,
            delta,
            (),
            seconds,
            applied,
            self._take_back,
            self._check,
            before,
            learned,
        )
        self.batches.append(result)
        return result

    def _plan(
        self, shares: Shares, batch: Batch, trunks: Trunks, members: slice, tick: Callable[[], object]
    ) -> Stage:
        """Targets of some requests and their solve, on the current model."""
        solver = self.solver(shares)
        with phase("plan"):
            targets = plan_targets(self.arch, solver, batch, trunks, self.settings, tick)
        with phase("solve"):
            return Stage(targets, solver.solve(trunks, targets.residuals), members, shares)

    def finish(self) -> None:
        """Apply the last step of a method after the last batch: PRUNE bounds the singular values of the total update.

        Further edits and `revert` undo this step first.

        Raises:
            MetakeError: other code has changed the weights since the last batch.
        """
        s = self.settings
        if s.restraint not in ("prune", "prune-added") or not self.batches or self._finished is not None:
            return
        raw = self.delta
        self.batches[-1]._applied.check()
        originals = self._originals(self.batches)
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
        self._finished = held.seal(), delta if s.restraint == "prune" else raw.then(delta)
        for result in self.batches:
            result.answers = self._compared(result.requests, [answer.before for answer in result.answers])

    def _unfinish(self) -> None:
        if self._finished is not None:
            self._finished[0].revert()
            self._finished = None

    def _keys_to_learn(self, trunks: Sequence[Trunks], layers: tuple[int, ...]) -> dict[int, Tensor]:
        """Layer -> keys of a batch in the edited model, `d_k x n`, as in AlphaEdit's history."""
        groups = [self.keys(group, layers) for group in trunks]
        dtype = self.settings.torch_dtype
        return {n: torch.cat([keys[n] for keys in groups]).T.to(dtype).contiguous() for n in layers}

    def _learn(self, learned: dict[int, Tensor]) -> None:
        """Add a batch to the history: keys are concatenated, moments of a gradient step are merged."""
        for layer, new in learned.items():
            past, new = self._memory[layer], new.to(self.arch.weight(layer).device)
            if past is not None and self.settings.target == "gradient":
                new = Moments.unpack(past).merged(Moments.unpack(new)).pack()
            elif past is not None:
                new = torch.cat([past, new], 1)
            self._memory[layer] = new

    def _take_back(self, result: EditResult) -> None:
        if self.batches[-1] is not result:
            raise MetakeError("revert: a later batch stands on this one; revert that one first")
        self._unfinish()
        result._applied.revert()
        self._memory = result._before
        self.batches.pop()

    @staticmethod
    def _originals(batches: Sequence[EditResult]) -> dict[int, Tensor]:
        """Layer -> weights before the first of consecutive batches."""
        originals: dict[int, Tensor] = {}
        for result in reversed(batches):
            originals |= result._applied.originals
        return originals

    def _check(
        self, result: EditResult, rephrases: list[str], targets: list[str], neighbours: list[str]
    ) -> Check:
        """Answers of the model before a batch, paired with those of the current model."""
        written = self.batches[-1]._applied if self._finished is None else self._finished[0]
        written.check("check")
        asked = [*rephrases, *neighbours], [*targets, *[""] * len(neighbours)]
        check_room(self.arch, [encode(self.tokenizer, text).ids for text in asked[0]], "check")
        after = read_answers(self.arch, self.tokenizer, *asked)
        first = next(i for i, batch in enumerate(self.batches) if batch is result)
        with swapped_weights(self.arch, self._originals(self.batches[first:])):
            before = read_answers(self.arch, self.tokenizer, *asked)
        count = len(rephrases)
        found = compare_answers(self.tokenizer, rephrases, targets, before[:count], after[:count])
        rest = zip(neighbours, before[count:], after[count:], strict=True)
        return Check(found, tuple(Neighbour(text, b, b, a) for text, b, a in rest))

    def revert(self) -> None:
        """Revert every batch.

        Raises:
            MetakeError: other code has changed the weights since.
        """
        while self.batches:
            self.batches[-1].revert()

    @property
    def delta(self) -> Delta:
        """All batches so far as one delta, for the model before the first of them."""
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
