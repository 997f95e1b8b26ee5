"""Measurements of a model on records: teacher-forced, generated, and relative to the unedited model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metake.data.record import Record
from metake.errors import MetakeError
from metake.evaluation.consistency import References
from metake.evaluation.counterfact import (
    MAGNITUDES,
    SUCCESSES,
    compare_targets,
    fluency,
    sample_texts,
    target_losses,
)
from metake.evaluation.probes import GroupProbes
from metake.evaluation.rules import Answers, PublishedRules, Rules
from metake.models.editable import EditableModel
from metake.models.tokens import Row, answer_positions, encode, length_buckets, pad
from metake.models.trace import frozen, run

GENERIC = ("{} is", "{} was known for", "I was told about {} that")
WILD = (
    "wild_exact",
    "wild_exact_rephrase",
    "wild_start",
    "wild_start_rephrase",
    "wild_judge",
    "wild_judge_rephrase",
    "wild_locality",
)
PER_RECORD = (
    "efficacy",
    "generalization",
    "specificity",
    "agreement",
    "same_subject",
    "generation",
    "generation_rephrase",
    "generation_start",
    *WILD,
    "kl",
    "overlap",
    *SUCCESSES,
    *MAGNITUDES,
    "fluency",
    "consistency",
)


@dataclass(frozen=True)
class Measurement:
    """Measurement of a model.

    Attributes:
        values: metric -> one value per record (NaN where it does not apply).
        perplexity: of the held-out text, mean and median over windows; NaN without a text.
        choices: most likely token at every scored position, per probe; the basis of agreement.
        answers: greedy continuation of each edited prompt, rephrase and unrelated prompt.
        unrelated: next-token log-probabilities after the first records' unrelated prompts, by record.
    """

    values: dict[str, np.ndarray]
    perplexity: float
    perplexity_median: float
    choices: list[tuple[int, ...]]
    answers: list[Answers]
    unrelated: dict[int, Tensor] | None = None

    def plain(self) -> dict[str, Any]:
        """The measurement as plain values, without what only serves comparisons with later measurements."""
        return {
            "values": {k: [None if np.isnan(x) else float(x) for x in v] for k, v in self.values.items()},
            "perplexity": None if np.isnan(self.perplexity) else self.perplexity,
            "perplexity_median": None if np.isnan(self.perplexity_median) else self.perplexity_median,
            "answers": self.answers,
        }

    @classmethod
    def of_plain(cls, content: Mapping[str, Any]) -> Measurement:
        """The measurement of plain values.

        Args:
            content: what `plain` returned.

        Returns:
            a measurement without choices and next-token distributions.
        """
        values = {
            name: np.full(len(content["answers"]), np.nan) for name in PER_RECORD
        }  # of an earlier version, too
        values |= {k: np.array(v, dtype=float) for k, v in content["values"].items()}
        text = [np.nan if content[k] is None else content[k] for k in ("perplexity", "perplexity_median")]
        return cls(values, text[0], text[1], [], [tuple(a) for a in content["answers"]])

    def mean(self, metric: str) -> float:
        """Mean of a metric over the records that have it; NaN if none has.

        Args:
            metric: a name of `PER_RECORD`, of a probe group, `perplexity` or `perplexity_median`.

        Returns:
            the mean, in the metric's unit.
        """
        if metric.startswith("perplexity"):
            return float(getattr(self, metric))
        values = self.values.get(metric, np.array([]))
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def merge(parts: Sequence[Measurement]) -> Measurement:
    """Measurements of disjoint sets of records as one.

    Args:
        parts: measurements of one evaluator.

    Returns:
        the measurement of all records, without perplexity.
    """
    values = {
        name: np.fmax.reduce([part.values[name] for part in parts])  # NaN only where every part has it
        for name in parts[0].values
    }
    choices = [max(options, key=len) for options in zip(*(part.choices for part in parts), strict=True)]
    answers = [
        max(options, key=lambda a: len("".join(a)))
        for options in zip(*(p.answers for p in parts), strict=True)
    ]
    return Measurement(values, float("nan"), float("nan"), choices, answers)


def score(means: Mapping[str, float], locality: str = "specificity") -> float:
    """Harmonic mean of efficacy, generalization and locality, from 0 to 1.

    Args:
        means: metric -> mean.
        locality: name of the third metric.

    Returns:
        the mean, at least 0.001.
    """
    values = [max(means[k], 1e-3) for k in ("efficacy", "generalization", locality)]
    return len(values) / sum(1 / value for value in values)


def bootstrap(values: np.ndarray, rounds: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95% percentile interval of the mean over records, resampled with replacement; NaN without finite values.

    Args:
        values: one value per record; NaN is left out.
        rounds: number of resamples.
        seed: seed of the resampling.

    Returns:
        lower and upper end.
    """
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return float("nan"), float("nan")
    draws = np.random.default_rng(seed).integers(0, len(values), (rounds, len(values)))
    low, high = np.quantile(values[draws].mean(1), (0.025, 0.975))
    return float(low), float(high)


def _share(tokens: Sequence[int], others: Sequence[int]) -> float:
    """Share of positions with the same token in both sequences."""
    return float(np.mean([a == b for a, b in zip(tokens, others, strict=True)]))


def _compare_next_tokens(values: dict[str, np.ndarray], pairs: Mapping[int, tuple[Tensor, Tensor]]) -> None:
    """Fill in KL and overlap from log-probabilities before and after the edits, by record."""
    for index, (before, after) in pairs.items():
        values["kl"][index] = float((before.exp() * (before - after)).sum().clamp_min(0))
        top = set(after.topk(5).indices.tolist()) & set(before.topk(5).indices.tolist())
        values["overlap"][index] = len(top) / 5


class Evaluator:
    """Measures a model on a fixed set of records, before and after edits.

    Args:
        model: the model with its tokenizer.
        records: the records of a run. A same-subject prompt that another of them edits is left out.
        text: held-out text for perplexity, or None.
        generate: also measure free generation (slower).
        max_tokens: padded tokens per forward pass; None takes what suits the device.
        compared: number of first records after whose unrelated prompts the distribution of the next token is compared
            with the unedited model's.
        sampled_records: number of first records whose text is sampled, for its fluency (slow).
        references: reference texts for the consistency of the same text; None leaves it out.
        rules: how free answers are read and compared; default: as published.
    """

    def __init__(
        self,
        model: EditableModel,
        records: Sequence[Record],
        *,
        text: str | None = None,
        generate: bool = True,
        max_tokens: int | None = None,
        compared: int = 200,
        sampled_records: int = 0,
        references: References | None = None,
        rules: Rules | None = None,
    ) -> None:
        self.rules = rules or PublishedRules()
        self.compared, self.sampled_records, self.references = compared, sampled_records, references
        self.model, self.records, tokenizer = model, list(records), model.tokenizer
        self.generate, self.max_tokens = generate, max_tokens or 2 * model.pass_tokens
        self.kinds: list[tuple[str, int]] = []
        self.rows: list[Row] = []
        edited = {record.request.text for record in self.records}

        def probe(kind: str, index: int, row: Row) -> None:
            self.kinds.append((kind, index))
            self.rows.append(row)

        for index, record in enumerate(self.records):
            request = record.request
            probe("efficacy", index, encode(tokenizer, request.text, request.target_new))
            if record.rephrase:
                probe("generalization", index, encode(tokenizer, record.rephrase, request.target_new))
            if record.locality:
                probe("specificity", index, encode(tokenizer, record.locality, record.locality_answer))
            for prompt, answer in record.same_subject:
                if prompt in edited:  # by another record
                    continue
                probe("same_subject", index, encode(tokenizer, prompt, answer))
            if not record.same_subject and request.has_subject:
                for prompt in GENERIC:
                    row = encode(tokenizer, prompt.format(request.subject))
                    # the answer is any token, since only the prediction is compared
                    probe("same_subject", index, Row((*row.ids, row.ids[-1]), row.lookup, 1))
        self.probes = GroupProbes.build(tokenizer, self.records, self.rows)
        self.kinds += [("", -1)] * (len(self.rows) - len(self.kinds))  # rows of probes alone
        self.windows = [] if text is None else self._windows(text)

    def _windows(self, text: str, length: int = 128, most: int = 40) -> list[Row]:
        begin = [i for i in self.model.tokenizer("").input_ids if i == self.model.tokenizer.bos_token_id]
        ids = self.model.tokenizer(text, add_special_tokens=False).input_ids
        length = min(length, self.model.max_positions or length) - len(begin)
        cuts = [ids[i : i + length] for i in range(0, min(len(ids), most * length), length)]
        windows = [Row((*begin, *cut), 0, len(cut) - (not begin)) for cut in cuts if len(cut) > 1]
        if not windows:
            raise MetakeError(f"held-out text: {len(ids)} tokens, 2 are needed for a perplexity; give more")
        return windows

    @torch.no_grad()
    def measure(self, reference: Measurement | None = None, only: Sequence[int] | None = None) -> Measurement:
        """Measurement of the model in its current state.

        Args:
            reference: measurement of the unedited model, for agreement, KL and overlap; None compares the model with
                itself.
            only: positions of the measured records; the values of the others are NaN. None measures all records, and
                the perplexity.

        Returns:
            the measurement, with one value per record and metric.
        """
        measured = sorted(range(len(self.records)) if only is None else set(only))
        names = (*PER_RECORD, *self.probes.metrics(self.generate))
        values = {name: np.full(len(self.records), np.nan) for name in names}
        with frozen(self.model.model):
            choices = self._choices(set(measured))
            answers, free = self._answers(measured) if self.generate else ({}, {})
            losses = target_losses(self.model, self.windows if only is None else [], 2048)
            next_tokens = self._next_tokens()
            values |= compare_targets(self.model, self.records, measured, self.max_tokens)
            self._score_samples(values, measured)
        unedited = choices if reference is None else reference.choices
        self._score_choices(values, choices, unedited, measured)
        self.probes.score_choices(values, self.rows, choices, unedited, set(measured))
        self.probes.score_answers(values, self.model.tokenizer, self.rules, free)
        for index, found in answers.items():
            earlier = found if reference is None else reference.answers[index]
            for name, value in self.rules.score(self.model, self.records[index], found, earlier).items():
                values[name][index] = value
        before = next_tokens if reference is None or reference.unrelated is None else reference.unrelated
        _compare_next_tokens(values, {i: (before[i], next_tokens[i]) for i in measured if i in next_tokens})
        return Measurement(
            values,
            float(np.exp(losses.mean())) if len(losses) else float("nan"),
            float(np.exp(np.median(losses))) if len(losses) else float("nan"),
            choices,
            [answers.get(i, ("", "", "")) for i in range(len(self.records))],
            next_tokens,
        )

    def _choices(self, measured: set[int]) -> list[tuple[int, ...]]:
        """Most likely token at every scored position, per probe; empty for probes of other records."""
        choices: list[tuple[int, ...]] = [()] * len(self.rows)
        shared = self.probes.rows_of(measured)
        probes = [i for i, (_, index) in enumerate(self.kinds) if index in measured or i in shared]
        for i, best in zip(probes, self._best([self.rows[i] for i in probes]), strict=True):
            choices[i] = best
        return choices

    def _score_choices(
        self,
        values: dict[str, np.ndarray],
        choices: Sequence[tuple[int, ...]],
        earlier: Sequence[tuple[int, ...]],
        measured: Sequence[int],
    ) -> None:
        """Fill in the teacher-forced metrics and the agreement with the unedited model's choices."""
        wanted, same_subject = set(measured), dict[int, list[float]]()
        for i, (kind, index) in enumerate(self.kinds):
            if index not in wanted:
                continue
            labels = self.rows[i].answer_ids
            same = _share(choices[i], earlier[i]) if labels else 1.0
            if kind == "same_subject":
                same_subject.setdefault(index, []).append(same)
            else:
                values[kind][index] = _share(choices[i], labels) if labels else 0.0
            if kind == "specificity":
                values["agreement"][index] = same
        for index, shares in same_subject.items():
            values["same_subject"][index] = float(np.mean(shares))

    def _score_samples(self, values: dict[str, np.ndarray], measured: Sequence[int]) -> None:
        """Fill in the metrics of sampled text."""
        for index in measured:
            if index >= self.sampled_records:
                continue
            texts = sample_texts(self.model, self.records[index])
            values["fluency"][index] = fluency(texts)
            if self.references is not None:
                values["consistency"][index] = self.references.consistency(self.records[index], texts)

    def _next_tokens(self) -> dict[int, Tensor]:
        """Log-probabilities (fp32, CPU) of the token after each compared prompt, by record."""
        compared = [i for i, record in enumerate(self.records[: self.compared]) if record.locality]
        rows = [encode(self.model.tokenizer, self.records[i].locality) for i in compared]
        log_probabilities: dict[int, Tensor] = {}
        for group in length_buckets([len(row) for row in rows], self.max_tokens):
            members = [rows[i] for i in group]
            positions = torch.arange(len(group)), torch.tensor([len(row) - 1 for row in members])
            logits = run(self.model, pad(members), positions=positions).logits
            log_probabilities |= dict(
                zip((compared[i] for i in group), logits.float().log_softmax(-1).cpu(), strict=True)
            )
        return log_probabilities

    def _best(self, rows: list[Row]) -> list[tuple[int, ...]]:
        """Most likely token at each position that predicts an answer token."""
        best: list[tuple[int, ...]] = [()] * len(rows)
        for group in length_buckets([len(row) for row in rows], self.max_tokens):
            members = [rows[i] for i in group]
            at_rows, at_columns, _ = answer_positions(members)
            logits = run(self.model, pad(members), positions=(at_rows, at_columns)).logits
            tokens = logits.argmax(-1).tolist()
            for i in group:
                best[i], tokens = tuple(tokens[: rows[i].answer]), tokens[rows[i].answer :]
        return best

    def _answers(self, wanted: list[int]) -> tuple[dict[int, Answers], dict[int, str]]:
        """Greedy answers to each record's edited prompt, rephrase and unrelated prompt, and to the probes of groups.

        Answers are empty where a record has no such prompt. A probe that equals another question shares its answer.
        """
        questions: dict[tuple[int, int], tuple[str, str]] = {}
        for index in wanted:
            record, target = self.records[index], self.records[index].request.target_new
            texts_of = (
                (record.request.text, target),
                (record.rephrase, target),
                (record.locality, record.locality_answer),
            )
            questions |= {
                (index, kind): (prompt, answer) for kind, (prompt, answer) in enumerate(texts_of) if prompt
            }
        probes = self.probes.questions(wanted)
        asked, known = [*questions.values()], set(questions.values())
        asked += dict.fromkeys(question for question in probes.values() if question not in known)
        texts = self.rules.read(self.model, [p for p, _ in asked], [t for _, t in asked], self.max_tokens)
        answers = dict(zip(questions, texts, strict=False))
        text_of = dict(zip(asked, texts, strict=True))
        records = {i: (answers[i, 0], answers.get((i, 1), ""), answers.get((i, 2), "")) for i in wanted}
        return records, {i: text_of[question] for i, question in probes.items()}
