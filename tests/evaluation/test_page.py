"""The page of a comparison: its table and its answers, from the result file."""

from types import SimpleNamespace

import pytest

from metake.evaluation.compare import Comparison
from metake.evaluation.page import dialogues, metric_table, settings_line, write_layers


def measured(**values):
    return SimpleNamespace(mean=lambda metric: values.get(metric, float("nan")))


@pytest.fixture
def comparison():
    """One method on two edits; of the second there are no free answers."""
    run = SimpleNamespace(
        method="memit", after=measured(efficacy=0.5, kl=0.125, perplexity=9.0), seconds_per_edit=1.5
    )
    content = {
        "edits": 2,
        "requests": [["Q: Who?\nA:", "Bo", "Al", "By whom?", "Where?", "Rome"], ["Q: When?\nA:", "now", "then", "", "", ""]],
        "before": {"answers": [["Al", "Al", "Here"], ["", "", ""]]},
        "methods": [{
            "method": "memit", "answers": [["Bo", "Al", "It is Rome."], ["", "", ""]],
            "interval": {"efficacy": [0.0, 1.0], "kl": [0.125, 0.125]},
        }],
    }  # fmt: skip
    return Comparison(measured(efficacy=0.0, kl=0.0, perplexity=8.0), [run], content)


def test_metric_table_has_a_row_per_metric_with_its_unit_and_interval(comparison):
    head, rows = metric_table(comparison)
    assert head == ["metric", "unedited", "memit"]
    assert rows == [
        ["Eff (%)", "0.0", "50.0 [0, 100]"], ["KL (nats)", "0.00", "0.12"], ["ppl", "8.00", "9.00"], ["s/edit (s)", "-", "1.50"],
    ]  # fmt: skip


def test_dialogues_judge_edits_and_neighbours(comparison):
    (talk,) = dialogues(comparison.content)
    assert talk.title == "Who? → Bo"
    assert [(line.kind, line.question, line.answers["memit"].verdict) for line in talk.lines] == [
        ("edited", "Who?", "the target"), ("reworded", "By whom?", "not the target"),
        ("neighbour", "Where?", "changed, and true"),
    ]  # fmt: skip
    assert all(line.answers["before"].verdict == "" for line in talk.lines)
    assert dialogues(comparison.content, [1]) == []


def test_layers_are_written_as_the_option_takes_them():
    assert [write_layers(layers) for layers in ([4, 5, 6], [3, 5], [7])] == ["4-6", "3,5", "7"]


def test_settings_line_names_the_constraint_and_the_steps():
    ridge = settings_for_all(target="bilevel", layers=(4, 5), weight=1500.0, steps=8, meta_steps=12)
    assert (
        settings_line(ridge, "metake") == "metake: lambda 1,500, layers 4-5, 8 steps + 12 in the closed loop"
    )
    null = settings_for_all(geometry="projected", layers=(3,), l2=10.0, steps=5)
    assert settings_line(null, "alphaedit") == "alphaedit: L2 10, layers 3, 5 steps"
    free = settings_for_all(geometry="identity", layers=(3,), steps=5)
    assert settings_line(free, "ultraedit") == "ultraedit: no constraint, layers 3, 5 steps"


def settings_for_all(**changes):
    return {"target": "plan", "geometry": "ridge", "weight": 1.0, "l2": 1.0, **changes}
