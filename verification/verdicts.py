"""From evidence to verdicts: one row per claim, computed from what ran and from nothing else."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Template
from rich.console import Console
from rich.table import Table

from metake.files import write_json, write_text
from theory.claims import CLAIMS, Claim
from verification.ledger import LADDER

TIGHT = 0.99  # a bound is called tight if this share of it was reached


@dataclass(frozen=True)
class Outcome:
    """What pytest reported of one test: its claims, how it ended, what it saw."""

    test: str
    outcome: str
    claims: tuple[tuple[str, str, str, bool], ...]  # claim, rung, dropped assumption, refutes
    evidence: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_report(cls, report: Any) -> Outcome:
        found = [(c, rung, more["drops"], more["refutes"])
                 for name, (c, rung, more) in _named(report.user_properties, "checks")]  # fmt: skip
        evidence = [value for _, value in _named(report.user_properties, "evidence")]
        return cls(report.nodeid, report.outcome, tuple(found), evidence[0] if evidence else {})


def _named(properties: Iterable[tuple[str, Any]], wanted: str) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in properties if name == wanted]


@dataclass(frozen=True)
class Verdict:
    """One row of the table.

    Attributes:
        verdict: holds (as stated, for a claim of the paper) / holds corrected / needs more / fails /
            not checked.
        rungs: rungs of the ladder with a test that ran and passed.
        ratio: largest value / bound seen, where the claim is an inequality.
        error: largest error / tolerance seen, where it is an identity.
        dropped: assumption -> counterexample without it.
        unneeded: assumptions of the paper that were dropped without harm.
        refutation: counterexample to the paper's own form.
        skipped: tests that did not run.
    """

    id: str
    title: str
    statement: str
    equations: str
    verdict: str
    rungs: tuple[str, ...]
    examples: int
    ratio: float | None
    error: float | None
    dropped: dict[str, str]
    unneeded: tuple[str, ...]
    refutation: str
    change: str
    failed: tuple[str, ...]
    skipped: int

    @property
    def bound(self) -> str:
        """Tight, or only an upper bound; `exact` for identities."""
        if self.ratio is None:
            return "identity" if self.error is not None else "-"
        return "tight" if self.ratio >= TIGHT else "upper bound"


def _numbers(numbers: tuple[int, ...]) -> str:
    """(21), (22), (23) as `21-23`."""
    runs: list[list[int]] = []
    for n in sorted(numbers):
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)


def _judge(claim: Claim, broken: bool, holds: bool, refuted: bool) -> str:
    if broken:
        return "fails"
    if not holds:
        return "fails" if refuted else "not checked"
    if refuted:
        return "holds corrected" if claim.correction else "needs more"
    return "holds as stated" if claim.origin == "paper" else "holds"


def _judge_claim(claim: Claim, outcomes: list[Outcome]) -> Verdict:
    rungs, failed, dropped, unneeded = set(), [], {}, []
    examples, skipped, ratio, error, refutation, refuted = 0, 0, None, None, "", False
    for outcome in outcomes:
        mine = [entry[1:] for entry in outcome.claims if entry[0] == claim.id]
        for rung, drops, refutes in mine:
            if outcome.outcome == "skipped":
                skipped += 1
                continue
            if outcome.outcome == "failed":
                failed.append(outcome.test.split("::")[-1])
                continue
            seen = outcome.evidence
            examples += seen.get("examples", 0)
            if refutes:
                refuted = True
                refutation = refutation or seen.get("counterexample", "")
            elif rung == "needed":
                dropped[drops] = dropped.get(drops) or seen.get("counterexample", "")
            elif rung == "unneeded":
                unneeded.append(drops)
            else:
                rungs.add(rung)
                ratio = _largest(ratio, seen.get("ratio"))
                error = _largest(error, seen.get("error"))
    return Verdict(
        claim.id, claim.title, claim.statement, _numbers(claim.equations),
        _judge(claim, bool(failed), bool(rungs), refuted),
        tuple(r for r in LADDER if r in rungs), examples, ratio, error, dropped,
        tuple(sorted(set(unneeded))), refutation, claim.correction or claim.addition, tuple(failed), skipped,
    )  # fmt: skip


def _largest(old: float | None, new: float | None) -> float | None:
    return old if new is None else new if old is None else max(old, new)


def verdicts(outcomes: list[Outcome]) -> list[Verdict]:
    """One verdict per claim, in the order of the register.

    Outcomes are put in order first, so that the counterexample that is quoted does not depend on which
    worker was quicker; those of networks and matrices come before bare numbers, and those before what
    the solver of `test_proved` found.
    """
    outcomes = sorted(outcomes, key=lambda o: ("test_proved" in o.test, "test_exact" in o.test, o.test))
    return [_judge_claim(claim, outcomes) for claim in CLAIMS]


def render_terminal(rows: list[Verdict]) -> str:
    """The table as text."""
    table = Table("claim", "equations", "title", "verdict", "rungs", "examples", "ratio", "skipped", box=None)
    for row in rows:
        style = "red" if row.failed else "yellow" if row.verdict in ("not checked", "fails") else None
        table.add_row(
            row.id, row.equations, row.title, row.verdict, " ".join(row.rungs), f"{row.examples:,}",
            "" if row.ratio is None else f"{row.ratio:.3g}", str(row.skipped or ""), style=style,
        )  # fmt: skip
    out = io.StringIO()
    Console(file=out, width=150).print(table)
    return out.getvalue()


def markdown(rows: list[Verdict]) -> str:
    """The table that is committed: only what does not depend on the machine or the profile."""
    lines = [
        "# Verdicts",
        "",
        "Written by `pytest verification/`; one row per claim of `theory/claims.py`. Rungs: "
        + "; ".join(f"*{name}*: {text}" for name, text in LADDER.items())
        + ".",
        "",
        "| claim | equations | statement | verdict | rungs | bound | without an assumption |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        notes = [f"*{key}*: {text}" for key, text in row.dropped.items()]
        notes += [f"*{key}* is not needed" for key in row.unneeded]
        if row.refutation:
            notes.insert(0, f"paper's form: {row.refutation}")
        verdict = row.verdict + (f" ({row.change})" if row.change and row.refutation else "")
        cells = [row.id, row.equations, f"**{row.title}.** {row.statement}", verdict, ", ".join(row.rungs),
                 row.bound, "; ".join(notes)]  # fmt: skip
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def write_verdicts(rows: list[Verdict], folder: Path) -> None:
    """`verdicts.json` with every number, `verdicts.md` as committed, `verdicts.html` to look at."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "verdicts.json", [asdict(row) | {"bound": row.bound} for row in rows])
    write_text(folder / "verdicts.md", markdown(rows))
    page = Template((Path(__file__).parent / "verdicts.html").read_text(encoding="utf-8"), autoescape=True)
    write_text(folder / "verdicts.html", page.render(rows=rows, ladder=LADDER))


def read_verdicts(path: Path) -> list[dict[str, Any]]:
    """Rows of a `verdicts.json`."""
    return json.loads(path.read_text(encoding="utf-8"))
