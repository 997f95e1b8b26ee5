"""Metrics against what they are defined as, on models whose answers are known."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom, hmean

from metake.data.records import Record
from metake.errors import MetakeError
from metake.evaluation.checks import fitting_records
from metake.evaluation.counterfact import MAGNITUDES, SUCCESSES
from metake.evaluation.glossary import GLOSSARY, LABELS
from metake.evaluation.metrics import PER_RECORD, WILD, Evaluator, Measurement, bootstrap, score
from metake.evaluation.protocol import Protocol
from metake.models.editable import EditableModel
from metake.models.greedy import continue_greedily
from metake.models.load import load
from metake.models.tokens import Row, encode
from metake.requests import EditRequest
from metake.texts import held_out_text
from tests.cases import CONFIGS, DESCRIBED, method_of, tiny

QUICK = {"layers": (1, 2), "steps": 4, "meta_steps": 3}


def test_measure_of_the_unedited_demo_is_high(model, records):
    """Before editing the world is known."""
    seen = Evaluator(model, records).measure()
    assert seen.mean("specificity") == 1
    assert seen.mean("agreement") == 1
    assert seen.mean("same_subject") == 1
    assert seen.mean("generation") == 0
    for record, (edited, rephrased, other) in zip(records, seen.answers, strict=True):
        assert edited == rephrased == record.ground_truth
        assert other == record.locality_answer


def test_measure_of_a_model_with_the_target_is_full(model, records):
    """A model that knows the target scores full."""
    known = [
        Record(
            EditRequest.from_text(r.request.text, r.request.subject, r.ground_truth),
            r.rephrase,
            r.locality,
            r.locality_answer,
        )
        for r in records
    ]
    seen = Evaluator(model, known).measure()
    for metric in ("efficacy", "generalization", "generation", "generation_rephrase", "generation_start"):
        assert seen.mean(metric) == 1


def test_measure_leaves_out_preserved_facts_that_are_edited(demo, records):
    """A fact that the run edits is not asked as one to keep.

    Two edits about one person: each record asks for the person's other facts, but not for the edited one.
    """
    first, *rest = records
    (question, truth), *others = first.same_subject
    second = replace(
        first, request=replace(first.request, prompt=question.replace(first.request.subject, "{}"))
    )
    assert second.request.text == question
    alone = Evaluator(demo, [first, *rest], generate=False)
    both = Evaluator(demo, [first, second], generate=False)

    def asked(evaluator, index):
        rows = zip(evaluator.kinds, evaluator.rows, strict=True)
        return {demo.tokenizer.decode(row.ids) for kind, row in rows if kind == ("same_subject", index)}

    assert {f"{question} {truth}"} | {f"{q} {a}" for q, a in others} == asked(alone, 0)
    assert {f"{q} {a}" for q, a in others} == asked(both, 0)
    everything = [replace(first, same_subject=((question, truth),)), second]
    seen = Evaluator(demo, everything, generate=False).measure()
    assert np.isnan(seen.values["same_subject"][0])  # nothing is left to ask
    assert seen.values["same_subject"][1] == 1


@torch.no_grad()
def test_teacher_forcing_equals_a_loop_over_tokens(demo, records):
    """Teacher forcing is per token with the truth given.

    Against a loop over tokens, one record at a time.
    """
    seen = Evaluator(demo, records, generate=False).measure()
    for i, record in enumerate(records):
        row = encode(demo.tokenizer, record.request.text, record.request.target_new)
        right = []
        for at, token in zip(row.predicting, row.answer_ids, strict=True):
            logits = demo.model(torch.tensor([row.ids[: at + 1]])).logits[0, -1]
            right.append(int(logits.argmax()) == token)
        assert seen.values["efficacy"][i] == np.mean(right)


@torch.no_grad()
@pytest.mark.parametrize("family", [*CONFIGS, *DESCRIBED])
def test_greedy_continuation_equals_one_token_at_a_time(family, demo, records):
    """Batched, padded and cached against the argmax of a fresh pass per token, on every family."""
    modules = DESCRIBED[family][1] if family in DESCRIBED else None
    model = EditableModel(tiny(family), demo.tokenizer, modules=modules)
    prompts = [encode(demo.tokenizer, text).ids for r in records[:3] for text in (r.request.text, "Who?")]
    texts = continue_greedily(model, prompts, [6] * len(prompts))
    for prompt, text in zip(prompts, texts, strict=True):
        ids = list(prompt)
        for _ in range(6):
            ids.append(int(model.model(torch.tensor([ids])).logits[0, -1].argmax()))
        spoken = ids[len(prompt) :]
        end = demo.tokenizer.eos_token_id
        spoken = spoken[: spoken.index(end)] if end in spoken else spoken
        assert text == demo.tokenizer.decode(spoken, skip_special_tokens=True)


@torch.no_grad()
def test_perplexity_is_exp_of_the_mean_loss(demo):
    text = held_out_text("demo")
    evaluator = Evaluator(demo, [], text=text)
    losses = [
        float(demo.model(torch.tensor([w.ids]), labels=torch.tensor([w.ids])).loss) for w in evaluator.windows
    ]
    seen = evaluator.measure()
    assert seen.perplexity == pytest.approx(np.exp(np.mean(losses)), rel=1e-3)
    assert seen.perplexity_median == pytest.approx(np.exp(np.median(losses)), rel=1e-3)


def test_bootstrap_covers_the_mean_and_shrinks():
    values = np.random.default_rng(1).random(400)
    low, high = bootstrap(values)
    assert low < values.mean() < high
    few_low, few_high = bootstrap(values[:25])
    assert high - low < few_high - few_low
    assert np.isnan(bootstrap(np.array([np.nan]))[0])


@pytest.mark.parametrize("consecutive", [True, False])
def test_comparison_leaves_the_model_unchanged(demo, statistics_of, records, consecutive):
    before = demo.fingerprint()
    methods = [method_of(demo, name, **QUICK) for name in ("memit", "metake@label")]
    edits = []
    protocol = Protocol(records[:5], 2, consecutive, text=held_out_text("demo"))
    out = protocol.run(demo, methods, statistics_of(demo), on_edit=edits.append)
    assert demo.fingerprint() == before
    assert sum(edits) == 10
    assert [r["method"] for r in out.content["methods"]] == ["memit", "metake@label"]
    for row in out.content["methods"]:
        assert len(row["batches"]) == 3
        assert set(row["per_record"]) == set(PER_RECORD) - {
            *SUCCESSES,
            *MAGNITUDES,
            *WILD,
            "fluency",
            "consistency",
        }  # CounterFact's and WILD's
        assert all(len(values) == 5 and None not in values for values in row["per_record"].values())
    assert set(PER_RECORD) <= set(GLOSSARY)
    assert set(LABELS) == set(GLOSSARY)
    assert "memit" in out.table()
    assert out.markdown().count("\n") == 5


def test_comparison_alone_equals_consecutive_for_one_batch(demo, statistics_of, records):
    methods = [method_of(demo, "memit", **QUICK)]
    rows = [
        Protocol(records[:4], 4, c).run(demo, methods, statistics_of(demo)).content["methods"][0]
        for c in (True, False)
    ]
    assert rows[0]["per_record"] == rows[1]["per_record"]


def test_fitting_records_names_records_that_do_not_fit(demo, records):
    long = Record(EditRequest("What is {}?", "x " * 600, "y"), "r", "l", "a")
    good, bad = fitting_records(demo, [records[0], long])
    assert good == [records[0]]
    assert len(bad) == 1
    assert "the model takes 512" in bad[0]


@torch.no_grad()
def test_kl_is_from_unedited_to_edited_next_token(demo, records):
    """KL(unedited || edited) after each of the first unrelated prompts, and the share of five likeliest they share."""
    evaluator = Evaluator(demo, records[:3], generate=False, compared=2)
    ids = [torch.tensor([demo.tokenizer(r.locality).input_ids]) for r in records[:2]]
    before = evaluator.measure()
    old = [demo.model(i).logits[0, -1].log_softmax(-1) for i in ids]
    saved = demo.weight(4).clone()
    try:
        demo.weight(4).mul_(3.0)
        seen = evaluator.measure(before)
        now = [demo.model(i).logits[0, -1].log_softmax(-1) for i in ids]
    finally:
        demo.weight(4).copy_(saved)
    for i, (p, q) in enumerate(zip(old, now, strict=True)):
        forward, backward = float((p.exp() * (p - q)).sum()), float((q.exp() * (q - p)).sum())
        assert seen.values["kl"][i] == pytest.approx(forward, rel=1e-3)
        assert abs(forward - backward) > 0.01 * forward
        shared = set(p.topk(5).indices.tolist()) & set(q.topk(5).indices.tolist())
        assert seen.values["overlap"][i] == len(shared) / 5
    assert np.isnan(seen.values["kl"][2])  # only two were compared


def measurement(**values):
    return Measurement({k: np.array(v, float) for k, v in values.items()}, 3.0, 2.0, [], [])


def test_mean_is_over_records_with_a_value():
    seen = measurement(efficacy=[1.0, np.nan, 0.0, 0.5], kl=[np.nan, np.nan])
    assert seen.mean("efficacy") == 0.5
    assert np.isnan(seen.mean("kl"))
    assert (seen.mean("perplexity"), seen.mean("perplexity_median")) == (3.0, 2.0)


def test_score_is_the_harmonic_mean_of_three():
    means = {"efficacy": 0.9, "generalization": 0.6, "specificity": 0.3, "agreement": 0.5}
    assert score(means) == pytest.approx(hmean([0.9, 0.6, 0.3]))
    assert score(means, "agreement") == pytest.approx(hmean([0.9, 0.6, 0.5]))
    assert score({**means, "efficacy": 0.0}) == pytest.approx(hmean([1e-3, 0.6, 0.3]))


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_interval_holds_the_middle_95_percent_of_resamples(share):
    """Of zeros and ones the mean of a resample is binomial; records without a value are no zeros."""
    ones = round(400 * share)
    values = np.array([1.0] * ones + [0.0] * (400 - ones) + [np.nan] * 300)
    low, high = bootstrap(values)
    for found, q in ((low, 0.025), (high, 0.975)):
        assert found == pytest.approx(binom.ppf(q, 400, share) / 400, abs=0.005)
    assert (low, high) == bootstrap(values)


@torch.no_grad()
def test_agreement_and_specificity_compare_with_model_and_truth(demo, records):
    """After a change, per token and then per record, against a loop; prompts about the subject are averaged."""
    chosen = [records[0], replace(records[1], same_subject=(), locality_answer="Nowhere")]
    evaluator = Evaluator(demo, chosen, generate=False)

    def best(prompt, answer):
        row = encode(demo.tokenizer, prompt, answer)
        logits = demo.model(torch.tensor([row.ids])).logits[0].argmax(-1)
        return logits[list(row.predicting)].tolist(), list(row.answer_ids)

    def look():
        far = [best(r.locality, r.locality_answer) for r in chosen]
        near = [best(prompt, answer) for prompt, answer in chosen[0].same_subject]
        name = chosen[1].request.subject
        open_ended = [
            int(demo.model(torch.tensor([demo.tokenizer(text).input_ids])).logits[0, -1].argmax())
            for text in (f"{name} is", f"{name} was known for", f"I was told about {name} that")
        ]
        return far, near, open_ended

    name = chosen[1].request.subject
    texts = {
        demo.tokenizer.decode(evaluator.rows[i].ids[:-1])
        for i, kind in enumerate(evaluator.kinds)
        if kind == ("same_subject", 1)
    }
    assert texts == {f"{name} is", f"{name} was known for", f"I was told about {name} that"}
    before, old = evaluator.measure(), look()
    assert before.values["agreement"].tolist() == before.values["same_subject"].tolist() == [1.0, 1.0]
    saved = demo.weight(3).clone()
    try:
        demo.weight(3).mul_(6.0)
        seen, alone, new = evaluator.measure(before), evaluator.measure(), look()
    finally:
        demo.weight(3).copy_(saved)

    def equal(a, b):
        return float(np.mean([x == y for x, y in zip(a, b, strict=True)]))

    for i in range(2):
        (then, truth), (now, _) = old[0][i], new[0][i]
        assert seen.values["agreement"][i] == equal(now, then)
        assert seen.values["specificity"][i] == equal(now, truth)
    about = np.mean([equal(now, then) for (then, _), (now, _) in zip(old[1], new[1], strict=True)])
    assert seen.values["same_subject"].tolist() == pytest.approx([about, equal(new[2], old[2])])
    assert seen.values["same_subject"].min() < 1
    assert alone.values["agreement"].tolist() == [1.0, 1.0]  # with itself


@pytest.mark.parametrize("name", ["demo", "demo-llama"])
def test_perplexity_reads_windows_of_128_tokens(name):
    """Held out text is read in windows of 128 tokens.

    BOS included where the tokenizer adds it, which then predicts the first token; at most forty; one token alone
    predicts nothing."""
    model = load(name, device="cpu")
    text = held_out_text("demo")
    evaluator = Evaluator(model, [], text=text)
    ids = model.tokenizer(text, add_special_tokens=False).input_ids
    begin = [i for i in model.tokenizer("").input_ids if i == model.tokenizer.bos_token_id]
    body = 128 - len(begin)
    windows = evaluator.windows
    assert len(windows) == min(40, -(-len(ids) // body))
    assert all(len(w) == 128 for w in windows[:-1])
    assert [list(w.ids[: len(begin)]) for w in windows] == [begin] * len(windows)
    assert [i for w in windows for i in w.ids[len(begin) :]] == ids[: 40 * body]
    assert [w.answer for w in windows] == [len(w) - 1 for w in windows]
    short = Evaluator(model, [], text=model.tokenizer.decode(ids[: body + 1]))
    assert len(short.windows) == 1


@torch.no_grad()
def test_perplexity_weighs_windows_and_not_tokens(demo):
    """exp of the mean (and of the median) over windows of each one's mean NLL; none where some records are measured."""
    evaluator = Evaluator(demo, [], text=held_out_text("demo"))
    evaluator.windows = [
        Row(w.ids[:n], 0, n - 1) for w, n in zip(evaluator.windows, (9, 128, 40), strict=False)
    ]
    losses = []
    for window in evaluator.windows:
        ids = torch.tensor(window.ids)
        scores = demo.model(ids[None]).logits[0].log_softmax(-1)
        losses.append(float(-scores[:-1].gather(1, ids[1:, None]).mean()))
    seen = evaluator.measure()
    assert seen.perplexity == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)
    assert seen.perplexity_median == pytest.approx(np.exp(np.median(losses)), rel=1e-4)
    assert np.isnan(evaluator.measure(only=[]).perplexity)


def test_measure_omits_metrics_that_are_not_requested(demo, records):
    """Records that are not asked for have no values."""
    evaluator = Evaluator(demo, records[:3])
    whole, part = evaluator.measure(), evaluator.measure(only=[1])
    for name in ("efficacy", "specificity", "agreement", "same_subject", "generation", "kl"):
        assert np.isfinite(part.values[name]).tolist() == [False, True, False]
        assert part.values[name][1] == whole.values[name][1]
    assert part.answers[0] == ("", "", "")
    assert part.answers[1] == whole.answers[1]


def test_measurement_survives_plain_values(demo, records):
    """A measurement as plain values comes back."""
    seen = Evaluator(demo, records[:2], text=held_out_text("demo")).measure()
    again = Measurement.of_plain(json.loads(json.dumps(seen.plain())))
    for name, values in seen.values.items():
        np.testing.assert_array_equal(again.values[name], values)
    assert (again.perplexity, again.perplexity_median) == (seen.perplexity, seen.perplexity_median)
    assert again.answers == seen.answers
    assert np.isnan(Measurement.of_plain(replace(seen, perplexity=float("nan")).plain()).perplexity)


def test_measure_omits_metrics_without_rephrase_or_locality(demo, records):
    """Records without rephrase or locality have no such metrics.

    They are absent and not 0; the other records' values are what they are without them.
    """
    bare = Record(records[1].request)
    mixed, whole = [records[0], bare, records[2]], [records[0], records[2]]
    found = Evaluator(demo, mixed).measure()
    alone = Evaluator(demo, whole).measure()
    lacking = {"generalization", "generation_rephrase", "specificity", "agreement", "kl", "overlap"}
    for name, values in found.values.items():
        assert not (name in lacking and np.isfinite(values[1])), name
        np.testing.assert_array_equal(values[[0, 2]], alone.values[name], err_msg=name)
    assert np.isfinite([found.values[name][1] for name in ("efficacy", "generation", "same_subject")]).all()
    assert found.answers[1][1:] == ("", "")
    assert [found.answers[0], found.answers[2]] == alone.answers
    only = Evaluator(demo, [bare]).measure()
    assert all(np.isnan(only.mean(name)) for name in lacking)


@pytest.mark.parametrize(
    ("edited", "rephrased", "exact", "exact_rephrased", "starts"),
    [
        (" Red Oak. ", "Red Oak tree", 1, 0, 1),  # a final full stop and the space around do not count
        ("Red Oak tree", " Red Oak\n", 0, 1, 1),
        ("A Red Oak", "A Red Oak", 0, 0, 0),
        ("Red", "Red Oak.", 0, 1, 0),
        ("Red Oaken", "Red Oak.", 0, 1, 0),
    ],
)
def test_free_answer_is_compared_with_its_target(
    demo, records, monkeypatch, edited, rephrased, exact, exact_rephrased, starts
):
    """Each of the three questions is read as far as its own answer goes."""
    record = replace(records[0], request=replace(records[0].request, target_new="Red Oak."))
    said = {record.request.text: edited, record.rephrase: rephrased, record.locality: " Ghent. "}
    asked = {}

    def answer(model, prompts, targets, **options):
        asked.update(zip(prompts, targets, strict=True))
        return [said[prompt] for prompt in prompts]

    monkeypatch.setattr("metake.evaluation.rules.greedy_answers", answer)
    seen = Evaluator(demo, [record]).measure()
    assert asked == {
        record.request.text: "Red Oak.",
        record.rephrase: "Red Oak.",
        record.locality: record.locality_answer,
    }
    found = [seen.values[name][0] for name in ("generation", "generation_rephrase", "generation_start")]
    assert found == [exact, exact_rephrased, starts]
    assert seen.answers == [tuple(text.strip().removesuffix(".") for text in said.values())]


def test_free_answer_is_compared_line_by_line(demo, records, monkeypatch):
    record = replace(records[0], request=replace(records[0].request, target_new="Red Oak\nMill"))
    monkeypatch.setattr(
        "metake.evaluation.rules.greedy_answers",
        lambda *_, **__: ["Red Oak  \n Mill.", "Red Oak Mill", "x"],
    )
    seen = Evaluator(demo, [record]).measure()
    assert seen.values["generation"].tolist() == [1.0]
    assert seen.values["generation_rephrase"].tolist() == [0.0]


def test_kl_below_zero_by_rounding_is_zero(demo, records):
    """A divergence that rounding makes negative is zero.

    Beside it the median and the mean of a perplexity are kept apart.
    """
    evaluator = Evaluator(demo, records[:1], generate=False)
    before = evaluator.measure()
    lower = replace(before, unrelated={0: before.unrelated[0] - 1e-4})
    assert evaluator.measure(lower).values["kl"][0] == 0
    assert f"first {evaluator.compared} records" in GLOSSARY["kl"]
    plain = replace(before, perplexity=float("nan"), perplexity_median=2.5).plain()
    assert (plain["perplexity"], plain["perplexity_median"]) == (None, 2.5)


def test_measurement_does_not_depend_on_pass_size(demo, records):
    """A measurement is the same in passes of any size.

    Every record's next tokens are kept, not those of the last pass alone.
    """
    whole, small = (
        Evaluator(demo, records[:4], generate=False, max_tokens=size).measure() for size in (None, 16)
    )
    for name, values in whole.values.items():
        np.testing.assert_allclose(small.values[name], values, err_msg=name)
    assert sorted(small.unrelated) == sorted(whole.unrelated) == [0, 1, 2, 3]


def test_perplexity_window_of_two_tokens_predicts_one(demo):
    ids = demo.tokenizer("The mill is dark", add_special_tokens=False).input_ids
    evaluator = Evaluator(demo, [], text=demo.tokenizer.decode(ids[:2]))
    assert [(len(window), window.answer) for window in evaluator.windows] == [(2, 1)]


def test_perplexity_refuses_text_without_two_tokens(demo, records):
    """A held out text without two tokens is refused."""
    with pytest.raises(MetakeError, match="held-out text: 1 tokens, 2 are needed"):
        Evaluator(demo, records[:1], text="a")
    Evaluator(demo, records[:1], text="a mill")
