"""Facts to be edited and the prompts that evaluate the edit, read from every format of docs/data.md.

A record is a request and its evaluation prompts. The request contains none of these prompts, so a target is never
optimized on the prompts that evaluate it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metake.data.entries import read_entries
from metake.data.fields import SHOWN, Fields, listed, misspelled, suggestion
from metake.errors import MetakeError
from metake.files import as_path
from metake.requests import PLACEHOLDER, EditRequest, is_unicode, one_line


@dataclass(frozen=True)
class Record:
    """One edit and its evaluation prompts.

    Attributes:
        request: the edit request.
        rephrase: the same question in other words (generalization); empty if the file has none.
        locality, locality_answer: an unrelated question and its true answer (specificity); both may be empty.
        ground_truth: the old or true answer, for display; may be empty.
        same_subject: other prompts about the subject with their true answers.
        target_true: the target that the new one replaces, for CounterFact's metrics; empty if there is none.
        rephrases, neighbors: all paraphrases, and prompts about other subjects whose answer is `target_true`.
        generation_prompts: prompts for free generation about the subject.
        attribute: ids of the relation and of the new target (the key of reference texts); None if the file has none.

    Example:
        >>> import metake
        >>> request = metake.EditRequest("Which city was {} born in?", "Niels Bohr", "Oslo")
        >>> metake.Record(request, rephrase="Where was Niels Bohr born?").rephrase
        'Where was Niels Bohr born?'
    """

    request: EditRequest
    rephrase: str = ""
    locality: str = ""
    locality_answer: str = ""
    ground_truth: str = ""
    same_subject: tuple[tuple[str, str], ...] = ()
    target_true: str = ""
    rephrases: tuple[str, ...] = ()
    neighbors: tuple[str, ...] = ()
    generation_prompts: tuple[str, ...] = ()
    attribute: tuple[str, str] | None = None


def _question(text: str) -> str:
    """A locality prompt of zsRE with its question mark, which the format leaves out."""
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
        fields.request(fields.text("src"), fields.text("subject"), target, EditRequest.from_text),
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
        target_true=truth,
        rephrases=rephrases,
        neighbors=(locality,) if locality and answer == truth else (),
        generation_prompts=fields.texts("generation_prompts"),
    )


def _counterfact(fields: Fields) -> Record:
    """The original format: several paraphrases and neighbors, the answer of a neighbor is the old target."""
    rewrite = fields.inside("requested_rewrite")
    target, old = rewrite.inside("target_new"), rewrite.inside("target_true")
    relation, target_id, true = rewrite.optional("relation_id"), target.optional("id"), old.text("str")
    rephrases, neighbors = fields.texts("paraphrase_prompts"), fields.texts("neighborhood_prompts")
    return Record(
        fields.request(rewrite.text("prompt"), rewrite.text("subject"), target.text("str"), EditRequest),
        rephrases[0] if rephrases else "",
        neighbors[0] if neighbors else "",
        true if neighbors else "",
        true,
        target_true=true,
        rephrases=rephrases,
        neighbors=neighbors,
        generation_prompts=fields.texts("generation_prompts"),
        attribute=(relation, target_id) if relation and target_id else None,
    )


READERS: dict[str, Callable[[Fields], Record]] = {
    "requested_rewrite": _counterfact,
    "src": _zsre,
    "prompt": _fact,
}
# of published files: numbers of records, and what other programs use
IGNORED_FIELDS = {"case_id", "pararel_idx", "id", "alt", "cond", "attribute_prompts"}


def read_records(path: Path | str, limit: int | None = None, need: Sequence[str] = ()) -> list[Record]:
    """Records of a file. The file's name and fields determine the format (docs/data.md).

    Args:
        path: the file.
        limit: maximum number of records, from the first; None reads all.
        need: attributes of `Record` that every record must have, e.g. `rephrase`.

    Returns:
        the records, in the file's order.

    Raises:
        MetakeError: no such file, no records, or records without a needed field; the line names the first few problems.

    Example:
        >>> import metake
        >>> from metake.shipped import ASSETS
        >>> len(metake.read_records(ASSETS / "world" / "test.json", limit=2))
        2
    """
    if limit is not None and limit < 1:
        raise MetakeError(f"records: at least 1 is needed, got {limit}")
    path = as_path(path, "records")
    return parse_records(path, read_entries(path)[:limit], need)


def _completed(record: Record) -> Record:
    """A record with the subject in place of `{}` in its prompts, and without an old target that equals the target."""
    subject = record.request.subject

    def named(prompt: str) -> str:
        return prompt if subject in prompt else prompt.replace(PLACEHOLDER, subject)

    return replace(
        record,
        rephrase=named(record.rephrase),
        rephrases=tuple(map(named, record.rephrases)),
        generation_prompts=tuple(map(named, record.generation_prompts)),
        same_subject=tuple((named(prompt), answer) for prompt, answer in record.same_subject),
        target_true="" if record.target_true == record.request.target_new else record.target_true,
    )


def parse_records(path: Path, content: Sequence[Any], need: Sequence[str] = ()) -> list[Record]:
    """Records of the entries of a file.

    Args:
        path: the file, for messages.
        content: its entries.
        need: as in `read_records`.

    Returns:
        one record per entry.

    Raises:
        MetakeError: an entry is no record, or lacks a needed field; the line names the first few problems.
    """
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
            fields.problem(" contains a lone surrogate; write the whole character")
        elif read is not None:
            records.append(_completed(read(fields)))
            for name in need:
                if not getattr(records[-1], name):
                    fields.problem(f" has no {name}, which is needed here")
            rest = [name for name in entry if name not in fields.used | IGNORED_FIELDS]
            unused |= dict.fromkeys(one_line(name) + suggestion(name, fields.known) for name in rest)
    if problems:
        raise MetakeError(f"{path}: {listed(problems)}; correct them as docs/data.md shows")
    if unused:
        warnings.warn(f"{path}: not used: {', '.join(list(unused)[:SHOWN])}", stacklevel=3)
    return records
