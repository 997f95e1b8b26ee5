"""What the library does, in a few minutes on two cores: `make demo`.

    python experiments/demo.py --out results/demo

(a) A dozen well-known facts, edited in a real pretrained model, as questions and answers.
(b) A hundred facts of the made-up world, edited in batches in a demo model, as a table and a figure.
Both end in `report.html`; all numbers in `results.json`.
"""

from __future__ import annotations

import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from metake.console import command, draw_or_note
from metake.data.records import read_records
from metake.errors import MetakeError
from metake.evaluation.compare import Comparison, compare
from metake.evaluation.glossary import GLOSSARY, LABELS
from metake.files import write_json
from metake.models.load import ASSETS, load
from metake.options import Parser, at_least, find_statistics, output_folder
from metake.presets import held_out_text, settings_for
from metake.report.figures import plot_realisation
from metake.report.page import write_page

METHODS = ("memit", "alphaedit", "metake")
CONTROLS = ("memit-compensated", "memit@unstopped")


def run(model: str, data: Path, methods: tuple[str, ...], edits: int, batch: int) -> Comparison:
    """All methods on the first `edits` records of `data`, with the model's presets."""
    loaded = load(model)
    records = read_records(data, edits)
    settings = {name: settings_for(loaded.arch, name) for name in methods}
    statistics = find_statistics(loaded, settings.values(), None, None)
    with tqdm(total=len(records) * len(methods), unit="edit", desc=f"{model}: editing") as bar:
        return compare(
            loaded, records, settings, statistics, batch=batch, text=held_out_text(model),
            tick=bar.update, data=data.name,
        )  # fmt: skip


def dialogues(comparison: Comparison) -> list[dict[str, Any]]:
    """Every edit as lines of question, answer before, answers after."""

    def plain(text: str) -> str:
        return text.removeprefix("Q: ").removesuffix("\nA:")

    out = []
    for i, (prompt, target, _, rephrase, locality, _) in enumerate(comparison.content["requests"]):
        before = comparison.before.answers[i]
        wanted = (target, target, before[2])
        lines = [
            {
                "kind": kind,
                "question": plain(question),
                "before": before[j],
                "wanted": wanted[j],
                "answers": {run.method: run.after.answers[i][j] for run in comparison.runs},
            }
            for j, (kind, question) in enumerate(
                (("edited", prompt), ("reworded", rephrase), ("neighbour", locality))
            )
        ]
        out.append({"subject": plain(prompt), "target": target, "lines": lines})
    return out


def show(lines: list[dict[str, Any]]) -> None:
    for edit in lines:
        print(f"\n{edit['subject']}  ->  {edit['target']}")
        for line in edit["lines"]:
            answers = "   ".join(f"{m}: {a!r}" for m, a in line["answers"].items())
            print(
                f"  {line['kind']:9} {line['question']}\n            before: {line['before']!r}   {answers}"
            )


@command("demo")
def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--out", type=output_folder, default="results/demo")
    parser.add_argument("--model", default="demo", help="demo model of part (b)")
    parser.add_argument("--edits", type=at_least(1), default=100)
    parser.add_argument("--batch", type=at_least(1), default=20)
    parser.add_argument("--skip-real", action="store_true", help="part (b) alone")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    started = time.perf_counter()

    sections, lines, results = [], [], {}
    if not args.skip_real:
        try:
            real = run("smollm2", ASSETS / "world" / "real_facts.json", METHODS, 12, 12)
        except MetakeError as error:
            print(f"part (a) is left out: {error}")
        else:
            results["smollm2"] = real.content
            write_json(args.out / "results.json", results)
            lines = dialogues(real)
            show(lines)
            print(real.table())
            figures = draw_or_note(partial(
                plot_realisation, {r.method: r.batches for r in real.runs}, args.out / "realisation-smollm2.png"
            ))  # fmt: skip
            head, rows = real.cells()
            sections.append({
                "title": "SmolLM2-135M-Instruct, 12 facts in one batch", "head": head, "rows": rows,
                "figures": figures,
                "text": "The same edits as numbers (per cent; perplexity on held-out text).",
            })  # fmt: skip

    made_up = run(args.model, ASSETS / "world" / "test.json", (*METHODS, *CONTROLS), args.edits, args.batch)
    results[args.model] = made_up.content
    write_json(args.out / "results.json", results)
    print(made_up.table())
    shown = {r.method: r.batches for r in made_up.runs[: len(METHODS)]}
    figures = draw_or_note(lambda: plot_realisation(shown, args.out / f"realisation-{args.model}.png"))
    head, rows = made_up.cells()
    sections.append({
        "title": f"{args.model}: {args.edits} test facts in consecutive batches of {args.batch}",
        "head": head, "rows": rows, "figures": figures,
        "text": "Judged after the last batch, all facts, on one model; settings chosen on the development "
        "split with the same number of trials for every method. The last two rows are controls.",
    })  # fmt: skip
    glossary = {LABELS[name]: meaning for name, meaning in GLOSSARY.items()}
    page = write_page(
        args.out / "report.html", title="MetaKE: edits, seen and measured", dialogues=lines,
        sections=sections, glossary=glossary,
    )  # fmt: skip
    print(f"\n{time.perf_counter() - started:.0f} s; open {page}; numbers in {args.out / 'results.json'}")


if __name__ == "__main__":
    main()
