"""How far apart the keys of facts are, read at the subject's last token and at the prompt's.

    python experiments/compare_lookups.py --model demo-gptj --layers 0-4
    python experiments/compare_lookups.py --model smollm2 --data zsre.json --layers 4-8

What an edit does to another key is their product in the geometry, k^T C^-1 k' over k^T C^-1 k, so the angles
between keys are taken there (with a thousandth of C's mean eigenvalue added). Of a good place to edit, keys of different
facts are far apart, and those of a rephrasing close to the fact's own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


from metake.console import command
from metake.errors import MetakeError
from metake.files import write_json
from metake.options import (
    Parser,
    at_least,
    chosen_model,
    model_options,
    output_folder,
    parse_layers,
    show_help,
)
from metake.shipped import ASSETS, DEMOS


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    model_options(parser, chat=True)
    parser.add_argument("--data", type=Path, help="records; default: the demo world's development facts")
    parser.add_argument("--edits", type=at_least(1), default=100, help="so many facts")
    parser.add_argument("--layers", help="as 4-8 or 4,6; default: those of the model's preset")
    parser.add_argument(
        "--out",
        type=output_folder,
        default="results/lookups",
        help="folder of the results; default: %(default)s",
    )
    return parser


if __name__ == "__main__":
    show_help(options)

import torch
from torch import Tensor
from torch.nn.functional import normalize

from metake.data.records import Record, read_records
from metake.geometry.statistics import Statistics
from metake.lookup_prompts import pick_tokens
from metake.models.chat import described
from metake.models.editable import EditableModel
from metake.models.tokens import Row, encode, pad
from metake.models.trace import frozen, run, upcast
from metake.presets import settings_for
from metake.prompts import Batch
from metake.provenance import provenance
from metake.report.tables import render
from metake.statistics_cache import statistics_for

NUMBERS = ("subject", "subject_nearest", "prompt", "prompt_nearest", "rephrased")
HEAD = ["layer", "subject: others", "nearest", "prompt: others", "nearest", "own rephrasing"]


@torch.no_grad()
def compare(
    model: EditableModel, records: Sequence[Record], statistics: Statistics, layers: Sequence[int]
) -> list[dict[str, float]]:
    """Per layer, |cos| of keys in C's metric: the mean over pairs of facts and the mean of each one's largest, at both
    tokens, and the mean cosine of a prompt's key with its rephrasing's.

    Raises:
        MetakeError: fewer than two records.
    """
    if len(records) < 2:
        raise MetakeError("--edits: keys are compared with each other; give two records at least")
    requests = [record.request for record in records]
    rows: dict[str, list[Row]] = {
        lookup: list(Batch.build(model, requests, (), lookup).edits) for lookup in ("subject", "prompt")
    }
    rows["rephrased"] = [encode(model.tokenizer, r.rephrase, r.request.target_new) for r in records]

    def keys(of: list[Row]) -> dict[int, Tensor]:
        trace = run(model, pad(of), keys=layers, stop=layers[-1])
        at = torch.tensor([row.lookup for row in of])
        return {n: upcast(pick_tokens(at, trace.keys[n])).double() for n in layers}

    with frozen(model.model):
        found = {name: keys(of) for name, of in rows.items()}
    content = []
    for layer in layers:
        C = statistics[layer].double().to(found["subject"][layer].device)
        C.diagonal().add_(1e-3 * float(C.trace()) / len(C))
        factor = torch.linalg.cholesky(C)
        units = {
            name: normalize(torch.linalg.solve_triangular(factor, k[layer].T, upper=False), dim=0)
            for name, k in found.items()
        }
        numbers = []
        for lookup in ("subject", "prompt"):
            cosines = (units[lookup].T @ units[lookup]).abs().fill_diagonal_(0)
            numbers += [
                float(cosines.sum()) / (len(cosines) * (len(cosines) - 1)),
                float(cosines.amax(1).mean()),
            ]
        numbers.append(float((units["prompt"] * units["rephrased"]).sum(0).mean()))
        content.append(dict(zip(NUMBERS, numbers, strict=True)))
    return content


@command("compare_lookups")
def main() -> None:
    args = options().parse_args()
    if args.data is None and args.model not in DEMOS:
        raise MetakeError(f"--data: needed for {args.model}; give a zsRE or CounterFact file")
    records = read_records(args.data or ASSETS / "world" / "dev.json", args.edits, need=("rephrase",))
    model = chosen_model(args)
    chosen = settings_for(model, "memit").layers if args.layers is None else parse_layers(args.layers)
    layers = tuple(chosen)
    model.check_layers(layers)
    statistics = statistics_for(model, model.tokenizer, layers, progress=True)
    content = compare(model, records, statistics, layers)
    lines = [
        [str(layer), *(f"{row[name]:.2f}" for name in NUMBERS)]
        for layer, row in zip(layers, content, strict=True)
    ]
    print(render(f"{args.model}: |cos| of keys of {len(records)} facts", HEAD, lines, 100))
    write_json(
        args.out / f"{model.name}.json",
        {
            **provenance(model.name, model, "memit"),
            "layers": list(layers),
            "chat": described(model.tokenizer),
            "cosines": content,
        },
    )


if __name__ == "__main__":
    main()
