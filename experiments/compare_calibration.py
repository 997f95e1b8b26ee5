"""Calibrated settings against searched and published ones, on models whose presets are hidden.

    python experiments/compare_calibration.py --models demo,demo-gptj,demo-llama,models/qwen3

The constants of the calibration (attenuation, step size) are chosen for each model on the development facts of the
*other* models, and reported on its own test facts. A model is the name of a demo model, a folder with `dev.json` and
`records.json` (train_demo_model.py writes them), or `NAME=FOLDER`: another model and the folder of its records. Without
`dev.json` a model is reported, and nothing is chosen on it. Rerun the command to resume.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metake.console import command
from metake.errors import MetakeError
from metake.files import read_json, write_json
from metake.options import Parser, at_least, output_folder, show_help
from metake.shipped import ASSETS, DEMOS

GRID = {
    "metake": [(eta, step) for eta in (0.5, 0.7) for step in (0.1, 0.2)],
    "memit": [(eta, step) for eta in (0.8, 0.9) for step in (0.1, 0.2)],
    "alphaedit": [(eta, step) for eta in (0.8, 0.9) for step in (0.1, 0.2)],
}
METRICS = ("efficacy", "generalization", "specificity", "agreement", "kl")


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    parser.add_argument("--models", default=",".join(DEMOS), help="names or folders; default: %(default)s")
    parser.add_argument("--methods", default=",".join(GRID), help="default: %(default)s")
    parser.add_argument(
        "--edits", type=at_least(1), default=20, help="test facts, in one batch; default: %(default)s"
    )
    parser.add_argument(
        "--dev-edits",
        type=at_least(1),
        default=60,
        help="development facts, in one batch: more, because few facts hardly differ; default: %(default)s",
    )
    parser.add_argument(
        "--out", type=output_folder, default="results/calibration", help="default: %(default)s"
    )
    return parser


if __name__ == "__main__":
    show_help(options)

from metake.calibration.constants import Constants
from metake.calibration.locate import Location, locate
from metake.data.records import Record, read_records
from metake.evaluation.protocol import Protocol, Session
from metake.methods.base import Method
from metake.methods.table import method_named
from metake.models.editable import EditableModel
from metake.models.load import load
from metake.presets import default_layers, preset_name, settings_for
from metake.provenance import provenance
from metake.report.tables import markdown, render

Choice = tuple[float, float]


def files_of(name: str) -> tuple[Path | None, Path]:
    """Development and test records of a model; None if it has no development records."""
    folder = ASSETS / "world" if name in DEMOS else Path(name.rpartition("=")[2])
    dev, test = folder / "dev.json", folder / ("test.json" if name in DEMOS else "records.json")
    if not test.is_file():
        raise MetakeError(
            f"--models: {name}: no {test.name}; name a demo model, a folder with records, or NAME=FOLDER"
        )
    return dev if dev.is_file() else None, test


def score(mean: dict[str, float], before: dict[str, float]) -> float:
    """Harmonic mean of efficacy, generalization, agreement, and specificity relative to the unedited model."""
    spe = min(1.0, mean["specificity"] / max(before["specificity"], 1e-9))
    parts = (mean["efficacy"], mean["generalization"], spe, mean["agreement"])
    return 0.0 if min(parts) <= 0 else len(parts) / sum(1 / part for part in parts)


class Bench:
    """One model with its development and test facts."""

    def __init__(self, name: str, counts: dict[str, int]) -> None:
        source = name.partition("=")[0]
        self.name = Path(source).name
        self.model: EditableModel = load(source, chat=None)
        files = dict(zip(("dev", "test"), files_of(name), strict=True))
        self.records: dict[str, list[Record]] = {
            part: read_records(path, counts[part]) for part, path in files.items() if path is not None
        }
        self._sessions: dict[str, Session] = {}

    def session(self, part: str) -> Session:
        """Measured unedited model, made once for the development (`dev`) or `test` facts."""
        if part not in self._sessions:
            records = self.records[part]
            self._sessions[part] = Protocol(records, len(records), generate=False).prepare(self.model)
        return self._sessions[part]

    def located(self, method: str, choice: Choice, part: str) -> Location:
        """Calibrated method for the facts of a part."""
        requests = [record.request for record in self.records[part]]
        return locate(self.model, requests, method, constants=Constants(*choice))

    def measure(self, method: Method, part: str) -> dict[str, float]:
        """Means of an edit of the facts of a part."""
        session = self.session(part)
        run = session.run(method)
        means = {metric: float(run.after.mean(metric)) for metric in METRICS}
        before = {metric: float(session.before.mean(metric)) for metric in METRICS}
        return {**means, "score": score(means, before), "seconds": run.seconds_per_edit}


def others_best(found: dict[str, dict[str, float]], mine: str, grid: Sequence[Choice]) -> Choice:
    """The choice with the best mean score over the other models."""
    others = [name for name in found if name != mine] or [mine]
    return max(grid, key=lambda choice: sum(found[name][str(choice)] for name in others))


@command("compare_calibration")
def main() -> None:
    args = options().parse_args()
    names, methods = args.models.split(","), args.methods.split(",")
    journal_path = args.out / "journal.json"
    journal: dict[str, Any] = read_json(journal_path) if journal_path.is_file() else {}
    counts = {"dev": args.dev_edits, "test": args.edits}
    benches = [Bench(name, counts) for name in names]
    found: dict[str, dict[str, dict[str, float]]] = {}

    def once(key: str, measure: Any) -> dict[str, Any]:
        if key not in journal:
            journal[key] = measure()
            write_json(journal_path, journal)
            print(key, {k: round(v, 3) for k, v in journal[key].items() if isinstance(v, float)}, flush=True)
        return journal[key]

    for method in methods:
        for bench in (bench for bench in benches if "dev" in bench.records):
            for choice in GRID[method]:
                row = once(
                    f"dev {args.dev_edits} {bench.name} {method} {choice}",
                    lambda b=bench, m=method, c=choice: b.measure(b.located(m, c, "dev").method, "dev"),
                )
                found.setdefault(method, {}).setdefault(bench.name, {})[str(choice)] = row["score"]
    table = []
    for bench in benches:
        for method in methods:
            choice = others_best(found[method], bench.name, GRID[method])

            def calibrated(b: Bench = bench, m: str = method, c: Choice = choice) -> dict[str, Any]:
                location = b.located(m, c, "test")
                return {**b.measure(location.method, "test"), "reasons": list(location.reasons)}

            rows = {"calibrated": once(f"test {args.edits} {bench.name} {method} {choice}", calibrated)}
            plain = method_named(method, default_layers(len(bench.model)))
            rows["published"] = once(
                f"test {args.edits} {bench.name} {method} published",
                lambda b=bench, p=plain: b.measure(p, "test"),
            )
            if preset_name(bench.model):
                preset = settings_for(bench.model, method)
                rows["searched"] = once(
                    f"test {args.edits} {bench.name} {method} searched",
                    lambda b=bench, p=preset: b.measure(p, "test"),
                )
            for kind, row in rows.items():
                numbers = [f"{100 * row[m]:.1f}" for m in METRICS[:4]] + [f"{row['kl']:.3f}"]
                chosen = f"{choice[0]:g}, {choice[1]:g}" if kind == "calibrated" else ""
                table.append([bench.name, method, kind, chosen, *numbers, f"{100 * row['score']:.1f}"])
    head = ["model", "method", "settings", "eta, step", "Eff", "Gen", "Spe", "agreement", "KL", "score"]
    print(render("calibrated, searched and published settings", head, table, 120))
    origin = {b.name: provenance(b.name, b.model, methods) for b in benches}
    write_json(args.out / "results.json", {"models": origin, "head": head, "rows": table})
    (args.out / "table.md").write_text(markdown(head, table) + "\n", encoding="utf-8")
    best = {m: max(GRID[m], key=lambda c: sum(found[m][n][str(c)] for n in found[m])) for m in methods}
    print("best constants over all models:", best)


if __name__ == "__main__":
    main()
