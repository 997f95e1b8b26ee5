"""Theorem 3 in figures: what several layers do to a residual, and how a target makes up for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metake.figures import tiny_models as tiny
from metake.figures.core import Data, axes, legend_above, shows
from metake.figures.measured import geometry, measured
from metake.figures.numbers import EPS32, EPS64, Array
from metake.geometry.operator import Ridge
from metake.lookup_prompts import LookupPrompts
from metake.models.trace import frozen
from metake.report.figures import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED
from metake.solvers.allocation import Spread
from metake.solvers.layered import LayeredSolver
from theory import fidelity, suppression

LAWS: dict[str, Callable[[list[float]], float]] = {  # quantity -> its law, of the attenuations of all layers
    "executed": lambda etas: fidelity.executed_fraction(etas),
    "gamma": lambda etas: fidelity.aligned_tail(etas),
    "J_L": lambda etas: float(fidelity.allocation_scales(etas)[-1]),
    "J_1": lambda etas: float(fidelity.spread_shares(len(etas))[0]),
}


@shows(
    "A2",
    "A1",
    "J2",
    caption="MEMIT's allocation over n layers with equal attenuation and identity transport. Top: what all layers together execute of a "
    "residual. Middle: gamma, the weight of the lower layers' gradients against the last one's, in the best case; above 1 the premise (54) fails. Bottom: "
    "J_L of the last layer: far from 1 although nothing drifts between the layers, and J_1 = 1/n whatever the attenuation (dotted). Points: the library's layered solver "
    "on a tiny GPT-2 with constant keys.",
)
def identity_transport(data: Data) -> Any:
    """Figure of A2, A1 and J2: MEMIT's allocation under identity transport.

    Args:
        data: table to which the points are added.

    Returns:
        The figure.
    """
    figure, (top, middle, bottom) = axes(1.8, 1.8, 1.8, sharex=True)
    line, etas = np.linspace(1e-3, 0.999, 100), np.array([0.02, 0.2, 0.4, 0.6, 0.8, 0.95])
    # the stream and its shifts are held in fp32, and shifts are down to 1/50 of a residual
    limit = 16 * EPS32 * 10
    panel_of = {"executed": top, "gamma": middle, "J_L": bottom}
    for n, color, marker in zip((2, 3, 4, 5), (BLUE, GREEN, ORANGE, PURPLE), "osD^", strict=True):
        measured_values = _allocation(n, etas)
        for name, law in LAWS.items():
            theory = np.array([law([eta] * n) for eta in etas])
            series, values = f"{name}, n = {n}", measured_values[name]
            if name not in panel_of:
                data.add(series, etas, theory, values, "equal", limit)
                continue
            axis, slack = panel_of[name], limit / np.minimum(theory, 1)
            axis.plot(line, [law([x] * n) for x in line], color=color)
            line_style: dict[str, Any] = {"color": color, "marker": marker, "label": f"$n={n}$"}
            data.points(axis, series, etas, theory, values, "equal", slack, **line_style)
        bottom.axhline(fidelity.spread_shares(n)[0], color=color, ls=":", lw=0.8)
    top.set(ylabel="executed fraction", ylim=(0, 1.05))
    middle.axhline(1, color=BLACK, ls=":", lw=0.8)
    middle.set(ylabel=r"$\gamma$, best case", ylim=(0, 4.2))
    bottom.set(xlabel=r"attenuation $\eta$ of every layer", ylabel=r"$J_L$ (dotted: $J_1$)", ylim=(0, 1.05))
    legend_above(top, 4)
    return figure


def _allocation(n: int, etas: Array) -> dict[str, list[float]]:
    """Quantities of `LAWS` over eta, by the library's layered solver on a tiny GPT-2 with n layers of constant keys."""
    layers = tuple(range(n))
    model = tiny.still(0, layers, alike=True, blocks=n + 1)
    size = 10 * 8**0.5
    residual = torch.full((1, 8), 10.0)
    found: dict[str, list[float]] = {name: [] for name in LAWS}
    with frozen(model.model):
        prompts = LookupPrompts.build(model, tiny.batch(1, 0), 0)
        square = float(
            (LayeredSolver(model, {}, [(n - 1, 1.0)]).unedited_stream_and_key(prompts)[1].double() ** 2).sum()
        )
        for eta in etas:
            ridge = Ridge(torch.eye(tiny.INNER, dtype=torch.float64), square * (1 - eta) / eta)
            solver = LayeredSolver(model, dict.fromkeys(layers, ridge), Spread().stages(layers)[0])
            solution = solver.solve(prompts, residual)
            norms = np.array([float(solution.factors[i][0].norm()) for i in layers])
            found["executed"].append(float(solution.realized_share))
            found["gamma"].append(norms[:-1].sum() / norms[-1])
            found["J_L"].append(norms[-1] / size)
            found["J_1"].append(norms[0] / size)
    return found


@shows(
    "P13",
    "P1",
    caption="Plain gradient descent, step 1, on a target through the library's channel (a fact's key scaled to several "
    "attenuations, a demo model's geometry), differentiated automatically. Top: the realized share of the residual; closing the loop takes 1/eta^2 steps. "
    "Bottom: what is asked for, on its way to 1/eta (dotted). Their ratio stays eta: the target grows, the attenuation does not change.",
)
def closing_the_loop(data: Data) -> Any:
    """Figure of P13 and P1: gradient descent on a target through the library's channel.

    Args:
        data: table to which the points are added.

    Returns:
        The figure.
    """
    figure, (top, bottom) = axes(2.2, 2.0, sharex=True)
    line, steps = np.logspace(0, 4, 200), np.unique(np.logspace(0, 3.3, 12).astype(int))
    C, weight, beta, _ = geometry(1e4)
    operator, key = Ridge(C, weight, beta), measured("demo").keys[:, :1].double()
    rho = float(operator.realizability(key))
    limit = suppression.rounding_bound(EPS64, 1e4)
    for eta, color, marker in zip(
        (0.9, 0.3, 0.1, 0.03, 0.01), (GREEN, BLUE, ORANGE, PURPLE, RED), "osD^v", strict=True
    ):
        k = key * (eta / (1 - eta) / rho) ** 0.5
        realized, sizes = _descended(k, operator.channel(k), steps)
        curve = np.array([fidelity.realized_after(eta, 1.0, t) for t in line])
        theory = np.array([fidelity.realized_after(eta, 1.0, int(t)) for t in steps])
        top.loglog(line, curve, color=color)
        data.points(
            top,
            f"realized, eta {eta:g}",
            steps,
            theory,
            realized,
            "equal",
            limit,
            color=color,
            marker=marker,
            label=rf"$\eta={eta:g}$",
        )
        bottom.loglog(line, curve / eta, color=color)
        data.points(
            bottom,
            f"asked, eta {eta:g}",
            steps,
            theory / eta,
            sizes,
            "equal",
            limit,
            color=color,
            marker=marker,
        )
        bottom.axhline(1 / eta, color=color, ls=":", lw=0.8)
        data.add(f"ratio, eta {eta:g}", steps, eta, realized / sizes, "equal", limit)
    top.set(ylabel=r"realized share $\eta\,d_T$", ylim=(7e-5, 1.7))
    bottom.set(xlabel="steps $T$", ylabel=r"asked for, $d_T$", ylim=(7e-3, 200))
    legend_above(top, 3)
    return figure


def _descended(k: Tensor, q: Tensor, steps: Array) -> tuple[Array, Array]:
    """Realized and requested length of a target after numbers of steps of gradient descent, step size 1.

    Args:
        k: key, `d_k x 1`.
        q: its channel, `d_k x 1`.
        steps: numbers of steps, ascending.

    Returns:
        Components along the unit vector that is planned, one per number of steps.
    """
    planned = torch.tensor([2.0, -1.0, 2.0], dtype=torch.float64) / 3
    target = torch.zeros(3, 1, dtype=torch.float64, requires_grad=True)
    realized, requested = [], []
    for step in range(1, int(steps[-1]) + 1):
        miss = (target @ q.T @ k)[:, 0] - planned
        (slope,) = torch.autograd.grad(miss @ miss / 2, target)
        with torch.no_grad():
            target -= slope
        if step in steps:
            realized.append(float((target.detach() @ q.T @ k)[:, 0] @ planned))
            requested.append(float(target.detach()[:, 0] @ planned))
    return np.array(realized), np.array(requested)
