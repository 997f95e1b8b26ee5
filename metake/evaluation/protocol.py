"""Evaluation protocol: consecutive batches of edits on one model, measured at the end; or each batch alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from metake.data.record import Record
from metake.editor import Editor
from metake.errors import MetakeError
from metake.evaluation.checkpoint import Checkpoints, run_key
from metake.evaluation.checks import batches_of, check_batches
from metake.evaluation.consistency import References
from metake.evaluation.metrics import Evaluator, Measurement, merge
from metake.evaluation.results import MethodRun, Results, result_file
from metake.evaluation.rules import PublishedRules, Rules
from metake.evaluation.wild import Judge, rules_of
from metake.geometry.statistics import Statistics, text_fingerprint
from metake.methods.base import Method
from metake.models.editable import EditableModel
from metake.phases import phase
from metake.prompts import sample_contexts

OnEdit = Callable[[int], object]
OnMeasurement = Callable[[int, Measurement], object]


def _ignore(*_: Any) -> None:
    """A callback without an effect."""


@dataclass(frozen=True)
class Protocol:
    """Records that are edited in batches, and what is measured of them.

    Attributes:
        records: the records, in the order in which they are edited.
        batch_size: edits per batch.
        consecutive: the batches accumulate on one model, and all records are measured at the end; otherwise each
            batch is measured alone, on an otherwise unedited model.
        generate: free generation is measured as well.
        text: held-out text for the perplexity; None leaves it out.
        measure_every: consecutive batches between two measurements of the records edited so far; None measures at the
            end only.
        sampled_records: first records whose generation prompts are continued by sampling, for fluency and consistency.
        references: reference texts for the consistency; None leaves it out.
        context_seed: seed of the contexts of all methods; None takes each method's own.
        name: `published`, or `wild`: complete answers, compared as in WILD (docs/data.md).
        judge: with `wild`, also decides whether an answer is right: `judge(question, target, answer) -> bool`. No judge ships.

    Raises:
        MetakeError: `batch_size` is below 1, an unknown name, a judge of the published protocol, or `wild` without free
            generation.

    Example:
        >>> import metake as mk
        >>> model, fact = mk.load("demo"), mk.EditRequest("What is the craft of {}?", "Nezan Girok", "baker")
        >>> results = mk.Protocol([mk.Record(fact)], batch_size=2).run(model, [mk.settings_for(model, "ultraedit")])
        >>> [run.method.name for run in results.runs], sorted(results.runs[0].measurements)
        (['ultraedit'], [1])
    """

    records: Sequence[Record]
    batch_size: int
    consecutive: bool = True
    generate: bool = True
    text: str | None = None
    measure_every: int | None = None
    sampled_records: int = 0
    references: References | None = None
    context_seed: int | None = None
    name: str = "published"
    judge: Judge | None = None

    def __post_init__(self) -> None:
        if self.rules.name != PublishedRules.name and not self.generate:
            raise MetakeError(
                f"protocol: {self.name} judges free answers; leave out --no-generate (generate=False)"
            )
        if self.batch_size < 1:
            raise MetakeError(f"batch: must be at least 1, got {self.batch_size}")

    @property
    def rules(self) -> Rules:
        """How free answers are read and compared."""
        return rules_of(self.name, self.judge)

    def batches(self) -> Iterator[range]:
        """Positions of the records of each batch; a case is not divided."""
        return batches_of(self.records, self.batch_size)

    def check(self) -> None:
        """Refuse contradicting requests of one batch with a `MetakeError`; those of different batches give a warning."""
        check_batches(self.records, self.batch_size, self.consecutive)

    def measured(self) -> list[Any]:
        """Key of what is measured: protocols with equal keys measure the same."""
        texts = self.references and self.references.fingerprint
        text = self.text and text_fingerprint(self.text)
        return [self.consecutive, self.generate, text, self.sampled_records, texts, *self.rules.key()]

    def described(self, model: EditableModel, *, given: bool = False) -> dict[str, Any]:
        """The protocol as plain values, for a result file.

        Args:
            model: the model.
            given: the edits were made elsewhere.

        Returns:
            the name, how edits share a model, and how free answers are compared.
        """
        alone = "batch" if self.batch_size > 1 else "single"
        editing = "sequential" if self.consecutive and self.batch_size < len(self.records) else alone
        return {
            "name": self.name,
            "editing": "given" if given else editing,
            **self.rules.described(model, self.records),
        }

    def prepare(self, model: EditableModel, statistics: Statistics | None = None) -> Session:
        """The protocol on one model, after a measurement of the unedited model.

        Contradicting records, or a held-out text that is too short, raise a `MetakeError`.

        Args:
            model: the model, unedited.
            statistics: second moments of the keys of all edited layers; None collects them, or takes them from the cache, for
                each method that needs them.

        Returns:
            the session, whose `run` runs one method.
        """
        self.check()
        evaluator = self.evaluator(model)
        with phase("evaluate the unedited model"):
            before = evaluator.measure()
        return Session(self, model, statistics, evaluator, before)

    def evaluator(self, model: EditableModel) -> Evaluator:
        """The measurements of the records on one model. A held-out text that is too short raises a `MetakeError`.

        Args:
            model: the model.

        Returns:
            the evaluator.
        """
        return Evaluator(
            model,
            self.records,
            text=self.text,
            generate=self.generate,
            sampled_records=self.sampled_records,
            references=self.references,
            rules=self.rules,
        )

    def run(
        self,
        model: EditableModel,
        methods: Sequence[Method],
        statistics: Statistics | None = None,
        folder: Path | None = None,
        *,
        on_edit: OnEdit = _ignore,
        on_measurement: OnMeasurement = _ignore,
        **extra: Any,
    ) -> Results:
        """Results of several methods on one model, which is as before afterwards.

        Contradicting records, a held-out text that is too short, or a failed edit raise a `MetakeError`.

        Args:
            model: the model, unedited.
            methods: methods with different names.
            statistics: as in `prepare`.
            folder: folder of the checkpoints, with a subfolder for each method and all that its numbers depend on; the same
                call resumes there. None keeps no checkpoints.
            on_edit: callback with the number of edits of a batch, after each batch.
            on_measurement: callback with the edits so far and their measurement.
            extra: further plain values for the result file.

        Returns:
            the runs of all methods, and the content of the result file.
        """
        for method in methods:
            method.check(model)
        session = self.prepare(model, statistics)
        runs = [
            session.run(
                method,
                None if folder is None else folder / session.folder_name(method),
                on_edit=on_edit,
                on_measurement=on_measurement,
            )
            for method in methods
        ]
        return session.results(runs, **extra)


@dataclass(frozen=True)
class Session:
    """A protocol on one model; made by `Protocol.prepare`.

    Attributes:
        evaluator: the measurements of the protocol's records.
        before: measurement of the unedited model.
        contexts: sampled contexts by seed; all methods of a seed share them.
    """

    protocol: Protocol
    model: EditableModel
    statistics: Statistics | None
    evaluator: Evaluator
    before: Measurement
    contexts: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def contexts_of(self, method: Method) -> tuple[str, ...] | None:
        """Contexts that a method shares with others of its seed; None for a method that samples none.

        Args:
            method: the method.

        Returns:
            texts that are put before prompts.
        """
        if method.context_seed is None:
            return None
        seed = method.context_seed if self.protocol.context_seed is None else self.protocol.context_seed
        if seed not in self.contexts:
            self.contexts[seed] = sample_contexts(self.model, seed=seed)
        return self.contexts[seed]

    def key(self, method: Method) -> dict[str, Any]:
        """The key of a run's `Checkpoints`: all that its numbers depend on, as plain values.

        Args:
            method: the method.

        Returns:
            values that a JSON file can hold.
        """
        protocol = self.protocol
        return run_key(
            self.model,
            protocol.records,
            method,
            self.statistics,
            batch=protocol.batch_size,
            contexts=self.contexts_of(method),
            measured=protocol.measured(),
        )

    def folder_name(self, method: Method) -> str:
        """Name of a folder for the checkpoints of a run; runs with different keys have different names.

        Args:
            method: the method.

        Returns:
            the method's name with eight digits of a hash of the key.
        """
        return f"{method.name}-{text_fingerprint(json.dumps(self.key(method)))[:8]}"

    def run(
        self,
        method: Method,
        folder: Path | None = None,
        *,
        on_edit: OnEdit = _ignore,
        on_measurement: OnMeasurement = _ignore,
    ) -> MethodRun:
        """A method's run over all records. The model is as before afterwards, also after an error.

        A failed edit, or a folder with another run, raises a `MetakeError`.

        Args:
            method: the method.
            folder: folder of this run's checkpoints; finished batches in it are applied and not edited again.
            on_edit: callback with the number of edits of a batch, after each batch.
            on_measurement: callback with the edits so far and their measurement.

        Returns:
            the summaries of all batches, and the measurements.
        """
        checkpoints = None if folder is None else Checkpoints(folder, self.key(method))
        return self._run(method, checkpoints, self.contexts_of(method), on_edit, on_measurement)

    def _run(
        self,
        method: Method,
        checkpoints: Checkpoints | None,
        contexts: tuple[str, ...] | None,
        on_edit: OnEdit,
        on_measurement: OnMeasurement,
    ) -> MethodRun:
        consecutive, count = self.protocol.consecutive, len(self.protocol.records)
        batches: list[dict[str, Any]] = []
        alone: list[Measurement] = []
        measurements: dict[int, Measurement] = {}
        with self._editor(method, contexts) as editor:
            for index, group in enumerate(self.protocol.batches()):
                with phase(f"{method.name}, edits {group.start + 1}-{group.stop} of {count}"):
                    batches.append(self._edit(editor, index, group, checkpoints))
                    if not consecutive:
                        alone.append(self._measure(editor, group))
                        editor.undo()
                    elif self._is_measured(index, group):
                        measurement = self._measure_all(editor, index, group, checkpoints)
                        measurements[group.stop] = measurement
                        on_measurement(group.stop, measurement)
                on_edit(len(group))
        after = measurements[count] if consecutive else merge(alone)
        return MethodRun(method, self.before, after, batches, "end" if consecutive else "alone", measurements)

    def _editor(self, method: Method, contexts: tuple[str, ...] | None) -> Editor:
        editor = Editor(
            self.model.model,
            self.model.tokenizer,
            method,
            statistics=self.statistics,
            modules=self.model.modules,
            answers=False,
            progress=True,
            undoable=1,
        )
        if contexts is not None and method.context_seed is not None:
            editor.state = replace(editor.state, contexts=contexts)
        return editor

    def _edit(
        self, editor: Editor, index: int, group: range, checkpoints: Checkpoints | None
    ) -> dict[str, Any]:
        """Summary of a batch, which is edited, or restored from its checkpoint."""
        requests = tuple(self.protocol.records[i].request for i in group)
        summary = None if checkpoints is None else checkpoints.restore(index, editor, requests)
        if summary is None:
            result = editor.edit(requests)
            summary = result.summary() if checkpoints is None else checkpoints.save(index, result)
            if checkpoints is not None and self.protocol.consecutive:
                checkpoints.merge(index, editor)
        return {**summary, "records": len(group)}  # identical requests are edited once

    def _is_measured(self, index: int, group: range) -> bool:
        every = self.protocol.measure_every
        return group.stop == len(self.protocol.records) or (every is not None and (index + 1) % every == 0)

    def _measure_all(
        self, editor: Editor, index: int, group: range, checkpoints: Checkpoints | None
    ) -> Measurement:
        """Measurement of the records edited so far, or its checkpoint."""
        measurement = None if checkpoints is None else checkpoints.load_measurement(index)
        if measurement is None:
            last = group.stop == len(self.protocol.records)
            measurement = self._measure(editor, None if last else range(group.stop))
            if checkpoints is not None:
                checkpoints.save_measurement(index, measurement)
        return measurement

    def _measure(self, editor: Editor, only: range | None) -> Measurement:
        editor.finalize()
        with phase("evaluate"):
            return self.evaluator.measure(self.before, only=only)

    def results(self, runs: Sequence[MethodRun], **extra: Any) -> Results:
        """Results of several runs, with the content of the result file.

        Args:
            runs: runs of this session.
            extra: further plain values for the result file.

        Returns:
            the runs and the content.
        """
        records = self.protocol.records
        content = result_file(
            self.model,
            self.before,
            runs,
            self.statistics,
            edits=len(records),
            batch=self.protocol.batch_size,
            protocol=self.protocol.described(self.model, given=any(run.moment == "given" for run in runs)),
            requests=[
                [
                    r.request.text,
                    r.request.target_new,
                    r.ground_truth,
                    r.rephrase,
                    r.locality,
                    r.locality_answer,
                ]
                for r in records
            ],
            contexts={str(seed): texts for seed, texts in self.contexts.items()},
            **extra,
        )
        return Results(self.before, list(runs), content)
