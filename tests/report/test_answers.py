"""Marks of answers."""

import pytest

from metake.report.answers import judge_neighbor, judge_target


@pytest.mark.parametrize(
    ("answer", "target", "verdict", "good"),
    [
        ("Oslo, Norway", "Oslo", "the target", True),
        ("Oslo", "Oslo.", "the target", True),
        ("Bergen", "Oslo", "not the target", False),
        ("Malak", "Mal.", "not the target", False),
        ("", "Oslo", "no answer", False),
        ("  ", "Oslo", "no answer", False),
    ],
)
def test_judge_target_compares_answer_and_target(answer, target, verdict, good):
    judged = judge_target(answer, target)
    assert (judged.verdict, judged.good) == (verdict, good)


@pytest.mark.parametrize(
    ("answer", "before", "truth", "verdict", "good"),
    [
        ("Ghent", "Ghent", "Bern", "unchanged", True),
        ("Bern", "Ghent", "Bern", "changed, and true", True),
        ("The capital is bern.", "Ghent", "Bern", "changed, and true", True),
        ("Bernard", "Ghent", "Bern", "changed", False),
        ("Oslo", "Ghent", "Bern", "changed", False),
        ("Oslo", "Ghent", "", "changed", False),
        ("", "Ghent", "Bern", "no answer any more", False),
        ("", "", "Bern", "unchanged", True),
    ],
)
def test_judge_neighbor_compares_with_truth_and_before(answer, before, truth, verdict, good):
    """A neighbor that became right is right; an answer that was lost is not."""
    judged = judge_neighbor(answer, before, truth)
    assert (judged.verdict, judged.good) == (verdict, good)
