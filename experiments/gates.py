"""Gated memories beside methods that change weights: what opens a gate, and whether edits hold in free generation.

    python experiments/gates.py --model demo --out results/gates
    python experiments/gates.py --model demo --methods 'grace,memoir@0.7' --preset settings.json --data metake/assets/world/dev.json

A gate's attenuation is the share of rephrased prompts that open it, its safety the share of unrelated prompts that do. A text
opens it if any of its tokens does: a prompt with its expected answer (teacher-forced), or with what the edited model answers
(free generation). `at the answer` counts only the tokens that predict the expected answer.

A method's run is kept: the same command resumes.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metake.console import command, draw_or_note, set_interrupt_message
from metake.files import as_plain, read_record, write_record, write_text
from metake.options import (
    Parser,
    at_least,
    chosen_model,
    find_statistics,
    model_options,
    output_folder,
    show_help,
)
from metake.shipped import ASSETS

METHODS = "grace,wise,memoir,rep,ultraedit,alphaedit,metake + past-keys"
KINDS = ("edited", "rephrased", "unrelated")


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    model_options(parser)
    parser.add_argument("--methods", default=METHODS, help="comma-separated; default: %(default)s")
    parser.add_argument("--preset", help="preset file; default: the model's; none for the published settings")
    parser.add_argument(
        "--data", type=Path, help="records; default: the test facts of the demo models' world"
    )
    parser.add_argument("--edits", type=at_least(1), default=100, help="how many facts; default: %(default)s")
    parser.add_argument("--batch", type=at_least(1), default=20, help="edits per batch; default: %(default)s")
    parser.add_argument(
        "--out", type=output_folder, default="results/gates", help="folder; default: %(default)s"
    )
    return parser


if __name__ == "__main__":
    show_help(options)

from metake.data.record import Record
from metake.data.records import read_records
from metake.deltas import Delta
from metake.editor import Editor
from metake.evaluation.metrics import Measurement
from metake.evaluation.protocol import Protocol, Session
from metake.methods.base import Method
from metake.models.editable import EditableModel
from metake.models.patch_hooks import recorded_gates
from metake.models.tokens import Row, encode, pad
from metake.models.trace import run
from metake.presets import methods_for
from metake.provenance import provenance
from metake.report.figures import panels, save, styled
from metake.report.tables import markdown

METRICS = {
    "efficacy": "Eff",
    "generalization": "Gen",
    "specificity": "Spe",
    "generation": "exact, free",
    "generation_rephrase": "exact, free (reph.)",
}


def opened(
    model: EditableModel, delta: Delta, rows: Sequence[Row], width: int = 50
) -> list[tuple[bool, bool]]:
    """Per row, whether any of its tokens opens a gate, and whether any of those that predict its answer does."""
    modules = {patch.layer: model.down(patch.layer) for patch in delta.patches}
    found: list[tuple[bool, bool]] = []
    for start in range(0, len(rows), width):
        part = rows[start : start + width]
        with recorded_gates(modules) as gates:
            run(model, pad(part), stop=max(modules))
        for i, row in enumerate(part):
            by_layer = [passes[0].reshape(len(part), -1)[i] for passes in gates.values()]
            needed = len(row) - 1 if row.answer else len(row)
            anywhere = any(bool(tokens[:needed].any()) for tokens in by_layer)
            at_answer = any(bool(tokens[list(row.predicting)].any()) for tokens in by_layer)
            found.append((anywhere, at_answer))
    return found


def gate_shares(
    model: EditableModel, delta: Delta, records: Sequence[Record], measured: Measurement
) -> dict[str, dict[str, float]]:
    """Share of the edited, rephrased and unrelated prompts that open a gate: teacher-forced, at the answer, and free."""
    tokenizer = model.tokenizer
    prompts = {
        "edited": [
            (r.request.text, r.request.target_new, a[0])
            for r, a in zip(records, measured.answers, strict=True)
        ],
        "rephrased": [
            (r.rephrase, r.request.target_new, a[1]) for r, a in zip(records, measured.answers, strict=True)
        ],
        "unrelated": [
            (r.locality, r.locality_answer, a[2]) for r, a in zip(records, measured.answers, strict=True)
        ],
    }
    shares: dict[str, dict[str, float]] = {}
    for kind, texts in prompts.items():
        texts = [(prompt, answer, free) for prompt, answer, free in texts if prompt and answer]
        forced = opened(model, delta, [encode(tokenizer, prompt, answer) for prompt, answer, _ in texts])
        free = opened(model, delta, [encode(tokenizer, prompt, answer) for prompt, _, answer in texts])
        shares[kind] = {
            "forced": sum(anywhere for anywhere, _ in forced) / len(texts),
            "answer": sum(at for _, at in forced) / len(texts),
            "free": sum(anywhere for anywhere, _ in free) / len(texts),
        }
    return shares


def size(delta: Delta) -> int:
    """Bytes of a delta's tensors, in the smaller of its forms."""
    return min(
        sum(t.numel() * t.element_size() for t in form.tensors.values()) for form in (delta, delta.merged())
    )


def measure(session: Session, method: Method) -> dict[str, Any]:
    """Metrics, costs and gates of a method after all batches. The model is as before afterwards."""
    model, records = session.model, session.protocol.records
    contexts = session.contexts_of(method)
    editor = Editor(model, method=method, statistics=session.statistics, answers=False, progress=False)
    if contexts is not None:
        editor.state = replace(editor.state, contexts=contexts)
    with editor:
        seconds = [
            editor.edit([records[i].request for i in group]).seconds for group in session.protocol.batches()
        ]
        measured, delta = session.evaluator.measure(session.before), editor.delta
        return {
            "layers": list(method.layers),
            "settings": method.model_dump(mode="json"),
            **{name: measured.mean(name) for name in METRICS},
            "seconds": sum(seconds) / len(records),
            "bytes": size(delta) / len(records),
            "gates": gate_shares(model, delta, records, measured) if delta.patches else None,
        }


def table(before: dict[str, float], runs: dict[str, dict[str, Any]]) -> str:
    """One row per method."""

    def cell(row: dict[str, Any], *path: str) -> str:
        value: Any = row
        for name in path:
            value = None if value is None else value.get(name)
        return "-" if value is None or math.isnan(value) else f"{100 * value:.0f}"

    gates = ["rephrased open", "free", "at the answer", "unrelated open", "free", "at the answer"]
    head = ["method", *METRICS.values(), *gates, "s/edit", "kB/edit"]
    rows = [["unedited", *(cell(before, name) for name in METRICS), *["-"] * (len(gates) + 2)]]
    for name, row in runs.items():
        shares = [cell(row, "gates", kind, how) for kind in KINDS[1:] for how in ("forced", "free", "answer")]
        cost = [f"{row['seconds']:.2f}", f"{row['bytes'] / 1000:.1f}"]
        rows.append([name, *(cell(row, metric) for metric in METRICS), *shares, *cost])
    return markdown(head, rows)


def draw(runs: dict[str, dict[str, Any]], path: Path) -> Path:
    """Left: share of texts that open the gates. Right: free against teacher-forced success on rephrased prompts."""
    gated = {name: run["gates"] for name, run in runs.items() if run["gates"]}
    colors, ways = ("C0", "C1", "C2"), (("forced", 1.0), ("free", 0.45))
    with styled():
        figure, (left, right) = panels(1, 2, figsize=(7.2, 3.0))
        for i, (_, gates) in enumerate(gated.items()):
            for j, kind in enumerate(KINDS):
                for k, (how, alpha) in enumerate(ways):
                    label = f"{kind}, {'teacher-forced' if how == 'forced' else 'free'}" if i == 0 else None
                    at = i + (2 * j + k - 2.5) * 0.13
                    left.bar(at, 100 * gates[kind][how], 0.12, color=colors[j], alpha=alpha, label=label)
        left.set_xticks(range(len(gated)), list(gated))
        left.set(title="texts that open a gate, %", ylim=(0, 104))
        names = list(runs)
        for k, (metric, label) in enumerate(
            (("generalization", "teacher-forced"), ("generation_rephrase", "free"))
        ):
            right.bar(
                [i + (k - 0.5) * 0.38 for i in range(len(names))],
                [100 * runs[name][metric] for name in names],
                0.36,
                color="C1",
                alpha=(1.0, 0.45)[k],
                label=label,
            )
        right.set_xticks(range(len(names)), [name.split(" +")[0] for name in names], rotation=35, ha="right")
        right.set(title="right answers to rephrased prompts, %", ylim=(0, 104))
        left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False, fontsize=6)
        right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2, frameon=False, fontsize=6)
        return save(figure, path)


@command("gates")
def main() -> None:
    args = options().parse_args()
    model = chosen_model(args)
    methods = methods_for(model, [name.strip() for name in args.methods.split(",")], preset=args.preset)
    statistics = find_statistics(model, methods, None, None)
    data = args.data or ASSETS / "world" / "test.json"
    records = read_records(data, args.edits, need=("rephrase", "locality", "locality_answer"))
    session = Protocol(records, args.batch).prepare(model, statistics)
    set_interrupt_message(f"finished methods are in {args.out / 'runs'}; rerun the command to resume")
    runs = {}
    for method in methods:
        path = args.out / "runs" / f"{model.name}-{session.folder_name(method)}.json"
        if not path.is_file():
            write_record(path, as_plain(measure(session, method)))
        runs[method.name] = read_record(path, f"remove {path}: the method is measured again")
    finish(args, session, runs)


def finish(args: argparse.Namespace, session: Session, runs: dict[str, dict[str, Any]]) -> None:
    """Write the JSON file, the table and the figure."""
    model = session.model
    before = {name: session.before.mean(name) for name in METRICS}
    content = {
        **provenance(model.name, model, list(runs)),
        "data": str(args.data or "the world's test facts"),
        "edits": len(session.protocol.records),
        "batch": args.batch,
        "unedited": before,
        "runs": runs,
    }
    write_record(args.out / f"{model.name}.json", as_plain(content))
    text = table(before, runs)
    write_text(args.out / f"{model.name}.md", text)
    print(text)
    draw_or_note(lambda: draw(runs, args.out / f"{model.name}.png"))


if __name__ == "__main__":
    main()
