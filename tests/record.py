"""What every method gives on a few fixed facts: a record to compare with after the code has moved.

python -m tests.record                   # compare with tests/data/record.json, a row per model and method
python -m tests.record --models demo     # the same for one model
python -m tests.record --write           # write the record anew, after a change that was meant

Models run in fp32, solves in fp64, on one thread. Of a change of the weights the record holds norms and products
with fixed random vectors, on which two implementations agree up to rounding; a hash would not survive it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metake.data.records import read_records
from metake.editor import Editor
from metake.evaluation.metrics import Evaluator
from metake.methods.table import METHODS
from metake.models.editable import EditableModel
from metake.models.load import load
from metake.presets import load_preset, settings_for
from metake.shipped import ASSETS, DEMOS
from metake.statistics_cache import statistics_for

RECORD = Path(__file__).parent / "data" / "record.json"
MODELS = (*DEMOS, "smollm2")
REAL = ("memit + past-keys", "alphaedit", "metake + compensated + past-keys")  # of the pretrained model
FACTS, BATCH, PROBES = 6, 3, 4
TOLERANCE = 1e-5  # relative; runs on one and on two threads differ by up to 1e-6 (`--threads 2`)


def methods_of(model: str) -> tuple[str, ...]:
    """All rows of the table and, of those with searched numbers, the variant that was searched."""
    if model not in DEMOS:
        return REAL
    searched = [name for name in load_preset(model)["methods"] if "@" not in name]
    fitted = {name for name, row in METHODS.items() if row.prototype.needs_fit}  # tests/maps
    return tuple(name for name in dict.fromkeys([*METHODS, *searched]) if name not in fitted)


def read_facts(model: EditableModel) -> list[Any]:
    """Facts that the model knows, of different subjects."""
    name = "test.json" if model.name in DEMOS else "real_facts.json"
    return read_records(ASSETS / "world" / name)[:FACTS]


def probe(change: torch.Tensor) -> list[float]:
    """`u^T change v` for seeded pairs of Gaussian vectors."""
    random = np.random.default_rng(0)
    u, v = (torch.from_numpy(random.standard_normal((PROBES, size))) for size in change.shape)
    return ((u @ change) * v).sum(1).tolist()


def run(model: EditableModel, method: str) -> dict[str, Any]:
    """Two batches by one method: the change of the weights, attenuations, and the usual three metrics."""
    records, settings = read_facts(model), settings_for(model, method)
    statistics = (
        statistics_for(model, layers=settings.layers, gradients=settings.needs_gradients)
        if settings.needs_statistics
        else None
    )
    judge = Evaluator(model, records, generate=False)
    editor = Editor(model.model, model.tokenizer, settings, statistics=statistics, answers=False)
    before = judge.measure()
    with editor:
        results = [editor.edit([r.request for r in records[i : i + BATCH]]) for i in range(0, FACTS, BATCH)]
        editor.finalize()
        after, delta = judge.measure(before), editor.delta
        return {
            "norm": {str(n): norm for n, norm in delta.norms().items()},
            "products": {str(n): probe(delta.to_dense(n)) for n in delta.weight_layers},
            "eta": {str(n): torch.cat([r.eta[n] for r in results]).tolist() for n in results[0].eta},
            **{name: after.mean(name) for name in ("efficacy", "generalization", "specificity")},
        }


def furthest(found: dict[str, Any], recorded: dict[str, Any]) -> float:
    """The largest relative difference: of products to the norm of their layer, of the others to themselves."""
    if found.keys() != recorded.keys() or any(
        found[k].keys() != recorded[k].keys() for k in ("norm", "products", "eta")
    ):
        return float("inf")
    worst = max(abs(found[k] - recorded[k]) for k in ("efficacy", "generalization", "specificity"))
    for part in ("norm", "products", "eta"):
        for layer, value in recorded[part].items():
            size = recorded["norm"][layer] if part == "products" else np.abs(value)
            gap = np.abs(np.subtract(found[part][layer], value)) / np.maximum(size, 1e-12)
            worst = max(worst, float(np.max(gap)))
    return worst


def main() -> int:
    """Compare, or write; 1 where something differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--methods", nargs="+", help="all, by default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--write", action="store_true", help="replace what is recorded of these models and methods"
    )
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    recorded = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}
    differ = 0
    for model in asked.models:
        loaded = load(model)
        for method in [m for m in methods_of(model) if m in (asked.methods or methods_of(model))]:
            found = run(loaded, method)
            if asked.write:
                recorded.setdefault(model, {})[method] = found
                print(f"{model:12} {method:24} recorded", flush=True)
                continue
            gap = furthest(found, recorded.get(model, {}).get(method, {}))
            differ += gap > TOLERANCE
            print(
                f"{model:12} {method:24} {gap:9.1e}  {'DIFFERS' if gap > TOLERANCE else 'same'}", flush=True
            )
    if asked.write:
        RECORD.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
