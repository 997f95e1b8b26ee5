"""What a user asks for: a prompt with one gap, the subject that fills it, the new target."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from metake.errors import MetakeError

GAP = "{}"


@dataclass(frozen=True)
class Request:
    """One edit.

    Attributes:
        prompt: template with one `{}` where the subject stands, e.g. `Which city was {} born in?`.
        subject: the text of the subject; the edit is written at its last token.
        target: what the model shall continue with. A leading space is added when tokenised.
        locality: prompts (complete texts) whose continuation shall stay as it is; used by targets
            with a locality loss, never by the evaluation.
        name: how messages call it; the subject by default.

    Raises:
        MetakeError: a field is empty or the prompt does not hold exactly one gap.
    """

    prompt: str
    subject: str
    target: str
    locality: tuple[str, ...] = ()
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        label = self.name or self.subject.strip() or "request"
        for key in ("prompt", "subject", "target"):
            value = getattr(self, key)
            if not isinstance(value, str):
                raise MetakeError(f"{label}: {key} must be a text, not {type(value).__name__}")
            if not value.strip():
                raise MetakeError(f"{label}: {key} is empty; give it a text")
            object.__setattr__(self, key, value.strip())
        gaps = self.prompt.count(GAP)
        if gaps != 1:
            raise MetakeError(
                f"{label}: prompt {self.prompt!r} holds {gaps} gaps; write {GAP} once, for the subject"
            )
        object.__setattr__(self, "name", self.name or self.subject)

    @classmethod
    def from_text(cls, text: str, subject: str, target: str, **rest) -> Request:
        """A request from a complete prompt, whose first mention of the subject becomes the gap.

        Raises:
            MetakeError: the subject does not occur in the prompt.
        """
        name = rest.get("name") or subject
        subject = subject.strip()
        if not subject:
            raise MetakeError(f"{name or 'request'}: subject is empty; give it a text")
        exact = re.escape(subject)
        word = rf"(?<!\w){exact}(?!\w)"  # a short name must not be found inside another word
        found = re.search(word, text) or re.search(word, text, re.IGNORECASE) or re.search(exact, text)
        if found is None:
            raise MetakeError(
                f"{name}: subject {subject!r} is not in the prompt {text!r}; "
                f"spell it as in the prompt or write {GAP} in its place"
            )
        at, subject = found.start(), found.group()
        for brace in "{}":  # literal braces would be read as gaps
            text = text.replace(brace, "(" if brace == "{" else ")")
        return cls(text[:at] + GAP + text[at + len(subject) :], subject, target, **rest)

    @property
    def text(self) -> str:
        """The prompt with the subject in its place."""
        return self.fill(self.prompt)

    def fill(self, template: str) -> str:
        return template.replace(GAP, self.subject, 1)
