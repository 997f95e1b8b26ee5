"""Edits of a model with a method: preview, edit, check, revert."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from metake.answers import Check
from metake.calibration.escalation import check_attempts, stronger
from metake.checks import Questions, answer_requests, compare_requests
from metake.console import tqdm_disable
from metake.deltas import Delta
from metake.errors import MetakeError
from metake.geometry.statistics import Statistics
from metake.history import History, delta_note
from metake.methods.base import Method
from metake.methods.state import LayerMemory, Stage, State
from metake.methods.table import method_named
from metake.models.ambient import neutral, refuse_inference_tensors
from metake.models.ask import ask
from metake.models.editable import MAX_NEW_TOKENS, EditableModel
from metake.models.load import as_editable
from metake.models.modules import ModuleMap
from metake.models.trace import frozen
from metake.preview import Preview
from metake.requests import EditRequest, distinct
from metake.result import EditResult
from metake.words import counted


class Editor:
    """Editor of a model in place.

    Args:
        model: what `load` returns, or a causal language model (`transformers`), on any device, fp32 or bf16.
        tokenizer: the model's (fast) tokenizer; not needed with the result of `load`.
        method: a name of the table of methods, with the model's preset, or without one with settings that the first
            batch is calibrated on (see `locate`); or a method, e.g. `memit(model, lr=0.1)`.
        statistics: second moments of the edited layers' keys, for geometries that use them; default: from the cache,
            or collected.
        modules: module map of an unknown model family, or the path of its file.
        answers: read greedy answers before and after each batch, to determine whether an edit succeeded.
        progress: show a progress bar for target optimizations longer than a second, on a terminal or in a notebook.
        reasons: lines on where the settings of a given method come from, for results and notes of deltas.
        undoable: number of last batches that `undo` can revert; earlier ones are merged, in bounded memory, and only
            reverted with all others. None: every batch.

    Attributes:
        state: state of the method for the next batch.
        history: batches that the model holds.

    Raises:
        MetakeError: unknown method or family, layers out of range, statistics of another model.

    Example:
        >>> import metake as mk
        >>> model = mk.load("demo")
        >>> with mk.Editor(model, method=mk.settings_for(model, "ultraedit", layers=(2, 3)), progress=False) as editor:
        ...     result = editor.edit(mk.EditRequest("What is the craft of {}?", "Nezan Girok", "baker"))
        ...     check = editor.check(neighbors="What is the craft of Sino Dufe?")
        ...     len(result.delta.layers), len(check.neighbors)
        (2, 1)
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
        reasons: Sequence[str] = (),
        undoable: int | None = None,
    ) -> None:
        from metake.presets import preset_name, settings_for

        if not isinstance(method, Method):
            method_named(method)
        if statistics is not None and not isinstance(statistics, Statistics):
            raise MetakeError(
                f"statistics: must be Statistics, not {type(statistics).__name__}; "
                "metake.Statistics.load(path) reads a file of metake stats"
            )
        self.model = as_editable(model, tokenizer, modules)
        self.tokenizer = self.model.tokenizer
        refuse_inference_tensors(self.model.model)
        self.method = method if isinstance(method, Method) else settings_for(self.model, method)
        self.progress = progress
        self.reads_answers = answers and hasattr(self.model.model, "generate")
        self.model.check_layers(self.method.layers)
        self.reasons = tuple(reasons)
        self._uncalibrated, self._given_statistics = "", statistics
        if isinstance(method, str):
            preset = preset_name(self.model)
            self.reasons = (f"settings: preset {preset}",) if preset else ()
            self._uncalibrated = "" if preset else method
        unused = self.method.reasons(self.model)
        for line in unused:
            warnings.warn(line, stacklevel=2)
        self.reasons += unused
        self.history = History(self.model, undoable)
        if statistics is None and self.method.needs_statistics and not self._uncalibrated:
            statistics = self._collected(progress)
        self.state = State() if self._uncalibrated else self.method.init(self.model, statistics)

    @property
    def statistics(self) -> Statistics | None:
        """Second moments of the edited layers' keys; None if the method needs none."""
        return self.state.statistics

    def _collected(self, progress: bool) -> Statistics:
        """Statistics of the method's layers, from the cache or collected."""
        from metake.statistics_cache import statistics_for

        gradients, layers = self.method.needs_gradients, self.method.layers
        return statistics_for(self.model, self.tokenizer, layers, progress=progress, gradients=gradients)

    def _calibrate(self, requests: Sequence[EditRequest]) -> None:
        """Choose the settings of a method that was named for a model without a preset; once, at the first batch."""
        from metake.calibration.locate import locate

        if not self._uncalibrated:
            return
        given = self._given_statistics
        location = locate(self.model, requests, self._uncalibrated, given, windows=given is None)
        self.method, self.reasons = location.method, location.reasons
        if given is None and self.method.needs_statistics:
            given = self._collected(self.progress)
        self.state = self.method.init(self.model, given)
        self._uncalibrated = ""

    @property
    def contexts(self) -> tuple[str, ...]:
        """Texts put before prompts; sampled once, from the model at the first edit or preview."""
        self.state = self.method.prepare(self.model, self.state)
        return self.state.contexts or ()

    @property
    def batches(self) -> list[EditResult]:
        """Results of the batches that the model holds, oldest first."""
        return self.history.results

    @property
    def delta(self) -> Delta:
        """All batches so far as one delta, for the model before the first of them."""
        return self.history.delta

    def ask(self, questions: str | Iterable[str], *, max_new_tokens: int = MAX_NEW_TOKENS) -> str | list[str]:
        """Greedy answers of the current model.

        Args:
            questions: complete prompts, one or several.
            max_new_tokens: maximum number of tokens per answer.

        Returns:
            One answer, or a list for several questions.
        """
        return ask(self.model, questions, max_new_tokens)

    def preview(self, requests: Sequence[EditRequest] | EditRequest) -> Preview:
        """Predicted realization of each request at each layer: rho and eta of its mean key. The model is not changed.

        Args:
            requests: one request or several.

        Returns:
            Predictions for all requests.

        Raises:
            MetakeError: no request, or a method without attenuation.
        """
        requests = distinct(requests)
        self._calibrate(requests)
        with neutral(), frozen(self.model.model):
            self.state = self.method.prepare(self.model, self.state, requests)
            attenuation = self.method.preview(self.model, requests, self.state)
        return Preview(
            tuple(requests),
            **vars(attenuation),
            state=self.state,
            model=self.model.fingerprint(),
            constraint=self.method.constraint(self.state),
            reasons=self.reasons,
        )

    def edit(
        self,
        requests: Sequence[EditRequest] | EditRequest,
        *,
        preview: Preview | None = None,
        escalate: int = 0,
    ) -> EditResult:
        """Plan, solve and apply one batch of edits. If a step fails, the model is unchanged.

        Args:
            requests: one request or several, edited together. Identical ones are merged, with a warning.
            preview: preview of the same requests. Its token rows and passes are reused if neither the model nor the
                state has changed since; the result is the same, bit for bit.
            escalate: largest number of further attempts, each with a weaker constraint and more steps, while some
                answers do not begin with their target. The best one is kept; later batches have the method as it was.

        Returns:
            Report of the batch; its `method` is that of the attempt that was kept.

        Raises:
            MetakeError: no request, two requests with different targets for one prompt, or a preview that is none.
        """
        requests = distinct(requests)
        if preview is not None and not isinstance(preview, Preview):
            raise MetakeError(f"edit: preview must be a Preview, not {type(preview).__name__}")
        check_attempts(escalate)
        self._calibrate(requests)
        self.history.unfinalize()
        before = answer_requests(self.model, requests) if self.reads_answers else []
        result = self._attempt(requests, self.method, before, preview)
        tried = method = self.method
        scale = self.state.scale
        for _ in range(escalate if result.failed else 0):
            tried = stronger(tried)
            self.undo()
            self.state = replace(self.state, scale=scale)
            again = self._attempt(requests, tried, before)
            if len(again.failed) < len(result.failed):
                method, result = tried, again
            if not result.failed:
                break
        if self.batches[-1] is not result:
            self.undo()
            result = self._attempt(requests, method, before)
        return result

    def _attempt(
        self,
        requests: tuple[EditRequest, ...],
        method: Method,
        before: Sequence[str],
        preview: Preview | None = None,
    ) -> EditResult:
        """One batch with a method that may be stronger than the editor's, which later batches are edited with."""
        started, own = time.perf_counter(), method is self.method
        old = self.state if own else replace(self.state, scale=None, bases={}, with_folded={})
        with frozen(self.model.model):
            delta, state, stages = self._step(method, requests, old, preview)
            constraint = method.constraint(state)
            note = delta_note(self.model, method, requests, constraint, self.reasons)
            delta = replace(delta, model=self.model.fingerprint(), note=note)
            applied = delta.apply(self.model, check=False)
            try:
                seconds = time.perf_counter() - started
                answers = compare_requests(self.model, requests, before)
            except BaseException:
                applied.revert()
                raise
        memory = state.memory[-1] if len(state.memory) > len(old.memory) else {}
        result = EditResult(
            requests, method, delta, stages, seconds, memory, answers, constraint, self.reasons
        )
        self.history.push(result, applied, self.state)
        if not own:
            state = replace(self.state, contexts=state.contexts, memory=state.memory, anchors=state.anchors)
        self.state = self.method.fold(state)
        return result

    def _step(
        self, method: Method, requests: tuple[EditRequest, ...], state: State, preview: Preview | None
    ) -> tuple[Delta, State, tuple[Stage, ...]]:
        """One step of the method, with a progress bar, on the inputs of a preview if they are the step's."""
        inputs = preview and preview.inputs_for(requests, state, self.model.fingerprint())
        built = {} if inputs is None else {"inputs": inputs}
        total, title = method.step_count(len(requests)), f"{method.name}: targets"
        options = {"total": total, "desc": title, "unit": "step", "leave": False, "delay": 1}
        bar = tqdm(**options, disable=tqdm_disable(self.progress)) if self.progress else None
        with bar or nullcontext():
            on_step = bar.update if bar else lambda: None
            return method.step(self.model, requests, state, on_step, **built)

    def restore(
        self, requests: Sequence[EditRequest], delta: Delta, memory: LayerMemory, seconds: float = 0.0
    ) -> EditResult:
        """Result of a batch that was edited and saved earlier, and is now applied to the model again.

        Args:
            requests: the batch.
            delta: weight update of the batch.
            memory: the attribute `memory` of the batch's `EditResult`.
            seconds: wall time of the edit.

        Returns:
            Report of the batch, without stages and answers.

        Raises:
            MetakeError: an argument is of another type, or the delta does not fit the model.
        """
        requests = distinct(requests)
        if not isinstance(delta, Delta):
            raise MetakeError(f"restore: delta must be a Delta, not {type(delta).__name__}")
        if not isinstance(memory, dict) or not all(isinstance(t, Tensor) for t in memory.values()):
            raise MetakeError("restore: memory must be the dictionary `memory` of the edit's result")
        if other := [layer for layer in memory if layer not in self.method.layers]:
            raise MetakeError(f"restore: memory contains layer {other[0]!r}, which the editor does not edit")
        self._calibrate(requests)
        self.history.unfinalize()
        self.state = self.method.restored(self.model, self.state, requests)
        with torch.no_grad():
            applied = delta.apply(self.model, check=False)
        result = EditResult(requests, self.method, delta, (), seconds, memory)
        self.history.push(result, applied, self.state)
        self.state = self.method.fold(self.state.with_memory(memory))
        return result

    def finalize(self) -> list[EditResult]:
        """Apply the step of a method after the last batch: PRUNE bounds the singular values of the total update.

        Further edits, `undo` and `revert` undo this step first.

        Returns:
            Results of all batches, with the answers of the finalized model.

        Raises:
            MetakeError: other code has changed the weights since the last batch.
        """
        if self.history.finalize(self.method):
            before = [[answer.before for answer in result.answers] for result in self.batches]
            self.history.set_final_results(
                [
                    replace(result, answers=compare_requests(self.model, result.requests, answers))
                    for result, answers in zip(self.batches, before, strict=True)
                ]
            )
        return self.batches

    def check(self, rephrases: Any = (), neighbors: Any = (), *, result: EditResult | None = None) -> Check:
        """Answers without and with an edit, to rephrased prompts and to neighborhood prompts.

        The answers without the edit come from the model before its batch. The present weights are restored
        afterwards, bit for bit.

        Args:
            rephrases: complete prompts whose answer should begin with the target: a string or a list of
                strings; for a batch of several requests a list with one entry (a string or a list of
                strings) per request.
            neighbors: complete prompts whose answer should not change, a string or a list of strings.
            result: of the edit; by default the last one.

        Returns:
            Answers to all questions.

        Raises:
            MetakeError: no question, a question that is not a string, an edit that was reverted, or weights that other
                code has changed since.
        """
        result = self._last("check") if result is None else result
        first = self.history.index(result, "check")
        questions = Questions.parse(result.requests, rephrases, neighbors)
        self.history.verify("check")
        before = self.history.originals(first), self.history.original_patches(first)
        return questions.ask(self.model, *before)

    def _last(self, what: str) -> EditResult:
        """Result of the last batch."""
        if not self.batches:
            merged = "" if self.history.is_empty else " that is not merged with others (undoable=...)"
            raise MetakeError(f"{what}: the model holds no edit of this editor{merged}; edit first")
        return self.batches[-1]

    def undo(self) -> None:
        """Revert the last batch: weights and state of the method are restored bit for bit.

        Raises:
            MetakeError: there is no batch, or other code has changed the weights since.
        """
        self.revert(self._last("undo"))

    def revert(self, result: EditResult | None = None) -> None:
        """Revert all batches, or the given one, which must be the last: weights and state are restored bit for bit.

        Args:
            result: of the last batch.

        Raises:
            MetakeError: a batch that is not the last one, or not in the model; or other code has changed the weights.
        """
        if result is not None and self.history.index(result, "revert") + 1 < len(self.batches):
            raise MetakeError(
                "revert: a later batch was applied on top of this one; revert the later one first"
            )
        while not self.history.is_empty:
            self.state = self.history.pop()
            if result is not None:
                break

    def __repr__(self) -> str:
        count = len(self.batches)
        return f"<Editor: {self.method.name} of {self.model.name}, layers {list(self.method.layers)}, {counted(count, 'batch')}>"

    def __enter__(self) -> Editor:
        return self

    def __exit__(self, *_: object) -> None:
        self.revert()
