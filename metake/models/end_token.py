"""Tokens that a complete answer ends with."""

from __future__ import annotations

from metake.errors import MetakeError
from metake.models.chat import Chat
from metake.models.editable import EditableModel


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
    if isinstance(tokenizer, Chat):
        after = tokenizer(tokenizer.end.strip(), add_special_tokens=False)["input_ids"]
        if after and after[0] in tokenizer.get_added_vocab().values():
            return int(after[0])
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
