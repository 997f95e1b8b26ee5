"""What a figure is: a drawing, the numbers in it, and what they have to obey.

Numbers are rows `series, x, theory, measured, relation, tolerance`. The relation says how measurement
stands to theory: `equal` to the tolerance (relative), `below` it, `above` it, or `shown` beside it.
So a figure cannot show a broken law unnoticed.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from metake.files import write_text
from metake.report.figures import STYLE, save

COLUMN = 3.4  # inches, one column of a paper
# Okabe and Ito's palette: told apart with any colour vision
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
LAYOUT = {**STYLE, "savefig.dpi": 300, "font.size": 8, "legend.frameon": False, "legend.handlelength": 1.4,
          "lines.linewidth": 1.1, "lines.markersize": 3.2, "pdf.fonttype": 42}  # fmt: skip


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
        """Relative distance for `equal`, measured / theory for `below`, theory / measured for `above`."""
        if self.relation == "equal":
            return abs(self.measured - self.theory) / max(abs(self.theory), np.finfo(float).tiny)
        top, bottom = (
            (self.measured, self.theory) if self.relation == "below" else (self.theory, self.measured)
        )
        return top / bottom if bottom else np.inf

    @property
    def holds(self) -> bool:
        if self.relation == "shown":
            return True
        sign = {"equal": 0, "below": 1, "above": -1}[self.relation]
        slack = self.tolerance * abs(self.theory)
        away = self.measured - self.theory
        return abs(away) <= slack if sign == 0 else sign * away <= slack


@dataclass
class Data:
    """Rows of one figure."""

    rows: list[Row] = field(default_factory=list)

    def add(self, series: str, x: Iterable, theory: Iterable, measured: Iterable, relation: str, tolerance: float = 0.0) -> None:  # fmt: skip
        for a, b, c in zip(x, theory, measured, strict=True):
            self.rows.append(Row(series, float(a), float(b), float(c), relation, tolerance))

    def worst(self) -> dict[str, float]:
        """Largest deviation per series that has to obey something."""
        found: dict[str, float] = {}
        for row in self.rows:
            if row.relation != "shown":
                found[row.series] = max(found.get(row.series, 0.0), row.deviation)
        return found

    def csv(self) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["series", "x", "theory", "measured", "relation", "tolerance"])
        for r in self.rows:
            numbers = (f"{v:.9g}" for v in (r.x, r.theory, r.measured))
            writer.writerow([r.series, *numbers, r.relation, f"{r.tolerance:.3g}"])
        return out.getvalue()


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
            AssertionError: a row breaks the law that the figure shows.
        """
        data = Data()
        with plt.rc_context(LAYOUT):
            drawn = self.draw(data)
            broken = [row for row in data.rows if not row.holds]
            assert not broken, f"{self.name}: {broken[0]}"
            for suffix in ("pdf", "png"):
                save(drawn, folder / f"{self.name}.{suffix}")
        write_text(folder / f"{self.name}.csv", data.csv())
        worst = {k: float(f"{v:.3g}") for k, v in data.worst().items()}
        return {"name": self.name, "claims": list(self.claims), "caption": self.caption, "deviation": worst}


FIGURES: dict[str, Figure] = {}


def shows(*claims: str, caption: str) -> Callable[[Draw], Draw]:
    """Register a figure under its function's name."""

    def register(draw: Draw) -> Draw:
        FIGURES[draw.__name__] = Figure(draw.__name__, claims, caption, draw)
        return draw

    return register


def axes(rows: int = 1, height: float = 2.3, **more: Any) -> tuple[Any, Any]:
    """One column wide."""
    return plt.subplots(rows, 1, figsize=(COLUMN, height * rows), layout="constrained", **more)


def write_index(folder: Path, entries: list[dict[str, Any]]) -> None:
    """`index.json`, and `captions.md` to read."""
    write_text(folder / "index.json", json.dumps(entries, indent=1) + "\n")
    lines = ["# Figures", ""]
    for entry in entries:
        parts = ", ".join(f"{name} {value:.2g}" for name, value in entry["deviation"].items())
        lines += [f"**{entry['name']}** ({', '.join(entry['claims'])}). {entry['caption']}",
                  f"Deviation (relative, or share of the bound reached): {parts or 'none to obey'}.", "",
                  f"![{entry['name']}]({entry['name']}.png)", ""]  # fmt: skip
    write_text(folder / "captions.md", "\n".join(lines))
