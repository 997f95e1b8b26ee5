"""Prompts in the chat template of an instruction-tuned model: question in a user turn, answer in the assistant's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from metake.errors import MetakeError

QUESTION, ANSWER = "metake-question", "metake-answer"  # stand for the texts; no template holds them


@dataclass(frozen=True)
class Frame:
    """Text around a prompt.

    Attributes:
        before: text before the prompt.
        after: text between the prompt and the answer, without its last spaces.
        space: spaces between `after` and an answer; omitted if there is no answer.
    """

    before: str = ""
    after: str = ""
    space: str = " "


PLAIN = Frame()


class Chat:
    """A tokenizer whose prompts `encode` puts into its chat template.

    Can be passed in place of a tokenizer: `Editor(model, Chat(tokenizer))`. Texts for statistics and perplexity are not
    framed; contexts are sampled without the template and precede the prompt in the user turn.

    Args:
        tokenizer: a tokenizer with a chat template.

    Attributes:
        frame: from the template's rendering of one question and its answer, including a default system message.
        end: what the template writes after the answer.

    Raises:
        MetakeError: the tokenizer has no chat template, or one that does not show both texts, in this order, once.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        if not getattr(tokenizer, "chat_template", None):
            raise MetakeError("chat: the tokenizer has no chat template; leave out --chat")
        turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
        try:
            text = tokenizer.apply_chat_template(turns, tokenize=False)
        except Exception as error:  # a template is a program of its own
            reason = " ".join(str(error).split())[:200]
            raise MetakeError(f"chat: the tokenizer's chat template fails ({reason})") from error
        before, _, rest = text.partition(QUESTION)
        after, _, self.end = rest.partition(ANSWER)
        shown = f"{before}{QUESTION}{after}{ANSWER}{self.end}"
        if shown != text or QUESTION in rest or ANSWER in before + self.end:
            raise MetakeError(
                "chat: the tokenizer's chat template does not show a question and its answer once each"
            )
        bare = after.rstrip(" ")
        self.frame = Frame(before, bare, after[len(bare) :])

    @property
    def end_of_turn(self) -> int | None:
        """Token that the template writes after an answer; None if it writes another text."""
        ids = self.tokenizer(self.end.strip(), add_special_tokens=False)["input_ids"]
        return int(ids[0]) if ids and ids[0] in self.tokenizer.get_added_vocab().values() else None

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Result of the tokenizer, without the frame.

        Args:
            args: of the tokenizer.
            options: of the tokenizer.

        Returns:
            Its encoding.
        """
        return self.tokenizer(*args, **options)

    def __getattr__(self, name: str) -> Any:
        if name == "tokenizer":  # not set yet, in a copy
            raise AttributeError(name)
        return getattr(self.tokenizer, name)


def frame_of(tokenizer: Any) -> Frame:
    """Frame of a tokenizer's prompts.

    Args:
        tokenizer: a tokenizer or a `Chat`.

    Returns:
        `PLAIN` for a plain tokenizer.
    """
    return tokenizer.frame if isinstance(tokenizer, Chat) else PLAIN


def described(tokenizer: Any) -> dict[str, str] | None:
    """Frame of a tokenizer's prompts as plain data for a result file; None without a chat template.

    Args:
        tokenizer: a tokenizer or a `Chat`.

    Returns:
        The fields of the frame.
    """
    frame = frame_of(tokenizer)
    return None if frame == PLAIN else asdict(frame)


def without_frame(tokenizer: Any) -> Any:
    """The tokenizer without its chat template, for texts that are no prompts.

    Args:
        tokenizer: a tokenizer or a `Chat`.

    Returns:
        The plain tokenizer.
    """
    return tokenizer.tokenizer if isinstance(tokenizer, Chat) else tokenizer
