"""The lookup token and the answer's tokens, whatever the vocabulary."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metake.errors import MetakeError
from metake.models.load import ASSETS
from metake.models.tokens import encode
from metake.requests import Request


@pytest.fixture(scope="module", params=["demo", "demo-llama"])
def tokenizer(request):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ASSETS / request.param)


def test_answer_and_lookup(tokenizer):
    text, subject = "Which city was Nezan Girok born in?", "Nezan Girok"
    at = text.index(subject)
    row = encode(tokenizer, text, "Red Oak", (at, at + len(subject)))
    assert tokenizer.decode(row.answer_ids) == " Red Oak"
    assert tokenizer.decode(row.trunk.ids, skip_special_tokens=True) == "Which city was Nezan Girok"
    assert list(row.predicting) == list(range(len(row) - row.answer - 1, len(row) - 1))


def test_bos_is_kept_where_the_tokenizer_adds_it(tokenizer):
    row = encode(tokenizer, "a", "b")
    assert (row.ids[0] == tokenizer.bos_token_id) == bool(tokenizer("").input_ids)


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(before=words, subject=words, after=words, answer=words)
def test_any_text_is_cut_at_the_right_places(before, subject, after, answer):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "demo")
    text = f"{before} {subject} {after}"
    start = len(before) + 1
    row = encode(tokenizer, text, answer, (start, start + len(subject)))
    assert tokenizer.decode(row.answer_ids).strip() == answer
    trunk = tokenizer.decode(row.trunk.ids)
    assert trunk.rstrip("�").startswith(f"{before} {subject}"[: len(trunk.rstrip("�"))])
    assert len(trunk) >= len(before) + 1


@settings(max_examples=60, deadline=None)
@given(subject=words, target=words, braces=st.sampled_from(["", "{x} ", "{} ", "{{}} ", "} {"]))
def test_a_request_from_text_fills_to_the_same_text(subject, target, braces):
    text = f"{braces}Where does {subject} live?"
    request = Request.from_text(text, subject, target)
    assert request.text == text
    assert request.target == target.strip()


def test_a_slow_tokenizer_is_refused():
    def slow(text, **options):
        raise NotImplementedError

    with pytest.raises(MetakeError, match="fast"):
        encode(slow, "a", "b")


def test_a_token_that_straddles_prompt_and_answer_belongs_to_the_answer():
    """Some vocabularies join the prompt's end, the space and the answer's beginning in one token."""

    class Joining:
        all_special_ids = ()

        def __call__(self, text, **_):
            assert text == "It is: 7 up"
            return {"input_ids": [1, 2, 3, 4], "offset_mapping": [(0, 2), (2, 5), (5, 8), (8, 11)]}

    row = encode(Joining(), "It is:", "7 up")
    assert row.answer_ids == (3, 4)  # the third spans ": 7"
    assert row.lookup == 1
    assert list(row.predicting) == [1, 2]
