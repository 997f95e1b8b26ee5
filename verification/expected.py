"""Expected evidence of a complete run: for every claim and rung, the tests and the obligations they discharge.

`expected.json` is committed. After tests were added or removed on purpose, `pytest verification/ --accept` rewrites it.
In any other run, a test that is missing, skipped or hollow, or that discharges fewer obligations, is a loss.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from metake.files import write_text
from verification.ledger import evidence_kind
from verification.outcome import Outcome

PATH = Path(__file__).parent / "expected.json"

#: Kinds of obligations whose number per test is the same on every machine; of other kinds one is required.
COUNTED = frozenset({"derived", "enclosed", "proved", "rejected"})

#: claim -> kind of evidence -> test -> `cases` that passed and obligations discharged
Evidence = dict[str, dict[str, dict[str, dict[str, int]]]]


def gather(outcomes: Iterable[Outcome]) -> Evidence:
    """Evidence of the passed tests."""
    found: Evidence = {}
    for outcome in outcomes:
        if outcome.state != "passed":
            continue
        obligations = outcome.evidence.get("obligations", {})
        for claim, rung, _, refutes in outcome.claims:
            tests = found.setdefault(claim, {}).setdefault(evidence_kind(rung, refutes), {})
            entry = tests.setdefault(outcome.function, {"cases": 0})
            entry["cases"] += 1
            for kind, count in obligations.items():
                counted = kind in COUNTED and not outcome.sampled
                entry[kind] = entry.get(kind, 0) + count if counted else 1
    return found


def losses(expected: Evidence, found: Evidence, claim: str) -> tuple[str, ...]:
    """Expected evidence on a claim that is missing, one line per loss."""
    lines = []
    for kind, tests in expected.get(claim, {}).items():
        for test, wanted in tests.items():
            got = found.get(claim, {}).get(kind, {}).get(test)
            if got is None:
                lines.append(f"{kind}: {test} gave no evidence")
                continue
            lines += [
                f"{kind}: {test}: {got.get(name, 0)} of {count} {name}"
                for name, count in wanted.items()
                if got.get(name, 0) < count
            ]
    return tuple(lines)


def additions(expected: Evidence, found: Evidence) -> list[str]:
    """Passed tests that are not expected, one line each."""
    return [
        f"{claim} {kind}: {test} is not in {PATH.name}: run `make verify`"
        for claim, kinds in found.items()
        for kind, tests in kinds.items()
        for test in tests
        if test not in expected.get(claim, {}).get(kind, {})
    ]


def read_expected(path: Path = PATH) -> Evidence:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_expected(found: Evidence, path: Path = PATH) -> None:
    write_text(path, json.dumps(found, indent=1, sort_keys=True) + "\n")
