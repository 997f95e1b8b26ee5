"""CPU seconds per edit of MetaKE and its metrics, with several settings, on the same records in one batch.

    python experiments/closed_loop_cost.py --model smollm2 --chat --data zsre.json --edits 100

Each variant is a list of settings, NAME=VALUE (JSON, or a text) with commas between them; `-` has none. CPU seconds are those of planning and
solving, summed over the threads of the process. Intervals (95%) are bootstrapped over the records. A finished variant is
kept: the same command resumes, also with further variants.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metake.console import command
from metake.errors import MetakeError
from metake.files import as_plain, digest, read_record, write_record, write_text
from metake.options import Parser, at_least, find_statistics, output_folder, show_help

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

from metake.commands.common import parse_changes
from metake.commands.records import read_data, usable_records
from metake.data.records import Record
from metake.evaluation.metrics import bootstrap
from metake.evaluation.protocol import Protocol, Session
from metake.geometry.statistics import Statistics
from metake.methods.base import Method
from metake.models.editable import EditableModel
from metake.models.load import load
from metake.models.trace import frozen
from metake.presets import settings_for
from metake.provenance import provenance
from metake.report.tables import markdown


def settings_of(variant: str) -> dict[str, Any]:
    """Settings of a variant, name -> value; a comma within a value does not begin a setting."""
    pairs = [] if variant == "-" else re.split(r",(?=[\w.]+=)", variant)
    try:
        return parse_changes(pairs, None)
    except MetakeError as error:
        raise MetakeError(
            f"--variants {variant!r}: write NAME=VALUE,NAME=VALUE, or - for no settings"
        ) from error


def methods_of(model: EditableModel, name: str, variants: Sequence[str]) -> dict[str, Method]:
    """Variant -> method with its settings.

    Raises:
        MetakeError: a setting that the method does not have, or that has no effect on the model.
    """
    methods = {variant: settings_for(model, name, **settings_of(variant)) for variant in variants}
    for variant, method in methods.items():
        for line in method.reasons(model):
            raise MetakeError(f"--variants {variant}: {line}; leave it out")
    return methods


def measure(
    session: Session, method: Method, records: list[Record], statistics: Statistics | None
) -> dict[str, Any]:
    """CPU seconds per edit, steps and metrics of one batch."""
    model, requests = session.model, [record.request for record in records]
    with frozen(model.model):
        state = method.prepare(model, method.init(model, statistics), requests)
        started = time.process_time()
        delta, _, stages = method.step(model, requests, state, lambda: None)
        seconds = (time.process_time() - started) / len(requests)
        delta = method.finalize(delta, {layer: model.weight(layer) for layer in delta.layers})
    closed = stages[0].targets.closed if stages else None
    with delta.applied(model, check=False):
        after = session.evaluator.measure(session.before)
    found = {name: [float(after.mean(name)), *bootstrap(after.values[name])] for name in METRICS}
    return {"seconds": seconds, "steps": [] if closed is None else closed.steps.tolist(), "metrics": found}


def table(rows: dict[str, Any]) -> str:
    """Markdown table of the variants with their means and intervals, in per cent."""
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
    return markdown(["settings", "CPU s per edit", *METRICS], cells)


def finished(path: Path, key: list[Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of the same run that the file holds; none without a file."""
    if not path.is_file():
        return {}
    content = read_record(path, "remove it")
    rows: dict[str, Any] = content.get("rows", {})
    if content.get("key") != key or any(
        row.get("settings") != settings.get(name, row.get("settings")) for name, row in rows.items()
    ):
        raise MetakeError(f"{path}: holds another run; give another --out, or remove it")
    return rows


@command("closed_loop_cost")
def main() -> None:
    args = options().parse_args()
    reading = read_data(args.data, args.edits, 1, None, None)
    model = load(args.model, chat=args.chat or None)
    methods = methods_of(model, args.method, args.variants)
    records, _ = usable_records(model, reading, list(methods.values()))
    statistics = find_statistics(model, methods.values(), None, None)
    settings = {name: as_plain(method.identity()) for name, method in methods.items()}
    key = [model.fingerprint(), digest([asdict(record) for record in records]), args.method, bool(args.chat)]
    found = {"key": key, **provenance(args.model, model, args.method)}
    path = Path(args.out) / "closed_loop_cost.json"
    rows = finished(path, key, settings)
    session = Protocol(records, len(records), generate=False, text=None).prepare(model)
    for name, method in methods.items():
        if name not in rows:
            rows[name] = {**measure(session, method, records, statistics), "settings": settings[name]}
            write_record(path, {**found, "rows": rows})
    write_text(path.with_suffix(".md"), table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
