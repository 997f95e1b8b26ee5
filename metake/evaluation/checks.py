"""Checks of records before a run: texts that the model can take, and requests that contradict each other."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence

from metake.data.record import Record, end_of_case
from metake.errors import MetakeError
from metake.evaluation.metrics import GENERIC
from metake.models.chat import frame_of
from metake.models.editable import EditableModel
from metake.models.tokens import count_tokens, encode
from metake.requests import contradiction

JOINTS = 16  # more tokens than special ones and the joint of prompt and answer can add to a count


def fitting_records(
    model: EditableModel, records: Sequence[Record], reserve: int = 24
) -> tuple[list[Record], list[str]]:
    """Records whose texts all fit into the model, and one line for each other record.

    Records without a rephrase or a locality prompt give a warning.

    Args:
        model: the model.
        records: the records, in the file's order.
        reserve: tokens that are reserved for the contexts of planning.

    Returns:
        the fitting records, and the lines about the others.
    """
    good, bad = [], []
    for index, record in enumerate(records):
        try:
            _check_texts(model, record, reserve)
        except MetakeError as error:
            bad.append(f"record {index + 1} ({record.request.name}): {error}")
            continue
        good.append(record)
    if bad:
        whole = _whole_cases(records, good)
        torn = [record for record in good if record.case not in whole]
        bad += [
            f"record of case {r.case} ({r.request.name}): left out with the rest of its case" for r in torn
        ]
        good = [record for record in good if record.case in whole]
    for name, metrics in (("rephrase", "generalization"), ("locality", "specificity")):
        if lacking := sum(not getattr(record, name) for record in good):
            warnings.warn(
                f"{lacking} of {len(good)} records have no {name}: no {metrics} of them", stacklevel=2
            )
    return good, bad


def batches_of(records: Sequence[Record], size: int) -> Iterator[range]:
    """Positions of the records of each batch. A batch ends with a case: records of one entry are edited together.

    Args:
        records: the records, in the order of editing.
        size: edits per batch; more if the last case needs them.

    Yields:
        consecutive ranges.
    """
    start = 0
    while start < len(records):
        stop = end_of_case(records, start + size)
        yield range(start, stop)
        start = stop


def check_batches(records: Sequence[Record], batch: int, consecutive: bool = True) -> None:
    """Refuse contradicting requests of one batch; those of different batches give a warning.

    Args:
        records: the records, in the order of editing.
        batch: edits per batch.
        consecutive: the batches accumulate on one model; otherwise requests of different batches are independent.

    Raises:
        MetakeError: two records of a batch have different targets for one prompt.
    """
    requests = [record.request for record in records]
    for group in batches_of(records, batch):
        if clash := contradiction(requests[group.start : group.stop]):
            raise MetakeError(
                f"{clash}, in the batch that begins with record {group.start + 1}; keep one of them"
            )
    if consecutive and (clash := contradiction(requests)):
        warnings.warn(f"{clash}, in different batches: the later edit undoes the earlier", stacklevel=2)


def _whole_cases(records: Sequence[Record], good: Sequence[Record]) -> set[int | None]:
    """Cases all of whose records are good; None stands for records of no case."""
    counts, found = Counter(r.case for r in records), Counter(r.case for r in good)
    return {case for case, count in counts.items() if case is None or found[case] == count}


def _texts(record: Record) -> Iterator[tuple[str, str, str]]:
    """All texts that an evaluation runs of a record.

    Yields:
        the field's name, a prompt, and the answer that is scored after it (empty if none is).
    """
    request = record.request
    answers = (request.target_new, record.target_true) if record.target_true else (request.target_new,)
    for answer in answers:
        yield "prompt", request.text, answer
        for prompt in dict.fromkeys((*filter(None, [record.rephrase]), *record.rephrases)):
            yield "rephrase", prompt, answer
        for prompt in record.neighbors:
            yield "neighbor", prompt, answer
    if record.locality:
        yield "locality", record.locality, record.locality_answer
    for prompt, answer in record.same_subject:
        yield "same_subject", prompt, answer
    for prompt in () if record.same_subject or not request.has_subject else GENERIC:
        yield "subject", prompt.format(request.subject), ""
    for prompt in record.generation_prompts:
        yield "generation prompt", prompt, ""
    for probe in record.probes:
        yield f"probe of {probe.group}", probe.prompt, max(probe.answers, key=len)


def _check_texts(model: EditableModel, record: Record, reserve: int) -> None:
    """Refuse a record with a text that the tokenizer cannot encode, or that is too long for the model.

    Raises:
        MetakeError: the line names the field.
    """
    limit, tokenizer = model.max_positions, model.tokenizer
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
