"""The runs of the demonstration, and their page."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from metake.data.records import read_records
from metake.demo.story import CLOSED, conclusion, missed_by_open, story_methods, tell_reason, tell_result
from metake.errors import MetakeError
from metake.evaluation.conclusion import conclude
from metake.evaluation.glossary import explain
from metake.evaluation.page import (
    ATTENUATION,
    LEGEND,
    PRESETS,
    answer_sections,
    dialogues,
    result_section,
)
from metake.evaluation.protocol import Protocol
from metake.evaluation.results import Results
from metake.files import write_json
from metake.methods.base import Method
from metake.models.load import EditableModel, load
from metake.options import find_statistics
from metake.presets import methods_for
from metake.report.answers import Dialogue
from metake.report.page import Section, write_page
from metake.shipped import ASSETS
from metake.texts import held_out_text
from metake.tuning.searched import searched_names

METHODS = ("memit", "alphaedit", "metake")
CONTROLS = ("memit-compensated", "memit@unstopped")
BATCHES = (
    "All facts are judged after the last batch, on one model. The last two methods are controls: the open-loop plan "
    "lengthened until it is executed in full, and MEMIT that never stops early."
)
REAL, MADE_UP = ASSETS / "world" / "real_facts.json", ASSETS / "world" / "test.json"


def with_presets(*names: str) -> Callable[[EditableModel], list[Method]]:
    """The variants of some methods that a model's preset has numbers for."""
    return lambda loaded: methods_for(loaded, searched_names(loaded.arch, names))


def run(
    loaded: EditableModel, data: Path, choose: Callable[[EditableModel], list[Method]], edits: int, batch: int
) -> Results:
    """All methods on the first `edits` records of `data`."""
    records = read_records(data, edits)
    methods = choose(loaded)
    statistics = find_statistics(loaded, methods, None, None)
    protocol = Protocol(records, batch, text=held_out_text(loaded.name))
    with tqdm(
        total=len(records) * len(methods), unit="edit", desc=f"{loaded.name}: editing", disable=None
    ) as bar:
        return protocol.run(loaded, methods, statistics, on_edit=bar.update, data=data.name)


def show(talks: list[Dialogue]) -> None:
    """Print questions and answers."""
    for talk in talks:
        print(f"\n{talk.title}")
        for line in talk.lines:
            print(f"  {line.kind:9} {line.question}")
            for name, answer in line.answers.items():
                mark = f"  [{answer.verdict}]" if answer.verdict else ""
                print(f"    {name}: {answer.text!r}{mark}")


def real_model() -> EditableModel | None:
    """SmolLM2, or None with a note where it is not installed."""
    try:
        return load("smollm2")
    except MetakeError as error:
        print(f"the real model is left out: {error}")
        return None


def story_sections(story: Results, out: Path, model: str) -> list[Section]:
    """The beginning of the page: edits that the open loop misses, then why it does."""
    missed = dialogues(story.content, missed_by_open(story.content))
    title = f"{model}: edits that an open loop misses and a closed loop makes"
    first = Section(
        title if missed else f"{model}: open and closed loop under the same constraint",
        [
            *tell_result(story.content),
            *([f"These are the edits that only {CLOSED} makes. {LEGEND}"] if missed else []),
        ],
        dialogues=missed,
    )
    reasons = [ATTENUATION, *tell_reason(story.content), *conclusion(story.content)]
    return [
        first,
        result_section(story, out / "same-constraint.png", title="Why: attenuation", paragraphs=reasons),
    ]


def demonstrate(model: str, edits: int, batch: int, out: Path, *, with_real: bool = True) -> Path:
    """Run all parts, save their numbers, and write the page.

    Args:
        model: demo model of the last part.
        edits: facts of the last part.
        batch: edits per batch of the last part.
        out: folder of the page and of `results.json`.
        with_real: use the real model, if it is installed.

    Returns:
        Path of the page.

    Raises:
        MetakeError: the model cannot be loaded.
    """
    started = time.perf_counter()
    real = real_model() if with_real else None
    small = load(model, chat=None)
    subject = real or small

    def same_constraint(loaded: EditableModel) -> list[Method]:
        return story_methods(loaded.arch, loaded.name)

    story = run(subject, REAL if real else MADE_UP, same_constraint, 6 if real else 12, 12)
    results = {f"{subject.name}, same constraint": story.content}
    write_json(out / "results.json", results)
    print(
        "\n".join(
            [
                "",
                *tell_result(story.content),
                *tell_reason(story.content),
                *conclusion(story.content),
                "",
                story.table(),
            ]
        )
    )
    sections = story_sections(story, out, subject.name)
    answers = answer_sections(story.content, f"Answers of {subject.name} under the same constraint")
    heads = [*story.cells()[0]]

    if real:
        presets = run(real, REAL, with_presets(*METHODS), 12, 12)
        results["smollm2"] = presets.content
        write_json(out / "results.json", results)
        show(dialogues(presets.content))
        print(presets.table())
        heads += presets.cells()[0]
        sections.append(
            result_section(
                presets,
                out / "realisation-smollm2.png",
                title="smollm2: 12 facts in one batch, each method with its preset",
                paragraphs=[PRESETS, *conclude(presets.content)],
            )
        )
        answers += answer_sections(presets.content, "Answers of smollm2, each method with its preset")
    made_up = run(small, MADE_UP, with_presets(*METHODS, *CONTROLS), edits, batch)
    results[model] = made_up.content
    write_json(out / "results.json", results)
    print(made_up.table())
    sections.append(
        result_section(
            made_up,
            out / f"realisation-{model}.png",
            title=f"{model}: {edits} test facts in consecutive batches of {batch}, presets",
            paragraphs=[*([] if real else [PRESETS]), BATCHES, *conclude(made_up.content)],
        )
    )
    page = write_page(
        out / "report.html",
        title="MetaKE: what edits change, and how much of each is realized",
        sections=[*sections, *answers],
        glossary=explain([*heads, *made_up.cells()[0]]),
    )
    print(f"\n{time.perf_counter() - started:.0f} s; open {page}; numbers in {out / 'results.json'}")
    return page
