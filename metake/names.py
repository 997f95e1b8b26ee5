"""Errors for unknown names, with suggestions of similar known names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from metake.errors import MetakeError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean 'demo'?` with up to three similar known names, ignoring case; empty if there are none.

    Args:
        name: the unknown name.
        known: all known names.

    Returns:
        The question, or an empty string.
    """
    by_lower: dict[str, str] = {}
    for candidate in known:
        by_lower.setdefault(candidate.lower(), candidate)
    close = get_close_matches(name.strip().lower(), by_lower, n=3, cutoff=0.7)
    return f"did you mean {' or '.join(repr(by_lower[match]) for match in close)}?" if close else ""


def unknown_name(where: str, name: object, known: Iterable[str], remedy: str = "") -> MetakeError:
    """Error for an unknown name: similar names first, then all known names.

    Args:
        where: the name's role, e.g. `--method`; begins the line.
        name: the unknown name.
        known: all known names.
        remedy: an alternative for the user; ends the line.

    Returns:
        The error, to be raised.
    """
    known = list(known)
    parts = [did_you_mean(str(name), known), f"known: {', '.join(known)}"]
    line = " ".join(part for part in parts if part)
    return MetakeError(f"{where}: unknown {name!r}; {line}" + (f"; {remedy}" if remedy else ""))
