"""Sentences on the right answers of a result file, with a sign test of their differences."""

from __future__ import annotations

from collections.abc import Mapping
from math import comb
from typing import Any

SIGNIFICANCE_LEVEL = 0.05
STARTS = (
    "wild_start",
    "generation_start",
)  # answers that begin with the target; the first that was measured counts


def sign_test(more: int, fewer: int) -> float:
    """Two-sided p-value of the sign test.

    Args:
        more: number of differences in one direction.
        fewer: number of differences in the other direction.

    Returns:
        probability of at least this imbalance if both directions are equally likely.
    """
    n = more + fewer
    return min(1.0, float(2 * sum(comb(n, k) for k in range(max(more, fewer), n + 1)) / 2**n))


def begins_with_target(row: Mapping[str, Any]) -> list[bool]:
    """Whether each record's free answer begins with its target, by the run's protocol.

    Args:
        row: a method of the result file.

    Returns:
        One value per record; none without free generation.
    """
    return next(
        (list(map(bool, row["per_record"][name])) for name in STARTS if name in row["per_record"]), []
    )


def conclude(content: Mapping[str, Any]) -> list[str]:
    """Sentences on the answers of a result file; none without free generation.

    The method with most right answers is compared with the next one, fact by fact.

    Args:
        content: content of the result file.

    Returns:
        one sentence on all methods, and one on the two best.
    """
    right = {row["method"]: found for row in content["methods"] if (found := begins_with_target(row))}
    if not right:
        return []
    counts = ", ".join(f"{name} {sum(values)}" for name, values in right.items())
    sentences = [f"Answers that begin with the target: {counts} of {content['edits']}."]
    if len(right) > 1:
        first, *others = sorted(right, key=lambda name: -sum(right[name]))
        same = [name for name in others if right[name] == right[first]]
        if same:
            sentences.append(
                f"{', '.join([first, *same[:-1]])} and {same[-1]} get the same facts right: this run does not tell them apart."
            )
        else:
            sentences.append(
                _compare(first, others[0], list(zip(right[first], right[others[0]], strict=True)))
            )
    return sentences


def _compare(first: str, second: str, pairs: list[tuple[bool, bool]]) -> str:
    """The two best methods: facts that only one of them gets right."""
    more, fewer = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    p = sign_test(more, fewer)
    verdict = (
        f"is {'' if p <= SIGNIFICANCE_LEVEL else 'not '}significant at the {SIGNIFICANCE_LEVEL:.0%} level"
    )
    return (
        f"{first} is right on {more} that {second} gets wrong, and wrong on {fewer} that {second} gets right: such a "
        f"difference {verdict} (sign test, p = {p:.2f})."
    )
