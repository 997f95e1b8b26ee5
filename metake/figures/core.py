"""What a figure is: a drawing, the numbers in it, and what they have to obey.

Numbers are rows `series, x, theory, measured, relation, tolerance`. The relation says how measurement
stands to theory: `equal` to the tolerance (relative), `below` it, `above` it, or `shown` beside it.
Points are drawn by the call that adds their rows, so a figure cannot show a broken law unnoticed.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("SOURCE_DATE_EPOCH", "0")  # no dates in PDFs: the same run writes the same bytes

import numpy as np
from numpy.typing import ArrayLike

from metake.errors import MetakeError
from metake.figures.numbers import EPS32, EPS64  # noqa: F401 (for the figures)
from metake.files import read_json, write_text
from metake.report.figures import (  # noqa: F401 (the palette, for the figures)
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    STYLE,
    panels,
    save,
    styled,
)

COLUMN = 3.3  # inches, one column of a paper
LAYOUT = {
    **STYLE,
    "savefig.dpi": 300,
    "savefig.bbox": None,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.borderaxespad": 0.2,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.2,
    "pdf.fonttype": 42,
}


class BrokenLaw(Exception):
    """A measurement does not stand to theory as it has to."""


@dataclass(frozen=True)
class Row:
    series: str
    x: float
    theory: float
    measured: float
    relation: str
    tolerance: float

    @property
    def deviation(self) -> float:
        """Relative distance for `equal`; for a bound the share of it that is reached."""
        if self.relation == "equal":
            return abs(self.measured - self.theory) / max(abs(self.theory), np.finfo(float).tiny)
        pair = (self.measured, self.theory)
        top, bottom = pair if self.relation == "below" else reversed(pair)
        return top / bottom if bottom else np.inf

    @property
    def holds(self) -> bool:
        if not np.isfinite([self.x, self.theory, self.measured]).all():
            return False
        slack = self.tolerance * abs(self.theory)
        away = self.measured - self.theory
        return {"equal": abs(away) <= slack, "below": away <= slack, "above": -away <= slack, "shown": True}[
            self.relation
        ]


@dataclass
class Data:
    """Rows of one figure."""

    rows: list[Row] = field(default_factory=list)

    def add(
        self,
        series: str,
        x: ArrayLike,
        theory: ArrayLike,
        measured: ArrayLike,
        relation: str,
        tolerance: ArrayLike = 0.0,
    ) -> None:
        for numbers in np.broadcast(x, theory, measured, tolerance):
            a, b, c, slack = map(float, numbers)
            self.rows.append(Row(series, a, b, c, relation, slack))

    def points(
        self,
        axis: Any,
        series: str,
        x: ArrayLike,
        theory: ArrayLike,
        measured: ArrayLike,
        relation: str,
        tolerance: ArrayLike = 0.0,
        *,
        marker: str = "o",
        **look: Any,
    ) -> None:
        """Add rows and draw them; the series is the label if the look has none."""
        self.add(series, x, theory, measured, relation, tolerance)
        hollow = {} if marker == "." else {"mfc": "none"}
        axis.plot(x, measured, marker, **{"label": series, "mew": 0.8, **hollow, **look})

    def worst(self) -> dict[str, tuple[str, float]]:
        """Relation and largest deviation of every series that has to obey something."""
        found: dict[str, tuple[str, float]] = {}
        for row in self.rows:
            if row.relation != "shown":
                before = found.get(row.series, ("", -np.inf))[1]
                found[row.series] = row.relation, max(before, row.deviation)
        return found

    def csv(self) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["series", "x", "theory", "measured", "relation", "tolerance"])
        for r in self.rows:
            writer.writerow([r.series, r.x, r.theory, r.measured, r.relation, r.tolerance])
        return out.getvalue()


def sentence(worst: dict[str, tuple[str, float]]) -> str:
    """How far the points are from the line at most, and how much of a bound they reach."""
    equal = [(value, name) for name, (relation, value) in worst.items() if relation == "equal"]
    bound = [(value, name) for name, (relation, value) in worst.items() if relation != "equal"]
    parts = []
    if equal:
        value, name = max(equal)
        parts.append(f"Worst relative distance of a point from its line: {value:.1e} ({name}).")
    if bound:
        value, name = max(bound)
        parts.append(f"Largest share of a bound that is reached: {value:.3g} ({name}).")
    return " ".join(parts)


Draw = Callable[[Data], Any]


@dataclass(frozen=True)
class Figure:
    """A function that draws, with the claims it shows and what to see in it."""

    name: str
    claims: tuple[str, ...]
    caption: str
    draw: Draw

    def write(self, folder: Path) -> dict[str, Any]:
        """PNG, PDF and CSV; returns the entry of the index.

        Raises:
            BrokenLaw: a row breaks the law that the figure shows; nothing is written.
        """
        data = Data()
        with styled(LAYOUT):
            drawn = self.draw(data)
            broken = [row for row in data.rows if not row.holds]
            if broken:
                raise BrokenLaw(f"{self.name}: {len(broken)} of {len(data.rows)} rows, first {broken[0]}")
            for suffix in ("pdf", "png"):
                save(drawn, folder / f"{self.name}.{suffix}")
        write_text(folder / f"{self.name}.csv", data.csv())
        worst = data.worst()
        return {
            "name": self.name,
            "claims": list(self.claims),
            "caption": self.caption,
            "summary": sentence(worst),
            "worst": {
                name: {"relation": how, "deviation": float(f"{x:.3g}")} for name, (how, x) in worst.items()
            },
        }


FIGURES: dict[str, Figure] = {}


def shows(*claims: str, caption: str) -> Callable[[Draw], Draw]:
    """Register a figure under its function's name."""

    def register(draw: Draw) -> Draw:
        FIGURES[draw.__name__] = Figure(draw.__name__, claims, caption, draw)
        return draw

    return register


def axes(*heights: float, **more: Any) -> tuple[Any, Any]:
    """Panels of these heights (inches), one column wide, one below the other."""
    return panels(
        len(heights), figsize=(COLUMN, sum(heights)), gridspec_kw={"height_ratios": heights}, **more
    )


def legend_above(axis: Any, columns: int) -> None:
    """A legend that no point can hide behind."""
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, columnspacing=1.0)


def write_index(folder: Path, entries: list[dict[str, Any]], order: list[str]) -> None:
    """`index.json`, and `captions.md` to read; figures that stood there before keep their entries."""
    place = folder / "index.json"
    try:
        before = [entry for entry in read_json(place) if set(entries[0]) <= set(entry)]
    except (MetakeError, TypeError):  # none yet, or not ours: it is made again
        before = []
    found = {entry["name"]: entry for entry in [*before, *entries]}
    kept = [found[name] for name in order if name in found]
    write_text(place, json.dumps(kept, indent=1) + "\n")
    lines = ["# Figures", ""]
    for entry in kept:
        lines += [
            f"**{entry['name']}** ({', '.join(entry['claims'])}). {entry['caption']} {entry['summary']}",
            "",
            f"![{entry['name']}]({entry['name']}.png)",
            "",
        ]
    write_text(folder / "captions.md", "\n".join(lines))
