"""Edits of a model with a method: preview, edit, check, revert.

editor = Editor(load("demo"), method="metake", statistics=...)
print(editor.preview(requests))       # predicted realization; the model is not changed
result = editor.edit(requests)        # the model is edited
print(result); result.check(rephrases, neighbours); result.delta.save("edit"); result.revert()
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
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
from metake.methods.base import Learned, Method, Stage, State
from metake.methods.table import method_named
from metake.models.ambient import neutral, refuse_inference_tensors
from metake.models.architecture import ModuleMap
from metake.models.ask import MAX_NEW_TOKENS, ask, check_room
from metake.models.load import EditableModel, as_editable
from metake.models.tokens import encode
from metake.models.trace import frozen
from metake.phases import phase
from metake.requests import Request, distinct
from metake.result import EditResult, Preview

STATISTICS = "metake.Statistics.load(path) reads a file of metake stats"


class Editor:
    """Edits a model in place.

    Args:
        model: what `load` returns, or a causal language model (`transformers`), on any device, fp32 or bf16.
        tokenizer: the model's (fast) tokenizer; not needed with the result of `load`.
        method: a name of the table of methods, with the model's preset; or a method, e.g. of
            `metake.settings_for(model, "metake", lr=0.1)`.
        statistics: second moments of the edited layers' keys, for geometries that use them; default: from the cache,
            or collected.
        modules: module map of an unknown model family, or the path of its file.
        answers: read greedy answers before and after each batch, to determine whether an edit succeeded.
        progress: show a progress bar for target optimizations longer than a second, on a terminal or in a notebook.

    Attributes:
        state: what the method carries to the next batch.
        batches: results of the batches that the model holds.

    Raises:
        MetakeError: unknown method or family, layers out of range, statistics of another model.
    """

    def __init__(
        self,
        model: EditableModel | nn.Module,
        tokenizer: Any = None,
        method: str | Method = "metake",
        *,
        statistics: Statistics | None = None,
        modules: ModuleMap | Path | str | None = None,
        answers: bool = True,
        progress: bool = True,
    ) -> None:
        from metake.presets import settings_for, statistics_for

        if not isinstance(method, Method):
            method_named(method)
        if statistics is not None and not isinstance(statistics, Statistics):
            raise MetakeError(
                f"statistics: must be Statistics, not {type(statistics).__name__}; {STATISTICS}"
            )
        self.loaded = as_editable(model, tokenizer, modules)
        self.arch, self.tokenizer = self.loaded.arch, self.loaded.tokenizer
        refuse_inference_tensors(self.arch.model)
        self.method = method if isinstance(method, Method) else settings_for(self.arch, method)
        self.progress = progress
        self.reads_answers = answers and hasattr(self.arch.model, "generate")
        self.arch.check_layers(self.method.layers)
        if statistics is None and self.method.needs_statistics:
            statistics = statistics_for(self.arch, self.tokenizer, self.method.layers, progress=progress)
        self.state: State = self.method.init(self.loaded, statistics)
        self.batches: list[EditResult] = []
        self._finished: tuple[Applied, Delta] | None = None

    @property
    def statistics(self) -> Statistics | None:
        return self.state.statistics

    @property
    def contexts(self) -> tuple[str, ...]:
        """Texts put before prompts; sampled once, from the model at the first edit or preview."""
        self.state = self.method.prepare(self.loaded, self.state)
        return self.state.contexts or ()

    def ask(self, questions: str | Iterable[str], *, max_new_tokens: int = MAX_NEW_TOKENS) -> str | list[str]:
        """Greedy answers of the current model; see `EditableModel.ask`."""
        return ask(self.arch, self.tokenizer, questions, max_new_tokens)

    def __repr__(self) -> str:
        count = len(self.batches)
        return f"<Editor: {self.method.name} of {self.loaded.name}, layers {list(self.method.layers)}, {count} batches>"

    def preview(self, requests: Sequence[Request] | Request) -> Preview:
        """Predicted realization of each request at each layer: rho and eta of its mean key. The model is not changed."""
        requests = distinct(requests)
        with neutral(), frozen(self.arch.model):
            self.state = self.method.prepare(self.loaded, self.state)
            found = self.method.preview(self.loaded, requests, self.state)
        return Preview(tuple(requests), **found.__dict__)

    def edit(self, requests: Sequence[Request] | Request) -> EditResult:
        """Result of one batch of edits, which is planned, solved and written. If this fails, the model is unchanged.

        Identical requests are merged, with a warning.

        Raises:
            MetakeError: no request, or two requests with different targets for one prompt.
        """
        requests = distinct(requests)
        self._unfinish()
        earlier = self._answers(requests)
        started = time.perf_counter()
        with frozen(self.arch.model):
            delta, state, stages = self._step(requests)
            delta = replace(delta, model=self.arch.fingerprint(), note=self._note(requests))
            applied = delta.apply(self.arch, check=False)
            try:
                seconds = time.perf_counter() - started
                answers = self._compared(requests, earlier)
            except BaseException:
                applied.revert()
                raise
        learned = state.learned[-1] if len(state.learned) > len(self.state.learned) else {}
        result = EditResult(
            requests, self.method, delta, stages, seconds, applied, self, self.state, learned, answers
        )
        return self._push(result, state)

    def _push(self, result: EditResult, state: State) -> EditResult:
        self.batches.append(result)
        self.state = state
        return result

    def _step(self, requests: tuple[Request, ...]) -> tuple[Delta, State, tuple[Stage, ...]]:
        """One step of the method, with a progress bar."""
        options = {
            "total": self.method.step_count(len(requests)),
            "desc": f"{self.method.name}: targets",
            "unit": "step",
            "leave": False,
        }
        bar = tqdm(**options, delay=1, disable=hidden(self.progress)) if self.progress else None
        with bar or nullcontext():
            on_step = bar.update if bar else lambda: None
            return self.method.step(self.loaded, requests, self.state, on_step)

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

    def _note(self, requests: tuple[Request, ...]) -> dict[str, Any]:
        """Note of a batch's delta."""
        return {
            "method": self.method.name,
            "model": getattr(self.arch.model, "name_or_path", "") or "",
            "version": metake.__version__,
            "settings": self.method.model_dump(),
            "edits": [{"prompt": r.prompt, "subject": r.subject, "target": r.target} for r in requests],
        }

    def restore(
        self, requests: Sequence[Request], delta: Delta, learned: Learned, seconds: float = 0.0
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
        if other := [layer for layer in learned if layer not in self.method.layers]:
            raise MetakeError(f"restore: learned holds layer {other[0]!r}, which the editor does not edit")
        self._unfinish()
        with torch.no_grad():
            applied = delta.apply(self.arch, check=False)
        result = EditResult(requests, self.method, delta, (), seconds, applied, self, self.state, learned)
        return self._push(result, self.state.with_learned(learned))

    def finish(self) -> None:
        """Apply the last step of a method after the last batch: PRUNE bounds the singular values of the total update.

        Further edits and `revert` undo this step first.

        Raises:
            MetakeError: other code has changed the weights since the last batch.
        """
        if not self.method.finalizes or not self.batches or self._finished is not None:
            return
        self.batches[-1]._applied.check()
        originals = self._originals(self.batches)
        delta = self.method.finalize(self.delta, originals)
        with torch.no_grad():
            held = Applied(self.arch, {n: self.arch.weight(n).clone() for n in delta.layers})
            try:
                Applied(self.arch, originals).revert()
                delta.apply(self.arch, check=False)
            except BaseException:
                held.revert()
                raise
        self._finished = held.seal(), delta
        for result in self.batches:
            result.answers = self._compared(result.requests, [answer.before for answer in result.answers])

    def _unfinish(self) -> None:
        if self._finished is not None:
            self._finished[0].revert()
            self._finished = None

    def _take_back(self, result: EditResult) -> None:
        if self.batches[-1] is not result:
            raise MetakeError("revert: a later batch stands on this one; revert that one first")
        self._unfinish()
        result._applied.revert()
        self.state = result._state
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
