"""CPU seconds per edit of MetaKE and its metrics, with several settings, on the same records in one batch.

    python experiments/closed_loop_cost.py --model smollm2 --chat --data zsre.json --edits 100

Each variant is a list of settings, NAME=VALUE (JSON) with commas between them; `-` has none. CPU seconds are those of planning and
solving, summed over the threads of the process. Intervals (95%) are bootstrapped over the records. A finished variant is
kept: the same command resumes, also with further variants.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metake.console import command
from metake.errors import MetakeError
from metake.files import read_record, write_record
from metake.options import Parser, at_least, output_folder, show_help

VARIANTS = ("from_lookup=false", "from_lookup=true", 'from_lookup=true,loss_dtype="bfloat16"')
METRICS = ("efficacy", "generalization", "specificity", "agreement")


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    parser.add_argument("--model", default="smollm2", help="default: %(default)s")
    parser.add_argument("--chat", action="store_true", help="prompts in the model's chat template")
    parser.add_argument("--data", type=Path, required=True, help="file of records")
    parser.add_argument("--edits", type=at_least(1), default=100, help="default: %(default)s")
    parser.add_argument("--method", default="metake", help="default: %(default)s")
    parser.add_argument("--variants", nargs="+", default=VARIANTS, help="default: %(default)s")
    parser.add_argument(
        "--out", type=output_folder, default="results/closed-loop-cost", help="folder; default: %(default)s"
    )
    return parser


if __name__ == "__main__":
    show_help(options)

from metake.data.records import Record, read_records
from metake.evaluation.metrics import bootstrap
from metake.evaluation.protocol import Protocol, Session
from metake.methods.base import Method
from metake.models.load import load
from metake.models.trace import frozen
from metake.presets import settings_for
from metake.provenance import provenance
from metake.report.tables import render
from metake.statistics_cache import statistics_for


def settings_of(variant: str) -> dict[str, Any]:
    """Settings of a variant, name -> value."""
    pairs = (part.partition("=") for part in variant.split(",") if part != "-")
    return {name: json.loads(value) for name, _, value in pairs}


def measure(session: Session, method: Method, records: list[Record]) -> dict[str, Any]:
    """CPU seconds per edit, steps and metrics of one batch."""
    model, requests = session.model, [record.request for record in records]
    with frozen(model.model):
        state = method.prepare(
            model, method.init(model, statistics_for(model, model.tokenizer, method.layers)), requests
        )
        started = time.process_time()
        delta, _, stages = method.step(model, requests, state, lambda: None)
        seconds = (time.process_time() - started) / len(requests)
    closed = stages[0].targets.closed
    with delta.applied(model, check=False):
        after = session.evaluator.measure(session.before)
    found = {name: [float(after.mean(name)), *bootstrap(after.values[name])] for name in METRICS}
    return {"seconds": seconds, "steps": [] if closed is None else closed.steps.tolist(), "metrics": found}


def table(rows: dict[str, Any]) -> str:
    """The variants with their means and intervals, in per cent."""
    cells = [
        [
            name,
            f"{row['seconds']:.2f}",
            *(
                f"{100 * mean:.1f} ({100 * low:.0f} to {100 * high:.0f})"
                for mean, low, high in row["metrics"].values()
            ),
        ]
        for name, row in rows.items()
    ]
    return render("one batch", ["settings", "CPU s per edit", *METRICS], cells)


def finished(path: Path, key: list[Any]) -> dict[str, Any]:
    """Rows of the same run that the file holds; none without a file."""
    if not path.is_file():
        return {}
    content = read_record(path, "remove it")
    if content.get("key") != key:
        raise MetakeError(f"{path}: holds another run; give another --out, or remove it")
    rows: dict[str, Any] = content["rows"]
    return rows


@command("closed_loop_cost")
def main() -> None:
    args = options().parse_args()
    records = read_records(args.data, args.edits)
    model = load(args.model, chat=args.chat or None)
    methods = {name: settings_for(model, args.method, **settings_of(name)) for name in args.variants}
    key = [model.fingerprint(), str(args.data), len(records), args.method, bool(args.chat)]
    found = {"key": key, **provenance(args.model, model, args.method)}
    path = Path(args.out) / "closed_loop_cost.json"
    rows = finished(path, key)
    session = Protocol(records, len(records), generate=False, text=None).prepare(model)
    for name, method in methods.items():
        if name not in rows:
            rows[name] = measure(session, method, records)
            write_record(path, {**found, "rows": rows})
            print(table(rows), flush=True)


if __name__ == "__main__":
    main()
