"""Sentences on a comparison follow from its answers."""

import pytest
from scipy.stats import binomtest

from metake.evaluation.conclusion import conclude, sign_test


def content(**right):
    count = len(next(iter(right.values())))
    rows = [
        {"method": name, "per_record": {"generation_start": list(map(float, values))}}
        for name, values in right.items()
    ]
    return {"edits": count, "methods": rows}


@pytest.mark.parametrize(("more", "fewer"), [(0, 0), (1, 0), (3, 3), (9, 1), (2, 8)])
def test_sign_test_is_the_binomial_test(more, fewer):
    wanted = binomtest(more, more + fewer).pvalue if more + fewer else 1.0
    assert sign_test(more, fewer) == pytest.approx(wanted)


def test_conclude_compares_the_best_two_by_facts():
    said = conclude(content(memit=[1, 0, 0, 0], metake=[1, 1, 1, 0], rome=[0, 0, 0, 1]))
    assert said[0] == "Answers that begin with the target: memit 1, metake 3, rome 1 of 4."
    assert said[1].startswith(
        "metake is right on 2 that memit gets wrong, and wrong on 0 that memit gets right"
    )
    assert "is not significant at the 5% level" in said[1]


def test_conclude_reports_a_difference_unlikely_by_chance():
    said = conclude(content(memit=[0] * 10, metake=[1] * 10))
    assert "is significant at the 5% level (sign test, p = 0.00)" in said[1]


def test_conclude_reports_methods_right_on_the_same_facts():
    """Conclude says when methods get the same facts right."""
    said = conclude(content(memit=[1, 0], rome=[0, 0], metake=[1, 0], alphaedit=[1, 0]))[1]
    assert said.startswith("memit, metake and alphaedit get the same facts right")
    assert conclude(content(memit=[1, 0], metake=[1, 0]))[1].startswith("memit and metake get the same")


def test_conclude_is_empty_without_free_answers():
    """Conclude says nothing without free answers."""
    assert conclude({"edits": 1, "methods": [{"method": "memit", "per_record": {"efficacy": [1.0]}}]}) == []
    assert len(conclude(content(memit=[1, 0]))) == 1
