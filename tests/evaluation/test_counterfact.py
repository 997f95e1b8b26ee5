"""CounterFact's metrics against plain sums over log-probabilities."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from metake.evaluation.counterfact import (
    compare_targets,
    fluency,
    ngram_entropy,
    sample_texts,
    target_losses,
)
from metake.evaluation.metrics import Evaluator
from metake.models.tokens import encode


def nll(model, prompt, target):
    """Mean NLL of the target's tokens, one pass over the whole text."""
    begin = model.tokenizer(prompt).input_ids
    ids = model.tokenizer(f"{prompt} {target}").input_ids
    with torch.no_grad():
        scores = model.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    spots = range(len(begin), len(ids))
    return -float(np.mean([scores[i - 1, ids[i]] for i in spots]))


@pytest.fixture
def rivals(records):
    """The world's own answer against another one; the second record's neighbors are its own prompts."""
    return [
        replace(
            r,
            target_true=r.ground_truth,
            rephrases=(r.rephrase, r.request.text),
            neighbors=(r.request.text, r.rephrase),
        )
        for r in records[:3]
    ]


def test_compare_targets_has_success_and_magnitude(model, rivals):
    values = compare_targets(model, rivals, [0, 2])
    for index in (0, 2):
        record = rivals[index]
        new, true = (
            nll(model, record.request.text, t) for t in (record.request.target_new, record.target_true)
        )
        assert values["efficacy_magnitude"][index] == pytest.approx(np.exp(-new) - np.exp(-true), rel=1e-4)
        assert values["efficacy_success"][index] == 0  # the model knows its world
        assert values["neighborhood_success"][index] == 1
        both = [nll(model, record.rephrase, t) for t in (record.request.target_new, record.target_true)]
        mean = np.mean([np.exp(-new) - np.exp(-true), np.exp(-both[0]) - np.exp(-both[1])])
        assert values["paraphrase_magnitude"][index] == pytest.approx(mean, rel=1e-4)
        assert values["neighborhood_magnitude"][index] == pytest.approx(-mean, rel=1e-4)
    assert all(np.isnan(v[1]) for v in values.values())  # not asked for


def test_measure_has_no_success_without_a_rival(demo, records):
    """Records without a rival are left out."""
    measured = Evaluator(demo, records[:2], generate=False).measure()
    assert np.isnan(measured.values["efficacy_success"]).all()
    assert np.isnan(measured.values["fluency"]).all()


def test_ngram_entropy_equals_calculation_by_hand():
    """a b a b: bigrams ab, ba, ab; trigrams aba, bab."""
    two = -(2 / 3 * np.log2(2 / 3) + 1 / 3 * np.log2(1 / 3))
    assert ngram_entropy("a b a b") == pytest.approx((2 / 3 * two + 4 / 3 * 1.0) / 2)
    assert ngram_entropy("a a a a a") == ngram_entropy("") == ngram_entropy("a") == 0
    assert ngram_entropy("one, two") > 0  # punctuation counts as a word
    assert ngram_entropy("So so so so") > 0  # upper and lower case are two words, as in the published code


def test_fluency_of_sampled_texts_is_seeded(demo, rivals):
    """Sampled texts are seeded and judged together."""
    record = replace(rivals[0], generation_prompts=("The market", "The mill"))
    first, again, other = (sample_texts(demo, record, length=60, seed=s) for s in (0, 0, 1))
    assert first == again != other
    assert [text.split()[1] for text in first] == ["market", "mill"]
    assert fluency(first) == pytest.approx(np.mean([ngram_entropy(text) for text in first]))
    measured = Evaluator(demo, rivals, generate=False, sampled_records=1).measure()
    assert np.isfinite(measured.values["fluency"]).tolist() == [True, False, False]


def test_compare_targets_counts_equal_likelihoods_as_failure(demo, rivals):
    """Strictly likelier: a record whose two targets are one succeeds nowhere."""
    same = replace(rivals[0], target_true=rivals[0].request.target_new)
    values = compare_targets(demo, [same], [0])
    for name in ("efficacy", "paraphrase", "neighborhood"):
        assert values[f"{name}_success"][0] == 0
        assert values[f"{name}_magnitude"][0] == 0


@torch.no_grad()
def test_target_loss_is_the_mean_over_tokens(demo, rivals):
    """Of targets of one, two and three tokens, in any chunks."""
    rows = [
        encode(demo.tokenizer, "The craft is", target)
        for target in ("baker", "Red Anchor", "Red Oak Red Oak")
    ]
    assert len({row.answer for row in rows}) == 3
    for budget in (8, 4096):
        for row, loss in zip(rows, target_losses(demo, rows, budget), strict=True):
            scores = demo.model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
            nll = [
                -float(scores[at, token]) for at, token in zip(row.predicting, row.answer_ids, strict=True)
            ]
            assert loss == pytest.approx(np.mean(nll), rel=1e-4)


def test_ngram_entropy_weighs_bigrams_half_of_trigrams():
    """The published weights 2/3 and 4/3, averaged: texts that differ in one of the entropies alone."""
    ones = np.log2(5)
    assert ngram_entropy("a b c d e f") == pytest.approx((2 / 3 * ones + 4 / 3 * np.log2(4)) / 2)
    assert ngram_entropy("a b") == 0  # one bigram, no trigram


@torch.no_grad()
def test_sampling_has_length_prompts_and_seed_as_published(demo, rivals):
    """Texts are sampled to a length from the first prompts and leave the seed alone.

    A hundred tokens with the prompt in them, of ten prompts at most, each token one of the five likeliest; of
    the edited prompt where a record has none."""
    many = replace(
        rivals[0], generation_prompts=tuple(f"The {w}" for w in ["market", "mill", "river", "garden"] * 3)
    )
    state = torch.random.get_rng_state()
    texts = sample_texts(demo, many, length=12)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(texts) == 10
    assert [text.split()[1] for text in texts] == (["market", "mill", "river", "garden"] * 3)[:10]
    assert len(set(texts[:4] + texts[4:8])) > 4  # one stream of numbers, not the same for every prompt
    for text in texts:
        ids = demo.tokenizer(text).input_ids
        assert len(ids) <= 12
    plain = sample_texts(demo, replace(many, generation_prompts=()), length=12)
    assert len(plain) == 1
    assert plain[0].startswith(many.request.text)
    seen, generate = [], demo.model.generate

    def watched(ids, **options):
        seen.append((ids.shape[1], options))
        return generate(ids, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo.model, "generate", watched)
        sample_texts(demo, replace(many, generation_prompts=("The mill",)))
    ((length, options),) = seen
    assert (options["top_k"], options["do_sample"]) == (5, True)
    assert length + options["max_new_tokens"] == 100


def test_sampling_ends_at_model_length_without_special_tokens(demo, rivals, monkeypatch):
    """Texts end where the model does and are read without special tokens.

    Of a hundred tokens a model of forty positions writes forty; of a prompt that fills them, one more.
    """
    asked = []

    def generate(ids, **options):
        asked.append((ids.shape[1], options["max_new_tokens"]))
        return torch.cat([ids, torch.tensor([[demo.tokenizer.eos_token_id]])], 1)

    monkeypatch.setattr(demo.model, "generate", generate)
    model = SimpleNamespace(model=demo.model, tokenizer=demo.tokenizer, max_positions=40, device=demo.device)
    record = replace(rivals[0], generation_prompts=("The mill is dark", "mill" + " mill" * 39))
    texts = sample_texts(model, record)
    assert texts == list(record.generation_prompts)
    assert asked[0][0] + asked[0][1] == 40
    assert asked[1][0] >= 40
    assert asked[1][1] == 1
