"""The lookup token and the answer's tokens, whatever the vocabulary."""

import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metake.answers import compare_answers
from metake.errors import MetakeError
from metake.geometry.covariance import collect
from metake.models.editable import EditableModel
from metake.models.greedy import continue_greedily
from metake.models.tokens import count_tokens, encode
from metake.models.trace import run
from metake.prompts import Batch
from metake.requests import EditRequest
from metake.shipped import ASSETS
from tests.cases import tiny


@pytest.fixture(scope="module", params=["demo", "demo-llama"])
def tokenizer(request):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ASSETS / request.param)


def test_row_has_answer_and_lookup(tokenizer):
    text, subject = "Which city was Nezan Girok born in?", "Nezan Girok"
    at = text.index(subject)
    row = encode(tokenizer, text, "Red Oak", (at, at + len(subject)))
    assert tokenizer.decode(row.answer_ids) == " Red Oak"
    assert tokenizer.decode(row.up_to_lookup.ids, skip_special_tokens=True) == "Which city was Nezan Girok"
    assert list(row.predicting) == list(range(len(row) - row.answer - 1, len(row) - 1))


def test_row_keeps_bos_where_the_tokenizer_adds_it(tokenizer):
    row = encode(tokenizer, "a", "b")
    assert (row.ids[0] == tokenizer.bos_token_id) == bool(tokenizer("").input_ids)


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(before=words, subject=words, after=words, answer=words)
def test_row_is_cut_at_the_right_places_for_any_text(before, subject, after, answer):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "demo")
    text = f"{before} {subject} {after}"
    start = len(before) + 1
    row = encode(tokenizer, text, answer, (start, start + len(subject)))
    assert tokenizer.decode(row.answer_ids).strip() == answer
    prefix = tokenizer.decode(row.up_to_lookup.ids)
    assert prefix.rstrip("�").startswith(f"{before} {subject}"[: len(prefix.rstrip("�"))])
    assert len(prefix) >= len(before) + 1


@settings(max_examples=60, deadline=None)
@given(subject=words, target=words, braces=st.sampled_from(["", "{x} ", "{} ", "{{}} ", "} {"]))
def test_edit_request_from_text_fills_to_equal_text(subject, target, braces):
    text = f"{braces}Where does {subject} live?"
    request = EditRequest.from_text(text, subject, target)
    assert request.text == text
    assert request.target_new == target.strip()


@pytest.mark.parametrize("answer", [NotImplementedError, {"input_ids": [1, 2]}])
def test_encode_refuses_a_tokenizer_without_offsets(answer):
    """Whether it says so or leaves them out."""

    class Slow:
        unk_token = unk_token_id = None

        def __call__(self, text, **options):
            if isinstance(answer, type):
                raise answer
            return answer

    for attempt in (lambda: encode(Slow(), "a", "b"), lambda: count_tokens(Slow(), ["a"])):
        with pytest.raises(MetakeError, match="a fast one is needed"):
            attempt()


class Cut:
    """A tokenizer that cuts a text at given characters."""

    all_special_ids = ()

    def __init__(self, cuts):
        self.cuts = cuts

    def __call__(self, text, **_):
        edges = [0, *sorted(cut for cut in set(self.cuts) if 0 < cut < len(text)), len(text)]
        spans = list(pairwise(edges))
        return {"input_ids": list(range(len(spans))), "offset_mapping": spans}


@given(
    before=st.integers(1, 6),
    subject=st.integers(1, 8),
    after=st.integers(1, 6),
    cuts=st.sets(st.integers(1, 20)),
)
def test_lookup_token_ends_with_the_subject_where_it_can(before, subject, after, cuts):
    """`(APA-56)?` may end in the token `)?`, whose key is that of a question mark."""
    start, end = before, before + subject
    row = encode(Cut(cuts), "x" * (end + after), subject=(start, end))
    spans = Cut(cuts)("x" * (end + after))["offset_mapping"]
    inside = [i for i, (begin, stop) in enumerate(spans) if start <= begin and stop <= end]
    holding = [i for i, (begin, stop) in enumerate(spans) if begin < end <= stop]
    assert [row.lookup] == (inside[-1:] or holding)


@pytest.mark.parametrize(
    ("spans", "lookup"),
    [
        ([(0, 1), (1, 4), (4, 6), (6, 8)], 1),  # the subject is [1, 5): "(4, 6)" goes on after it
        ([(0, 1), (1, 5), (5, 6), (6, 8)], 1),
        ([(0, 1), (1, 6), (6, 8)], 1),  # there is no other token
        ([(0, 3), (3, 6), (6, 8)], 1),  # the one before begins before the subject
    ],
)
def test_lookup_token_of_a_subject_whose_end_is_joined(spans, lookup):
    row = encode(Cut([begin for begin, _ in spans]), "x" * 8, subject=(1, 5))
    assert row.lookup == lookup


def test_row_counts_a_straddling_token_to_the_answer():
    """A token that straddles prompt and answer belongs to the answer.

    Some vocabularies join the prompt's end, the space and the answer's beginning in one token.
    """

    class Joining:
        all_special_ids = ()

        def __call__(self, text, **_):
            assert text == "It is: 7 up"
            return {"input_ids": [1, 2, 3, 4], "offset_mapping": [(0, 2), (2, 5), (5, 8), (8, 11)]}

    row = encode(Joining(), "It is:", "7 up")
    assert row.answer_ids == (3, 4)  # the third spans ": 7"
    assert row.lookup == 1
    assert list(row.predicting) == [1, 2]


@pytest.mark.parametrize("ends", [1, 2])
def test_row_drops_special_tokens_after_the_text(ends):
    """A prompt is continued, so the end that a tokenizer appends is cut off."""

    class Ending:
        all_special_ids = (9,)

        def __call__(self, text, **_):
            assert text == "It is: 7 up"
            spans = [(0, 2), (2, 6), (6, 8), (8, 11)]
            return {"input_ids": [1, 2, 3, 4] + [9] * ends, "offset_mapping": spans + [(0, 0)] * ends}

    row = encode(Ending(), "It is:", "7 up", subject=(0, 2))
    assert (row.ids, row.answer_ids, row.lookup) == ((1, 2, 3, 4), (3, 4), 0)


def small(model, *, unknown="<unk>", normalizer=None):
    """A tokenizer made of a model of the `tokenizers` library."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    if normalizer is not None:
        made.normalizer = normalizer
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token=unknown)


def letters(unknown="<unk>", normalizer=None):
    """A vocabulary of small Latin letters."""
    from tokenizers.models import BPE

    vocabulary = {token: i for i, token in enumerate(["<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz<>é"])}
    return small(BPE(vocabulary, [], unk_token=unknown), unknown=unknown, normalizer=normalizer)


@pytest.mark.parametrize("unknown", ["<unk>", None])
@pytest.mark.parametrize("text", ["東京", "in 東京 now", "Ada"])
def test_count_tokens_names_characters_without_tokens(unknown, text):
    """Whether they become the unknown token or nothing."""
    # without an unknown token, the library's spans after a dropped character are those of the one before
    lost = "'(東京|A)'" if unknown else "'.+'"
    with pytest.raises(MetakeError, match=rf"has no tokens for {lost} of '{text}'") as raised:
        count_tokens(letters(unknown), ["plain text", text])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["abc", "a b", "a\u200bb", "<unk>", "e\u0301", ""])
def test_count_tokens_counts_encodable_texts(text):
    """What a vocabulary can encode is counted."""
    from tokenizers import normalizers

    (count,) = count_tokens(letters(normalizer=normalizers.NFC()), [text.replace("\u200b", "")])
    assert (count > 0) is bool(text)


def test_batch_build_refuses_an_unencodable_request(demo):
    """A request that cannot be encoded is refused by name."""
    for request in (
        EditRequest("{} lives in", "ada", "東京"),
        EditRequest("in 東京 {} is", "ada", "b"),
        EditRequest("{} is", "東京", "b"),
        EditRequest("{} is", "ada", "b", locality_prompts=("大阪",)),
    ):
        with pytest.raises(MetakeError, match=r"^(ada|東京): the tokenizer has no tokens for '(東京|大阪)'"):
            Batch.build(demo.with_tokenizer(letters()), [request], ())


def test_compare_answers_uses_the_tokenizers_form():
    """Lower case and NFC: no answer could ever hold the target as it was written."""
    from tokenizers import normalizers

    tokenizer = letters(normalizer=normalizers.Sequence([normalizers.Lowercase(), normalizers.NFC()]))
    targets, after = ["Cafe\u0301", "Caf\u00e9"], ["caf\u00e9 noir", "cafe"]
    answers = compare_answers(tokenizer, ["", ""], targets, ["", ""], after)
    assert [answer.success for answer in answers] == [True, False]


def test_check_ids_refuses_tokens_outside_the_vocabulary(demo):
    """Tokens that the model lacks are refused before a pass.

    In every reading of a text: a request, an answer, statistics, a plain pass; the last of its tokens is taken.
    """
    tokenizer, network = copy.deepcopy(demo.tokenizer), tiny("gpt2")
    model = EditableModel(network, tokenizer)
    tokenizer.add_tokens(["Zoë"])
    request = EditRequest("{} lives in", "Zoë", "Oslo")
    row = encode(tokenizer, request.text).ids
    assert max(row) == len(tokenizer) - 1
    attempts = (
        lambda: Batch.build(model, [request], ()),
        lambda: continue_greedily(model, [row], [4]),
        lambda: run(model, torch.tensor([row])),
        lambda: collect(model, tokenizer, "Zoë lives in " * 400, (1,), progress=False),
    )
    network.resize_token_embeddings(max(row))
    for attempt in attempts:
        with pytest.raises(
            MetakeError, match=f"token {max(row)} is outside the model's vocabulary of {max(row)}; give"
        ):
            attempt()
    network.resize_token_embeddings(max(row) + 1)
    for attempt in attempts:
        attempt()
