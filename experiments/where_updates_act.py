"""How far updates move values at each kind of token: at the edited subjects, and at tokens that other texts share.

    metake edit --model demo --requests facts.json --method metake-alphaedit --out edits/metake-alphaedit
    metake edit --model demo --requests facts.json --method alphaedit-blue --out edits/alphaedit-blue
    python experiments/where_updates_act.py edits/metake-alphaedit edits/alphaedit-blue --model demo --data facts.json

At a token with key k an update D moves the value by D k. The table has, per layer and kind of token, the mean of ||D k|| over
the tokens of all records, and the norm of the mean of D k: the part that all these tokens have in common. Keys are those of the
unedited model. A subject counts with its last token. The first token of a text is no `other token`: its key is unlike all others.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metake.console import command, draw_or_note
from metake.errors import MetakeError
from metake.files import write_json
from metake.options import Parser, at_least, chosen_model, model_options, output_folder, show_help


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "folders", nargs="+", type=Path, help="folders that metake edit wrote; their names are the labels"
    )
    model_options(parser, chat=True)
    parser.add_argument("--data", type=Path, required=True, help="records with unrelated prompts")
    parser.add_argument("--edits", type=at_least(1), help="so many records; default: all")
    parser.add_argument(
        "--out",
        type=output_folder,
        default="results/where-updates-act",
        help="folder of the results; default: %(default)s",
    )
    return parser


if __name__ == "__main__":
    show_help(options)

import torch
from torch import Tensor

from metake.data.records import Record, read_records
from metake.deltas import Delta
from metake.models.chat import described
from metake.models.editable import EditableModel
from metake.models.tokens import Row, encode, length_buckets, pad
from metake.models.trace import frozen, run, upcast
from metake.prompts import Batch
from metake.provenance import provenance
from metake.report.figures import line_styles, panels, save, styled
from metake.report.tables import render

KINDS = {
    "subject": "subject, edited prompt",
    "last": "last token, edited prompt",
    "rest": "other tokens, edited prompt",
    "unrelated_last": "last token, unrelated prompt",
    "unrelated_rest": "other tokens, unrelated prompt",
}
BARS: dict[str, dict[str, Any]] = {
    "mean": {"label": "mean norm", "alpha": 0.35},
    "common": {"label": "norm of the mean", "height": 0.4},
}
Moved = dict[str, dict[str, float]]


def read_deltas(folders: Sequence[Path]) -> dict[str, Delta]:
    """Updates of folders by their names, which are the labels; one that is missing or not of weights is a `MetakeError`."""
    deltas: dict[str, Delta] = {}
    for given in folders:
        folder = given.parent if given.is_file() else given
        label = folder.resolve().name
        if label in deltas:
            raise MetakeError(f"{given}: a second folder named {label}; names are the labels, rename one")
        deltas[label] = delta = Delta.load(given)
        delta.require_foldable(str(given))
        if not delta.weight_layers:
            raise MetakeError(f"{given}: changes no weight, so there is nothing to measure; leave it out")
    return deltas


def tokens_of(
    model: EditableModel, records: Sequence[Record]
) -> tuple[list[Row], dict[str, list[tuple[int, int]]]]:
    """Rows of the edited and the unrelated prompts, and row and column of the tokens of each kind."""
    rows = list(Batch.build(model, [record.request for record in records], (), "subject").edits)
    at: dict[str, list[tuple[int, int]]] = {kind: [] for kind in KINDS}
    for i, row in enumerate(rows):
        last = len(row) - row.answer - 1
        at["subject"].append((i, row.lookup))
        if last != row.lookup:
            at["last"].append((i, last))
        at["rest"] += [(i, column) for column in range(1, last) if column != row.lookup]
    for record in records:
        if record.locality:
            row, i = encode(model.tokenizer, record.locality), len(rows)
            at["unrelated_last"].append((i, len(row) - 1))
            at["unrelated_rest"] += [(i, column) for column in range(1, len(row) - 1)]
            rows.append(row)
    return rows, {kind: places for kind, places in at.items() if places}


@torch.no_grad()
def moved_by(
    model: EditableModel,
    records: Sequence[Record],
    deltas: Mapping[str, Delta],
    max_tokens: int | None = None,
) -> dict[str, dict[int, Moved]]:
    """Label -> layer -> kind of token -> `mean` of ||D k|| and `common`, the norm of the mean of D k.

    Args:
        model: the unedited model.
        records: the records; kinds of tokens that they do not have are left out.
        deltas: label -> update that folds into the weights.
        max_tokens: padded tokens per pass; by default what suits the device.

    Returns:
        Norms in the units of the stream.
    """
    rows, at = tokens_of(model, records)
    layers = sorted({layer for delta in deltas.values() for layer in delta.weight_layers})
    sums: dict[tuple[str, int, str], list[Tensor]] = {}
    for members in length_buckets([len(row) for row in rows], max_tokens or model.pass_tokens):
        where = {i: j for j, i in enumerate(members)}
        here = {
            kind: [(where[i], column) for i, column in places if i in where] for kind, places in at.items()
        }
        with frozen(model.model):
            keys = run(
                model, pad([rows[i] for i in members]).to(model.device), keys=layers, stop=layers[-1]
            ).keys
        for label, layer in product(deltas, layers):
            if layer in deltas[label].weight_layers:
                D = upcast(deltas[label].to_dense(layer, model.device))
                for kind, places in here.items():
                    if places:
                        changes = keys[layer][tuple(torch.tensor(places).T)].to(D) @ D.T
                        sums.setdefault((label, layer, kind), []).append(
                            torch.cat([changes.norm(dim=1).sum()[None], changes.sum(0)])
                        )
    found: dict[str, dict[int, Moved]] = {
        label: {n: {} for n in deltas[label].weight_layers} for label in deltas
    }
    for label, layer, kind in product(deltas, layers, at):
        if parts := sums.get((label, layer, kind)):
            norms, common = torch.stack(parts).sum(0).split([1, len(parts[0]) - 1])
            found[label][layer][kind] = {
                "mean": float(norms) / len(at[kind]),
                "common": float(common.norm()) / len(at[kind]),
            }
    return found


def draw(found: Mapping[str, Mapping[int, Moved]], path: Path) -> Path:
    """Bars of ||D k|| per kind of token, one panel per update, at its last layer; dark: the norm of the mean of D k."""
    with styled():
        figure, axes = panels(
            1, len(found), figsize=(1.9 + 2.1 * len(found), 2.9), sharex=True, sharey=True, squeeze=False
        )
        colors = {label: line[0] for label, line in line_styles(found).items()}
        for axis, (label, layers) in zip(axes[0], found.items(), strict=True):
            layer = max(layers)
            names = [KINDS[kind] for kind in layers[layer]]
            for part, style in BARS.items():
                lengths = [norms[part] for norms in layers[layer].values()]
                axis.barh(names, lengths, color=colors[label], **style)
            axis.set_title(f"{label}\nlayer {layer}", fontsize="small")
            axis.set_xlabel(r"$\|D k\|$")
        axes[0, 0].invert_yaxis()
        legend = axes[0, 0].get_legend_handles_labels()
        figure.legend(*legend, loc="outside lower center", ncols=2, frameon=False)
        return save(figure, path)


@command("where_updates_act")
def main() -> None:
    args = options().parse_args()
    records = read_records(args.data, args.edits, need=("locality",))
    deltas = read_deltas(args.folders)
    model = chosen_model(args)
    for folder, delta in zip(args.folders, deltas.values(), strict=True):
        delta.check_fits(model, where=str(folder))
    found = moved_by(model, records, deltas)
    head = ["update", "layer", *(kind.replace("_", " ") for kind in KINDS)]
    lines = [
        [
            label,
            str(layer),
            *(f"{kinds[k]['mean']:.1f} ({kinds[k]['common']:.1f})" if k in kinds else "-" for k in KINDS),
        ]
        for label, layers in found.items()
        for layer, kinds in layers.items()
    ]
    print(render(f"{args.model}: mean of |D k| (norm of the mean), {len(records)} records", head, lines, 120))
    content: dict[str, Any] = {
        **provenance(model.name, model, list(deltas)),
        "chat": described(model.tokenizer),
        "records": len(records),
        "moved": {label: {str(n): kinds for n, kinds in layers.items()} for label, layers in found.items()},
    }
    write_json(args.out / f"{model.name}.json", content)
    draw_or_note(lambda: draw(found, args.out / f"{model.name}.png"))


if __name__ == "__main__":
    main()
