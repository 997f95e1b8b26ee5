"""How much text the second moments need: eta of facts against the number of tokens behind C.

    python experiments/statistics_convergence.py --model demo --tokens 240000
    python experiments/statistics_convergence.py --model smollm2 --text wiki.txt --tokens 250000

The number of tokens doubles. At every size two things are measured, medians over facts and edited layers
of the relative error of eta: against the largest size, and estimated with nothing longer to compare with,
from the two halves of what was read. Half of their difference is the chance in eta; their mean less the
whole is its bias, because a C from few tokens has directions that it has never seen, and the error of 1/n
tokens halves from half to whole. How many tokens one per cent takes is read off the estimates, or
extrapolated from the largest size with the square root of tokens, and said to be so.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


from metake.console import command, draw_or_note
from metake.errors import MetakeError
from metake.files import read_text, write_json, write_text
from metake.options import (
    Parser,
    at_least,
    chosen_model,
    model_options,
    output_folder,
    parse_layers,
    positive,
    show_help,
)
from metake.shipped import ASSETS, DEMOS


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    model_options(parser)
    parser.add_argument("--text", type=Path, help="default: the text that ships for the model")
    parser.add_argument("--tokens", type=at_least(1), default=240_000, help="largest size")
    parser.add_argument("--layers", help="default: the preset's")
    parser.add_argument("--lam", type=positive, help="lambda; default: the preset's")
    parser.add_argument("--data", type=Path, help="facts whose eta is looked at; default: what ships")
    parser.add_argument("--edits", type=at_least(1), default=100, help="how many facts; default: %(default)s")
    parser.add_argument(
        "--out",
        type=output_folder,
        default="results/convergence",
        help="folder of the results; default: %(default)s",
    )
    return parser


if __name__ == "__main__":
    show_help(options)

import torch
from matplotlib.ticker import LogLocator, NullLocator
from torch import Tensor

from metake.data.records import read_records
from metake.figures.core import LAYOUT
from metake.geometry.specs import GeometrySpec
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.lookup_keys import lookup_keys
from metake.models.trace import frozen
from metake.presets import settings_for
from metake.provenance import provenance
from metake.report.figures import BLACK, BLUE, ORANGE, panels, save, styled
from metake.report.tables import markdown
from metake.statistics_cache import statistics_for
from metake.texts import default_text

GOAL = 0.01


def attenuations(moments: dict[int, Tensor], keys: dict[int, Tensor], spec: GeometrySpec) -> Tensor:
    """eta of every fact alone at every layer, `layers x facts`."""
    rows = []
    for layer, moment in moments.items():
        geometry = spec.build(moment, torch.float64, moment.device)
        rows.append(geometry.attenuation(keys[layer].T))
    return torch.stack(rows)


def change(a: Tensor, b: Tensor) -> float:
    """Median over facts and layers of `|a - b| / b`."""
    return float(((a - b).abs() / b).median())


def measure(args: argparse.Namespace) -> dict[str, Any]:
    model = chosen_model(args)
    method = settings_for(model, "memit")
    assert isinstance(method, LocateThenEdit)
    if args.layers is not None:
        method = method.updated(layers=parse_layers(args.layers))
    if args.lam is not None:
        method = method.updated(lam=args.lam)
    layers = method.layers
    text = default_text(args.model) if args.text is None else read_text(args.text)
    sizes = [args.tokens]
    while sizes[0] // 2 >= 2 * model.d_k:
        sizes.insert(0, sizes[0] // 2)
    if len(sizes) < 3:
        raise MetakeError(f"--tokens: {args.tokens} is too few to halve twice; give {8 * model.d_k} or more")
    found = [
        statistics_for(model, model.tokenizer, layers, text=text, tokens=n, progress=True) for n in sizes
    ]
    if found[-1].provenance.tokens < args.tokens:
        raise MetakeError(
            f"text: {found[-1].provenance.tokens} tokens, fewer than --tokens {args.tokens}; lower it, or give a longer --text"
        )
    file = args.data or ASSETS / "world" / ("test.json" if model.name in DEMOS else "real_facts.json")
    requests = [record.request for record in read_records(file, args.edits)]
    with frozen(model.model):
        state = method.prepare(model, method.init(model, found[-1]))
        keys = lookup_keys(model, method.batch(model, requests, state)[1], layers)
    etas = [attenuations(s.moments, keys, method.geometry) for s in found]
    points = []
    for i, (size, eta) in enumerate(zip(sizes, etas, strict=True)):
        point: dict[str, Any] = {
            "tokens": size,
            "per_key_entry": size / model.d_k,
            "eta": float(eta.median()),
        }
        if i:  # the second half is what the whole has beyond the first
            n, m = size, sizes[i - 1]
            rest = {k: (n * found[i][k].double() - m * found[i - 1][k].double()) / (n - m) for k in layers}
            first, second = etas[i - 1], attenuations(rest, keys, method.geometry)
            spread, bias = (first - second) / 2, (first + second) / 2 - eta
            point["estimate"] = float((torch.hypot(spread, bias) / eta).median())
        if i + 1 < len(sizes):
            point["error"] = change(eta, etas[-1])
        points.append(point)
    reached = [p["tokens"] for p in points if p.get("estimate", 1) <= GOAL]
    last = points[-1]
    needed = reached[0] if reached else last["tokens"] * (last["estimate"] / GOAL) ** 2
    return {
        **provenance(model.name, model, "memit"),
        "layers": list(layers),
        "d_k": model.d_k,
        "lam": method.value("lam"),
        "facts": len(requests),
        "points": points,
        "goal": GOAL,
        "needed": needed,
        "extrapolated": not reached,
    }


def draw(content: dict[str, Any], path: Path) -> Path:
    """Error and its estimate over tokens, with the slope of an average beside them."""
    points = content["points"]
    with styled(LAYOUT):
        figure, axis = panels(figsize=(4.2, 2.9))
        for name, color, label in (
            ("error", BLUE, "against the whole text"),
            ("estimate", ORANGE, "estimate from two halves"),
        ):
            mine = [p for p in points if name in p]
            axis.plot(
                [p["tokens"] for p in mine],
                [100 * p[name] for p in mine],
                "o-",
                color=color,
                ms=3,
                label=label,
            )
        with_estimate = [p for p in points if "estimate" in p]
        x = [p["tokens"] for p in with_estimate]
        first = with_estimate[0]["estimate"]
        axis.plot(x, [100 * first * (x[0] / n) ** 0.5 for n in x], ":", color=BLACK, label=r"$1/\sqrt{n}$")
        axis.axhline(100 * GOAL, color=BLACK, lw=0.6)
        axis.set(xscale="log", yscale="log", xlabel="tokens behind C", ylabel="median change of eta, %")
        axis.set_title(f"{content['model']}: layers {content['layers']}, lambda {content['lam']:.3g}")
        sizes = [p["tokens"] for p in points]
        axis.set_xticks(sizes, [f"{n / 1000:g}k" for n in sizes])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(NullLocator())
        axis.legend()
        return save(figure, path)


@command("statistics_convergence")
def main() -> None:
    args = options().parse_args()
    warnings.simplefilter("ignore")
    content = measure(args)
    name = Path(args.model).name
    head = ["tokens", "per key entry", "eta", "off the whole text", "estimate"]
    rows = [
        [
            str(p["tokens"]),
            f"{p['per_key_entry']:.0f}",
            f"{p['eta']:.3f}",
            *(f"{100 * p[k]:.2f}%" if k in p else "-" for k in ("error", "estimate")),
        ]
        for p in content["points"]
    ]
    how = "extrapolated" if content["extrapolated"] else "measured"
    line = f"{GOAL:.0%} of eta takes about {content['needed']:,.0f} tokens ({how})"
    write_json(args.out / f"{name}.json", content)
    write_text(args.out / f"{name}.md", f"{markdown(head, rows)}\n{line}\n")
    print(markdown(head, rows))
    print(line)
    draw_or_note(lambda: draw(content, args.out / f"{name}.png"))


if __name__ == "__main__":
    main()
