"""Search settings on the development split, the same number of trials for every method.

    python experiments/tune.py --model demo --methods memit,alphaedit,metake --trials 40

Every method may choose layers, geometry, learning rate, steps, stop rule, clamp, penalties and
memory as freely as the others, within the same total number of gradient steps. A trial edits the
first records of the development split in consecutive batches; its score is the harmonic mean of
efficacy, generalisation and specificity at the end. Trials are journalled, so a killed search goes
on where it was. Writes every trial to `experiments/search/MODEL.json` and the winners into the
model's preset.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
import transformers
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from metake.data.records import read_records
from metake.errors import MetakeError
from metake.evaluation.metrics import Evaluator
from metake.evaluation.protocol import evaluate_method
from metake.files import read_json, write_json
from metake.geometry.covariance import Statistics
from metake.methods import find_method
from metake.models.load import ASSETS, Loaded, load
from metake.presets import PRESETS, settings_for, statistics_for
from metake.prompts import sample_contexts

HERE = Path(__file__).resolve().parent
TOTAL_STEPS = 40
# Where each model may be edited; the search chooses one for each method. With rotary positions the
# demo models carry a subject to the question's end within two layers: above them an open-loop plan
# hardly lowers its own loss any more, so the list reaches down to layer 0.
ROTARY = ((0,), (1,), (0, 1), (0, 1, 2), (1, 2, 3), (2,), (3,), (4,))
# One trial of each method is a guess by hand, the rest is search.
GUESS: dict[str, Any] = {
    "plan": {"place": 2, "lr": 1.0, "clamp": None, "decay": 0.0, "kl": 0.0625, "weight": 30.0, "history": False,
             "steps": 40, "stop": "own", "l2": 0.3, "keep": 0.8},
    "bilevel": {"place": 6, "lr": 1.0, "clamp": None, "decay": 0.0, "kl": 0.0625, "weight": 300.0, "history": True,
                "steps": 10, "meta_steps": 20, "meta_lr": 1.0, "start": "plan", "locality": 0.0625,
                "stop": "executed", "l2": 0.3, "keep": 0.8},
}  # fmt: skip
GUESS["compensated"] = GUESS["plan"]
PLACES: dict[str, tuple[tuple[int, ...], ...]] = {
    "demo": ((0, 1, 2), (1, 2, 3), (2, 3), (3, 4), (2,), (3,), (4,)),
    "demo-gptj": ROTARY,
    "demo-llama": ROTARY,
    "smollm2": ((4, 5, 6, 7, 8), (6, 7, 8), (8,)),
}


def suggest(trial: optuna.Trial, method: str, places: tuple[tuple[int, ...], ...]) -> dict[str, Any]:
    """One point of the space of a method, as changes of its settings."""
    row = find_method(method)
    choice: dict[str, Any] = {
        "layers": list(places[trial.suggest_int("place", 0, len(places) - 1)]),
        "lr": trial.suggest_float("lr", 0.05, 2.0, log=True),
        "clamp": trial.suggest_categorical("clamp", [None, 0.75, 1.5, 3.0]),
        "decay": trial.suggest_categorical("decay", [0.0, 0.5]),
        "kl": trial.suggest_categorical("kl", [0.0, 0.0625, 0.5]),
    }
    if row.geometry == "ridge":
        choice["weight"] = trial.suggest_float("weight", 30, 30_000, log=True)
        choice["history"] = trial.suggest_categorical("history", [False, True])
    else:
        choice["l2"] = trial.suggest_float("l2", 1e-3, 100, log=True)
        choice["keep"] = trial.suggest_float("keep", 0.3, 1.0)
    if row.target == "bilevel":
        choice["steps"] = trial.suggest_int("steps", 2, 20)
        choice["meta_steps"] = trial.suggest_int("meta_steps", 10, TOTAL_STEPS - 20)
        choice["meta_lr"] = trial.suggest_float("meta_lr", 0.05, 2.0, log=True)
        choice["start"] = trial.suggest_categorical("start", ["plan", "compensated"])
        choice["locality"] = trial.suggest_categorical("locality", [0.0, 0.0625, 0.5])
        choice["stop"] = "own"
        choice["meta_stop"] = trial.suggest_categorical("stop", ["own", "executed", "none"])
    else:
        choice["steps"] = trial.suggest_int("steps", 5, TOTAL_STEPS)
        choice["stop"] = trial.suggest_categorical("stop", ["own", "executed", "none"])
    return choice


def score(means: dict[str, float]) -> float:
    """Harmonic mean of efficacy, generalisation and specificity: none can make up for another."""
    values = [max(means[k], 1e-3) for k in ("efficacy", "generalisation", "specificity")]
    return float(len(values) / np.sum(1 / np.array(values)))


def search(
    loaded: Loaded, method: str, statistics: Statistics, args: argparse.Namespace, fixed: dict[str, Any]
) -> list[dict[str, Any]]:
    """All trials of one method, best first."""
    records = read_records(args.data, args.edits)
    evaluator = Evaluator(loaded.arch, loaded.tokenizer, records, generate=False)
    before = evaluator.measure()
    contexts = sample_contexts(loaded.arch, loaded.tokenizer)
    places = PLACES[args.model]
    log = args.journal / f"{args.model}-{method}.journal"
    log.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        direction="maximize", study_name=method, load_if_exists=True,
        storage=JournalStorage(JournalFileBackend(str(log))),
        sampler=optuna.samplers.TPESampler(seed=args.seed, n_startup_trials=max(10, args.trials // 3)),
    )  # fmt: skip

    def objective(trial: optuna.Trial) -> float:
        choice = suggest(trial, method, places)
        trial.set_user_attr("choice", choice)
        try:
            settings = settings_for(loaded.arch, method, name="none", **{**fixed, **choice})
            run = evaluate_method(
                loaded, records, method, settings, statistics, evaluator, before,
                batch=args.batch, contexts=contexts,
            )  # fmt: skip
        except MetakeError as error:  # a singular geometry is a bad choice, not a crash
            trial.set_user_attr("failed", str(error))
            return 0.0
        means = {
            m: run.after.mean(m)
            for m in ("efficacy", "generalisation", "specificity", "same_subject", "agreement")
        }
        trial.set_user_attr("means", {k: round(v, 4) for k, v in means.items()})
        value = score(means)
        print(f"{args.model} {method} {trial.number}: {value:.3f} {means}", flush=True)
        return value

    study.enqueue_trial(GUESS[find_method(method).target], skip_if_exists=True)
    study.optimize(objective, n_trials=max(0, args.trials - len(study.trials)))
    trials = sorted(study.trials, key=lambda t: -(t.value or 0))[: args.trials]
    return [{"number": t.number, "score": round(t.value or 0, 4), **t.user_attrs} for t in trials]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="demo", choices=sorted(PLACES))
    parser.add_argument("--path", help="load the model from here instead (a converted copy)")
    parser.add_argument("--methods", default="memit,alphaedit,metake,memit-compensated")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--data", type=Path, default=ASSETS / "world" / "dev.json")
    parser.add_argument("--edits", type=int, default=60)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--journal", type=Path, default=Path("results/search"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore")

    loaded = load(args.path or args.model)
    loaded.model.name_or_path = args.model
    layers = tuple(sorted({n for place in PLACES[args.model] for n in place}))
    statistics = statistics_for(loaded.arch, loaded.tokenizer, layers, progress=True)
    preset_file = PRESETS / f"{args.model}.json"
    preset = (
        read_json(preset_file)
        if preset_file.is_file()
        else {"names": [args.model], "common": {}, "methods": {}}
    )
    fixed = preset["common"]
    result_file = HERE / "search" / f"{args.model}.json"
    result = read_json(result_file) if result_file.is_file() else {}
    for method in args.methods.split(","):
        trials = search(loaded, method, statistics, args, fixed)
        result[method] = {
            "data": args.data.name, "edits": args.edits, "batch": args.batch, "seed": args.seed,
            "trials": trials,
        }  # fmt: skip
        preset["methods"][method] = trials[0]["choice"]
        if method == "memit":  # the control without early stop: the best of the same trials
            unstopped = [t for t in trials if t["choice"]["stop"] == "none"]
            if unstopped:
                preset["methods"]["memit@unstopped"] = unstopped[0]["choice"]
        write_json(result_file, result)
        write_json(preset_file, preset)


if __name__ == "__main__":
    main()
