"""Figures of the theory tab: theory as lines, results of the library as points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from metake.playground.drawing import WIDTH, svg
from metake.playground.steps import number
from metake.playground.theory import D_K, Drift, Requests, Sliders, Suppression, Trap, part
from metake.report.figures import BLACK, BLUE, GREEN, ORANGE, RED, panels

RANGES: dict[str, tuple[float, float]] = {
    "lam": (1e-2, 1e8),
    "norm": (0.01, 100),
    "angle": (0, 90),
    "condition": (1, 1e8),
    "between": (0, 90),
    "residuals": (0, 180),
    "theta": (0.001, 1),
    "ratio": (1e-3, 1e3),
    "penalty": (1e-2, 1e6),
    "key_drift": (1e-4, 1),
}
HOLLOW: dict[str, Any] = {"mfc": "none", "mew": 1.0, "ls": ""}


def _legend(axis: Any, columns: int = 2) -> None:
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, columnspacing=1.0)


def _suppression(s: Sliders, found: Suppression) -> Any:
    figure, (top, bottom) = panels(2, figsize=(WIDTH, 4.6), height_ratios=(3, 2))
    top.semilogx(found.lams, found.bound, "--", color=RED, label="bound (T1b)")
    top.semilogx(found.lams, found.eta, color=BLACK, label=r"theory, $\rho/(1+\rho)$")
    top.plot(found.points[:-1], found.realized[:-1], "o", color=BLUE, label="library", **HOLLOW)
    top.plot(found.points[-1], found.realized[-1], "o", color=BLUE, ms=8, label="library, here")
    top.set(xlabel=r"$\lambda$", ylabel=r"realized share $\eta$", ylim=(-0.03, 1.03))
    _legend(top)
    index, half = np.arange(1, D_K + 1), D_K // 2
    bottom.semilogy(index, s.spectrum, ".", color=BLACK, label="eigenvalues of $C$")
    bottom.axvspan(0.5, half + 0.5, color=RED, alpha=0.1, lw=0, label="protected half")
    bottom.set(xlabel="eigenvector", ylabel="eigenvalue")
    shares = bottom.twinx()
    shares.bar(index, s.coordinates() ** 2 / s.norm**2, color=BLUE, alpha=0.5, label="energy of the key")
    shares.spines["right"].set_visible(True)
    shares.set(ylabel="share of the key", ylim=(0, 0.15))
    handles = [axis.get_legend_handles_labels() for axis in (bottom, shares)]
    bottom.legend(handles[0][0] + handles[1][0], handles[0][1] + handles[1][1], loc="lower center",
                  bbox_to_anchor=(0.5, 1.0), ncols=3, columnspacing=1.0, handlelength=1.2)  # fmt: skip
    return figure


def _requests(_: Sliders, found: Requests) -> Any:
    figure, (top, bottom) = panels(2, figsize=(WIDTH, 4.6), sharex=True)
    grid, last = slice(0, -1), found.degrees[-1]
    top.plot(found.degrees[grid], found.alone[grid], "--", color=RED, label=r"bound: $\eta$ alone (X3)")
    for values, color, marker, label in (
        (found.own, BLUE, "o", "of its own residual"),
        (found.leak, ORANGE, "s", "of the other's (crosstalk)"),
    ):
        top.plot(found.degrees[grid], values[grid], marker, color=color, label=label, **HOLLOW)
        top.plot(last, values[-1], marker, color=color, ms=8)
    top.set(ylabel="realized share,\nfirst request")
    top.axhline(0, color=BLACK, lw=0.6)
    _legend(top)
    bottom.plot(
        found.degrees[grid], found.bound[grid], "--", color=RED, label=r"bound, $1/(1+s_{\min})$ (X3)"
    )
    bottom.plot(found.degrees[grid], found.missing[grid], "o", color=BLUE, label="library", **HOLLOW)
    bottom.plot(last, found.missing[-1], "o", color=BLUE, ms=8, label="library, here")
    bottom.set(
        xlabel="angle between the keys (degrees)", ylabel="missing of both\nresiduals", ylim=(-0.03, 1.08)
    )
    bottom.set_xticks([0, 15, 30, 45, 60, 75, 90])
    _legend(bottom, 3)
    return figure


def _trap(s: Sliders, found: Trap) -> Any:
    figure, axis = panels(1, figsize=(WIDTH, 3.3))
    axis.loglog(found.kappas, found.safe, color=BLUE, label="safe above (hard request)")
    axis.axhline(found.progress, color=RED, label="progress below (easy request)")
    served = found.safe <= found.progress
    axis.fill_between(found.kappas, found.safe, found.progress, where=served, color=GREEN, alpha=0.2, lw=0)
    for yes, label, style in (
        (True, "library: both served", {"mfc": GREEN}),
        (False, "library: not both", {"mfc": "none"}),
    ):
        axis.plot([], [], "o", color=GREEN if yes else BLACK, label=label, **style)
        for penalty, size in [*((p, 4.5) for p in found.penalties[:-1]), (found.penalties[-1], 9)]:
            at = int(np.flatnonzero(found.penalties == penalty)[-1])
            if found.served[at] == yes:
                axis.plot(s.condition, penalty, "o", color=GREEN if yes else BLACK, ms=size, **style)
    axis.set(xlabel=r"condition number $\kappa$", ylabel="shared penalty", ylim=(5e-3, 2e6))
    _legend(axis)
    return figure


def _drift(_: Sliders, found: Drift) -> Any:
    figure, axis = panels(1, figsize=(WIDTH, 3.1))
    inside = np.isfinite(found.stated)
    if inside.any():
        axis.loglog(found.drifts[inside], found.stated[inside], "--", color=RED, label="paper's bound (57)")
    axis.loglog(found.drifts, found.bound, color=BLACK, label="corrected bound (L4)")
    axis.loglog(found.drifts, np.maximum(found.library, 1e-300), "o", color=BLUE, label="library", **HOLLOW)
    axis.set(xlabel=r"drift of the geometry, relative to $\mu_{\min}(G)$", ylabel="change of the channel")
    _legend(axis, 3)
    return figure


FIGURES: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "suppression": (
        _suppression,
        "Attenuation over lambda, with its bound, and the spectrum with the energy of the key.",
    ),
    "requests": (
        _requests,
        "Realized shares of two requests and what is missing of both, over the angle between their keys.",
    ),
    "trap": (_trap, "Penalties that serve both requests, over the condition number."),
    "drift": (_drift, "Change of the channel over the drift of the geometry, with the bounds."),
}


def answer(given: Mapping[str, Any]) -> dict[str, Any]:
    """Figure of a part of the theory, and the library's results beside the bounds.

    Args:
        given: `part`, and the value of every slider.

    Returns:
        Plain values. A value out of range raises a `MetakeError`.
    """
    name = str(given.get("part", ""))
    sliders, found = part(name, {key: number(given, key, low, high) for key, (low, high) in RANGES.items()})
    draw, alt = FIGURES[name]
    lines = [line.plain() for line in found.lines]
    return {"part": name, "figure": svg(lambda: draw(sliders, found)), "alt": alt, "lines": lines}
