"""Reports: one HTML file each that opens from disk, with its figures inside."""

from __future__ import annotations

import base64
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import BaseLoader, ChoiceLoader, Environment, PackageLoader, StrictUndefined

from metake.files import write_text
from metake.report.answers import Dialogue


@dataclass(frozen=True)
class Picture:
    """A figure of a page.

    Attributes:
        path: a PNG or SVG file.
        alt: what the figure shows, for a reader who does not see it.
        caption: the line below it.
    """

    path: Path
    alt: str
    caption: str

    @property
    def source(self) -> str:
        """The file as a data URI."""
        kind = {".png": "png", ".svg": "svg+xml"}[self.path.suffix]
        return f"data:image/{kind};base64,{base64.b64encode(self.path.read_bytes()).decode()}"

    @property
    def shape(self) -> str:
        """`wide` for a figure that a phone has to scroll, `tall` for one that fits its width."""
        if self.path.suffix != ".png":
            return "wide"
        width, height = struct.unpack(">II", self.path.read_bytes()[16:24])  # of the PNG's header
        return "wide" if width > 1.4 * height else "tall"


@dataclass(frozen=True)
class Section:
    """A part of a page: text, then dialogues, a table and figures, where there are any.

    Attributes:
        head, rows: the table; the first cell of a row names it.
        caption: of the table; the section's title if empty.
    """

    title: str
    paragraphs: Sequence[str] = ()
    dialogues: Sequence[Dialogue] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    caption: str = ""
    pictures: Sequence[Picture] = ()

    @property
    def filters(self) -> list[tuple[str, int]]:
        """Filters of the dialogues by wrong answers: label and number of dialogues; none without a wrong answer.

        Their numbers are those of `Dialogue.wrong`; all dialogues have the same models.
        """
        shown = Counter(number for talk in self.dialogues for number in talk.wrong)
        if len(self.dialogues) < 2 or not shown:
            return []
        labels = ["any wrong answer", *(f"wrong: {name}" for name in self.dialogues[0].good)]
        return [(label, shown[number]) for number, label in enumerate(labels)]


def shortened(text: str, width: int = 160) -> str:
    """The beginning of a text with an ellipsis; the text itself if it is not longer than `width` characters.

    Args:
        text: the text.
        width: number of characters.

    Returns:
        At most `width` characters.
    """
    return text if len(text) <= width else f"{text[: width - 1].rstrip()}…"


def render_page(template: str, *, loader: BaseLoader | None = None, **content: Any) -> str:
    """HTML of a template that extends `base.html`; every value is escaped.

    Args:
        template: name of the template.
        loader: of templates outside the package.
        **content: values of the template.

    Returns:
        The page.
    """
    shipped = PackageLoader("metake", "assets")
    environment = Environment(
        loader=ChoiceLoader([loader, shipped]) if loader else shipped,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["shortened"] = shortened
    return environment.get_template(template).render(**content)


def write_page(
    path: Path, *, title: str, sections: Sequence[Section], glossary: Mapping[str, str] | None = None
) -> Path:
    """Write a page.

    Args:
        path: the file.
        title: title of the page.
        sections: its sections, in order.
        glossary: what is explained at the end: name -> meaning.

    Returns:
        Path of the file.
    """
    write_text(path, render_page("report.html", title=title, sections=sections, glossary=glossary or {}))
    return path
