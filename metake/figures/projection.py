"""Theorem 1 in figures: AlphaEdit's projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metake.figures.core import Data, axes, legend_above, shows
from metake.figures.measured import available, measured
from metake.figures.numbers import EPS32, EPS64, Array, basis, tolerance
from metake.geometry.null_space import Projected
from metake.geometry.operator import Ridge
from metake.report.figures import BLACK, BLUE, ORANGE, RED
from theory import suppression


@dataclass(frozen=True)
class _Case:
    """Keys with `||P k|| = 1` and a growing part outside the null space of C; `m` its dimension, `n` keys.

    Attributes:
        C: second moment, `d_k x d_k`.
        V: basis of the null space, `d_k x m`.
        K: keys, `d_k x n`.
        ratios: `||(I - P) k|| / ||P k||`, `n`.
        line: ratios of the lines.
        library: channels of the library's projected geometry, `n x d_k`.
        raw: channels of (31), with the raw key, `n x d_k`.
        beta: ridge of AlphaEdit.
    """

    C: Tensor
    V: Array
    K: Array
    ratios: Array
    line: Array
    library: Array
    raw: Array
    beta: float

    @property
    def P(self) -> Array:
        """Projector on the null space, `d_k x d_k`."""
        projector: Array = self.V @ self.V.T
        return projector

    @classmethod
    def build(cls) -> _Case:
        """The case: 64 dimensions, half of them protected."""
        d, m, beta = 64, 32, 1.0
        U = basis(d, 5)
        C = torch.from_numpy((U * np.where(np.arange(d) < m, 1e-4, 1.0)) @ U.T)
        C = (C + C.T) / 2
        ratios, line = np.logspace(-2, 3, 21), np.logspace(-2, 3, 200)
        operator, raw = Projected(C, beta, keep=0.5), Ridge(torch.eye(d, dtype=torch.float64), beta)
        V = operator.basis.numpy()
        outside = U[:, -1] - V @ V.T @ U[:, -1]
        K = V[:, :1] + outside[:, None] / np.linalg.norm(outside) * ratios
        library, raw_key = (
            np.stack([geometry.channel(torch.from_numpy(k[:, None])).numpy()[:, 0] for k in K.T])
            for geometry in (operator, raw)
        )
        return cls(C, V, K, ratios, line, library, raw_key, beta)


@shows(
    "T1e",
    "X1",
    caption="A key with a growing part outside the null space, ||Pk|| = beta = 1. Top: the executed edit keeps 1/2 of the "
    "residual (35); the form with the raw key (31) promises nearly all of it and, cut back to the null space, delivers nearly nothing. Middle: the share of the "
    "edit's norm that is written outside range(P). Bottom: error of the edit in fp32, solved with the projector in key space as published, "
    "and in the coordinates of the null space as the library does.",
)
def projected_key(data: Data) -> Any:
    """Figure of T1e and X1: AlphaEdit's edit and the form with the raw key.

    Args:
        data: table to which the points are added.

    Returns:
        The figure.
    """
    case = _Case.build()
    figure, (top, middle, bottom) = axes(1.9, 1.5, 1.8, sharex=True)
    _realized_shares(data, top, case)
    _shares_outside(data, middle, case)
    _errors_in_fp32(data, bottom, case)
    return figure


def _realized_shares(data: Data, axis: Any, case: _Case) -> None:
    """Realized share of a residual: the library's edit, the raw key's, and the latter projected."""
    P, K, ratios, beta = case.P, case.K, case.ratios, case.beta
    line = case.line
    limit = tolerance(1, 1, EPS64) * (1 + ratios)
    half = suppression.projected_attenuation(P, case.V[:, 0], beta)
    axis.axhline(half, color=BLACK, label=r"$\|Pk\|^2/(\beta+\|Pk\|^2)$ (35)")
    theory = np.array([suppression.projected_attenuation(P, k, beta) for k in K.T])
    realized = np.sum(case.library * K.T, 1)
    data.points(axis, "library", ratios, theory, realized, "equal", limit, color=BLUE)
    axis.semilogx(line, 1 - 1 / (2 + line**2), "--", color=RED)
    edits = [suppression.raw_key_edit(k, np.ones(1), beta) for k in K.T]
    realized = np.sum(case.raw * K.T, 1)
    theory = np.array([float(np.sum(D @ k)) for D, k in zip(edits, K.T, strict=True)])
    data.points(axis, "raw key (31)", ratios, theory, realized, "equal", limit, color=RED, marker="x")
    axis.semilogx(line, 1 / (2 + line**2), "--", color=ORANGE)
    realized = np.sum((case.raw @ P) * K.T, 1)
    theory = np.array([float(np.sum(D @ P @ k)) for D, k in zip(edits, K.T, strict=True)])
    data.points(
        axis,
        "raw key, then projected",
        ratios,
        theory,
        realized,
        "equal",
        limit * (1 + ratios),
        color=ORANGE,
        marker="+",
    )
    axis.set(ylabel=r"realized share $\eta$", ylim=(-0.05, 1.1))
    legend_above(axis, 2)


def _shares_outside(data: Data, axis: Any, case: _Case) -> None:
    """Share of the edit's norm outside range(P)."""
    P, ratios, line = case.P, case.ratios, case.line
    raw, library = (
        np.linalg.norm(q - q @ P, axis=1) / np.linalg.norm(q, axis=1) for q in (case.raw, case.library)
    )
    axis.loglog(line, line / np.sqrt(1 + line**2), "--", color=RED)
    theory = ratios / np.sqrt(1 + ratios**2)
    limit = tolerance(1, 1, EPS64) / theory
    data.points(axis, "outside, raw key", ratios, theory, raw, "equal", limit, color=RED, marker="x")
    rank = case.V.shape[1]
    data.points(axis, "outside, library", ratios, tolerance(1, rank, EPS64), library, "below", color=BLUE)
    axis.set(ylabel="share written\noutside range($P$)", ylim=(1e-17, 10))
    axis.set_yticks([1e-16, 1e-12, 1e-8, 1e-4, 1])


def _errors_in_fp32(data: Data, axis: Any, case: _Case) -> None:
    """Error of the edit in fp32: the published system in key space, and coordinates of the null space."""
    ratios, beta = case.ratios, case.beta
    single = Projected(case.C, beta, keep=0.5, dtype=torch.float32)
    P32 = single.basis @ single.basis.T
    exact = np.stack([suppression.coordinates_edit(case.V, k, np.ones(1), beta)[0] for k in case.K.T])
    published, library = [], []
    for k in torch.from_numpy(case.K.T).float():
        system = torch.outer(k, k) @ P32 + beta * torch.eye(len(k))
        published.append(torch.linalg.solve(system.T, P32 @ k).double().numpy())
        library.append(single.channel(k[:, None]).double().numpy()[:, 0])
    size = np.linalg.norm(exact, axis=1)
    shipped, coordinates = (np.linalg.norm(np.stack(q) - exact, axis=1) / size for q in (published, library))
    limit = 8 * EPS32 * (1 + ratios)
    axis.loglog(ratios, limit, color=BLACK, lw=0.8, label=r"$8\,e\,(1+\|(I-P)k\|/\|Pk\|)$")
    data.points(axis, "projector in key space, fp32", ratios, limit, shipped, "shown", color=RED, marker="s")
    data.points(axis, "null-space coordinates, fp32", ratios, limit, coordinates, "below", color=BLUE)
    axis.set(xlabel=r"$\|(I-P)k\|\,/\,\|Pk\|$", ylabel="relative error\nof the edit", ylim=(1e-7, 1e3))
    axis.legend(loc="upper left")


@shows(
    "P15",
    models=("demo-llama",),
    caption="Distance of ridge's edit with geometry beta I + t (I - P) from AlphaEdit's, relative to it, for the key of a fact on the null space of a demo model: the closed form, "
    "and its rate 1/t (dotted).",
)
def projection_limit(data: Data) -> Any:
    """Figure of P15: distance of a ridge's edit from AlphaEdit's over the penalty on the complement.

    Args:
        data: table to which the points are added.

    Returns:
        The figure.
    """
    layer, beta = measured("demo-llama" if "demo-llama" in available() else "demo"), 1.0
    projected = Projected(layer.moment, beta, keep=0.5)
    V = projected.basis
    outside = torch.eye(len(V), dtype=torch.float64) - V @ V.T
    K = layer.keys[:, :1].double()
    limit = projected.channel(K)
    inner, outer = float((V.T @ K).norm() ** 2), float((outside @ K).norm() ** 2)
    A = 1 + inner / beta
    size = np.sqrt(outer + (outer / (A * beta)) ** 2 * inner) / float(limit.norm())

    def distance(t: Array) -> Array:
        return np.asarray(size / (A * (t + beta + outer / A)), np.float64)

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
