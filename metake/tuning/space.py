"""Spaces of a search: ranges of the settings of each model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from metake.models.editable import EditableModel
from metake.presets import settings_for


@dataclass(frozen=True)
class Space:
    """Space of the search of a model.

    Attributes:
        layer_sets: sets of layers to edit, of which each method chooses one.
        steps: gradient steps in all, planning and upper level together.
        lam, l2, gradient_lr: ranges of lambda, of AlphaEdit's L2, and of UltraEdit's step.
        tuned_layers: layers of which fine-tuning chooses one.
        weight_lr: range of fine-tuning's learning rate.
        guess: kind of the planner (`plan`, `gradient`, `weights`, or that of the hypergradient) -> first point, chosen by hand.
        locality: third metric of the score. It is agreement where the unedited model rarely gives the locality answers
            of the records, so that specificity cannot fall.
    """

    layer_sets: tuple[tuple[int, ...], ...]
    steps: int
    lam: tuple[float, float]
    l2: tuple[float, float]
    gradient_lr: tuple[float, float]
    tuned_layers: tuple[int, ...]
    weight_lr: tuple[float, float]
    guess: dict[str, dict[str, Any]]
    locality: str = "specificity"


COMMON = {"clamp": None, "decay": 0.0, "kl": 0.0625, "lr": 1.0}
SMALL_GUESS: dict[str, dict[str, Any]] = {
    "gradient": {"layer_set": 3, "gradient_lr": 1e-3},
    "weights": {"layer_set": 4, "weight_lr": 1e-3, "epochs": 25, "norm_constraint": None},
    "plan": {
        **COMMON,
        "layer_set": 2,
        "lam": 30.0,
        "memory": "none",
        "steps": 40,
        "stop": "planning_loss",
        "l2": 0.3,
        "keep": 0.8,
    },
    "proxy": {
        **COMMON,
        "layer_set": 6,
        "lam": 300.0,
        "memory": "past-keys",
        "steps": 10,
        "meta_steps": 20,
        "meta_lr": 1.0,
        "start": "open-loop",
        "locality": 0.0625,
        "stop": "post_edit_loss",
        "l2": 0.3,
        "keep": 0.8,
    },
    "parallel": {
        **COMMON,
        "layer_set": 3,
        "lam": 300.0,
        "memory": "none",
        "steps": 10,
        "meta_steps": 25,
        "meta_lr": 0.3,
        "start": "compensated",
        "locality": 0.0625,
        "stop": "post_edit_loss",
        "l2": 0.3,
        "keep": 0.8,
    },
    "unrolled": {
        **COMMON,
        "layer_set": 3,
        "lam": 300.0,
        "memory": "past-keys",
        "steps": 10,
        "meta_steps": 30,
        "lr": 0.5,
        "meta_lr": 1.0,
        "start": "open-loop",
        "locality": 0.0625,
        "stop": "post_edit_loss",
        "l2": 0.3,
        "keep": 0.8,
    },
}
DEMO_GUESS = {
    **SMALL_GUESS,
    "proxy": {**SMALL_GUESS["proxy"], "lr": 0.5, "steps": 5, "meta_steps": 30, "meta_lr": 0.2},
    "parallel": {**SMALL_GUESS["parallel"], "layer_set": 0},
    "unrolled": {**SMALL_GUESS["unrolled"], "layer_set": 0, "meta_lr": 0.3},
}
REAL_GUESS: dict[str, dict[str, Any]] = {
    "gradient": {"layer_set": 3, "gradient_lr": 1e-4},
    "weights": {"layer_set": 4, "weight_lr": 5e-4, "epochs": 20, "norm_constraint": None},
    "plan": {
        **COMMON,
        "layer_set": 0,
        "lam": 10_000.0,
        "memory": "none",
        "steps": 15,
        "stop": "planning_loss",
        "l2": 10.0,
        "keep": 0.8,
    },
    "proxy": {
        **COMMON,
        "layer_set": 0,
        "lam": 3_000.0,
        "memory": "none",
        "steps": 8,
        "meta_steps": 12,
        "meta_lr": 0.5,
        "start": "compensated",
        "locality": 0.0625,
        "stop": "post_edit_loss",
        "l2": 10.0,
        "keep": 0.8,
    },
}
REAL_GUESS["parallel"] = REAL_GUESS["proxy"]
REAL_GUESS["unrolled"] = {**REAL_GUESS["proxy"], "lam": 10_000.0, "meta_lr": 1.0}
# With rotary positions the demo models carry a subject to the question's end within two layers: above
# them an open-loop plan hardly lowers its own loss any more, so the list reaches down to layer 0.
ROTARY = Space(
    ((0,), (1,), (0, 1), (0, 1, 2), (1, 2, 3), (2,), (3,), (4,), (2, 3), (3, 4), (2, 3, 4)),
    40,
    (30, 30_000),
    (1e-3, 100),
    (1e-4, 0.1),
    tuple(range(6)),
    (1e-4, 0.02),
    SMALL_GUESS,
)
SPACES = {
    "demo": Space(
        ((0, 1, 2), (1, 2, 3), (2, 3), (3, 4), (2,), (3,), (4,), (2, 3, 4)),
        40,
        (30, 30_000),
        (1e-3, 100),
        (1e-4, 0.1),
        tuple(range(6)),
        (1e-4, 0.02),
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
        (0, 5, 10, 15, 20, 25, 29),
        (1e-5, 5e-3),
        REAL_GUESS,
        "agreement",
    ),
}


def space_of(model: EditableModel) -> Space:
    """Space of a model without one of its own.

    The layer sets are its layers (its preset's, or the default ones), the upper ones of them, and as many further up;
    the layers of fine-tuning are spread over the model.

    Args:
        model: the model.

    Returns:
        The space.
    """
    base = settings_for(model, "memit").layers
    further = tuple(n for n in (layer + len(base) for layer in base) if n < len(model))
    layer_sets = [part for layers in (base, further) for part in (layers, layers[-3:], layers[-1:]) if part]
    guess = {kind: {**point, "layer_set": 0} for kind, point in REAL_GUESS.items()}
    last = len(model) - 1
    tuned = tuple(dict.fromkeys(round(last * part / 6) for part in range(7)))
    guess["weights"]["layer_set"] = tuned.index(round(last * 4 / 6))
    return replace(
        SPACES["smollm2"], layer_sets=tuple(dict.fromkeys(layer_sets)), tuned_layers=tuned, guess=guess
    )
