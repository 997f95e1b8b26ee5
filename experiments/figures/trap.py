"""Theorem 2 in figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.patches import Ellipse

from experiments.figures.core import BLACK, BLUE, GREEN, ORANGE, RED, SKY, Data, axes, shows
from metake.geometry.operator import Ridge
from theory import trap


def _solve(A: np.ndarray, lam: float, g: np.ndarray) -> np.ndarray:
    """`(A + lam I)^-1 g` by the library's ridge."""
    operator = Ridge(torch.from_numpy(np.ascontiguousarray(A)), 1.0, lam)
    return operator.solve(torch.from_numpy(g[:, None].copy())).numpy()[:, 0]


@shows("L2", caption="Top: the largest ball within and the smallest ball around a feasible ellipsoid, kappa = 9. Bottom: the ratio of their radii "
       "over eight decades; points from the condition estimate of the library's geometry.")  # fmt: skip
def ball_ellipsoid(data: Data) -> Any:
    figure, (top, bottom) = axes(2, 2.0)
    tau, mu = 1.0, (0.25, 2.25)
    outer, inner = trap.circumscribed_radius(mu[0], tau), trap.inscribed_radius(mu[1], tau)
    top.add_patch(Ellipse((0, 0), 2 * outer, 2 * inner, fc=SKY, alpha=0.35, ec=BLACK, lw=0.8))
    for r, colour, style in ((inner, GREEN, "-"), (outer, RED, "--")):
        top.add_patch(Ellipse((0, 0), 2 * r, 2 * r, fill=False, ec=colour, ls=style))
    top.annotate(r"$\tau/\sqrt{\mu_{\max}}$", (0, inner), xytext=(0.25, 1.15), color=GREEN, fontsize=7)
    top.annotate(r"$\tau/\sqrt{\mu_{\min}}$", (outer, 0), xytext=(2.1, 0.1), color=RED, fontsize=7)
    top.annotate(r"$E(\tau)$", (-1.3, 0), va="center")
    top.set(
        xlim=(-3.4, 3.4), ylim=(-2.1, 2.1), aspect="equal", xlabel="along $u_{min}$", ylabel="along $u_{max}$"
    )
    kappa = np.logspace(0, 8, 17)
    measured = []
    for x in kappa:
        angle = 0.3
        U = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        measured.append(np.sqrt(Ridge(torch.from_numpy((U * np.array([1, x])) @ U.T), 1.0).condition))
    bottom.loglog(kappa, [trap.mismatch(x) for x in kappa], color=BLACK, label=r"$\sqrt{\kappa}$")
    bottom.loglog(kappa, measured, "o", color=BLUE, mfc="none", label="library")
    bottom.set(xlabel=r"condition number $\kappa$ of $H$", ylabel="outer / inner radius")
    bottom.legend(loc="upper left")
    data.add("ratio", kappa, [trap.mismatch(x) for x in kappa], measured, "equal", 1e-6)
    return figure


@shows("T2b", "T2c", "X6", caption="Top: penalties that serve an easy and a hard request with equal gradients (theta = 0.1, mu_min = tau = 1). Lines: the "
       "two demands; filled points: both requests served by the library's step, open: not. Beyond kappa = theta^-2 no penalty is left. "
       "Bottom: the window of b/a in which a shared penalty brings each request to theta of its own limit, for three regularisers: moved, never widened; "
       "an aligned trust region has no such window (shaded).")  # fmt: skip
def the_trap(data: Data) -> Any:
    figure, (top, bottom) = axes(2, 2.1)
    a = b = tau = 1.0
    theta = 0.1
    kappa = np.logspace(0, 4, 300)
    safe = np.array([trap.shared_penalties(a, b, theta, k, tau).lower for k in kappa])
    give = trap.shared_penalties(a, b, theta, 1.0, tau).upper
    top.loglog(kappa, safe, color=BLUE, label=r"safe: $\lambda\geq b\sqrt{\mu_{\max}}/\tau$")
    top.axhline(give, color=RED, label=r"progress: $\lambda\leq a/\Delta$")
    top.fill_between(kappa, safe, give, where=safe <= give, color=GREEN, alpha=0.2, lw=0)
    for k in np.logspace(0.2, 3.8, 10):
        H = np.diag([1.0, k])
        interval = trap.shared_penalties(a, b, theta, k, tau)
        for lam in np.logspace(-0.75, 2.75, 8):
            easy, hard = (
                -_solve(np.zeros((2, 2)), lam, g) for g in (np.array([-a, 0.0]), np.array([0.0, -b]))
            )
            served = bool(np.linalg.norm(easy) >= theta and hard @ H @ hard <= tau**2)
            expected = interval.lower <= lam <= interval.upper
            data.add("served", [k], [1 + expected], [1 + served], "equal", 1e-9)
            top.plot(
                k,
                lam,
                "o",
                ms=2.6,
                color=GREEN if served else BLACK,
                mfc=GREEN if served else "none",
                mew=0.6,
            )
    top.axvline(theta**-2, color=BLACK, ls=":", lw=0.8)
    top.annotate(r"$\kappa=\theta^{-2}$", (theta**-2 * 1.1, 0.04), fontsize=7)
    top.set(xlabel=r"condition number $\kappa$", ylabel=r"penalty $\lambda$", ylim=(0.03, 2e4))
    top.legend(loc="upper left", fontsize=6.5, ncols=2, columnspacing=0.8)
    theta = 0.5
    bottom.set_facecolor("#f2f2f2")
    for p, name, colour in ((0.0, "$F=I$", BLUE), (0.5, "$F=H^{1/2}$", GREEN), (1.0, "$F=H$", ORANGE)):
        window = np.array([trap.two_sided_window(theta, k, 1.0, k**p) for k in kappa])
        bottom.fill_between(kappa, window[:, 0], window[:, 1], color=colour, alpha=0.35, lw=0, label=name)
        width = window[:, 1] / window[:, 0]
        data.add(f"width, power {p:g}", kappa[::60], np.full(5, theta**-2), width[::60], "equal", 1e-12)
    for k in (10.0, 100.0, 1000.0):
        for ratio in (1e-3, 1.0, 1e3):
            limits = []
            for g, unit in ((np.array([-1.0, 0.0]), 1.0), (np.array([0.0, -ratio]), k)):
                step = _solve(np.diag([1.0, k]) - 1e-3 * np.eye(2), 1e-3, g)  # H^-1 g
                step = -theta * step / np.sqrt(g @ step)  # on the region's boundary
                limits.append(np.sqrt(step @ np.diag([1.0, k]) @ step) / tau)
                assert np.isclose(np.linalg.norm(step) * np.sqrt(unit), theta)
            data.add("aligned region", [k] * 2, [theta] * 2, limits, "equal", 1e-9)
            bottom.plot(k, ratio, "+", color=BLACK)
    bottom.plot([], [], "+", color=BLACK, label="aligned region, served")
    bottom.set(
        xscale="log",
        yscale="log",
        xlabel=r"condition number $\kappa$",
        ylabel="hard / easy gradient, $b/a$",
        ylim=(1e-4, 1e7),
    )
    bottom.legend(loc="upper center", fontsize=6.5, ncols=2)
    return figure


@shows("X5", caption="Mismatch between KL's ellipsoid and the feasible one as their axes turn apart, both of condition kappa; dotted: that of a ball. "
       "Aligned it is 1; turned by 90 degrees it is kappa, worse than a ball.")  # fmt: skip
def kl_mismatch(data: Data) -> Any:
    figure, axis = axes()
    degrees = np.linspace(0, 90, 19)
    for kappa, colour in ((1e1, GREEN), (1e2, BLUE), (1e4, ORANGE)):
        H = np.diag([1.0, kappa])

        def turned(angle: float, H: np.ndarray = H) -> np.ndarray:
            t = np.deg2rad(angle)
            U = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
            return U @ H @ U.T

        line = np.linspace(0, 90, 181)
        axis.semilogy(line, [trap.kl_mismatch(turned(x), H) for x in line], color=colour)
        measured = []
        for x in degrees:
            pencil = Ridge(torch.from_numpy(turned(x)), 1.0).solve(torch.from_numpy(H)).numpy()
            values = np.sort(np.linalg.eigvals(pencil).real)
            measured.append(np.sqrt(values[-1] / values[0]))
        axis.semilogy(
            degrees, measured, "o", color=colour, mfc="none", label=rf"$\kappa=10^{int(np.log10(kappa))}$"
        )
        axis.axhline(np.sqrt(kappa), color=colour, ls=":", lw=0.8)
        theory = [trap.kl_mismatch(turned(x), H) for x in degrees]
        data.add(f"kappa {kappa:g}", degrees, theory, measured, "equal", 1e-6)
    axis.set(xlabel="angle between the axes of $F$ and $H$ (degrees)", ylabel="mismatch of the ellipsoids")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure
