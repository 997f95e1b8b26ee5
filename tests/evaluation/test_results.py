"""Tables of results, from measurements that are written down here."""

import numpy as np
import pytest

from metake.evaluation.glossary import LABELS
from metake.evaluation.metrics import PER_RECORD, WILD, Measurement, bootstrap
from metake.evaluation.results import MethodRun, Results, short_cell
from metake.methods.table import method_named


def measurement(perplexity=float("nan"), **means):
    values = {name: np.array([means.get(name, np.nan)]) for name in PER_RECORD}
    return Measurement(values, perplexity, perplexity, [], [])


@pytest.fixture
def comparison():
    before = measurement(8.125, efficacy=0.25, kl=0.0, fluency=5.0)
    after = measurement(9.5, efficacy=0.875, kl=0.123, fluency=4.56)
    batches = [{"seconds": 3.0, "requests": [1, 2]}, {"seconds": 0.5, "requests": [3]}]
    run = MethodRun(method_named("memit@fast"), before, after, batches, "end")
    return Results(before, [run], {"model": "demo", "edits": 3})


def test_results_table_has_shares_in_percent(comparison):
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


def test_results_table_without_values_names_published_metrics():
    before = measurement()
    head, _ = Results(before, [], {"model": "demo", "edits": 0}).cells()
    assert head[1:-1] == [LABELS[name] for name in ("efficacy", "generalization", "specificity")]


def test_results_table_title_has_model_and_edits(comparison):
    assert "demo: 3 edits" in comparison.table()
    assert comparison.markdown().splitlines()[0].startswith("| method |")


def full(wild=False, **spread):
    """A measurement with a value of every metric; those named vary between records. WILD's only where asked for."""
    names = [name for name in PER_RECORD if wild or name not in WILD]
    found = measurement(8.125, **{name: 0.5 for name in names})
    found.values.update({name: np.array(values) for name, values in spread.items()})
    return found


@pytest.mark.parametrize(
    ("wild", "counterfact", "columns"),
    [
        (False, False, ["Eff", "Gen", "Spe", "exact", "ppl", "s/edit"]),
        (False, True, ["ES", "PS", "NS", "exact", "ppl", "s/edit"]),
        (True, True, ["WILD exact", "WILD exact (reph.)", "WILD loc.", "Eff", "ppl", "s/edit"]),
    ],
)
def test_short_table_fits_a_terminal_with_a_legend(wild, counterfact, columns):
    """With every metric measured and long names: at most eight columns, 100 characters, each column explained."""
    before = full(wild)
    if not counterfact:
        for name in ("efficacy_success", "paraphrase_success", "neighborhood_success"):
            before.values[name] = np.full(4, np.nan)
    runs = [
        MethodRun(method_named(name), before, before, [{"seconds": 123.0, "requests": [1]}], "end")
        for name in ("alphaedit-blue", "metake-alphaedit")
    ]
    comparison = Results(before, runs, {"model": "demo", "edits": 3})
    lines = comparison.table().splitlines()
    assert max(map(len, lines)) <= 100
    head = [LABELS[name] for name in comparison.headline()]
    assert head == columns
    assert any("alphaedit-blue" in line for line in lines)
    legend = " ".join(
        lines[lines.index(next(line for line in lines if line.startswith(f"{columns[0]}: "))) :]
    )
    assert all(f"{label}: " in legend for label in head)


def test_short_table_has_intervals_over_records():
    varied = [0.0, 1.0, 1.0, 0.0]
    run = MethodRun(
        method_named("memit"),
        full(),
        full(efficacy_success=varied, paraphrase_success=[0.5] * 4),
        [{"seconds": 1.0, "requests": [1]}],
        "end",
    )
    table = Results(full(), [run], {"model": "demo", "edits": 4}).table()
    low, high = bootstrap(np.array(varied))
    assert high - low > 0.5
    assert f"50.0 ±{50 * (high - low):.1f}" in table
    assert "50.0 ±0.0" in table


def test_short_table_of_one_record_has_no_interval():
    one = full(efficacy_success=[0.5, float("nan"), float("nan"), float("nan")])
    assert short_cell(one, "efficacy_success") == "50.0"
