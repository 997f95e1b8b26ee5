"""Greedy answers are the model's argmax, whatever generation settings the model carries, and long enough."""

import copy
from types import SimpleNamespace

import pytest
import torch
from transformers import GenerationConfig

from metake.errors import MetakeError
from metake.evaluation.counterfact import sample_texts
from metake.models.editable import EditableModel
from metake.models.greedy import (
    DEFAULT_MIN_NEW_TOKENS,
    _groups,
    answer_length,
    continue_greedily,
    described_decoding,
    first_lines,
    greedy_answers,
    plain_generation,
    set_aside,
    stop_tokens,
    tokenizer_round_trip,
)
from metake.models.tokens import encode
from tests.cases import tiny

OWN = {
    "repetition_penalty": 5.0,
    "no_repeat_ngram_size": 1,
    "min_new_tokens": 5,
    "do_sample": True,
    "temperature": 3.0,
    "num_beams": 2,
    "suppress_tokens": [5],
    "bad_words_ids": [[7]],
}


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
def test_continue_greedily_ignores_generation_settings(model, demo, name):
    """An answer ignores the model's generation settings."""
    row = encode(demo.tokenizer, "The mill is dark").ids
    model.generation_config = own = GenerationConfig(eos_token_id=1023, **{name: OWN[name]})
    wanted = demo.tokenizer.decode(argmax(model, row, 10), skip_special_tokens=True)
    assert continue_greedily(EditableModel(model, demo.tokenizer), [row], [10]) == [wanted]
    assert model.generation_config is own
    assert set_aside(model) == {name: OWN[name]}


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_continue_greedily_ignores_output_settings(demo, family):
    """An answer does not depend on what the configuration returns."""
    model, row = copy.deepcopy(tiny(family)), encode(demo.tokenizer, "The mill is dark").ids
    wanted = continue_greedily(EditableModel(model, demo.tokenizer), [row], [10])
    model.config.return_dict = False
    assert continue_greedily(EditableModel(model, demo.tokenizer), [row], [10]) == wanted
    assert model.config.return_dict is False


@torch.no_grad()
def test_generate_answers_differ_under_the_penalty(model, demo):
    """The penalty of the test above matters.

    The same settings change what `generate` alone answers, so the test can fail.
    """
    row = encode(demo.tokenizer, "The mill is dark").ids
    given = dict(max_new_tokens=10, do_sample=False, pad_token_id=0, eos_token_id=1023)
    plain = model.generate(torch.tensor([row]), **given)
    assert not torch.equal(plain, model.generate(torch.tensor([row]), repetition_penalty=5.0, **given))


def test_sample_texts_ignores_generation_settings(demo, records):
    """Sampled texts ignore them too."""
    own = demo.model.generation_config
    plain = sample_texts(demo, records[0], length=40)
    try:
        demo.model.generation_config = GenerationConfig(
            eos_token_id=0, repetition_penalty=5.0, temperature=9.0
        )
        assert sample_texts(demo, records[0], length=40) == plain
    finally:
        demo.model.generation_config = own


def test_continue_greedily_ends_at_every_ending_token(model, demo):
    """Every token that ends a text ends an answer."""
    row = encode(demo.tokenizer, "The mill is dark").ids
    spoken = argmax(model, row, 6)
    model.generation_config = GenerationConfig(eos_token_id=[1023, spoken[3]])
    assert stop_tokens(model, demo.tokenizer) == sorted({0, 1023, spoken[3]})
    wanted = demo.tokenizer.decode(spoken[: spoken.index(spoken[3])], skip_special_tokens=True)
    assert continue_greedily(EditableModel(model, demo.tokenizer), [row], [6]) == [wanted]
    assert described_decoding(model, demo.tokenizer)["stop_tokens"] == [0, *sorted((spoken[3], 1023))]


def test_answer_length_is_that_of_the_target(demo):
    """An answer is read as far as its target goes."""
    short, long = "baker", "baker " * 60
    assert answer_length(demo.tokenizer, "The", short) == DEFAULT_MIN_NEW_TOKENS
    assert answer_length(demo.tokenizer, "The", long) > encode(demo.tokenizer, "The", long).answer > 48


@torch.no_grad()
def test_continue_greedily_reads_long_targets_beside_long_prompts(model, demo):
    """A long target beside a long prompt is still read in full.

    Both fit the model's 128 positions alone; padded to each other they would not.
    """
    model.generation_config.eos_token_id = 1023
    rows, lengths = [list(range(5, 105)), [7, 9]], [8, 110]
    assert len(rows[0]) + lengths[1] > 128
    editable = EditableModel(model, demo.tokenizer)
    together = continue_greedily(editable, rows, lengths)
    assert together[1] == continue_greedily(editable, rows[1:], lengths[1:])[0]


@pytest.mark.parametrize(
    ("text", "target", "kept"),
    [
        (" a\nb\nc", "x", " a"),
        ("\n a\nb\nc", "x\ny", "\n a\nb"),
        ("", "x", ""),
        ("a", "x\ny\nz", "a"),
        ("a\nb", "\n x \n", "a"),
    ],
)
def test_first_lines_are_as_many_as_the_targets(text, target, kept):
    assert first_lines(text, target) == kept


def test_greedy_answers_are_those_of_the_world(demo, records):
    record = records[0]
    (answer,) = greedy_answers(demo, [record.request.text], [record.ground_truth])
    assert answer.strip() == record.ground_truth


def test_answer_length_adds_tokens_to_the_target(demo):
    """An answer is read three tokens past its target and eight at least."""
    for words, least, wanted in ((1, 8, 8), (20, 8, None), (1, 2, None)):
        target = " ".join(["baker"] * words)
        tokens = len(demo.tokenizer(" " + target).input_ids)
        assert answer_length(demo.tokenizer, "The", target, least) == (wanted or tokens + 3)
    assert answer_length(demo.tokenizer, "The", "baker") == 8


@pytest.mark.parametrize(
    ("named", "own", "wanted"),
    [(5, 2, [2, 5]), ([7, 3], 7, [3, 7]), (None, 2, [2]), (4, None, [4]), (None, None, []), (0, 0, [0])],
)
def test_stop_tokens_are_of_tokenizer_and_model(named, own, wanted):
    """An answer ends where the tokenizer or the model says."""
    tokenizer = SimpleNamespace(eos_token_id=own)
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=named))
    assert stop_tokens(model, tokenizer) == wanted
    assert stop_tokens(SimpleNamespace(), tokenizer) == ([] if own is None else [own])


def test_set_aside_omits_settings_without_effect(model):
    """Settings that change no greedy answer are not called set aside.

    Lengths, the cache and tokens are given anew, and a beam of one is no beam.
    """
    model.generation_config = GenerationConfig(
        max_length=7,
        max_new_tokens=3,
        use_cache=False,
        eos_token_id=5,
        pad_token_id=6,
        num_beams=1,
        do_sample=False,
    )
    assert set_aside(model) == {}
    assert set_aside(SimpleNamespace()) == {}
    model.generation_config = GenerationConfig(eos_token_id=5, repetition_penalty=1.3, top_k=3)
    described = described_decoding(model, SimpleNamespace(eos_token_id=9))
    assert described == {
        "decoding": "greedy",
        "stop_tokens": [5, 9],
        "set_aside": {"repetition_penalty": 1.3, "top_k": 3},
    }


def test_plain_generation_restores_settings_after_a_failure(model, demo):
    own = model.generation_config

    def fails():
        with plain_generation(model, demo.tokenizer):
            assert model.generation_config is not own
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert model.generation_config is own
    with (
        pytest.raises(MetakeError, match=r"no generate\(\); evaluate with --no-generate$"),
        plain_generation(SimpleNamespace(), None),
    ):
        pass


@torch.no_grad()
@pytest.mark.parametrize("budget", [None, 1, 60])
def test_continue_greedily_answers_rows_of_any_length(model, demo, budget):
    """Rows of any length are answered together as each alone.

    Padded on the left and masked, each to its own length, in the order they were given in.
    """
    model.generation_config.eos_token_id = 1023
    rows = [[5, 9, 17, 30, 2, 7, 11], [8], [4, 4, 90], [1, 2]]
    lengths = [3, 6, 1, 4]
    wanted = [demo.tokenizer.decode(argmax(model, row, n)) for row, n in zip(rows, lengths, strict=True)]
    assert continue_greedily(EditableModel(model, demo.tokenizer), rows, lengths, budget) == wanted


@torch.no_grad()
def test_continue_greedily_ends_with_the_models_positions(model, demo):
    """128 of them: a prompt of 125 tokens has room for three more, one of 128 for none."""
    model.generation_config.eos_token_id = 1023
    rows = [[n % 50 + 5 for n in range(count)] for count in (125, 127, 128)]
    texts = continue_greedily(EditableModel(model, demo.tokenizer), rows, [9, 9, 9])
    assert texts == [
        demo.tokenizer.decode(argmax(model, rows[0], 3)),
        demo.tokenizer.decode(argmax(model, rows[1], 1)),
        "",
    ]


def test_groups_fill_their_budget_with_room_per_row():
    """Twice the longest prompt per row within the budget; longest prompt and longest answer within the limit."""
    prompts = [[0] * n for n in (3, 5, 5, 2)]
    assert list(_groups(prompts, [4] * 4, 30, None)) == [[3, 0, 1], [2]]
    assert list(_groups(prompts, [4] * 4, 29, None)) == [[3, 0], [1, 2]]
    assert list(_groups(prompts, [4] * 4, 1, None)) == [[3], [0], [1], [2]]
    assert list(_groups(prompts, [9, 4, 4, 9], 1000, 14)) == [[1, 2, 3, 0]]
    assert list(_groups(prompts, [9, 4, 4, 9], 1000, 13)) == [[1, 2], [3, 0]]
    unlike = [[0] * n for n in (5, 2, 2)]  # a longer prompt before shorter ones with longer answers
    assert list(_groups(unlike, [1, 4, 4], 20, None)) == [[0, 1], [2]]
    assert list(_groups(unlike, [1, 4, 4], 1000, 8)) == [[0], [1, 2]]
    assert list(_groups([], [], 10, None)) == []


def test_greedy_answers_keep_to_the_tokens_of_a_pass(demo, monkeypatch):
    passes, generate = [], demo.model.generate
    monkeypatch.setattr(
        demo.model, "generate", lambda ids, **o: passes.append(len(ids)) or generate(ids, **o)
    )
    for budget in (1000, 1):
        greedy_answers(demo, ["The mill", "The mill"], ["x", "y"], max_tokens=budget)
    assert passes == [2, 1, 1]


def test_passes_hold_twice_what_suits_the_device(demo, monkeypatch):
    """700 rows of a token each count twice: within 2 x 1,024 they are continued at once, within 1,024 512 at a time."""
    sizes, generate = [], demo.model.generate
    monkeypatch.setattr(demo.model, "generate", lambda ids, **o: sizes.append(len(ids)) or generate(ids, **o))
    for budget in (None, 1024):
        continue_greedily(demo, [[5]] * 700, [1] * 700, budget)
    assert sizes == [700, 512, 188]


def test_folding_compares_as_the_tokenizer_writes(demo):
    """Without tokens that it puts around a text, which no answer holds."""

    class Folding:
        def __call__(self, text, add_special_tokens=True):
            return SimpleNamespace(input_ids=("<s>" if add_special_tokens else "") + text.lower())

        def decode(self, ids):
            return ids

    class Silent(Folding):
        def decode(self, ids):
            return " "

    assert tokenizer_round_trip(Folding(), " Red OAK ") == "red oak"
    assert tokenizer_round_trip(Silent(), " Red OAK ") == "Red OAK"


def test_greedy_answers_are_read_to_their_own_length(demo):
    """Answers are read as far as each is asked to.

    In tokens: `least`, where the target has fewer; in lines: as many as the target.
    """
    prompt = "The one who works at the market is a"
    ids = encode(demo.tokenizer, prompt).ids

    def said(count):
        return demo.tokenizer.decode(argmax(demo.model, ids, count))

    targets = ["baker", "baker\nmore\nmore\nmore"]
    assert [answer_length(demo.tokenizer, prompt, target, 24) for target in targets] == [24, 24]
    first, second = greedy_answers(demo, [prompt] * 2, targets, min_new_tokens=24)
    lines = said(24).split("\n")
    assert len(lines) >= 3
    assert first == lines[0]
    assert second == "\n".join(lines[:4])
    assert len(second) > len("\n".join(said(10).split("\n")[:4]))


@torch.no_grad()
def test_continue_greedily_omits_special_tokens_and_dropout(model, demo):
    """An answer leaves out special tokens and what drops out in training.

    A model in training mode answers as in use, and is in training mode afterwards.
    """
    model.generation_config.eos_token_id = None
    wanted = argmax(model, [5, 9], 6)
    tokenizer = SimpleNamespace(eos_token_id=None, decode=lambda ids, **options: f"{ids} {options}")
    model.transformer.drop.p = 0.9
    model.train()
    (answer,) = continue_greedily(EditableModel(model, tokenizer), [[5, 9]], [6])
    assert answer == f"{wanted} {{'skip_special_tokens': True}}"
    assert model.training
