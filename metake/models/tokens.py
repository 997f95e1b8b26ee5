"""Padded token rows of texts, with lookup and answer positions from character offsets.

With offsets the same code works for byte-level and SentencePiece vocabularies, with or without BOS: the lookup token
is the last one of the subject, and answer tokens end after the end of the prompt.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from metake.errors import MetakeError
from metake.models.chat import PLAIN, frame_of

SPACES = "▁Ġ "  # spaces in vocabularies; a space that is put before a text spans the text's first character


@dataclass(frozen=True)
class Row:
    """One tokenized text.

    Attributes:
        ids: token ids, special ones included.
        lookup: index of the subject's last token, or of the prompt's last token without a subject.
        answer: number of tokens at the end that belong to the answer.
        starts: index within the answer of the first token of each of its windows; one window is the whole answer.
        has_end: whether the last answer token is an end that `ended` appended.
    """

    ids: tuple[int, ...]
    lookup: int
    answer: int = 0
    starts: tuple[int, ...] = (0,)
    has_end: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lookups(self) -> tuple[int, ...]:
        """Position of each window: the lookup token, then the token before each further window of the answer."""
        begin = len(self.ids) - self.answer
        return (self.lookup, *(begin + start - 1 for start in self.starts[1:]))

    @property
    def spans(self) -> tuple[range, ...]:
        """Indices within the answer of the tokens of each window."""
        ends = (*self.starts[1:], self.answer)
        return tuple(range(start, end) for start, end in zip(self.starts, ends, strict=True))

    @property
    def up_to_lookup(self) -> Row:
        """The row up to its last lookup token, on which the keys of the lookup tokens depend."""
        return Row(self.ids[: self.lookups[-1] + 1], self.lookup)

    def ended(self, token: int) -> Row:
        """The row with one more token in its answer.

        Args:
            token: id of the token, e.g. that of `end_token`.

        Returns:
            A row with the same lookup token.
        """
        return replace(self, ids=(*self.ids, token), answer=self.answer + 1, has_end=True)

    @property
    def needed(self) -> int:
        """Number of tokens that a pass has to read: up to the last one that predicts an answer token."""
        return max(self.lookup + 1, len(self.ids) - 1 if self.answer else 0)

    @property
    def predicting(self) -> range:
        """Positions whose logits predict the answer."""
        return range(len(self.ids) - self.answer - 1, len(self.ids) - 1)

    @property
    def answer_ids(self) -> tuple[int, ...]:
        """Token ids of the answer."""
        return self.ids[len(self.ids) - self.answer :]


def encode(tokenizer: Any, text: str, answer: str = "", subject: tuple[int, int] | None = None) -> Row:
    """Token row of a text and, after one space, an answer; with a `Chat`, as turns of a conversation.

    Args:
        tokenizer: a fast tokenizer, or a `Chat`.
        text: the prompt.
        answer: its answer.
        subject: span of the subject in `text`, as character positions `[start, end)`. Its last token is the lookup token;
            one that extends beyond the subject only where the subject has no earlier one.

    Returns:
        The row, without padding.

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
        # the key of a token such as ")?" is that of a question mark: an edit of it changes all questions
        if spans[lookup][1] > last + 1 and lookup and spans[lookup - 1][0] >= len(frame.before) + subject[0]:
            lookup -= 1
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
    """Number of tokens of each text, without special tokens.

    Args:
        tokenizer: a fast tokenizer.
        texts: the texts.

    Returns:
        One number per text.

    Raises:
        MetakeError: a text has characters without tokens, so its tokens would represent another text.
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
    """Whether a tokenizer may drop the character: spaces, controls, marks on other characters."""
    return unicodedata.category(character)[0] in "ZCM"


def pad(rows: Sequence[Row], filler: int = 0) -> Tensor:
    """Right-padded token ids, `rows x longest`.

    Args:
        rows: the rows.
        filler: token id of the padding, which no token attends to.

    Returns:
        The ids, on the CPU.
    """
    width = max(len(row) for row in rows)
    return torch.tensor([list(row.ids) + [filler] * (width - len(row)) for row in rows])


def length_buckets(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices of rows of these lengths in groups of at most `budget` padded tokens, similar ones together.

    A longer row opens a group of its own where it would pad the others by more than a tenth of the budget: small
    passes cost less than padding.

    Args:
        lengths: length of each row.
        budget: padded tokens of a group.

    Yields:
        Indices of the rows of a group.
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
    """Positions that predict answer tokens, and these tokens.

    Args:
        rows: the rows.

    Returns:
        Rows, columns and labels, each with one entry per answer token.
    """
    at = [(i, column) for i, row in enumerate(rows) for column in row.predicting]
    labels = [token for row in rows for token in row.answer_ids]
    positions = torch.tensor(at, dtype=torch.long).reshape(-1, 2)
    return positions[:, 0], positions[:, 1], torch.tensor(labels, dtype=torch.long)
