"""What the library does, in a few minutes on two cores: `make demo`.

    python experiments/demo.py --out results/demo

(a) Six well-known facts in a real pretrained model, by an open and a closed loop under the same constraint.
(b) A dozen facts in the same model, each method with its preset, as questions and answers.
(c) Sixty facts of the made-up world, edited in batches in a demo model.
All end in `report.html`, all numbers in `results.json`. Without the real model, (a) runs on the demo model.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

# Other scripts are no installed package: they are found beside this folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


from metake.console import command
from metake.errors import MetakeError
from metake.files import write_json
from metake.options import Parser, at_least, find_statistics, output_folder, show_help
from metake.shipped import ASSETS


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--out",
        type=output_folder,
        default="results/demo",
        help="folder of the results; default: %(default)s",
    )
    parser.add_argument("--model", default="demo", help="demo model of part (c)")
    parser.add_argument(
        "--edits", type=at_least(1), default=60, help="facts of part (c); default: %(default)s"
    )
    parser.add_argument(
        "--batch", type=at_least(1), default=20, help="edits per batch of part (c); default: %(default)s"
    )
    parser.add_argument("--skip-real", action="store_true", help="without the real model")
    return parser


if __name__ == "__main__":
    show_help(options)

from tqdm import tqdm

from experiments.searched import searched_names
from experiments.story import CLOSED, conclusion, missed_by_open, story_methods, tell_reason, tell_result
from metake.data.records import read_records
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
from metake.methods.base import Method
from metake.models.load import EditableModel, load
from metake.presets import methods_for
from metake.report.answers import Dialogue
from metake.report.page import Section, write_page
from metake.texts import held_out_text

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


@command("demo")
def main() -> None:
    args = options().parse_args()
    warnings.simplefilter("ignore")
    started = time.perf_counter()

    real = None if args.skip_real else real_model()
    small = load(args.model, chat=None)
    subject = real or small

    def same_constraint(loaded: EditableModel) -> list[Method]:
        return story_methods(loaded.arch, loaded.name)

    story = run(subject, REAL if real else MADE_UP, same_constraint, 6 if real else 12, 12)
    results = {f"{subject.name}, same constraint": story.content}
    write_json(args.out / "results.json", results)
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
    sections = story_sections(story, args.out, subject.name)
    answers = answer_sections(story.content, f"Answers of {subject.name} under the same constraint")
    heads = [*story.cells()[0]]

    if real:
        presets = run(real, REAL, with_presets(*METHODS), 12, 12)
        results["smollm2"] = presets.content
        write_json(args.out / "results.json", results)
        show(dialogues(presets.content))
        print(presets.table())
        heads += presets.cells()[0]
        sections.append(
            result_section(
                presets,
                args.out / "realisation-smollm2.png",
                title="smollm2: 12 facts in one batch, each method with its preset",
                paragraphs=[PRESETS, *conclude(presets.content)],
            )
        )
        answers += answer_sections(presets.content, "Answers of smollm2, each method with its preset")
    made_up = run(small, MADE_UP, with_presets(*METHODS, *CONTROLS), args.edits, args.batch)
    results[args.model] = made_up.content
    write_json(args.out / "results.json", results)
    print(made_up.table())
    sections.append(
        result_section(
            made_up,
            args.out / f"realisation-{args.model}.png",
            title=f"{args.model}: {args.edits} test facts in consecutive batches of {args.batch}, presets",
            paragraphs=[*([] if real else [PRESETS]), BATCHES, *conclude(made_up.content)],
        )
    )
    page = write_page(
        args.out / "report.html",
        title="MetaKE: what edits change, and how much of each is realized",
        sections=[*sections, *answers],
        glossary=explain([*heads, *made_up.cells()[0]]),
    )
    print(f"\n{time.perf_counter() - started:.0f} s; open {page}; numbers in {args.out / 'results.json'}")


if __name__ == "__main__":
    main()
