"""Formulas as MathML, which browsers draw themselves: no script and no font is loaded."""

from __future__ import annotations

import html
import re
import unicodedata

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)

ALPHABET = re.compile(r"\\math(bb|cal)\s*\{?([A-Z])\}?")  # letters that browsers do not restyle
STYLES = {"bb": "DOUBLE-STRUCK", "cal": "SCRIPT"}
LONG = 60  # characters of LaTeX, above which a formula scrolls by itself on a phone


def letter(found: re.Match[str]) -> str:
    """The Unicode letter of `\\mathbb R`."""
    name = f"{STYLES[found[1]]} CAPITAL {found[2]}"
    try:
        return unicodedata.lookup(name)
    except KeyError:
        return unicodedata.lookup(f"MATHEMATICAL {name}")


def mathml(found: re.Match[str]) -> str:
    """The MathML of a formula that arithmatex marked."""
    display = "block" if found[1] == "div" else "inline"
    latex = html.unescape(found[2])
    kind = "formula long" if len(latex) > LONG else "formula"
    return f'<{found[1]} class="{kind}">{convert(ALPHABET.sub(letter, latex), display=display)}</{found[1]}>'


def on_page_content(content: str, **_: object) -> str:
    """Replace the formulas of a page."""
    return FORMULA.sub(mathml, content)
