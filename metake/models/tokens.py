"""From text to padded token rows, with the places that matter marked by character offsets.

Offsets make the same code right for byte-level and SentencePiece vocabularies, with or without
BOS: the lookup token is the one that holds the subject's last character, the answer's tokens are
those that reach past the end of the prompt.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metake.errors import MetakeError
from metake.models.chat import PLAIN, frame_of

SPACES = (
    "▁Ġ "  # how vocabularies write a space; one that is put before a text spans the text's first character
)


@dataclass(frozen=True)
class Row:
    """One tokenised text.

    Attributes:
        ids: token ids, special ones included.
        lookup: index of the subject's last token, or of the prompt's last token without a subject.
        answer: how many tokens at the end belong to the answer.
    """

    ids: tuple[int, ...]
    lookup: int
    answer: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def up_to_lookup(self) -> Row:
        """The row up to its lookup token, on which the lookup token's key depends."""
        return Row(self.ids[: self.lookup + 1], self.lookup)

    @property
    def needed(self) -> int:
        """How many tokens a pass has to read: up to the last that predicts something."""
        return max(self.lookup + 1, len(self.ids) - 1 if self.answer else 0)

    @property
    def predicting(self) -> range:
        """Positions whose logits predict the answer."""
        return range(len(self.ids) - self.answer - 1, len(self.ids) - 1)

    @property
    def answer_ids(self) -> tuple[int, ...]:
        return self.ids[len(self.ids) - self.answer :]


def encode(tokenizer: Any, text: str, answer: str = "", subject: tuple[int, int] | None = None) -> Row:
    """Tokenise `text` and, after one space, `answer`; with a `Chat` for a tokenizer, as turns of a conversation.

    Args:
        subject: where the subject stands in `text`, as character positions `[start, end)`.

    Raises:
        MetakeError: the tokenizer keeps no offsets, or the text has no tokens.
    """
    frame = frame_of(tokenizer)
    text = f"{frame.before}{text}{frame.after}"
    whole = f"{text}{frame.space}{answer.strip()}" if answer.strip() else text
    # a chat template writes the special tokens itself
    ids, spans = _with_offsets(tokenizer, whole, special=frame == PLAIN)
    in_answer = [end > len(text) and end > begin for begin, end in spans]
    # special tokens that a tokenizer puts after the text are no part of a prompt to be continued
    while ids and spans[-1][0] == spans[-1][1] and ids[-1] in tokenizer.all_special_ids:
        ids, spans, in_answer = ids[:-1], spans[:-1], in_answer[:-1]
    count = sum(in_answer)
    if len(ids) - count < 1:
        raise MetakeError(f"prompt {text!r} has no token to predict from")
    lookup = len(ids) - count - 1
    if subject is not None:
        last = len(frame.before) + subject[1] - 1
        holding = [i for i, (begin, end) in enumerate(spans) if begin <= last < end]
        if not holding:
            raise MetakeError(f"subject at {subject} of {text!r} has no token")
        lookup = holding[-1]
    return Row(tuple(ids), lookup, count)


def _with_offsets(tokenizer: Any, texts: Any, special: bool) -> tuple[Any, Any]:
    """Ids and character spans, of a text or of each of several."""
    try:
        coded = tokenizer(texts, return_offsets_mapping=True, add_special_tokens=special)
        return coded["input_ids"], coded["offset_mapping"]
    except (NotImplementedError, KeyError) as error:
        raise MetakeError(
            "tokenizer: a fast one is needed (it must know character offsets); load it with use_fast"
        ) from error


def count_tokens(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """How many tokens each text has by itself, special ones left out.

    Raises:
        MetakeError: a text holds characters for which the tokenizer has no token but that for the unknown, or none:
            it would stand for another text.
    """
    if not texts:
        return []
    unknown, name = tokenizer.unk_token_id, tokenizer.unk_token
    counts = []
    for text, ids, spans in zip(texts, *_with_offsets(tokenizer, list(texts), special=False), strict=True):
        said = [False] * len(text)
        pieces = tokenizer.convert_ids_to_tokens(ids)
        for token, piece, (begin, end) in zip(ids, pieces, spans, strict=True):
            if piece.strip(SPACES) and (token != unknown or text[begin:end] == name):
                said[begin:end] = [True] * (end - begin)
        lost = "".join(c for c, there in zip(text, said, strict=True) if not (there or _is_silent(c)))
        if lost:
            raise MetakeError(
                f"the tokenizer has no tokens for {lost[:20]!r} of {text!r}; write it in other characters or "
                "take another model"
            )
        counts.append(len(ids))
    return counts


def _is_silent(character: str) -> bool:
    """Whether a tokenizer may drop it and still say the text: spaces, controls, marks on other characters."""
    return unicodedata.category(character)[0] in "ZCM"


def pad(rows: Sequence[Row], filler: int = 0) -> Tensor:
    """Right-padded ids, `rows x longest`; what fills the gap is never attended to."""
    width = max(len(row) for row in rows)
    return torch.tensor([list(row.ids) + [filler] * (width - len(row)) for row in rows])


def chunks(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices of rows of these lengths in groups of at most `budget` padded tokens, similar ones together.

    A longer row opens a group of its own where it would pad the others by more than a tenth of the budget: small
    passes cost less than padding.
    """
    group: list[int] = []
    used = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[index]
        if group and ((len(group) + 1) * length > budget or 10 * (len(group) * length - used) > budget):
            yield group
            group, used = [], 0
        group.append(index)
        used += length
    if group:
        yield group


def answer_positions(rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
    """`(rows, columns, labels)` of every answer token, each of length `sum of answers`."""
    at = [(i, column) for i, row in enumerate(rows) for column in row.predicting]
    labels = [token for row in rows for token in row.answer_ids]
    places = torch.tensor(at, dtype=torch.long).reshape(-1, 2)
    return places[:, 0], places[:, 1], torch.tensor(labels, dtype=torch.long)
