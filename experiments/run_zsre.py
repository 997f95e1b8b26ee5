"""The paper's protocol: consecutive batches on one model, all methods, several seeds, one table.

    python experiments/run_zsre.py                                  # demo model, synthetic facts, scaled down
    python experiments/run_zsre.py --model gpt2-xl --data zsre_mend_eval.json --methods all \
        --edits 2000 --batch 100 --seeds 3 --out results/gpt2-xl
    python experiments/run_zsre.py --model gpt2-xl --data multi_counterfact.json \
        --fluency 2000 --references attribute_snippets.json

Records are those of a zsRE or CounterFact file. Seed 0 takes the first ones in the file's order, as
published; every other seed draws its own. Statistics are shared by all methods, sampled contexts by
all methods of a seed. Every batch is kept on disk: the same command goes on where a killed run
stopped, and ends with the same weights and numbers. Writes results.json, and the table as Markdown,
LaTeX and CSV, and the curves over the number of edits; partial.json has what was seen of a run that
has not ended. Methods edit the same facts: what they differ by is known far better than what either
reaches, and `--against METHOD` says it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


from metake.console import command, draw_or_note, set_interrupt_message
from metake.errors import MetakeError
from metake.extras import require
from metake.files import write_json
from metake.names import unknown_name
from metake.options import (
    Parser,
    at_least,
    chosen_model,
    find_statistics,
    model_options,
    output_folder,
    show_help,
)
from metake.shipped import ASSETS, DEMOS


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    model_options(parser, chat=True)
    parser.add_argument("--data", type=Path, help="default: the demo world's test facts")
    parser.add_argument(
        "--methods",
        default="paper",
        help="names of methods, comma-separated; or paper, or all: rows of the table with the components of the preset",
    )
    parser.add_argument("--edits", type=at_least(1), help="default: 2000, or 100 on a demo model")
    parser.add_argument("--batch", type=at_least(1), help="default: 100, or 20 on a demo model")
    parser.add_argument(
        "--per-subject", type=at_least(1), default=1, help="so many facts about each subject, side by side"
    )
    parser.add_argument("--seeds", type=at_least(1), default=3, help="how many, from 0")
    parser.add_argument(
        "--untuned",
        action="store_true",
        help="the published defaults for every method instead of the model's preset",
    )
    parser.add_argument(
        "--preset",
        type=Path,
        metavar="FILE",
        help="searched settings, as tune.py writes them, instead of the model's preset",
    )
    parser.add_argument(
        "--hparams",
        action="append",
        metavar="[METHOD=]FILE",
        help="settings from a published file (ROME, MEMIT, AlphaEdit, UltraEdit, EasyEdit), several times",
    )
    parser.add_argument(
        "--against",
        metavar="METHOD",
        help="also the difference of every other method to this one, fact by fact, with its interval",
    )
    parser.add_argument(
        "--measure-every",
        type=at_least(1),
        metavar="BATCHES",
        help="also measure after every so many batches",
    )
    parser.add_argument("--no-generate", action="store_true", help="leave out free generation")
    parser.add_argument(
        "--fluency", type=at_least(0), default=0, help="measure sampled text of so many records (slow)"
    )
    parser.add_argument(
        "--references",
        type=Path,
        help="ROME's attribute_snippets.json: also measure the consistency of that text",
    )
    parser.add_argument("--stats", type=Path, help="statistics written by `metake stats`")
    parser.add_argument("--text", type=Path, help="text to collect statistics from")
    parser.add_argument("--out", type=output_folder, help="default: results/zsre/MODEL")
    return parser


if __name__ == "__main__":
    show_help(options)

from tqdm import tqdm

from metake.data.records import read_records
from metake.evaluation.checks import fitting_records
from metake.evaluation.consistency import find_references
from metake.evaluation.draws import draw_protocols, draw_records
from metake.evaluation.glossary import EVALUATION_TIMES, LABELS
from metake.evaluation.metrics import Measurement
from metake.evaluation.protocol import Protocol
from metake.evaluation.results import MethodRun, result_file
from metake.evaluation.summary import point, summary_content, summary_table, write_tables
from metake.methods.base import Method
from metake.methods.table import METHODS, method_named
from metake.models.editable import EditableModel
from metake.presets import load_preset, methods_for, preset_name
from metake.published import parse_files, published_for
from metake.report.figures import PUBLISHED, plot_sequence
from metake.report.tables import render
from metake.texts import held_out_text
from metake.tuning.searched import searched_names

PAPER = ("rome", "memit", "prune", "rect", "alphaedit", "alphaedit-blue", "metake-proxy", "metake")
GROUPS = {
    "paper": list(PAPER),
    "all": [name for name, row in METHODS.items() if not row.prototype.needs_fit],
}


def chosen_methods(text: str) -> list[str]:
    """Names of the option.

    Raises:
        MetakeError: one is not a method.
    """
    names = GROUPS.get(text) or [n.strip() for n in text.split(",") if n.strip()]
    for name in names:
        method_named(name)
    return list(dict.fromkeys(names))


def check_options(args: argparse.Namespace, names: list[str]) -> None:
    """Check the options against each other, before anything is loaded.

    Raises:
        MetakeError: two of them contradict, or one is missing.
    """
    if args.seeds >= 3:
        require("theory", "scipy", what=f"--seeds {args.seeds}: intervals over three or more seeds")
    if args.references is not None and args.fluency < 1:
        raise MetakeError("--references: there is no sampled text to compare; give --fluency N as well")
    if args.untuned and args.preset is not None:
        raise MetakeError("--preset: --untuned takes the published defaults; give one of the two")
    if args.preset is not None:
        load_preset(args.preset)
    if args.data is None and args.model not in DEMOS:
        raise MetakeError(f"--data: needed for {args.model}; give a zsRE or CounterFact file")
    if args.against is not None and args.against not in names:
        raise unknown_name("--against", args.against, names, "name one of --methods")


def prepare(
    args: argparse.Namespace, edits: int, batch: int
) -> tuple[EditableModel, list[Protocol], list[str]]:
    """The model, the protocol of every seed, and a line for each record that does not fit the model.

    Raises:
        MetakeError: no record can be used.
    """
    data = args.data or ASSETS / "world" / "test.json"
    everything = read_records(data)
    if not draw_records(everything, edits, 0, args.per_subject):
        raise MetakeError(f"--per-subject {args.per_subject}: {data} has no subject with so many records")
    references = None if args.references is None else find_references(args.references, everything, data)
    model = chosen_model(args)
    everything, left_out = fitting_records(model, everything)
    if not draw_records(everything, edits, 0, args.per_subject):
        raise MetakeError(f"{data}: no record fits the model")
    protocol = Protocol(
        everything,
        batch,
        generate=not args.no_generate,
        text=held_out_text(preset_name(model)),
        measure_every=args.measure_every,
        sampled_records=args.fluency,
        references=references,
    )
    return model, draw_protocols(protocol, edits, args.seeds, args.per_subject), left_out


def choose_methods(args: argparse.Namespace, model: EditableModel, names: list[str]) -> list[Method]:
    """The methods with their settings, one per name."""
    preset = "none" if args.untuned else args.preset
    published = published_for(parse_files(args.hparams), names, model)
    chosen = searched_names(model, names, preset) if args.methods in GROUPS else names
    own = {name: published[asked] for name, asked in zip(chosen, names, strict=True)}
    return methods_for(model, chosen, preset=preset, per_method=own)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Every method and seed; what is on disk already is not done again.

    Raises:
        MetakeError: model, data or an option cannot be used; the line says what to do.
    """
    names, demo = chosen_methods(args.methods), args.model in DEMOS
    check_options(args, names)
    edits, batch = args.edits or (100 if demo else 2000), args.batch or (20 if demo else 100)
    model, protocols, left_out = prepare(args, edits, batch)
    methods = choose_methods(args, model, names)
    against = None if args.against is None else methods[names.index(args.against)].name
    statistics = find_statistics(model, methods, args.stats, args.text)
    rows: dict[str, list[MethodRun]] = {method.name: [] for method in methods}
    befores: list[Measurement] = []
    partial: dict[str, Any] = {}  # measurements of the run that has not ended

    def on_measurement(edits: int, measurement: Measurement) -> None:
        bar.set_postfix_str(", ".join(f"{LABELS[m]} {100 * measurement.mean(m):.0f}" for m in PUBLISHED))
        partial["curve"].append(point(edits, measurement))
        write_json(args.out / "partial.json", partial)

    set_interrupt_message(f"finished batches are in {args.out / 'runs'}; rerun the command to resume")
    total = len(methods) * sum(len(protocol.records) for protocol in protocols)
    with tqdm(total=total, unit="edit", disable=None) as bar:
        for seed, protocol in enumerate(protocols):
            session = protocol.prepare(model, statistics)
            befores.append(session.before)
            for method in methods:
                bar.set_description(f"{method.name}, seed {seed}")
                partial.update(method=method.name, seed=seed, curve=[])
                folder = args.out / "runs" / f"{method.name}-{seed}"
                run = session.run(method, folder, on_edit=bar.update, on_measurement=on_measurement)
                rows[method.name].append(run)
                result = content(args, model, statistics, befores, rows, left_out, against)
                write_json(args.out / "results.json", result)
                (args.out / "partial.json").unlink(missing_ok=True)
    return result


def content(
    args: argparse.Namespace,
    model: EditableModel,
    statistics: Any,
    befores: list[Measurement],
    rows: dict[str, list[MethodRun]],
    left_out: list[str],
    against: str | None,
) -> dict[str, Any]:
    """The result file: mean and interval per method, every seed's run, and what each number means."""
    done = {name: runs for name, runs in rows.items() if runs}
    return {
        **result_file(model, befores[0], next(iter(done.values())), statistics),
        **summary_content(befores, done, against),
        "methods": {name: [run.row() for run in runs] for name, runs in done.items()},
        "arguments": {k: None if v is None else str(v) for k, v in vars(args).items()},
        "left_out": left_out,
        "d_k": model.d_k,
        "protocol": "consecutive batches on one model; teacher-forced unless the glossary says otherwise; "
        f"{EVALUATION_TIMES['end']}; intervals: 95%, over seeds from three on, over records (bootstrap) otherwise",
    }


def report(result: dict[str, Any], out: Path) -> None:
    """Write the tables and the curves, and print the table."""
    files = write_tables(result, out)
    head, rows = summary_table(result["summary"])
    print(render(f"{result['model']}, {result['arguments']['seeds']} seeds", head, rows, 150))
    print(f"written: {out}: {', '.join(['results.json', *files])}")
    if any(len(points) > 1 for runs in result["curves"].values() for points in runs):
        batch = len(next(iter(result["methods"].values()))[0]["batches"][0]["requests"])
        draw_or_note(lambda: plot_sequence(result["curves"], out / "curves.png", result["d_k"], batch))


@command("run_zsre")
def main() -> None:
    args = options().parse_args()
    args.out = args.out or output_folder(f"results/zsre/{Path(args.model).name}")
    report(run(args), args.out)


if __name__ == "__main__":
    main()
