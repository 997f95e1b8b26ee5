"""Figures of a measurement, from the content of its JSON file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from metake.console import draw_or_note
from metake.figures.core import COLUMN, LAYOUT
from metake.report.figures import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    matplotlib,
    panels,
    save,
    styled,
)
from theory import fidelity

WIDE = 2 * COLUMN
COSINES = {
    "proxy": (RED, "o", "-", "proxy (7)"),
    "parallel": (BLUE, "^", "--", "parallel (X11)"),
    "open": (ORANGE, "s", "-.", "open loop"),
    "frozen": (GREEN, "v", ":", "keys frozen"),
}
TERMS = {
    "tail": (SKY, ""),
    "allocation": (ORANGE, "///"),
    "evaluation": (GREEN, "..."),
    "key derivative": (PURPLE, "xxx"),
}

# Figure -> alternative text and caption.
WORDS = {
    "spectra": (
        "Two charts, a line per edited layer: the eigenvalues of C, which fall over several orders of magnitude, and the "
        "share of the keys' square length within the leading eigenvectors, for edited subjects and for all text.",
        "Spectrum of the key covariance C, and where the keys of the edited subjects lie in it.",
    ),
    "layers": (
        "Three charts over the edited layers: attenuation eta; norm of the channel and the share measured, beside identity "
        "transport; length of each layer's gradient, relative to the last, and its cosine with the proxy.",
        "Per layer, medians and quartiles over the edits: attenuation, channel, gradient.",
    ),
    "between": (
        "Two heat maps of pairs of layers, with numbers: the distance of their covariances and the overlap of their leading "
        "eigenvectors; and a chart of how far each layer's key is from the last layer's.",
        "Drift between layers: covariances, eigenvectors, keys.",
    ),
    "premises": (
        "One dot per edit for each premise of Theorem 3 (gamma, epsilon, sigma, zeta, the sharpened condition), on a "
        "logarithmic axis with a line at 1, and the median of each.",
        "Premises of Theorem 3. A premise holds where its dots lie below the line at 1 (sigma: near it).",
    ),
    "errors": (
        "Stacked bars, one per edit: the terms of the proxy's error bound, relative to the whole bound; the measured error "
        "and the published bound (10) are marked on each bar.",
        "Error of the proxy gradient (black dash) and the norms of its parts (bars), relative to the bound with all terms; the "
        "cross is the published bound (10), which leaves the last two terms out.",
    ),
    "cosines": (
        "Cosines of four approximate gradients (proxy, parallel, open loop, frozen keys) with the exact hypergradient: one "
        "mark per edit, then over the strength of the constraint, then along the descent.",
        "Direction of the approximate gradients, compared with the exact hypergradient (1: the same direction).",
    ),
}


def draw(content: Mapping[str, Any], out: Path) -> list[Path]:
    """Write the figures as PNG; a figure that fails gives a note.

    Args:
        content: content of `drift.json`.
        out: folder of the figures.

    Returns:
        Paths of the figures.
    """
    drawings = (_spectra, _layers, _between, _premises, _errors, _cosines)
    with styled(LAYOUT):
        return [
            path
            for of in drawings
            for path in draw_or_note(partial(of, content, out / f"{of.__name__.removeprefix('_')}.png"))
        ]


def _axes(columns: int, width: float = WIDE, height: float = 2.3) -> tuple[Any, Any]:
    return panels(1, columns, figsize=(width, height))


def _spectra(content: Mapping[str, Any], path: Path) -> Path:
    figure, (left, right) = _axes(2)
    layers = content["between"]["layers"]
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(layers)))
    for (name, layer), color in zip(layers.items(), colors, strict=True):
        places, values = np.array(layer["places"]), np.array(layer["eigenvalues"])
        left.loglog(places, values / values[0], color=color, label=name)
        right.semilogx(places, layer["keys' mass"], color=color)
        right.semilogx(places, layer["text's mass"], ":", color=color, lw=0.8)
    left.set_xlabel("eigenvalue of C, by size")
    left.set_ylabel("relative to the largest")
    left.legend(title="layer")
    right.set_xlabel("leading eigenvectors")
    right.set_ylabel("share of a key's square length")
    right.set_ylim(0, 1.02)
    right.set_title("edited subjects (lines), all text (dotted)")
    return save(figure, path)


def _quartiles(axis: Any, x: Any, values: Any, **style: Any) -> None:
    low, middle, high = np.quantile(np.asarray(values, dtype=float), (0.25, 0.5, 0.75), axis=0)
    axis.errorbar(x, middle, (middle - low, high - middle), **{"marker": "o", "capsize": 2, **style})


def _layers(content: Mapping[str, Any], path: Path) -> Path:
    figure, (eta, norms, sizes) = _axes(3)
    rows, layers = _rows(content), content["layers"]
    ticks = range(len(layers))
    etas = np.array([row["eta"] for row in rows])
    _quartiles(eta, ticks, etas, color=BLACK)
    eta.set_ylim(0, 1.02)
    eta.set_ylabel(r"attenuation $\eta_\ell$")
    if rows[0]["J_l"] is not None:
        _quartiles(norms, ticks, [row["J_l"] for row in rows], color=BLUE, label=r"$\|J_\ell\|$")
    _quartiles(
        norms,
        ticks,
        [row["share"] for row in rows],
        color=ORANGE,
        marker="s",
        ls="--",
        label="share measured",
    )
    norms.plot(
        ticks,
        fidelity.allocation_scales(np.median(etas, 0)),
        ":",
        color=BLACK,
        label="identity transport (A2)",
    )
    norms.axhline(1, color="#999999", lw=0.6)
    norms.set_ylabel("of the residual asked")
    norms.set_ylim(0)
    norms.legend()
    last = np.array([row["g_l"][-1] for row in rows])[:, None]
    _quartiles(
        sizes, ticks, np.array([row["g_l"] for row in rows]) / last, color=BLUE, label=r"$\|g_\ell\|/\|g_L\|$"
    )
    _quartiles(
        sizes,
        ticks,
        [row["alignment"] for row in rows],
        color=RED,
        marker="s",
        ls="--",
        label=r"$\cos(g_\ell, \tilde g)$",
    )
    sizes.axhline(0, color="#999999", lw=0.6)
    sizes.legend()
    for axis in (eta, norms, sizes):
        axis.set_xticks(ticks, [str(layer) for layer in layers])
        axis.set_xlabel("layer")
    return save(figure, path)


def _between(content: Mapping[str, Any], path: Path) -> Path:
    figure, (drift, overlap, keys) = _axes(3)
    between, layers = content["between"], content["layers"]
    names = [str(layer) for layer in layers]
    for axis, values, title in (
        (drift, between["geometry drift"], r"$\|C_a - C_b\|_F/\|C_b\|_F$"),
        (
            overlap,
            between["overlap"],
            f"overlap, leading {between['compared']} (chance {between['chance overlap']:.2f})",
        ),
    ):
        matrix = np.array(values)
        axis.imshow(matrix, cmap="Blues", vmin=0, vmax=max(1.0, float(matrix.max())))
        for (i, j), value in np.ndenumerate(matrix):
            dark = value > 0.6 * max(1.0, float(matrix.max()))
            axis.text(
                j, i, f"{value:.2f}", ha="center", va="center", fontsize=5.5, color="w" if dark else "k"
            )
        axis.set_xticks(range(len(names)), names)
        axis.set_yticks(range(len(names)), names)
        axis.set_title(title, fontsize=7)
        axis.set_xlabel("layer b")
        axis.set_ylabel("layer a")
    _quartiles(keys, range(len(layers)), [row["key drift"] for row in _rows(content)], color=BLACK)
    keys.set_xticks(range(len(layers)), names)
    keys.set_xlabel(r"layer $\ell$")
    keys.set_title(r"$\|k_\ell - k_L\|/\|k_L\|$", fontsize=7)
    keys.set_ylim(0)
    return save(figure, path)


def _premises(content: Mapping[str, Any], path: Path) -> Path:
    figure, axis = _axes(1, COLUMN)
    figure.set_size_inches(COLUMN, 2.4)
    rows = _rows(content)
    names = {
        "gamma": r"$\gamma$ (54)",
        "eps_I": r"$\epsilon_I$ (56)",
        "sigma": r"$\sigma$",
        "zeta": r"$\zeta$",
        "zeta'": r"$\zeta'$",
        "T3c": r"$\gamma^2+\epsilon^2$",
    }
    rng = np.random.default_rng(0)
    for i, name in enumerate(names):
        values = np.array([row[name] for row in rows], dtype=float)
        values = values[np.isfinite(values) & (values > 0)]
        axis.plot(i + rng.uniform(-0.15, 0.15, len(values)), values, ".", color=BLUE, ms=4, alpha=0.6)
        if len(values):
            axis.plot([i - 0.28, i + 0.28], [np.median(values)] * 2, color=BLACK)
    axis.axhline(1, color=RED, lw=0.8)
    axis.text(
        len(names) - 0.5,
        1.05,
        r"needed: below ($\sigma$: near it)",
        color=RED,
        fontsize=6,
        ha="right",
        va="bottom",
    )
    axis.set_yscale("log")
    axis.set_xticks(range(len(names)), names.values())
    axis.set_title("premises of Theorem 3, one dot an edit")
    return save(figure, path)


def _errors(content: Mapping[str, Any], path: Path) -> Path:
    figure, axis = _axes(1)
    rows = sorted(_rows(content), key=lambda row: row["error"] / row["bound"])
    places, bottom = np.arange(len(rows)), np.zeros(len(rows))
    bound = np.array([row["bound"] for row in rows])
    for name, (color, hatch) in TERMS.items():
        part = np.array([row["terms"][name] for row in rows]) / bound
        axis.bar(
            places,
            part,
            bottom=bottom,
            color=color,
            hatch=hatch,
            edgecolor="white",
            lw=0,
            label=f"norm of {name}",
            width=0.8,
        )
        bottom += part
    axis.plot(
        places,
        np.array([row["error"] for row in rows]) / bound,
        "_",
        color=BLACK,
        ms=8,
        mew=1.4,
        label=r"$\|g - \tilde g\|$",
    )
    axis.plot(
        places,
        np.array([row["paper bound"] for row in rows]) / bound,
        "x",
        color=RED,
        label="bound (10), without the last two",
    )
    axis.axhline(1, color=RED, lw=0.8)
    axis.set_ylim(0, 1.05)
    axis.set_xticks(places, [str(i + 1) for i in places])
    axis.set_xlabel("edits, by how much of the bound is reached")
    axis.set_ylabel("relative to the bound with all terms")
    axis.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return save(figure, path)


def _cosines(content: Mapping[str, Any], path: Path) -> Path:
    trails = [e["trail"] for e in content["edits"] if e["trail"]]
    figure, axes = _axes(3 if trails else 2)
    edits, strengths = axes[:2]
    start = [e["start"]["cos"] for e in content["edits"]]
    end = [e["compensated"]["cos"] for e in content["edits"]]
    for i, (name, (color, *_)) in enumerate(COSINES.items()):
        for offset, values, marker in ((-0.12, start, "o"), (0.12, end, "^")):
            _strip(edits, i + offset, [v[name] for v in values], color, marker)
    edits.set_xticks(range(len(COSINES)), ["proxy", "parallel", "open", "frozen"])
    edits.set_ylabel("cosine with the hypergradient")
    edits.set_title("plan (dots), compensated (triangles)")
    weights = sorted(float(w) for w in content["edits"][0]["strengths"])
    for name, (color, marker, line, label) in COSINES.items():
        values = [[e["strengths"][f"{w:g}"]["cos"][name] for w in weights] for e in content["edits"]]
        _quartiles(strengths, weights, values, color=color, marker=marker, ls=line, label=label)
    strengths.set_xscale("log")
    strengths.set_xlabel(content["strength"])
    strengths.set_title("over the constraint, at the plan")
    if trails:
        steps = [point["step"] for point in trails[0]]
        for name, (color, marker, line, label) in COSINES.items():
            values = [[point["cos"][name] for point in t] for t in trails if len(t) == len(steps)]
            _quartiles(axes[2], steps, values, color=color, marker=marker, ls=line, label=label)
        axes[2].set_xlabel("step of the upper level")
        axes[2].set_title("along the descent by the proxy")
    for axis in axes:
        axis.axhline(0, color="#999999", lw=0.6)
        axis.set_ylim(-1.05, 1.05)
    figure.legend(*strengths.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return save(figure, path)


def _strip(axis: Any, x: float, values: Sequence[float], color: str, marker: str) -> None:
    axis.plot(np.full(len(values), x), values, marker, color=color, ms=2.6, alpha=0.5, ls="")
    axis.plot([x - 0.1, x + 0.1], [np.median(values)] * 2, color=BLACK)


def _rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [edit["start"] for edit in content["edits"]]
