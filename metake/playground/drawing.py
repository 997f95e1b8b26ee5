"""Figures of the playground as SVG texts. One is drawn at a time, because matplotlib's settings are global."""

from __future__ import annotations

import io
from collections.abc import Callable
from threading import Lock
from typing import Any

from metake.report.figures import STYLE, styled

WIDTH = 4.2  # inches; a phone shows it somewhat smaller, a desktop larger
LAYOUT = {
    **STYLE,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 7.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "svg.hashsalt": "metake",
}
_drawing = Lock()


def svg(draw: Callable[[], Any]) -> str:
    """Figure as an SVG text.

    Args:
        draw: makes the figure.

    Returns:
        The text, the same for the same figure.
    """
    with _drawing, styled(LAYOUT):
        out = io.StringIO()
        draw().savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
