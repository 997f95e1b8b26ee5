"""Figures, drawn from plain result data, at the width of a paper's column.

Figures are objects of their own: pyplot and its backend, which belong to a notebook or to the user's program, are not
touched.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from metake.errors import MetakeError
from metake.files import write_file


def _import_matplotlib() -> Any:
    """The package; an MPLBACKEND that it does not know, inherited from another program, is ignored."""
    try:
        return importlib.import_module("matplotlib")
    except ValueError:
        inherited = os.environ.pop("MPLBACKEND", None)
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]  # half of it is there
        try:
            return importlib.import_module("matplotlib")
        finally:
            if inherited is not None:
                os.environ["MPLBACKEND"] = inherited


matplotlib = _import_matplotlib()
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

# Okabe and Ito's palette: told apart with any color vision (without yellow, which white paper swallows)
BLACK, ORANGE, SKY, GREEN, BLUE, RED, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
LineStyle = tuple[str, str, str]  # color, marker, line style
LINE_STYLES: dict[str, LineStyle] = {
    "metake": (RED, "o", "-"),
    "metake-proxy": (PURPLE, "o", "--"),
    "metake-parallel": (PURPLE, "p", "-."),
    "metake-priced": (RED, "*", "--"),
    "metake-alphaedit": (PURPLE, "P", "-"),
    "metake-blue": (PURPLE, "X", ":"),
    "memit": (BLACK, "s", "-"),
    "memit-compensated": (ORANGE, "D", "--"),
    "memit-iterated": (GREEN, "v", "-."),
    "memit@unstopped": (BLACK, ">", ":"),
    "memit-fe": (GREEN, "h", "--"),
    "memit-merge": (GREEN, "<", ":"),
    "alphaedit": (BLUE, "^", "-"),
    "alphaedit-blue": (SKY, "d", "-"),
    "alphaedit-compensated": (BLUE, "D", "-."),
    "alphaedit-iterated": (BLUE, "v", ":"),
    "alphaedit-fe": (SKY, "h", ":"),
    "ultraedit": (GREEN, "*", "-"),
    "rect": (ORANGE, "X", "-"),
    "prune": (SKY, "p", "--"),
    "prune-added": (SKY, "<", "-."),
    "rome": (ORANGE, "^", ":"),
    "emmet": (ORANGE, ">", "-."),
    "grace": (BLUE, "D", "-"),
    "wise": (SKY, ">", "-"),
    "memoir": (PURPLE, "<", "-"),
    "rep": (BLACK, "p", "-"),
}
MARKERS, LINES = "osD^v<>PX*phd", ("-", "--", "-.", ":")
STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 150,
    "savefig.bbox": "tight",
}


def styled(style: Mapping[str, Any] = STYLE) -> AbstractContextManager[None]:
    """Draw and save in a style.

    Args:
        style: values of `matplotlib.rcParams`.

    Returns:
        The context.
    """
    context: AbstractContextManager[None] = matplotlib.rc_context(dict(style))
    return context


def panels(
    rows: int = 1, columns: int = 1, *, figsize: tuple[float, float], **options: Any
) -> tuple[Figure, Any]:
    """A figure and its axes, as `pyplot.subplots` gives them.

    Args:
        rows: number of rows.
        columns: number of columns.
        figsize: width and height in inches.
        **options: further arguments of `Figure.subplots`.

    Returns:
        The figure and its axes.
    """
    figure = Figure(figsize=figsize, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, **options)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure whole; the suffix (png, pdf, svg) is the format, png without one.

    Args:
        figure: the figure.
        path: the file.

    Returns:
        Path of the file.

    Raises:
        MetakeError: the format is unknown, or the file cannot be written.
    """
    try:
        write_file(path, lambda place: figure.savefig(place, format=path.suffix.removeprefix(".") or "png"))
    except ValueError as error:
        raise MetakeError(f"{path}: the figure cannot be written ({error})") from error
    return path


def line_styles(methods: Iterable[str]) -> dict[str, LineStyle]:
    """Method -> its line style; markers and line styles alone tell them apart. A variant or labeled method has its row's color.

    Args:
        methods: names of methods.

    Returns:
        Method -> color, marker and line style.
    """
    methods = list(methods)
    chosen = {name: LINE_STYLES[name] for name in methods if name in LINE_STYLES}
    taken = {style[1:] for style in chosen.values()}
    free = cycle([style for line in LINES for marker in MARKERS if (style := (marker, line)) not in taken])
    for name in methods:
        if name not in chosen:
            color = LINE_STYLES.get(name.partition("@")[0].partition(" + ")[0], (BLACK, "", ""))[0]
            chosen[name] = (color, *next(free))
    return {name: chosen[name] for name in methods}


def _gather(batches: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """A per-layer quantity of all edits: `layers x edits`, or `edits`."""
    return np.concatenate([np.asarray(batch[key]) for batch in batches], axis=-1)


def _of_planned(batches: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Share of each planned residual that is missing at the start and after every layer: `1 + layers x edits`."""
    planned = _gather(batches, "planned_norm")
    missing = np.vstack([_gather(batches, "missing_before"), _gather(batches, "missing_after")[None]])
    share: np.ndarray = (missing / np.maximum(planned, 1e-12))[:, planned > 1e-6]
    return share


def describe_realization(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Content of `plot_realization` in words: the medians at the last edited layer.

    Args:
        runs: method -> summaries of its batches; see `EditResult.summary`.

    Returns:
        Two sentences.
    """
    parts = [
        f"{method}: eta {np.median(_gather(batches, 'eta')[-1]):.2f}, "
        f"{100 * np.median(_of_planned(batches)[-1]):.0f} % of the planned residual still missing"
        for method, batches in runs.items()
    ]
    return (
        "Two charts over the edited layers, a line per method: the share of the planned residual that is still missing, "
        f"and the attenuation eta. Medians at the last edited layer: {'; '.join(parts)}."
    )


def plot_realization(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> Path:
    """What was planned, what is still missing after each layer, and the predicted attenuation.

    Above: residual still missing at the last edited layer, relative to the planned one, after each
    layer's write; markers are medians, bars quartiles, over edits. The faint dotted line of a method is the prediction
    from its eta, shares and fit by identity transport (A2), `predicted_missing`; medians, too.
    Below: eta of the keys, per layer.

    Args:
        runs: method -> summaries of its batches; see `EditResult.summary`.
        path: the file (png, pdf or svg).

    Returns:
        Path of the file.
    """
    with styled():
        figure, (above, below) = panels(2, 1, figsize=(3.6, 4.6))
        offsets = np.linspace(-0.15, 0.15, len(runs)) if len(runs) > 1 else [0.0]
        every = sorted({layer for batches in runs.values() for layer in batches[0]["layers"]})
        for offset, (method, (color, marker, line)) in zip(offsets, line_styles(runs).items(), strict=True):
            batches = runs[method]
            style: Any = {
                "marker": marker,
                "ls": line,
                "color": color,
                "ms": 3.5,
                "lw": 1.1,
                "capsize": 2,
                "elinewidth": 0.7,
            }
            places = np.array([every.index(layer) + 1 for layer in batches[0]["layers"]])
            _quartiles(above, np.array([0, *places]) + offset, _of_planned(batches), **style, label=method)
            etas = _gather(batches, "eta")
            rest = [1.0, *np.median(_gather(batches, "predicted_missing"), 1)]
            above.plot(np.array([0, *places]) + offset, rest, ":", lw=0.8, color=color, alpha=0.6)
            _quartiles(below, places + offset, etas, **style)
        ticks = np.arange(1, len(every) + 1)
        above.set_xticks([0, *ticks], ["plan", *(f"layer {layer}" for layer in every)])
        below.set_xticks(ticks, [str(layer) for layer in every])
        below.set_xlim(0.5, len(every) + 0.5)
        above.set_ylabel("residual missing / planned")
        above.set_ylim(0)
        above.set_title("after each layer's write (dotted: predicted)")
        below.set_xlabel("edited layer")
        below.set_ylabel(r"attenuation $\eta = \rho/(1+\rho)$")
        below.set_ylim(0, 1.02)
        figure.legend(
            *above.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=min(3, len(runs)),
            frameon=False,
        )
        return save(figure, path)


def _quartiles(axis: Any, x: Any, values: np.ndarray, **style: Any) -> None:
    """Medians over the second axis, with quartiles as bars."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=1)
    axis.errorbar(x, middle, (middle - low, high - middle), **style)


def plot_tradeoff(points: Sequence[Mapping[str, Any]], path: Path, title: str) -> Path:
    """Efficacy and generalization against specificity and agreement, one curve per method over its constraint.

    Args:
        points: each with `method`, `strength`, the four metrics as shares, and `interval`s of the first two.
        path: the file (png, pdf or svg).
        title: title of the figure.

    Returns:
        Path of the file.
    """
    chosen = line_styles(dict.fromkeys(p["method"] for p in points))
    with styled():
        figure, axes = panels(2, 2, figsize=(6.4, 5), sharex="row", sharey=True)
        for row, kept in zip(axes, ("specificity", "agreement"), strict=True):
            # a real model knows few of the records' locality answers: its specificity ends far below 100
            right = min(102, 140 * max(p[kept] for p in points))
            left = max(0, 10 * math.floor(10 * min(p[kept] for p in points)) - 10)
            for axis, metric in zip(row, ("efficacy", "generalization"), strict=True):
                for method, style in chosen.items():
                    curve = sorted((p for p in points if p["method"] == method), key=lambda p: p["strength"])
                    _tradeoff_curve(axis, curve, kept, metric, style)
                axis.set(xlabel=f"{kept} (%)", ylabel=f"{metric} (%)", xlim=(left, right), ylim=(0, 102))
        figure.suptitle(f"{title}: over the strength of the constraint (numbers: smallest value)", fontsize=8)
        figure.legend(
            *axes[0, 0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=min(4, len(chosen)),
            frameon=False,
        )
        return save(figure, path)


def _tradeoff_curve(
    axis: Any, curve: Sequence[Mapping[str, Any]], kept: str, metric: str, style: tuple[str, str, Any]
) -> None:
    """Draw one method's points, with the interval of the metric and the strength of the first."""
    color, marker, line = style
    x = np.array([100 * p[kept] for p in curve])
    y = np.array([100 * p[metric] for p in curve])
    low, high = (np.array([100 * p["interval"][metric][i] for p in curve]) for i in (0, 1))
    axis.errorbar(
        x,
        y,
        (y - low, high - y),
        marker=marker,
        ls=line,
        ms=3.5,
        lw=1,
        elinewidth=0.5,
        capsize=1.5,
        label=curve[0]["method"],
        color=color,
    )
    axis.annotate(
        f"{curve[0]['strength']:.2g}",
        (x[0], y[0]),
        fontsize=6.5,
        xytext=(2, 2),
        textcoords="offset points",
        color=color,
    )


PUBLISHED = ("efficacy", "generalization", "specificity")


def plot_sequence(
    curves: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    path: Path,
    d_k: int | None = None,
    batch: int = 1,
) -> Path:
    """The published metrics and the attenuation over the number of edits: a line per method, mean over seeds, range shaded.

    The last panel is eta at the last edited layer, the mean over the batch that ends there, each key behind the n - 1
    of earlier batches and itself; dashed: the bound min(1, d_k/n) on the mean attenuation if edits remember those before (X13).

    Args:
        curves: method -> seeds -> points with `edits`, the three metrics as shares and `attenuation` (or
            null).
        path: the file (png, pdf or svg).
        d_k: width of a key; without it there is no dashed line.
        batch: edits in a batch.

    Returns:
        Path of the file.
    """
    with styled():
        figure, axes = panels(1, 4, figsize=(6.8, 2.9))
        for method, (color, marker, line) in line_styles(curves).items():
            seeds = curves[method]
            for axis, metric in zip(axes, (*PUBLISHED, "attenuation"), strict=True):
                scale = 100 if metric in PUBLISHED else 1
                x = [point["edits"] for point in seeds[0]]
                y = scale * np.array([[point[metric] for point in points] for points in seeds], dtype=float)
                axis.plot(x, y.mean(0), marker=marker, ls=line, ms=3.5, lw=1, color=color, label=method)
                axis.fill_between(x, y.min(0), y.max(0), color=color, alpha=0.15, lw=0)
        for axis, metric in zip(axes, PUBLISHED, strict=False):
            axis.set(title=metric, xlabel="edits so far", ylim=(0, 102))
        axes[3].set(title="attenuation $\\eta$", xlabel="edits so far", ylim=(0, 1.02))
        if d_k is not None:
            counts = [point["edits"] for seeds in curves.values() for points in seeds for point in points]
            edits = np.linspace(min(counts), max(counts), 200)
            capacity = np.minimum(1, d_k / np.maximum(1, edits - batch + 1))
            axes[3].plot(edits, capacity, "--", lw=1, color="black", label="capacity, $d_k/n$")
        axes[0].set_ylabel("per cent, over the edits so far")
        figure.legend(
            *axes[3].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
        )
        return save(figure, path)
