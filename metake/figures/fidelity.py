"""Theorem 3 in figures: channels that drift, and the proxy against the hypergradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from metake.figures.cases import Case, adversaries, language_models, networks, synthetic
from metake.figures.core import Data, axes, legend_above, shows
from metake.figures.numbers import Array, tolerance
from metake.geometry.operator import Ridge
from metake.report.figures import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY
from theory import fidelity


def _channel(G: Array, k: Array) -> Array:
    """Channel of a key in a geometry, by the library; `d_k`."""
    channel: Array = Ridge(torch.from_numpy(G), 1.0).channel(torch.from_numpy(k[:, None])).numpy()[:, 0]
    return channel


@shows(
    "L4",
    caption="Change of the channel, mu = 1. Top: as the geometry drifts, keys of length 0.1. Bottom: as the key drifts, keys up to length 1. "
    "The paper's bound (57) ends where e = eps_C + 2 B eps_k reaches mu; the corrected one holds for any drift. Points: the library's "
    "channels, for random drifts and for the worst found on a grid.",
)
def channel_drift(data: Data) -> Any:
    """Figure of L4: change of the channel as the geometry drifts, and as the key drifts.

    Args:
        data: table to which the points are added.

    Returns:
        The figure.
    """
    figure, (top, bottom) = axes(2.1, 2.1)
    rng = np.random.default_rng(0)
    line = np.logspace(-2, 3, 400)
    length, drift = 0.1, np.logspace(-2, 3, 16)
    worst, chance = _geometry_drifts(drift, length, rng)
    _drift_and_bounds(data, top, "geometry", line, drift, length, worst, chance)
    top.set(xlabel=r"drift of the geometry $\|G_l-G_L\|$", ylabel=r"$\|q_l-q_L\|$", ylim=(3e-5, 3))
    top.legend(loc="lower right")

    drift = np.logspace(-2, np.log10(1.99), 16)
    worst, chance = [_worst_key_drift(x) for x in drift], [_random_key_drifts(x, rng) for x in drift]
    _drift_and_bounds(data, bottom, "key", line[line < 2], drift, 1.0, worst, chance)
    bottom.set(xlabel=r"drift of the key $\|k_l-k_L\|$", ylabel=r"$\|q_l-q_L\|$", ylim=(7e-4, 20))
    bottom.legend(loc="upper left")
    return figure


def _drift_and_bounds(
    data: Data,
    axis: Any,
    what: Literal["geometry", "key"],
    line: Array,
    drift: Array,
    longest: float,
    worst: Sequence[float],
    chance: Sequence[Sequence[float]],
) -> None:
    """Changes of the channel, random and worst, with the paper's bound and the corrected one.

    Args:
        data: table to which the points are added.
        axis: axes of the points.
        what: what drifts.
        line: drifts of the lines.
        drift: drifts of the points.
        longest: bound of the keys' norm.
        worst: largest change per drift.
        chance: random changes per drift.
    """

    def bounds(x: Array) -> tuple[Array, Array]:
        pairs = [(e, 0.0) if what == "key" else (0.0, e) for e in x]
        return (
            np.array([fidelity.channel_drift_stated(c, k, 1.0, longest) for c, k in pairs]),
            np.array([fidelity.channel_drift(c, k, 1.0, longest) for c, k in pairs]),
        )

    limit = tolerance()
    stated, corrected = bounds(line)
    inside = np.isfinite(stated)
    axis.loglog(line[inside], stated[inside], "--", color=RED, label="paper's bound (57)")
    axis.loglog(line, corrected, color=BLACK, label="corrected bound")
    stated, corrected = bounds(drift)
    draws = np.array(chance)
    for name, x, values, line_style in (
        (
            "random",
            np.repeat(drift, draws.shape[1]),
            draws.flatten(),
            {"marker": ".", "color": SKY, "ms": 2.5},
        ),
        ("worst found", drift, np.array(worst), {"color": BLUE}),
    ):
        bound = np.repeat(corrected, len(x) // len(drift))
        style: dict[str, Any] = {"label": name, **line_style}
        data.points(axis, f"{name}, {what}", x, bound, values, "below", limit, **style)
        bound = np.repeat(stated, len(x) // len(drift))
        finite = np.isfinite(bound)
        series = f"{name}, {what}, paper's bound"
        data.add(series, x[finite], bound[finite], values[finite], "below", limit)


def _geometry_drifts(
    drift: Array, length: float, rng: np.random.Generator
) -> tuple[list[float], list[list[float]]]:
    """Largest and random changes of the channel of one key, per drift of its geometry from the identity."""
    eye = np.eye(4)
    k, base = length * eye[0], _channel(eye, length * eye[0])

    def moved(direction: Array, size: float) -> float:
        return float(np.linalg.norm(_channel(eye + size * np.outer(direction, direction), k) - base))

    turned = [np.cos(t) * eye[0] + np.sin(t) * eye[1] for t in np.linspace(0, np.pi / 2, 46)]
    chance = [[moved(v / np.linalg.norm(v), x) for v in rng.standard_normal((8, 4))] for x in drift]
    return [max(moved(v, x) for v in turned) for x in drift], chance


def _worst_key_drift(drift: float) -> float:
    """Largest change of the channel over a grid of pairs of keys in the unit disc, `drift` apart.

    The middle of a pair lies at s on an axis, and the pair is turned by t.

    Args:
        drift: distance of the keys of a pair.

    Returns:
        The change.
    """
    plane, found = np.eye(2), 0.0
    for s in np.linspace(-1, 1, 21):
        for t in np.linspace(0, np.pi / 2, 7):
            way = drift / 2 * np.array([np.cos(t), np.sin(t)])
            pair = [np.array([s, 0.0]) + sign * way for sign in (1, -1)]
            if max(np.linalg.norm(k) for k in pair) <= 1:
                change = np.linalg.norm(_channel(plane, pair[0]) - _channel(plane, pair[1]))
                found = max(found, float(change))
    return found


def _random_key_drifts(drift: float, rng: np.random.Generator, count: int = 8) -> list[float]:
    """Changes of the channel for random pairs of keys in the unit ball, `drift` apart, in random geometries."""
    found: list[float] = []
    while len(found) < count:
        way, k = rng.standard_normal((2, 4))
        first = k / np.linalg.norm(k) * rng.uniform() ** 0.25
        second = first + drift * way / np.linalg.norm(way)
        if np.linalg.norm(second) > 1:  # outside the ball: back through its middle
            second = first - drift * first / np.linalg.norm(first)
        if np.linalg.norm(second) <= 1:
            G = np.eye(4) + np.diag(rng.exponential(size=4))
            found.append(float(np.linalg.norm(_channel(G, first) - _channel(G, second))))
    return found


@shows(
    "T3a",
    caption="Error of the last layer's proxy against its bound (10): synthetic layers, small residual nets, and tiny random GPT-2 and "
    "Llama models under the library's layered solver, the hypergradient at frozen channels by automatic differentiation. No point lies above the diagonal.",
)
def proxy_error(data: Data) -> Any:
    """Figure of T3a: error of the proxy over its bound.

    Args:
        data: table to which the points are added.

    Returns:
        The figure.
    """
    figure, axis = axes(2.6)
    ends = []
    for name, cases, line_style in (
        ("synthetic", synthetic(300), {"marker": ".", "color": SKY}),
        ("nets", networks(40), {"marker": "D", "color": ORANGE}),
        ("GPT-2, Llama (tiny)", language_models(), {"marker": "x", "color": PURPLE}),
    ):
        bound = np.array([c.layers.bound for c in cases])
        error = np.array([np.linalg.norm(c.g - c.layers.proxy) for c in cases])
        rounding = np.array([c.rounding for c in cases]) / bound
        data.points(axis, name, bound, bound, error, "below", rounding, **line_style)
        ends += [*bound]
    low, high = min(ends) / 2, max(ends) * 2
    axis.loglog([low, high], [low, high], color=BLACK, label="equality")
    axis.set(
        xlabel=r"bound $\gamma\|g_L\|+\varepsilon_I\|\Gamma_L\|\|q_L\|$", ylabel=r"error $\|g-\tilde{g}\|$"
    )
    axis.legend(loc="upper left")
    return figure


DESCENTS = {  # group of a case -> its color and marker
    r"guaranteed, $\zeta'<1$": (GREEN, "o"),
    r"guaranteed, $\gamma^2+\varepsilon^2<1$": (ORANGE, "s"),
    "happens": (BLUE, "."),
    "fails": (RED, "x"),
}


@shows(
    "T3b",
    "T3c",
    caption="Cosine between hypergradient and proxy, of the layers and models of the figure of T3a and of instances made to be bad. Top: against zeta' "
    "of (67): below 1 descent is guaranteed, the line is what it guarantees. Bottom: against arcsin gamma + arcsin eps; the line is the sharp "
    "bound, attained, and below 90 degrees descent is guaranteed (orange: where zeta' says nothing). Beyond, it happens (blue) or fails (red). "
    "Gray strip: gamma or eps is at least 1, and there is no bound.",
)
def descent(data: Data) -> Any:
    """Figure of T3b and T3c: cosine between hypergradient and proxy over their conditions.

    Args:
        data: table to which the points are added.

    Returns:
        The figure.
    """
    figure, (top, bottom) = axes(2.4, 2.1)
    groups: dict[str, list[tuple[float, float, float]]] = {name: [] for name in DESCENTS}
    for case in [*synthetic(500), *networks(40), *language_models(), *adversaries()]:
        name, *point = _descent_of(data, case)
        groups[name].append((point[0], point[1], point[2]))
    for name, (color, marker) in DESCENTS.items():
        zeta, angle, cos = np.array(groups[name]).T
        line_style = {"color": color, "ms": 2.0 if marker in "os" else 3.0, "mew": 0.5}
        top.semilogx(zeta, cos, marker, label=name, **line_style)
        bottom.plot(angle, cos, marker, **line_style)
    line = np.logspace(-2, 0, 200)
    top.semilogx(line, [fidelity.cosine_bound(min(x, 1), 0.0) for x in line], color=BLACK, lw=0.9)
    top.set(xlim=(0.03, 60), xlabel=r"$\zeta'=\gamma(1+\varepsilon_I)+\varepsilon_I$")
    line = np.linspace(0, 180, 200)
    bottom.plot(line, np.cos(np.radians(line)), color=BLACK, lw=0.9)
    bottom.axvspan(182, 198, color="0.9", lw=0)
    bottom.set(xlim=(0, 198), xlabel=r"$\arcsin\gamma+\arcsin\varepsilon$ (degrees)")
    bottom.set_xticks([0, 45, 90, 135, 180])
    for axis, edge in ((top, 1), (bottom, 90)):
        axis.set(ylabel=r"$\cos(g,\tilde{g})$", ylim=(-1.08, 1.08))
        axis.axvline(edge, color=BLACK, lw=0.8, ls=":")
        axis.axhline(0, color=BLACK, lw=0.4)
    legend_above(top, 2)
    return figure


def _descent_of(data: Data, case: Case) -> tuple[str, float, float, float]:
    """Group and coordinates of a case, whose rows are added to the table.

    Args:
        data: table to which the rows are added.
        case: the case.

    Returns:
        Group, zeta', sum of the angles in degrees (190 without a bound), and cosine.
    """
    layers, proxy = case.layers, case.layers.proxy
    size, cos = float(np.linalg.norm(proxy)), fidelity.cosine(case.g, proxy)
    slack = 2 * case.rounding / min(size, float(np.linalg.norm(case.g)))
    gamma, eps = layers.gamma, fidelity.scaled_gap(layers.J[-1])
    zeta = fidelity.zeta_sharp(gamma, layers.gap)
    bounded = gamma < 1 and eps < 1
    angle = float(np.degrees(np.arcsin(gamma) + np.arcsin(eps))) if bounded else 190.0
    inside = bounded and gamma**2 + eps**2 < 1
    if bounded:
        least = 1 + fidelity.cosine_bound(gamma, eps)  # of a cosine that may be negative, plus 1
        data.add("1 + cosine, sharp", angle, least, 1 + cos, "above", slack / least)
    if zeta < 1:
        inner = float(case.g @ proxy) / size**2
        data.add("inner product, zeta'", zeta, 1 - zeta, inner, "above", slack / (1 - zeta))
        least = fidelity.cosine_bound(zeta, 0.0)
        data.add("cosine, zeta'", zeta, least, cos, "above", slack / least)
    if inside or zeta < 1:
        data.add("descends where guaranteed", zeta, 0.0, cos, "above")
    sure, sharp, happens, fails = DESCENTS
    return sure if zeta < 1 else sharp if inside else happens if cos > 0 else fails, zeta, angle, cos
