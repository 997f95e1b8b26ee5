"""Probe groups against their definitions, on a model whose answers are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metake.data.record import Probe
from metake.evaluation.checks import batches_of, fitting_records
from metake.evaluation.draws import draw_records
from metake.evaluation.metrics import PER_RECORD, Evaluator
from metake.evaluation.probes import column_metrics, metric_name, split_name
from metake.evaluation.protocol import Protocol
from metake.evaluation.summary import draws_content, summary_table
from metake.models.tokens import encode
from tests.cases import method_of


def with_probes(records):
    """Two records with probes: the truth and another answer of a known question, and one that the record has already."""
    first, second = records[:2]
    (question, truth), *_ = first.same_subject
    return [
        replace(
            first,
            probes=(
                Probe("Hop", question, (truth, "Nowhere")),
                Probe("Hop", question, ("Nowhere", truth)),
                Probe("Hop", question, ("Nowhere",)),
                Probe("Kept", first.locality, (first.locality_answer,), "keep"),
            ),
        ),
        replace(second, probes=(Probe("Kept", second.locality, ("Nowhere",), "keep"),)),
        *records[2:4],
    ]


@torch.no_grad()
def test_group_metrics_equal_a_loop(demo, records):
    """Teacher-forced on the first answer; free answers may be any of them; means over the record's probes."""
    chosen = with_probes(records)
    evaluator = Evaluator(demo, chosen)
    seen = evaluator.measure()

    def accuracy(prompt, answer):
        row = encode(demo.tokenizer, prompt, answer)
        best = demo.model(torch.tensor([row.ids])).logits[0].argmax(-1).tolist()
        return np.mean([best[i] == a for i, a in zip(row.predicting, row.answer_ids, strict=True)])

    hop = [accuracy(p.prompt, p.answers[0]) for p in chosen[0].probes[:3]]
    assert hop[0] == 1
    assert hop[1] == hop[2] < 1
    assert seen.values["probes/Hop/accuracy"][0] == pytest.approx(np.mean(hop))
    assert seen.values["probes/Hop/exact"][0] == pytest.approx(2 / 3)
    assert seen.values["probes/Hop/starts"][0] == pytest.approx(2 / 3)
    assert np.isnan(seen.values["probes/Hop/accuracy"][1:]).all()
    assert seen.values["probes/Kept/exact"][:2].tolist() == [1, 0]
    assert seen.values["probes/Kept/agreement"][:2].tolist() == [1, 1]
    assert seen.values["probes/Kept/accuracy"][0] == seen.values["specificity"][0] == 1
    assert "probes/Hop/agreement" not in seen.values


def test_groups_share_rows_and_leave_the_other_metrics(demo, records):
    """A probe that is there already is not run again, and no other number depends on the groups."""
    chosen = with_probes(records)
    plain = [replace(record, probes=()) for record in chosen]
    with_groups, without = Evaluator(demo, chosen), Evaluator(demo, plain)
    added = {p.prompt + p.answers[0] for r in chosen for p in r.probes} - {
        *(q + a for q, a in chosen[0].same_subject),
        chosen[0].locality + chosen[0].locality_answer,
    }
    assert len(with_groups.rows) == len(without.rows) + len(added) == len(without.rows) + 2
    seen, other = with_groups.measure(), without.measure()
    assert set(other.values) == set(PER_RECORD)
    assert all(np.array_equal(seen.values[m], other.values[m], equal_nan=True) for m in PER_RECORD)
    some = with_groups.measure(only=[1])
    assert np.isnan(some.values["probes/Hop/accuracy"]).all()
    assert some.values["probes/Kept/agreement"][1] == 1
    assert not [m for m in Evaluator(demo, chosen, generate=False).measure().values if m.endswith("/exact")]


def test_agreement_compares_with_the_unedited_model(demo, records):
    chosen = with_probes(records)
    evaluator = Evaluator(demo, chosen, generate=False)
    before, saved = evaluator.measure(), demo.weight(4).clone()
    with torch.no_grad():
        try:
            demo.weight(4).zero_()
            demo.weight(3).mul_(-1)
            after = evaluator.measure(before)
        finally:
            demo.weight(4).copy_(saved)
            demo.weight(3).mul_(-1)
    agreement = after.values["probes/Kept/agreement"][:2]
    assert agreement[0] == after.values["agreement"][0]
    assert agreement.min() < 1


@pytest.mark.parametrize("consecutive", [True, False])
def test_results_have_a_column_per_group(demo, records, consecutive):
    """In the result file, the short table, the full table, the page's glossary and the summary of draws."""
    from metake.evaluation.glossary import explain
    from metake.evaluation.page import metric_table
    from metake.evaluation.probes import group_metrics

    protocol = Protocol(with_probes(records), 2, consecutive)
    results = protocol.run(demo, [method_of(demo, "ultraedit", layers=(2,))])
    content, head = results.content, results.cells()[0]
    columns = [
        "Hop",
        "Hop (exact)",
        "Hop (starts)",
        "Kept",
        "Kept (agreement)",
        "Kept (exact)",
        "Kept (starts)",
    ]
    assert [label for label in head if label.startswith(("Hop", "Kept"))] == columns
    (row,) = content["methods"]
    assert len(row["per_record"]["probes/Hop/accuracy"]) == 4
    assert row["mean"]["probes/Kept/agreement"] is not None
    assert content["glossary"]["probes/Hop/exact"].startswith(
        "probes of the group Hop: share of probes whose"
    )
    assert "Kept (agreement)" in results.table()
    assert {name.removesuffix(" (%)") for name, *_ in metric_table(results)[1]} >= set(columns)
    assert "Kept (exact) (%)" in explain(head, group_metrics(results.metrics))
    summary = draws_content([results, results])["summary"]
    assert set(columns) <= set(summary_table(summary)[0])


def test_column_metrics_are_one_per_group():
    names = [metric_name("A/b", m) for m in ("accuracy", "exact")]
    names += [metric_name("C", m) for m in ("accuracy", "agreement", "exact")]
    assert column_metrics(["efficacy", *names]) == ["probes/A/b/accuracy", "probes/C/agreement"]
    assert split_name("probes/A/b/accuracy") == ("A/b", "accuracy")
    assert split_name("efficacy") == ("", "")


def cases(records, *numbers):
    return [replace(record, case=case) for record, case in zip(records, numbers, strict=False)]


def test_batches_and_draws_keep_cases_together(records):
    """A batch ends with a case; a sample has all records of a case, next to each other."""
    chosen = cases(records, None, 1, 1, 1, None, 2, 2, None)
    assert list(batches_of(chosen, 2)) == [range(4), range(4, 7), range(7, 8)]
    assert list(batches_of(records[:5], 2)) == [range(2), range(2, 4), range(4, 5)]
    assert [len(group) for group in Protocol(chosen, 2).batches()] == [4, 3, 1]
    drawn = [record.case for record in draw_records(chosen, 8, seed=3)]
    assert sorted(map(str, drawn)) == sorted(str(record.case) for record in chosen)
    assert "".join(str(case) for case in drawn).replace("None", "-").count("111") == 1
    assert draw_records(chosen, 8, seed=0) == chosen


def test_fitting_records_drops_a_case_as_a_whole(demo, records):
    chosen = cases(records, None, 1, 1, 2, 2)
    chosen[2] = replace(chosen[2], probes=(Probe("Long", "x " * 600, ("y",)),))
    good, bad = fitting_records(demo, chosen)
    assert good == [chosen[0], chosen[3], chosen[4]]
    assert len(bad) == 2
    assert "probe of Long" in bad[0]
    assert bad[1].endswith("left out with the rest of its case")
