"""Fields of a record of a file, with the problems of reading them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from metake.errors import MetakeError
from metake.names import did_you_mean
from metake.requests import EditRequest, one_line

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
    """

    where: str
    content: dict[str, Any]
    problems: list[str]
    used: set[str] = field(default_factory=set)
    known: dict[str, None] = field(default_factory=dict)

    @classmethod
    def of(cls, index: int, entry: Any, problems: list[str]) -> Fields:
        """The fields of an entry of a file; none if it is no object.

        Args:
            index: position of the entry in the file, from 0; messages count from 1.
            entry: the entry.
            problems: problems of the whole file, to which those of this entry are added.

        Returns:
            the fields of the entry.
        """
        fields = cls(f"record {index + 1}", entry if isinstance(entry, dict) else {}, problems)
        if not isinstance(entry, dict):
            fields.problem(" is not an object with fields")
        return fields

    def problem(self, text: str) -> None:
        """Add a problem of this record.

        Args:
            text: the message after the record's name.
        """
        self.problems.append(f"{self.where}{text}")

    def name_of(self, *names: str) -> str:
        """The first of several names that has a value; if none has, the first that is there, or that might be."""
        self.known |= dict.fromkeys(names)
        there = [name for name in names if name in self.content]
        name = next((name for name in there if self.content[name] is not None), (*there, names[0])[0])
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
        elif value is None:
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
        return "" if value is None or value == "" else self.text(*names)

    def answer(self, *names: str) -> str:
        """A text, or the first of a list of names for the same answer; empty if the record has none."""
        name = self.name_of(*names)
        value = self.content.get(name)
        inner = value
        while isinstance(inner, list) and inner:
            inner = inner[0]
        if isinstance(inner, str):
            return inner.strip()
        if value is not None and inner != []:
            self.problem(f": {name} must be a text or a list of texts, the first of which is used")
        return ""

    def texts(self, *names: str) -> tuple[str, ...]:
        """A list of texts, or one text; possibly empty."""
        name = self.name_of(*names)
        value = self.content.get(name)
        if value is None:
            return ()
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
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
        return Fields(self.where, value if isinstance(value, dict) else {}, self.problems)

    def pairs(self, name: str, groups: bool = False) -> tuple[tuple[str, str], ...]:
        """Prompts with their answers: a list of `{"prompt", "ground_truth"}` (or `"answer"`).

        Args:
            name: name of the field.
            groups: an object of such lists under names of their own is read, too.

        Returns:
            pairs of prompt and answer; none if the field is missing or wrong.
        """
        value = self.content.get(self.name_of(name))
        if value is None:
            return ()
        before = len(self.problems)
        lists = list(value.values()) if groups and isinstance(value, dict) else [value]
        entries = [entry for part in lists for entry in (part if isinstance(part, list) else [part])]
        found = []
        for entry in entries:
            inner = Fields(f"{self.where}: {name}", entry if isinstance(entry, dict) else {}, [])
            prompt, answer = inner.text("prompt"), inner.answer("ground_truth", "answer")
            if inner.problems or not answer:
                shape = 'a list of objects with the texts "prompt" and "ground_truth"'
                self.problem(f": {name} must be {shape}" + (", or an object of such lists" if groups else ""))
                break
            found.append((prompt, answer))
        return tuple(found) if len(self.problems) == before else ()

    def request(
        self, prompt: str, subject: str, target: str, make: Callable[..., EditRequest] = EditRequest.parse
    ) -> EditRequest:
        """The request of three texts; a placeholder if one of them is missing, which is already in `problems`.

        Args:
            prompt: the prompt, complete or with `{}` for the subject.
            subject: the subject.
            target: the new target.
            make: constructor of the request.

        Returns:
            the request, or `PLACEHOLDER_REQUEST`.
        """
        if prompt and subject and target:
            try:
                return make(prompt, subject, target)
            except MetakeError as error:
                self.problem(f": {_shortened(str(error))}")
        return PLACEHOLDER_REQUEST


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
