"""Prompts as an instruction-tuned model is used: the question in a user's turn, the answer in the assistant's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from metake.errors import MetakeError

QUESTION, ANSWER = "metake-question", "metake-answer"  # stand for the texts; no template holds them


@dataclass(frozen=True)
class Frame:
    """What stands around a prompt.

    Attributes:
        before, after: the prompt's surroundings, up to where the answer begins.
        space: between that and an answer; left out where there is none.
    """

    before: str = ""
    after: str = ""
    space: str = " "


PLAIN = Frame()


class Chat:
    """A tokenizer whose prompts stand in a conversation: `encode` frames them by its chat template.

    Give it wherever a tokenizer is asked for: `Editor(model, Chat(tokenizer))`. In all else it is the tokenizer:
    texts for statistics and perplexity stay as they are, contexts are sampled plain and said by the user.

    Attributes:
        frame: taken from the template's rendering of one question and its answer, a default system message included.

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
        after, _, end = rest.partition(ANSWER)
        if f"{before}{QUESTION}{after}{ANSWER}{end}" != text or QUESTION in rest or ANSWER in before + end:
            raise MetakeError(
                "chat: the tokenizer's chat template does not show a question and its answer once each"
            )
        bare = after.rstrip(" ")
        self.frame = Frame(before, bare, after[len(bare) :])

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.tokenizer(*args, **options)

    def __getattr__(self, name: str) -> Any:
        if name == "tokenizer":  # not set yet, in a copy
            raise AttributeError(name)
        return getattr(self.tokenizer, name)


def frame_of(tokenizer: Any) -> Frame:
    """What stands around this tokenizer's prompts."""
    return tokenizer.frame if isinstance(tokenizer, Chat) else PLAIN


def described(tokenizer: Any) -> dict[str, str] | None:
    """The frame as plain data for a result file; None where prompts stand alone."""
    frame = frame_of(tokenizer)
    return None if frame == PLAIN else asdict(frame)


def without_frame(tokenizer: Any) -> Any:
    """The tokenizer itself, for texts that are no prompts."""
    return tokenizer.tokenizer if isinstance(tokenizer, Chat) else tokenizer
