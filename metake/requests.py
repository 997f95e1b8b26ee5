"""Edit requests: a prompt with a gap, the subject that fills it, and the new target."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from unicodedata import category

from metake.errors import MetakeError

PLACEHOLDER = "{}"
USAGE = "EditRequest(prompt, subject, target_new)"


@dataclass(frozen=True)
class EditRequest:
    """One edit.

    Attributes:
        prompt: template with one `{}` where the subject stands, e.g. `Which city was {} born in?`.
        subject: the text of the subject; the edit is written at its last token.
        target_new: the new continuation of the prompt. A leading space is added before tokenization.
        locality_prompts: complete prompts whose continuation should not change; used by targets with a locality loss, not by
            the evaluation.
        name: name in messages; the subject by default.
        start: position of the gap in the prompt. Needed only if the prompt also contains `{}` as ordinary text
            (`from_text` sets it).

    Raises:
        MetakeError: a field is empty or not a string, or the prompt does not contain exactly one gap.

    Example:
        >>> import metake
        >>> metake.EditRequest("Which city was {} born in?", "Niels Bohr", "Oslo").text
        'Which city was Niels Bohr born in?'
    """

    prompt: str
    subject: str
    target_new: str
    locality_prompts: tuple[str, ...] = ()
    name: str = field(default="", compare=False)
    start: int | None = None

    def __post_init__(self) -> None:
        label = next(
            (one_line(x) for x in (self.name, self.subject) if isinstance(x, str) and x.strip()), "request"
        )
        for key in ("prompt", "subject", "target_new"):
            check_text(label, key, getattr(self, key))
        check_name(label, self.name)
        if self.start is not None and (isinstance(self.start, bool) or not isinstance(self.start, int)):
            raise MetakeError(f"{label}: start must be a whole number, not {type(self.start).__name__}")
        if not isinstance(self.locality_prompts, list | tuple) or not all(
            isinstance(prompt, str) and prompt.strip() for prompt in self.locality_prompts
        ):
            raise MetakeError(f"{label}: locality_prompts must be a tuple of texts")
        start = self._start(label)
        cut = len(self.prompt) - len(self.prompt.lstrip())
        for key, new in (
            ("prompt", self.prompt.strip()),
            ("subject", self.subject.strip()),
            ("target_new", self.target_new.strip()),
            ("locality_prompts", tuple(self.locality_prompts)),
            ("start", start - cut),
            ("name", one_line(self.name or self.subject)),
        ):
            object.__setattr__(self, key, new)

    def _start(self, label: str) -> int:
        """Position of the gap.

        Returns:
            index of the gap's first character.

        Raises:
            MetakeError: the prompt does not contain exactly one gap.
        """
        if (
            isinstance(self.start, int)
            and self.start >= 0
            and self.prompt.startswith(PLACEHOLDER, self.start)
        ):
            return self.start
        gaps = self.prompt.count(PLACEHOLDER)
        if gaps != 1:
            raise MetakeError(
                f"{label}: prompt {self.prompt!r} holds {gaps} gaps; write {PLACEHOLDER} once, for the subject"
            )
        return self.prompt.index(PLACEHOLDER)

    @classmethod
    def from_text(cls, text: str, subject: str, target_new: str, **rest: Any) -> EditRequest:
        """A request from a complete prompt, whose first mention of the subject becomes the gap.

        Args:
            text: the complete prompt.
            subject: the subject, as in the prompt; another case is accepted.
            target_new: the new target.
            rest: further attributes.

        Returns:
            the request, with the subject in the prompt's spelling.

        Raises:
            MetakeError: the subject does not occur in the prompt.
        """
        for key, value in (("prompt", text), ("subject", subject)):
            check_text("request", key, value)
        check_name(one_line(subject), rest.get("name", ""))
        name = one_line(rest.get("name") or subject)
        text, subject = text.strip(), subject.strip()
        found = _whole(text, subject) or _whole(text, subject, re.IGNORECASE)
        found = found or re.search(re.escape(subject), text)
        if found is None:
            raise MetakeError(
                f"{name}: subject {subject!r} is not in the prompt {text!r}; "
                f"spell it as in the prompt or write {PLACEHOLDER} in its place"
            )
        at, subject = found.start(), found.group()
        return cls(text[:at] + PLACEHOLDER + text[at + len(subject) :], subject, target_new, start=at, **rest)

    @classmethod
    def parse(cls, prompt: str, subject: str, target_new: str, **rest: Any) -> EditRequest:
        """A request from a complete prompt, or from one with `{}` in the subject's place.

        A prompt that names the subject is complete, and braces in it are ordinary text.

        Args:
            prompt: the prompt.
            subject: the subject.
            target_new: the new target.
            rest: further attributes.

        Returns:
            the request.
        """
        texts = isinstance(prompt, str) and isinstance(subject, str) and subject.strip()
        if texts and PLACEHOLDER in prompt and not _whole(prompt, subject.strip()):
            return cls(prompt, subject, target_new, **rest)
        return cls.from_text(prompt, subject, target_new, **rest)

    @classmethod
    def whole(cls, text: str, target_new: str, **rest: Any) -> EditRequest:
        """A request without a subject: the whole prompt stands for it, and the edit is written at its last token.

        Args:
            text: the complete prompt.
            target_new: the new target.
            rest: further attributes.

        Returns:
            the request.
        """
        return cls(PLACEHOLDER, text, target_new, start=0, **rest)

    @property
    def has_subject(self) -> bool:
        """Whether the prompt contains more than the subject."""
        return self.prompt != PLACEHOLDER

    @property
    def text(self) -> str:
        """The prompt with the subject in its place."""
        assert self.start is not None
        return self.prompt[: self.start] + self.subject + self.prompt[self.start + len(PLACEHOLDER) :]


def check_name(label: str, name: Any) -> None:
    """Refuse a request's name that is not a string; an empty one is accepted.

    Args:
        label: name of the object in the message.
        name: the name.

    Raises:
        MetakeError: the name is not a string.
    """
    if not isinstance(name, str):
        raise MetakeError(f"{label}: name must be a text, not {type(name).__name__}")


def check_text(label: str, key: str, value: Any) -> None:
    """Refuse a value that is not a string, or is empty.

    Args:
        label: name of the object in the message.
        key: name of the field; the line begins with `label: key`.
        value: the value.

    Raises:
        MetakeError: not a string, empty, or not valid Unicode.
    """
    if not isinstance(value, str):
        raise MetakeError(f"{label}: {key} must be a text, not {type(value).__name__}")
    if not value.strip():
        raise MetakeError(f"{label}: {key} is empty; give it a text")
    if not is_unicode(value):
        raise MetakeError(f"{label}: {key} {value!r} contains a lone surrogate; write the whole character")


def check_texts(label: str, key: str, values: Any) -> list[str]:
    """One string or several, as a list.

    Args:
        label: name of the object in the message.
        key: name of the field; the line begins with `label: key`.
        values: the value or values.

    Returns:
        at least one string.

    Raises:
        MetakeError: no value, or a value that is not a string.
    """
    several = [values] if isinstance(values, str) else values
    if isinstance(several, dict | bytes) or not isinstance(several, Iterable):
        raise MetakeError(f"{label}: {key} must be a text or a list of texts, not {type(values).__name__}")
    texts = list(several)
    for text in texts:
        check_text(label, key, text)
    if not texts:
        raise MetakeError(f"{label}: no {key} given")
    return texts


def is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates, which JSON can contain.

    Args:
        text: the text.

    Returns:
        False for a text that UTF-8 cannot encode.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def visible(text: str) -> str:
    """A text with control characters and lone surrogates escaped, safe for a terminal.

    Args:
        text: the text.

    Returns:
        the text, with its line breaks and tabs.
    """
    return "".join(
        c.encode("unicode_escape").decode() if category(c) in ("Cc", "Cs") and c not in "\n\t" else c
        for c in text
    )


def one_line(text: str) -> str:
    """A text shortened to one line of at most 80 characters, for messages.

    Args:
        text: the text.

    Returns:
        the line.
    """
    text = " ".join(visible(" ".join(text.split())).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _whole(text: str, subject: str, flags: int = 0) -> re.Match[str] | None:
    """The first mention of a subject that is no part of a longer word."""
    return re.search(rf"(?<!\w){re.escape(subject)}(?!\w)", text, flags)


def distinct(requests: Any) -> tuple[EditRequest, ...]:
    """A batch without duplicates; merging identical requests gives a warning.

    Args:
        requests: a request, or several.

    Returns:
        the requests, in their order.

    Raises:
        MetakeError: no request, an object that is not an `EditRequest`, or two requests with different targets for one prompt.
    """
    batch = (requests,) if isinstance(requests, EditRequest) else requests
    if isinstance(batch, str | dict) or not isinstance(batch, Iterable):
        raise MetakeError(
            f"requests: must be an EditRequest or a list of them, not {type(batch).__name__}; write {USAGE}"
        )
    batch = tuple(batch)
    for request in batch:
        if not isinstance(request, EditRequest):
            remedy = "give its .request" if hasattr(request, "request") else f"write {USAGE}"
            raise MetakeError(
                f"requests: must be EditRequest objects, not {type(request).__name__}; {remedy}"
            )
    if not batch:
        raise MetakeError("requests: none given")
    if clash := contradiction(batch):
        raise MetakeError(f"{clash}; keep one of them")
    once = tuple(dict.fromkeys(batch))
    if len(once) < len(batch):
        twice = next(request for request in once if batch.count(request) > 1)
        warnings.warn(
            f"{len(batch) - len(once)} duplicate requests are ignored ({twice.name}: {twice.text!r})",
            stacklevel=2,
        )
    _warn_of_two_subjects(once)
    return once


def _warn_of_two_subjects(requests: Iterable[EditRequest]) -> None:
    """Warn of the first two requests with the same complete prompt and different subjects."""
    first: dict[str, EditRequest] = {}
    for request in requests:
        other = first.setdefault(request.text, request)
        if (other.subject, other.start) != (request.subject, request.start):
            warnings.warn(
                f"{request.text!r} is requested with the subjects {one_line(other.subject)!r} and "
                f"{one_line(request.subject)!r}; both are edited",
                stacklevel=3,
            )
            return


def contradiction(requests: Iterable[EditRequest]) -> str:
    """Message about the first two requests with different targets for one prompt; empty if there are none.

    Args:
        requests: the requests.

    Returns:
        the message, without a remedy.
    """
    first: dict[str, EditRequest] = {}
    for request in requests:
        other = first.setdefault(request.text, request)
        if other.target_new != request.target_new:
            return f"{request.name}: {request.text!r} has two targets, {other.target_new!r} and {request.target_new!r}"
    return ""
