"""A long run of edits on one model: time, memory, efficacy, locality and attenuation, batch by batch.

    python experiments/long_run.py --edits 100000 --out results/long-run
    python experiments/long_run.py --methods 'ultraedit,memit + past-keys' --edits 20000 --minutes 5 --out results/long-run

The facts are about people that the world of the demo models does not have, in its wordings and with its answers: 13,000 about new pairs
of its names, all further ones about new names, which the tokenizer divides. Efficacy is measured
on a sample of all facts edited so far and on one of the last batch, locality on facts that the model was trained on.

Room is X13's: the sum over all remembered keys of the attenuation of each beside all others, `tr((G + P)^-1 P)`, below d_k. Their mean
attenuation is below `d_k / n` after n edits.

A finished batch is kept: the same command resumes. `--minutes` ends a method early; the next call goes on with it.

Facts of later batches differ from those of earlier ones (new names have more tokens), and so may the load of the machine. After a whole run
`--pairs` further batches are therefore edited into the model with all edits and into an unedited one, in turn, and undone. The ratio of
their CPU times is what an edit costs after the run, relative to the first.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metake.console import command, draw_or_note, set_interrupt_message
from metake.errors import MetakeError
from metake.files import write_record, write_text
from metake.options import (
    Parser,
    at_least,
    chosen_model,
    find_statistics,
    model_options,
    output_folder,
    positive,
    show_help,
)
from metake.shipped import ASSETS, DEMOS

METHODS = "ultraedit,memit + past-keys,alphaedit,metake + past-keys"


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    model_options(parser)
    parser.add_argument("--methods", default=METHODS, help="comma-separated; default: %(default)s")
    parser.add_argument(
        "--set", action="append", metavar="NAME=VALUE", help="change a setting of all methods that have it"
    )
    parser.add_argument(
        "--edits", type=at_least(1), default=100_000, help="how many facts; default: %(default)s"
    )
    parser.add_argument(
        "--batch", type=at_least(1), default=100, help="edits per batch; default: %(default)s"
    )
    parser.add_argument("--every", type=at_least(1), default=10, help="batches between two measurements")
    parser.add_argument("--sample", type=at_least(1), default=50, help="facts of a measurement")
    parser.add_argument(
        "--pairs", type=at_least(0), default=7, help="further batches after a run, timed in both models"
    )
    parser.add_argument("--minutes", type=positive, help="CPU time after which a method is left for now")
    parser.add_argument(
        "--out",
        type=output_folder,
        default="results/long-run",
        help="folder of the results; default: %(default)s",
    )
    return parser


if __name__ == "__main__":
    show_help(options)

import torch
from tqdm import tqdm

from metake.commands.common import parse_changes
from metake.data.record import Record
from metake.data.records import read_records
from metake.data.world import World
from metake.deltas import Delta
from metake.editor import Editor
from metake.evaluation.checkpoint import Checkpoints
from metake.evaluation.metrics import Evaluator
from metake.files import as_plain
from metake.geometry.statistics import Statistics
from metake.methods.base import Method
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.state import LayerMemory
from metake.models.editable import EditableModel
from metake.presets import methods_for
from metake.provenance import provenance
from metake.report.figures import line_styles, panels, save, styled
from metake.report.tables import markdown
from metake.requests import EditRequest


def people() -> Iterator[str]:
    """An endless stream of people whom the demo models' world does not have: new pairs of its names first, then new names."""
    known = World().subjects
    first, last = (sorted({name.split()[i] for name in known}) for i in range(2))
    pairs = sorted({f"{a} {b}" for a in first for b in last} - set(known))
    random.Random(0).shuffle(pairs)
    taken = {*known, *pairs}
    yield from pairs
    for seed in count(1):
        for name in World(2500, seed).subjects:
            if name not in taken:
                taken.add(name)
                yield name


def facts() -> Iterator[Record]:
    """An endless stream of facts about such people, a relation after the other, with an answer of the world."""
    draw = random.Random("long run")
    for subject in people():
        for relation in World(1).relations:
            request = EditRequest.from_text(
                relation.wordings[0].format(subject), subject, draw.choice(relation.values)
            )
            yield Record(request, rephrase=relation.wordings[1].format(subject))


def resident() -> float:
    """Resident memory of the process, in MB; the largest so far where the present one is not known."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def room(editor: Editor) -> float | None:
    """Sum of the attenuations of all remembered keys, each beside all others, over d_k: the mean over layers; None without keys."""
    method, state = editor.method, editor.state
    if not isinstance(method, LocateThenEdit) or not method.memory.remembers_keys:
        return None
    shares = []
    for layer in method.solved_layers:
        keys = [k.double() for k in state.of_layer(layer)]
        moment = sum((k @ k.T for k in keys), state.folded.get(layer, torch.zeros(()).double()))
        solved = method.geometry_at(editor.model, state, layer).solve(moment)
        shares.append(float(solved.trace()) / len(solved))
    return sum(shares) / len(shares)


@dataclass(frozen=True)
class Batch:
    """What is kept of a batch."""

    delta: Delta
    memory: LayerMemory
    row: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """The batch's row of the results."""
        return self.row


def new_editor(model: EditableModel, method: Method, statistics: Statistics | None) -> Editor:
    """An editor that reads no answers and keeps one batch to undo."""
    return Editor(model, method=method, statistics=statistics, answers=False, progress=False, undoable=1)


def timed(editor: Editor, requests: Sequence[EditRequest]) -> float:
    """CPU seconds of a batch, which is undone."""
    started = time.process_time()
    editor.edit(requests)
    seconds = time.process_time() - started
    editor.undo()
    return seconds


@dataclass(frozen=True)
class Run:
    """Rows of the batches of a method, and CPU seconds of further batches in an unedited and in the edited model."""

    rows: list[dict[str, Any]]
    pairs: list[tuple[float, float]]

    @property
    def ratios(self) -> list[float]:
        """Time in the edited model relative to the unedited one, ascending."""
        return sorted(edited / unedited for unedited, edited in self.pairs)


@dataclass(frozen=True)
class LongRun:
    """The records of a run, the further ones for `--pairs`, an unedited model, and how they are edited and measured."""

    records: Sequence[Record]
    further: Sequence[Record]
    known: Sequence[Record]
    unedited: EditableModel
    batch: int
    every: int
    sample: int

    def measure(self, editor: Editor, index: int, group: range) -> dict[str, float]:
        """Efficacy and generalization of facts edited so far, efficacy of the last batch, and locality."""
        draw = random.Random(index)

        def of(records: Sequence[Record]) -> Any:
            return Evaluator(editor.model, records, generate=False, compared=0).measure()

        def some(among: range) -> list[Record]:
            return [self.records[i] for i in draw.sample(among, min(self.sample, len(among)))]

        earlier, last, locality = of(some(range(group.stop))), of(some(group)), of(self.known)
        return {
            "efficacy": earlier.mean("efficacy"),
            "generalization": earlier.mean("generalization"),
            "efficacy_last": last.mean("efficacy"),
            "locality": locality.mean("efficacy"),
        }

    def edit(self, editor: Editor, index: int, group: range) -> Batch:
        """One batch, timed, and measured if it is its turn."""
        started = time.process_time()
        result = editor.edit([self.records[i].request for i in group])
        row: dict[str, Any] = {
            "edits": group.stop,
            "seconds": result.seconds,
            "cpu_seconds": time.process_time() - started,
            "eta": float(torch.stack(list(result.eta.values())).median()) if result.eta else None,
            "steps": float(result.steps.mean()),
        }
        if index % self.every == 0 or group.stop == len(self.records):
            row |= self.measure(editor, index, group)
            if (share := room(editor)) is not None:
                row["room"] = share
        return Batch(result.delta, result.memory, {**row, "resident": resident()})

    def pairs(self, editor: Editor, statistics: Statistics | None) -> list[tuple[float, float]]:
        """CPU seconds of each further batch in the unedited model and in the edited one, without the first, which imports and builds."""
        found = []
        with new_editor(self.unedited, editor.method, statistics) as first:
            for start in range(0, len(self.further), self.batch):
                requests = [record.request for record in self.further[start : start + self.batch]]
                found.append((timed(first, requests), timed(editor, requests)))
        return found[1:]

    def run(
        self,
        model: EditableModel,
        method: Method,
        statistics: Statistics | None,
        folder: Path,
        minutes: float | None,
    ) -> Run:
        """All finished batches of a method, and the pairs if none is left. The model is as before afterwards."""
        key = {
            "fingerprint": model.fingerprint(),
            "settings": method.model_dump(mode="json"),
            "run": [self.batch, self.every, self.sample],
        }
        checkpoints, rows = Checkpoints(folder, key), []
        bar = tqdm(total=len(self.records), desc=method.name, unit="edit", disable=None)
        with bar, new_editor(model, method, statistics) as editor:
            started = time.process_time()
            for index, first in enumerate(range(0, len(self.records), self.batch)):
                group = range(first, min(first + self.batch, len(self.records)))
                row = checkpoints.restore(index, editor, tuple(self.records[i].request for i in group))
                if row is None:
                    if minutes is not None and time.process_time() - started > 60 * minutes:
                        break
                    row = checkpoints.save(index, batch := self.edit(editor, index, group))  # type: ignore[arg-type]
                    del batch
                    checkpoints.merge(index, editor)
                rows.append(row)
                bar.update(len(group))
            complete = rows and rows[-1]["edits"] == len(self.records)
            return Run(rows, self.pairs(editor, statistics) if complete else [])


def tenths(rows: Sequence[dict[str, Any]], name: str) -> tuple[float, float]:
    """Median of a number over the first and the last tenth of the batches, without the first batch, which imports and builds."""
    values = [row[name] for row in rows][1:] or [rows[0][name]]
    values = [float("nan") if value is None else value for value in values]
    part = max(1, len(values) // 10)
    first, last = sorted(values[:part]), sorted(values[-part:])
    return first[part // 2], last[part // 2]


def table(runs: dict[str, Run]) -> str:
    """One row per method: the first and the last tenth of its batches, median and range of the ratios, and its last measurement."""
    head = ["method", "edits", "CPU s/batch, first tenth", "last tenth", "edited/unedited"]
    head += ["steps, first tenth", "last tenth", "MB, first tenth", "last tenth"]
    head += ["Eff, all", "Eff, last batch", "locality", "eta", "room / d_k"]
    rows = []
    for name, found in runs.items():
        run, ratios = found.rows, found.ratios
        seconds, steps, memory = (tenths(run, part) for part in ("cpu_seconds", "steps", "resident"))
        last = next(row for row in reversed(run) if "efficacy" in row)
        numbers = [f"{100 * last[part]:.0f}" for part in ("efficacy", "efficacy_last", "locality")]
        share = f"{last['room']:.2f}" if "room" in last else "-"
        times = [f"{seconds[0]:.2f}", f"{seconds[1]:.2f}"]
        middle = ratios[len(ratios) // 2] if ratios else 0
        times += [f"{middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})" if ratios else "-"]
        times += [f"{steps[0]:.1f}", f"{steps[1]:.1f}"]
        times += [f"{memory[0]:.0f}", f"{memory[1]:.0f}"]
        eta = tenths(run, "eta")[1]
        rows.append(
            [name, f"{run[-1]['edits']:,}", *times, *numbers, "-" if math.isnan(eta) else f"{eta:.3f}", share]
        )
    return markdown(head, rows)


def draw(runs: dict[str, list[dict[str, Any]]], d_k: int, batch: int, path: Path) -> Path:
    """Time, memory, efficacy with locality, and attenuation over the number of edits, one line per method."""
    shown = [
        (("cpu_seconds", "-"),),
        (("resident", "-"),),
        (("efficacy", "-"), ("locality", ":")),
        (("eta", "-"), ("room", ":")),
    ]
    titles = (
        "CPU seconds per batch",
        "resident memory, MB",
        "efficacy (solid), locality (dotted), %",
        "eta, and room / d_k (dotted)",
    )
    with styled():
        figure, axes = panels(2, 2, figsize=(6.6, 5.0), sharex=True)
        for axis, parts, title in zip(axes.flat, shown, titles, strict=True):
            for name, (color, marker, _) in line_styles(runs).items():
                for part, line in parts:
                    skipped = 1 if part == "cpu_seconds" else 0  # the first batch imports and builds
                    points = [row for row in runs[name][skipped:] if row.get(part) is not None]
                    scale = 100 if part in ("efficacy", "locality") else 1
                    style: Any = {"ls": line, "color": color, "lw": 1, "label": name if line == "-" else None}
                    style |= {"marker": marker, "ms": 3, "markevery": max(1, len(points) // 10)}
                    axis.plot([p["edits"] for p in points], [scale * p[part] for p in points], **style)
            axis.set(title=title, xscale="log")
        axes[0][0].set_yscale("log")
        axes[0][1].set_ylim(bottom=0)
        most = max(row["edits"] for run in runs.values() for row in run)
        edits = [batch * 1.1**i for i in range(200) if batch * 1.1**i <= most]
        axes[1][1].plot(
            edits, [min(1, d_k / n) for n in edits], color="0.5", ls="--", lw=1, label="d_k / n (X13)"
        )
        for axis in axes[1]:
            axis.set_xlabel("edits")
        figure.legend(
            *axes[1][1].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False
        )
        return save(figure, path)


@command("long_run")
def main() -> None:
    args = options().parse_args()
    if args.model not in DEMOS:
        raise MetakeError(
            f"--model {args.model}: the synthetic facts are of the demo models' world; give one of {', '.join(DEMOS)}"
        )
    model = chosen_model(args)
    names = [name.strip() for name in args.methods.split(",")]
    methods = methods_for(model, names, changes=parse_changes(args.set, None))
    statistics = find_statistics(model, methods, None, None)
    stream = facts()
    records = [next(stream) for _ in range(args.edits)]
    further = [next(stream) for _ in range((args.pairs + 1) * args.batch)] if args.pairs else []
    trained = read_records(ASSETS / "world" / "test.json", args.sample, need=("ground_truth",))
    known = [Record(replace(r.request, target_new=r.ground_truth)) for r in trained]
    study = LongRun(records, further, known, chosen_model(args), args.batch, args.every, args.sample)
    set_interrupt_message(f"finished batches are in {args.out / 'runs'}; rerun the command to resume")
    runs = {}
    for method in methods:
        folder = args.out / "runs" / model.name / method.name
        runs[method.name] = study.run(model, method, statistics, folder, args.minutes)
    finish(args, model, study, runs)


def finish(args: argparse.Namespace, model: EditableModel, study: LongRun, runs: dict[str, Run]) -> None:
    """Write the JSON file, the table and the figure."""
    runs = {name: run for name, run in runs.items() if run.rows}
    if not runs:
        raise MetakeError(f"--minutes {args.minutes}: no batch was finished; give more")
    before = Evaluator(model, study.known, generate=False, compared=0).measure().mean("efficacy")
    arguments = {k: str(v) for k, v in vars(args).items() if k not in ("out", "minutes")}
    content = {
        **provenance(model.name, model, list(runs)),
        "arguments": arguments,
        "locality_unedited": before,
        "d_k": model.d_k,
    }
    rows = {name: run.rows for name, run in runs.items()}
    pairs = {name: run.pairs for name, run in runs.items()}
    write_record(args.out / f"{model.name}.json", as_plain({**content, "runs": rows, "pairs": pairs}))
    text = table(runs)
    write_text(args.out / f"{model.name}.md", text)
    print(text)
    draw_or_note(lambda: draw(rows, model.d_k, study.batch, args.out / f"{model.name}.png"))


if __name__ == "__main__":
    main()
