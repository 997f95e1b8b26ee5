"""Theorem 1 in figures: what the closed loop pays for."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metake.figures.core import Data, axes, legend_above, shows
from metake.figures.measured import measured
from metake.figures.numbers import Array
from metake.geometry.operator import Ridge
from metake.report.figures import BLACK, BLUE, GREEN, ORANGE, RED
from metake.solvers.layered import cost_of
from theory import suppression

FACTS, CONDITION = 4, 1e4


def _planned() -> Array:
    """Planned shifts of the facts, `d_v x n`."""
    return np.random.default_rng(0).standard_normal((16, FACTS))


@cache
def _matrices() -> tuple[Tensor, Tensor, float]:
    """C (`d_k x d_k`) and keys (`d_k x n`) of the demo model in fp64, and the ridge relative to lambda."""
    C, K = measured("demo").moment.double(), measured("demo").keys[:, :FACTS].double()
    return C, K, float(torch.linalg.eigvalsh(C)[-1]) / CONDITION


def _gram(weight: float) -> Array:
    """S of the facts in the geometry `lambda (C + beta I)`, `n x n`."""
    C, K, beta = _matrices()
    return np.asarray(suppression.gram(weight * (C.numpy() + beta * np.eye(len(C))), K.numpy()), np.float64)


def _share_and_cost(S: Array, alpha: float) -> tuple[float, float]:
    """Realized share and cost of the closed loop at cost weight alpha, by theory; both relative to `||X||^2`."""
    planned = _planned()
    size = float(np.sum(planned**2))
    shift = suppression.priced_shift(S, planned, alpha)
    return float(np.sum(shift * planned)) / size, suppression.least_cost(S, shift) / size


def _minimized(weight: float, alpha: float) -> tuple[float, float]:
    """Realized share and cost of a minimization by gradients through the library's channel and cost weight.

    The unknown is the realized shift: in this whitened form the loss has no long valley.

    Args:
        weight: lambda.
        alpha: weight of the cost.

    Returns:
        Share and cost, relative to the planned shifts.
    """
    C, K, beta = _matrices()
    gram_channel = K.T @ Ridge(C, weight, weight * beta).channel(K)
    planned = _planned()
    size = float(np.sum(planned**2))
    aim = torch.from_numpy(planned.T.copy())
    leaf = torch.zeros_like(aim).requires_grad_(True)
    optimizer: Any = torch.optim.LBFGS(
        [leaf], max_iter=500, tolerance_grad=1e-14, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def residuals() -> Tensor:
        solved: Tensor = torch.linalg.solve(gram_channel, leaf)
        return solved

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = (leaf - aim).square().sum() + alpha * cost_of(residuals(), gram_channel).sum()
        torch.autograd.backward(total)
        return total

    optimizer.step(loss)
    with torch.no_grad():
        cost = float(cost_of(residuals(), gram_channel).sum())
        return float((leaf * aim).sum()) / size, cost / size


@shows(
    "X14",
    caption="What four facts realize of what they want (a demo model's keys and covariance, mean over the facts), and what it costs what is protected, "
    "against the strength of the constraint. The open loop is attenuated. The closed loop reaches everything at every lambda, so that lambda no longer protects, and its cost grows with it; "
    "where it pays alpha times the cost, it is attenuated by alpha lambda. Points: minimized by gradients through the library's channel and its cost weight.",
)
def price(data: Data) -> Any:
    """Figure of X14: realized share and cost of the closed loop over the strength of the constraint.

    Args:
        data: table to which the points are added.

    Returns:
        The figure.
    """
    line, few = np.logspace(-1, 6, 60), np.logspace(-1, 6, 8)
    grams, few_grams = [_gram(weight) for weight in line], [_gram(weight) for weight in few]
    figure, (top, bottom) = axes(2.0, 2.0, sharex=True)
    for alpha, color, marker in ((0.0, RED, "o"), (0.01, ORANGE, "s"), (0.1, GREEN, "D"), (1.0, BLUE, "^")):
        name = rf"closed loop, $\alpha={alpha:g}$"
        shares, costs = zip(*(_share_and_cost(S, alpha) for S in grams), strict=True)
        top.semilogx(line, shares, color=color, lw=0.9)
        bottom.loglog(line, costs, color=color, lw=0.9)
        shares, costs = zip(*(_share_and_cost(S, alpha) for S in few_grams), strict=True)
        found = [_minimized(weight, alpha) for weight in few]
        line_style: dict[str, Any] = {"color": color, "marker": marker}
        data.points(top, name, few, shares, [x for x, _ in found], "equal", 1e-5, **line_style)
        data.points(
            bottom, f"{name}, cost", few, costs, [x for _, x in found], "equal", 1e-4, label="", **line_style
        )
    planned = _planned()
    opened = [suppression.batch_cost(S, planned) / float(np.sum(planned**2)) for S in grams]
    top.semilogx(line, [_share_and_cost(S, 1.0)[0] for S in grams], ":", color=BLACK, label="open loop")
    bottom.loglog(line, opened, ":", color=BLACK)
    top.set(ylabel="realized share", ylim=(-0.03, 1.05))
    bottom.set(
        xlabel=r"strength of the constraint, $\lambda$", ylabel=r"$\mathrm{tr}(DGD^\top)/\Vert X\Vert^2$"
    )
    legend_above(top, 2)
    return figure
