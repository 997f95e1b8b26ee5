"""Questions to a model: greedy answers, as many as there are questions."""

import pytest
import torch

from metake.errors import MetakeError
from metake.models.editable import EditableModel
from metake.models.load import load
from metake.models.tokens import encode
from metake.words import TruncatedStr

PROMPT = "The one who works at the market is a"


def argmax_text(model, prompt, count):
    """`count` most likely tokens after a prompt, one pass each."""
    ids = list(encode(model.tokenizer, prompt).ids)
    begin = len(ids)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model.model(torch.tensor([ids])).logits[0, -1].argmax()))
    return model.tokenizer.decode(ids[begin:])


def test_ask_equals_argmax_up_to_the_line_end(demo):
    """An answer is the argmax of every step up to the line end."""
    text = argmax_text(demo, PROMPT, 12)
    assert "\n" in text.strip()
    assert demo.ask(PROMPT) == text.split("\n")[0].strip() != ""


def test_ask_bounds_the_answer_by_max_new_tokens(demo):
    assert demo.ask(PROMPT, max_new_tokens=1) == argmax_text(demo, PROMPT, 1).strip()


def test_ask_marks_cut_answers(demo):
    """An answer is cut unless a line or the text ends within its length."""
    assert isinstance(demo.ask(PROMPT, max_new_tokens=1), TruncatedStr)
    assert not isinstance(demo.ask(PROMPT), TruncatedStr)  # its line ends


def test_ask_answers_several_questions_in_order(demo):
    """Several questions have as many answers in their order."""
    short = "Which city was Nezan Girok born in?"
    assert demo.ask([PROMPT, short]) == [demo.ask(PROMPT), demo.ask(short)]
    assert demo.ask(iter([short])) == [demo.ask(short)]


def test_ask_in_a_conversation_returns_the_whole_turn(talking):
    """A conversation is framed and its whole turn is the answer.

    The question stands in the template, and line ends do not cut the answer.
    """
    model = load(str(talking), device="cpu", chat=True)
    text = argmax_text(model, "Who works at the mill?", 30)  # `encode` frames the prompt
    assert model.ask("Who works at the mill?", max_new_tokens=30) == text.strip()
    assert "\n" in text.strip()
    assert repr(model) == f"<EditableModel: {model.name}, gpt2, {len(model)} layers, chat template>"


@pytest.mark.parametrize(
    ("questions", "line"),
    [
        (7, "ask: question must be a text or a list of texts, not int"),
        (None, "ask: question must be a text or a list of texts, not NoneType"),
        ({"a": "b"}, "ask: question must be a text or a list of texts, not dict"),
        (b"text", "ask: question must be a text or a list of texts, not bytes"),
        ([], "ask: no question given"),
        (" ", "ask: question is empty; give it a text"),
        (["fine", 3], "ask: question must be a text, not int"),
        (
            "half \ud83d",
            "ask: question 'half \\ud83d' contains a lone surrogate; write the whole character",
        ),
    ],
)
def test_ask_refuses_what_is_no_question(demo, questions, line):
    with pytest.raises(MetakeError) as error:
        demo.ask(questions)
    assert str(error.value) == line


@pytest.mark.parametrize("count", [0, -3, 2.5, "many", True, None])
def test_ask_refuses_a_wrong_length(demo, count):
    with pytest.raises(MetakeError, match=r"^ask: max_new_tokens must be a whole number from 1 on, got"):
        demo.ask(PROMPT, max_new_tokens=count)


def test_ask_refuses_a_question_that_fills_the_model(demo):
    with pytest.raises(
        MetakeError, match=r"^ask: a question of \d+ tokens; the model takes \d+ with the answer$"
    ):
        demo.ask("mill " * 2000)


def test_ask_refuses_a_model_that_cannot_generate(demo):
    class Bare(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.transformer, self.lm_head, self.config = model.transformer, model.lm_head, model.config
            self.get_input_embeddings = model.get_input_embeddings

        def forward(self, input_ids, **_):
            return self.lm_head(self.transformer(input_ids)[0])

    bare = Bare(demo.model)
    with pytest.raises(MetakeError, match="the model has no generate"):
        EditableModel(bare, demo.tokenizer, name="bare").ask(PROMPT)


def test_ask_works_inside_inference_mode(demo):
    with torch.inference_mode():
        assert demo.ask(PROMPT)
