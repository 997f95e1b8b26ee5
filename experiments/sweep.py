"""Efficacy and generalisation against specificity over a range of lambda (L2 for AlphaEdit, the price of a priced loop).

    python experiments/sweep.py --model demo --out results/sweep
    python experiments/sweep.py --model demo-llama --methods metake,memit-iterated --factors 0.3,1,3 --edits 1920 --batch 100

Every method keeps its searched settings; only the strength of the constraint changes, by factors
around the searched value. Test facts, consecutive batches, judged at the end. Every batch is kept:
the same command goes on where a killed one stopped. Writes a JSON file, a Markdown table and the figure.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metake.console import command, draw_or_note, if_interrupted
from metake.errors import MetakeError
from metake.files import write_json, write_text
from metake.options import (
    Parser,
    at_least,
    chosen_model,
    find_statistics,
    model_options,
    output_folder,
    parse_numbers,
    show_help,
)
from metake.shipped import ASSETS, DEMOS

METHODS = ("memit", "memit@unstopped", "memit-compensated", "alphaedit", "metake")


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    model_options(parser)
    parser.add_argument(
        "--methods",
        help="names of methods, comma-separated; default: MEMIT, its controls, AlphaEdit and MetaKE, with the preset's components",
    )
    parser.add_argument("--data", type=Path, help="records; default: the demo world's test facts")
    parser.add_argument("--factors", default="0.1,0.3,1,3,10", help="of the searched strength")
    parser.add_argument("--edits", type=at_least(1), default=60, help="how many facts; default: %(default)s")
    parser.add_argument("--batch", type=at_least(1), default=20, help="edits per batch; default: %(default)s")
    parser.add_argument("--stats", type=Path, help="statistics written by `metake stats`")
    parser.add_argument("--text", type=Path, help="text to collect statistics from")
    parser.add_argument("--threads", type=at_least(1), help="of torch; default: as torch chooses")
    parser.add_argument(
        "--out",
        type=output_folder,
        default="results/sweep",
        help="folder of the results; default: %(default)s",
    )
    return parser


if __name__ == "__main__":
    show_help(options)

import torch
from tqdm import tqdm

from experiments.searched import searched_names
from metake.data.records import read_records
from metake.evaluation.checks import fitting_records
from metake.evaluation.glossary import GLOSSARY
from metake.evaluation.metrics import bootstrap
from metake.evaluation.protocol import Protocol
from metake.methods.base import Method
from metake.planners.closed_loop import ClosedLoop
from metake.presets import methods_for
from metake.provenance import provenance
from metake.report.figures import plot_tradeoff
from metake.report.tables import markdown

METRICS = ("efficacy", "generalisation", "specificity", "same_subject")


def strength_of(method: Method) -> str:
    """Name of the setting that is swept: the price of a priced loop, else the constraint's strength; a step's length."""
    planner = getattr(method, "planner", None)
    if isinstance(planner, ClosedLoop) and planner.cost_weight:
        return "price"
    return method.strength or method.effort


@command("sweep")
def main() -> None:
    args = options().parse_args()
    torch.set_num_threads(args.threads or torch.get_num_threads())
    if args.data is None and args.model not in DEMOS:
        raise MetakeError(f"--data: needed for {args.model}; give a zsRE or CounterFact file")
    factors = parse_numbers(args.factors, "--factors")
    data = args.data or ASSETS / "world" / "test.json"
    records = read_records(data, args.edits)
    loaded = chosen_model(args)
    records, left_out = fitting_records(loaded, records)
    for line in left_out:
        print(f"sweep: left out: {line}", file=sys.stderr)
    if not records:
        raise MetakeError(f"{data}: no record fits the model")
    short = Path(loaded.name).name
    names = searched_names(loaded.arch, METHODS) if args.methods is None else args.methods.split(",")
    methods, strengths = [], {}
    for base in methods_for(loaded, list(dict.fromkeys(name.strip() for name in names))):
        field = strength_of(base)
        for value in sorted({base.value(field) * factor for factor in factors}):
            label = f"{base.name}{'-' if '@' in base.name else '@'}{value:.3g}"
            methods.append(base.updated(**{field: value}, label=label))
            strengths[label] = (base.name, value)
    statistics = find_statistics(loaded, methods, args.stats, args.text)
    folder = args.out / "runs" / short
    if_interrupted(f"finished batches are in {folder}; rerun the command to resume")
    with tqdm(total=len(records) * len(methods), unit="edit", desc=loaded.name, disable=None) as bar:
        protocol = Protocol(records, args.batch, generate=False)
        runs = protocol.run(loaded, methods, statistics, folder, on_edit=bar.update).runs
    points = []
    for run in runs:
        method, strength = strengths[run.method.name]
        eta = [float(torch.tensor(layer).median()) for layer in run.batches[0]["eta"]]
        points.append(
            {
                "method": method,
                "strength": strength,
                "eta": eta,
                **{m: run.after.mean(m) for m in METRICS},
                "interval": {m: bootstrap(run.after.values[m]) for m in METRICS},
                "settings": run.method.model_dump(),
            }
        )
    content = {
        **provenance(loaded.name, loaded.arch, strengths),
        "data": data.name,
        "edits": len(records),
        "batch": args.batch,
        "moment": "end",
        "points": points,
        "glossary": {m: GLOSSARY[m] for m in METRICS},
    }
    write_json(args.out / f"{short}.json", content)
    rows = [
        [p["method"], f"{p['strength']:.3g}", f"{p['eta'][-1]:.2f}", *(_percent(p[m]) for m in METRICS)]
        for p in points
    ]
    table = markdown(
        ["method", "lambda, L2 or price", "eta, last layer", "Eff", "Gen", "Spe", "same subj."], rows
    )
    write_text(args.out / f"{short}.md", table)
    print(table)
    title = f"{loaded.name}, {len(records)} facts in batches of {args.batch}"
    draw_or_note(lambda: plot_tradeoff(points, args.out / f"{short}.png", title=title))


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"  # nothing is left to ask about a subject


if __name__ == "__main__":
    main()
