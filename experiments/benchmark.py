"""Time of an edit, stage by stage, beside the published procedure written directly; same machine, same process.

    python experiments/benchmark.py --size demo
    python experiments/benchmark.py --suite metake --size smollm2 --batch 1,20,100
    python experiments/benchmark.py --suite all --size gpt2            # GPT-2's size, random weights
    python experiments/benchmark.py --suite all --size gpt-j --batch 100 --dtype bfloat16      # on a GPU

Suites:
    plan     the open-loop plan of a batch: one by one with whole passes, against all at once from the last layer up
    solve    keys, residuals and updates of all layers: dense d_k x d_k systems, against factors and n x n systems
    metake   one step along the proxy, all layers in parallel, the exact hypergradient; keys frozen and moving
    stats    second moments of all layers: tokens per second
    sequence whole edits of one batch after another by a method that remembers: does a late batch cost more?

Ratios are medians over repeats, with their range. Results agree to rounding, and the report says how well.
Of plans and statistics it also says what share of the device's measured matmul peak their products reach.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics as middle
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


from metake.console import command, draw_or_note
from metake.files import write_json, write_text
from metake.options import Parser, at_least, output_folder, show_help
from metake.shipped import ASSETS, DEMOS

SUITES = ("plan", "solve", "metake", "stats", "sequence")


def _suites(text: str) -> tuple[str, ...]:
    wanted = SUITES if text == "all" else tuple(text.split(","))
    if not set(wanted) <= set(SUITES):
        raise argparse.ArgumentTypeError(f"{text}: the suites are {', '.join(SUITES)}")
    return wanted


def _sizes(text: str) -> list[int]:
    return [at_least(1)(part) for part in text.split(",")]


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--suite", type=_suites, default="all", help="one or several, comma-separated; or all"
    )
    parser.add_argument(
        "--size",
        default="demo",
        choices=[*DEMOS, "smollm2", "gpt2", "gpt2-xl", "gpt-j", "llama3"],
        help="a model that ships, or the shape of one with random weights; default: %(default)s",
    )
    parser.add_argument("--blocks", type=at_least(1), help="fewer blocks than the model has (random weights)")
    parser.add_argument("--batch", type=_sizes, default=[20], help="requests, or several sizes: 1,20,100")
    parser.add_argument("--steps", type=at_least(1), default=20, help="of a plan")
    parser.add_argument(
        "--repeats", type=at_least(1), default=3, help="runs of which the median counts; default: %(default)s"
    )
    parser.add_argument("--data", type=Path, help="records; default: what ships")
    parser.add_argument(
        "--max-tokens",
        type=at_least(1),
        help="padded tokens per pass: bounds the memory; default: what suits the device",
    )
    parser.add_argument("--stats-tokens", type=at_least(1), help="of the suite stats; default: just over d_k")
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "bfloat16", "float16"],
        help="of the weights; default: %(default)s",
    )
    parser.add_argument(
        "--tf32", action="store_true", help="fp32 products by a GPU's matrix units, on both sides"
    )
    parser.add_argument("--threads", type=at_least(1), help="of torch; default: as torch chooses")
    parser.add_argument("--device", help="default: a GPU if there is one")
    parser.add_argument(
        "--out",
        type=output_folder,
        default="results/benchmark",
        help="folder of the results; default: %(default)s",
    )
    return parser


if __name__ == "__main__":
    show_help(options)

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

from experiments.bench import direct
from experiments.full_width import CONFIGS
from metake.data.records import read_records
from metake.editor import Editor
from metake.figures.core import LAYOUT
from metake.geometry.covariance import collect
from metake.geometry.specs import RidgeSpec
from metake.lookup_prompts import LookupPrompts
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.table import ALPHAEDIT, MEMIT
from metake.models.editable import EditableModel
from metake.models.load import load
from metake.models.trace import frozen
from metake.planners.hypergradient import ParallelLoss, UnrolledLoss, VirtualEditLoss
from metake.planners.objective import Objective
from metake.planners.open_loop import OpenLoop
from metake.planners.target_optimization import Penalty
from metake.prompts import Batch
from metake.provenance import provenance
from metake.report.figures import BLACK, BLUE, GREEN, ORANGE, RED, panels, save, styled
from metake.report.tables import markdown, render
from metake.requests import EditRequest
from metake.texts import default_text

SEQUENCE = 20  # batches
CONTEXTS = tuple(f"{word} this is how it was told" for word in ("The", "Therefore", "Because", "I", "You"))


@dataclass(frozen=True)
class Bench:
    """A model with requests and a method."""

    model: EditableModel
    tokenizer: Any
    method: LocateThenEdit
    pool: list[EditRequest]
    size: int
    text: str
    repeats: int
    stats_tokens: int | None

    @property
    def requests(self) -> list[EditRequest]:
        """A batch; facts come again where it is larger than what there is."""
        return [self.pool[i % len(self.pool)] for i in range(self.size)]

    def timed(self, work: Callable[[], object], repeats: int | None = None) -> list[float]:
        """Seconds of each repeat, device idle before and after."""
        seconds = []
        for _ in range(repeats or self.repeats):
            self._wait()
            started = time.perf_counter()
            work()
            self._wait()
            seconds.append(time.perf_counter() - started)
        return seconds

    def _wait(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()


def build(args: argparse.Namespace) -> Bench:
    """The model of a size: trained where one ships, else random weights of the published shape."""
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high" if args.tf32 else "highest")
    if args.size in (*DEMOS, "smollm2"):
        model = load(args.size, device=device, dtype=args.dtype, chat=None)
        tokenizer = model.tokenizer
    else:
        torch.manual_seed(0)
        configs = {
            "gpt2": lambda n: GPT2Config(n_layer=n),
            "gpt-j": CONFIGS["gpt-j"],
            "gpt2-xl": CONFIGS["gpt2-xl"],
            "llama3": CONFIGS["llama3-8b"],
        }
        blocks = args.blocks or {"gpt2": 12, "gpt2-xl": 48, "gpt-j": 28, "llama3": 32}[args.size]
        with torch.device(device):
            config = configs[args.size](blocks)
            model = EditableModel(
                AutoModelForCausalLM.from_config(config, dtype=getattr(torch, args.dtype)).eval()
            )
        tokenizer = AutoTokenizer.from_pretrained(ASSETS / "demo")  # its ids exist in every vocabulary
    layers = {
        "smollm2": (4, 5, 6, 7, 8),
        "gpt2": (3, 4, 5, 6, 7),
        "gpt2-xl": (13, 14, 15, 16, 17),
        "gpt-j": (3, 4, 5, 6, 7, 8),
        "llama3": (4, 5, 6, 7, 8),
    }.get(args.size, (1, 2, 3))
    layers = tuple(n for n in layers if n < len(model)) or (len(model) - 1,)
    method = MEMIT.updated(
        layers=layers,
        contexts=CONTEXTS,
        steps=args.steps,
        lr=0.5,
        clamp=0.75,
        decay=0.5,
        stop_loss=0.0,
        lam=1000.0,
        jitter=1e-4,
        max_tokens=args.max_tokens,
    )
    name = args.size if args.size in DEMOS else "demo"
    file = "real_facts.json" if args.size == "smollm2" else "test.json"
    records = read_records(args.data or ASSETS / "world" / file)
    text = default_text(args.size if args.size == "smollm2" else name)
    return Bench(
        model, tokenizer, method, [r.request for r in records], 1, text, args.repeats, args.stats_tokens
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All suites asked for, at every size of batch."""
    torch.set_num_threads(args.threads or torch.get_num_threads())
    bench = build(args)
    wanted = args.suite
    report: dict[str, Any] = {
        **provenance(args.size, bench.model, "memit"),
        "size": args.size,
        "batches": args.batch,
        "steps": args.steps,
        "max_tokens": args.max_tokens,
        "layers": list(bench.method.layers),
        "d_k": bench.model.d_k,
        "d_v": bench.model.d_v,
        "blocks": len(bench.model),
        "threads": torch.get_num_threads(),
        "dtype": args.dtype,
        "tf32": args.tf32,
        "device": str(bench.model.device)
        if bench.model.device.type == "cpu"
        else torch.cuda.get_device_name(),
        "machine": processor(),
        "matmul_peak_gflops": matmul_peak(bench),
        "rows": [],
    }
    before = peak_gib(bench)
    with frozen(bench.model.model):
        statistics = collect(
            bench.model,
            bench.tokenizer,
            bench.text,
            bench.method.layers,
            tokens=bench.model.d_k + 512,
            progress=False,
        )
        editor = Editor(
            bench.model.model, bench.tokenizer, bench.method, statistics=statistics, answers=False
        )
        for batch in args.batch:
            sized = replace(bench, size=batch)
            for name in (name for name in ("plan", "solve", "metake") if name in wanted):
                rows = {"plan": plan, "solve": solve, "metake": metake}[name](sized, editor)
                report["rows"] += [row | {"batch": batch} for row in rows]
            report["rows"] += [row | {"batch": batch} for row in totals(report["rows"], batch, args.steps)]
        for name in (name for name in ("stats", "sequence") if name in wanted):
            rows = {"stats": stats, "sequence": sequence}[name](replace(bench, size=args.batch[0]), editor)
            report["rows"] += [row | {"batch": args.batch[0]} for row in rows]
    report["peak_gib"] = {"model": before, "run": peak_gib(bench)}
    return report


def peak_gib(bench: Bench) -> float:
    """Most memory held so far: of the device, or of the process."""
    if bench.model.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def totals(rows: list[dict[str, Any]], batch: int, steps: int) -> list[dict[str, Any]]:
    """A whole edit, from its stages: the open loop and MetaKE (as many proxy steps again) against the direct one."""
    took = {(r["suite"], r["name"]): r["seconds"] for r in rows if r["batch"] == batch}
    stages = [
        ("plan", "direct, one by one"),
        ("solve", "direct"),
        ("plan", "this library"),
        ("solve", "this library"),
    ]
    if not all(stage in took for stage in stages):
        return []
    direct = [a + b for a, b in zip(took[stages[0]], took[stages[1]], strict=True)]
    ours = [a + b for a, b in zip(took[stages[2]], took[stages[3]], strict=True)]
    found = [
        row("edit", "direct", direct, batch),
        row("edit", "this library, open loop", ours, batch, direct),
    ]
    if ("metake", "step, proxy") in took:
        closed = [a + steps * b for a, b in zip(ours, took["metake", "step, proxy"], strict=True)]
        found.append(row("edit", f"this library, MetaKE, {steps} proxy steps", closed, batch, direct))
    return found


def matmul_peak(bench: Bench) -> float:
    """A square matrix product in the model's precision, GFLOP/s, the best of five."""
    device = bench.model.device
    size = 2048 if device.type == "cpu" else 8192
    a = torch.randn(size, size, device=device).to(bench.model.weight(0).dtype)
    return 2 * size**3 / min(bench.timed(lambda: a @ a, 5)) / 1e9


def row(
    suite: str,
    name: str,
    seconds: list[float],
    edits: int,
    against: list[float] | None = None,
    agrees: float | None = None,
) -> dict[str, Any]:
    """One line of the report; `against` are the seconds of what it is compared with."""
    ratio = None if against is None else middle.median(against) / middle.median(seconds)
    spread = None if against is None else [min(against) / max(seconds), max(against) / min(seconds)]
    return {
        "suite": suite,
        "name": name,
        "seconds": seconds,
        "per_edit": middle.median(seconds) / edits,
        "ratio": ratio,
        "spread": spread,
        "differs": agrees,
    }


def _batch(bench: Bench, editor: Editor) -> tuple[Batch, LookupPrompts]:
    return bench.method.batch(editor.model, bench.requests, bench.method.prepare(editor.model, editor.state))


def plan(bench: Bench, editor: Editor) -> list[dict[str, Any]]:
    """The direct procedure on a few requests, scaled; ours on the whole batch."""
    batch, _ = _batch(bench, editor)
    top, few = bench.method.layers[-1], min(3, len(bench.requests))
    kept: dict[str, torch.Tensor] = {}
    planner = bench.method.planner
    assert isinstance(planner, OpenLoop)

    def ours() -> None:
        fresh, prompts = _batch(bench, editor)
        solver = bench.method.solver(editor.model, editor.state)
        kept["ours"] = bench.method.plan(editor.model, solver, fresh, prompts).residuals

    def published() -> None:
        kept["direct"] = torch.stack([direct.plan(bench.model, batch, i, top, planner) for i in range(few)])

    mine = bench.timed(ours)
    with FlopCounterMode(display=False) as counter:
        ours()
    theirs = [s * len(bench.requests) / few for s in bench.timed(published)]
    wanted = kept["direct"]
    off = float((kept["ours"][:few] - wanted).norm() / wanted.norm())
    return [
        row("plan", "direct, one by one", theirs, len(bench.requests)),
        row("plan", "this library", mine, len(bench.requests), theirs, off)
        | {"gflops": counter.get_total_flops() / middle.median(mine) / 1e9},
    ]


def solve(bench: Bench, editor: Editor) -> list[dict[str, Any]]:
    """Both once with everything built: the factorization is done once per run, so it has its own line."""
    batch, prompts = _batch(bench, editor)

    def factorize() -> None:
        editor.state.bases.clear()
        bench.method.solver(editor.model, editor.state)

    factorized = bench.timed(factorize)
    solver = bench.method.solver(editor.model, editor.state)
    hidden, _ = solver.unedited_stream_and_key(prompts)
    residuals = (
        torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0)).to(hidden) * hidden.norm() / 50
    )
    moments = {n: editor.statistics[n] for n in bench.method.layers}
    geometry = bench.method.geometry
    assert isinstance(geometry, RidgeSpec)
    kept: dict[str, Any] = {}
    mine = bench.timed(lambda: kept.update(ours=solver.solve(prompts, residuals)))
    theirs = bench.timed(
        lambda: kept.update(direct=direct.execute(bench.model, batch, residuals, moments, geometry))
    )
    off = 0.0
    for layer, change in kept["direct"].items():
        left, right = kept["ours"].factors[layer]
        off = max(off, float((left.double() @ right.double().T - change).norm() / change.norm()))
    count = len(bench.requests)
    return [
        row("solve", "direct", theirs, count),
        row("solve", "this library", mine, count, theirs, off),
        row("solve", "factorization, once per run", factorized, count),
    ]


def metake(bench: Bench, editor: Editor) -> list[dict[str, Any]]:
    """One step of the upper level along each gradient."""
    batch, prompts = _batch(bench, editor)
    solver = bench.method.solver(editor.model, editor.state)
    hidden, key = solver.unedited_stream_and_key(prompts)
    top = solver.planned_at
    channel = solver.geometries[top].channel(key.T.to(solver.geometries[top].device))
    objective = Objective(
        bench.model, batch, prompts.start, top, channel=channel, max_tokens=bench.method.max_tokens
    )
    slopes = {
        "proxy": VirtualEditLoss(objective, "channel"),
        "parallel": ParallelLoss(objective, solver, prompts),
        "unrolled, keys frozen": UnrolledLoss(objective, solver, prompts, differentiate_keys=False),
        "unrolled": UnrolledLoss(objective, solver, prompts),
    }
    start = (
        torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0)).to(hidden) * hidden.norm() / 50
    )
    active, penalty = torch.ones(len(hidden), dtype=torch.bool), Penalty(kl=0.0625, kl_from_unedited=True)

    def step(slope: Any) -> None:
        slope(start, active, penalty)

    rows, base = [], None
    for name, slope in slopes.items():
        with torch.enable_grad():
            step(slope)  # warm
            seconds = bench.timed(lambda slope=slope: step(slope))
        rows.append(row("metake", f"step, {name}", seconds, len(hidden), base))
        base = base or seconds
    return rows


def stats(bench: Bench, editor: Editor) -> list[dict[str, Any]]:
    """All layers in one pass, tokenizing and all, over the text again and again until there are tokens enough."""
    tokens, layers = bench.stats_tokens or bench.model.d_k + 512, bench.method.layers
    once = editor.statistics.provenance.tokens if editor.statistics else 0
    text = bench.text * (1 + tokens // max(1, once))

    def work() -> None:
        collect(bench.model, bench.tokenizer, text, layers, tokens=tokens, progress=False)

    seconds = bench.timed(work, 2)
    with FlopCounterMode(display=False) as counter:
        work()
    fastest = min(seconds)
    line = row("stats", f"{len(layers)} layers, {tokens} tokens", seconds, 1)
    return [
        line | {"tokens_per_second": tokens / fastest, "gflops": counter.get_total_flops() / fastest / 1e9}
    ]


def sequence(bench: Bench, editor: Editor) -> list[dict[str, Any]]:
    """AlphaEdit remembers every batch: seconds of the first three against those of the last three of twenty."""
    method = ALPHAEDIT.updated(layers=bench.method.layers, contexts=CONTEXTS, steps=2, stop="none", l2=1.0)
    seconds = []
    with Editor(
        bench.model.model, bench.tokenizer, method, statistics=editor.statistics, answers=False
    ) as other:
        other.edit(bench.requests)  # factorizes, once
        other.revert()
        for _ in range(SEQUENCE):
            seconds += bench.timed(lambda: other.edit(bench.requests), 1)
    first, late = seconds[:3], seconds[-3:]
    return [
        row("sequence", "batches 1 to 3", first, bench.size),
        row("sequence", f"batches {SEQUENCE - 2} to {SEQUENCE}", late, bench.size, first),
    ]


def table(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    head = ["suite", "batch", "what", "s/edit", "ratio", "range", "of matmul peak", "differs by"]
    rows = []
    for line in report["rows"]:
        spread = "-" if line["spread"] is None else "{:.2f} to {:.2f}".format(*line["spread"])
        ratio = "-" if line["ratio"] is None else f"{line['ratio']:.2f}"
        differs = "-" if line["differs"] is None else f"{line['differs']:.0e}"
        if line["suite"] == "stats":
            spread = f"{line['tokens_per_second']:.0f} tokens/s"
        share = f"{line['gflops'] / report['matmul_peak_gflops']:.0%}" if "gflops" in line else "-"
        rows.append(
            [
                line["suite"],
                str(line["batch"]),
                line["name"],
                f"{line['per_edit']:.4g}",
                ratio,
                spread,
                share,
                differs,
            ]
        )
    return head, rows


COLORS = {"plan": BLUE, "solve": GREEN, "metake": ORANGE, "edit": BLACK, "sequence": BLUE}


def draw(report: dict[str, Any], path: Path) -> Path:
    """Seconds per edit of every line: points for one size of batch, curves over several."""
    lines = [line for line in report["rows"] if line["suite"] in COLORS]
    title = f"{report['size']}: d_k {report['d_k']}, layers {report['layers']}, {report['device']}"
    with styled(LAYOUT):
        if len(report["batches"]) > 1:
            return save(_curves([line for line in lines if line["suite"] != "sequence"], title), path)
        figure, axis = panels(figsize=(6.4, 0.8 + 0.28 * len(lines)))
        for i, line in enumerate(lines):
            low, high = (value / line["batch"] for value in (min(line["seconds"]), max(line["seconds"])))
            published = line["name"].startswith("direct")
            axis.plot(line["per_edit"], -i, "o", color=RED if published else COLORS[line["suite"]])
            axis.plot([low, high], [-i, -i], color="black", lw=0.8)
            note = "" if line["ratio"] is None else f"  {line['ratio']:.2g}x"
            axis.text(high, -i, f"   {line['per_edit']:.3g} s{note}", va="center", fontsize=6.5)
        axis.set_yticks([-i for i in range(len(lines))], [f"{x['suite']}: {x['name']}" for x in lines])
        axis.set_xscale("log")
        axis.set_xlim(right=max(max(x["seconds"]) / x["batch"] for x in lines) * 6)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlabel(
            f"seconds per edit, batch of {report['batches'][0]} (x: against its suite's first line)"
        )
        axis.set_title(title)
        return save(figure, path)


def _curves(lines: list[dict[str, Any]], title: str) -> Figure:
    """One panel per suite, seconds per edit over the size of the batch."""
    suites = list(dict.fromkeys(line["suite"] for line in lines))
    rows = -(-len(suites) // 2)
    figure, axes = panels(rows, min(2, len(suites)), figsize=(6.4, 0.3 + 2.9 * rows), squeeze=False)
    sizes = sorted({line["batch"] for line in lines})
    for axis, suite in zip(axes.flat, suites, strict=False):
        names = list(dict.fromkeys(line["name"] for line in lines if line["suite"] == suite))
        for color, name in zip((RED, BLUE, GREEN, ORANGE), names, strict=False):
            mine = [line for line in lines if (line["suite"], line["name"]) == (suite, name)]
            axis.plot(
                [m["batch"] for m in mine],
                [m["per_edit"] for m in mine],
                "o-",
                ms=3,
                color=color,
                label=name,
            )
        axis.set(
            xscale="log", yscale="log", title=suite, xlabel="requests in a batch", ylabel="seconds per edit"
        )
        axis.set_xticks(sizes, sizes)
        axis.xaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(NullLocator())
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), fontsize=6.5)
    for axis in list(axes.flat)[len(suites) :]:
        axis.set_visible(False)
    figure.suptitle(title, fontsize=8)
    return figure


@command("benchmark")
def main() -> None:
    args = options().parse_args()
    warnings.simplefilter("ignore")
    report = run(args)
    suites = "all" if args.suite == SUITES else "-".join(args.suite)
    name = "-".join([args.size, suites, *map(str, args.batch)])
    if args.dtype != "float32" or args.tf32:
        name += f"-{'tf32' if args.tf32 else args.dtype}"
    write_json(args.out / f"{name}.json", report)
    head, rows = table(report)
    write_text(args.out / f"{name}.md", markdown(head, rows))
    peak = report["peak_gib"]
    print(f"peak memory: {peak['model']:.2f} GiB with the model loaded, {peak['run']:.2f} GiB in all")
    print(render(f"{args.size}, {report['device']}, {report['threads']} threads", head, rows, 120))
    if any(line["suite"] != "stats" for line in report["rows"]):
        draw_or_note(lambda: draw(report, args.out / f"{name}.png"))


if __name__ == "__main__":
    main()
