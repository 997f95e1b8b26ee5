"""How far apart the keys of facts are, read at the subject's last token and at the prompt's.

    python experiments/compare_lookups.py --model demo-gptj --layers 0-4
    python experiments/compare_lookups.py --model smollm2 --data zsre.json --layers 4-8

What an edit does to another key is their product in the geometry, k^T C^-1 k' over k^T C^-1 k, so the angles
between keys are taken there (with a thousandth of C's mean eigenvalue added). Of a good place to edit, keys of different
facts are far apart, and those of a rephrasing close to the fact's own.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import transformers
from torch import Tensor

from metake.data.records import read_records
from metake.files import write_json
from metake.models.load import ASSETS, load
from metake.models.tokens import encode, pad
from metake.models.trace import frozen, run, wide
from metake.presets import statistics_for
from metake.prompts import Batch, pick_tokens
from metake.report.tables import render


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--data", type=Path, default=ASSETS / "world" / "dev.json")
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--layers", default="0-4", help="a range, FIRST-LAST")
    parser.add_argument("--out", type=Path, default=Path("results/lookups"))
    args = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    loaded = load(args.model)
    first, last = map(int, args.layers.split("-"))
    layers = tuple(range(first, last + 1))
    statistics = statistics_for(loaded.arch, loaded.tokenizer, layers, progress=True)
    records = read_records(args.data, args.edits)
    requests = [record.request for record in records]

    def keys(rows: list, places: list[int]) -> dict[int, Tensor]:
        trace = run(loaded.arch, pad(rows), keys=layers, stop=last)
        return {n: wide(pick_tokens(torch.tensor(places), trace.keys[n])).double() for n in layers}

    with frozen(loaded.model), torch.no_grad():
        at = {}
        for lookup in ("subject", "prompt"):
            rows = list(Batch.build(loaded.arch, loaded.tokenizer, requests, (), lookup).edits)
            at[lookup] = keys(rows, [row.lookup for row in rows])
        rephrased = [encode(loaded.tokenizer, r.rephrase, r.request.target) for r in records]
        at["rephrased"] = keys(rephrased, [row.lookup for row in rephrased])
    lines, content = [], []
    for layer in layers:
        C = statistics[layer].double().to(loaded.arch.weight(layer).device)
        C.diagonal().add_(1e-3 * float(C.trace()) / len(C))
        factor = torch.linalg.cholesky(C)
        units = {
            name: torch.nn.functional.normalize(
                torch.linalg.solve_triangular(factor, found[layer].T, upper=False), dim=0
            )
            for name, found in at.items()
        }
        numbers = []
        for lookup in ("subject", "prompt"):
            cosines = (units[lookup].T @ units[lookup]).abs().fill_diagonal_(0)
            numbers += [float(cosines.sum() / (len(cosines) * (len(cosines) - 1)))]
            numbers += [float(cosines.max(1).values.mean())]
        numbers.append(float((units["prompt"] * units["rephrased"]).sum(0).mean()))
        content.append(dict(zip(("subject", "subject_nearest", "prompt", "prompt_nearest", "rephrased"), numbers, strict=True)))  # fmt: skip
        lines.append([str(layer), *(f"{number:.2f}" for number in numbers)])
    head = ["layer", "subject: others", "nearest", "prompt: others", "nearest", "own rephrasing"]
    print(render(f"{args.model}: |cos| of keys of {len(records)} facts", head, lines, 100))
    write_json(args.out / f"{args.model}.json", {"layers": list(layers), "cosines": content})


if __name__ == "__main__":
    main()
