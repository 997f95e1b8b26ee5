"""Groups of probes in a field of a record: objects, lists, or lists of lists of prompts with their answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from metake.data.fields import Fields, flat_answers
from metake.data.record import Kind, Probe

PROMPTS = ("prompt", "question", "loc")
ANSWERS = ("ground_truth", "answers", "answer", "loc_ans")


def read_groups(fields: Fields, name: str, kind: Kind) -> tuple[Probe, ...]:
    """Probes of an object of groups in a field; a list is one group with the field's name.

    A probe without a prompt or an answer is counted in `fields.dropped`.

    Args:
        fields: the fields of the record.
        name: name of the field.
        kind: whether the edit should change the answers.

    Returns:
        the probes, in the order of the field; none if the field is missing, null or empty.
    """
    value = fields.content.get(fields.name_of(name))
    groups = value if isinstance(value, dict) and not _is_entry(value) else {name: value}
    return tuple(
        probe for group, part in groups.items() for probe in group_probes(fields, str(group), part, kind)
    )


def group_probes(fields: Fields, group: str, value: Any, kind: Kind) -> Iterator[Probe]:
    """Probes of one group.

    Args:
        fields: the fields of the record.
        group: name of the group.
        value: a nested list of objects with a prompt and its answers, or one such object.
        kind: whether the edit should change the answers.

    Yields:
        the probes that have a prompt and an answer.
    """
    for entry in _entries(value):
        content = entry if isinstance(entry, dict) else {}
        prompt = next(iter(flat_answers(_first(content, PROMPTS)) or ()), "")
        yield from probe_of(fields, group, prompt, _first(content, ANSWERS), kind)


def probe_of(fields: Fields, group: str, prompt: Any, answers: Any, kind: Kind = "change") -> Iterator[Probe]:
    """The probe of a prompt and its answers, or a count in `fields.dropped`.

    Args:
        fields: the fields of the record.
        group: name of the group.
        prompt: the prompt.
        answers: its answers in any shape of `flat_answers`.
        kind: whether the edit should change the answers.

    Yields:
        the probe; nothing if it has no prompt or no answer.
    """
    found = flat_answers(answers)
    if isinstance(prompt, str) and prompt.strip() and found:
        yield Probe(group, prompt.strip(), found, kind)
    else:
        fields.dropped[
            f"{group}: no {'answer' if isinstance(prompt, str) and prompt.strip() else 'prompt'}"
        ] += 1


def _first(content: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((content[name] for name in names if content.get(name) is not None), None)


def _is_entry(value: dict[str, Any]) -> bool:
    return any(name in value and not isinstance(value[name], dict) for name in PROMPTS) and any(
        name in value for name in ANSWERS
    )


def _entries(value: Any) -> Iterator[Any]:
    """Entries of nested lists; an object of lists, `{"prompt": [..], "ground_truth": [..]}`, is a list of objects."""
    prompts = _first(value, PROMPTS) if isinstance(value, dict) else None
    if isinstance(value, list):
        for part in value:
            yield from _entries(part)
    elif isinstance(prompts, list):
        answers = _first(value, ANSWERS)
        for i, prompt in enumerate(prompts):
            at = answers[i] if isinstance(answers, list) and i < len(answers) else None
            yield {"prompt": prompt, "ground_truth": at}
    elif value is not None and value != "":
        yield value
