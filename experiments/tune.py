"""Search settings on the development split, the same number of trials for every method.

    python experiments/tune.py --model demo --methods memit,alphaedit,metake --trials 40
    python experiments/tune.py --model gpt2-xl --data dev.json --edits 100 --batch 100 --trials 16
    python experiments/run_zsre.py --model gpt2-xl --data test.json --preset results/search/gpt2-xl/preset.json

Every method may choose layers, geometry, learning rate, steps, stop rule, clamp, penalties and
memory as freely as the others, within the same total number of gradient steps. A trial edits the
first records of the development split in consecutive batches; its score is the harmonic mean of
efficacy, generalisation and, on the demo models, specificity (on others agreement) at the end. Trials are journalled, so a killed search goes
on where it was. Writes every trial to `search.json` and the winners to `preset.json`, which `--preset` of `run_zsre.py`,
`metake edit` and `metake evaluate` reads; of a model that ships with presets, and without `--out`, to `experiments/search/MODEL.json`
and to that preset. With `--extend` a search begins with the trials in that file, if they are of the same
run; with `--everywhere` it looks at the shipped settings at every other place before it draws points, with
`--winners-of` at what other models ship with.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


from metake.console import command, if_interrupted
from metake.errors import MetakeError
from metake.extras import needs
from metake.files import check_writable, read_json, read_record, write_json, write_record
from metake.names import unknown_name
from metake.options import (
    Parser,
    at_least,
    chosen_model,
    find_statistics,
    model_options,
    output_folder,
    parse_numbers,
    show_help,
)
from metake.shipped import ASSETS, DEMOS


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, yaml.safe_load(value)


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    model_options(parser)
    parser.add_argument(
        "--methods",
        default="memit,alphaedit,metake,metake-proxy,memit-compensated",
        help="rows of the method table, comma-separated; default: %(default)s",
    )
    parser.add_argument("--trials", type=at_least(1), default=40, help="per method; default: %(default)s")
    parser.add_argument("--data", type=Path, help="records; default: the demo world's development facts")
    parser.add_argument("--edits", type=at_least(1), default=60, help="how many facts; default: %(default)s")
    parser.add_argument("--batch", type=at_least(1), default=20, help="edits per batch; default: %(default)s")
    parser.add_argument(
        "--seed", type=at_least(0), default=0, help="of all that is drawn; default: %(default)s"
    )
    parser.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="hold a setting in all trials that are still to come, as lookup=prompt",
    )
    parser.add_argument(
        "--factors",
        metavar="3,10",
        help="among the first trials are the shipped settings (or the guess) under a constraint so many times as strong",
    )
    parser.add_argument(
        "--extend",
        action="store_true",
        help="go on from the trials in the model's search file, if they are of the same records, edits, batch and seed",
    )
    parser.add_argument(
        "--everywhere",
        action="store_true",
        help="among the first trials are the shipped settings (or the guess) at every other place",
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="among the first trials are the published defaults, with as many steps as a trial may have",
    )
    parser.add_argument(
        "--winners-of",
        type=lambda text: text.split(","),
        default=[],
        metavar="MODEL,MODEL",
        help="among the first trials are the settings that these models ship with",
    )
    parser.add_argument(
        "--stats", type=Path, help="statistics written by `metake stats`, of all layers that may be edited"
    )
    parser.add_argument("--text", type=Path, help="text to collect statistics from")
    parser.add_argument("--threads", type=at_least(1), help="of torch; default: as torch chooses")
    parser.add_argument(
        "--out",
        type=output_folder,
        help="default: results/search/MODEL; of a model that ships with presets, those",
    )
    parser.add_argument(
        "--journal",
        type=output_folder,
        default="results/search",
        help="folder of the journals, from which a killed search resumes; default: %(default)s",
    )
    return parser


if __name__ == "__main__":
    show_help(options)

import numpy as np
import torch
import yaml

from metake.data.records import Record, read_records
from metake.evaluation.checks import fitting_records
from metake.evaluation.metrics import score
from metake.evaluation.protocol import Protocol
from metake.geometry.statistics import Statistics
from metake.methods.base import Method
from metake.methods.settings import choice_names, setting_names
from metake.methods.table import Row, find_method, method_named
from metake.methods.ultraedit import UltraEdit
from metake.models.architecture import Architecture
from metake.models.load import EditableModel
from metake.planners.closed_loop import ClosedLoop
from metake.presets import PRESETS, check_changes, preset_name, preset_of, settings_for, short_name
from metake.provenance import provenance

with command("tune"), needs("search"):
    import optuna
    from optuna.storages import JournalStorage

    from experiments.journal import Journal

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Space:
    """What the search of a model ranges over.

    Attributes:
        places: layers to edit, of which each method chooses.
        steps: gradient steps in all, planning and upper level together.
        weight, l2, gradient_lr: ranges of lambda, of AlphaEdit's L2, and of UltraEdit's step.
        guess: one trial of each method is this guess by hand (for the plan, the gradient step, or per
            hypergradient), the rest is search.
        locality: the third entry of the score. Where the unedited model itself rarely gives the
            records' locality answers, specificity cannot fall, and agreement with it is what an edit
            can lose.
    """

    places: tuple[tuple[int, ...], ...]
    steps: int
    weight: tuple[float, float]
    l2: tuple[float, float]
    gradient_lr: tuple[float, float]
    guess: dict[str, dict[str, Any]]
    locality: str = "specificity"


COMPONENTS = ("start", "memory")  # that a search chooses; a preset has them in a method's name
PRICES = (0.3, 300.0)  # of the rows that have one
STARTUP = 10  # random trials before the sampler models what it has seen

COMMON = {"clamp": None, "decay": 0.0, "kl": 0.0625, "lr": 1.0}
SMALL_GUESS: dict[str, dict[str, Any]] = {
    "gradient": {"place": 3, "gradient_lr": 1e-3},
    "plan": {
        **COMMON,
        "place": 2,
        "weight": 30.0,
        "memory": "none",
        "steps": 40,
        "stop": "own",
        "l2": 0.3,
        "keep": 0.8,
    },
    "proxy": {
        **COMMON,
        "place": 6,
        "weight": 300.0,
        "memory": "past-keys",
        "steps": 10,
        "meta_steps": 20,
        "meta_lr": 1.0,
        "start": "open-loop",
        "locality": 0.0625,
        "stop": "executed",
        "l2": 0.3,
        "keep": 0.8,
    },
    "parallel": {
        **COMMON,
        "place": 3,
        "weight": 300.0,
        "memory": "none",
        "steps": 10,
        "meta_steps": 25,
        "meta_lr": 0.3,
        "start": "compensated",
        "locality": 0.0625,
        "stop": "executed",
        "l2": 0.3,
        "keep": 0.8,
    },
    "unrolled": {
        **COMMON,
        "place": 3,
        "weight": 300.0,
        "memory": "past-keys",
        "steps": 10,
        "meta_steps": 30,
        "lr": 0.5,
        "meta_lr": 1.0,
        "start": "open-loop",
        "locality": 0.0625,
        "stop": "executed",
        "l2": 0.3,
        "keep": 0.8,
    },
}
DEMO_GUESS = {
    **SMALL_GUESS,
    "proxy": {**SMALL_GUESS["proxy"], "lr": 0.5, "steps": 5, "meta_steps": 30, "meta_lr": 0.2},
    "parallel": {**SMALL_GUESS["parallel"], "place": 0},
    "unrolled": {**SMALL_GUESS["unrolled"], "place": 0, "meta_lr": 0.3},
}
REAL_GUESS: dict[str, dict[str, Any]] = {
    "gradient": {"place": 3, "gradient_lr": 1e-4},
    "plan": {
        **COMMON,
        "place": 0,
        "weight": 10_000.0,
        "memory": "none",
        "steps": 15,
        "stop": "own",
        "l2": 10.0,
        "keep": 0.8,
    },
    "proxy": {
        **COMMON,
        "place": 0,
        "weight": 3_000.0,
        "memory": "none",
        "steps": 8,
        "meta_steps": 12,
        "meta_lr": 0.5,
        "start": "compensated",
        "locality": 0.0625,
        "stop": "executed",
        "l2": 10.0,
        "keep": 0.8,
    },
}
REAL_GUESS["parallel"] = REAL_GUESS["proxy"]
REAL_GUESS["unrolled"] = {**REAL_GUESS["proxy"], "weight": 10_000.0, "meta_lr": 1.0}
# With rotary positions the demo models carry a subject to the question's end within two layers: above
# them an open-loop plan hardly lowers its own loss any more, so the list reaches down to layer 0.
ROTARY = Space(
    ((0,), (1,), (0, 1), (0, 1, 2), (1, 2, 3), (2,), (3,), (4,), (2, 3), (3, 4), (2, 3, 4)),
    40,
    (30, 30_000),
    (1e-3, 100),
    (1e-4, 0.1),
    SMALL_GUESS,
)
SPACES = {
    "demo": Space(
        ((0, 1, 2), (1, 2, 3), (2, 3), (3, 4), (2,), (3,), (4,), (2, 3, 4)),
        40,
        (30, 30_000),
        (1e-3, 100),
        (1e-4, 0.1),
        DEMO_GUESS,
    ),
    "demo-gptj": ROTARY,
    "demo-llama": ROTARY,
    "smollm2": Space(
        ((4, 5, 6, 7, 8), (6, 7, 8), (8,), (12,), (10, 11, 12), (12, 13)),
        20,
        (100, 30_000),
        (0.1, 1000),
        (1e-6, 1e-2),
        REAL_GUESS,
        "agreement",
    ),
}


def space_of(arch: Architecture) -> Space:
    """Of a model without a space of its own: its layers (its preset's, or the default ones), the upper ones of them,
    and as many further up."""
    base = settings_for(arch, "memit").layers
    further = tuple(n for n in (layer + len(base) for layer in base) if n < len(arch))
    places = [part for layers in (base, further) for part in (layers, layers[-3:], layers[-1:]) if part]
    guess = {kind: {**point, "place": 0} for kind, point in REAL_GUESS.items()}
    return replace(SPACES["smollm2"], places=tuple(dict.fromkeys(places)), guess=guess)


def closed_loop(method: Method) -> ClosedLoop | None:
    """The planner of a method with an upper level."""
    planner = getattr(method, "planner", None)
    return planner if isinstance(planner, ClosedLoop) else None


def strength_of(method: Method) -> str:
    """Name of the setting that states how strongly a method is constrained; of a gradient step, its length."""
    return method.strength or method.effort


def suggest(trial: optuna.Trial, name: str, space: Space) -> dict[str, Any]:
    """One point of the space of a row, as changes of its method's settings."""
    method = find_method(name).prototype
    layers = list(space.places[trial.suggest_int("place", 0, len(space.places) - 1)])
    if isinstance(method, UltraEdit):
        return {
            "layers": layers,
            "gradient_lr": trial.suggest_float("gradient_lr", *space.gradient_lr, log=True),
        }
    choice: dict[str, Any] = {
        "layers": layers,
        "lr": trial.suggest_float("lr", 0.05, 2.0, log=True),
        "clamp": trial.suggest_categorical("clamp", [None, 0.75, 1.5, 3.0]),
        "decay": trial.suggest_categorical("decay", [0.0, 0.5]),
        "kl": trial.suggest_categorical("kl", [0.0, 0.0625, 0.5]),
    }
    if method.strength == "weight":
        choice["weight"] = trial.suggest_float("weight", *space.weight, log=True)
        choice["memory"] = trial.suggest_categorical("memory", ["none", "past-keys"])
    else:
        choice["l2"] = trial.suggest_float("l2", *space.l2, log=True)
        choice["keep"] = trial.suggest_float("keep", 0.3, 1.0)
    if (closed := closed_loop(method)) is not None:
        choice["steps"] = trial.suggest_int("steps", 2, space.steps // 2)
        choice["meta_steps"] = trial.suggest_int(
            "meta_steps", space.steps // 4, space.steps - choice["steps"]
        )
        choice["meta_lr"] = trial.suggest_float("meta_lr", 0.05, 2.0, log=True)
        choice["start"] = trial.suggest_categorical("start", ["open-loop", "compensated"])
        choice["locality"] = trial.suggest_categorical("locality", [0.0, 0.0625, 0.5])
        if closed.cost_weight:
            choice["price"] = trial.suggest_float("price", *PRICES, log=True)
        choice["stop"] = "own"
        choice["meta_stop"] = trial.suggest_categorical("stop", ["own", "executed", "none"])
    else:
        choice["steps"] = trial.suggest_int("steps", 5, space.steps)
        choice["stop"] = trial.suggest_categorical("stop", ["own", "executed", "none"])
    return choice


def as_trial(choice: dict[str, Any], name: str, space: Space) -> dict[str, Any] | None:
    """The point of the space that these settings of a row are; None if it is not in the space."""
    layers = tuple(choice.get("layers", ()))
    closed = closed_loop(find_method(name).prototype)
    # a method without settings of its own may be shipped with those of one that has no upper level
    if layers not in space.places or (closed is not None) != ("meta_steps" in choice):
        return None
    names = (
        "gradient_lr",
        "lr",
        "clamp",
        "decay",
        "kl",
        "weight",
        "memory",
        "l2",
        "keep",
        "steps",
        "meta_steps",
        "meta_lr",
        "start",
        "locality",
    )
    point = {name: choice[name] for name in names if name in choice}
    if closed is not None and closed.cost_weight:
        point["price"] = choice.get("price", closed.cost_weight)
    if "stop" in choice:
        point["stop"] = choice.get("meta_stop", choice["stop"])
    return {"place": space.places.index(layers), **point}


def stronger(point: dict[str, Any], factor: float, space: Space) -> dict[str, Any]:
    """The same point with the constraint `factor` times as strong, within the space; a ridge also remembers keys."""
    if "weight" in point:
        return {**point, "weight": min(point["weight"] * factor, space.weight[1]), "memory": "past-keys"}
    if "l2" in point:
        return {**point, "l2": min(point["l2"] * factor, space.l2[1])}
    return {**point, "gradient_lr": max(point["gradient_lr"] / factor, space.gradient_lr[0])}


def settings_of(method: Method) -> dict[str, Any]:
    """Setting -> value, of a component its kind."""
    return {
        part.short.get(field, field): getattr(getattr(part, field), "kind", getattr(part, field))
        for _, part in method.parts()
        for field in type(part).model_fields
    }


def published(name: str, space: Space) -> dict[str, Any]:
    """The defaults of a row at the first place, with as many steps as the space allows."""
    method = find_method(name).build(space.places[0])
    choice, strength = settings_of(method), strength_of(method)
    choice[strength] = min(max(choice[strength], getattr(space, strength)[0]), getattr(space, strength)[1])
    if closed_loop(method) is not None:
        choice["steps"] = min(choice["steps"], space.steps // 2)
        choice["meta_steps"] = min(choice["meta_steps"], space.steps - choice["steps"])
    elif "steps" in choice:
        choice["steps"] = min(choice["steps"], space.steps)
    point = as_trial(choice, name, space)
    assert point is not None
    trial = optuna.trial.FixedTrial(point)
    suggest(trial, name, space)
    return {name: value for name, value in point.items() if name in trial.params}


def guess_of(method: Method, space: Space) -> dict[str, Any]:
    """The guess by hand, as a point of the method's space."""
    closed = closed_loop(method)
    kind = "gradient" if isinstance(method, UltraEdit) else "plan" if closed is None else closed.gradient.kind
    other = ("l2", "keep") if method.strength == "weight" else ("weight", "memory")
    guess = {setting: value for setting, value in space.guess[kind].items() if setting not in other}
    return guess | ({"price": closed.cost_weight} if closed is not None and closed.cost_weight else {})


def shipped_choice(row: Row, methods: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The settings that a preset has for a row or the one that it is like, the components in their name included."""
    for wanted in (row.name, row.like):
        for name, part in methods.items():
            if name.partition(" + ")[0] == wanted and "@" not in name:
                named = settings_of(method_named(name))
                return {**part, **{setting: named[setting] for setting in COMPONENTS if setting in named}}
    return {}


def first_points(
    name: str,
    shipped: dict[str, Any],
    factors: list[float],
    space: Space,
    everywhere: bool = False,
    others: Sequence[dict[str, Any]] = (),
    defaults: bool = False,
) -> list[dict[str, Any]]:
    """What a search begins with, each once: the guess, what is shipped, and that (or the guess) more strongly constrained.

    Args:
        everywhere: also the latter at every other place of the space.
        shipped: the methods of a preset.
        others: those of other models' presets; also what of it is in the space.
        defaults: also what was published.
    """
    row = find_method(name)
    guess = guess_of(row.prototype, space)
    earlier, *found = (as_trial(shipped_choice(row, methods), name, space) for methods in (shipped, *others))
    base = guess if earlier is None else earlier
    points: list[dict[str, Any]] = []
    moved = [{**base, "place": place} for place in range(len(space.places))] if everywhere else []
    strong = [stronger(base, factor, space) for factor in factors]
    for point in (guess, base, *([published(name, space)] if defaults else []), *strong, *moved, *found):
        if point is not None and point not in points:
            points.append(point)
    return points


def recall(study: optuna.Study, trials: list[dict[str, Any]], name: str, space: Space) -> None:
    """Put an earlier search's trials before all others; what is no point of the space is left out."""
    for trial in sorted(trials, key=lambda trial: trial["number"]):
        point = as_trial(trial["choice"], name, space)
        if point is None:
            continue
        fixed = optuna.trial.FixedTrial(point)
        suggest(fixed, name, space)
        seen = {field: trial[field] for field in ("choice", "means", "interval", "failed") if field in trial}
        study.add_trial(
            optuna.trial.create_trial(
                params=fixed.params,
                distributions=fixed.distributions,
                value=trial["score"],
                user_attrs=seen,
            )
        )


def search(
    loaded: EditableModel,
    method: str,
    space: Space,
    records: list[Record],
    statistics: Statistics | None,
    args: argparse.Namespace,
    fixed: dict[str, Any],
    shipped: dict[str, Any],
    earlier: list[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """All trials of one method, best first; its guess and the settings it ships with are among them.

    Args:
        earlier: trials of the same run to begin with, unless the journal already has some.

    Raises:
        MetakeError: the journal holds trials of another run.
    """
    session = Protocol(records, args.batch, generate=False).prepare(loaded, statistics)
    name, run_is = (
        preset_name(loaded.arch) or short_name(loaded.name),
        {**described(args, space), "model": loaded.arch.fingerprint()},
    )
    plain = settings_for(loaded, method, name="none")
    plain = plain.updated(**plain.numbers(fixed))
    held = plain.fitting(dict(args.set))
    log = args.journal / f"{name}-{method}.journal"
    study = optuna.create_study(
        direction="maximize",
        study_name=method,
        load_if_exists=True,
        storage=JournalStorage(Journal(log)),
    )
    was = study.user_attrs.get("run", run_is)
    other = next((key for key in run_is if was.get(key) != run_is[key]), None)
    if other is not None:
        raise MetakeError(f"{log}: trials of another {other}; give another --journal, or remove it")
    study.set_user_attr("run", run_is)
    if "provenance" not in study.user_attrs:
        study.set_user_attr("provenance", provenance(loaded.name, loaded.arch, method, dated=False))
    if not study.trials:
        recall(study, earlier or [], method, space)

    def objective(trial: optuna.Trial) -> float:
        choice = {**suggest(trial, method, space), **held}
        trial.set_user_attr("choice", choice)
        try:
            run = session.run(plain.updated(**choice))
        except MetakeError as error:  # a singular geometry is a bad choice, not a crash
            trial.set_user_attr("failed", str(error))
            return 0.0
        means = {
            m: run.after.mean(m)
            for m in ("efficacy", "generalisation", "specificity", "same_subject", "agreement")
        }
        trial.set_user_attr("means", {k: round(v, 4) for k, v in means.items()})
        value = score(means, space.locality)
        low, high = score_interval(run.after.values, space.locality)
        trial.set_user_attr("interval", [round(low, 4), round(high, 4)])
        print(f"{name} {method} {trial.number}: {value:.3f} {means}", flush=True)
        return value

    tried = [t.user_attrs["choice"] for t in study.trials if "choice" in t.user_attrs]
    anew = bool(held) and not any(held.items() <= choice.items() for choice in tried)
    others = [read_json(PRESETS / f"{model}.json")["methods"] for model in args.winners_of]
    for point in first_points(method, shipped, args.factors, space, args.everywhere, others, args.published):
        study.enqueue_trial(point, skip_if_exists=not anew)
    finished = [t for t in study.trials if t.state.is_finished()]
    for count in range(len(finished), args.trials):
        # each trial has a seed of its own: a search that goes on neither repeats its first random points
        # nor ends with others than one that was never stopped
        study.sampler = optuna.samplers.TPESampler(seed=args.seed + count, n_startup_trials=STARTUP)
        study.optimize(objective, n_trials=1)
    finished = [t for t in study.trials if t.state.is_finished()]
    trials = sorted(finished, key=lambda t: -(t.value or 0))[: args.trials]
    return [{"number": t.number, "score": round(t.value or 0, 4), **t.user_attrs} for t in trials]


def score_interval(values: Mapping[str, np.ndarray], locality: str) -> tuple[float, float]:
    """95% interval of a score over records, resampled with replacement, all metrics of a record together."""
    rows = np.array([values[m] for m in ("efficacy", "generalisation", locality)])
    draws = np.random.default_rng(0).integers(0, rows.shape[1], (500, rows.shape[1]))
    there = np.isfinite(rows[:, draws]).sum(2)
    sums = np.nansum(rows[:, draws], axis=2)
    means = np.maximum(np.divide(sums, there, where=there > 0, out=np.full(there.shape, np.nan)), 1e-3)
    low, high = np.nanquantile(len(means) / (1 / means).sum(0), (0.025, 0.975))
    return float(low), float(high)


def winners(result: Mapping[str, Any], methods: Sequence[str]) -> list[str]:
    """The best trial of each method, one line each."""
    lines = []
    for method in methods:
        trials = result[method]["trials"]
        best = trials[0]
        low, high = best.get("interval", (math.nan, math.nan))
        interval = f" (95% interval over records {low:.3f} to {high:.3f})" if low == low else ""
        choice = ", ".join(f"{name}={value}" for name, value in best["choice"].items())
        lines.append(
            f"{method}: {best['score']:.3f}{interval}, trial {best['number']} of {len(trials)}: {choice}"
        )
    return lines


def next_command(
    args: argparse.Namespace, record: Record, best: str, methods: Sequence[str], preset: Path
) -> str:
    """The command that uses what was found: of a demo model the comparison on test facts, else the edit of a record."""
    model = ["--model", args.model]
    for option in ("modules", "device"):
        if getattr(args, option) is not None:
            model += [f"--{option}", str(getattr(args, option))]
    if args.dtype != "float32":
        model += ["--dtype", args.dtype]
    searched = ["--preset", str(preset)]
    if args.model in DEMOS:
        command = ["python", "experiments/run_zsre.py", *model, *searched, "--methods", ",".join(methods)]
        return shlex.join(command)
    request = record.request
    edit = [
        "--request",
        request.prompt,
        "--subject",
        request.subject,
        "--target",
        request.target,
        "--out",
        "edited",
    ]
    return shlex.join(["metake", "edit", *model, *searched, "--method", best, *edit])


def as_part(choice: dict[str, Any], name: str, preset: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A choice as it is in a preset: the method's name with its components, and its numbers.

    What the geometry's part of the preset would add is at its default.
    """
    method = method_named(name)
    components = {setting: choice[setting] for setting in choice_names() if setting in choice}
    method = method.updated(**components)
    added = preset.get("geometries", {}).get(settings_of(method).get("geometry"), {})
    defaults = {setting: method.value(setting) for setting in added}
    return method.name, {**defaults, **{s: value for s, value in choice.items() if s not in components}}


def put(preset: dict[str, Any], name: str, choice: dict[str, Any], label: str = "") -> str:
    """Put a choice into a preset, in place of the row's earlier variants; the name of the variant.

    Args:
        label: after the name; variants with another label stay.
    """
    methods = preset["methods"]
    for held in list(methods):
        variant, at, other = held.partition("@")
        if variant.partition(" + ")[0] == name and at + other == label:
            del methods[held]
    variant, part = as_part(choice, name, preset)
    methods[variant + label] = part
    return variant


def described(args: argparse.Namespace, space: Space) -> dict[str, Any]:
    """What a trial's score depends on beside the model, as result files say it."""
    return {
        "data": args.data.name,
        "edits": args.edits,
        "batch": args.batch,
        "seed": args.seed,
        "score": f"harmonic mean of efficacy, generalisation, {space.locality}",
    }


@command("tune")
def main() -> None:
    args = options().parse_args()
    torch.set_num_threads(args.threads or torch.get_num_threads())
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore")

    methods = [find_method(name).name for name in args.methods.split(",")]
    args.factors = parse_numbers(args.factors, "--factors") if args.factors else []
    for name, _ in args.set:
        if name not in setting_names():
            raise unknown_name("--set", name, setting_names())
    check_changes(dict(args.set))
    for name in args.winners_of:
        read_json(PRESETS / f"{name}.json")
    if args.data is None and args.model not in DEMOS:
        raise MetakeError(f"--data: needed for {args.model}; give a zsRE or CounterFact file")
    args.data = args.data or ASSETS / "world" / "dev.json"
    everything = read_records(args.data, args.edits, need=("rephrase", "locality"))
    loaded = chosen_model(args)
    records, _ = fitting_records(loaded, everything)
    if not records:
        raise MetakeError(f"{args.data}: no record fits the model")
    known = preset_name(loaded.arch)
    name = known or short_name(loaded.name)
    space = SPACES.get(known) or space_of(loaded.arch)
    layers = tuple(sorted({n for place in space.places for n in place}))
    everywhere = settings_for(loaded.arch, "memit", layers=layers)
    statistics = find_statistics(loaded, [everywhere], args.stats, args.text)
    result_file, preset_file = HERE / "search" / f"{name}.json", PRESETS / f"{name}.json"
    if args.out is not None or known not in SPACES:
        out = args.out or Path("results/search") / name
        result_file, preset_file = out / "search.json", out / "preset.json"
    for path in (result_file, preset_file):
        check_writable(path)
    preset = {"names": [name], "common": {}, "methods": {}}
    preset |= deepcopy(preset_of(preset_file if preset_file.is_file() else known))
    fixed, shipped = preset["common"], dict(preset["methods"])
    result = (
        read_record(result_file, "remove it: the journal has the trials") if result_file.is_file() else {}
    )
    same, variants = described(args, space), {}
    if_interrupted(f"finished trials are in {args.journal}; rerun the command to resume")
    for method in methods:
        found = result.get(method, {})
        earlier = found["trials"] if args.extend and same.items() <= found.items() else []
        trials = search(loaded, method, space, records, statistics, args, fixed, shipped, earlier)
        if "failed" in trials[0]:
            raise MetakeError(f"{method}: no trial succeeded; the best of them said: {trials[0]['failed']}")
        result[method] = {
            **provenance(loaded.name, loaded.arch, method, dated=False),
            **same,
            "trials": trials,
        }
        variants[method] = put(preset, method, trials[0]["choice"])
        if method == "memit":  # the control without early stop: the best of the same trials
            unstopped = [t for t in trials if t["choice"]["stop"] == "none"]
            if unstopped:
                put(preset, method, unstopped[0]["choice"], "@unstopped")
        write_record(result_file, result)
        write_json(preset_file, {**preset, "searched": provenance(loaded.name, loaded.arch, methods)})
    best = max(methods, key=lambda method: result[method]["trials"][0]["score"])
    print("\n".join(["", *winners(result, methods)]))
    print(f"written: {preset_file} (the winners), {result_file} (every trial)")
    print(f"next: {next_command(args, records[0], variants[best], list(variants.values()), preset_file)}")
    if args.model not in DEMOS:
        print(
            f"to compare on records that the search has not seen: experiments/run_zsre.py --preset {preset_file} --data FILE"
        )


if __name__ == "__main__":
    main()
