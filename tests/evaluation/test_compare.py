"""A comparison's table, from measurements that are written down here."""

import numpy as np
import pytest

from metake.evaluation.compare import Comparison
from metake.evaluation.glossary import LABELS
from metake.evaluation.metrics import PER_RECORD, Measurement
from metake.evaluation.protocol import MethodRun


def measurement(perplexity=float("nan"), **means):
    values = {name: np.array([means.get(name, np.nan)]) for name in PER_RECORD}
    return Measurement(values, perplexity, perplexity, [], [])


@pytest.fixture
def comparison():
    before = measurement(8.125, efficacy=0.25, kl=0.0, fluency=5.0)
    after = measurement(9.5, efficacy=0.875, kl=0.123, fluency=4.56)
    batches = [{"seconds": 3.0, "requests": [1, 2]}, {"seconds": 0.5, "requests": [3]}]
    run = MethodRun("memit@fast", None, before, after, batches, "end")
    return Comparison(before, [run], {"model": "demo", "edits": 3})


def test_shares_are_in_percent_and_the_rest_as_it_is(comparison):
    """Only what the unedited model has a value of, in the glossary's order; seconds per edit at the end."""
    head, rows = comparison.cells()
    measured = ("efficacy", "perplexity", "perplexity_median", "kl", "fluency")
    names = [name for name in LABELS if name in measured]
    assert head == ["method", *(LABELS[name] for name in names), LABELS["seconds_per_edit"]]
    unedited = {
        "efficacy": "25.0",
        "perplexity": "8.12",
        "perplexity_median": "8.12",
        "kl": "0.00",
        "fluency": "5.00",
    }
    edited = {
        "efficacy": "87.5",
        "perplexity": "9.50",
        "perplexity_median": "9.50",
        "kl": "0.12",
        "fluency": "4.56",
    }
    assert rows[0] == ["unedited", *(unedited[name] for name in names), "-"]
    assert rows[1] == ["memit@fast", *(edited[name] for name in names), "1.17"]


def test_a_table_without_values_names_the_three_published_metrics():
    before = measurement()
    head, _ = Comparison(before, [], {"model": "demo", "edits": 0}).cells()
    assert head[1:-1] == [LABELS[name] for name in ("efficacy", "generalisation", "specificity")]


def test_a_tables_title_says_model_and_edits(comparison):
    assert "demo: 3 edits" in comparison.table()
    assert comparison.markdown().splitlines()[0].startswith("| method |")
