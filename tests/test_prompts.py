"""The rows of a batch, the tokens in them that matter, and the texts before them."""

from types import SimpleNamespace

import pytest
import torch

from metake import prompts
from metake.components import find_kind
from metake.errors import MetakeError
from metake.lookup_prompts import LookupPrompts, pick_tokens
from metake.models.tokens import Row
from metake.prompts import SEEDS, Batch, sample_contexts, templates
from metake.requests import EditRequest

REQUEST = EditRequest("Which city was {} born in?", "Ann Lee", "Oslo")
OTHER = EditRequest(
    "What is the craft of {}?", "Bo", "potter", locality_prompts=("Who is it?", "Where is the old mill?")
)
CONTEXTS = ("The mill is dark", "Today it rains and rains")


@pytest.fixture
def batch_of(model):
    def build(*requests, contexts=CONTEXTS, lookup="subject", model=model):
        return Batch.build(model, requests, contexts, lookup)

    return build


def text_of(model, ids):
    return model.tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("lookup", ["subject", "prompt"])
def test_lookup_token_ends_subject_or_prompt(model, lookup):
    """The lookup token ends what it is named after.

    In every template: up to it stands all of the subject, or all of the prompt, and nothing more.
    """
    batch = Batch.build(model, [REQUEST], ("The mill is dark",), lookup)
    for row in batch.edits:
        text = model.tokenizer.decode(row.up_to_lookup.ids, skip_special_tokens=True)
        assert text.endswith("Ann Lee" if lookup == "subject" else "born in?")
        assert model.tokenizer.decode(row.answer_ids).strip() == "Oslo"


def test_kl_prompt_about_the_subject_takes_shifts_there_alone(model):
    """A KL prompt about the subject has only the residual that is written there."""
    for lookup, has_residual in (("subject", True), ("prompt", False)):
        batch = Batch.build(model, [REQUEST], (), lookup)
        assert [prompt.has_residual for prompt in batch.kl_prompts] == [has_residual]


def test_batch_has_a_row_per_context_bare_first(model, batch_of):
    """`{context}. {prompt}`, request after request."""
    batch = batch_of(REQUEST, OTHER)
    assert batch.templates == 3
    before = ["", "The mill is dark. ", "Today it rains and rains. "]
    asked = ["Which city was Ann Lee born in? Oslo", "What is the craft of Bo? potter"]
    assert [text_of(model, row.ids) for row in batch.edits] == [b + a for a in asked for b in before]


def test_kl_prompts_are_of_subject_and_request(model, batch_of):
    """KL prompts are what the subject is and the request's own prompts.

    ROME's `{} is a`, watched at the subject's last token and not at its end; others at their last token.
    """
    kl_prompts = batch_of(REQUEST, OTHER).kl_prompts
    assert [(prompt.owner, prompt.has_residual) for prompt in kl_prompts] == [
        (0, True),
        (1, True),
        (1, False),
        (1, False),
    ]
    assert [text_of(model, prompt.row.ids) for prompt in kl_prompts] == [
        "Ann Lee is a",
        "Bo is a",
        "Who is it?",
        "Where is the old mill?",
    ]
    assert [text_of(model, prompt.row.up_to_lookup.ids) for prompt in kl_prompts] == [
        "Ann Lee",
        "Bo",
        "Who is it?",
        "Where is the old mill?",
    ]
    assert all(prompt.row.answer == 0 for prompt in kl_prompts)


def test_templates_end_a_context_with_one_full_stop():
    assert templates(("It rains", "It rains. ", "So..")) == ("{}", "It rains. {}", "It rains. {}", "So. {}")
    assert templates(()) == ("{}",)


def test_subjects_number_requests(batch_of):
    again = EditRequest("Where is {}?", "Ann Lee", "Rome")
    assert batch_of(REQUEST, OTHER, again, contexts=()).subjects.tolist() == [0, 1, 0]


def test_prefix_lengths_are_tokens_shared_by_a_template(model, batch_of):
    """Rows of a template share their context and the bare one nothing.

    As many tokens as all prompts of the template begin with; of one request alone nothing is shared.
    """
    batch = batch_of(REQUEST, OTHER)
    assert batch_of(REQUEST).prefix_lengths == (0, 0, 0)
    assert batch.prefix_lengths[0] == 0
    for template in (1, 2):
        rows = [row.ids[: row.lookup] for row in batch.edits[template::3]]
        count = batch.prefix_lengths[template]
        assert rows[0][:count] == rows[1][:count]
        assert rows[0][count] != rows[1][count]
        assert text_of(model, rows[0][:count]).startswith(CONTEXTS[template - 1])


def test_batch_fills_the_last_gap_of_a_context(model, batch_of):
    """A request stands in the last gap of its context.

    A context that a user gives may hold braces of its own; the lookup token is still the subject's.
    """
    row = batch_of(REQUEST, contexts=("{} is a gap",)).edits[1]
    assert text_of(model, row.ids) == "{} is a gap. Which city was Ann Lee born in? Oslo"
    assert text_of(model, row.up_to_lookup.ids) == "{} is a gap. Which city was Ann Lee"


def test_batch_refuses_a_target_without_tokens(batch_of, monkeypatch):
    monkeypatch.setattr(prompts, "encode", lambda *_: Row((5, 9), 1, 0))
    with pytest.raises(MetakeError, match=r"^Ann Lee: target 'Oslo' has no tokens$"):
        batch_of(REQUEST)


def test_batch_refuses_an_unencodable_text(batch_of, monkeypatch):
    """A text that cannot be encoded is refused by its request.

    Prompt, target and every prompt whose prediction shall stay are looked at, before any is tokenized.
    """

    def refuses(tokenizer, texts):
        assert texts == [OTHER.text, "potter", "Who is it?", "Where is the old mill?"]
        raise MetakeError("no tokens")

    monkeypatch.setattr(prompts, "count_tokens", refuses)
    with pytest.raises(MetakeError, match=r"^Bo: no tokens$"):
        batch_of(OTHER)


def test_batch_refuses_no_requests(batch_of):
    with pytest.raises(MetakeError, match=r"^requests: none given$"):
        batch_of()


def test_batch_takes_prompts_up_to_the_models_length(model, batch_of):
    """A prompt may be as long as the model takes and no longer."""

    def limited(limit):
        return SimpleNamespace(
            max_positions=limit, check_tokens=model.check_tokens, tokenizer=model.tokenizer
        )

    longest = max(len(row) for row in batch_of(REQUEST).edits)
    assert batch_of(REQUEST, model=limited(longest)).templates == 3
    assert batch_of(REQUEST, model=limited(None)).templates == 3
    with pytest.raises(
        MetakeError, match=f"Ann Lee: {longest} tokens with its context, the model takes {longest - 1}"
    ):
        batch_of(REQUEST, model=limited(longest - 1))


@pytest.mark.parametrize("lookup", ["subject", "prompt"])
def test_lookup_states_equal_hooks_of_plain_passes(model, batch_of, lookup):
    """Prefixes have the stream and the lookup token of every row.

    Against hooks in one plain pass per row: the stream before the first edited block, at the lookup token.
    """
    batch = batch_of(REQUEST, OTHER, lookup=lookup)
    prompts = LookupPrompts.build(model, batch, 2)
    assert (prompts.start, prompts.templates) == (2, 3)
    found = prompts.at_lookup(prompts.hidden.suffix)
    for i, row in enumerate(batch.edits):
        seen = []
        with (
            torch.no_grad(),
            model.blocks[1].register_forward_hook(lambda _, __, y, seen=seen: seen.append(y)),
        ):
            model.model(torch.tensor([row.ids]))
        stream = seen[0] if isinstance(seen[0], torch.Tensor) else seen[0][0]
        torch.testing.assert_close(found[i], stream[0, row.lookup], rtol=1e-4, atol=1e-5)
    ids, last, below = prompts.bare_rows(prompts.hidden)
    for i, row in enumerate(batch.edits[::3]):
        assert tuple(ids[i, : row.lookup + 1].tolist()) == row.ids[: row.lookup + 1]
        assert int(last[i]) == row.lookup
        torch.testing.assert_close(below[i, row.lookup], found[3 * i])
    assert ids.shape[1] == below.shape[1] == max(row.lookup for row in batch.edits[::3]) + 1


def test_lookup_rows_end_at_the_lookup_token(model, batch_of):
    """Bare rows end at the lookup token where rows with contexts are longer."""
    batch = batch_of(REQUEST)
    ids, last, below = LookupPrompts.build(model, batch, 1).bare_rows(
        LookupPrompts.build(model, batch, 1).hidden
    )
    assert tuple(ids[0].tolist()) == batch.lookup_rows[0].ids
    assert ids.shape[1] == below.shape[1] == int(last) + 1


def prompts_of(count, estimator="bare-and-contexts"):
    """Only what means over a request's rows need."""
    made = find_kind("keys", estimator)()
    return LookupPrompts(
        tokens=None, last=torch.zeros(2 * count), hidden=None, start=0, templates=count, estimator=made
    )


def test_mean_key_is_half_bare_and_half_contexts():
    """MEMIT's average of averages, and not the mean over all rows; rows of a request stand together."""
    keys = torch.tensor([[6.0], [0.0], [3.0], [0.0], [2.0], [8.0]])
    assert prompts_of(3).mean_key(keys).tolist() == [[3.75], [2.5]]
    assert prompts_of(1).mean_key(keys).tolist() == keys.tolist()
    assert prompts_of(3).bare(keys).tolist() == [[6.0], [0.0]]


@pytest.mark.parametrize("estimator", ["context-mean", "rome"])
def test_context_mean_is_the_mean_over_all_rows(estimator):
    """A key of another estimator is the mean over all rows."""
    keys = torch.tensor([[6.0], [0.0], [3.0], [0.0], [2.0], [8.0]])
    assert prompts_of(3, estimator).mean_key(keys).tolist() == [[3.0], [pytest.approx(10 / 3)]]
    assert prompts_of(1, estimator).mean_key(keys).tolist() == keys.tolist()
    assert prompts_of(3, estimator).bare(keys).tolist() == [[6.0], [0.0]]


def test_key_consistency_is_cosine_of_bare_and_contexts():
    """Consistency is the cosine of a bare key with its contexts' mean."""
    keys = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 1.0], [3.0, 0.0], [5.0, 0.0]])
    torch.testing.assert_close(prompts_of(3).key_cosine(keys), torch.tensor([0.5**0.5, 0.0]))
    assert prompts_of(1).key_cosine(keys).tolist() == [1.0] * 6


def test_pick_tokens_picks_one_position_per_row():
    stream = torch.arange(12.0).reshape(2, 3, 2)
    assert pick_tokens(torch.tensor([2, 0]), stream).tolist() == [[4.0, 5.0], [6.0, 7.0]]


@torch.no_grad()
@pytest.mark.parametrize(("length", "seed"), [(10, 0), (6, 3)])
def test_sample_contexts_draws_from_five_likeliest_tokens(model, length, seed):
    """Contexts are sampled from the five likeliest tokens after each seed word.

    Against a plain loop: MEMIT's five words, each continued to so many tokens in all, one seeded generator.
    """
    generator, texts = torch.Generator().manual_seed(seed), []
    for word in ("The", "Therefore", "Because", "I", "You"):
        ids = model.tokenizer(word).input_ids
        while len(ids) < length:
            scores = model.model(torch.tensor([ids])).logits[0, -1]
            five = scores.topk(5)
            ids.append(int(five.indices[torch.multinomial(five.values.softmax(0), 1, generator=generator)]))
        texts.append(" ".join(text_of(model, ids).split()))
    state = torch.random.get_rng_state()
    assert sample_contexts(model, length=length, seed=seed) == tuple(texts)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [text.split()[0] for text in texts] == list(SEEDS)


def test_sample_contexts_takes_ten_tokens_and_seed_zero(demo):
    default = sample_contexts(demo)
    assert default == sample_contexts(demo, length=10, seed=0)
    assert default != sample_contexts(demo, seed=1)


def test_sample_contexts_escapes_braces(demo, monkeypatch):
    monkeypatch.setattr(type(demo.tokenizer), "decode", lambda *_, **__: " a {b}\n\n c ")
    assert sample_contexts(demo, length=2) == ("a  b  c",) * 5
