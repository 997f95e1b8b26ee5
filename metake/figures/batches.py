"""Theorem 1 in figures: several edits at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from metake.figures.core import Data, axes, legend_above, shows
from metake.figures.measured import geometry, measured
from metake.figures.numbers import EPS64, Array
from metake.geometry.operator import Fit, Ridge
from metake.report.figures import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY
from theory import suppression


def _keys_with_gram(L: Array, S: Array) -> Tensor:
    """Keys `L M` with `M^T M = S`, whose Gram matrix in the geometry `G = L L^T` is S; `d_k x n`."""
    return torch.from_numpy(L[:, : len(S)] @ np.linalg.cholesky(S).T)


def _retention(operator: Ridge, K: Tensor, fit: Fit = "least_squares") -> Array:
    """B of the library: what each edit realizes of each residual, `n x n`."""
    retained: Array = (K.T @ operator.channel(K, fit)).numpy()
    return retained


@shows(
    "X2",
    "X3",
    "P4",
    caption="Two edits of rho = 1 whose keys become parallel (top), and a batch of keys that overlap (middle): what an "
    "edit keeps of its own residual, what it takes of a neighbor's. Dotted: what a lone edit keeps. Asking for more, R B^-1, or the exact "
    "fit, realizes all of it. Bottom: no edit keeps more than it would alone; batches of random keys, and eight facts of the demo model at once, at three lengths of the keys.",
)
def crosstalk(data: Data) -> Any:
    """Figure of X2, X3 and P4: what edits of a batch realize of their own residuals and of the others'.

    Args:
        data: table to which the points are added.

    Returns:
        The figure.
    """
    C, weight, beta, G = geometry(1e4)
    operator, L = Ridge(C, weight, beta), np.asarray(np.linalg.cholesky(G), np.float64)
    figure, (top, middle, bottom) = axes(2.0, 1.9, 1.9)
    _two_keys(data, top, operator, L)
    _equal_overlaps(data, middle, operator, L)
    _alone_and_in_a_batch(data, bottom, operator, L)
    return figure


def _two_keys(data: Data, axis: Any, operator: Ridge, L: Array) -> None:
    """Shares over the overlap of two keys; with compensation and with the exact fit."""
    overlap, line = np.linspace(0.01, 0.999, 12), np.linspace(0, 1, 100)
    grams = [np.array([[1, c], [c, 1]]) for c in overlap]
    retained = [_retention(operator, _keys_with_gram(L, S)) for S in grams]
    theory = [suppression.retention(S) for S in grams]
    curve = [suppression.retention(np.array([[1, c], [c, 1]])) for c in line]
    # cond(S) enters where S itself is inverted; the placed keys have the Gram matrix S to rounding by cond(G)
    limit = suppression.rounding_bound(EPS64, 1e4)
    for j, name, color in ((0, "keeps", BLUE), (1, "takes", RED)):
        axis.plot(line, [B[0, j] for B in curve], color=color)
        data.points(
            axis,
            f"B_1{j + 1}",
            overlap,
            [B[0, j] for B in theory],
            [B[0, j] for B in retained],
            "equal",
            limit / overlap,
            color=color,
            label=f"{name}, $B_{{1{j + 1}}}$",
        )
    inverse = limit * np.array([np.linalg.cond(S) for S in grams])
    compensated = [
        suppression.compensated_residuals(S, np.eye(2)) @ B for S, B in zip(grams, retained, strict=True)
    ]
    exact = [_retention(operator, _keys_with_gram(L, S), "equality_constrained") for S in grams]
    for name, whole, marker, color in (
        ("compensated", compensated, "+", GREEN),
        ("exact fit", exact, "x", ORANGE),
    ):
        share = [B[0, 0] for B in whole]
        data.points(axis, name, overlap, 1.0, share, "equal", inverse, marker=marker, color=color)
    axis.axhline(0.5, ls=":", lw=0.7, color=BLACK)
    axis.set(
        xlabel=r"overlap $S_{12}$ of two keys, $\rho=1$", ylabel="share of a residual", ylim=(-0.05, 1.1)
    )
    legend_above(axis, 2)


def _equal_overlaps(data: Data, axis: Any, operator: Ridge, L: Array) -> None:
    """Shares over the number of edits whose keys overlap pairwise alike."""
    limit = suppression.rounding_bound(EPS64, 1e4)
    sizes = np.array([1, 2, 4, 8, 16, 32, 64])
    for share, color, marker in ((0.1, SKY, "s"), (0.3, PURPLE, "o"), (0.8, RED, "D")):
        grams = [(1 - share) * np.eye(n) + share for n in sizes]
        retained = [_retention(operator, _keys_with_gram(L, S)) for S in grams]
        theory = [suppression.retention(S) for S in grams]
        for (i, j), skip, style in (((0, 0), 0, "-"), ((0, -1), 1, "--")):
            line = np.array([B[i, j] for B in theory[skip:]])
            axis.plot(sizes[skip:], line, style, color=color)
            data.points(
                axis,
                f"{'B_ij' if skip else 'B_jj'}, overlap {share}",
                sizes[skip:],
                line,
                [B[i, j] for B in retained[skip:]],
                "equal",
                limit / np.abs(line),
                color=color,
                marker=marker,
                label="" if skip else f"overlap {share}",
            )
    axis.axhline(0.5, ls=":", lw=0.7, color=BLACK)
    axis.annotate("keeps, $B_{jj}$", (1.05, 0.52), fontsize=7)
    axis.annotate("takes, $B_{ij}$ (dashed)", (6.5, 0.13), fontsize=7)
    axis.set(xscale="log", xlabel="edits in the batch", ylabel="share of a residual", ylim=(-0.02, 0.6))
    axis.set_xticks(sizes, [str(n) for n in sizes])
    axis.minorticks_off()
    legend_above(axis, 3)


def _alone_and_in_a_batch(data: Data, axis: Any, operator: Ridge, L: Array) -> None:
    """Share of an edit in a batch relative to the edit alone, over the latter."""
    rng = np.random.default_rng(0)
    d = len(L)
    batches = [
        torch.from_numpy(L @ (rng.standard_normal((d, n)) * 10 ** rng.uniform(-2, 1, n) / d**0.5))
        for n in (2, 8, 32, 128)
    ]
    facts = [measured("demo").keys.double() * factor for factor in (0.3, 1, 3)]
    for name, keys, line_style in (
        ("random keys", batches, {"marker": ".", "color": SKY}),
        ("facts (demo)", facts, {"marker": "D", "color": GREEN}),
    ):
        alone = np.concatenate([operator.attenuation(K).numpy() for K in keys])
        together = np.concatenate([np.diag(_retention(operator, K)) for K in keys])
        limit = suppression.rounding_bound(EPS64, 1e4)
        data.points(axis, name, alone, 1.0, together / alone, "below", limit, **line_style)
    axis.axhline(1, color=BLACK)
    axis.set(
        xscale="log",
        xlabel=r"keeps alone, $\eta_j$",
        ylabel=r"in a batch / alone, $B_{jj}/\eta_j$",
        ylim=(0.8, 1.01),
    )
    axis.legend(loc="lower left")


@shows(
    "X13",
    caption="The mean of what an edit realizes of its residual, if all edits remember each other's keys, against the number of edits "
    "over the dimension of the key: random keys with a demo model's covariance (its 128 strongest directions), under three strengths of the constraint. Beyond one edit per "
    "dimension no constraint is weak enough: together they keep less than d_k (black). Crosses: single edits, the library's operator with all other keys in its memory.",
)
def room(data: Data) -> Any:
    """Figure of X13: mean attenuation of edits that remember each other's keys, over their number.

    Args:
        data: table to which the points are added.

    Returns:
        The figure.
    """
    C = torch.diag(torch.linalg.eigvalsh(measured("demo").moment.double())[-128:])
    d = len(C)
    load = np.array([1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4])
    sizes = (load * d).astype(int)
    draws = np.random.default_rng(0).standard_normal((d, sizes[-1]))
    keys = C.sqrt() @ torch.from_numpy(draws)
    figure, axis = axes(2.4)
    axis.loglog(load, [suppression.room_bound(n, d) for n in sizes], color=BLACK, label=r"$\min(1, d_k/n)$")
    for weight, color, marker in ((3.0, GREEN, "D"), (100.0, BLUE, "o"), (1000.0, ORANGE, "s")):
        _room_under(data, axis, C, keys, load, weight, color, marker)
    axis.set(
        xlabel=r"edits per dimension of the key, $n/d_k$", ylabel=r"mean attenuation $\eta$", ylim=(0.01, 1.3)
    )
    legend_above(axis, 2)
    return figure


def _room_under(
    data: Data, axis: Any, C: Tensor, keys: Tensor, load: Array, weight: float, color: str, marker: str
) -> None:
    """Mean attenuation over `load`, edits per dimension, under one strength of the constraint."""
    d = len(C)
    sizes = (load * d).astype(int)
    beta = weight * float(C[-1, -1]) / 1e4
    operator, limit = Ridge(C, weight, beta), suppression.rounding_bound(EPS64, 1e4)
    whitened = np.linalg.solve(np.linalg.cholesky(weight * C.numpy() + beta * np.eye(d)), keys.numpy())
    etas, theory = [], []
    for n in sizes:
        K, W = keys[:, :n], whitened[:, :n]
        etas.append((K * operator.channel(K)).sum(0).numpy())
        S = W.T @ W if n < d else W @ W.T  # the same eigenvalues above 0
        theory.append(suppression.room(S) / n)
    name = rf"$\lambda={weight:.0f}$"
    axis.loglog(load, theory, color=color, lw=0.8)
    means = [eta.mean() for eta in etas]
    data.points(axis, name, load, theory, means, "equal", limit * sizes, color=color, marker=marker)
    data.add(f"{name}, room", load, [suppression.room_bound(n, d) for n in sizes], theory, "below", limit)
    for n, entries in zip(sizes[:5:2], etas[:5:2], strict=True):
        some = np.arange(3)
        others = [operator.with_past(torch.cat([keys[:, :j], keys[:, j + 1 : n]], 1)) for j in some]
        last = [float(other.attenuation(keys[:, [j]])) for other, j in zip(others, some, strict=True)]
        series, x = f"{name}, behind all others", [n / d] * len(some)
        line_style = {"color": color, "marker": "x", "label": ""}
        data.points(axis, series, x, entries[some], last, "equal", limit * n, **line_style)
