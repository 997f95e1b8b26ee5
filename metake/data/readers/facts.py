"""One's own facts, and EasyEdit's and KnowEdit's: `prompt`, `subject`, `target_new`, and prompts that evaluate the edit."""

from __future__ import annotations

from metake.data.fields import Fields
from metake.data.groups import read_groups
from metake.data.readers.base import Reader
from metake.data.record import Record

IGNORED = frozenset({"case_id", "id", "cond"})


def locality_of(
    fields: Fields, prompt_names: tuple[str, ...], answer_names: tuple[str, ...]
) -> tuple[str, str]:
    """An unrelated prompt and its answer, both or none.

    Args:
        fields: the fields of the record.
        prompt_names: names of the prompt's field.
        answer_names: names of the answer's field.

    Returns:
        the prompt and the answer.
    """
    prompt, answer = fields.optional(*prompt_names), fields.answer(*answer_names)
    if bool(prompt) != bool(answer):
        there, missing = (prompt_names, answer_names) if prompt else (answer_names, prompt_names)
        fields.problem(f": {fields.name_of(*there)} needs {fields.name_of(*missing)} beside it")
    return prompt, answer


def read(fields: Fields) -> Record:
    """The record of an entry; `locality` is a prompt, or groups of prompts with their answers.

    Of groups, the first prompt that does not name the subject is the unrelated prompt, and those that name it are
    prompts about the same subject.

    Args:
        fields: the fields of the entry.

    Returns:
        the record.
    """
    prompt, subject = fields.text("prompt", "text"), fields.subject("subject", "concept")
    target = fields.target("target_new", "target", "labels")
    rephrases = fields.texts("rephrase", "rephrase_prompt")
    truth, same_subject = fields.answer("ground_truth"), fields.pairs("same_subject")
    probes = (*read_groups(fields, "portability", "change"), *read_groups(fields, "probes", "change"))
    if isinstance(fields.content.get("locality"), dict | list):
        kept = read_groups(fields, "locality", "keep")
        probes += kept
        pairs = [(probe.prompt, probe.answers[0]) for probe in kept]
        about = [pair for pair in pairs if subject and subject in pair[0]]
        others = [pair for pair in pairs if pair not in about]
        locality, answer = next(iter([*others, *pairs]), ("", ""))
        same_subject += tuple(pair for pair in about if pair[0] != locality)
    else:
        locality, answer = locality_of(
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
        probes=probes,
    )


FACTS = Reader(
    "facts",
    lambda entry: "prompt" in entry,
    read,
    "own facts, EasyEdit, LocFT's counterfact_3k and wikibigedit_3k",
    IGNORED,
)
KNOWEDIT = Reader(
    "knowedit",
    lambda entry: (
        ("prompt" in entry and ("portability" in entry or isinstance(entry.get("locality"), dict)))
        or {"text", "labels", "concept"} <= set(entry)
    ),
    read,
    "KnowEdit: wiki_recent, wiki_counterfact, ZsRE, WikiBio",
    IGNORED,
)
