"""Figures with a table of their points, and the relation of each point to the theory.

A row of the table is `series, x, theory, measured, relation, tolerance`. The relation of the measured value to the
theory is `equal` (to the relative tolerance), `below`, `above`, or `shown` (not checked). One call adds rows and draws
their points, so that every point of a figure is checked.
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
from metake.files import read_json, write_text
from metake.report.figures import STYLE, panels, save, styled

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


class RelationViolated(Exception):
    """A measured value does not satisfy its relation to the theory."""


@dataclass(frozen=True)
class Row:
    """A point of a figure.

    Attributes:
        series: name of the points that belong together.
        x: abscissa.
        theory: value of the theory.
        measured: value of the library.
        relation: `equal`, `below`, `above` or `shown`.
        tolerance: permitted excess, relative to `theory`.
    """

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
        """Whether the numbers are finite and satisfy the relation."""
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
        """Add rows; the numbers are broadcast.

        Args:
            series: name of the points.
            x: abscissae.
            theory: values of the theory.
            measured: values of the library.
            relation: `equal`, `below`, `above` or `shown`.
            tolerance: permitted excess, relative to `theory`.
        """
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
        **line_style: Any,
    ) -> None:
        """Add rows and draw their points.

        Args:
            axis: axes of the points.
            series: name of the points, and their label unless `line_style` has one.
            x: abscissae.
            theory: values of the theory.
            measured: values of the library, the ordinates.
            relation: `equal`, `below`, `above` or `shown`.
            tolerance: permitted excess, relative to `theory`.
            marker: marker of the points.
            **line_style: further arguments of `Axes.plot`.
        """
        self.add(series, x, theory, measured, relation, tolerance)
        hollow = {} if marker == "." else {"mfc": "none"}
        axis.plot(x, measured, marker, **{"label": series, "mew": 0.8, **hollow, **line_style})

    def worst(self) -> dict[str, tuple[str, float]]:
        """Series -> relation and largest deviation, of the series that are checked."""
        found: dict[str, tuple[str, float]] = {}
        for row in self.rows:
            if row.relation != "shown":
                before = found.get(row.series, ("", -np.inf))[1]
                found[row.series] = row.relation, max(before, row.deviation)
        return found

    def csv(self) -> str:
        """The table as CSV."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["series", "x", "theory", "measured", "relation", "tolerance"])
        for r in self.rows:
            writer.writerow([r.series, r.x, r.theory, r.measured, r.relation, r.tolerance])
        return out.getvalue()


def sentence(worst: dict[str, tuple[str, float]]) -> str:
    """Summary of a figure: largest distance of a point from its line, and largest share of a bound that is reached.

    Args:
        worst: series -> relation and largest deviation.

    Returns:
        Up to two sentences.
    """
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
    """A drawing with its claims and its caption.

    Attributes:
        name: name of the files, without suffix.
        claims: IDs of the claims that it shows.
        caption: caption.
        draw: function that adds the points to a table and returns the figure.
        models: demo models whose measurements it draws, beside the one that the package contains.
    """

    name: str
    claims: tuple[str, ...]
    caption: str
    draw: Draw
    models: tuple[str, ...] = ()

    def write(self, folder: Path) -> dict[str, Any]:
        """Write PNG, PDF and CSV.

        Args:
            folder: folder of the files.

        Returns:
            The entry of the index.

        Raises:
            RelationViolated: a row does not satisfy its relation to the theory; nothing is written.
        """
        data = Data()
        with styled(LAYOUT):
            drawn = self.draw(data)
            broken = [row for row in data.rows if not row.holds]
            if broken:
                raise RelationViolated(
                    f"{self.name}: {len(broken)} of {len(data.rows)} rows, first {broken[0]}"
                )
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


def shows(*claims: str, caption: str, models: tuple[str, ...] = ()) -> Callable[[Draw], Draw]:
    """Decorator that registers a figure under the name of its function.

    Args:
        *claims: IDs of the claims that it shows.
        caption: caption.
        models: demo models whose measurements it draws, beside the one that the package contains.

    Returns:
        The decorator.
    """

    def register(draw: Draw) -> Draw:
        FIGURES[draw.__name__] = Figure(draw.__name__, claims, caption, draw, models)
        return draw

    return register


def axes(*heights: float, **more: Any) -> tuple[Any, Any]:
    """A figure and its axes, one below the other, one column of a paper wide.

    Args:
        *heights: height of each panel, in inches.
        **more: further arguments of `panels`.

    Returns:
        The figure and its axes.
    """
    return panels(
        len(heights), figsize=(COLUMN, sum(heights)), gridspec_kw={"height_ratios": heights}, **more
    )


def legend_above(axis: Any, columns: int) -> None:
    """Place a legend above the axes, where it hides no point.

    Args:
        axis: the axes.
        columns: number of columns.
    """
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, columnspacing=1.0)


def write_index(folder: Path, entries: list[dict[str, Any]], order: list[str]) -> None:
    """Write `index.json` and `captions.md`; earlier entries of other figures are kept.

    Args:
        folder: folder of the files.
        entries: entries of the figures that were written.
        order: names of all figures, in the order of the index.
    """
    place = folder / "index.json"
    try:
        before = [entry for entry in read_json(place) if set(entries[0]) <= set(entry)]
    except (MetakeError, TypeError):  # there is none, or it has another format
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
