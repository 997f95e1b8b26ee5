"""What is left of edits when the edited model is fine-tuned on other text.

    python experiments/fine_tune_after.py --methods 'memit + past-keys,alphaedit,metake + past-keys'
    python experiments/fine_tune_after.py --model smollm2 --data zsre.json --text other.txt --rates 1e-5

AdamW fine-tunes all weights on rows of the text, which are the same for all methods. The default text of a demo
model is about the people of its world whom no measured prompt names. An edit is right if all tokens of its target
are, teacher-forced. Of the unedited model the facts' old answers are measured, which fine-tuning alone loses.

D is the edit, F the change by fine-tuning, of the edited layers' weights together. Along the edit: <F, D> / |D|^2, -1 if
the edit is taken back. Inside: the norm of F on the row space of D, relative to |D|. Both are in per cent in the table.

Finished runs are kept: the same command resumes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metake.console import command, draw_or_note, set_interrupt_message
from metake.errors import MetakeError
from metake.files import read_record, read_text, write_record, write_text
from metake.options import (
    Parser,
    at_least,
    chosen_model,
    find_statistics,
    model_options,
    output_folder,
    parse_layers,
    parse_numbers,
    show_help,
)
from metake.shipped import ASSETS, DEMOS

UNEDITED = "unedited"


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    model_options(parser)
    parser.add_argument("--methods", default="memit,alphaedit,metake", help="comma-separated")
    parser.add_argument("--layers", help="edited layers, as 4-8 or 4,6; default: each method's preset")
    parser.add_argument("--data", type=Path, help="records; default: the demo world's development facts")
    parser.add_argument("--edits", type=at_least(1), default=40, help="how many facts; default: %(default)s")
    parser.add_argument("--batch", type=at_least(1), default=20, help="edits per batch; default: %(default)s")
    parser.add_argument("--text", type=Path, help="of the fine-tuning; default: the text that ships")
    parser.add_argument("--rates", default="1e-4,3e-4,1e-3", help="learning rates; default: %(default)s")
    parser.add_argument("--steps", type=at_least(1), default=60, help="of fine-tuning; default: %(default)s")
    parser.add_argument(
        "--every", type=at_least(1), default=10, help="steps between measurements; default: %(default)s"
    )
    parser.add_argument("--rows", type=at_least(1), default=8, help="texts per step; default: %(default)s")
    parser.add_argument(
        "--length", type=at_least(2), default=64, help="tokens per text; default: %(default)s"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the drawn rows; default: %(default)s")
    parser.add_argument(
        "--out",
        type=output_folder,
        default="results/fine-tune-after",
        help="folder of the results; default: %(default)s",
    )
    return parser


if __name__ == "__main__":
    show_help(options)

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from metake.data.records import Record, read_records
from metake.data.world import World
from metake.deltas import Delta
from metake.editor import Editor
from metake.evaluation.metrics import Evaluator, bootstrap
from metake.evaluation.protocol import Protocol
from metake.geometry.statistics import Statistics, text_fingerprint
from metake.methods.base import Method
from metake.models.editable import EditableModel
from metake.phases import phase
from metake.presets import methods_for, preset_name
from metake.provenance import provenance
from metake.report.figures import line_styles, panels, save, styled
from metake.report.tables import markdown
from metake.texts import default_text

METRICS = ("efficacy", "generalization", "specificity")


def other_text(records: Sequence[Record], lines: int = 6000) -> str:
    """Text of the demo models' world without the people that the records' prompts name."""
    world = World()
    prompts = " ".join(f"{r.request.text} {r.rephrase} {r.locality}" for r in records)
    named = [subject for subject in world.subjects if subject in prompts]
    stream = (text + answer for text, answer in world.lines(seed=13) if not any(n in text for n in named))
    return "".join(f"{line}\n" for line in islice(stream, lines))


def draw_rows(model: EditableModel, text: str, args: argparse.Namespace) -> Tensor:
    """Token ids of all steps, `steps x rows x length`. Every row starts where a line of the text does.

    Raises:
        MetakeError: the text is shorter than a row.
    """
    begin = [i for i in model.tokenizer("").input_ids if i == model.tokenizer.bos_token_id]
    lines = model.tokenizer(text.splitlines(keepends=True), add_special_tokens=False).input_ids
    ids = torch.tensor([i for line in lines for i in line])
    size = args.length - len(begin)
    starts = torch.tensor([0, *map(len, lines)]).cumsum(0)
    starts = starts[starts + size <= len(ids)]
    if not len(starts):
        raise MetakeError(f"text: {len(ids)} tokens, fewer than --length {args.length}; give a longer one")
    generator = torch.Generator().manual_seed(args.seed)
    chosen = starts[torch.randint(len(starts), (args.steps, args.rows), generator=generator)]
    rows = ids[chosen[..., None] + torch.arange(size)]
    return torch.cat([torch.tensor(begin, dtype=torch.long).expand(args.steps, args.rows, -1), rows], -1)


@contextmanager
def restored(model: EditableModel) -> Iterator[None]:
    """Context in which weights may be changed; those of before are restored bit for bit, without gradients."""
    saved = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    try:
        yield
    finally:
        model.model.load_state_dict(saved)
        model.model.zero_grad(set_to_none=True)


def change(model: EditableModel, edited: dict[int, Tensor], delta: Delta) -> dict[str, float]:
    """The change of the edited layers since the edit, relative to the edit; see the module's text."""
    total, inside, along, edit = 0.0, 0.0, 0.0, 0.0
    for layer, weight in edited.items():
        d = delta.to_dense(layer, weight.device)
        f = model.weight(layer).double() - weight
        _, s, vt = torch.linalg.svd(d, full_matrices=False)
        total, inside = total + float((f**2).sum()), inside + float(((f @ vt[s > 1e-6 * s[0]].T) ** 2).sum())
        along, edit = along + float((f * d).sum()), edit + float((d**2).sum())
    return {"change": (total / edit) ** 0.5, "inside": (inside / edit) ** 0.5, "along": along / edit}


def fine_tune(
    model: EditableModel, delta: Delta | None, evaluator: Evaluator, rows: Tensor, rate: float, every: int
) -> list[dict[str, Any]]:
    """Measurements of an edited model while it is fine-tuned, from step 0. The model is as before afterwards.

    Raises:
        MetakeError: the loss is not finite.
    """
    points: list[dict[str, Any]] = []
    with restored(model):
        if delta is not None:
            delta.apply(model)
        edited = {} if delta is None else {n: model.weight(n).double().clone() for n in delta.layers}
        optimizer = torch.optim.AdamW(model.model.parameters(), lr=rate)
        for step in range(len(rows) + 1):
            if step % every == 0 or step == len(rows):
                measured = evaluator.measure()
                points.append(
                    {
                        "step": step,
                        **{name: measured.mean(name) for name in METRICS},
                        "right": [bool(value == 1) for value in measured.values["efficacy"]],
                        **({} if delta is None else change(model, edited, delta)),
                    }
                )
            if step < len(rows):
                ids = rows[step].to(model.device)
                logits = model.model(input_ids=ids, use_cache=False).logits[:, :-1].float()
                loss = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten().to(logits.device))
                if not loss.isfinite():
                    raise MetakeError(f"--rates {rate:g}: the loss is not finite at step {step}; lower it")
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return points


def edit(model: EditableModel, method: Method, statistics: Statistics | None, protocol: Protocol) -> Delta:
    """All records edited with a method, in batches. The model is as before afterwards."""
    with Editor(model, method=method, statistics=statistics, answers=False) as editor:
        for group in protocol.batches():
            editor.edit([protocol.records[i].request for i in group])
        editor.finalize()
        return editor.delta


def study(args: argparse.Namespace) -> tuple[dict[str, Any], list[str], list[float]]:
    """The journal of all runs, with the names and the rates that were chosen.

    Raises:
        MetakeError: an option, the records or the text cannot be used.
    """
    rates = parse_numbers(args.rates, "--rates")
    if args.dtype not in ("float32", "float64"):
        raise MetakeError(f"--dtype {args.dtype}: small steps are lost in rounding; use float32")
    if args.data is None and args.model not in DEMOS:
        raise MetakeError(f"--data: needed for {args.model}; give a zsRE or CounterFact file")
    needed = ("rephrase", "locality", "ground_truth")
    records = read_records(args.data or ASSETS / "world" / "dev.json", args.edits, need=needed)
    text = None if args.text is None else read_text(args.text)
    protocol = Protocol(records, args.batch, generate=False)
    protocol.check()
    model = chosen_model(args)
    changes = None if args.layers is None else {"layers": tuple(parse_layers(args.layers))}
    methods = methods_for(model, [name.strip() for name in args.methods.split(",")], changes=changes)
    text = text or (other_text(records) if model.name in DEMOS else default_text(preset_name(model)))
    rows = draw_rows(model, text, args)
    head = {
        **provenance(model.name, model, UNEDITED, dated=False),
        "arguments": {k: str(v) for k, v in vars(args).items() if k not in ("out", "methods", "rates")},
        "records": text_fingerprint(repr(records)),
        "text": text_fingerprint(text),
    }
    path = args.out / f"{model.name}.json"
    set_interrupt_message(f"finished runs are in {path}; rerun the command to resume")
    journal = read_record(path, "remove it: the study begins again") if path.is_file() else {}
    if any(journal.get(k) != v for k, v in head.items() if k != "method"):
        journal = {**head, "settings": {}, "runs": {}}
    old = [replace(r, request=replace(r.request, target_new=r.ground_truth)) for r in records]
    statistics = find_statistics(model, methods, None, None)
    for method in (None, *methods):
        name, settings = (method.name, method.model_dump(mode="json")) if method else (UNEDITED, None)
        runs = journal["runs"]
        if journal["settings"].get(name, settings) != settings:  # other numbers in the preset
            runs = {key: run for key, run in runs.items() if key.rpartition(" ")[0] != name}
        missing = [rate for rate in rates if f"{name} {rate:g}" not in runs]
        delta = edit(model, method, statistics, protocol) if method and missing else None
        evaluator = protocol.evaluator(model) if method else Evaluator(model, old, generate=False)
        for rate in missing:
            with phase(f"fine-tune {name}, rate {rate:g}"):
                runs[f"{name} {rate:g}"] = fine_tune(model, delta, evaluator, rows, rate, args.every)
            changed = {**journal["settings"], **({name: settings} if method else {})}
            journal |= {"method": ", ".join([UNEDITED, *changed]), "settings": changed, "runs": runs}
            write_record(path, journal)
    return journal, [UNEDITED, *(method.name for method in methods)], rates


def still_right(
    points: Sequence[dict[str, Any]], point: dict[str, Any], among: np.ndarray | None = None
) -> np.ndarray:
    """1 or 0 per fact that was right at step 0 (or is of `among`): whether it is right at a point."""
    return np.array(point["right"], dtype=float)[np.array(points[0]["right"]) if among is None else among]


def tables(journal: dict[str, Any], names: Sequence[str], rates: Sequence[float]) -> str:
    """Every run at its end; and what a method keeps beyond the first one, paired over facts right in both."""
    head = ["method", "rate", "right at first", "still right", "Eff", "Gen", "Spe", "along, %", "inside, %"]
    rows, pairs = [], []
    for name, (i, rate) in product(names, enumerate(rates)):
        points = journal["runs"][f"{name} {rate:g}"]
        for point in points[-1:] if i else (points[0], points[-1]):
            still = still_right(points, point)
            numbers = [f"{100 * point[metric]:.1f}" for metric in METRICS]
            numbers += [f"{100 * point[part]:.1f}" if part in point else "-" for part in ("along", "inside")]
            share = f"{100 * still.mean():.0f}" if len(still) else "-"
            rows.append([name, f"{rate:g}" if point["step"] else "-", str(len(still)), share, *numbers])
    for name, rate in product(names[2:], rates):
        mine, other = (journal["runs"][f"{n} {rate:g}"] for n in (name, names[1]))
        both = np.array(mine[0]["right"]) & np.array(other[0]["right"])
        if both.any():
            gain = still_right(mine, mine[-1], both) - still_right(other, other[-1], both)
            low, high = bootstrap(gain)
            shown = f"{100 * gain.mean():+.0f} [{100 * low:+.0f}, {100 * high:+.0f}]"
            pairs.append([name, names[1], f"{rate:g}", str(both.sum()), shown])
    paired = markdown(["method", "minus", "rate", "facts", "still right"], pairs) if pairs else ""
    return f"{markdown(head, rows)}\n{paired}"


def draw(journal: dict[str, Any], names: Sequence[str], rates: Sequence[float], path: Path) -> Path:
    """Share of the edits that are still right over the steps of fine-tuning, a panel per learning rate."""
    with styled():
        figure, axes = panels(
            1, len(rates), figsize=(1.2 + 1.9 * len(rates), 2.7), sharey=True, squeeze=False
        )
        for axis, rate in zip(axes[0], rates, strict=True):
            for name, (color, marker, line) in {**line_styles(names), UNEDITED: ("0.5", "", "--")}.items():
                points = journal["runs"][f"{name} {rate:g}"]
                kept = [100 * still.mean() for p in points if len(still := still_right(points, p))]
                label = "unedited: old answers" if name == UNEDITED else name
                style: Any = {"ls": line, "marker": marker, "color": color, "ms": 3.5, "lw": 1}
                axis.plot([p["step"] for p in points][: len(kept)], kept, label=label, **style)
            axis.set(title=f"learning rate {rate:g}", xlabel="fine-tuning steps", ylim=(0, 102))
        axes[0][0].set_ylabel("still right, % of those right at first")
        legend = axes[0][0].get_legend_handles_labels()
        figure.legend(*legend, loc="outside lower center", ncols=4, frameon=False)
        return save(figure, path)


@command("fine_tune_after")
def main() -> None:
    args = options().parse_args()
    journal, names, rates = study(args)
    text, place = tables(journal, names, rates), args.out / journal["model"]
    write_text(Path(f"{place}.md"), text)
    print(text)
    draw_or_note(lambda: draw(journal, names, rates, Path(f"{place}.png")))


if __name__ == "__main__":
    main()
