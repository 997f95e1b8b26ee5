"""Long answers: each is edited alone into a model and read back, with methods of one and of several positions per request.

    python experiments/long_answers.py --model smollm2 --edits 50 --out results/long-answers
    python experiments/long_answers.py --model demo --edits 2 --sentences 2 --least 10 --out results/long-answers-demo

The answers are biographies of people who do not exist (`metake/data/biographies.py`), drawn with a seed; `--data` reads
others, e.g. UnKE's, whose questions name no subject (--set lookup=prompt). Every answer is edited into the unedited
model, which is measured first. The open-loop plans of several answers are found together, as they depend on no solve,
and methods with the same plan share it; the seconds of an edit include its share. Exact tokens are measured with teacher forcing, everything else of the greedy answer;
locality is the agreement with the unedited model on the same prompts for all methods. A finished edit is kept: the same
command resumes, also with a larger --edits.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metake.console import command, draw_or_note
from metake.errors import MetakeError
from metake.files import write_record, write_text
from metake.options import (
    Parser,
    at_least,
    chosen_model,
    find_statistics,
    model_options,
    output_folder,
    show_help,
)

METHODS = "memit,alphaedit,memit-anyedit,alphaedit-anyedit,muke,metake-windows"
UNEDITED = "unedited"
SCORES = ("tokens", "generated", "rouge_l", "bleu", "similarity", "locality", "seconds", "cpu_seconds")


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    model_options(parser)
    parser.add_argument("--methods", default=METHODS, help="default: %(default)s")
    parser.add_argument(
        "--set", action="append", metavar="NAME=VALUE", help="change a setting of all methods that have it"
    )
    parser.add_argument("--data", type=Path, help="records with long answers; default: biographies")
    parser.add_argument("--edits", type=at_least(1), default=50, help="so many answers")
    parser.add_argument("--sentences", type=at_least(1), default=8, help="sentences of a biography")
    parser.add_argument("--least", type=at_least(1), default=60, help="tokens of the shortest answer")
    parser.add_argument("--seed", type=at_least(0), default=0, help="seed of the biographies")
    parser.add_argument(
        "--together",
        type=at_least(1),
        default=10,
        help="answers whose open-loop plans are found in one optimization; default: %(default)s",
    )
    parser.add_argument("--preset", help="name or file of another preset than the model's")
    parser.add_argument(
        "--out", type=output_folder, default="results/long-answers", help="folder; default: %(default)s"
    )
    return parser


if __name__ == "__main__":
    show_help(options)

import numpy as np
from tqdm import tqdm

from metake.commands.common import parse_changes
from metake.commands.records import read_data, usable_records
from metake.data.biographies import biographies
from metake.data.record import Record
from metake.evaluation.long_answers import Unrelated, measure_long_answer
from metake.evaluation.metrics import bootstrap
from metake.files import as_plain, read_record
from metake.geometry.statistics import Statistics
from metake.methods.alone import group_of, plan_key, plan_together, plans_alone
from metake.methods.base import Method
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.state import State
from metake.models.editable import EditableModel
from metake.models.tokens import count_tokens
from metake.models.trace import frozen
from metake.planners.target_optimization import TargetOptimization
from metake.presets import methods_for
from metake.provenance import provenance
from metake.report.figures import panels, save, styled
from metake.report.tables import markdown


def long_records(args: Any, model: EditableModel, methods: Sequence[Method]) -> list[Record]:
    """Records whose answers have enough tokens.

    Raises:
        MetakeError: too few of them, or none that the methods can edit.
    """
    if args.data:
        found, _ = usable_records(model, read_data(args.data, None, 1, None, None), methods)
    else:
        found = biographies(2 * args.edits, args.seed, args.sentences)
    lengths = count_tokens(model.tokenizer, [record.request.target_new for record in found])
    kept = [record for record, length in zip(found, lengths, strict=True) if length >= args.least]
    if len(kept) < args.edits:
        raise MetakeError(f"--least: {len(kept)} answers have {args.least} tokens; ask for fewer --edits")
    return kept[: args.edits]


@dataclass(frozen=True)
class Planned:
    """Open-loop plan of an answer, and its share of the time of all that were planned with it."""

    plan: TargetOptimization
    seconds: float
    cpu_seconds: float


@dataclass
class Study:
    """Edits of answers, each alone into the unedited model.

    Attributes:
        model: the model.
        statistics: second moments of the edited layers' keys.
        unrelated: prompts for locality.
        folder: folder of the finished edits.
        plans: key of a plan and number of an answer -> the plan, which methods share.
        states: name of a method -> its state before an edit, with what is computed once.
    """

    model: EditableModel
    statistics: Statistics | None
    unrelated: Unrelated
    folder: Path
    plans: dict[tuple[str, int], Planned] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)

    def measure(self, method: Method | None, records: Mapping[int, Record]) -> dict[int, dict[str, Any]]:
        """Measurement of some answers after their edits, or of the unedited model; those in the folder are read."""
        folder = self.folder / (method.name if method else UNEDITED)
        folder.mkdir(parents=True, exist_ok=True)
        settings, found, keys = method.model_dump() if method else None, {}, {}
        for i, record in records.items():
            path = folder / f"{i:04}.json"
            key = {"request": vars(record.request), "method": settings, "model": self.model.fingerprint()}
            keys[i] = as_plain(key)
            if path.is_file():
                content = read_record(path, f"remove {folder}: its answers are edited again")
                if content["key"] != keys[i]:
                    raise MetakeError(f"{path}: holds another edit; give another --out, or remove it")
                found[i] = content["scores"]
        missing = {i: record for i, record in records.items() if i not in found}
        planned = self.planned(method, missing) if method else {}
        for i, record in tqdm(missing.items(), desc=folder.name, unit="edit", disable=None):
            found[i] = self.edited(method, record, planned.get(i)) if method else self.unedited(record)
            write_record(folder / f"{i:04}.json", {"key": keys[i], "scores": found[i]})
        return found

    def planned(self, method: Method, records: Mapping[int, Record]) -> dict[int, Planned]:
        """Plans of answers, those that are not known in one optimization; none if they depend on the solve."""
        if not records or not isinstance(method, LocateThenEdit) or not plans_alone(method):
            return {}
        state = self.state(method)
        key = plan_key(method, state)
        missing = {i: record.request for i, record in records.items() if (key, i) not in self.plans}
        if missing:
            started, cpu = time.perf_counter(), time.process_time()
            plans = plan_together(method, self.model, list(missing.values()), state)
            spent = (time.perf_counter() - started, time.process_time() - cpu)
            shares = [seconds / len(missing) for seconds in spent]
            self.plans |= {(key, i): Planned(plan, *shares) for i, plan in zip(missing, plans, strict=True)}
        return {i: self.plans[key, i] for i in records}

    def state(self, method: Method) -> State:
        """State of a method before an edit."""
        if method.name not in self.states:
            self.states[method.name] = method.prepare(self.model, method.init(self.model, self.statistics))
        return self.states[method.name]

    def edited(self, method: Method, record: Record, planned: Planned | None) -> dict[str, Any]:
        """Measurement of an answer after its edit."""
        requests, inputs, state = [record.request], {}, self.state(method)
        started, cpu = time.perf_counter(), time.process_time()
        with frozen(self.model.model):
            if planned is not None and isinstance(method, LocateThenEdit):
                inputs = {"inputs": (group_of(method, self.model, record.request, state, planned.plan),)}
            delta = method.step(self.model, requests, state, lambda: None, **inputs)[0]
            spent = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
            with delta.applied(self.model, check=False):
                scores = measure_long_answer(self.model, record.request, self.unrelated)
        shared = {name: getattr(planned, name, 0.0) for name in spent}
        return {**scores, **{name: spent[name] + shared[name] for name in spent}}

    def unedited(self, record: Record) -> dict[str, Any]:
        """Measurement of an answer of the unedited model."""
        scores = measure_long_answer(self.model, record.request, self.unrelated)
        return {**scores, "seconds": 0.0, "cpu_seconds": 0.0}


def mean_and_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean with the ends of its 95% bootstrap interval over answers."""
    return float(np.mean(values)), *bootstrap(np.array(values))


def table(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Markdown table: method, number of answers, then the mean of each score with its interval if there are several."""
    rows = []
    for name, measured in results.items():
        cells = []
        for key in SCORES:
            mean, low, high = mean_and_interval([float(scores[key]) for scores in measured])
            cells.append(f"{mean:.3f} [{low:.3f}, {high:.3f}]" if len(measured) > 1 else f"{mean:.3f}")
        rows.append([f"`{name}`", str(len(measured)), *cells])
    return markdown(["method", "answers", *SCORES], rows)


def draw(results: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> Path:
    """Figure: exact tokens, ROUGE-L and locality per method, with their intervals."""
    with styled():
        shown = ("tokens", "rouge_l", "locality")
        figure, axes = panels(1, len(shown), figsize=(6.6, 2.2))
        for axis, key in zip(axes, shown, strict=True):
            found = [mean_and_interval([float(s[key]) for s in measured]) for measured in results.values()]
            means, low, high = (np.array(part) for part in zip(*found, strict=True))
            axis.barh(list(results), means, xerr=np.abs(np.stack([means - low, high - means])))
            axis.set_xlim(0, 1)
            axis.set_xlabel(key)
            axis.invert_yaxis()
            if key != shown[0]:
                axis.set_yticklabels([])
        return save(figure, path)


def write_summary(
    folder: Path, model: EditableModel, methods: Sequence[Method], results: Mapping[str, Sequence[Any]]
) -> None:
    """Write the scores of every answer with the settings, and the table."""
    content = {
        **provenance(model.name, model, list(results), dated=False),
        "settings": {method.name: method.model_dump() for method in methods},
        "edits": len(results[UNEDITED]),
        "scores": results,
    }
    write_record(folder / f"{model.name}.json", content)
    write_text(folder / f"{model.name}.md", table(results) + "\n")


@command("long_answers")
def main() -> None:
    args = options().parse_args()
    model = chosen_model(args)
    names = [name.strip() for name in args.methods.split(",")]
    methods = methods_for(model, names, preset=args.preset, changes=parse_changes(args.set, None))
    records = long_records(args, model, methods)
    statistics = find_statistics(model, methods, None, None)
    unrelated = Unrelated.of(model, [record.locality for record in biographies(20, seed=-1)])
    study = Study(model, statistics, unrelated, args.out / "edits")
    results: dict[str, list[dict[str, Any]]] = {}
    for first in range(0, len(records), args.together):
        part = dict(enumerate(records[first : first + args.together], first))
        for method in (None, *methods):
            measured = study.measure(method, part)
            results.setdefault(method.name if method else UNEDITED, []).extend(measured[i] for i in part)
        write_summary(args.out, model, methods, results)
        study.plans.clear()
    print(table(results))
    draw_or_note(lambda: draw(results, args.out / f"{model.name}.png"))


if __name__ == "__main__":
    main()
