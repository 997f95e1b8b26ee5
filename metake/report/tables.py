"""Tables as text, HTML, Markdown and LaTeX."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from html import escape

from rich import box
from rich.console import Console
from rich.table import Table

from metake.requests import visible


def _encoding() -> str:
    """Encoding of stdout."""
    return (getattr(sys.stdout, "encoding", None) or "utf-8").lower()


def _lines() -> box.Box:
    """Lines that stdout can show."""
    return box.HEAVY_HEAD if _encoding().startswith("utf") else box.ASCII


def ellipsis() -> str:
    """An ellipsis that stdout can show."""
    try:
        "…".encode(_encoding())
    except (UnicodeEncodeError, LookupError):
        return "..."
    return "…"


def render(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """A table as plain text; the first column is left-aligned, numbers to the right.

    Args:
        title: the line above the table.
        head: names of the columns.
        rows: cells of each row.
        width: width in characters; by default it follows from the number of columns.

    Returns:
        Lines of the table.
    """
    table = Table(title=title, title_justify="left", header_style="bold", box=_lines())
    for i, name in enumerate(head):
        table.add_column(name, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    stream = io.StringIO()
    Console(file=stream, width=width or max(80, min(160, 14 * len(head) + 20))).print(table)
    return stream.getvalue().rstrip()


def html(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """A table as HTML for a notebook. Every text is escaped, control characters too.

    Args:
        title: caption of the table.
        head: names of the columns.
        rows: cells of each row.
        notes: paragraphs below the table.

    Returns:
        The element.
    """

    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(visible(cell))}</{tag}>" for cell in cells) + "</tr>"

    body = [line("th", head), *(line("td", row) for row in rows)]
    below = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return f"<table><caption>{escape(title)}</caption>{''.join(body)}</table>{below}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown.

    Args:
        head: names of the columns.
        rows: cells of each row.

    Returns:
        Lines of the table.
    """
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def latex(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in LaTeX (booktabs).

    Args:
        head: names of the columns.
        rows: cells of each row.

    Returns:
        The environment `tabular`.
    """
    marks = {"&": r"\&", "%": r"\%", "_": r"\_", "±": r"$\pm$"}

    def line(cells: Sequence[str]) -> str:
        return " & ".join("".join(marks.get(c, c) for c in cell) for cell in cells) + r" \\"

    body = [r"\midrule", *(line(row) for row in rows)]
    columns = "l" + "r" * (len(head) - 1)
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            line(head),
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )
