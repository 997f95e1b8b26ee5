"""Every case of a result file with its texts: as lines of a file, and as the dialogues of a page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from metake.evaluation.wild import rules_of
from metake.files import write_text
from metake.report.answers import Answer, Dialogue, Line, judge_neighbor, judge_target
from metake.report.page import Section
from metake.words import counted

ANSWERS = "answers.jsonl"
KINDS = ("edited", "rephrased", "neighbor")
LEGEND = (
    "✓ on an edited or rephrased question: the answer begins with the new target. On a neighbor, which the edit must not "
    "change: the answer is the unedited model's, or it names the true answer."
)


def question(prompt: str) -> str:
    """A prompt without the frame `Q: ... A:`.

    Args:
        prompt: the prompt.

    Returns:
        the question alone.
    """
    return prompt.removeprefix("Q: ").removesuffix("\nA:")


def case_lines(content: Mapping[str, Any], index: int) -> list[Line]:
    """The prompts of one edit with the answers before and after; none without any answer.

    Args:
        content: content of a result file, or one of its further draws.
        index: position of the edit.

    Returns:
        one line per prompt that the record has, with the judged answer of every method.
    """
    prompt, target, _, rephrase, locality, truth = content["requests"][index]
    before = content["before"]["answers"][index]
    answers = {row["method"]: row["answers"][index] for row in content["methods"]}
    if not any((*before, *(answer for each in answers.values() for answer in each))):
        return []
    begins = rules_of(content.get("protocol", {}).get("name", "published")).is_right

    def judge(kind: int, answer: str) -> Answer:
        if kind == 2:
            return judge_neighbor(answer, before[2], truth)
        return judge_target(answer, target, begins)

    return [
        Line(
            KINDS[kind],
            text,
            {
                "before": Answer(before[kind]),
                **{name: judge(kind, each[kind]) for name, each in answers.items()},
            },
        )
        for kind, text in enumerate((prompt, rephrase, locality))
        if text
    ]


def dialogues(content: Mapping[str, Any], which: Sequence[int] | None = None) -> list[Dialogue]:
    """Edits of a result file as questions and answers; none without free generation.

    Args:
        content: content of the result file.
        which: positions of the edits; all by default.

    Returns:
        one dialogue per edit, with the answers before and after.
    """
    made = []
    for index in range(content["edits"]) if which is None else which:
        prompt, target, *_ = content["requests"][index]
        lines = [
            Line(line.kind, question(line.question), line.answers) for line in case_lines(content, index)
        ]
        if lines:
            made.append(Dialogue(f"{question(prompt)} → {target}", lines))
    return made


def answer_sections(content: Mapping[str, Any], title: str) -> list[Section]:
    """All edits as questions and answers, in one section; none without free generation.

    Args:
        content: content of the result file.
        title: title of the section.

    Returns:
        one section, or none.
    """
    talks = dialogues(content)
    if not talks:
        return []
    count = content["edits"]
    some = f"{len(talks)} of {counted(count, 'edit')}" if len(talks) < count else "All edits"
    return [
        Section(title, dialogues=talks, paragraphs=[f"{some}, with the answers before and after. {LEGEND}"])
    ]


def case_records(content: Mapping[str, Any], draw: int = 0) -> Iterator[dict[str, Any]]:
    """Every prompt of every edit of one draw, as plain values.

    Args:
        content: content of a result file, or one of its further draws.
        draw: number of the draw.

    Yields:
        One object per prompt (docs/files.md).
    """
    for index, (_, target, _, _, _, truth) in enumerate(content["requests"]):
        for line in case_lines(content, index):
            yield {
                "draw": draw,
                "record": index + 1,
                "kind": line.kind,
                "prompt": line.question,
                "expected": truth if line.kind == "neighbor" else target,
                "before": line.answers["before"].text,
                "after": {
                    name: {"answer": answer.text, "right": answer.good, "verdict": answer.verdict}
                    for name, answer in line.answers.items()
                    if name != "before"
                },
            }


def write_answers(content: Mapping[str, Any], out: Path) -> list[str]:
    """Write the texts of every case of every draw as JSON Lines; without free generation, an earlier file is removed.

    Args:
        content: content of the result file.
        out: folder of the results.

    Returns:
        Name of the file; empty without answers.
    """
    protocol = {"protocol": content.get("protocol", {})}
    draws = [content, *({**protocol, **draw} for draw in content.get("draws", ()))]
    lines = [record for number, draw in enumerate(draws) for record in case_records(draw, number)]
    if not lines:
        (out / ANSWERS).unlink(missing_ok=True)
        return []
    write_text(out / ANSWERS, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return [ANSWERS]
