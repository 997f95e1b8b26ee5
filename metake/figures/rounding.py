"""Theorem 1 in figures: finite precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from flint import fmpq, fmpq_mat
from numpy.typing import NDArray

from metake.figures.core import BLACK, BLUE, EPS32, EPS64, GREEN, ORANGE, Data, axes, shows
from metake.figures.numbers import basis
from metake.geometry.operator import Ridge
from theory import suppression

Array = NDArray[np.float64]


def _exact_eta(G: Array, k: Array, past: Array | None = None) -> float:
    """eta in rational arithmetic, of floating-point entries as they are."""

    def exact(X: Array) -> fmpq_mat:
        return fmpq_mat(X.shape[0], X.shape[1], [fmpq(*float(v).as_integer_ratio()) for v in X.flatten()])

    system = exact(G)
    if past is not None:
        system = system + exact(past) * exact(past).transpose()
    key = exact(k[:, None])
    rho = (key.transpose() * system.solve(key))[0, 0]
    eta = rho / (1 + rho)
    return int(eta.p) / int(eta.q)


@shows(
    "X4",
    caption="Largest relative error of eta over 24 geometries with one small eigenvalue, keys along it, against exact rational "
    "arithmetic: Cholesky and Woodbury with keys remembered (both the library's), and a dense solve of G + k k^T. Lines: 8 e cond(G). "
    "The error grows with the condition number as the bound does; the constant that is met is 8 times the share of the bound.",
)
def rounding(data: Data) -> Any:
    n, draws = 6, 24
    figure, axis = axes(2.5)
    rng = np.random.default_rng(0)
    looks = {"Cholesky": ("o", BLUE, 5), "Woodbury": ("x", ORANGE, 4), "dense": ("+", GREEN, 4)}
    for dtype, eps, precision in ((torch.float64, EPS64, "fp64"), (torch.float32, EPS32, "fp32")):
        reach = 10.0 ** np.arange(1, 13)
        reach = reach[reach * eps < 0.02]
        worst: dict[str, list[float]] = {name: [] for name in looks}
        for condition in reach:
            errors: dict[str, list[float]] = {name: [] for name in looks}
            for seed in range(1, draws + 1):
                U = basis(n, seed)
                G = torch.from_numpy((U * np.append(1 / condition, np.ones(n - 1))) @ U.T).to(dtype)
                G = (G + G.T) / 2
                k = torch.from_numpy(U[:, 0] * 0.1 / np.sqrt(condition)).to(
                    dtype
                )  # small: eta near 1 forgives
                past = torch.from_numpy(rng.standard_normal((n, 2)) * 0.1 / np.sqrt(condition)).to(dtype)
                plain = _exact_eta(G.double().numpy(), k.double().numpy())
                held = _exact_eta(G.double().numpy(), k.double().numpy(), past.double().numpy())
                dense = k @ torch.linalg.solve(G + torch.outer(k, k), k)
                seen = {
                    "Cholesky": (Ridge(G, 1.0, dtype=dtype).attenuation(k[:, None]), plain),
                    "Woodbury": (Ridge(G, 1.0, past=past, dtype=dtype).attenuation(k[:, None]), held),
                    "dense": (dense, plain),
                }
                for name, (value, truth) in seen.items():
                    errors[name].append(abs(float(value) - truth) / truth)
            for name, values in errors.items():
                worst[name].append(max(values))
        bound = np.array([suppression.rounding_bound(eps, condition) for condition in reach])
        axis.loglog(
            reach,
            bound,
            color=BLACK,
            lw=0.8,
            label=r"$8\,e\,\mathrm{cond}(G)$" if precision == "fp64" else "",
        )
        axis.annotate(
            precision, (reach[-1], bound[-1]), xytext=(-6, 4), textcoords="offset points", ha="right"
        )
        for name, (marker, color, size) in looks.items():
            data.points(
                axis,
                f"{name}, {precision}",
                reach,
                bound,
                worst[name],
                "below",
                marker=marker,
                color=color,
                ms=size,
                label=name if precision == "fp64" else "",
            )
    axis.set(
        xlabel=r"condition number $\mathrm{cond}(G)$", ylabel=r"relative error of $\eta$", ylim=(1e-17, 30)
    )
    axis.legend(loc="lower right")
    return figure
