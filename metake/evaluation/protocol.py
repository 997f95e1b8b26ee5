"""The protocol: consecutive batches of edits on one model, judged at the end; or each batch alone."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from metake.data.records import Record
from metake.editor import Editor
from metake.errors import MetakeError
from metake.evaluation.checkpoint import Checkpoints
from metake.evaluation.glossary import GLOSSARY, MOMENTS
from metake.evaluation.metrics import GENERIC, PER_RECORD, Evaluator, Measurement, bootstrap
from metake.geometry.covariance import Statistics, text_fingerprint
from metake.methods.base import Method
from metake.models.chat import described, frame_of
from metake.models.greedy import described_decoding
from metake.models.load import EditableModel
from metake.models.tokens import count_tokens, encode
from metake.phases import phase
from metake.provenance import provenance
from metake.requests import contradiction

JOINTS = 16  # more tokens than special ones and the joint of prompt and answer can add to a count


@dataclass(frozen=True)
class MethodRun:
    """A method's run over all batches.

    Attributes:
        before, after: measurements of the unedited and the edited model.
        batches: summaries of every batch (see `EditResult.summary`).
        looks: measurements on the way, after so many edits.
    """

    method: str
    settings: Method
    before: Measurement
    after: Measurement
    batches: list[dict[str, Any]]
    moment: str
    looks: dict[int, Measurement] = field(default_factory=dict)

    @property
    def seconds_per_edit(self) -> float:
        return sum(b["seconds"] for b in self.batches) / max(1, sum(len(b["requests"]) for b in self.batches))

    def row(self) -> dict[str, Any]:
        """Means, intervals and per-record values as plain data."""
        return {
            "method": self.method,
            "moment": self.moment,
            "settings": self.settings.model_dump(),
            **_plain(self.after),
            "seconds_per_edit": self.seconds_per_edit,
            "batches": self.batches,
        }


def _plain(measurement: Measurement) -> dict[str, Any]:
    def number(value: float) -> float | None:
        return None if not np.isfinite(value) else round(float(value), 6)

    measured = [name for name in PER_RECORD if np.isfinite(measurement.values[name]).any()]
    return {
        "mean": {n: number(measurement.mean(n)) for n in (*measured, "perplexity", "perplexity_median")},
        "interval": {name: [number(x) for x in bootstrap(measurement.values[name])] for name in measured},
        "per_record": {name: [number(x) for x in measurement.values[name]] for name in measured},
        "answers": measurement.answers,
    }


def usable(
    loaded: EditableModel, records: Sequence[Record], reserve: int = 24
) -> tuple[list[Record], list[str]]:
    """Records whose every text the model can take, and one line for each record that it cannot.

    Args:
        reserve: tokens kept free for the contexts of planning.
    """
    good, bad = [], []
    for index, record in enumerate(records):
        try:
            _check_texts(loaded, record, reserve)
        except MetakeError as error:
            bad.append(f"record {index + 1} ({record.request.name}): {error}")
            continue
        good.append(record)
    for name, metrics in (("rephrase", "generalisation"), ("locality", "specificity")):
        if lacking := sum(not getattr(record, name) for record in good):
            warnings.warn(
                f"{lacking} of {len(good)} records have no {name}: no {metrics} of them", stacklevel=2
            )
    return good, bad


def check_batches(records: Sequence[Record], batch: int, consecutive: bool = True) -> None:
    """Refuse contradicting requests of one batch; those of different batches are named in a warning.

    Raises:
        MetakeError: two records of a batch ask for different answers to one prompt.
    """
    requests = [record.request for record in records]
    for start in range(0, len(requests), batch):
        if clash := contradiction(requests[start : start + batch]):
            raise MetakeError(f"{clash}, in the batch that begins with record {start + 1}; keep one of them")
    if consecutive and (clash := contradiction(requests)):
        warnings.warn(f"{clash}, in different batches: the later edit undoes the earlier", stacklevel=2)


def _texts(record: Record) -> Iterator[tuple[str, str, str]]:
    """Everything that an evaluation runs of a record: its field, a prompt and the answer that is scored after it."""
    request = record.request
    answers = (request.target, record.rival) if record.rival else (request.target,)
    for answer in answers:
        yield "prompt", request.text, answer
        for prompt in dict.fromkeys((*filter(None, [record.rephrase]), *record.rephrases)):
            yield "rephrase", prompt, answer
        for prompt in record.neighbours:
            yield "neighbour", prompt, answer
    if record.locality:
        yield "locality", record.locality, record.locality_answer
    for prompt, answer in record.same_subject:
        yield "same_subject", prompt, answer
    for prompt in () if record.same_subject else GENERIC:
        yield "subject", prompt.format(request.subject), ""
    for prompt in record.generation_prompts:
        yield "generation prompt", prompt, ""


def _check_texts(loaded: EditableModel, record: Record, reserve: int) -> None:
    """Raises `MetakeError` for a text that the tokenizer cannot say, or that is too long for the model."""
    limit, tokenizer = loaded.arch.max_positions, loaded.tokenizer
    texts = dict.fromkeys(_texts(record))
    counts = count_tokens(tokenizer, [f"{prompt} {answer}".strip() for _, prompt, answer in texts])
    frame = frame_of(tokenizer)
    joints = JOINTS + len(f"{frame.before}{frame.after}".encode())
    planned = (record.request.text, record.rephrase, record.locality)
    for (name, prompt, answer), count in zip(texts, counts, strict=True):
        # something is generated, or one token predicted, where no answer is scored
        spare = reserve if answer and prompt in planned else 1 if not answer else 0
        if limit is None or count + spare + joints < limit:
            continue
        longest = len(encode(tokenizer, prompt, answer)) + spare
        if longest > limit:
            with_contexts = " with contexts" if spare > 1 else ""
            raise MetakeError(f"{name}: {longest} tokens{with_contexts}, the model takes {limit}")


def run_key(
    loaded: EditableModel,
    records: Sequence[Record],
    method: Method,
    statistics: Statistics | None,
    *,
    batch: int,
    contexts: Sequence[str] | None,
    **measured: Any,
) -> dict[str, Any]:
    """Everything that a run's weights and numbers depend on, as plain values: the key of its `Checkpoints`.

    Args:
        measured: what is measured, and whatever else tells two runs apart.
    """
    source = statistics and statistics.provenance
    return {
        "fingerprint": loaded.arch.fingerprint(),
        "method": method.name,
        "batch": batch,
        "settings": method.model_dump(mode="json"),
        "contexts": list(contexts or ()),
        "statistics": source and [source.text, source.tokens, source.window, source.dtype],
        "chat": described(loaded.tokenizer),
        "records": text_fingerprint(json.dumps([asdict(record) for record in records])),
        **measured,
    }


def evaluate_method(
    loaded: EditableModel,
    records: Sequence[Record],
    method: Method,
    statistics: Statistics | None,
    evaluator: Evaluator,
    before: Measurement,
    *,
    batch: int,
    consecutive: bool = True,
    contexts: tuple[str, ...] | None = None,
    checkpoints: Checkpoints | None = None,
    look_every: int | None = None,
    seen: Callable[[int, Measurement], object] = lambda edits, measurement: None,
    tick: Callable[[int], object] = lambda done: None,
) -> MethodRun:
    """Edit all records in batches and judge; the model is as before afterwards, whatever happens.

    Args:
        consecutive: batches pile up on one model and all records are judged at the end; otherwise
            each batch is judged alone and reverted.
        contexts: share them between methods; sampled once otherwise.
        checkpoints: where batches are kept; those that are there already are not edited again.
        look_every: also judge the records edited so far after every so many batches.
        seen: told the edits so far and what was measured, at every look.
        tick: told how many edits were done, after every batch.
    """
    if batch < 1:
        raise MetakeError(f"batch: must be at least 1, got {batch}")
    check_batches(records, batch, consecutive)
    editor = Editor(
        loaded.model,
        loaded.tokenizer,
        method,
        statistics=statistics,
        modules=loaded.arch.modules,
        answers=False,
        progress=True,
    )
    if contexts is not None and method.context_seed is not None:
        editor.state = replace(editor.state, contexts=contexts)
    batches, parts, looks = [], [], {}
    with editor:
        for index, start in enumerate(range(0, len(records), batch)):
            group = range(start, min(start + batch, len(records)))
            with phase(f"{method.name}, edits {group.start + 1}-{group.stop} of {len(records)}"):
                requests = tuple(records[i].request for i in group)
                summary = None if checkpoints is None else checkpoints.restore(index, editor, requests)
                if summary is None:
                    result = editor.edit(requests)
                    summary = result.summary() if checkpoints is None else checkpoints.save(index, result)
                batches.append({**summary, "records": len(group)})  # identical requests are edited once
                last = group.stop == len(records)
                if not consecutive:
                    editor.finalize()
                    parts.append(_judge(evaluator, before, group))
                    editor.undo()
                elif last or (look_every is not None and (index + 1) % look_every == 0):
                    look = None if checkpoints is None else checkpoints.look(index)
                    if look is None:
                        editor.finalize()
                        look = _judge(evaluator, before, None if last else range(group.stop))
                        if checkpoints is not None:
                            checkpoints.keep_look(index, look)
                    looks[group.stop] = look
                    seen(group.stop, look)
            tick(len(group))
    after = looks[len(records)] if consecutive else _merge(parts)
    return MethodRun(method.name, method, before, after, batches, "end" if consecutive else "alone", looks)


def _judge(evaluator: Evaluator, before: Measurement, only: range | None) -> Measurement:
    with phase("evaluate"):
        return evaluator.measure(before, only=only)


def _merge(parts: Sequence[Measurement]) -> Measurement:
    """Measurements of disjoint sets of records as one."""
    values = {
        name: np.fmax.reduce([part.values[name] for part in parts])  # NaN only where every part has it
        for name in PER_RECORD
    }
    choices = [max(options, key=len) for options in zip(*(part.choices for part in parts), strict=True)]
    answers = [
        max(options, key=lambda a: len("".join(a)))
        for options in zip(*(p.answers for p in parts), strict=True)
    ]
    return Measurement(values, float("nan"), float("nan"), choices, answers)


def result_file(
    loaded: EditableModel,
    before: Measurement,
    runs: Sequence[MethodRun],
    statistics: Statistics | None,
    **extra: Any,
) -> dict[str, Any]:
    """Everything a reader needs to know about a table, as plain data."""
    return {
        **provenance(loaded.name, loaded.arch, [run.method for run in runs]),
        "statistics": None if statistics is None else statistics.provenance.__dict__,
        "chat": described(loaded.tokenizer),
        "generation": described_decoding(loaded.model, loaded.tokenizer),
        **extra,
        "before": _plain(before),
        "methods": [run.row() for run in runs],
        "glossary": GLOSSARY,
        "moments": MOMENTS,
    }
