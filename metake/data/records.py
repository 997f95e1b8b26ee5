"""Facts to be edited and the prompts that evaluate the edit, read from every format of docs/data.md.

A record is a request and its evaluation prompts. The request contains none of these prompts, so a target is never
optimized on the prompts that evaluate it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from metake.data.entries import read_entries
from metake.errors import MetakeError
from metake.files import as_path
from metake.names import did_you_mean
from metake.requests import GAP, Request, is_unicode, one_line

SHOWN = 5  # problems that an error line names


@dataclass(frozen=True)
class Record:
    """One edit and its evaluation prompts.

    Attributes:
        request: the edit request.
        rephrase: the same question in other words (generalisation); empty if the file has none.
        locality, locality_answer: an unrelated question and its true answer (specificity); both may be empty.
        truth: the old or true answer, for display; may be empty.
        same_subject: other prompts about the subject with their true answers.
        rival: the target that the new one replaces, for CounterFact's metrics; empty if there is none.
        rephrases, neighbours: all paraphrases, and prompts about other subjects whose answer is `rival`.
        generation_prompts: prompts for free generation about the subject.
        attribute: ids of the relation and of the new target (the key of reference texts); None if the file has none.
    """

    request: Request
    rephrase: str = ""
    locality: str = ""
    locality_answer: str = ""
    truth: str = ""
    same_subject: tuple[tuple[str, str], ...] = ()
    rival: str = ""
    rephrases: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    generation_prompts: tuple[str, ...] = ()
    attribute: tuple[str, str] | None = None


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
        asked: names that a field may have, whether the record has it or not.
    """

    where: str
    content: dict[str, Any]
    problems: list[str]
    used: set[str] = field(default_factory=set)
    asked: dict[str, None] = field(default_factory=dict)

    @classmethod
    def of(cls, index: int, entry: Any, problems: list[str]) -> Fields:
        """The fields of an entry of a file; none if it is no object.

        Args:
            index: position of the entry in the file, from 0; messages count from 1.
        """
        fields = cls(f"record {index + 1}", entry if isinstance(entry, dict) else {}, problems)
        if not isinstance(entry, dict):
            fields.problem(" is not an object with fields")
        return fields

    def problem(self, text: str) -> None:
        self.problems.append(f"{self.where}{text}")

    def name_of(self, *names: str) -> str:
        """The first of several names that has a value; if none has, the first that is there, or that might be."""
        self.asked |= dict.fromkeys(names)
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
        """The fields of an object in a field."""
        value = self.content.get(self.name_of(name))
        if name not in self.content:
            self.missing(name)
        elif not isinstance(value, dict):
            self.problem(f": {name} must be an object with fields")
        return Fields(self.where, value if isinstance(value, dict) else {}, self.problems)

    def pairs(self, name: str, groups: bool = False) -> tuple[tuple[str, str], ...]:
        """Prompts with their answers: a list of `{"prompt", "ground_truth"}` (or `"answer"`).

        Args:
            groups: an object of such lists under names of their own is read, too.
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
        self, prompt: str, subject: str, target: str, make: Callable[..., Request] = Request.parse
    ) -> Request:
        """The request of three texts; a placeholder if one of them is missing, which is already in `problems`."""
        if prompt and subject and target:
            try:
                return make(prompt, subject, target)
            except MetakeError as error:
                self.problem(f": {_shortened(str(error))}")
        return STAND_IN


def suggestion(key: str, names: Iterable[str]) -> str:
    """` (did you mean 'rephrase'?)`, for a field of another name; empty if none is similar."""
    names = list(names)
    similar = "" if key in names else did_you_mean(key, names)
    return f" ({similar})" if similar else ""


def misspelled(content: Iterable[str], names: Iterable[str]) -> str:
    """`; 'promt': did you mean 'prompt'?` for the first field that may be one of several names; empty if none may."""
    known = list(names)
    found = ((key, did_you_mean(key, known)) for key in content if key not in known)
    return next((f"; {one_line(key)!r}: {similar}" for key, similar in found if similar), "")


STAND_IN = Request("{}", "-", "-")


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else f"{text[:297]}..."


def _question(text: str) -> str:
    """zsRE's `loc` leaves its question mark to the reader."""
    return text if not text or text.endswith(("?", ":", ".")) else text + "?"


def _locality(
    fields: Fields, prompt_names: tuple[str, ...], answer_names: tuple[str, ...]
) -> tuple[str, str]:
    """An unrelated prompt and its answer, both or none."""
    prompt, answer = fields.optional(*prompt_names), fields.answer(*answer_names)
    if bool(prompt) != bool(answer):
        there, missing = (prompt_names, answer_names) if prompt else (answer_names, prompt_names)
        fields.problem(f": {fields.name_of(*there)} needs {fields.name_of(*missing)} beside it")
    return prompt, answer


def _zsre(fields: Fields) -> Record:
    known = len(fields.problems)
    target = fields.answer("answers")
    if not target and len(fields.problems) == known:
        if "answers" in fields.content:
            fields.problem(": answers is empty; its first entry is the target")
        else:
            fields.missing("answers")
    locality, answer = _locality(fields, ("loc",), ("loc_ans",))
    return Record(
        fields.request(fields.text("src"), fields.text("subject"), target, Request.from_text),
        fields.optional("rephrase"),
        _question(locality),
        answer,
        fields.answer("pred"),
        fields.pairs("same_subject"),
    )


def _fact(fields: Fields) -> Record:
    """One's own facts, and EasyEdit's: `locality` is a prompt, or groups of prompts with their answers."""
    prompt, subject, target = (
        fields.text("prompt"),
        fields.text("subject"),
        fields.text("target_new", "target"),
    )
    rephrases = fields.texts("rephrase", "rephrase_prompt")
    truth, same_subject = fields.answer("ground_truth"), fields.pairs("same_subject")
    if isinstance(fields.content.get("locality"), dict | list):
        pairs = fields.pairs("locality", groups=True)
        others = [pair for pair in pairs if subject and subject not in pair[0]]
        locality, answer = next(iter([*others, *pairs]), ("", ""))
        same_subject += tuple(pair for pair in pairs if subject in pair[0] and pair[0] != locality)
    else:
        locality, answer = _locality(
            fields, ("locality", "locality_prompt"), ("locality_answer", "locality_ground_truth")
        )
    return Record(
        fields.request(prompt, subject, target),
        rephrases[0] if rephrases else "",
        locality,
        answer,
        truth,
        same_subject,
        rival=truth,
        rephrases=rephrases,
        neighbours=(locality,) if locality and answer == truth else (),
        generation_prompts=fields.texts("generation_prompts"),
    )


def _counterfact(fields: Fields) -> Record:
    """The original format: several paraphrases and neighbours, the answer of a neighbour is the old target."""
    rewrite = fields.inside("requested_rewrite")
    target, old = rewrite.inside("target_new"), rewrite.inside("target_true")
    relation, target_id, true = rewrite.optional("relation_id"), target.optional("id"), old.text("str")
    rephrases, neighbours = fields.texts("paraphrase_prompts"), fields.texts("neighborhood_prompts")
    return Record(
        fields.request(rewrite.text("prompt"), rewrite.text("subject"), target.text("str"), Request),
        rephrases[0] if rephrases else "",
        neighbours[0] if neighbours else "",
        true if neighbours else "",
        true,
        rival=true,
        rephrases=rephrases,
        neighbours=neighbours,
        generation_prompts=fields.texts("generation_prompts"),
        attribute=(relation, target_id) if relation and target_id else None,
    )


READERS: dict[str, Callable[[Fields], Record]] = {
    "requested_rewrite": _counterfact,
    "src": _zsre,
    "prompt": _fact,
}
# of published files: numbers of records, and what other programs use
PASSED_OVER = {"case_id", "pararel_idx", "id", "alt", "cond", "attribute_prompts"}


def read_records(path: Path | str, limit: int | None = None, need: Sequence[str] = ()) -> list[Record]:
    """Read a file of records. The file's name and fields determine the format (docs/data.md).

    Args:
        limit: read the first records, this many.
        need: attributes of `Record` that every record must have, e.g. `rephrase`.

    Raises:
        MetakeError: no such file, no records, or records without a needed field; the line names the first few problems.
    """
    if limit is not None and limit < 1:
        raise MetakeError(f"records: at least 1 is needed, asked for {limit}")
    path = as_path(path, "records")
    return parse_records(path, read_entries(path)[:limit], need)


def _completed(record: Record) -> Record:
    """A record with the subject in place of `{}` in its prompts, and without a rival that equals the target."""
    subject = record.request.subject

    def named(prompt: str) -> str:
        return prompt if subject in prompt else prompt.replace(GAP, subject)

    return replace(
        record,
        rephrase=named(record.rephrase),
        rephrases=tuple(map(named, record.rephrases)),
        generation_prompts=tuple(map(named, record.generation_prompts)),
        same_subject=tuple((named(prompt), answer) for prompt, answer in record.same_subject),
        rival="" if record.rival == record.request.target else record.rival,
    )


def parse_records(path: Path, content: Sequence[Any], need: Sequence[str] = ()) -> list[Record]:
    """Records of entries; `path` is for messages."""
    problems: list[str] = []
    unused: dict[str, None] = {}
    records = []
    for index, entry in enumerate(content):
        fields = Fields.of(index, entry, problems)
        read = next((read for key, read in READERS.items() if key in fields.content), None)
        if read is None and isinstance(entry, dict):
            kinds = "neither 'prompt' nor 'src' (zsRE) or 'requested_rewrite' (CounterFact)"
            fields.problem(f" has {kinds}{misspelled(entry, READERS)}")
            fields.text("subject")
            if "answers" not in entry:
                fields.text("target_new", "target")
        elif not is_unicode(json.dumps(entry, ensure_ascii=False)):
            fields.problem(" holds half of a surrogate pair; write the whole character")
        elif read is not None:
            records.append(_completed(read(fields)))
            for name in need:
                if not getattr(records[-1], name):
                    fields.problem(f" has no {name}, which is needed here")
            rest = [name for name in entry if name not in fields.used | PASSED_OVER]
            unused |= dict.fromkeys(one_line(name) + suggestion(name, fields.asked) for name in rest)
    if problems:
        raise MetakeError(f"{path}: {listed(problems)}; correct them as docs/data.md shows")
    if unused:
        warnings.warn(f"{path}: not used: {', '.join(list(unused)[:SHOWN])}", stacklevel=3)
    return records


def listed(problems: Iterable[str]) -> str:
    """The first few problems, and how many more there are."""
    every = [_shortened(problem) for problem in problems]
    more = f"; and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return "; ".join(every[:SHOWN]) + more
