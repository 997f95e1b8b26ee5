"""A comparison's table, from measurements that are written down here."""

import numpy as np
import pytest

from metake.evaluation import compare as module
from metake.evaluation.compare import Comparison, short_cell
from metake.evaluation.glossary import LABELS
from metake.evaluation.metrics import PER_RECORD, Measurement, bootstrap
from metake.evaluation.protocol import MethodRun
from tests.conftest import method_of

SAMPLED = "sampled with"


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


@pytest.fixture
def compared(demo, statistics_of, records, monkeypatch, tmp_path):
    """`compared(**options)`: what every method is run with, without running it."""

    def go(methods=None, **options):
        runs = []

        def run(*given, **more):
            method, before = given[2], given[5]
            runs.append((method, more))
            return MethodRun(method.name, method, before, before, [], "end")

        monkeypatch.setattr(module, "evaluate_method", run)
        monkeypatch.setattr(module, "sample_contexts", lambda arch, tokenizer, seed: (f"{SAMPLED} {seed}",))
        plain = method_of(demo.arch, "memit", layers=(1, 2))
        given = {
            "batch": 2,
            "folder": tmp_path,
            "text": "The mill is dark. " * 9,
            "generate": False,
            **options,
        }
        chosen = given.pop("records", records[:2])
        out = module.compare(demo, chosen, methods or [plain], statistics_of(demo), **given)
        return out, runs

    return go


def test_every_run_has_a_folder_of_its_own(compared, records):
    """Named after method and key: whatever changes the numbers changes the folder; the same call finds it again."""
    changes = [
        {},
        {"batch": 1},
        {"consecutive": False},
        {"generate": True},
        {"text": None},
        {"text": "Today it rains. " * 9},
        {"records": records[1:3]},
    ]
    folders = [compared(**change)[1][0][1]["checkpoints"].folder for change in changes]
    assert len(set(folders)) == len(folders)
    assert all(folder.name.startswith("memit-") for folder in folders)
    assert compared()[1][0][1]["checkpoints"].folder == folders[0]
    assert compared(folder=None)[1][0][1]["checkpoints"] is None


def test_methods_of_a_seed_share_their_contexts(compared, demo):
    """Sampled once per seed, from the unedited model; a method with contexts of its own needs none."""
    plain = method_of(demo.arch, "memit", layers=(1, 2))
    methods = [
        plain,
        plain.updated(seed=3, label="memit@other"),
        plain.updated(contexts=("It rains",), seed=5, label="memit@own"),
        method_of(demo.arch, "ultraedit", layers=(1, 2)),  # it has no contexts
    ]
    out, runs = compared(methods)
    assert [more["contexts"] for _, more in runs] == [("sampled with 0",), ("sampled with 3",), None, None]
    assert out.content["contexts"] == {"0": ("sampled with 0",), "3": ("sampled with 3",)}
    assert [method for method, _ in runs] == methods
    assert [row["method"] for row in out.content["methods"]] == [method.name for method in methods]


def test_the_content_names_what_was_asked_in_the_order_that_a_page_reads(compared, records):
    """Prompt, target, truth, rephrase, unrelated prompt, its answer; options reach the run as they were given."""
    out, runs = compared(batch=1, consecutive=False, tick=print, note="x")
    assert out.content["requests"] == [
        [r.request.text, r.request.target, r.truth, r.rephrase, r.locality, r.locality_answer]
        for r in records[:2]
    ]
    assert len({text for text in out.content["requests"][0]}) == 6
    assert {name: out.content[name] for name in ("edits", "batch", "note")} == {
        "edits": 2,
        "batch": 1,
        "note": "x",
    }
    ((_, more),) = runs
    assert (more["batch"], more["consecutive"], more["tick"]) == (1, False, print)
    assert out.before.answers == [("", "", "")] * 2  # nothing was generated


def test_contexts_change_the_folder_of_a_run(compared, monkeypatch):
    first = compared()[1][0][1]["checkpoints"].folder
    monkeypatch.setattr("tests.evaluation.test_compare.SAMPLED", "otherwise sampled with")
    assert compared()[1][0][1]["checkpoints"].folder != first


def full(**spread):
    """A measurement with a value of every metric; those named vary between records."""
    found = measurement(8.125, **{name: 0.5 for name in PER_RECORD})
    found.values.update({name: np.array(values) for name, values in spread.items()})
    return found


@pytest.mark.parametrize(
    ("counterfact", "first"), [(False, ["Eff", "Gen", "Spe"]), (True, ["ES", "PS", "NS"])]
)
def test_the_short_table_fits_a_terminal_and_has_a_legend(counterfact, first):
    """With every metric measured and long names: at most eight columns, 100 characters, each column explained."""
    before = full()
    if not counterfact:
        for name in ("efficacy_success", "paraphrase_success", "neighbourhood_success"):
            before.values[name] = np.full(4, np.nan)
    runs = [
        MethodRun(name, None, before, before, [{"seconds": 123.0, "requests": [1]}], "end")
        for name in ("alphaedit-blue", "metake-alphaedit")
    ]
    comparison = Comparison(before, runs, {"model": "demo", "edits": 3})
    lines = comparison.table().splitlines()
    assert max(map(len, lines)) <= 100
    head = [LABELS[name] for name in comparison.headline()]
    assert head == [*first, "exact", "ppl", "s/edit"]
    assert any("alphaedit-blue" in line for line in lines)
    legend = " ".join(lines[lines.index(next(line for line in lines if line.startswith(f"{first[0]}: "))) :])
    assert all(f"{label}: " in legend for label in head)


def test_the_short_table_has_intervals_over_records():
    varied = [0.0, 1.0, 1.0, 0.0]
    run = MethodRun(
        "memit",
        None,
        full(),
        full(efficacy_success=varied, paraphrase_success=[0.5] * 4),
        [{"seconds": 1.0, "requests": [1]}],
        "end",
    )
    table = Comparison(full(), [run], {"model": "demo", "edits": 4}).table()
    low, high = bootstrap(np.array(varied))
    assert high - low > 0.5
    assert f"50.0 ±{50 * (high - low):.1f}" in table
    assert "50.0 ±0.0" in table


def test_one_record_has_no_interval():
    one = full(efficacy_success=[0.5, float("nan"), float("nan"), float("nan")])
    assert short_cell(one, "efficacy_success") == "50.0"
