"""Greedy answers of a model to questions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from metake.errors import MetakeError
from metake.models.ambient import neutral
from metake.models.chat import PLAIN, frame_of
from metake.models.editable import MAX_NEW_TOKENS, EditableModel
from metake.models.greedy import continue_greedily, first_lines
from metake.models.tokens import encode
from metake.requests import check_texts


def ask(
    model: EditableModel,
    questions: str | Iterable[str],
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> str | list[str]:
    """Greedy answer to a question, or a list of answers to several, stripped of whitespace.

    With a `Chat` tokenizer an answer is the whole turn. After a plain prompt it is the first line only, because the
    model then continues with unrelated text.

    Args:
        model: the model with its tokenizer, or with a `Chat`.
        questions: complete prompts.
        max_new_tokens: maximum number of tokens per answer.

    Returns:
        A string for a string, otherwise a list.

    Raises:
        MetakeError: no question, a question that is not a string or too long, or a model that cannot generate.
    """
    tokenizer = model.tokenizer
    rows = [encode(tokenizer, text).ids for text in check_texts("ask", "question", questions)]
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise MetakeError(f"ask: max_new_tokens must be a whole number from 1 on, got {max_new_tokens!r}")
    check_room(model, rows, "ask")
    with neutral():
        answers = continue_greedily(model, rows, [max_new_tokens] * len(rows))
    if frame_of(tokenizer) == PLAIN:
        answers = [first_lines(answer) for answer in answers]
    answers = [answer.strip() for answer in answers]
    return answers[0] if isinstance(questions, str) else answers


def check_room(model: EditableModel, rows: Sequence[Sequence[int]], what: str) -> None:
    """Refuse token rows after which no position is left for an answer.

    Args:
        model: the model.
        rows: token ids of each prompt.
        what: begins the error line.

    Raises:
        MetakeError: a row is too long.
    """
    limit, longest = model.max_positions, max(map(len, rows))
    if limit is not None and longest >= limit:
        raise MetakeError(f"{what}: a question of {longest} tokens; the model takes {limit} with the answer")
