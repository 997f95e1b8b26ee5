"""The verdicts as a page: which claims hold, on what evidence, with links to statements, derivations and tests."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import FileSystemLoader

from metake.files import write_text
from metake.report.page import render_page
from theory.claims import claim
from verification.expected import Evidence
from verification.ledger import ASIDE, LADDER

if TYPE_CHECKING:
    from verification.verdicts import Verdict

ROOT = Path(__file__).resolve().parent.parent
VERDICTS = {
    "fails": "a counterexample to the claim was found, or a test of it failed",
    "not checked": "no test ran",
    "needs more": "holds with an assumption that the paper does not make; its own form has a counterexample",
    "holds corrected": "holds in another form; the paper's has a counterexample",
    "holds as stated": "holds as the paper states it",
    "holds": "holds; not a numbered statement of the paper",
}
MARKS = {"fails": "✗", "not checked": "○", "needs more": "◐"}  # of all others: ✓
OBLIGATIONS = {
    "compared": "comparisons",
    "exact": "exact comparisons",
    "searched": "searches",
    "derived": "symbolic derivations",
    "enclosed": "enclosures",
    "proved": "proofs",
    "rejected": "counterexamples checked",
}


def worst_first(rows: Iterable[Verdict]) -> list[Verdict]:
    """Broken and lost evidence first, then by verdict; else in the register's order."""
    order = list(VERDICTS)
    return sorted(rows, key=lambda row: (not row.failed, not row.lost, order.index(row.verdict)))


def statement_anchor(row: Verdict) -> str:
    """Place of a claim in docs/theory.md, as GitHub names it."""
    kept = [c for c in f"{row.id} {row.title}".lower() if c.isalnum() or c in " -_"]
    return "".join(kept).replace(" ", "-")


def modules(row: Verdict) -> tuple[str, ...]:
    """Modules of `theory` that state a claim."""
    return tuple(dict.fromkeys(name.split(".")[0] for name in claim(row.id).functions))


@dataclass(frozen=True)
class Count:
    """Tests that gave one kind of evidence on a claim.

    Attributes:
        tests: passed tests with this evidence.
        found: number of expected tests among them, or of all if no evidence is expected on the claim.
        wanted: number of expected tests.
    """

    tests: tuple[str, ...]
    found: int
    wanted: int

    @property
    def lost(self) -> bool:
        return self.found < self.wanted

    @property
    def text(self) -> str:
        """`4`, `3 of 4`, or `-` where none is expected."""
        return f"{self.found} of {self.wanted}" if self.lost else str(self.found) if self.found else "-"


def count(row: Verdict, kind: str, expected: Evidence) -> Count:
    """Tests of one kind of evidence; those of another machine or profile, which nothing expects, do not count."""
    wanted = expected.get(row.id, {}).get(kind, {})
    tests = row.tests.get(kind, ())
    found = [test for test in tests if test in wanted] if expected.get(row.id) else tests
    return Count(tests, len(found), len(wanted))


def summary(rows: Sequence[Verdict]) -> list[str]:
    """How many claims have which verdict, and whether tests failed or evidence is missing."""
    counts = Counter(row.verdict for row in rows)
    broken = [row.id for row in rows if row.failed]
    lost = [row.id for row in rows if row.lost]
    return [
        f"{len(rows)} claims. "
        + "; ".join(f"{name}: {counts[name]}" for name in VERDICTS if counts[name])
        + ".",
        f"Tests failed for {', '.join(broken)}." if broken else "No test failed.",
        f"Expected evidence is missing for {', '.join(lost)}."
        if lost
        else "No expected evidence is missing.",
    ]


def write_page(path: Path, rows: Iterable[Verdict], expected: Evidence) -> Path:
    """Path of the page.

    Args:
        expected: the evidence of a complete run.
    """
    rows = worst_first(rows)
    kinds = {row.id: {kind: count(row, kind, expected) for kind in LADDER | ASIDE} for row in rows}
    html = render_page(
        "page.html",
        loader=FileSystemLoader(Path(__file__).parent),
        title="MetaKE: verdicts on the claims",
        rows=rows,
        counts=kinds,
        ladder=LADDER,
        aside=ASIDE,
        obligations=OBLIGATIONS,
        verdicts=VERDICTS,
        marks=MARKS,
        summary=summary(rows),
        anchor=statement_anchor,
        modules=modules,
        assumptions={row.id: claim(row.id).assumptions for row in rows},
        root=os.path.relpath(ROOT, path.parent.resolve()),
    )
    write_text(path, html)
    return path
