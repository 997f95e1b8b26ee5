"""Theorem 1 in figures: AlphaEdit's projection."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metake.figures.core import BLACK, BLUE, EPS32, EPS64, ORANGE, RED, Data, axes, legend_above, shows
from metake.figures.measured import measured
from metake.figures.numbers import basis, tolerance
from metake.geometry.null_space import Projected
from metake.geometry.operator import Ridge
from theory import suppression

Array = NDArray[np.float64]


@shows(
    "T1e",
    "X1",
    caption="A key with a growing part outside the null space, ||Pk|| = beta = 1. Top: the executed edit keeps 1/2 of the "
    "residual (35); the form with the raw key (31) promises nearly all of it and, cut back to the null space, delivers nearly nothing. Middle: the share of the "
    "edit's norm that is written outside range(P). Bottom: error of the edit in fp32, solved with the projector in key space as published, "
    "and in the coordinates of the null space as the library does.",
)
def projected_key(data: Data) -> Any:
    d, m, beta = 64, 32, 1.0
    U = basis(d, 5)
    C = torch.from_numpy((U * np.where(np.arange(d) < m, 1e-4, 1.0)) @ U.T)
    C = (C + C.T) / 2
    ratios, line = np.logspace(-2, 3, 21), np.logspace(-2, 3, 200)
    operator, single = Projected(C, beta, keep=0.5), Projected(C, beta, keep=0.5, dtype=torch.float32)
    V = operator.basis.numpy()
    P = V @ V.T
    outside = U[:, -1] - P @ U[:, -1]
    K = V[:, :1] + outside[:, None] / np.linalg.norm(outside) * ratios
    raw = Ridge(torch.eye(d, dtype=torch.float64), beta)
    edits = {
        name: np.stack([g.channel(torch.from_numpy(k[:, None])).numpy()[:, 0] for k in K.T])
        for name, g in (("library", operator), ("raw", raw))
    }
    limit = tolerance(1, 1, EPS64) * (1 + ratios)

    figure, (top, middle, bottom) = axes(1.9, 1.5, 1.8, sharex=True)
    half = suppression.projected_attenuation(P, V[:, 0], beta)
    top.axhline(half, color=BLACK, label=r"$\|Pk\|^2/(\beta+\|Pk\|^2)$ (35)")
    theory = np.array([suppression.projected_attenuation(P, k, beta) for k in K.T])
    kept = np.sum(edits["library"] * K.T, 1)
    data.points(top, "library", ratios, theory, kept, "equal", limit, color=BLUE)
    top.semilogx(line, 1 - 1 / (2 + line**2), "--", color=RED)
    kept = np.sum(edits["raw"] * K.T, 1)
    theory = np.array([float(np.sum(suppression.raw_key_edit(k, np.ones(1), beta) @ k)) for k in K.T])
    data.points(top, "raw key (31)", ratios, theory, kept, "equal", limit, color=RED, marker="x")
    top.semilogx(line, 1 / (2 + line**2), "--", color=ORANGE)
    kept = np.sum((edits["raw"] @ P) * K.T, 1)
    theory = np.array([float(np.sum(suppression.raw_key_edit(k, np.ones(1), beta) @ P @ k)) for k in K.T])
    data.points(
        top,
        "raw key, then projected",
        ratios,
        theory,
        kept,
        "equal",
        limit * (1 + ratios),
        color=ORANGE,
        marker="+",
    )
    top.set(ylabel=r"realized share $\eta$", ylim=(-0.05, 1.1))
    legend_above(top, 2)

    share = {name: np.linalg.norm(q - q @ P, axis=1) / np.linalg.norm(q, axis=1) for name, q in edits.items()}
    middle.loglog(line, line / np.sqrt(1 + line**2), "--", color=RED)
    theory = ratios / np.sqrt(1 + ratios**2)
    data.points(
        middle,
        "outside, raw key",
        ratios,
        theory,
        share["raw"],
        "equal",
        tolerance(1, 1, EPS64) / theory,
        color=RED,
        marker="x",
    )
    data.points(
        middle, "outside, library", ratios, tolerance(1, m, EPS64), share["library"], "below", color=BLUE
    )
    middle.set(ylabel="share written\noutside range($P$)", ylim=(1e-17, 10))
    middle.set_yticks([1e-16, 1e-12, 1e-8, 1e-4, 1])

    P32 = single.basis @ single.basis.T
    exact = np.stack([suppression.coordinates_edit(V, k, np.ones(1), beta)[0] for k in K.T])
    published, ours = [], []
    for k in torch.from_numpy(K.T).float():
        system = torch.outer(k, k) @ P32 + beta * torch.eye(d)
        published.append(torch.linalg.solve(system.T, P32 @ k).double().numpy())
        ours.append(single.channel(k[:, None]).double().numpy()[:, 0])
    size = np.linalg.norm(exact, axis=1)
    shipped, coordinates = (np.linalg.norm(np.stack(q) - exact, axis=1) / size for q in (published, ours))
    limit = 8 * EPS32 * (1 + ratios)
    bottom.loglog(ratios, limit, color=BLACK, lw=0.8, label=r"$8\,e\,(1+\|(I-P)k\|/\|Pk\|)$")
    data.points(
        bottom, "projector in key space, fp32", ratios, limit, shipped, "shown", color=RED, marker="s"
    )
    data.points(bottom, "null-space coordinates, fp32", ratios, limit, coordinates, "below", color=BLUE)
    bottom.set(xlabel=r"$\|(I-P)k\|\,/\,\|Pk\|$", ylabel="relative error\nof the edit", ylim=(1e-7, 1e3))
    bottom.legend(loc="upper left")
    return figure


@shows(
    "P15",
    caption="Distance of ridge's edit with geometry beta I + t (I - P) from AlphaEdit's, relative to it, for the key of a fact on the null space of a demo model: the closed form, "
    "and its rate 1/t (dotted).",
)
def projection_limit(data: Data) -> Any:
    layer, beta = measured("demo-llama"), 1.0
    projected = Projected(layer.moment, beta, keep=0.5)
    V = projected.basis
    outside = torch.eye(len(V), dtype=torch.float64) - V @ V.T
    K = layer.keys[:, :1].double()
    limit = projected.channel(K)
    inner, outer = float((V.T @ K).norm() ** 2), float((outside @ K).norm() ** 2)
    A = 1 + inner / beta
    size = np.sqrt(outer + (outer / (A * beta)) ** 2 * inner) / float(limit.norm())

    def distance(t: Array) -> Array:
        return size / (A * (t + beta + outer / A))

    t, line = np.logspace(0, 7, 15), np.logspace(0, 7, 200)
    ridges = [
        Ridge(torch.from_numpy(suppression.penalized_geometry((V @ V.T).numpy(), beta, x)), 1.0) for x in t
    ]
    seen = np.array([float((ridge.channel(K) - limit).norm() / limit.norm()) for ridge in ridges])
    figure, axis = axes(2.2)
    axis.loglog(line, distance(line), color=BLACK, label="closed form")
    axis.loglog(line, size / (A * line), ":", color=BLACK, lw=0.8, label=r"its rate, $\propto 1/t$")
    # a difference of nearly equal edits: rounding by the condition number t, over what is left
    data.points(
        axis,
        "library",
        t,
        distance(t),
        seen,
        "equal",
        suppression.rounding_bound(EPS64, 1.0) * (beta + t) / distance(t),
        color=BLUE,
    )
    axis.set(
        xlabel=r"penalty $t$ on the complement, $\beta=1$",
        ylabel="relative distance of the edits",
        ylim=(None, 10),
    )
    axis.legend()
    return figure
