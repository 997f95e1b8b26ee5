"""What does a better gradient buy, and what the right length alone? Targets at equal numbers of steps.

    python experiments/compare_gradients.py --model demo --layers 0-2 --weights 30,300,3000

Every target has the same geometry, layers and number of gradient steps. Its learning rate is chosen
on the development split (the same number of trials for each) and judged on the test split. Controls
without a hypergradient stand beside the three gradients: the open loop with and without early stop,
and the plan lengthened until it is executed in full; each gradient starts from the plain plan and
from the lengthened one, so that what its direction adds can be told from what its length does.

The search is journalled: the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
import transformers
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments.figures.core import BLACK, BLUE, GREEN, LAYOUT, ORANGE, RED, plt
from metake.cli import parse_layers
from metake.data.records import Record, read_records
from metake.errors import MetakeError
from metake.evaluation.compare import Comparison, compare
from metake.evaluation.metrics import bootstrap, score
from metake.files import read_json, write_json, write_text
from metake.geometry.covariance import Statistics
from metake.hparams import Settings
from metake.models.load import ASSETS, Loaded, load
from metake.presets import held_out_text, settings_for, statistics_for
from metake.report.figures import save
from metake.report.tables import markdown

METRICS = ("efficacy", "generalisation", "specificity", "same_subject", "agreement")
NOTHING = {"clamp": None, "decay": 0.0, "kl": 0.0625, "history": False, "stop_loss": 0.05}


def targets(steps: int, planned: int) -> dict[str, dict[str, Any]]:
    """Name -> settings of a target that takes `steps` gradient steps, `planned` of them open loop."""
    open_loop = {"target": "plan", "steps": steps}
    table: dict[str, dict[str, Any]] = {
        "open loop": {**open_loop, "stop": "own"},
        "open loop, unstopped": {**open_loop, "stop": "none"},
        "open loop, stopped on execution": {**open_loop, "stop": "executed"},
        "compensated": {**open_loop, "target": "compensated", "stop": "own"},
    }
    for gradient, start in product(("proxy", "parallel", "unrolled"), ("plan", "compensated")):
        name = gradient if start == "plan" else f"{gradient}, from compensated"
        table[name] = {
            "target": "bilevel", "hypergradient": gradient, "start": start, "steps": planned, "stop": "own",
            "meta_steps": steps - planned, "meta_stop": "executed", "locality": 0.0625,
        }  # fmt: skip
    return table


@dataclass(frozen=True)
class Study:
    """A model with records, layers and one strength of the constraint."""

    loaded: Loaded
    statistics: Statistics
    layers: tuple[int, ...]
    batch: int
    rates: tuple[float, ...]
    plan_rate: float

    def settings(self, name: str, choice: dict[str, Any], weight: float, rate: float) -> Settings:
        base = settings_for(self.loaded.arch, "memit", name="none", layers=self.layers)
        rates = {"lr": rate} if choice["target"] != "bilevel" else {"lr": self.plan_rate, "meta_lr": rate}
        preset = settings_for(self.loaded.arch, "memit")
        return base.updated(**NOTHING, contexts=preset.contexts, weight=weight, **rates, **choice)

    def run(
        self, records: list[Record], settings: dict[str, Settings], text: str | None = None
    ) -> Comparison:
        return compare(self.loaded, records, {f"metake@{n}": s for n, s in settings.items()}, self.statistics,
                       batch=self.batch, generate=False, text=text)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--layers", default="0-2")
    parser.add_argument("--weights", default="30,300,3000", help="lambda, comma-separated")
    parser.add_argument("--dev", type=Path, default=ASSETS / "world" / "dev.json")
    parser.add_argument("--data", type=Path, default=ASSETS / "world" / "test.json", help="held out")
    parser.add_argument("--skip", type=int, default=0, help="records of --data to leave out at its beginning")
    parser.add_argument("--search", type=int, default=20, help="development records per trial")
    parser.add_argument("--edits", type=int, default=60)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--steps", type=int, default=25, help="gradient steps of every target")
    parser.add_argument("--planned", type=int, default=10, help="of these, open loop before the gradients")
    parser.add_argument("--rates", default="0.1,0.3,1.0", help="learning rates tried")
    parser.add_argument(
        "--plan-rate", type=float, default=0.5, help="of the open-loop steps before the gradients"
    )
    parser.add_argument("--targets", help="only these, separated by semicolons")
    parser.add_argument("--out", type=Path, default=Path("results/gradients"))
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    try:
        points = study(args)
    except MetakeError as error:
        print(f"compare_gradients: error: {error}", file=sys.stderr)
        sys.exit(2)
    head = ["target", "lambda", "rate", *("Eff", "Gen", "Spe", "same subj.", "agree"), "executed", "s/edit"]
    rows = [
        [p["target"], f"{p['weight']:g}", f"{p['rate']:g}", *(f"{100 * p[m]:.1f}" for m in METRICS),
         f"{p['fraction']:.2f}", f"{p['seconds']:.2f}"] for p in points
    ]  # fmt: skip
    write_text(args.out / f"{args.model}.md", markdown(head, rows))
    draw(
        points,
        args.out / f"{args.model}.png",
        f"{args.model}, {args.edits} held-out facts, {args.steps} steps",
    )
    print(markdown(head, rows))


def study(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Search and test for every target and strength; the journal is the result file."""
    loaded = load(args.model)
    layers = tuple(parse_layers(args.layers))
    statistics = statistics_for(loaded.arch, loaded.tokenizer, layers, progress=True)
    rates = tuple(float(r) for r in args.rates.split(","))
    bench = Study(loaded, statistics, layers, args.batch, rates, args.plan_rate)
    dev = read_records(args.dev, args.search)
    test = read_records(args.data, args.skip + args.edits)[args.skip :]
    chosen = targets(args.steps, args.planned)
    if args.targets is not None:
        wanted = [name.strip() for name in args.targets.split(";")]
        if unknown := [name for name in wanted if name not in chosen]:
            raise MetakeError(f"--targets: unknown {unknown[0]!r}; known: {'; '.join(chosen)}")
        chosen = {name: chosen[name] for name in wanted}
    head = {"arguments": {k: str(v) for k, v in vars(args).items() if k not in ("out", "weights", "targets")}}
    path = args.out / f"{args.model}.json"
    journal = read_json(path) if path.is_file() else {}
    if {k: journal.get(k) for k in head} != head:
        journal = {**head, "trials": {}, "points": {}}
    weights = [float(w) for w in args.weights.split(",")]
    jobs = list(product(weights, chosen))
    with tqdm(total=len(jobs) * (len(rates) + 1), desc=args.model, unit="run") as bar:
        for weight, name in jobs:
            trials = []
            for rate in rates:
                key = f"{weight:g} {name} {rate:g}"
                if key not in journal["trials"]:
                    run = bench.run(dev, {name: bench.settings(name, chosen[name], weight, rate)}).runs[0]
                    journal["trials"][key] = {m: run.after.mean(m) for m in METRICS}
                    write_json(path, journal)
                trials.append((score(journal["trials"][key]), rate))
                bar.update()
            rate = max(trials)[1]
            key = f"{weight:g} {name}"
            if key not in journal["points"]:
                settings = bench.settings(name, chosen[name], weight, rate)
                run = bench.run(test, {name: settings}, held_out_text(args.model)).runs[0]
                fractions = [f for b in run.batches for f in b["fraction"]]
                journal["points"][key] = {
                    "target": name, "weight": weight, "rate": rate, "score on dev": max(trials)[0],
                    **{m: run.after.mean(m) for m in METRICS}, "perplexity": run.after.perplexity,
                    "interval": {m: bootstrap(run.after.values[m]) for m in METRICS},
                    "per_record": {m: [float(v) for v in run.after.values[m]] for m in ("efficacy", "generalisation")},
                    "fraction": sorted(fractions)[len(fractions) // 2],
                    "eta": float(torch.tensor(run.batches[0]["eta"][-1]).median()),
                    "seconds": run.seconds_per_edit, "settings": settings.model_dump(mode="json"),
                }  # fmt: skip
                write_json(path, journal)
            bar.update()
    return [journal["points"][f"{weight:g} {name}"] for weight, name in jobs]


STYLES = {
    "open loop": (ORANGE, ":"), "open loop, unstopped": (ORANGE, "--"), "open loop, stopped on execution": (ORANGE, "-"),
    "compensated": (BLACK, "-"), "proxy": (RED, "-"), "parallel": (BLUE, "-"), "unrolled": (GREEN, "-"),
    "proxy, from compensated": (RED, "--"), "parallel, from compensated": (BLUE, "--"),
    "unrolled, from compensated": (GREEN, "--"),
}  # fmt: skip


def draw(points: list[dict[str, Any]], path: Path, title: str) -> Path:
    """Efficacy, generalisation and specificity over lambda, one line a target."""
    with plt.rc_context(LAYOUT):
        figure, axes = plt.subplots(1, 3, figsize=(6.6, 3.0), sharey=True, layout="constrained")
        for axis, metric in zip(axes, ("efficacy", "generalisation", "specificity"), strict=True):
            for i, (name, (colour, line)) in enumerate(STYLES.items()):
                mine = [p for p in points if p["target"] == name]
                x = [p["weight"] * 1.03 ** (i - 5) for p in mine]
                y = [100 * p[metric] for p in mine]
                bars = [[v - 100 * p["interval"][metric][0] for v, p in zip(y, mine, strict=True)],
                        [100 * p["interval"][metric][1] - v for v, p in zip(y, mine, strict=True)]]  # fmt: skip
                if mine:
                    axis.errorbar(
                        x, y, bars, color=colour, ls=line, marker="o", ms=2.5, elinewidth=0.4, label=name
                    )
            axis.set_xscale("log")
            weights = sorted({p["weight"] for p in points})
            axis.set_xticks(weights, [f"{w:g}" for w in weights])
            axis.minorticks_off()
            axis.set_xlabel(r"$\lambda$")
            axis.set_title(metric)
            axis.set_ylim(0, 102)
        axes[0].set_ylabel("per cent")
        figure.suptitle(title, fontsize=8)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return save(figure, path)


if __name__ == "__main__":
    main()
