"""CounterFact's metrics against plain sums over log-probabilities."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metake.evaluation.counterfact import compare_targets, fluency, ngram_entropy, sample_texts
from metake.evaluation.metrics import Evaluator


def nll(loaded, prompt, target):
    """Mean NLL of the target's tokens, one pass over the whole text."""
    begin = loaded.tokenizer(prompt).input_ids
    ids = loaded.tokenizer(f"{prompt} {target}").input_ids
    with torch.no_grad():
        scores = loaded.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    spots = range(len(begin), len(ids))
    return -float(np.mean([scores[i - 1, ids[i]] for i in spots]))


@pytest.fixture
def rivals(records):
    """The world's own answer against another one; the second record's neighbours are its own prompts."""
    return [
        replace(
            r, rival=r.truth, rephrases=(r.rephrase, r.request.text), neighbours=(r.request.text, r.rephrase)
        )
        for r in records[:3]
    ]


def test_success_and_magnitude(loaded, rivals):
    values = compare_targets(loaded.arch, loaded.tokenizer, rivals, [0, 2])
    for index in (0, 2):
        record = rivals[index]
        new, true = (nll(loaded, record.request.text, t) for t in (record.request.target, record.rival))
        assert values["efficacy_magnitude"][index] == pytest.approx(np.exp(-new) - np.exp(-true), rel=1e-4)
        assert values["efficacy_success"][index] == 0  # the model knows its world
        assert values["neighbourhood_success"][index] == 1
        both = [nll(loaded, record.rephrase, t) for t in (record.request.target, record.rival)]
        mean = np.mean([np.exp(-new) - np.exp(-true), np.exp(-both[0]) - np.exp(-both[1])])
        assert values["paraphrase_magnitude"][index] == pytest.approx(mean, rel=1e-4)
        assert values["neighbourhood_magnitude"][index] == pytest.approx(-mean, rel=1e-4)
    assert all(np.isnan(v[1]) for v in values.values())  # not asked for


def test_records_without_a_rival_are_left_out(demo, records):
    measured = Evaluator(demo.arch, demo.tokenizer, records[:2], generate=False).measure()
    assert np.isnan(measured.values["efficacy_success"]).all()
    assert np.isnan(measured.values["fluency"]).all()


def test_entropy_by_hand():
    """a b a b: bigrams ab, ba, ab; trigrams aba, bab."""
    two = -(2 / 3 * np.log2(2 / 3) + 1 / 3 * np.log2(1 / 3))
    assert ngram_entropy("a b a b") == pytest.approx((2 / 3 * two + 4 / 3 * 1.0) / 2)
    assert ngram_entropy("a a a a a") == ngram_entropy("") == ngram_entropy("a") == 0
    assert ngram_entropy("one, two") > 0  # punctuation counts as a word


def test_sampled_texts_are_seeded_and_judged_together(demo, rivals):
    record = replace(rivals[0], generation_prompts=("The market", "The mill"))
    first, again, other = (
        sample_texts(demo.arch, demo.tokenizer, record, length=60, seed=s) for s in (0, 0, 1)
    )
    assert first == again != other
    assert [text.split()[1] for text in first] == ["market", "mill"]
    assert fluency(first) == pytest.approx(np.mean([ngram_entropy(text) for text in first]))
    measured = Evaluator(demo.arch, demo.tokenizer, rivals, generate=False, fluent=1).measure()
    assert np.isfinite(measured.values["fluency"]).tolist() == [True, False, False]
