"""Table, figures and page of a measurement."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from metake.drift.figures import WORDS, draw
from metake.drift.verdict import INTRODUCTION, MEANINGS, sentences, table
from metake.evaluation.page import write_layers
from metake.files import write_text
from metake.report.page import Picture, Section, write_page
from metake.report.tables import render
from metake.words import counted


def write_csv(content: dict[str, Any], path: Path) -> None:
    """Write a table with one line per edit and point, and one column per quantity and layer.

    Args:
        content: content of `drift.json`.
        path: the file.
    """
    rows = []
    for i, edit in enumerate(content["edits"]):
        points = {"start": edit["start"], "compensated": edit["compensated"], **edit["strengths"]}
        for point, values in points.items():
            row: dict[str, Any] = {"edit": i, "subject": edit["request"][1], "point": point}
            for name, value in values.items():
                if isinstance(value, list):
                    row |= {f"{name} {layer}": x for layer, x in zip(content["layers"], value, strict=True)}
                elif isinstance(value, dict):
                    row |= {f"{name} {key}": x for key, x in value.items()}
                elif value is not None:
                    row[name] = value
            rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, stream.getvalue())


def report(content: dict[str, Any], out: Path) -> None:
    """Write table, figures and page, and print the verdict.

    Args:
        content: content of `drift.json`.
        out: folder of the files.
    """
    write_csv(content, out / "drift.csv")
    figures = draw(content, out)
    head, rows = table(content["verdicts"]["start"])
    words = sentences(content["verdicts"]["start"])
    title = (
        f"{content['model']}: Theorem 3 at the plan of {counted(len(content['edits']), 'edit')}, "
        f"layers {write_layers(content['layers'])}"
    )
    pictures = [Picture(path, *WORDS[path.stem]) for path in figures]
    write_page(
        out / "report.html",
        title=title,
        sections=[
            Section(
                "Verdict",
                [INTRODUCTION, *words],
                head=head,
                rows=rows,
                pictures=pictures,
                caption="Premises and conclusions of Theorem 3, and the parts of the proxy's error",
            )
        ],
        glossary=MEANINGS,
    )
    print(render(title, head, rows, width=110))
    print("\n".join(words))
    print(f"written: {out / 'report.html'}, drift.json, drift.csv and {len(figures)} figures")
