"""The search of one method: a study of its trials, in a journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage

from metake.data.record import Record
from metake.errors import MetakeError
from metake.evaluation.metrics import score
from metake.evaluation.protocol import Protocol, Session
from metake.files import read_json
from metake.geometry.statistics import Statistics
from metake.methods.base import Method
from metake.models.editable import EditableModel
from metake.presets import PRESETS, preset_name, settings_for, short_name
from metake.provenance import provenance
from metake.tuning.journal import Journal
from metake.tuning.points import as_trial, first_points, suggest
from metake.tuning.space import Space

STARTUP = 10  # random trials before the sampler models the earlier ones
MEANS = ("efficacy", "generalization", "specificity", "same_subject", "agreement")


@dataclass(frozen=True)
class Budget:
    """What the trials of a search edit, how many there are, and with which points they begin.

    Attributes:
        data: file of the records.
        edits: records of each trial.
        batch: edits per batch.
        seed: seed of the sampler.
        trials: trials per method.
        journal: folder of the journals.
        fixed_settings: settings of all new trials, as pairs of name and value.
        factors: strengths relative to the shipped settings, which are among the first points.
        all_layer_sets: whether the shipped settings at every other layer set are among them.
        published: whether the published defaults are among them.
        winners_of: models whose shipped settings are among them.
    """

    data: Path
    edits: int
    batch: int
    seed: int
    trials: int
    journal: Path
    fixed_settings: tuple[tuple[str, Any], ...] = ()
    factors: tuple[float, ...] = ()
    all_layer_sets: bool = False
    published: bool = False
    winners_of: tuple[str, ...] = ()


def restore_trials(study: optuna.Study, trials: list[dict[str, Any]], name: str, space: Space) -> None:
    """Put an earlier search's trials before all others; what is no point of the space is left out.

    Args:
        study: study without trials; it is changed.
        trials: trials of a result file.
        name: row of the method table.
        space: space of the search.
    """
    for trial in sorted(trials, key=lambda trial: trial["number"]):
        point = as_trial(trial["choice"], name, space)
        if point is None:
            continue
        fixed = optuna.trial.FixedTrial(point)
        suggest(fixed, name, space)
        attributes: dict[str, Any] = {
            field: trial[field] for field in ("choice", "means", "interval", "failed") if field in trial
        }
        study.add_trial(
            optuna.trial.create_trial(
                params=fixed.params,
                distributions=fixed.distributions,
                value=trial["score"],
                user_attrs=attributes,
            )
        )


def open_study(log: Path, method: str, run: Mapping[str, Any], source: Mapping[str, Any]) -> optuna.Study:
    """Study of one method, from its journal if that exists.

    Args:
        log: path of the journal.
        method: row of the method table.
        run: what the scores depend on; a journal with other values is refused.
        source: provenance, kept in the journal.

    Returns:
        The study with its earlier trials.

    Raises:
        MetakeError: the journal holds trials of another run.
    """
    study = optuna.create_study(
        direction="maximize",
        study_name=method,
        load_if_exists=True,
        storage=JournalStorage(Journal(log)),
    )
    stored = study.user_attrs.get("run", run)
    other = next((key for key in run if stored.get(key) != run[key]), None)
    if other is not None:
        raise MetakeError(f"{log}: trials of another {other}; give another --journal, or remove it")
    study.set_user_attr("run", run)
    if "provenance" not in study.user_attrs:
        study.set_user_attr("provenance", source)
    return study


@dataclass(frozen=True)
class Objective:
    """Score of one trial of a method.

    Attributes:
        session: the protocol on the model.
        method: row of the method table.
        plain: its method, with the numbers that no trial changes.
        held: setting -> value, of all trials.
        space: space of the search.
        name: name of the model, for the printed line.
    """

    session: Session
    method: str
    plain: Method
    held: Mapping[str, Any]
    space: Space
    name: str

    def __call__(self, trial: optuna.Trial) -> float:
        """Score of a trial; choice, means and interval are kept in its attributes.

        Args:
            trial: the trial.

        Returns:
            The score, between 0 and 1; 0 if an edit fails, e.g. in a singular geometry.
        """
        choice = {**suggest(trial, self.method, self.space), **self.held}
        trial.set_user_attr("choice", choice)
        try:
            run = self.session.run(self.plain.updated(**choice))
        except MetakeError as error:
            trial.set_user_attr("failed", str(error))
            return 0.0
        means = {m: run.after.mean(m) for m in MEANS}
        trial.set_user_attr("means", {k: round(v, 4) for k, v in means.items()})
        value = score(means, self.space.locality)
        low, high = score_interval(run.after.values, self.space.locality)
        trial.set_user_attr("interval", [round(low, 4), round(high, 4)])
        print(f"{self.name} {self.method} {trial.number}: {value:.3f} {means}", flush=True)
        return value


def enqueue(
    study: optuna.Study,
    method: str,
    space: Space,
    args: Budget,
    shipped: dict[str, Any],
    held: Mapping[str, Any],
) -> None:
    """Put the first points of a search into the queue of its study.

    A point that the study has is not tried again, unless settings are held that no earlier trial had.

    Args:
        study: the study; it is changed.
        method: row of the method table.
        space: space of the search.
        args: which points are among the first.
        shipped: methods of the model's preset.
        held: setting -> value, of all new trials.
    """
    tried = [t.user_attrs["choice"] for t in study.trials if "choice" in t.user_attrs]
    anew = bool(held) and not any(held.items() <= choice.items() for choice in tried)
    others = [read_json(PRESETS / f"{model}.json")["methods"] for model in args.winners_of]
    for point in first_points(
        method, shipped, args.factors, space, args.all_layer_sets, others, args.published
    ):
        study.enqueue_trial(point, skip_if_exists=not anew)


def finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Finished trials of a study, oldest first.

    Args:
        study: the study.

    Returns:
        The trials.
    """
    return [t for t in study.trials if t.state.is_finished()]


def search(
    model: EditableModel,
    method: str,
    space: Space,
    records: list[Record],
    statistics: Statistics | None,
    args: Budget,
    fixed: dict[str, Any],
    shipped: dict[str, Any],
    earlier: list[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Trials of one method, best first; its guess and the settings it ships with are among them.

    A journal that holds trials of another run raises a `MetakeError`.

    Args:
        model: the unedited model.
        method: row of the method table.
        space: space of the search.
        records: development records.
        statistics: statistics of all layers of the space.
        args: what the trials edit, and how many there are.
        fixed: settings of the preset that all its methods share.
        shipped: methods of the preset.
        earlier: trials of the same run to begin with, unless the journal already has some.

    Returns:
        At most `args.trials` trials, as the result file holds them.
    """
    session = Protocol(records, args.batch, generate=False).prepare(model, statistics)
    name = preset_name(model) or short_name(model.name)
    plain = settings_for(model, method, name="none")
    plain = plain.updated(**plain.without_choices(fixed))
    held = plain.supported_changes(dict(args.fixed_settings))
    study = open_study(
        args.journal / f"{name}-{method}.journal",
        method,
        {**described(args, space), "model": model.fingerprint()},
        provenance(model.name, model, method, dated=False),
    )
    if not study.trials:
        restore_trials(study, earlier or [], method, space)
    enqueue(study, method, space, args, shipped, held)
    objective = Objective(session, method, plain, held, space, name)
    for count in range(len(finished(study)), args.trials):
        # each trial has a seed of its own: a search that goes on neither repeats its first random points
        # nor ends with others than one that was never stopped
        study.sampler = optuna.samplers.TPESampler(seed=args.seed + count, n_startup_trials=STARTUP)
        study.optimize(objective, n_trials=1)
    trials = sorted(finished(study), key=lambda t: -(t.value or 0))[: args.trials]
    return [{"number": t.number, "score": round(t.value or 0, 4), **t.user_attrs} for t in trials]


def score_interval(values: Mapping[str, np.ndarray], locality: str) -> tuple[float, float]:
    """95% interval of a score over records, resampled with replacement, all metrics of a record together.

    Args:
        values: metric -> `records`.
        locality: third metric of the score.

    Returns:
        Lower and upper end.
    """
    rows = np.array([values[m] for m in ("efficacy", "generalization", locality)])
    draws = np.random.default_rng(0).integers(0, rows.shape[1], (500, rows.shape[1]))
    there = np.isfinite(rows[:, draws]).sum(2)
    sums = np.nansum(rows[:, draws], axis=2)
    means = np.maximum(np.divide(sums, there, where=there > 0, out=np.full(there.shape, np.nan)), 1e-3)
    low, high = np.nanquantile(len(means) / (1 / means).sum(0), (0.025, 0.975))
    return float(low), float(high)


def described(args: Budget, space: Space) -> dict[str, Any]:
    """What a trial's score depends on beside the model, in the words of result files.

    Args:
        args: what the trials edit.
        space: space of the search.

    Returns:
        Plain values.
    """
    return {
        "data": args.data.name,
        "edits": args.edits,
        "batch": args.batch,
        "seed": args.seed,
        "score": f"harmonic mean of efficacy, generalization, {space.locality}",
    }
