"""Metrics of probe groups: teacher-forced accuracy, agreement with the unedited model, and free answers.

The metrics of a group are named `probes/GROUP/MEASURE`. A record's value is the mean over its probes of the group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metake.data.record import Probe, Record
from metake.evaluation.rules import Rules
from metake.models.greedy import tokenizer_round_trip
from metake.models.tokens import Row, encode

PREFIX = "probes/"
MEASURES = {
    "accuracy": "share of the tokens of the first accepted answer that are the most likely ones, with the answer's earlier "
    "tokens given (teacher-forced)",
    "agreement": "share of the same tokens whose most likely token is the unedited model's, on probes that the edit should "
    "leave as they were",
    "exact": "share of probes whose greedy continuation equals an accepted answer",
    "starts": "share of probes whose greedy continuation starts with an accepted answer",
}


def metric_name(group: str, measure: str) -> str:
    """Name of a metric of a group.

    Args:
        group: the group.
        measure: a key of `MEASURES`.

    Returns:
        `probes/GROUP/MEASURE`.
    """
    return f"{PREFIX}{group}/{measure}"


def split_name(metric: str) -> tuple[str, str]:
    """Group and measure of a metric; empty texts for a metric of no group.

    Args:
        metric: name of the metric.

    Returns:
        the group and the key of `MEASURES`.
    """
    if not metric.startswith(PREFIX):
        return "", ""
    group, _, measure = metric.removeprefix(PREFIX).rpartition("/")
    return group, measure


def group_metrics(metrics: Iterable[str]) -> list[str]:
    """The metrics of groups among some metrics.

    Args:
        metrics: names of metrics.

    Returns:
        the names of groups' metrics, in their order.
    """
    return [metric for metric in metrics if metric.startswith(PREFIX)]


def column_metrics(metrics: Iterable[str]) -> list[str]:
    """One metric per group: agreement where the edit should change nothing, accuracy elsewhere.

    Args:
        metrics: names of metrics.

    Returns:
        the names, in the order of the groups.
    """
    chosen: dict[str, str] = {}
    for metric in group_metrics(metrics):
        group, measure = split_name(metric)
        if group not in chosen or measure == "agreement":
            chosen[group] = metric
    return list(chosen.values())


@dataclass(frozen=True)
class GroupProbes:
    """The probes of some records, each with its token row.

    Attributes:
        entries: position of the record, probe, and position of its row among the rows of the evaluation.
    """

    entries: tuple[tuple[int, Probe, int], ...]

    @classmethod
    def build(cls, tokenizer: Any, records: Sequence[Record], rows: list[Row]) -> GroupProbes:
        """The probes of records. A row that is there already is shared; new ones are appended.

        Args:
            tokenizer: the model's tokenizer.
            records: the records.
            rows: rows of the evaluation.

        Returns:
            the probes.
        """
        entries, at = [], {row: i for i, row in enumerate(rows)} if any(r.probes for r in records) else {}
        for index, record in enumerate(records):
            for probe in record.probes:
                row = encode(tokenizer, probe.prompt, probe.answers[0])
                if row not in at:
                    at[row] = len(rows)
                    rows.append(row)
                entries.append((index, probe, at[row]))
        return cls(tuple(entries))

    def metrics(self, generate: bool) -> list[str]:
        """Names of the metrics of all groups.

        Args:
            generate: whether free answers are measured.

        Returns:
            the names, group by group.
        """
        kinds: dict[str, set[str]] = {}
        for _, probe, _ in self.entries:
            kinds.setdefault(probe.group, set()).add(probe.kind)
        free = ("exact", "starts") if generate else ()
        return [
            metric_name(group, measure)
            for group, found in kinds.items()
            for measure in ("accuracy", *(("agreement",) if "keep" in found else ()), *free)
        ]

    def rows_of(self, measured: set[int]) -> set[int]:
        """Positions of the rows that the probes of some records need.

        Args:
            measured: positions of the records.

        Returns:
            positions of rows.
        """
        return {row for index, _, row in self.entries if index in measured}

    def score_choices(
        self,
        values: dict[str, np.ndarray],
        rows: Sequence[Row],
        choices: Sequence[tuple[int, ...]],
        earlier: Sequence[tuple[int, ...]],
        measured: set[int],
    ) -> None:
        """Fill in accuracy and agreement.

        Args:
            values: metric -> one value per record.
            rows: rows of the evaluation.
            choices: most likely tokens at the scored positions of each row.
            earlier: the same of the unedited model.
            measured: positions of the measured records.
        """
        found: dict[tuple[str, int], list[float]] = {}
        for index, probe, at in self.entries:
            if index not in measured:
                continue
            labels = rows[at].answer_ids
            right = np.mean(np.equal(choices[at], labels)) if labels else 0.0
            found.setdefault((metric_name(probe.group, "accuracy"), index), []).append(float(right))
            if probe.kind == "keep":
                same = np.mean(np.equal(choices[at], earlier[at])) if labels else 1.0
                found.setdefault((metric_name(probe.group, "agreement"), index), []).append(float(same))
        _fill(values, found)

    def questions(self, measured: Iterable[int]) -> dict[int, tuple[str, str]]:
        """Prompts to be answered freely, each with its longest accepted answer.

        Args:
            measured: positions of the measured records.

        Returns:
            position in `entries` -> prompt and answer.
        """
        wanted = set(measured)
        return {
            i: (probe.prompt, max(probe.answers, key=len))
            for i, (index, probe, _) in enumerate(self.entries)
            if index in wanted
        }

    def score_answers(
        self, values: dict[str, np.ndarray], tokenizer: Any, rules: Rules, answers: Mapping[int, str]
    ) -> None:
        """Fill in the metrics of free answers.

        Args:
            values: metric -> one value per record.
            tokenizer: the model's tokenizer.
            rules: rules by which answers are compared.
            answers: position in `entries` -> answer, as the rules read it.
        """
        found: dict[tuple[str, int], list[float]] = {}
        for i, answer in answers.items():
            index, probe, _ = self.entries[i]
            accepted = [tokenizer_round_trip(tokenizer, wanted) for wanted in probe.answers]
            exact = any(rules.is_equal(answer, wanted) for wanted in accepted)
            starts = any(rules.is_right(answer, wanted) for wanted in accepted)
            found.setdefault((metric_name(probe.group, "exact"), index), []).append(float(exact))
            found.setdefault((metric_name(probe.group, "starts"), index), []).append(float(starts))
        _fill(values, found)


def _fill(values: dict[str, np.ndarray], found: Mapping[tuple[str, int], list[float]]) -> None:
    for (metric, index), scores in found.items():
        values[metric][index] = np.mean(scores)
