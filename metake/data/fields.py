"""Fields of a record of a file, with the problems of reading them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from metake.errors import MetakeError
from metake.names import did_you_mean
from metake.requests import PLACEHOLDER, EditRequest, one_line

SHOWN = 5  # problems that an error line names
KINDS = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
}


@dataclass
class Fields:
    """The fields of a record, or of an object in it. A wrong field is added to `problems` and read as empty.

    Attributes:
        where: the record's name in problems.
        problems: problems of the whole file, in its order.
        used: names of the fields that were read.
        known: names that a field may have, whether the record has it or not.
        reasons: problems of this record without names and texts of its own, so that they can be counted.
        dropped: probes of the whole file that cannot be used, by reason.
        subject_optional: a record without a subject in its prompt is no problem; see `request`.
    """

    where: str
    content: dict[str, Any]
    problems: list[str]
    used: set[str] = field(default_factory=set)
    known: dict[str, None] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    subject_optional: bool = False

    @classmethod
    def of(
        cls,
        index: int,
        entry: Any,
        problems: list[str],
        dropped: Counter[str] | None = None,
        *,
        subject_optional: bool = False,
    ) -> Fields:
        """The fields of an entry of a file; none if it is no object.

        Args:
            index: position of the entry in the file, from 0; messages count from 1.
            entry: the entry.
            problems: problems of the whole file, to which those of this entry are added.
            dropped: counts of the whole file, to which those of this entry are added.
            subject_optional: as in the class.

        Returns:
            the fields of the entry.
        """
        fields = cls(
            f"record {index + 1}",
            entry if isinstance(entry, dict) else {},
            problems,
            dropped=Counter() if dropped is None else dropped,
            subject_optional=subject_optional,
        )
        if not isinstance(entry, dict):
            fields.problem(" is not an object with fields")
        return fields

    def problem(self, text: str, reason: str = "") -> None:
        """Add a problem of this record.

        Args:
            text: the message after the record's name.
            reason: the same without names and texts of the record; by default the message up to its remedy.
        """
        self.problems.append(f"{self.where}{text}")
        self.reasons.append(reason or text.lstrip(": ").partition(";")[0])

    def inner(self, content: Any) -> Fields:
        """The fields of an object in this record, whose problems are problems of the record.

        Args:
            content: the object; anything else has no fields.

        Returns:
            the inner fields.
        """
        return replace(
            self, content=content if isinstance(content, dict) else {}, used=set(), known={}
        )  # the lists of problems are shared

    def name_of(self, *names: str) -> str:
        """The first of several names that has a value; if none has, the first that is there, or that might be."""
        self.known |= dict.fromkeys(names)
        there = [name for name in names if name in self.content]
        name = next((name for name in there if not is_missing(self.content[name])), (*there, names[0])[0])
        self.used.add(name)
        return name

    def missing(self, *names: str) -> None:
        """Add the problem that there is no field of these names, with a misspelled one that it may be."""
        self.problem(f" has no field {names[0]!r}{misspelled(self.content, names)}")

    def _wrong(self, name: str, wanted: str) -> None:
        self.problem(f": {name} must be {wanted}, not {KINDS[type(self.content[name])]}")

    def text(self, *names: str) -> str:
        """A text that is needed."""
        name = self.name_of(*names)
        value = self.content.get(name)
        if value is None and name not in self.content:
            self.missing(*names)
        elif is_missing(value):
            self.problem(f": {name} is null")
        elif not isinstance(value, str):
            self._wrong(name, "a text")
        elif not value.strip():
            self.problem(f": {name} is empty")
        else:
            return value.strip()
        return ""

    def optional(self, *names: str) -> str:
        """A text, empty if the record has none."""
        value = self.content.get(self.name_of(*names))
        return "" if is_missing(value) or value == "" else self.text(*names)

    def subject(self, *names: str) -> str:
        """The subject; empty if the record needs none and has none."""
        value = self.content.get(self.name_of(*names))
        if self.subject_optional and (is_missing(value) or (isinstance(value, str) and not value.strip())):
            return ""
        return self.text(*names)

    def target(self, *names: str) -> str:
        """The target, a text or a number."""
        value = self.content.get(self.name_of(*names))
        return self.answer(*names) if _is_number(value) else self.text(*names)

    def answers(self, *names: str) -> tuple[str, ...]:
        """All names of an answer, of a text, a number, or a nested list of them; none if the record has none."""
        name = self.name_of(*names)
        found = flat_answers(self.content.get(name))
        if found is None:
            self.problem(f": {name} must be a text or a list of texts, the first of which is used")
        return found or ()

    def answer(self, *names: str) -> str:
        """The first of the names of an answer; empty if the record has none."""
        return next(iter(self.answers(*names)), "")

    def values(self, *names: str) -> list[Any]:
        """The values of a list as they are, nulls included; another value is a list of its own, a missing one an empty list."""
        value = self.content.get(self.name_of(*names))
        return value if isinstance(value, list) else [] if is_missing(value) else [value]

    def texts(self, *names: str) -> tuple[str, ...]:
        """A list of texts, or one text; possibly empty."""
        name = self.name_of(*names)
        value = [text for text in self.values(name) if not is_missing(text)]
        if not all(isinstance(text, str) for text in value):
            self.problem(f": {name} must be a text or a list of texts")
            return ()
        return tuple(text.strip() for text in value if text.strip())

    def inside(self, name: str) -> Fields:
        """The fields of an object in a field.

        Args:
            name: name of the field.

        Returns:
            the inner fields, with the same list of problems.
        """
        value = self.content.get(self.name_of(name))
        if name not in self.content:
            self.missing(name)
        elif not isinstance(value, dict):
            self.problem(f": {name} must be an object with fields")
        return self.inner(value)

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        """Prompts with their answers: a list of `{"prompt", "ground_truth"}` (or `"answer"`).

        Args:
            name: name of the field.

        Returns:
            pairs of prompt and answer; none if the field is missing or wrong.
        """
        value = self.content.get(self.name_of(name))
        if value is None:
            return ()
        found = []
        for entry in value if isinstance(value, list) else [value]:
            inner = Fields(f"{self.where}: {name}", entry if isinstance(entry, dict) else {}, [])
            prompt, answer = inner.text("prompt"), inner.answer("ground_truth", "answer")
            if inner.problems or not answer:
                self.problem(f': {name} must be a list of objects with the texts "prompt" and "ground_truth"')
                return ()
            found.append((prompt, answer))
        return tuple(found)

    def request(
        self, prompt: str, subject: str, target: str, make: Callable[..., EditRequest] = EditRequest.parse
    ) -> EditRequest:
        """The request of three texts; a placeholder if one of them is missing, which is already in `problems`.

        A record that needs no subject, and names none in its prompt, has the whole prompt as its subject: the edit is
        then written at the prompt's last token.

        Args:
            prompt: the prompt, complete or with `{}` for the subject.
            subject: the subject.
            target: the new target.
            make: constructor of the request.

        Returns:
            the request, or `PLACEHOLDER_REQUEST`.
        """
        optional = self.subject_optional and PLACEHOLDER not in prompt
        if not subject and self.subject_optional and not optional:
            self.problem(": subject is missing, but the prompt has its place {}")
        if prompt and target and (subject or optional):
            named = subject and (not optional or subject.lower() in prompt.lower())
            try:
                return make(prompt, subject, target) if named else EditRequest.whole(prompt, target)
            except MetakeError as error:
                self.problem(f": {_shortened(str(error))}", _request_reason(str(error)))
        return PLACEHOLDER_REQUEST


def _request_reason(message: str) -> str:
    """A problem of a request without the texts of the record."""
    if "is not in the prompt" in message:
        return "subject is not in the prompt"
    if "gaps" in message:
        return f"prompt must contain {PLACEHOLDER} once"
    return "prompt, subject or target cannot be used"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not is_missing(value)


def is_missing(value: Any) -> bool:
    """Whether a value stands for no value: null, or NaN, as tables of pandas write it.

    Args:
        value: value of a field.

    Returns:
        False for an empty text.
    """
    return value is None or (isinstance(value, float) and math.isnan(value))


def flat_answers(value: Any) -> tuple[str, ...] | None:
    """All names of an answer: of a text, a number, an object with `value` and `aliases`, or a nested list of them.

    Args:
        value: value of a field.

    Returns:
        the names in their order, each once; empty texts and nulls are left out. None for other values.
    """
    if is_missing(value):
        return ()
    if isinstance(value, str):
        return (value.strip(),) if value.strip() else ()
    if _is_number(value):
        return (str(value),)
    if isinstance(value, dict) and "value" in value:
        value = [value["value"], value.get("aliases")]
    if not isinstance(value, list):
        return None
    parts = [flat_answers(part) for part in value]
    if any(part is None for part in parts):
        return None
    return tuple(dict.fromkeys(answer for part in parts for answer in part or ()))


def suggestion(key: str, names: Iterable[str]) -> str:
    """` (did you mean 'rephrase'?)`, for a field of another name; empty if none is similar.

    Args:
        key: name of the field.
        names: names of known fields.

    Returns:
        the text to be appended to the field's name.
    """
    names = list(names)
    similar = "" if key in names else did_you_mean(key, names)
    return f" ({similar})" if similar else ""


def misspelled(content: Iterable[str], names: Iterable[str]) -> str:
    """`; 'promt': did you mean 'prompt'?` for the first field that may be one of several names; empty if none may.

    Args:
        content: names of the fields of a record.
        names: names of known fields.

    Returns:
        the text to be appended to a problem.
    """
    known = list(names)
    found = ((key, did_you_mean(key, known)) for key in content if key not in known)
    return next((f"; {one_line(key)!r}: {similar}" for key, similar in found if similar), "")


PLACEHOLDER_REQUEST = EditRequest("{}", "-", "-")


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else f"{text[:297]}..."


def listed(problems: Iterable[str]) -> str:
    """The first few problems, and the number of further ones.

    Args:
        problems: messages about records.

    Returns:
        the part of an error line.
    """
    every = [_shortened(problem) for problem in problems]
    more = f"; and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return "; ".join(every[:SHOWN]) + more
