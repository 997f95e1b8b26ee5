"""The runs of the demonstration, and their page."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from metake.console import draw_or_note
from metake.data.records import read_records
from metake.demo.case import NONE, RULE, Case, choose_case, plot_case
from metake.demo.story import CLOSED, conclusion, missed_by_open, story_methods, tell_reason, tell_result
from metake.errors import MetakeError
from metake.evaluation.cases import LEGEND, answer_sections, dialogues
from metake.evaluation.conclusion import conclude
from metake.evaluation.glossary import explain
from metake.evaluation.page import ATTENUATION, PRESETS, result_section, short_sections
from metake.evaluation.protocol import Protocol
from metake.evaluation.results import Results
from metake.files import write_json
from metake.methods.base import Method
from metake.models.editable import EditableModel
from metake.models.load import load
from metake.options import find_statistics
from metake.presets import methods_for
from metake.report.answers import Dialogue
from metake.report.page import Picture, Section, write_page
from metake.shipped import ASSETS
from metake.texts import held_out_text
from metake.tuning.searched import searched_names

METHODS = ("memit", "alphaedit", "metake")
CONTROLS = ("memit-compensated", "memit@unstopped")
BATCHES = (
    "All facts are judged after the last batch, on one model. The last two methods are controls: the open-loop plan "
    "lengthened until it is realized in full, and MEMIT that never stops early."
)
REAL, MADE_UP = ASSETS / "world" / "real_facts.json", ASSETS / "world" / "test.json"


def with_presets(*names: str) -> Callable[[EditableModel], list[Method]]:
    """Choice of the variants of some methods that a model's preset has numbers for.

    Args:
        names: rows of the method table.

    Returns:
        A function of the model.
    """
    return lambda model: methods_for(model, searched_names(model, names))


def run(
    model: EditableModel, data: Path, choose: Callable[[EditableModel], list[Method]], edits: int, batch: int
) -> Results:
    """Results of several methods on the first records of a file.

    Args:
        model: the model.
        data: file of the records.
        choose: model -> methods.
        edits: number of records.
        batch: edits per batch.

    Returns:
        The results.
    """
    records = read_records(data, edits)
    methods = choose(model)
    statistics = find_statistics(model, methods, None, None)
    protocol = Protocol(records, batch, text=held_out_text(model.name))
    with tqdm(
        total=len(records) * len(methods), unit="edit", desc=f"{model.name}: editing", disable=None
    ) as bar:
        return protocol.run(model, methods, statistics, on_edit=bar.update, data=data.name)


def show(talks: list[Dialogue]) -> None:
    """Print questions and answers.

    Args:
        talks: one dialogue per edit.
    """
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


def case_pictures(case: Case | None, path: Path) -> list[Picture]:
    """The figure of a case, drawn now; none without a case.

    Args:
        case: the case.
        path: the figure's path.

    Returns:
        One picture, or none.
    """
    if case is None:
        return []
    caption = (
        "One edit at the same constraint. Hatched: the planned shift at the last edited layer; filled: the shift that the weights "
        f"realize. {case.described()}"
    )
    return [
        Picture(drawn, f"Bars of the planned and the realized shift. {case.described()}", caption)
        for drawn in draw_or_note(lambda: plot_case(case, path))
    ]


def story_sections(story: Results, out: Path, model: str) -> list[Section]:
    """Sections in short, of the edits that the open loop misses, and of the reason.

    Args:
        story: results of `story_methods`.
        out: folder of the page.
        model: name of the model.

    Returns:
        Three sections; the first figure is of one case.
    """
    missed, case = dialogues(story.content, missed_by_open(story.content)), choose_case(story.content)
    title = f"{model}: edits that an open loop misses and a closed loop makes"
    first = Section(
        title if missed else f"{model}: open and closed loop under the same constraint",
        [
            *tell_result(story.content),
            *([f"These are the edits that only {CLOSED} makes. {LEGEND}"] if missed else []),
            RULE if case else NONE,
        ],
        dialogues=missed,
        pictures=case_pictures(case, out / "case.png"),
    )
    reasons = [ATTENUATION, *tell_reason(story.content), *conclusion(story.content)]
    return [
        *short_sections(story.content),
        first,
        result_section(story, out / "same-constraint.png", title="Why: attenuation", paragraphs=reasons),
    ]


@dataclass(frozen=True)
class Part:
    """A part of the demonstration.

    Attributes:
        sections: sections of the page.
        answers: sections after those of all parts.
        columns: labels of the table, for the glossary.
    """

    sections: list[Section]
    answers: list[Section]
    columns: list[str]


@dataclass(frozen=True)
class Output:
    """Folder of the demonstration.

    Attributes:
        folder: the folder.
        numbers: title of a run -> content of its result file.
    """

    folder: Path
    numbers: dict[str, Any] = field(default_factory=dict)

    def save(self, title: str, results: Results) -> None:
        """Add a run to `results.json`.

        Args:
            title: title of the run.
            results: its results.
        """
        self.numbers[title] = results.content
        write_json(self.folder / "results.json", self.numbers)


def same_constraint(subject: EditableModel, data: Path, edits: int, output: Output) -> Part:
    """Open and closed loop under the same constraint.

    Args:
        subject: the model.
        data: file of the facts.
        edits: number of facts.
        output: folder of the demonstration.

    Returns:
        The part.
    """
    story = run(subject, data, story_methods, edits, 12)
    output.save(f"{subject.name}, same constraint", story)
    told = [*tell_result(story.content), *tell_reason(story.content), *conclusion(story.content)]
    print("\n".join(["", *told, "", story.table()]))
    return Part(
        story_sections(story, output.folder, subject.name),
        answer_sections(story.content, f"Answers of {subject.name} under the same constraint"),
        story.cells()[0],
    )


def well_known_facts(real: EditableModel, output: Output) -> Part:
    """A dozen facts in the real model, each method with its preset.

    Args:
        real: the model.
        output: folder of the demonstration.

    Returns:
        The part.
    """
    presets = run(real, REAL, with_presets(*METHODS), 12, 12)
    output.save("smollm2", presets)
    show(dialogues(presets.content))
    print(presets.table())
    section = result_section(
        presets,
        output.folder / "realization-smollm2.png",
        title="smollm2: 12 facts in one batch, each method with its preset",
        paragraphs=[PRESETS, *conclude(presets.content)],
    )
    answers = answer_sections(presets.content, "Answers of smollm2, each method with its preset")
    return Part([section], answers, presets.cells()[0])


def made_up_facts(
    small: EditableModel, model: str, edits: int, batch: int, output: Output, paragraphs: Sequence[str]
) -> Part:
    """Facts of the synthetic world in consecutive batches, with two controls.

    Args:
        small: the demo model.
        model: name of the demo model.
        edits: number of facts.
        batch: edits per batch.
        output: folder of the demonstration.
        paragraphs: text before the table.

    Returns:
        The part.
    """
    made_up = run(small, MADE_UP, with_presets(*METHODS, *CONTROLS), edits, batch)
    output.save(model, made_up)
    print(made_up.table())
    section = result_section(
        made_up,
        output.folder / f"realization-{model}.png",
        title=f"{model}: {edits} test facts in consecutive batches of {batch}, presets",
        paragraphs=[*paragraphs, BATCHES, *conclude(made_up.content)],
    )
    return Part([section], [], made_up.cells()[0])


def demonstrate(model: str, edits: int, batch: int, out: Path, *, with_real: bool = True) -> Path:
    """Run all parts, save their numbers, and write the page.

    A model that cannot be loaded raises a `MetakeError`.

    Args:
        model: demo model of the last part.
        edits: facts of the last part.
        batch: edits per batch of the last part.
        out: folder of the page and of `results.json`.
        with_real: use the real model, if it is installed.

    Returns:
        Path of the page.
    """
    started = time.perf_counter()
    real = real_model() if with_real else None
    small = load(model, chat=None)
    output = Output(out)
    if real:
        parts = [same_constraint(real, REAL, 6, output), well_known_facts(real, output)]
    else:
        parts = [same_constraint(small, MADE_UP, 12, output)]
    parts.append(made_up_facts(small, model, edits, batch, output, [] if real else [PRESETS]))
    page = write_page(
        out / "report.html",
        title="MetaKE: what edits change, and how much of each is realized",
        sections=[*chain(*(part.sections for part in parts)), *chain(*(part.answers for part in parts))],
        glossary=explain([label for part in parts for label in part.columns]),
    )
    print(f"\n{time.perf_counter() - started:.0f} s; open {page}; numbers in {out / 'results.json'}")
    return page
