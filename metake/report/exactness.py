"""Figure of free answers: those that equal the target, against what stayed on unrelated prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metake.report.figures import line_styles, panels, save, styled

KEPT = "agreement"
METRICS = {"generation": "edited prompt", "generation_rephrase": "rephrased prompt"}


def plot_exactness(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Exact free answers against agreement: one point per method, with 95% intervals over the records.

    Args:
        rows: methods of a result file, each with `method`, `mean` and `interval`, of agreement and of exact free answers.
        path: the file (png, pdf or svg).

    Returns:
        Path of the file.
    """
    metrics = [name for name in METRICS if all(name in row["interval"] for row in rows)]
    with styled():
        figure, axes = panels(
            1, len(metrics), figsize=(0.6 + 2.9 * len(metrics), 3.2), sharey=True, squeeze=False
        )
        for axis, metric in zip(axes[0], metrics, strict=True):
            for row, (color, marker, _) in zip(
                rows, line_styles(r["method"] for r in rows).values(), strict=True
            ):
                x, y = (100 * row["mean"][name] for name in (KEPT, metric))
                bars = [
                    [[abs(100 * end - middle)] for end in row["interval"][name]]
                    for name, middle in ((KEPT, x), (metric, y))
                ]
                axis.errorbar(
                    x, y, bars[1], bars[0], color=color, marker=marker, ls="", ms=5, elinewidth=0.7, capsize=2,
                    label=row["method"],
                )  # fmt: skip
            axis.set(title=METRICS[metric], xlabel="agreement (%)", ylim=(-2, 102))
        axes[0, 0].set_ylabel("exact free answers (%)")
        legend = axes[0, 0].get_legend_handles_labels()
        figure.legend(*legend, loc="outside lower center", ncols=min(3, len(rows)), frameon=False)
        return save(figure, path)
