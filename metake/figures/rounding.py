"""Theorem 1 in figures: finite precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from flint import fmpq, fmpq_mat

from metake.figures.core import Data, axes, shows
from metake.figures.numbers import EPS32, EPS64, Array, basis
from metake.geometry.operator import Ridge
from metake.report.figures import BLACK, BLUE, GREEN, ORANGE
from theory import suppression


def _exact_eta(G: Array, k: Array, past: Array | None = None) -> float:
    """Attenuation eta in rational arithmetic, from the exact values of the floating-point entries."""

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
    """Figure of X4: relative error of eta over the condition number.

    Args:
        data: table to which the points are added.

    Returns:
        The figure.
    """
    figure, axis = axes(2.5)
    rng = np.random.default_rng(0)
    line_styles = {"Cholesky": ("o", BLUE, 5), "Woodbury": ("x", ORANGE, 4), "dense": ("+", GREEN, 4)}
    for dtype, eps, precision in ((torch.float64, EPS64, "fp64"), (torch.float32, EPS32, "fp32")):
        reach = 10.0 ** np.arange(1, 13)
        reach = reach[reach * eps < 0.02]
        worst = [_worst_errors(condition, dtype, rng) for condition in reach]
        bound = np.array([suppression.rounding_bound(eps, condition) for condition in reach])
        first = precision == "fp64"
        label = r"$8\,e\,\mathrm{cond}(G)$" if first else ""
        axis.loglog(reach, bound, color=BLACK, lw=0.8, label=label)
        axis.annotate(
            precision, (reach[-1], bound[-1]), xytext=(-6, 4), textcoords="offset points", ha="right"
        )
        for name, (marker, color, size) in line_styles.items():
            line_style: dict[str, Any] = {
                "marker": marker,
                "color": color,
                "ms": size,
                "label": name if first else "",
            }
            errors = [of[name] for of in worst]
            data.points(axis, f"{name}, {precision}", reach, bound, errors, "below", **line_style)
    axis.set(
        xlabel=r"condition number $\mathrm{cond}(G)$", ylabel=r"relative error of $\eta$", ylim=(1e-17, 30)
    )
    axis.legend(loc="lower right")
    return figure


def _worst_errors(
    condition: float, dtype: torch.dtype, rng: np.random.Generator, size: int = 6, draws: int = 24
) -> dict[str, float]:
    """Largest relative error of eta per way to compute it, over random geometries of one condition number.

    Args:
        condition: condition number; one eigenvalue is small, and the key lies along it.
        dtype: precision.
        rng: generator of the keys that are remembered.
        size: dimension of the key.
        draws: number of geometries.

    Returns:
        Cholesky and Woodbury are the library's, the latter with remembered keys; `dense` solves `G + k k^T`.
    """
    errors: dict[str, list[float]] = {"Cholesky": [], "Woodbury": [], "dense": []}
    for seed in range(1, draws + 1):
        U = basis(size, seed)
        G = torch.from_numpy((U * np.append(1 / condition, np.ones(size - 1))) @ U.T).to(dtype)
        G = (G + G.T) / 2
        # short keys: eta near 1 is insensitive to rounding
        k = torch.from_numpy(U[:, 0] * 0.1 / np.sqrt(condition)).to(dtype)
        past = torch.from_numpy(rng.standard_normal((size, 2)) * 0.1 / np.sqrt(condition)).to(dtype)
        plain = _exact_eta(G.double().numpy(), k.double().numpy())
        held = _exact_eta(G.double().numpy(), k.double().numpy(), past.double().numpy())
        for name, value, exact in (
            ("Cholesky", Ridge(G, 1.0, dtype=dtype).attenuation(k[:, None]), plain),
            ("Woodbury", Ridge(G, 1.0, past=past, dtype=dtype).attenuation(k[:, None]), held),
            ("dense", k @ torch.linalg.solve(G + torch.outer(k, k), k), plain),
        ):
            errors[name].append(abs(float(value) - exact) / exact)
    return {name: max(values) for name, values in errors.items()}
