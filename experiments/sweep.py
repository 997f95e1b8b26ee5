"""Efficacy and generalisation against specificity over a range of lambda (L2 for AlphaEdit).

    python experiments/sweep.py --model demo --out results/sweep

Every method keeps its searched settings; only the strength of the constraint changes, by factors
around the searched value. Test facts, consecutive batches, judged at the end. Writes a JSON file,
a Markdown table and the figure.
"""

from __future__ import annotations

import argparse
import math
import warnings
from pathlib import Path

import torch
import transformers
from tqdm import tqdm

from metake.cli import find_statistics
from metake.data.records import read_records
from metake.evaluation.compare import compare
from metake.evaluation.glossary import GLOSSARY
from metake.evaluation.metrics import bootstrap
from metake.files import write_json, write_text
from metake.models.load import ASSETS, load
from metake.presets import settings_for
from metake.report.figures import plot_tradeoff
from metake.report.tables import markdown

METHODS = ("memit", "memit@unstopped", "memit-compensated", "alphaedit", "metake")
METRICS = ("efficacy", "generalisation", "specificity", "same_subject")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--data", type=Path, default=ASSETS / "world" / "test.json")
    parser.add_argument("--factors", default="0.1,0.3,1,3,10")
    parser.add_argument("--edits", type=int, default=60)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("results/sweep"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore")

    loaded = load(args.model)
    records = read_records(args.data, args.edits)
    methods = args.methods.split(",")
    settings = {}
    for method in methods:
        base = settings_for(loaded.arch, method)
        for factor in map(float, args.factors.split(",")):
            strength = {"projected": "l2", "identity": "gradient_lr"}.get(base.geometry, "weight")
            value = getattr(base, strength) * factor
            label = f"{method}|{value:.3g}" if "@" in method else f"{method}@|{value:.3g}"
            settings[label] = base.updated(**{strength: value})
    statistics = find_statistics(loaded, settings.values(), None, None)
    with tqdm(total=len(records) * len(settings), unit="edit", desc=args.model) as bar:
        runs = compare(
            loaded, records, settings, statistics, batch=args.batch, generate=False, tick=bar.update
        ).runs
    points = []
    for run in runs:
        method, _, strength = run.method.partition("|")
        eta = [float(torch.tensor(layer).median()) for layer in run.batches[0]["eta"]]
        points.append({
            "method": method.removesuffix("@"), "strength": float(strength), "eta": eta,
            **{m: run.after.mean(m) for m in METRICS},
            "interval": {m: bootstrap(run.after.values[m]) for m in METRICS},
            "settings": run.settings.model_dump(),
        })  # fmt: skip
    content = {
        "model": args.model, "data": args.data.name, "edits": len(records), "batch": args.batch,
        "moment": "end", "points": points, "glossary": {m: GLOSSARY[m] for m in METRICS},
    }  # fmt: skip
    write_json(args.out / f"{args.model}.json", content)
    rows = [
        [p["method"], f"{p['strength']:.3g}", f"{p['eta'][-1]:.2f}", *(_percent(p[m]) for m in METRICS)]
        for p in points
    ]
    table = markdown(["method", "lambda or L2", "eta, last layer", "Eff", "Gen", "Spe", "same subj."], rows)
    write_text(args.out / f"{args.model}.md", table)
    plot_tradeoff(points, args.out / f"{args.model}.png", title=f"{args.model}, {len(records)} test facts")
    print(table)


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"  # nothing is left to ask about a subject


if __name__ == "__main__":
    main()
