"""Report of the change that a map makes: what each request was assigned, and what the solve realizes of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from metake.errors import MetakeError
from metake.maps.updates import Factors
from metake.planners.normalized_gradient import Signals
from metake.planners.problem import Targets
from metake.planners.target_optimization import TargetOptimization
from metake.solvers.layered import Solution


def check_finite(factors: Mapping[int, Factors]) -> None:
    """Refuse a change that is not finite.

    Args:
        factors: layer -> factors.

    Raises:
        MetakeError: an entry is NaN or infinite.
    """
    for layer, change in factors.items():
        if not bool(torch.isfinite(change.left).all() and torch.isfinite(change.right).all()):
            raise MetakeError(f"solve: the update of layer {layer} is not finite; nothing was changed")


def solution_of(signals: Signals, factors: Mapping[int, Factors]) -> tuple[Targets, Solution]:
    """Targets and solution of a least-squares update; every layer is solved on its own.

    Args:
        signals: keys and gradients of the batch.
        factors: layer -> factors with an attenuation, layers ascending.

    Returns:
        Targets and solution. The factors have a column per token. Residual, keys, eta and shift of a request are means
        over its tokens; residual and shift are those of the last edited layer.
    """
    keys, missing, eta = {}, {}, {}
    planned = shift = torch.empty(0)
    for layer, change in factors.items():
        key, value = signals.keys[layer], change.left.T
        keys[layer] = signals.mean(key)
        planned, shift = signals.mean(value), signals.mean((key @ change.right) @ value)
        missing[layer] = planned.norm(dim=1)
        assert change.eta is not None
        eta[layer] = signals.mean(change.eta.float())
    size = len(signals.nll)
    plan = TargetOptimization(
        planned,
        torch.ones(size, dtype=torch.long),
        signals.nll,
        torch.full((size,), float("nan")),
        [float(signals.nll.mean())],
        torch.zeros(size, dtype=torch.bool),
    )
    targets = Targets(planned, signals.hidden.to(planned.device), plan, None, torch.ones(size))
    parts = {layer: (change.left.contiguous(), change.right) for layer, change in factors.items()}
    return targets, Solution(parts, keys, missing, eta, shift, planned)
