"""Does Theorem 3 say anything about this model? Its premises and conclusions, edit by edit.

    python experiments/measure_drift.py                       # the demo model
    python experiments/measure_drift.py --model smollm2       # a real pretrained model, real facts
    python experiments/measure_drift.py --model gpt2-xl       # hub name or local folder; GPU if there is one

Every edit is planned open loop and measured alone, on the unedited model: at the plan, at the plan
compensated for attenuation, over the strength of the constraint, and along MetaKE's descent. Writes
drift.json, drift.csv, figures and report.html, and prints the verdict. A run that was stopped goes
on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


from metake.console import command
from metake.errors import MetakeError
from metake.extras import needs
from metake.files import as_plain, read_record, write_record, write_text
from metake.options import (
    Parser,
    at_least,
    chosen_model,
    find_statistics,
    model_options,
    output_folder,
    parse_layers,
    parse_numbers,
    positive,
    show_help,
)
from metake.phases import phase
from metake.shipped import ASSETS, DEMOS


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    model_options(parser, chat=True)
    parser.add_argument("--layers", help="edited layers, e.g. 4-8; default: the model's preset")
    parser.add_argument("--edits", type=at_least(1), default=8, help="how many facts; default: %(default)s")
    parser.add_argument("--data", type=Path, help="zsRE or CounterFact records; default: what ships")
    parser.add_argument("--stats", type=Path, help="statistics written by `metake stats`")
    parser.add_argument("--text", type=Path, help="text to collect statistics from")
    parser.add_argument(
        "--method",
        default="memit",
        choices=["memit", "alphaedit"],
        help="geometry and memory; default: %(default)s",
    )
    parser.add_argument(
        "--lambda", dest="strength", type=positive, help="lambda (L2 for alphaedit); default: preset"
    )
    parser.add_argument(
        "--factors", default="0.1,1,10", help="the strengths that are looked at, as factors of it"
    )
    parser.add_argument(
        "--norms", type=at_least(0), default=4, help="products per norm of a Jacobian; 0: none"
    )
    parser.add_argument(
        "--steps", type=at_least(0), default=8, help="steps of the descent that is followed; 0: none"
    )
    parser.add_argument(
        "--seed", type=at_least(0), default=0, help="of all that is drawn; default: %(default)s"
    )
    parser.add_argument("--out", type=output_folder, help="default: results/drift/MODEL")
    return parser


if __name__ == "__main__":
    show_help(options)

import torch
from tqdm import tqdm

from metake.data.records import read_records
from metake.evaluation.page import write_layers
from metake.geometry.statistics import Statistics
from metake.methods.base import State
from metake.methods.combinators import compensated, metake
from metake.methods.locate_then_edit import LocateThenEdit, lookup_keys
from metake.models.chat import described
from metake.models.load import EditableModel
from metake.models.trace import frozen
from metake.planners.closed_loop import ClosedLoop
from metake.planners.objective import Losses
from metake.planners.target_optimization import Penalty, optimize_targets
from metake.presets import default_layers, settings_for
from metake.provenance import provenance
from metake.report.page import Picture, Section, write_page
from metake.report.tables import render
from metake.requests import Request

with command("measure_drift"), needs("theory"):
    from experiments.drift.edit import Edit, measure
    from experiments.drift.figures import WORDS, draw
    from experiments.drift.layers import spectra
    from experiments.drift.verdict import INTRODUCTION, MEANINGS, judge, sentences, table


@dataclass(frozen=True)
class Bench:
    """A model with everything that the measurement of one edit needs."""

    loaded: EditableModel
    statistics: Statistics
    method: LocateThenEdit
    factors: tuple[float, ...]
    norms: int
    steps: int

    @property
    def closed(self) -> ClosedLoop:
        """MetaKE's planner over the method."""
        planner = metake(self.method).planner
        assert isinstance(planner, ClosedLoop)
        return planner

    def at(self, factor: float = 1.0) -> tuple[LocateThenEdit, State]:
        """The method under a constraint `factor` times as strong, and its state before an edit."""
        name = self.method.strength
        method = self.method.updated(**{name: self.method.value(name) * factor})
        return method, method.prepare(self.loaded, method.init(self.loaded, self.statistics))

    def measure(
        self, strengths: dict[float, tuple[LocateThenEdit, State]], request: Request
    ) -> dict[str, Any]:
        """One edit, alone."""
        arch = self.loaded.arch
        batch, _ = self.method.batch(self.loaded, [request], strengths[1.0][1])
        penalty = Penalty(kl=self.closed.kl, initial_first=True)

        def at(factor: float) -> Edit:
            method, state = strengths[factor]
            return Edit(arch, method.solver(self.loaded, state), batch, penalty, method.max_tokens)

        edit = at(1.0)
        aimed = compensated(self.method).plan(self.loaded, edit.solver, batch, edit.trunks)
        plan = aimed.plan.residuals
        measured = {}
        for factor, (method, _) in strengths.items():
            value = method.value(method.strength)
            other = edit if factor == 1.0 else at(factor)
            measured[f"{value:g}"] = measure(other, plan, steps=0)
        return {
            "request": [request.prompt, request.subject, request.target],
            "start": measure(edit, plan, steps=self.norms),
            "compensated": {**measure(edit, aimed.residuals, steps=0), "scale": float(aimed.scale[0])},
            "strengths": measured,
            "trail": self._trail(edit, plan),
        }

    def _trail(self, edit: Edit, start: torch.Tensor) -> list[dict[str, Any]]:
        """Cosines along MetaKE's descent by the proxy: at its start, after one step, half way, at the end."""
        if self.steps == 0:
            return []
        followed = sorted({0, 1, self.steps // 2, self.steps - 1})
        proxy, seen, trail = edit.slopes["proxy"], [0], []

        class Followed:
            is_post_edit = False

            def __call__(
                self,
                residuals: torch.Tensor,
                active: torch.Tensor,
                penalty: Penalty,
                *,
                backward: bool = True,
            ) -> tuple[Losses, torch.Tensor | None]:
                if seen[0] in followed:
                    trail.append({"step": seen[0], "cos": edit.cosines(residuals)})
                seen[0] += 1
                return proxy(residuals, active, penalty, backward=backward)

        optimize_targets(
            Followed(),
            start,
            edit.hidden.norm(dim=1),
            steps=self.steps,
            lr=self.closed.lr,
            penalty=edit.penalty,
            stop="none",
            stop_loss=0.0,
            evaluate_executed=lambda r: Losses(torch.zeros(1), torch.zeros(1)),
        )
        return trail


def prepare(args: argparse.Namespace) -> tuple[Bench, list[Request], str]:
    """Model, method, statistics and requests.

    Raises:
        MetakeError: model, data, statistics or an option cannot be used; the line says what to do.
    """
    layers = None if args.layers is None else tuple(parse_layers(args.layers))
    if args.data is not None and not args.data.is_file():
        raise MetakeError(f"--data {args.data}: no such file")
    loaded = chosen_model(args)
    method = settings_for(loaded.arch, args.method)
    if layers is None:  # one layer has no drift
        layers = method.layers if len(method.layers) >= 3 else default_layers(len(loaded.arch))
    changes: dict[str, Any] = {"layers": layers, "seed": args.seed}
    if args.strength is not None:
        changes[method.strength] = args.strength
    method = method.updated(**changes)
    factors = tuple(sorted({1.0, *parse_numbers(args.factors, "--factors")}))
    loaded.arch.check_layers(method.layers)
    assert isinstance(method, LocateThenEdit)
    statistics = find_statistics(loaded, [method], args.stats, args.text)
    world = ASSETS / "world"
    data = args.data or world / ("test.json" if loaded.name in DEMOS else "real_facts.json")
    requests = [record.request for record in read_records(data, args.edits)]
    return (
        Bench(loaded, statistics, method, factors, args.norms, args.steps),
        requests,
        data.name,
    )


def run(bench: Bench, requests: list[Request], data: str, out: Path, seed: int) -> dict[str, Any]:
    """Measure all edits, or those that an earlier run left; write after each."""
    arch, layers = bench.loaded.arch, bench.method.layers
    torch.manual_seed(seed)
    strengths = {factor: bench.at(factor) for factor in bench.factors}
    head = {
        **provenance(bench.loaded.name, arch, bench.method.name, dated=False),
        "layers": list(layers),
        "strength": "L2" if bench.method.strength == "l2" else "lambda",
        "data": data,
        "dtype": str(arch.model.dtype).removeprefix("torch."),
        "factors": list(bench.factors),
        "norms": bench.norms,
        "steps": bench.steps,
        "settings": bench.method.model_dump(mode="json"),
        "seed": seed,
        "chat": described(bench.loaded.tokenizer),
        "statistics": {
            "tokens": bench.statistics.provenance.tokens,
            "text": bench.statistics.provenance.text,
        },
    }
    path, edits = out / "drift.json", []
    if path.is_file():
        earlier = read_record(path, "remove it: the edits are measured again")
        if {k: earlier.get(k) for k in head} == as_plain(head):
            edits = earlier["edits"][: len(requests)]
    with (
        frozen(arch.model),
        tqdm(total=len(requests), initial=len(edits), unit="edit", desc=head["model"], disable=None) as bar,
    ):
        for request in requests[len(edits) :]:
            with phase(f"edit {len(edits) + 1} of {len(requests)}"):
                edits.append(bench.measure(strengths, request))
            write_record(path, {**head, "edits": edits})
            bar.update()
        trunks = bench.method.batch(bench.loaded, requests, strengths[1.0][1])[1]
        keys = lookup_keys(bench.loaded, trunks, layers)
    between = spectra({layer: bench.statistics[layer].to(arch.device) for layer in layers}, keys)
    verdicts = {
        "start": judge([edit["start"] for edit in edits]),
        "compensated": judge([edit["compensated"] for edit in edits]),
        **{name: judge([edit["strengths"][name] for edit in edits]) for name in edits[0]["strengths"]},
    }
    content = {**head, "between": between, "verdicts": verdicts, "edits": edits}
    write_record(path, content)
    return content


def write_csv(content: dict[str, Any], path: Path) -> None:
    """One line per edit and point: all plain numbers, layers as columns."""
    rows = []
    for i, edit in enumerate(content["edits"]):
        points = {"start": edit["start"], "compensated": edit["compensated"], **edit["strengths"]}
        for point, values in points.items():
            row: dict[str, Any] = {"edit": i, "subject": edit["request"][1], "point": point}
            for name, value in values.items():
                if isinstance(value, list):
                    row |= {f"{name} {layer}": x for layer, x in zip(content["layers"], value, strict=True)}
                elif isinstance(value, dict):
                    row |= {f"{name} {key}": x for key, x in value.items()}
                elif value is not None:
                    row[name] = value
            rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, stream.getvalue())


def report(content: dict[str, Any], out: Path) -> None:
    """Table, figures and page; and the verdict on the terminal."""
    write_csv(content, out / "drift.csv")
    figures = draw(content, out)
    head, rows = table(content["verdicts"]["start"])
    words = sentences(content["verdicts"]["start"])
    title = (
        f"{content['model']}: Theorem 3 at the plan of {len(content['edits'])} edits, "
        f"layers {write_layers(content['layers'])}"
    )
    pictures = [Picture(path, *WORDS[path.stem]) for path in figures]
    write_page(
        out / "report.html",
        title=title,
        sections=[
            Section(
                "Verdict",
                [INTRODUCTION, *words],
                head=head,
                rows=rows,
                pictures=pictures,
                caption="Premises and conclusions of Theorem 3, and the parts of the proxy's error",
            )
        ],
        glossary=MEANINGS,
    )
    print(render(title, head, rows, width=110))
    print("\n".join(words))
    print(f"written: {out / 'report.html'}, drift.json, drift.csv and {len(figures)} figures")


@command("measure_drift")
def main() -> None:
    args = options().parse_args()
    out = args.out or output_folder(f"results/drift/{Path(args.model).name}")
    bench, requests, data = prepare(args)
    report(run(bench, requests, data, out, args.seed), out)


if __name__ == "__main__":
    main()
