"""Figure of a survey: measurements per layer at both lookup tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metake.report.figures import BLUE, RED, LineStyle, panels, save, styled

LOOKUP_STYLES: dict[str, LineStyle] = {"subject": (BLUE, "s", "--"), "prompt": (RED, "o", "-")}
PANELS = {  # field of a row -> title
    "cosine": r"mean $|\cos|$ of keys",
    "scale": "RMS of the stream",
    "eta": r"attenuation $\eta$",
    "probability": "reach",
    "cost": "cost (X14)",
}


def plot_survey(rows: Sequence[Mapping[str, Any]], chosen: Sequence[int], path: Path) -> Path:
    """Draw one small panel per measurement, over the layers; the chosen layers are shaded.

    Args:
        rows: `lookup`, `layer` and the fields of `PANELS`, of each lookup and layer.
        chosen: layers that the default would edit.
        path: the file (png, pdf or svg).

    Returns:
        Path of the file.
    """
    layers = sorted({row["layer"] for row in rows})
    with styled():
        figure, axes = panels(1, len(PANELS), figsize=(6.8, 1.9))
        for axis, (field, title) in zip(axes, PANELS.items(), strict=True):
            axis.axvspan(min(chosen) - 0.4, max(chosen) + 0.4, color="0.92", lw=0, label="chosen layers")
            for lookup, (color, marker, line) in LOOKUP_STYLES.items():
                own = [row for row in rows if row["lookup"] == lookup]
                x, y = [row["layer"] for row in own], [row[field] for row in own]
                axis.plot(
                    x, y, marker=marker, ls=line, ms=3.5, lw=1, color=color, label=f"{lookup}'s last token"
                )
            axis.set(title=title, xlabel="layer", xlim=(layers[0] - 0.5, layers[-1] + 0.5))
            axis.set_xticks(layers[:: -(-len(layers) // 6)])
            axis.set_ylim(0, None if field in ("scale", "cost") else 1.02)
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
        )
        return save(figure, path)
