"""Words of a text: where they end, in answers that are compared or displayed, and nouns with their number."""

from __future__ import annotations

from unicodedata import category, name

UNSPACED = (
    "CJK",
    "IDEOGRAPHIC",
    "HIRAGANA",
    "KATAKANA",
    "HALFWIDTH KATAKANA",
    "HANGUL",
    "THAI",
    "LAO",
    "KHMER",
    "MYANMAR",
    "TIBETAN",
)
"""Scripts, as names of characters begin, that set no space between words or write particles on to a word."""


def counted(count: int, noun: str) -> str:
    """A number with its noun, `1 edit` or `2 edits`.

    Args:
        count: the number.
        noun: the noun in the singular, with a regular plural.

    Returns:
        The text; thousands are separated by commas.
    """
    plural = f"{noun}es" if noun.endswith(("ch", "x", "s")) else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def begins_with(answer: str, target: str) -> bool:
    """Whether an answer begins with a target, which ends where a word of the answer does.

    `Mal` begins `Mal, in the north`, not `Malak`. In scripts without spaces between words, any place may be an end.
    An empty target begins no answer.

    Args:
        answer: the answer.
        target: the expected beginning.

    Returns:
        Whether it does.
    """
    if not target or not answer.startswith(target):
        return False
    return not (_in_word(target[-1]) and _in_word(answer[len(target) :][:1]))


class TruncatedStr(str):
    """An answer that ended at its limit of tokens, possibly within a word."""

    __slots__ = ()

    def strip(self, characters: str | None = None, /) -> TruncatedStr:
        """The answer without surrounding whitespace, still a `TruncatedStr`.

        Args:
            characters: characters to remove; whitespace by default.

        Returns:
            The stripped answer.
        """
        return TruncatedStr(super().strip(characters))


def shown(answer: str, ellipsis: str = "…", wanted: str = "") -> str:
    """An answer for display. A `TruncatedStr` one ends with its last whole word and an ellipsis; others are returned unchanged.

    Args:
        answer: the answer.
        ellipsis: mark of an omission.
        wanted: expected beginning of the answer, which is displayed in full.

    Returns:
        The text to display.
    """
    if not isinstance(answer, TruncatedStr) or not answer:
        return answer
    end = len(answer)
    if _in_word(answer[-1]):
        whole = len(answer) - len(answer.split()[-1])
        end = max(whole, len(wanted) if begins_with(answer, wanted) else 0) or end
    return answer[:end].rstrip() + ellipsis


def _in_word(character: str) -> bool:
    """Whether a character is part of a word that spaces or punctuation end; combining marks belong to their letter."""
    if not character or not (character.isalnum() or character == "_" or category(character).startswith("M")):
        return False
    return not name(character, "").startswith(UNSPACED)
