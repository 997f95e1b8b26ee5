"""Theorem 3 in figures: what several layers do to a residual, and how a target makes up for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from metake.figures import networks as nets
from metake.figures.core import (
    BLACK,
    BLUE,
    EPS32,
    EPS64,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    Data,
    axes,
    legend_above,
    shows,
)
from metake.figures.measured import measured
from metake.figures.suppression import geometry
from metake.geometry.operator import Ridge
from metake.models.trace import frozen
from metake.prompts import LookupPrompts
from metake.solvers.allocation import Spread
from metake.solvers.layered import LayeredSolver
from theory import fidelity, suppression


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
    figure, (top, middle, bottom) = axes(1.8, 1.8, 1.8, sharex=True)
    line, etas = np.linspace(1e-3, 0.999, 100), np.array([0.02, 0.2, 0.4, 0.6, 0.8, 0.95])
    limit = (
        16 * EPS32 * 10
    )  # the stream and its shifts are held in fp32, and shifts are down to 1/50 of a residual
    for n, color, marker in zip((2, 3, 4, 5), (BLUE, GREEN, ORANGE, PURPLE), "osD^", strict=True):
        layers = tuple(range(n))
        arch = nets.still(0, layers, alike=True, blocks=n + 1)
        size = 10 * 8**0.5
        residual = torch.full((1, 8), 10.0)
        laws = (
            (top, "executed", lambda e: fidelity.executed_fraction(e)),
            (middle, "gamma", lambda e: fidelity.aligned_tail(e)),
            (bottom, "J_L", lambda e: fidelity.allocation_scales(e)[-1]),
            (None, "J_1", lambda e: fidelity.spread_shares(len(e))[0]),
        )
        seen: dict[str, list[float]] = {name: [] for _, name, _ in laws}
        with frozen(arch.model):
            prompts = LookupPrompts.build(arch, nets.batch(1, 0), 0)
            square = float((LayeredSolver(arch, {}, [(n - 1, 1.0)]).origin(prompts)[1].double() ** 2).sum())
            for eta in etas:
                ridge = Ridge(torch.eye(nets.INNER, dtype=torch.float64), square * (1 - eta) / eta)
                done = LayeredSolver(arch, dict.fromkeys(layers, ridge), Spread().stages(layers)[0]).solve(
                    prompts, residual
                )
                asked = np.array([float(done.factors[i][0].norm()) for i in layers])
                numbers = (
                    float(done.fraction),
                    asked[:-1].sum() / asked[-1],
                    asked[-1] / size,
                    asked[0] / size,
                )
                for name, number in zip(seen, numbers, strict=True):
                    seen[name].append(number)
        for axis, name, law in laws:
            theory = np.array([law([eta] * n) for eta in etas])
            series = f"{name}, n = {n}"
            if axis is None:
                data.add(series, etas, theory, seen[name], "equal", limit)
            else:
                axis.plot(line, [law([x] * n) for x in line], color=color)
                data.points(
                    axis,
                    series,
                    etas,
                    theory,
                    seen[name],
                    "equal",
                    limit / np.minimum(theory, 1),
                    color=color,
                    marker=marker,
                    label=f"$n={n}$",
                )
        bottom.axhline(fidelity.spread_shares(n)[0], color=color, ls=":", lw=0.8)
    top.set(ylabel="executed fraction", ylim=(0, 1.05))
    middle.axhline(1, color=BLACK, ls=":", lw=0.8)
    middle.set(ylabel=r"$\gamma$, best case", ylim=(0, 4.2))
    bottom.set(xlabel=r"attenuation $\eta$ of every layer", ylabel=r"$J_L$ (dotted: $J_1$)", ylim=(0, 1.05))
    legend_above(top, 4)
    return figure


@shows(
    "P13",
    "P1",
    caption="Plain gradient descent, step 1, on a target that is felt through the library's channel (a fact's key scaled to several "
    "attenuations, a demo model's geometry), differentiated automatically. Top: the realized share of the residual; closing the loop takes 1/eta^2 steps. "
    "Bottom: what is asked for, on its way to 1/eta (dotted). Their ratio stays eta: the target learns to ask for more, not to be kept better.",
)
def closing_the_loop(data: Data) -> Any:
    figure, (top, bottom) = axes(2.2, 2.0, sharex=True)
    line, steps = np.logspace(0, 4, 200), np.unique(np.logspace(0, 3.3, 12).astype(int))
    C, weight, beta, _ = geometry(1e4)
    operator, key = Ridge(C, weight, beta), measured("demo").keys[:, :1].double()
    rho = float(operator.realizability(key))
    wanted = torch.tensor([2.0, -1.0, 2.0], dtype=torch.float64) / 3
    limit = suppression.rounding_bound(EPS64, 1e4)
    for eta, color, marker in zip(
        (0.9, 0.3, 0.1, 0.03, 0.01), (GREEN, BLUE, ORANGE, PURPLE, RED), "osD^v", strict=True
    ):
        k = key * (eta / (1 - eta) / rho) ** 0.5
        q = operator.channel(k)
        asked = torch.zeros(3, 1, dtype=torch.float64, requires_grad=True)
        realized, length = {}, {}
        for step in range(1, steps[-1] + 1):
            miss = (asked @ q.T @ k)[:, 0] - wanted
            (slope,) = torch.autograd.grad(miss @ miss / 2, asked)
            with torch.no_grad():
                asked -= slope
            if step in steps:
                realized[step] = float((asked.detach() @ q.T @ k)[:, 0] @ wanted)
                length[step] = float(asked.detach()[:, 0] @ wanted)
        seen, sizes = np.array([realized[t] for t in steps]), np.array([length[t] for t in steps])
        curve = np.array([fidelity.realized_after(eta, 1.0, t) for t in line])
        theory = np.array([fidelity.realized_after(eta, 1.0, int(t)) for t in steps])
        top.loglog(line, curve, color=color)
        data.points(
            top,
            f"realized, eta {eta:g}",
            steps,
            theory,
            seen,
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
        data.add(f"ratio, eta {eta:g}", steps, eta, seen / sizes, "equal", limit)
    top.set(ylabel=r"realized share $\eta\,d_T$", ylim=(7e-5, 1.7))
    bottom.set(xlabel="steps $T$", ylabel=r"asked for, $d_T$", ylim=(7e-3, 200))
    legend_above(top, 3)
    return figure
