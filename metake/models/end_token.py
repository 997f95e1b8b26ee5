"""Tokens that a complete answer ends with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field

from metake.errors import MetakeError
from metake.models.chat import PLAIN, Chat, frame_of
from metake.models.editable import EditableModel
from metake.models.greedy import stop_tokens
from metake.models.tokens import Row

End = Annotated[
    Literal["none", "end-token", "line-break"],
    Field(
        description="what follows the target: nothing, the token that ends a text or a turn (end-token), or a line break "
        "(line-break)"
    ),
]


def end_token(model: EditableModel) -> int:
    """Token that follows a complete answer.

    Args:
        model: the model with its tokenizer.

    Returns:
        With a chat template the token that ends the assistant's turn, if the template writes one; otherwise the
        tokenizer's end-of-text token.

    Raises:
        MetakeError: the tokenizer has no such token.
    """
    tokenizer = model.tokenizer
    turn = tokenizer.end_of_turn if isinstance(tokenizer, Chat) else None
    if turn is not None:
        return turn
    if tokenizer.eos_token_id is None:
        raise MetakeError(
            "end token: the tokenizer has no end-of-text token; set tokenizer.eos_token, or leave out the end token"
        )
    return int(tokenizer.eos_token_id)


def line_break(model: EditableModel) -> int:
    """Token of a line break, which ends the answers of some models to plain prompts.

    Args:
        model: the model with its tokenizer.

    Returns:
        The id.

    Raises:
        MetakeError: the tokenizer has no such token.
    """
    ids = model.tokenizer("\n", add_special_tokens=False)["input_ids"]
    if not ids or model.tokenizer.decode(ids[-1:]) != "\n":
        raise MetakeError("line break: the tokenizer has no token for it; set end=end-token or end=none")
    return int(ids[-1])


def ended(model: EditableModel, rows: Sequence[Row], end: End) -> tuple[Row, ...]:
    """Rows whose answers are followed by an end.

    Args:
        model: the model with its tokenizer.
        rows: rows with answers.
        end: what follows each answer.

    Returns:
        Rows with one more token in their answers; the rows themselves if nothing follows.

    Raises:
        MetakeError: the tokenizer has no such token, or the model has no embedding of it.
    """
    if end == "none":
        return tuple(rows)
    token = end_token(model) if end == "end-token" else line_break(model)
    model.check_tokens(token)
    return tuple(row.ended(token) for row in rows)


def ends_of_answer(model: EditableModel) -> tuple[int, ...]:
    """All tokens that end an answer: the end token, the model's stop tokens and, after a plain prompt, line breaks.

    An answer to a plain prompt is its first line; with a `Chat` it is the whole turn.

    Args:
        model: the model with its tokenizer, or with a `Chat`.

    Returns:
        Token ids, the end token first; empty if nothing ends an answer.
    """
    tokenizer, size = model.tokenizer, model.model.get_input_embeddings().weight.shape[0]
    ends = stop_tokens(model.model, tokenizer)
    if tokenizer.eos_token_id is not None or isinstance(tokenizer, Chat):
        ends = [end_token(model), *ends]
    if frame_of(tokenizer) == PLAIN:
        ends += _line_breaks(tokenizer)
    return tuple(dict.fromkeys(token for token in ends if token < size))


@lru_cache(maxsize=4)
def _line_breaks(tokenizer: Any) -> list[int]:
    """Tokens of a vocabulary that begin with a line break, apart from spaces."""
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return [token for token, text in enumerate(texts) if text.lstrip(" \t\r").startswith("\n")]
