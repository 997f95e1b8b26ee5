"""The report: one HTML file that opens from disk, figures inside."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from metake.files import write_text


def _embedded(path: Path) -> str:
    kind = {"png": "png", "svg": "svg+xml"}[path.suffix.removeprefix(".")]
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def write_page(
    path: Path,
    *,
    title: str,
    dialogues: Sequence[Mapping[str, Any]],
    sections: Sequence[Mapping[str, Any]],
    glossary: Mapping[str, str],
) -> Path:
    """Write the page.

    Args:
        dialogues: one per edit: `subject`, `target`, and `lines`, each with `kind`, `question`,
            `before`, `wanted` and `answers` (method -> text).
        sections: `title`, `text`, `head`, `rows`, `figures` (paths) for every table.
    """
    environment = Environment(
        loader=PackageLoader("metake", "assets"), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("report.html").render(
        title=title,
        dialogues=dialogues,
        sections=[{**s, "figures": [_embedded(Path(f)) for f in s["figures"]]} for s in sections],
        glossary=glossary,
    )
    write_text(path, page)
    return path
