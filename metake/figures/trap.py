"""Theorem 2 in figures."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.patches import Ellipse
from scipy.optimize import brentq

from metake.figures.core import Data, axes, legend_above, shows
from metake.figures.numbers import EPS64, Array, tolerance
from metake.geometry.operator import Ridge
from metake.report.figures import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY
from theory import trap


def _turn(degrees: float) -> Array:
    """Rotation by an angle, `2 x 2`."""
    t = np.deg2rad(degrees)
    return np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])


U = _turn(20)  # u_min and u_max, away from the axes of the coordinates


def _tilted(*mu: float) -> Array:
    """Matrix with eigenvalues `mu` along the columns of U, `2 x 2`."""
    matrix: Array = (U * np.array(mu)) @ U.T
    return matrix


def _stretched(condition: float, degrees: float) -> Array:
    """Matrix with eigenvalues 1 and `condition`, its axes turned by an angle; `2 x 2`."""
    matrix: Array = (_turn(degrees) * np.array([1.0, condition])) @ _turn(degrees).T
    return matrix


def _step(F: Array, lam: float, g: Array) -> Array:
    """`-(lam F)^-1 g`, the minimizer under the penalty `lam/2 delta^T F delta`, by the library's ridge."""
    solved: Array = Ridge(torch.from_numpy(F), lam).solve(torch.from_numpy(g[:, None])).numpy()[:, 0]
    return -solved


def _size(delta: Array, H: Array) -> float:
    """`sqrt(delta^T H delta)`, at most tau for a displacement within E(tau)."""
    return float(np.sqrt(delta @ H @ delta))


@shows(
    "L2",
    caption="Top: the largest ball within and the smallest ball around a feasible ellipsoid, kappa = 9. Bottom: the ratio of their "
    "radii over eight decades; points: from the library's estimate of its geometry's condition.",
)
def ball_ellipsoid(data: Data) -> Any:
    """Figure of L2: balls within and around a feasible ellipsoid.

    Args:
        data: table to which the points are added.

    Returns:
        The figure.
    """
    figure, (top, bottom) = axes(2.1, 2.0)
    tau, mu = 1.0, (0.25, 2.25)
    outer, inner = trap.circumscribed_radius(mu[0], tau), trap.inscribed_radius(mu[1], tau)
    top.add_patch(Ellipse((0, 0), 2 * outer, 2 * inner, fc=SKY, alpha=0.35, ec=BLACK, lw=0.8))
    for r, color, style, angle, label in (
        (inner, GREEN, "-", 50, r"$\tau/\sqrt{\mu_{\max}}$"),
        (outer, RED, "--", 35, r"$\tau/\sqrt{\mu_{\min}}$"),
    ):
        top.add_patch(Ellipse((0, 0), 2 * r, 2 * r, fill=False, ec=color, ls=style))
        end = r * _turn(angle)[:, 0]
        top.annotate(
            "",
            end,
            (0, 0),
            arrowprops={"arrowstyle": "->", "color": color, "shrinkA": 0, "shrinkB": 0, "lw": 0.8},
        )
        at = (-0.35, 1.0) if r == inner else (1.75, 1.35)
        top.annotate(label, at, color=color, ha="center" if r == inner else "left")
    top.annotate(r"$E(\tau)$", (-1.2, 0), va="center", ha="center")
    top.set(
        xlim=(-3.1, 3.1),
        ylim=(-2.15, 2.15),
        aspect="equal",
        xlabel=r"displacement along $u_{\min}$",
        ylabel=r"along $u_{\max}$",
    )
    kappa = np.logspace(0, 8, 17)
    line = [trap.mismatch(x) for x in kappa]
    measured = [np.sqrt(Ridge(torch.from_numpy(_tilted(1, x)), 1.0).condition) for x in kappa]
    bottom.loglog(kappa, line, color=BLACK, label=r"$\sqrt{\kappa}$")
    data.points(bottom, "library", kappa, line, measured, "equal", tolerance(1, 2) * kappa, color=BLUE)
    bottom.set(xlabel=r"condition number $\kappa$ of $H$", ylabel="outer / inner radius")
    bottom.legend(loc="upper left")
    return figure


def _served(data: Data, axis: Any, theta: float, a: float, b: float, tau: float) -> None:
    """Which penalties let the easy request progress and keep the hard one feasible, on a grid."""
    found: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for kappa in np.logspace(0.13, 3.8, 13):
        H, interval = _tilted(1, kappa), trap.shared_penalties(a, b, theta, kappa, tau)
        for lam in np.logspace(-0.85, 2.75, 13):
            easy, hard = (_step(np.eye(2), lam, g) for g in (-a * U[:, 0], -b * U[:, 1]))
            served = bool(np.linalg.norm(easy) >= theta and _size(hard, H) <= tau)
            expected = interval.lower <= lam <= interval.upper
            data.add(f"served at kappa {kappa:.3g} (1 no, 2 yes)", lam, 1 + expected, 1 + served, "equal")
            found[served].append((kappa, lam))
    for served, line_style in (
        (True, {"color": GREEN}),
        (False, {"color": BLACK, "mfc": "none", "mew": 0.5}),
    ):
        axis.plot(*np.array(found[served]).T, "o", ms=2.6, **line_style)


def _window(theta: float, F: Array, H: Array, tau: float, mu: tuple[float, float]) -> list[float]:
    """Edges of the b/a that some penalty serves: both requests safe, both at theta of their limit."""

    def lacks(ratio: float, which: int) -> float:
        """How much one request lacks when the other one is just safe; the penalty is found, not given."""
        requests = (-U[:, 0], -ratio * U[:, 1])
        lam = max(_size(_step(F, 1.0, g), H) for g in requests) / tau
        delta = _step(F, lam, requests[which])
        return float(np.log(np.linalg.norm(delta) * np.sqrt(mu[which]) / (theta * tau)))

    # a hard gradient that is too small does not move, one that is too large holds back the easy request
    return [10 ** brentq(lambda x, which=which: lacks(10.0**x, which), -9, 9, xtol=1e-12) for which in (1, 0)]


@shows(
    "T2b",
    "T2c",
    "X6",
    caption="Top: penalties that serve an easy and a hard request with equal gradients (theta = 0.1, mu_min = tau = 1). "
    "Lines: the two demands; filled points: both requests served by the library's step, open: not. Beyond kappa = theta^-2 no penalty is "
    "left. Bottom (theta = 0.5): the window of b/a in which one penalty keeps each request safe and brings it to theta of its own limit, for three "
    "regularizers: moved, never widened; points: the edges found by bisection through the library. An aligned trust region serves every b/a (crosses).",
)
def the_trap(data: Data) -> Any:
    """Figure of T2b, T2c and X6: penalties that serve two requests.

    Args:
        data: table to which the points are added.

    Returns:
        The figure.
    """
    figure, (top, bottom) = axes(2.3, 2.5)
    _penalties(data, top, theta=0.1)
    _windows(data, bottom, theta=0.5)
    _aligned_region(data, bottom, theta=0.5)
    bottom.set(
        xscale="log",
        yscale="log",
        xlabel=r"condition number $\kappa$",
        ylabel=r"hard / easy gradient $b/a$",
        ylim=(2e-5, 5e4),
    )
    legend_above(bottom, 4)
    bottom.get_legend().set(loc="lower right", bbox_to_anchor=(1.02, 1.0))
    return figure


def _penalties(data: Data, axis: Any, theta: float) -> None:
    """Penalties that serve both requests, over the condition number."""
    a = b = tau = 1.0
    kappa = np.logspace(0, 4, 300)
    safe = np.array([trap.shared_penalties(a, b, theta, k, tau).lower for k in kappa])
    progress = trap.shared_penalties(a, b, theta, 1.0, tau).upper
    axis.loglog(kappa, safe, color=BLUE, label=r"safe: $\lambda\geq b\sqrt{\mu_{\max}}/\tau$")
    axis.axhline(progress, color=RED, label=r"progress: $\lambda\leq a/\Delta$")
    axis.fill_between(kappa, safe, progress, where=safe <= progress, color=GREEN, alpha=0.2, lw=0)
    _served(data, axis, theta, a, b, tau)
    axis.axvline(theta**-2, color=BLACK, ls=":", lw=0.8)
    axis.annotate(r"$\kappa=\theta^{-2}$", (theta**-2 * 1.15, 0.055))
    axis.set(xlabel=r"condition number $\kappa$", ylabel=r"penalty $\lambda$", ylim=(0.04, 2e3))
    legend_above(axis, 2)


def _windows(data: Data, axis: Any, theta: float) -> None:
    """Windows of b/a under three regularizers, and their edges found through the library."""
    kappa, few = np.logspace(0, 4, 300), np.logspace(0.25, 3.75, 8)
    for p, name, color in ((0.0, "$F=I$", BLUE), (0.5, "$F=H^{1/2}$", GREEN), (1.0, "$F=H$", ORANGE)):
        band = np.array([trap.two_sided_window(theta, k, 1.0, k**p) for k in kappa])
        axis.fill_between(kappa, *band.T, color=color, alpha=0.35, lw=0, label=name)
        edges = np.array([_window(theta, _tilted(1, k**p), _tilted(1, k), 1.0, (1, k)) for k in few])
        theory = np.array([trap.two_sided_window(theta, k, 1.0, k**p) for k in few])
        for i, side in enumerate(("lower", "upper")):
            data.points(
                axis,
                f"{side} edge, F = H^{p:g}",
                few,
                theory[:, i],
                edges[:, i],
                "equal",
                tolerance(1, 2) * few**2 + 1e-11,
                color=color,
                ms=2.4,
                label="",
            )


def _aligned_region(data: Data, axis: Any, theta: float) -> None:
    """Two requests of any b/a under a trust region that is aligned with H."""
    tau = 1.0
    radius = np.sqrt(theta) * tau  # any in [theta tau, tau]
    for k in np.logspace(0.5, 3.5, 4):
        H = _tilted(1, k)
        for ratio in 10.0 ** np.arange(-4, 5, 2):
            for g, mu in ((-U[:, 0], 1.0), (-ratio * U[:, 1], k)):
                delta = _step_to_boundary(g, H, radius)
                size, limit = np.linalg.norm(delta), 1e-11 + tolerance(k, 2)
                aligned = np.linalg.norm(trap.aligned_displacement(g, H, radius))
                data.add("aligned region, step", ratio, aligned, size, "equal", limit)
                data.add("aligned region, safe", ratio, tau, _size(delta, H), "below")
                data.add("aligned region, progress", ratio, theta, size * np.sqrt(mu) / tau, "above")
            axis.plot(k, ratio, "+", color=PURPLE, ms=4.5)
    axis.plot([], [], "+", color=PURPLE, ms=4.5, label="aligned region")


def _step_to_boundary(g: Array, H: Array, radius: float) -> Array:
    """The library's step under the penalty for which it ends on the boundary of the trust region."""
    log_penalty = brentq(lambda x: _size(_step(H, 10.0**x, g), H) - radius, -9, 9, xtol=1e-13)
    return _step(H, 10**log_penalty, g)


@shows(
    "X5",
    caption="Mismatch between KL's ellipsoid and the feasible one as their axes turn apart, of conditions c_F and c_H. Bars at the "
    "sides: the bounds, attained where the axes agree and where they are crossed; dotted: the mismatch of a plain ball, sqrt(c_H). Below it KL helps; crossed it is "
    "worse than a ball by sqrt(c_F), and with c_F = c_H^2 it does not help even where the axes agree.",
)
def kl_mismatch(data: Data) -> Any:
    """Figure of X5: mismatch between KL's ellipsoid and the feasible one.

    Args:
        data: table to which the points are added.

    Returns:
        The figure.
    """
    figure, axis = axes(2.7)
    degrees, line = np.linspace(0, 90, 19), np.linspace(0, 90, 361)
    cases: list[tuple[float, float, str, str]] = [
        (1e1, 1e1, GREEN, "o"),
        (1e2, 1e2, BLUE, "s"),
        (1e4, 1e2, PURPLE, "D"),
        (1e4, 1e4, ORANGE, "^"),
    ]
    for c_f, c_h, color, marker in cases:
        H = np.diag([1.0, c_h])
        F = partial(_stretched, c_f)
        axis.semilogy(line, [trap.kl_mismatch(F(x), H) for x in line], color=color)
        pencils = [Ridge(torch.from_numpy(F(x)), 1.0).solve(torch.from_numpy(H)).numpy() for x in degrees]
        values = np.array([np.sort(np.linalg.eigvals(pencil).real) for pencil in pencils])
        measured = np.sqrt(values[:, 1] / values[:, 0])
        low, high = np.sqrt(trap.relative_condition_bounds(c_f, c_h))
        name = f"c_F {c_f:g}, c_H {c_h:g}"
        limit = tolerance(c_f * c_h, 2, EPS64)
        data.points(
            axis,
            name,
            degrees,
            [trap.kl_mismatch(F(x), H) for x in degrees],
            measured,
            "equal",
            limit,
            color=color,
            marker=marker,
            label=rf"$10^{np.log10(c_f):.0f},\,10^{np.log10(c_h):.0f}$",
        )
        data.add(f"lower bound, {name}", degrees, low, measured, "above", limit)
        data.add(f"upper bound, {name}", degrees, high, measured, "below", limit)
        axis.plot([-4, 94], [low, high], ls="", marker="_", color=color, ms=7, mew=1.4)
        axis.axhline(trap.mismatch(c_h), color=color, ls=":", lw=0.8)
    axis.set(
        xlabel="angle between the axes of $F$ and $H$ (degrees)",
        ylabel="mismatch of the ellipsoids",
        xlim=(-7, 97),
    )
    axis.set_xticks([0, 30, 60, 90])
    legend_above(axis, 4)
    axis.get_legend().set(title="$c_F,\\,c_H$")
    return figure
