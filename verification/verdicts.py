"""Verdicts on the claims, one row per claim, computed only from the tests that ran."""

from __future__ import annotations

import inspect
import io
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from metake.files import write_json, write_text
from theory.claims import CLAIMS, Claim, claim
from verification.expected import Evidence, gather, losses
from verification.kernel import Answers, read_record
from verification.ledger import ASIDE, LADDER
from verification.outcome import Outcome
from verification.page import ROOT, VERDICTS, count, modules, statement_anchor, worst_first, write_page

NOT_RUN = "not run here"
TIGHT = 0.99  # a bound is called tight if this share of it was reached


@dataclass(frozen=True)
class Verdict:
    """One row of the table.

    Attributes:
        verdict: holds (as stated, for a claim of the paper) / holds corrected / needs more / fails /
            not checked.
        rungs: rungs of the ladder with a passed test.
        ratio: largest value / bound, if the claim is an inequality.
        error: largest error / tolerance, if it is an identity.
        dropped: assumption -> counterexample to the claim without it.
        unneeded: assumptions of the paper without which the claim holds.
        refutation: counterexample to the paper's form.
        skipped: number of skipped tests.
        tests: kind of evidence -> tests that gave it.
        obligations: number of discharged obligations per kind.
        expected: rungs of a complete run.
        lost: expected evidence that is missing.
        machine_checked: result of Coq's kernel for the claim's statement in the recorded run.
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
    tests: dict[str, tuple[str, ...]] = field(default_factory=dict)
    obligations: dict[str, int] = field(default_factory=dict)
    expected: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    machine_checked: str = NOT_RUN

    @property
    def text(self) -> str:
        """The verdict, with the evidence that is missing: `holds (2 of 6 rungs; 9 tests gave less evidence)`."""
        missing = set(self.expected) - set(self.rungs)
        notes = [f"{len(self.expected) - len(missing)} of {len(self.expected)} rungs"] if missing else []
        tests = len({line.split(": ")[1].split(" ")[0] for line in self.lost})
        notes += [f"{tests} test{'s' * (tests != 1)} gave less evidence"] if tests else []
        return self.verdict + (f" ({'; '.join(notes)})" if notes else "")

    @property
    def bound(self) -> str:
        """`tight`, `upper bound`, or `identity`; `-` if nothing was measured."""
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


def _machine_checked(id: str, recorded: Answers | None) -> str:
    """Cell of the table; `recorded` is a run of Coq on these sources, or None."""
    if recorded is not None and id in recorded.proved:
        return "yes" + "".join(f", with {axiom}" for axiom in recorded.proved[id])
    if recorded is not None and id in recorded.refused:
        return f"no: {recorded.refused[id]}"
    return NOT_RUN


def _judge_claim(
    claim: Claim, outcomes: list[Outcome], expected: Evidence, found: Evidence, recorded: Answers | None
) -> Verdict:
    rungs, failed, dropped, unneeded = set(), [], {}, []
    examples, skipped, ratio, error, refutation, refuted = 0, 0, None, None, "", False
    obligations: Counter[str] = Counter()
    for outcome in outcomes:
        mine = [entry[1:] for entry in outcome.claims if entry[0] == claim.id]
        if mine and outcome.state == "passed":
            obligations.update(outcome.evidence.get("obligations", {}))
        for rung, drops, refutes in mine:
            if outcome.state == "skipped":
                skipped += 1
            elif outcome.state == "failed":
                failed.append(outcome.test.split("::")[-1])
            if outcome.state != "passed":
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
        claim.id,
        claim.title,
        claim.statement,
        _numbers(claim.equations),
        _judge(claim, bool(failed), bool(rungs), refuted),
        tuple(r for r in LADDER if r in rungs),
        examples,
        ratio,
        error,
        dropped,
        tuple(sorted(set(unneeded))),
        refutation,
        claim.correction or claim.addition,
        tuple(failed),
        skipped,
        {
            kind: tuple(sorted(found[claim.id][kind]))
            for kind in LADDER | ASIDE
            if kind in found.get(claim.id, {})
        },
        dict(sorted(obligations.items())),
        tuple(r for r in LADDER if r in expected.get(claim.id, {})),
        losses(expected, found, claim.id),
        _machine_checked(claim.id, recorded),
    )


def _largest(old: float | None, new: float | None) -> float | None:
    return old if new is None else new if old is None else max(old, new)


def verdicts(outcomes: list[Outcome], expected: Evidence | None = None) -> list[Verdict]:
    """One verdict per claim, in the order of the register.

    Outcomes are sorted first, so that the quoted counterexample does not depend on the order of parallel workers:
    counterexamples from networks and matrices, then single numbers, then those found by the solver of `test_proved`.

    Args:
        expected: evidence of a complete run, against which losses are counted.
    """
    outcomes = sorted(outcomes, key=lambda o: ("test_proved" in o.test, "test_exact" in o.test, o.test))
    found, recorded = gather(outcomes), read_record()
    return [_judge_claim(entry, outcomes, expected or {}, found, recorded) for entry in CLAIMS]


def render_terminal(rows: list[Verdict]) -> str:
    """The table as text."""
    table = Table("claim", "equations", "title", "verdict", "rungs", "examples", "ratio", "skipped", box=None)
    for row in worst_first(rows):
        style = (
            "red" if row.failed or row.lost else "yellow" if row.verdict in ("not checked", "fails") else None
        )
        table.add_row(
            row.id,
            row.equations,
            row.title,
            row.text,
            " ".join(row.rungs),
            f"{row.examples:,}",
            "" if row.ratio is None else f"{row.ratio:.3g}",
            str(row.skipped or ""),
            style=style,
        )
    out = io.StringIO()
    Console(file=out, width=150).print(table)
    return out.getvalue()


def files_of_tests(row: Verdict) -> tuple[str, ...]:
    """Files of the tests that gave evidence."""
    return tuple(sorted({test.split("::")[0] for tests in row.tests.values() for test in tests}))


def _counts(row: Verdict, expected: Evidence) -> str:
    """`random 8, proved 2`: tests per rung, without those of another machine or profile."""
    return ", ".join(f"{rung} {count(row, rung, expected).found}" for rung in row.rungs)


def _legend() -> str:
    """Meaning of the column `machine-checked`, with the recorded run of Coq."""
    recorded = read_record()
    run = (
        f"{NOT_RUN}: run `make proofs-accept`"
        if recorded is None
        else f"from the run of Coq {recorded.coq} on the sources with sha256 {recorded.sources[:16]} (`make proofs` repeats it)"
    )
    return (
        "*machine-checked*: Coq's kernel accepts the proof of the claim's statement in [proofs.md](proofs.md), in "
        f"every dimension and without axioms that are not named; of a claim that fails, its failure; {run}."
    )


def markdown(rows: list[Verdict], expected: Evidence | None = None) -> str:
    """The committed table, without values that depend on the machine or the profile."""
    lines = [
        "# Verdicts",
        "",
        "Written by `make verify`; one row per claim of `theory/claims.py`, claims that fail first.",
        "",
        "Verdicts: " + "; ".join(f"*{name}*: {text}" for name, text in VERDICTS.items()) + ".",
        "",
        "Rungs, with the number of tests that gave evidence: "
        + "; ".join(f"*{name}*: {rung.text}" for name, rung in LADDER.items())
        + ".",
        "",
        _legend(),
        "",
        "| claim | equations | statement | verdict | rungs | machine-checked | bound | without an assumption | where |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in worst_first(rows):
        notes = [f"*{key}*: {text}" for key, text in row.dropped.items()]
        notes += [f"*{key}* is not needed" for key in row.unneeded]
        if row.refutation:
            notes.insert(0, f"paper's form: {row.refutation}")
        verdict = row.text + (f" ({row.change})" if row.change and row.refutation else "")
        where = [f"[{m}](../theory/{m}.py), [derivation](../theory/derive_{m}.py)" for m in modules(row)]
        where += [
            f"[{f.removeprefix('test_').removesuffix('.py')}](../verification/{f})"
            for f in files_of_tests(row)
        ]
        cells = [
            f"[{row.id}](theory.md#{statement_anchor(row)})",
            row.equations,
            f"**{row.title}.** {row.statement}",
            verdict,
            _counts(row, expected or {}),
            row.machine_checked,
            row.bound,
            "; ".join(notes),
            ", ".join(where),
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def write_verdicts(rows: list[Verdict], folder: Path, expected: Evidence | None = None) -> None:
    """Write `verdicts.json` (all values), `verdicts.md` (the committed table) and `verdicts.html` (a page)."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / "verdicts.json", [asdict(row) | {"bound": row.bound, "text": row.text} for row in rows]
    )
    write_text(folder / "verdicts.md", markdown(rows, expected))
    write_page(folder / "verdicts.html", rows, expected or {})


def read_verdicts(path: Path) -> list[dict[str, Any]]:
    """Rows of a `verdicts.json`."""
    return json.loads(path.read_text(encoding="utf-8"))


def card(id: str, outcomes: list[Outcome], expected: Evidence) -> str:
    """One claim as text: statement, files, tests per kind of evidence and counterexamples."""
    row = next(v for v in verdicts(outcomes, expected) if v.id == id)
    entry = claim(id)
    lines = [f"{id}. {row.title}: {row.text}", f"  {row.statement}", "", "statement and derivation"]
    lines.append(f"  docs/theory.md#{statement_anchor(row)}")
    for function in entry.resolve():
        file = Path(inspect.getfile(function)).relative_to(ROOT)
        lines.append(f"  {file}:{inspect.getsourcelines(function)[1]} {function.__name__}")
    lines += [f"  theory/derive_{module}.py" for module in modules(row)]
    for kind in [k for k in LADDER | ASIDE if k in row.tests or k in expected.get(id, {})]:
        lines += ["", f"{kind}: {(LADDER | ASIDE)[kind].text}"]
        lines += [f"  verification/{test}" for test in row.tests.get(kind, ())]
    shown = [f"  without {key} ({entry.assumptions[key]}): {text}" for key, text in row.dropped.items()]
    shown += [f"  paper's form: {row.refutation}"] if row.refutation else []
    lines += ["", "counterexamples", *shown] if shown else []
    lines += ["", "missing", *(f"  {line}" for line in row.lost)] if row.lost else []
    lines += ["", "failed", *(f"  {test}" for test in row.failed)] if row.failed else []
    return "\n".join(lines) + "\n"
