"""How much eta depends on the text that C was collected from.

    python experiments/compare_statistics.py --model smollm2 --text wiki.txt --out results/statistics

The same keys, the same lambda, two texts cut to the same number of tokens: the shipped one (written
by the model itself) and another. Prints and writes the medians of eta per layer and lambda.
"""

from __future__ import annotations

from pathlib import Path

from metake.console import command
from metake.files import read_text, write_json
from metake.options import (
    Parser,
    at_least,
    chosen_model,
    model_options,
    output_folder,
    parse_numbers,
    show_help,
)
from metake.shipped import ASSETS


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    model_options(parser, "smollm2")
    parser.add_argument("--text", type=Path, required=True, help="text to compare with the one that ships")
    parser.add_argument(
        "--data",
        type=Path,
        default=ASSETS / "world" / "real_facts.json",
        help="records to edit; default: what ships",
    )
    parser.add_argument("--edits", type=at_least(1), default=100, help="how many facts; default: %(default)s")
    parser.add_argument(
        "--weights", default="100,1000,10000,30000", help="lambda, comma-separated; default: %(default)s"
    )
    parser.add_argument(
        "--out",
        type=output_folder,
        default="results/statistics",
        help="folder of the results; default: %(default)s",
    )
    return parser


if __name__ == "__main__":
    show_help(options)

import torch

from metake.data.records import read_records
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.lookup_keys import lookup_keys
from metake.models.trace import frozen
from metake.presets import settings_for
from metake.provenance import provenance
from metake.report.tables import markdown
from metake.statistics_cache import TOKENS, statistics_for
from metake.texts import default_text


@command("compare_statistics")
def main() -> None:
    args = options().parse_args()
    weights = parse_numbers(args.weights, "--weights")
    texts = {"shipped text": default_text(args.model), args.text.name: read_text(args.text)}
    requests = [record.request for record in read_records(args.data, args.edits)]
    model = chosen_model(args)
    method = settings_for(model, "memit")
    assert isinstance(method, LocateThenEdit)
    layers = method.layers
    statistics = {
        name: statistics_for(model, model.tokenizer, layers, text=text, tokens=TOKENS, progress=True)
        for name, text in texts.items()
    }
    with frozen(model.model):
        state = method.prepare(model, method.init(model, next(iter(statistics.values()))))
        keys = lookup_keys(model, method.batch(model, requests, state)[1], layers)
    rows, content = [], []
    for weight in weights:
        spec = method.updated(lam=weight).geometry
        for name, moments in statistics.items():
            etas = []
            for layer in layers:
                moment = moments[layer]
                geometry = spec.build(moment, method.torch_dtype, moment.device)
                etas.append(float(geometry.attenuation(keys[layer].T).median()))
            content.append({"lam": weight, "text": name, "tokens": moments.provenance.tokens, "eta": etas})
            rows.append([f"{weight:g}", name, str(moments.provenance.tokens), *(f"{e:.3f}" for e in etas)])
    similarity = {
        str(layer): float(
            torch.nn.functional.cosine_similarity(*(s[layer].flatten() for s in statistics.values()), dim=0)
        )
        for layer in layers
    }
    print(markdown(["lambda", "text", "tokens", *(f"eta {layer}" for layer in layers)], rows))
    print("cosine of the two C:", {k: round(v, 3) for k, v in similarity.items()})
    write_json(
        args.out / f"{args.model}.json",
        {**provenance(model.name, model, "memit"), "eta": content, "cosine": similarity},
    )


if __name__ == "__main__":
    main()
