"""Tokens that a complete answer ends with."""

import pytest

from metake.errors import MetakeError
from metake.models.chat import Chat
from metake.models.editable import EditableModel
from metake.models.end_token import end_token, ended, ends_of_answer, line_break
from metake.models.greedy import stop_tokens
from metake.models.tokens import encode

TURNS = (
    "{% for m in messages %}<{{ m.role }}>\n{{ m.content }} <|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>\n{% endif %}"
)
NO_END = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


@pytest.fixture
def tokenizer():
    from transformers import AutoTokenizer

    from metake.shipped import ASSETS

    return AutoTokenizer.from_pretrained(ASSETS / "demo")


def with_tokenizer(demo, tokenizer):
    return EditableModel(demo.model, tokenizer)


def test_end_token_of_a_plain_prompt_is_the_end_of_text(demo, tokenizer):
    assert end_token(with_tokenizer(demo, tokenizer)) == tokenizer.eos_token_id


@pytest.mark.parametrize(("template", "token"), [(TURNS, "<|end|>"), (NO_END, "<|endoftext|>")])
def test_end_token_in_a_chat_is_the_end_of_the_turn(demo, tokenizer, template, token):
    """A template that writes no token of its own after the answer leaves the end-of-text token."""
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    tokenizer.chat_template = template
    found = end_token(with_tokenizer(demo, Chat(tokenizer)))
    assert found == tokenizer.convert_tokens_to_ids(token)


def test_generated_answer_in_a_chat_stops_at_the_end_of_the_turn(demo, tokenizer):
    """The token that ends a turn ends an answer, also where tokenizer and model name only the end of a text."""
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    tokenizer.chat_template = TURNS
    model = with_tokenizer(demo, Chat(tokenizer))
    assert end_token(model) != tokenizer.eos_token_id
    assert set(stop_tokens(model.model, model.tokenizer)) == {tokenizer.eos_token_id, end_token(model)}
    assert stop_tokens(model.model, tokenizer) == [tokenizer.eos_token_id]


def test_end_without_an_embedding_is_refused(demo, tokenizer):
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    tokenizer.chat_template = TURNS
    model = with_tokenizer(demo, Chat(tokenizer))
    rows = [encode(tokenizer, "The craft of Ann is", "baker")]
    with pytest.raises(MetakeError, match=r"^tokenizer: token \d+ is outside the model's vocabulary"):
        ended(model, rows, "end-token")


def test_end_token_without_an_end_of_text_token_is_refused(demo, tokenizer):
    tokenizer.eos_token = None
    with pytest.raises(MetakeError, match=r"^end token: the tokenizer has no end-of-text token; set"):
        end_token(with_tokenizer(demo, tokenizer))


def test_line_break_is_the_token_of_a_line_break(model, tokenizer):
    assert model.tokenizer.decode([line_break(model)]) == "\n"


def test_line_break_without_a_token_is_refused(demo, tokenizer, monkeypatch):
    monkeypatch.setattr(type(tokenizer), "decode", lambda *_, **__: " ")
    with pytest.raises(MetakeError, match=r"^line break: the tokenizer has no token for it; set end="):
        line_break(with_tokenizer(demo, tokenizer))


def test_row_ended_has_one_more_token_to_predict(tokenizer):
    row = encode(tokenizer, "The craft of Ann is", "baker")
    ended = row.ended(7)
    assert ended.ids == (*row.ids, 7)
    assert (ended.lookup, ended.answer_ids) == (row.lookup, (*row.answer_ids, 7))
    assert list(ended.predicting) == [*row.predicting, len(row) - 1]


def test_rows_end_as_the_setting_says(model):
    rows = [encode(model.tokenizer, "The craft of Ann is", craft) for craft in ("baker", "smith")]
    assert ended(model, rows, "none") == tuple(rows)
    for end, token in (("end-token", end_token), ("line-break", line_break)):
        assert ended(model, rows, end) == tuple(row.ended(token(model)) for row in rows)


def test_ends_of_a_plain_answer_are_end_tokens_and_line_breaks(model):
    """A first token that decodes to a line break, with or without spaces before it, ends the first line."""
    ends, tokenizer = ends_of_answer(model), model.tokenizer
    assert ends[0] == end_token(model)
    texts = [tokenizer.decode([token]) for token in range(len(tokenizer))]
    breaks = {i for i, text in enumerate(texts) if text.strip(" \t\r").startswith("\n")}
    assert breaks
    assert set(ends) == breaks | set(stop_tokens(model.model, tokenizer))
    assert len(set(ends)) == len(ends)


def test_ends_of_a_turn_are_no_line_breaks(demo, tokenizer):
    tokenizer.chat_template = NO_END
    assert ends_of_answer(with_tokenizer(demo, Chat(tokenizer))) == (tokenizer.eos_token_id,)


def test_ends_without_an_end_of_text_token_are_line_breaks(demo, tokenizer):
    tokenizer.eos_token = None
    demo_ends = stop_tokens(demo.model, tokenizer)
    assert set(ends_of_answer(with_tokenizer(demo, tokenizer))) > set(demo_ends)
