"""What does a better gradient buy, and what the right length alone? Targets at equal numbers of steps.

    python experiments/compare_gradients.py --model demo --layers 0-2 --weights 30,300,3000

Every target has the same geometry, layers and number of gradient steps. Its learning rate is chosen
on the development split (the same number of trials for each) and judged on the test split. Controls
without a hypergradient stand beside the three gradients: the open loop with and without early stop,
the plan lengthened until it is executed in full, and the open loop planned and executed three times
over; each gradient starts from the plain plan and from the lengthened one, so that what its direction
adds can be told from what its length does.

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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metake.console import command, draw_or_note, set_interrupt_message
from metake.files import read_record, write_record, write_text
from metake.names import unknown_name
from metake.options import (
    Parser,
    at_least,
    chosen_model,
    model_options,
    output_folder,
    parse_layers,
    parse_numbers,
    positive,
    show_help,
)
from metake.shipped import ASSETS, DEMOS


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    model_options(parser)
    parser.add_argument(
        "--method", default="memit", choices=["memit", "alphaedit"], help="geometry and memory"
    )
    parser.add_argument("--layers", default="0-2", help="edited layers, as 0-2 or 1,3; default: %(default)s")
    parser.add_argument("--weights", default="300,3000", help="lambda (L2 for alphaedit), comma-separated")
    parser.add_argument(
        "--dev",
        type=Path,
        default=ASSETS / "world" / "dev.json",
        help="records of the search; default: %(default)s",
    )
    parser.add_argument("--data", type=Path, default=ASSETS / "world" / "test.json", help="held out")
    parser.add_argument(
        "--skip", type=at_least(0), default=0, help="records of --data to leave out at its beginning"
    )
    parser.add_argument("--search", type=at_least(1), default=20, help="development records per trial")
    parser.add_argument("--edits", type=at_least(1), default=60, help="how many facts; default: %(default)s")
    parser.add_argument("--batch", type=at_least(1), default=20, help="edits per batch; default: %(default)s")
    parser.add_argument("--steps", type=at_least(1), default=25, help="gradient steps of every target")
    parser.add_argument(
        "--planned", type=at_least(0), default=10, help="of these, open loop before the gradients"
    )
    parser.add_argument("--rates", default="0.1,0.3,1.0", help="learning rates tried")
    parser.add_argument(
        "--plan-rate", type=positive, default=0.5, help="of the open-loop steps before the gradients"
    )
    parser.add_argument(
        "--locality",
        choices=["specificity", "agreement"],
        help="third entry of the search's score; default: agreement, on the demo models specificity",
    )
    parser.add_argument("--targets", help="only these, separated by semicolons")
    parser.add_argument(
        "--out",
        type=output_folder,
        default="results/gradients",
        help="folder of the results; default: %(default)s",
    )
    return parser


if __name__ == "__main__":
    show_help(options)

import numpy as np
import torch
from tqdm import tqdm

from metake.data.records import Record, read_records
from metake.evaluation.metrics import bootstrap, score
from metake.evaluation.protocol import Protocol, Session
from metake.evaluation.results import MethodRun
from metake.figures.core import LAYOUT
from metake.geometry.statistics import Statistics
from metake.methods.combinators import compensated, iterated, metake
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.table import MEMIT
from metake.models.editable import EditableModel
from metake.planners.closed_loop import ClosedLoop
from metake.planners.gradients import ParallelGradient, ProxyGradient, UnrolledGradient
from metake.presets import preset_name, settings_for
from metake.provenance import provenance
from metake.report.figures import BLACK, BLUE, GREEN, ORANGE, RED, panels, save, styled
from metake.report.tables import markdown
from metake.statistics_cache import statistics_for
from metake.texts import held_out_text

METRICS = ("efficacy", "generalization", "specificity", "same_subject", "agreement")
PLAIN = {"clamp": None, "decay": 0.0, "kl": 0.0625, "stop_loss": 0.05}


def targets(base: LocateThenEdit, steps: int, planned: int) -> dict[str, LocateThenEdit]:
    """Name of a target -> the method with it, at `steps` gradient steps, `planned` of them open loop."""
    open_loop = base.updated(steps=steps, stop="planning_loss")
    table = {
        "open loop": open_loop,
        "open loop, unstopped": open_loop.updated(stop="none"),
        "open loop, stopped on execution": open_loop.updated(stop="post_edit_loss"),
        "compensated": compensated(open_loop),
        "iterated": iterated(open_loop, 3),
    }
    start = base.updated(steps=planned, stop="planning_loss")
    for gradient in (ProxyGradient(), ParallelGradient(), UnrolledGradient()):
        for name, begin in (
            (gradient.kind, start),
            (f"{gradient.kind}, from compensated", compensated(start)),
        ):
            table[name] = metake(begin, gradient).updated(
                meta_steps=steps - planned, meta_stop="post_edit_loss", locality=0.0625
            )
    return table


def base_method(model: EditableModel, name: str, layers: tuple[int, ...], plan_rate: float) -> LocateThenEdit:
    """What all targets share: default numbers but for the plan, and what a preset says of the model."""
    preset, base = settings_for(model, name), settings_for(model, name, name="none", layers=layers)
    assert isinstance(base, LocateThenEdit)
    of_model = [part for part in ("contexts", "keep", "max_tokens") if base.supported_changes({part: None})]
    return base.updated(**PLAIN, lr=plan_rate, **{part: preset.value(part) for part in of_model})


@dataclass(frozen=True)
class Study:
    """A model with the methods that are compared on it."""

    model: EditableModel
    statistics: Statistics
    methods: dict[str, LocateThenEdit]
    batch: int

    def method(self, target: str, strength: float, rate: float) -> LocateThenEdit:
        """The method with a target, a strength of its constraint, and the learning rate that is searched."""
        method = self.methods[target]
        searched = "meta_lr" if isinstance(method.planner, ClosedLoop) else "lr"
        return method.updated(**{method.constraint_setting: strength, searched: rate})

    def session(self, records: list[Record], text: str | None = None) -> Session:
        """The protocol of all runs on some records; the unedited model is measured once."""
        protocol = Protocol(records, self.batch, generate=False, text=text)
        return protocol.prepare(self.model, self.statistics)


@command("compare_gradients")
def main() -> None:
    args = options().parse_args()
    warnings.simplefilter("ignore")
    points = study(args)
    name = label(args)
    strength = "L2" if args.method == "alphaedit" else "lambda"
    head = [
        "target",
        strength,
        "eta",
        "rate",
        "Eff",
        "Gen",
        "Spe",
        "same subj.",
        "agree",
        "ppl",
        "realized",
        "s/edit",
    ]
    rows = [
        [
            p["target"],
            f"{p['lam']:g}",
            f"{p['eta']:.2f}",
            f"{p['rate']:g}",
            *(f"{100 * p[m]:.1f}" for m in METRICS),
            f"{p['perplexity']:.2f}",
            f"{p['fraction']:.2f}",
            f"{p['seconds']:.2f}",
        ]
        for p in points
    ]
    tables = markdown(head, rows) + "\n" + markdown(*gains(points))
    write_text(args.out / f"{name}.md", tables)
    title = f"{name}, {args.edits} held-out facts, {args.steps} steps"
    print(tables)
    draw_or_note(lambda: draw(points, args.out / f"{name}.png", title, strength))


def label(args: argparse.Namespace) -> str:
    """What the files of a study are called."""
    return Path(args.model).name + ("-alphaedit" if args.method == "alphaedit" else "")


def gains(points: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Paired differences over the same facts, of each gradient and the control that it starts from.

    From the plain plan the control is the open loop without early stop, which takes as many steps; from
    the lengthened plan, that plan.
    """
    measured = ("efficacy", "generalization", "specificity", "same_subject")
    at = {(p["target"], p["lam"]): p for p in points}
    rows = []
    for (name, weight), point in at.items():
        if point["settings"]["planner"]["kind"] != ClosedLoop.kind:
            continue
        control = "compensated" if "from compensated" in name else "open loop, unstopped"
        if (control, weight) not in at:
            continue
        cells = []
        for metric in measured:
            mine, other = point["per_record"][metric], at[control, weight]["per_record"][metric]
            difference = np.subtract(mine, other)
            low, high = bootstrap(difference)
            cells.append(f"{100 * np.nanmean(difference):+.0f} [{100 * low:.0f}, {100 * high:.0f}]")
        rows.append([name, control, f"{weight:g}", *cells])
    return ["target", "minus", "strength", "Eff", "Gen", "Spe", "same subj."], rows


def study(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Search and test for every target and strength; the journal is the result file."""
    layers = tuple(parse_layers(args.layers))
    weights = parse_numbers(args.weights, "--weights")
    rates = tuple(parse_numbers(args.rates, "--rates"))
    dev = read_records(args.dev, args.search, need=("rephrase", "locality"))
    test = read_records(args.data, args.skip + args.edits, need=("rephrase", "locality"))[args.skip :]
    chosen = list(targets(MEMIT, args.steps, args.planned))
    if args.targets is not None:
        wanted = [name.strip() for name in args.targets.split(";")]
        if unknown := [name for name in wanted if name not in chosen]:
            raise unknown_name("--targets", unknown[0], chosen)
        chosen = wanted
    model = chosen_model(args)
    statistics = statistics_for(model, model.tokenizer, layers, progress=True)
    base = base_method(model, args.method, layers, args.plan_rate)
    bench = Study(model, statistics, targets(base, args.steps, args.planned), args.batch)
    locality = args.locality or ("specificity" if model.name in DEMOS else "agreement")
    head = {
        **provenance(model.name, model, args.method, dated=False),
        "arguments": {k: str(v) for k, v in vars(args).items() if k not in ("out", "weights", "targets")},
    }
    path = args.out / f"{label(args)}.json"
    set_interrupt_message(f"finished trials are in {path}; rerun the command to resume")
    journal = read_record(path, "remove it: the study begins again") if path.is_file() else {}
    if {k: journal.get(k) for k in head} != head:
        journal = {**head, "trials": {}, "points": {}}
    jobs = list(product(weights, chosen))
    developed, held_out = bench.session(dev), bench.session(test, held_out_text(preset_name(model)))
    with tqdm(total=len(jobs) * (len(rates) + 1), desc=label(args), unit="run", disable=None) as bar:
        for weight, name in jobs:
            trials = []
            for rate in rates:
                key = f"{weight:g} {name} {rate:g}"
                if key not in journal["trials"]:
                    run = developed.run(bench.method(name, weight, rate))
                    journal["trials"][key] = {m: run.after.mean(m) for m in METRICS}
                    write_record(path, journal)
                trials.append((score(journal["trials"][key], locality), rate))
                bar.update()
            rate = max(trials)[1]
            key = f"{weight:g} {name}"
            if key not in journal["points"]:
                run = held_out.run(bench.method(name, weight, rate))
                journal["points"][key] = {
                    "target": name,
                    "lam": weight,
                    "rate": rate,
                    "score on dev": max(trials)[0],
                    **summary(run),
                }
                write_record(path, journal)
            bar.update()
    return [journal["points"][f"{weight:g} {name}"] for weight, name in jobs]


def summary(run: MethodRun) -> dict[str, Any]:
    """The numbers of a run as plain values."""
    fractions = [f for b in run.batches for f in b["realized_share"]]
    return {
        **{m: run.after.mean(m) for m in METRICS},
        "perplexity": run.after.perplexity,
        "interval": {m: bootstrap(run.after.values[m]) for m in METRICS},
        "per_record": {m: [float(v) for v in run.after.values[m]] for m in METRICS},
        "realized_share": sorted(fractions)[len(fractions) // 2],
        "eta": float(torch.tensor(run.batches[0]["eta"][-1]).median()),
        "seconds": run.seconds_per_edit,
        "settings": run.method.model_dump(mode="json"),
    }


STYLES = {
    "open loop": (ORANGE, ":"),
    "open loop, unstopped": (ORANGE, "--"),
    "open loop, stopped on execution": (ORANGE, "-"),
    "compensated": (BLACK, "-"),
    "iterated": (BLACK, ":"),
    "proxy": (RED, "-"),
    "parallel": (BLUE, "-"),
    "unrolled": (GREEN, "-"),
    "proxy, from compensated": (RED, "--"),
    "parallel, from compensated": (BLUE, "--"),
    "unrolled, from compensated": (GREEN, "--"),
}


MARKERS = {"-": "o", "--": "s", ":": "v"}


def draw(points: list[dict[str, Any]], path: Path, title: str, strength: str) -> Path:
    """Efficacy, generalization and specificity over the strength of the constraint, one line a target."""
    with styled(LAYOUT):
        figure, axes = panels(1, 3, figsize=(6.6, 3.0), sharey=True)
        for axis, metric in zip(axes, ("efficacy", "generalization", "specificity"), strict=True):
            for i, (name, (color, line)) in enumerate(STYLES.items()):
                mine = [p for p in points if p["target"] == name]
                x = [p["lam"] * 1.03 ** (i - 5) for p in mine]
                y = [100 * p[metric] for p in mine]
                bars = [
                    [v - 100 * p["interval"][metric][0] for v, p in zip(y, mine, strict=True)],
                    [100 * p["interval"][metric][1] - v for v, p in zip(y, mine, strict=True)],
                ]
                if mine:
                    axis.errorbar(
                        x,
                        y,
                        bars,
                        color=color,
                        ls=line,
                        marker=MARKERS[line],
                        ms=2.5,
                        elinewidth=0.4,
                        label=name,
                    )
            axis.set_xscale("log")
            weights = sorted({p["lam"] for p in points})
            axis.set_xticks(weights, [f"{w:g}" for w in weights])
            axis.minorticks_off()
            axis.set_xlabel(r"$\lambda$" if strength == "lambda" else strength)
            axis.set_title(metric)
            axis.set_ylim(0, 102)
        axes[0].set_ylabel("per cent")
        figure.suptitle(title, fontsize=8)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return save(figure, path)


if __name__ == "__main__":
    main()
