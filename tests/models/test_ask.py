"""Questions to a model: greedy answers, as many as there are questions."""

import pytest
import torch

from metake.errors import MetakeError
from metake.models.architecture import Architecture
from metake.models.load import EditableModel, load
from metake.models.tokens import encode
from metake.words import Cut

PROMPT = "The one who works at the market is a"


def argmax_text(loaded, prompt, count):
    """`count` most likely tokens after a prompt, one pass each."""
    ids = list(encode(loaded.tokenizer, prompt).ids)
    begin = len(ids)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(loaded.model(torch.tensor([ids])).logits[0, -1].argmax()))
    return loaded.tokenizer.decode(ids[begin:])


def test_an_answer_is_the_argmax_of_every_step_up_to_the_line_end(demo):
    text = argmax_text(demo, PROMPT, 12)
    assert "\n" in text.strip()
    assert demo.ask(PROMPT) == text.split("\n")[0].strip() != ""


def test_max_new_tokens_bounds_the_answer(demo):
    assert demo.ask(PROMPT, max_new_tokens=1) == argmax_text(demo, PROMPT, 1).strip()


def test_an_answer_is_cut_unless_a_line_or_the_text_ends_within_its_length(demo):
    assert isinstance(demo.ask(PROMPT, max_new_tokens=1), Cut)
    assert not isinstance(demo.ask(PROMPT), Cut)  # its line ends


def test_several_questions_have_as_many_answers_in_their_order(demo):
    short = "Which city was Nezan Girok born in?"
    assert demo.ask([PROMPT, short]) == [demo.ask(PROMPT), demo.ask(short)]
    assert demo.ask(iter([short])) == [demo.ask(short)]


def test_a_conversation_is_framed_and_its_whole_turn_is_the_answer(talking):
    """The question stands in the template, and line ends do not cut the answer."""
    loaded = load(str(talking), device="cpu", chat=True)
    text = argmax_text(loaded, "Who works at the mill?", 30)  # `encode` frames the prompt
    assert loaded.ask("Who works at the mill?", max_new_tokens=30) == text.strip()
    assert "\n" in text.strip()
    assert (
        repr(loaded) == f"<EditableModel: {loaded.name}, gpt2, {len(loaded.arch)} layers, in conversations>"
    )


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
            "ask: question 'half \\ud83d' holds half of a surrogate pair; write the whole character",
        ),
    ],
)
def test_what_is_no_question_is_refused_in_one_line(demo, questions, line):
    with pytest.raises(MetakeError) as error:
        demo.ask(questions)
    assert str(error.value) == line


@pytest.mark.parametrize("count", [0, -3, 2.5, "many", True, None])
def test_a_wrong_length_is_refused(demo, count):
    with pytest.raises(MetakeError, match=r"^ask: max_new_tokens must be a whole number from 1 on, got"):
        demo.ask(PROMPT, max_new_tokens=count)


def test_a_question_that_fills_the_model_is_refused(demo):
    with pytest.raises(
        MetakeError, match=r"^ask: a question of \d+ tokens; the model takes \d+ with the answer$"
    ):
        demo.ask("mill " * 2000)


def test_a_model_that_cannot_generate_is_refused(demo):
    class Bare(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.transformer, self.lm_head, self.config = model.transformer, model.lm_head, model.config
            self.get_input_embeddings = model.get_input_embeddings

        def forward(self, input_ids, **_):
            return self.lm_head(self.transformer(input_ids)[0])

    bare = Bare(demo.model)
    with pytest.raises(MetakeError, match="the model has no generate"):
        EditableModel("bare", bare, demo.tokenizer, Architecture(bare)).ask(PROMPT)


def test_asking_inside_inference_mode_works(demo):
    with torch.inference_mode():
        assert demo.ask(PROMPT)
