"""Greedy answers of a model to questions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from metake.errors import MetakeError
from metake.models.ambient import neutral
from metake.models.architecture import Architecture
from metake.models.chat import PLAIN, frame_of
from metake.models.greedy import continue_greedily, first_lines
from metake.models.tokens import encode
from metake.requests import check_texts

MAX_NEW_TOKENS = 40


def ask(
    arch: Architecture,
    tokenizer: Any,
    questions: str | Iterable[str],
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> str | list[str]:
    """Greedy answer to a question, or a list of answers to several, stripped of whitespace.

    With a `Chat` tokenizer an answer is the whole turn. After a plain prompt it is the first line only, because the
    model then continues with unrelated text.

    Args:
        arch: the model.
        tokenizer: its tokenizer, or a `Chat`.
        questions: complete prompts.
        max_new_tokens: maximum number of tokens per answer.

    Returns:
        A string for a string, otherwise a list.

    Raises:
        MetakeError: no question, a question that is not a string or too long, or a model that cannot generate.
    """
    rows = [encode(tokenizer, text).ids for text in check_texts("ask", "question", questions)]
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise MetakeError(f"ask: max_new_tokens must be a whole number from 1 on, got {max_new_tokens!r}")
    check_room(arch, rows, "ask")
    with neutral():
        answers = continue_greedily(arch, tokenizer, rows, [max_new_tokens] * len(rows))
    if frame_of(tokenizer) == PLAIN:
        answers = [first_lines(answer) for answer in answers]
    answers = [answer.strip() for answer in answers]
    return answers[0] if isinstance(questions, str) else answers


def check_room(arch: Architecture, rows: Sequence[Sequence[int]], what: str) -> None:
    """Refuse token rows after which no position is left for an answer.

    Args:
        arch: the model.
        rows: token ids of each prompt.
        what: begins the error line.

    Raises:
        MetakeError: a row is too long.
    """
    limit, longest = arch.max_positions, max(map(len, rows))
    if limit is not None and longest >= limit:
        raise MetakeError(f"{what}: a question of {longest} tokens; the model takes {limit} with the answer")
