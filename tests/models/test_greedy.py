"""Greedy answers are the model's argmax, whatever generation settings the model carries, and long enough."""

import pytest
import torch
from transformers import GenerationConfig

from metake.evaluation.counterfact import sample_texts
from metake.models.architecture import Architecture
from metake.models.greedy import (
    LEAST,
    answer_length,
    continue_greedily,
    described_decoding,
    first_lines,
    greedy_answers,
    set_aside,
    stop_tokens,
)
from metake.models.tokens import encode
from tests.conftest import tiny

OWN = {"repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "min_new_tokens": 5, "do_sample": True, "temperature": 3.0,
       "num_beams": 2, "suppress_tokens": [5], "bad_words_ids": [[7]]}  # fmt: skip


@pytest.fixture
def model():
    return tiny("gpt2")


def argmax(model, ids, count):
    ids = list(ids)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[-count:]


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(OWN))
def test_an_answer_ignores_the_models_generation_settings(model, demo, name):
    row = encode(demo.tokenizer, "The mill is dark").ids
    model.generation_config = own = GenerationConfig(eos_token_id=1023, **{name: OWN[name]})
    wanted = demo.tokenizer.decode(argmax(model, row, 10), skip_special_tokens=True)
    assert continue_greedily(Architecture(model), demo.tokenizer, [row], [10]) == [wanted]
    assert model.generation_config is own
    assert set_aside(model) == {name: OWN[name]}


@torch.no_grad()
def test_the_penalty_of_the_test_above_matters(model, demo):
    """The same settings change what `generate` alone answers, so the test can fail."""
    row = encode(demo.tokenizer, "The mill is dark").ids
    given = dict(max_new_tokens=10, do_sample=False, pad_token_id=0, eos_token_id=1023)
    plain = model.generate(torch.tensor([row]), **given)
    assert not torch.equal(plain, model.generate(torch.tensor([row]), repetition_penalty=5.0, **given))


def test_sampled_texts_ignore_them_too(demo, records):
    own = demo.model.generation_config
    plain = sample_texts(demo.arch, demo.tokenizer, records[0], length=40)
    try:
        demo.model.generation_config = GenerationConfig(
            eos_token_id=0, repetition_penalty=5.0, temperature=9.0
        )
        assert sample_texts(demo.arch, demo.tokenizer, records[0], length=40) == plain
    finally:
        demo.model.generation_config = own


def test_every_token_that_ends_a_text_ends_an_answer(model, demo):
    row = encode(demo.tokenizer, "The mill is dark").ids
    spoken = argmax(model, row, 6)
    model.generation_config = GenerationConfig(eos_token_id=[1023, spoken[3]])
    assert stop_tokens(model, demo.tokenizer) == sorted({0, 1023, spoken[3]})
    wanted = demo.tokenizer.decode(spoken[: spoken.index(spoken[3])], skip_special_tokens=True)
    assert continue_greedily(Architecture(model), demo.tokenizer, [row], [6]) == [wanted]
    assert described_decoding(model, demo.tokenizer)["stop_tokens"] == [0, *sorted((spoken[3], 1023))]


def test_an_answer_is_read_as_far_as_its_target_goes(demo):
    short, long = "baker", "baker " * 60
    assert answer_length(demo.tokenizer, "The", short) == LEAST
    assert answer_length(demo.tokenizer, "The", long) > encode(demo.tokenizer, "The", long).answer > 48


def test_a_long_target_beside_a_long_prompt_is_still_read_in_full(demo):
    """Both fit the model's 512 positions alone; padded to each other they would not."""
    prompts = ["The mill is dark. " * 60, "The mill"]
    rows = [encode(demo.tokenizer, text).ids for text in prompts]
    lengths = [8, 500 - len(rows[1])]
    assert len(rows[0]) + lengths[1] > 512
    together = continue_greedily(demo.arch, demo.tokenizer, rows, lengths)
    assert together[1] == continue_greedily(demo.arch, demo.tokenizer, rows[1:], lengths[1:])[0]


@pytest.mark.parametrize(
    ("text", "target", "kept"),
    [(" a\nb\nc", "x", " a"), ("\n a\nb\nc", "x\ny", "\n a\nb"), ("", "x", ""), ("a", "x\ny\nz", "a")],
)
def test_an_answer_has_as_many_lines_as_its_target(text, target, kept):
    assert first_lines(text, target) == kept


def test_a_question_is_answered_as_the_world_has_it(demo, records):
    record = records[0]
    (answer,) = greedy_answers(demo.arch, demo.tokenizer, [record.request.text], [record.truth])
    assert answer.strip() == record.truth
