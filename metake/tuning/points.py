"""Points of a space: their settings, and the first ones of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from metake.methods.base import Method
from metake.methods.fine_tune import FineTune
from metake.methods.table import Row, find_method, method_named
from metake.methods.ultraedit import UltraEdit
from metake.planners.closed_loop import ClosedLoop
from metake.tuning.space import Space

COMPONENTS = ("start", "memory")  # chosen by a search; a preset has them in a method's name
COST_WEIGHTS = (0.3, 300.0)  # range of the cost weight, of rows that have one
BOUNDS = [None, 5e-4, 2e-3, 8e-3]  # of the change of a weight's entries, of rows that have one


def closed_loop(method: Method) -> ClosedLoop | None:
    """Planner of a method with an upper level.

    Args:
        method: the method.

    Returns:
        The planner; None for another method.
    """
    planner = getattr(method, "planner", None)
    return planner if isinstance(planner, ClosedLoop) else None


def strength_of(method: Method) -> str:
    """Name of the setting that states how strongly a method is constrained; of a gradient step, its length.

    Args:
        method: the method.

    Returns:
        Name of a setting.
    """
    return method.constraint_setting or method.step_setting


def places(method: Method, space: Space) -> tuple[tuple[int, ...], ...]:
    """Sets of layers of which a method chooses one; of fine-tuning single layers.

    Args:
        method: the method.
        space: space of the search.

    Returns:
        Layers, each set ascending.
    """
    return (
        tuple((layer,) for layer in space.tuned_layers) if isinstance(method, FineTune) else space.layer_sets
    )


def _suggest_weights(trial: optuna.trial.BaseTrial, method: FineTune, space: Space) -> dict[str, Any]:
    """Numbers of a fine-tuning."""
    choice: dict[str, Any] = {
        "weight_lr": trial.suggest_float("weight_lr", *space.weight_lr, log=True),
        "epochs": trial.suggest_int("epochs", 5, space.steps),
    }
    if method.norm_constraint is not None:
        choice["norm_constraint"] = trial.suggest_categorical("norm_constraint", BOUNDS)
    return choice


def suggest(trial: optuna.trial.BaseTrial, name: str, space: Space) -> dict[str, Any]:
    """One point of the space of a row, as changes of its method's settings.

    Args:
        trial: trial that draws the point.
        name: row of the method table.
        space: space of the search.

    Returns:
        Setting -> value.
    """
    method = find_method(name).prototype
    sets = places(method, space)
    layers = list(sets[trial.suggest_int("layer_set", 0, len(sets) - 1)])
    if isinstance(method, FineTune):
        return {"layers": layers, **_suggest_weights(trial, method, space)}
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
    if method.constraint_setting == "lam":
        choice["lam"] = trial.suggest_float("lam", *space.lam, log=True)
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
            choice["cost_weight"] = trial.suggest_float("cost_weight", *COST_WEIGHTS, log=True)
        choice["stop"] = "planning_loss"
        choice["meta_stop"] = trial.suggest_categorical("stop", ["planning_loss", "post_edit_loss", "none"])
    else:
        choice["steps"] = trial.suggest_int("steps", 5, space.steps)
        choice["stop"] = trial.suggest_categorical("stop", ["planning_loss", "post_edit_loss", "none"])
    return choice


def as_trial(choice: dict[str, Any], name: str, space: Space) -> dict[str, Any] | None:
    """Point of the space that has some settings.

    Args:
        choice: setting -> value.
        name: row of the method table.
        space: space of the search.

    Returns:
        Parameter -> value; None if the settings are not in the space.
    """
    layers, prototype = tuple(choice.get("layers", ())), find_method(name).prototype
    closed, sets = closed_loop(prototype), places(prototype, space)
    # a method without settings of its own may be shipped with those of one that has no upper level
    if layers not in sets or (closed is not None) != ("meta_steps" in choice):
        return None
    names = (
        "gradient_lr",
        "lr",
        "clamp",
        "decay",
        "kl",
        "lam",
        "memory",
        "l2",
        "keep",
        "steps",
        "meta_steps",
        "meta_lr",
        "start",
        "locality",
        "weight_lr",
        "epochs",
        "norm_constraint",
    )
    point = {name: choice[name] for name in names if name in choice}
    if closed is not None and closed.cost_weight:
        point["cost_weight"] = choice.get("cost_weight", closed.cost_weight)
    if "stop" in choice:
        point["stop"] = choice.get("meta_stop", choice["stop"])
    return {"layer_set": sets.index(layers), **point}


def stronger(point: dict[str, Any], factor: float, space: Space) -> dict[str, Any]:
    """The same point with a stronger constraint, within the space; a ridge also remembers keys.

    Args:
        point: parameter -> value.
        factor: strength of the constraint, relative to the point's.
        space: space of the search.

    Returns:
        A new point.
    """
    if "lam" in point:
        return {**point, "lam": min(point["lam"] * factor, space.lam[1]), "memory": "past-keys"}
    if "l2" in point:
        return {**point, "l2": min(point["l2"] * factor, space.l2[1])}
    step = "weight_lr" if "weight_lr" in point else "gradient_lr"
    return {**point, step: max(point[step] / factor, getattr(space, step)[0])}


def settings_of(method: Method) -> dict[str, Any]:
    """Settings of a method, of a component its kind.

    Args:
        method: the method.

    Returns:
        Setting -> value.
    """
    return {
        part.aliases.get(field, field): getattr(getattr(part, field), "kind", getattr(part, field))
        for _, part in method.named_components()
        for field in type(part).model_fields
    }


def published(name: str, space: Space) -> dict[str, Any]:
    """The defaults of a row at the first layer set, with at most as many steps as the space allows.

    Args:
        name: row of the method table.
        space: space of the search.

    Returns:
        A point of the space.
    """
    method = find_method(name).build(places(find_method(name).prototype, space)[0])
    choice, strength = settings_of(method), strength_of(method)
    choice[strength] = min(max(choice[strength], getattr(space, strength)[0]), getattr(space, strength)[1])
    if closed_loop(method) is not None:
        choice["steps"] = min(choice["steps"], space.steps // 2)
        choice["meta_steps"] = min(choice["meta_steps"], space.steps - choice["steps"])
    for steps in ("steps", "epochs"):
        if steps in choice:
            choice[steps] = min(choice[steps], space.steps)
    point = as_trial(choice, name, space)
    assert point is not None
    trial = optuna.trial.FixedTrial(point)
    suggest(trial, name, space)
    return {name: value for name, value in point.items() if name in trial.params}


def guess_of(method: Method, space: Space) -> dict[str, Any]:
    """The guess by hand, as a point of the method's space.

    Args:
        method: the method.
        space: space of the search.

    Returns:
        Parameter -> value.
    """
    closed = closed_loop(method)
    single = {UltraEdit: "gradient", FineTune: "weights"}.get(type(method))
    kind = single or ("plan" if closed is None else closed.gradient.kind)
    other = ("l2", "keep") if method.constraint_setting == "lam" else ("lam", "memory")
    if isinstance(method, FineTune) and method.norm_constraint is None:
        other = ("norm_constraint", "")
    guess = {setting: value for setting, value in space.guess[kind].items() if setting not in other}
    return guess | ({"cost_weight": closed.cost_weight} if closed is not None and closed.cost_weight else {})


def shipped_choice(row: Row, methods: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The settings that a preset has for a row or the one that it is like, the components in their name included.

    Args:
        row: the row.
        methods: methods of the preset.

    Returns:
        Setting -> value; empty if the preset has neither.
    """
    for wanted in (row.name, row.like):
        for name, part in methods.items():
            if name.partition(" + ")[0] == wanted and "@" not in name:
                named = settings_of(method_named(name))
                return {**part, **{setting: named[setting] for setting in COMPONENTS if setting in named}}
    return {}


def first_points(
    name: str,
    shipped: dict[str, Any],
    factors: Sequence[float],
    space: Space,
    all_layer_sets: bool = False,
    others: Sequence[dict[str, Any]] = (),
    defaults: bool = False,
) -> list[dict[str, Any]]:
    """First points of a search, each once: the guess, the shipped settings, and these (or the guess) more strongly constrained.

    Args:
        name: row of the method table.
        shipped: methods of the model's preset.
        factors: strengths of the constraint, relative to the shipped one.
        space: space of the search.
        all_layer_sets: add the shipped settings (or the guess) at every other layer set.
        others: methods of other models' presets; their settings are added where the space has them.
        defaults: add the published defaults.

    Returns:
        The points.
    """
    row = find_method(name)
    guess = guess_of(row.prototype, space)
    earlier, *further = (
        as_trial(shipped_choice(row, methods), name, space) for methods in (shipped, *others)
    )
    base = guess if earlier is None else earlier
    points: list[dict[str, Any]] = []
    count = len(places(row.prototype, space)) if all_layer_sets else 0
    moved = [{**base, "layer_set": index} for index in range(count)]
    strong = [stronger(base, factor, space) for factor in factors]
    for point in (guess, base, *([published(name, space)] if defaults else []), *strong, *moved, *further):
        if point is not None and point not in points:
            points.append(point)
    return points
