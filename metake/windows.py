"""Windows of an answer: the spans of its tokens that have a position, a key and a residual of their own."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from pydantic import Field

from metake.components import Component, register


class Windows(Component):
    """Choice of the windows of an answer; a subclass defines `starts`.

    Attributes:
        at_prompt: whether the first window, too, is edited at the token before it, the prompt's last one.
        preserves: whether each solve preserves the keys of all other tokens of prompt and answer, as lower updates changed them.
        constant_weight: weight w of these keys as they are before the batch in each solve, `G + w K_p K_p^T`; 0 for none.
        uses_contexts: whether requests are also planned and solved in contexts.

    Example:
        >>> from metake.windows import AnswerWindows
        >>> AnswerWindows(size=20).starts(50)
        (0, 20, 40)
    """

    family = "windows"
    at_prompt: ClassVar[bool] = False
    preserves: ClassVar[bool] = False
    uses_contexts: ClassVar[bool] = True

    @property
    def constant_weight(self) -> float:
        """Weight of preserved keys that are constant; 0 for none."""
        return 0.0

    @abstractmethod
    def starts(self, answer: int) -> tuple[int, ...]:
        """Index of the first token of each window.

        Args:
            answer: number of tokens of the answer, at least 1.

        Returns:
            Ascending indices; the first is 0.
        """


@register
class WholeAnswer(Windows):
    """One window, edited at the lookup token: ROME, MEMIT and all methods for short answers."""

    kind = "whole-answer"

    def starts(self, answer: int) -> tuple[int, ...]:
        """One window.

        Args:
            answer: number of tokens of the answer.

        Returns:
            Index 0.
        """
        return (0,)


@register
class PreservedPrompt(WholeAnswer):
    """One window; the keys of all other tokens of prompt and answer are preserved, as they are before the batch.

    Otherwise the updates of a closed loop with the exact gradient also change values at tokens that the prompts of a batch
    share with other texts, such as the question mark: what the targets have in common lowers the loss there. With the
    memory `past-keys` later batches preserve these keys, too.
    """

    kind = "preserved-prompt"
    aliases: ClassVar[dict[str, str]] = {"weight": "preserved_weight"}

    weight: float = Field(1.0, gt=0, description="weight w of the preserved keys, `G + w K_p K_p^T`")

    @property
    def constant_weight(self) -> float:
        """Weight of the preserved keys, which are constant."""
        return self.weight


@register
class BareWindows(Windows):
    """Windows of equal size, each edited at the token before it, without contexts; other tokens are not preserved.

    Reference: AnyEdit (arXiv:2502.05628) without its preserved keys.
    """

    kind = "bare-windows"
    aliases: ClassVar[dict[str, str]] = {"size": "window_size"}
    at_prompt = True
    uses_contexts = False

    size: int = Field(20, ge=1, description="answer tokens per window [window_size]")

    def starts(self, answer: int) -> tuple[int, ...]:
        """Windows of `size` tokens; the last one may be shorter.

        Args:
            answer: number of tokens of the answer.

        Returns:
            Multiples of `size`.
        """
        return tuple(range(0, answer, self.size))


@register
class AnswerWindows(BareWindows):
    """Windows of equal size; the keys of all other tokens of prompt and answer are preserved, `G + K_p K_p^T`.

    Reference: AnyEdit (arXiv:2502.05628).
    """

    kind = "windows"
    preserves = True
