"""Refusals of unknown names, with the known names that are spelled alike."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from metake.errors import MetakeError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean 'demo'?` for up to three known names spelled alike, whatever their case; empty for none."""
    by_lower: dict[str, str] = {}
    for candidate in known:
        by_lower.setdefault(candidate.lower(), candidate)
    close = get_close_matches(name.strip().lower(), by_lower, n=3, cutoff=0.7)
    return f"did you mean {' or '.join(repr(by_lower[match]) for match in close)}?" if close else ""


def unknown_name(where: str, name: object, known: Iterable[str], remedy: str = "") -> MetakeError:
    """The error for a name that is not among the known ones; close spellings stand before the list.

    Args:
        where: what the name is for, e.g. `--method`; begins the line.
        remedy: what else can be done; ends the line.
    """
    known = list(known)
    parts = [did_you_mean(str(name), known), f"known: {', '.join(known)}"]
    line = " ".join(part for part in parts if part)
    return MetakeError(f"{where}: unknown {name!r}; {line}" + (f"; {remedy}" if remedy else ""))
