"""The paper's protocol: consecutive batches on one model, all methods, several seeds, one table.

    python experiments/run_zsre.py                                  # demo model, made-up facts, scaled down
    python experiments/run_zsre.py --model gpt2-xl --data zsre_mend_eval.json --methods all \
        --edits 2000 --batch 100 --seeds 3 --out results/gpt2-xl
    python experiments/run_zsre.py --model gpt2-xl --data multi_counterfact.json \
        --fluency 2000 --references attribute_snippets.json

Records are those of a zsRE or CounterFact file. Seed 0 takes the first ones in the file's order, as
published; every other seed draws its own. Statistics are shared by all methods, sampled contexts by
all methods of a seed. Every batch is kept on disk: the same command goes on where a killed run
stopped, and ends with the same weights and numbers. Writes results.json, and the table as Markdown,
LaTeX and CSV, and the curves over the number of edits; under_way.json has what was seen of a run that
has not ended. Methods edit the same facts: what they differ by is known far better than what either
reaches, and `--against METHOD` says it.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


from metake.console import command, draw_or_note, if_interrupted
from metake.errors import MetakeError
from metake.extras import require
from metake.files import write_json, write_text
from metake.names import unknown_name
from metake.options import (
    Parser,
    at_least,
    chosen_model,
    find_statistics,
    model_options,
    output_folder,
    show_help,
)
from metake.shipped import ASSETS, DEMOS


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    model_options(parser, chat=True)
    parser.add_argument("--data", type=Path, help="default: the demo world's test facts")
    parser.add_argument(
        "--methods",
        default="paper",
        help="names of methods, comma-separated; or paper, or all: rows of the table with the components of the preset",
    )
    parser.add_argument("--edits", type=at_least(1), help="default: 2000, or 100 on a demo model")
    parser.add_argument("--batch", type=at_least(1), help="default: 100, or 20 on a demo model")
    parser.add_argument(
        "--per-subject", type=at_least(1), default=1, help="so many facts about each subject, side by side"
    )
    parser.add_argument("--seeds", type=at_least(1), default=3, help="how many, from 0")
    parser.add_argument(
        "--untuned",
        action="store_true",
        help="the published defaults for every method instead of the model's preset",
    )
    parser.add_argument(
        "--preset",
        type=Path,
        metavar="FILE",
        help="searched settings, as tune.py writes them, instead of the model's preset",
    )
    parser.add_argument(
        "--hparams",
        action="append",
        metavar="[METHOD=]FILE",
        help="settings from a published file (ROME, MEMIT, AlphaEdit, UltraEdit, EasyEdit), several times",
    )
    parser.add_argument(
        "--against",
        metavar="METHOD",
        help="also the difference of every other method to this one, fact by fact, with its interval",
    )
    parser.add_argument("--look-every", type=at_least(1), help="also judge after every so many batches")
    parser.add_argument("--no-generate", action="store_true", help="leave out free generation")
    parser.add_argument(
        "--fluency", type=at_least(0), default=0, help="measure sampled text of so many records (slow)"
    )
    parser.add_argument(
        "--references",
        type=Path,
        help="ROME's attribute_snippets.json: also measure the consistency of that text",
    )
    parser.add_argument("--stats", type=Path, help="statistics written by `metake stats`")
    parser.add_argument("--text", type=Path, help="text to collect statistics from")
    parser.add_argument("--out", type=output_folder, help="default: results/zsre/MODEL")
    return parser


if __name__ == "__main__":
    show_help(options)

import numpy as np
from tqdm import tqdm

from metake.data.records import Record, read_records
from metake.evaluation.checks import fitting_records
from metake.evaluation.consistency import References
from metake.evaluation.glossary import GLOSSARY, LABELS, MOMENTS
from metake.evaluation.metrics import Measurement, bootstrap
from metake.evaluation.protocol import Protocol
from metake.evaluation.results import MethodRun, result_file
from metake.methods.table import METHODS, method_named
from metake.models.load import EditableModel
from metake.presets import methods_for, preset_name, preset_of
from metake.published import parse_files, published_for
from metake.report.figures import PUBLISHED, plot_sequence
from metake.report.tables import latex, markdown, render
from metake.texts import held_out_text
from metake.tuning.searched import searched_names

PAPER = ("rome", "memit", "prune", "rect", "alphaedit", "alphaedit-blue", "metake-proxy", "metake")
GROUPS = {"paper": list(PAPER), "all": list(METHODS)}
SHOWN = (
    "efficacy",
    "generalization",
    "specificity",
    "generation",
    "efficacy_success",
    "paraphrase_success",
    "neighborhood_success",
    "agreement",
    "same_subject",
    "kl",
    "overlap",
    "perplexity",
    "perplexity_median",
    "fluency",
    "consistency",
)


def chosen_methods(text: str) -> list[str]:
    """Names of the option.

    Raises:
        MetakeError: one is not a method.
    """
    names = GROUPS.get(text) or [n.strip() for n in text.split(",") if n.strip()]
    for name in names:
        method_named(name)
    return list(dict.fromkeys(names))


def draw_records(records: list[Record], count: int, seed: int, per_subject: int = 1) -> list[Record]:
    """The first `count` for seed 0, as published; a sample in random order for any other.

    Args:
        per_subject: if more than 1, only subjects with so many records, so many of each, side by side.
    """
    groups = [[record] for record in records]
    if per_subject > 1:
        by_subject: dict[str, list[Record]] = {}
        for record in records:
            by_subject.setdefault(record.request.subject, []).append(record)
        groups = [about[:per_subject] for about in by_subject.values() if len(about) >= per_subject]
    if seed > 0:
        groups = [groups[i] for i in np.random.default_rng(seed).permutation(len(groups))]
    return [record for group in groups for record in group][:count]


def find_references(path: Path, records: list[Record], data: Path) -> References:
    """The reference texts of a file; at least one record has some.

    Raises:
        MetakeError: the file cannot be read, or none of its texts is about a record's attribute.
    """
    references = References.read(path)
    if not any(record.attribute for record in records):
        raise MetakeError(
            f"{data}: no record has relation_id and target_new's id, which --references needs; "
            "give multi_counterfact.json"
        )
    if not any(references.about(record) for record in records):
        raise MetakeError(
            f"{path}: no text is about an attribute of {data}; give the file that belongs to these records"
        )
    return references


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Every method and seed; what is on disk already is not done again.

    Raises:
        MetakeError: model, data or an option cannot be used; the line says what to do.
    """
    names = chosen_methods(args.methods)
    demo = args.model in DEMOS
    edits = (100 if demo else 2000) if args.edits is None else args.edits
    batch = (20 if demo else 100) if args.batch is None else args.batch
    if args.seeds >= 3:
        require("theory", "scipy", what=f"--seeds {args.seeds}: intervals over three or more seeds")
    if args.references is not None and args.fluency < 1:
        raise MetakeError("--references: there is no sampled text to compare; give --fluency N as well")
    if args.untuned and args.preset is not None:
        raise MetakeError("--preset: --untuned takes the published defaults; give one of the two")
    if args.preset is not None:
        preset_of(args.preset)
    if args.data is None and not demo:
        raise MetakeError(f"--data: needed for {args.model}; give a zsRE or CounterFact file")
    if args.against is not None and args.against not in names:
        raise unknown_name("--against", args.against, names, "name one of --methods")
    data = args.data or ASSETS / "world" / "test.json"
    everything = read_records(data)
    if not draw_records(everything, edits, 0, args.per_subject):
        raise MetakeError(f"--per-subject {args.per_subject}: {data} has no subject with so many records")
    references = None if args.references is None else find_references(args.references, everything, data)
    loaded = chosen_model(args)
    everything, left_out = fitting_records(loaded, everything)
    if not draw_records(everything, edits, 0, args.per_subject):
        raise MetakeError(f"{data}: no record fits the model")
    text = held_out_text(preset_name(loaded.arch))
    protocols = [
        Protocol(
            draw_records(everything, edits, seed, args.per_subject),
            batch,
            generate=not args.no_generate,
            text=text,
            measure_every=args.look_every,
            sampled_records=args.fluency,
            references=references,
            context_seed=seed,
        )
        for seed in range(args.seeds)
    ]
    for protocol in protocols:
        protocol.check()
    preset = "none" if args.untuned else args.preset
    published = published_for(parse_files(args.hparams), names, loaded.arch)
    chosen = searched_names(loaded.arch, names, preset) if args.methods in GROUPS else names
    own = {name: published[asked] for name, asked in zip(chosen, names, strict=True)}
    methods = methods_for(loaded, chosen, preset=preset, own=own)
    against = None if args.against is None else methods[names.index(args.against)].name
    statistics = find_statistics(loaded, methods, args.stats, args.text)
    rows: dict[str, list[MethodRun]] = {method.name: [] for method in methods}
    befores: list[Measurement] = []
    partial: dict[str, Any] = {}  # measurements of the run that has not ended

    def on_measurement(edits: int, measurement: Measurement) -> None:
        bar.set_postfix_str(", ".join(f"{LABELS[m]} {100 * measurement.mean(m):.0f}" for m in PUBLISHED))
        partial["curve"].append(point(edits, measurement))
        write_json(args.out / "under_way.json", partial)

    if_interrupted(f"finished batches are in {args.out / 'runs'}; rerun the command to resume")
    with tqdm(
        total=len(methods) * args.seeds * min(edits, len(everything)), unit="edit", disable=None
    ) as bar:
        for seed, protocol in enumerate(protocols):
            session = protocol.prepare(loaded, statistics)
            befores.append(session.before)
            for method in methods:
                bar.set_description(f"{method.name}, seed {seed}")
                partial.update(method=method.name, seed=seed, curve=[])
                folder = args.out / "runs" / f"{method.name}-{seed}"
                run = session.run(method, folder, on_edit=bar.update, on_measurement=on_measurement)
                rows[method.name].append(run)
                result = content(args, loaded, statistics, befores, rows, left_out, against)
                write_json(args.out / "results.json", result)
                (args.out / "under_way.json").unlink(missing_ok=True)
    return result


def content(
    args: argparse.Namespace,
    loaded: EditableModel,
    statistics: Any,
    befores: list[Measurement],
    rows: dict[str, list[MethodRun]],
    left_out: list[str],
    against: str | None,
) -> dict[str, Any]:
    """The result file: mean and interval per method, every seed's run, and what each number means."""
    done = {name: runs for name, runs in rows.items() if runs}
    summary = {"unedited": summarize(befores, [])}
    summary |= {name: summarize([r.after for r in runs], runs) for name, runs in done.items()}
    first = next(iter(done.values()))
    apart = {"against": against, "differences": differences(done, against)} if against in done else {}
    return {
        **result_file(loaded, befores[0], first, statistics),
        **apart,
        "methods": {name: [run.row() for run in runs] for name, runs in done.items()},
        "arguments": {k: None if v is None else str(v) for k, v in vars(args).items()},
        "summary": summary,
        "left_out": left_out,
        "d_k": loaded.arch.d_k,
        "curves": {name: [curve(run) for run in runs] for name, runs in done.items()},
        "protocol": "consecutive batches on one model; teacher-forced unless the glossary says otherwise; "
        f"{MOMENTS['end']}; intervals: 95%, over seeds from three on, over records (bootstrap) otherwise",
    }


def summarize(measured: list[Measurement], runs: list[MethodRun]) -> dict[str, dict[str, float | None]]:
    """Metric -> mean over seeds, and its 95% interval."""
    table: dict[str, dict[str, float | None]] = {}
    for metric in SHOWN:
        means = np.array([m.mean(metric) for m in measured])
        low = high = float("nan")
        if len(means) >= 3 and np.isfinite(means).all():
            from scipy.stats import t

            half = float(t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means)))
            low, high = float(means.mean()) - half, float(means.mean()) + half
        elif metric in measured[0].values:
            low, high = bootstrap(np.concatenate([m.values[metric] for m in measured]))
        table[metric] = {"mean": _plain(float(means.mean())), "low": _plain(low), "high": _plain(high)}
    if runs:
        seconds = float(np.mean([run.seconds_per_edit for run in runs]))
        table["seconds_per_edit"] = {"mean": seconds, "low": None, "high": None}
    return table


def differences(rows: dict[str, list[MethodRun]], to: str) -> dict[str, dict[str, dict[str, float | None]]]:
    """Method -> published metric -> what it is above `to` on the same facts, and the 95% interval (bootstrap over facts)."""
    table: dict[str, dict[str, dict[str, float | None]]] = {}
    for name, runs in rows.items():
        if name == to:
            continue
        table[name] = {}
        for metric in PUBLISHED:
            apart = [
                mine.after.values[metric] - theirs.after.values[metric]
                for mine, theirs in zip(runs, rows[to], strict=False)  # a run under way has a seed less
            ]
            above = np.concatenate(apart)
            above = above[np.isfinite(above)]
            mean = float(above.mean()) if len(above) else float("nan")
            low, high = bootstrap(above)
            table[name][metric] = {"mean": _plain(mean), "low": _plain(low), "high": _plain(high)}
    return table


def _plain(value: float) -> float | None:
    return value if np.isfinite(value) else None


def curve(run: MethodRun) -> list[dict[str, Any]]:
    """Published metrics after so many edits, over the records edited by then, and eta of the batch just edited.

    Eta is the mean at the last edited layer.
    """
    ends = np.cumsum([batch.get("records", len(batch["requests"])) for batch in run.batches]).tolist()
    eta = {end: float(np.mean(batch["eta"][-1])) for end, batch in zip(ends, run.batches, strict=True)}
    return [
        {**point(count, measurement), "attenuation": eta[count]}
        for count, measurement in sorted(run.measurements.items())
    ]


def point(edits: int, measurement: Measurement) -> dict[str, Any]:
    return {"edits": edits, **{m: _plain(measurement.mean(m)) for m in PUBLISHED}}


def cells(summary: dict[str, dict[str, dict[str, float | None]]]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table; metrics that were not measured are left out."""
    shown = [m for m in SHOWN if summary["unedited"][m]["mean"] is not None]
    shown += ["seconds_per_edit"]
    rows = []
    for name, metrics in summary.items():
        row = [name]
        for metric in shown:
            value = metrics.get(metric)
            row.append("-" if value is None or value["mean"] is None else _cell(metric, value))
        rows.append(row)
    return ["method", *(LABELS[m] for m in shown)], rows


def _cell(metric: str, value: dict[str, float | None]) -> str:
    mean, low, high = value["mean"], value["low"], value["high"]
    assert mean is not None
    if metric.startswith(("perplexity", "kl", "seconds", "fluency")):
        scale, digits = 1.0, 2
    else:
        scale, digits = 100.0, 1
    half = "" if low is None or high is None else f" ±{scale * (high - low) / 2:.{digits}f}"
    return f"{scale * mean:.{digits}f}{half}"


def _signed(value: dict[str, float | None]) -> str:
    numbers = [100 * x for x in value.values() if x is not None]
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*numbers) if numbers else "-"


def report(result: dict[str, Any], out: Path) -> None:
    head, rows = cells(result["summary"])
    write_text(out / "table.md", markdown(head, rows))
    write_text(out / "table.tex", latex(head, rows))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["method", "metric", "mean", "low", "high", "meaning"])
    for name, metrics in result["summary"].items():
        for metric, value in metrics.items():
            writer.writerow([name, metric, value["mean"], value["low"], value["high"], GLOSSARY[metric]])
    write_text(out / "table.csv", stream.getvalue())
    written = "results.json, table.md, table.tex, table.csv"
    if "differences" in result:
        apart = [
            [name, *(_signed(found[m]) for m in PUBLISHED)] for name, found in result["differences"].items()
        ]
        write_text(
            out / "differences.md",
            markdown([f"above {result['against']}", *(LABELS[m] for m in PUBLISHED)], apart),
        )
        written += ", differences.md"
    print(render(f"{result['model']}, {result['arguments']['seeds']} seeds", head, rows, 150))
    print(f"written: {out}: {written}")
    if any(len(points) > 1 for runs in result["curves"].values() for points in runs):
        batch = len(next(iter(result["methods"].values()))[0]["batches"][0]["requests"])
        draw_or_note(lambda: plot_sequence(result["curves"], out / "curves.png", result["d_k"], batch))


@command("run_zsre")
def main() -> None:
    args = options().parse_args()
    args.out = args.out or output_folder(f"results/zsre/{Path(args.model).name}")
    report(run(args), args.out)


if __name__ == "__main__":
    main()
