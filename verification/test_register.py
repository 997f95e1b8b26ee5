"""The register is complete: every equation has its place, every claim its evidence."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import verification
from theory.claims import CLAIMS, DEFINITIONS, Claim, claim
from verification.ledger import LADDER

claims = pytest.mark.parametrize("entry", CLAIMS, ids=[c.id for c in CLAIMS])


@cache
def evidence() -> frozenset[tuple[str, str, str, bool]]:
    """(claim, rung, dropped assumption, refutes) of every test of this package."""
    found = set()
    for module in pkgutil.iter_modules(verification.__path__):
        if module.name.startswith("test_"):
            for item in vars(importlib.import_module(f"verification.{module.name}")).values():
                for mark in getattr(item, "pytestmark", []):
                    if mark.name == "checks":
                        found.add((*mark.args, mark.kwargs["drops"], mark.kwargs["refutes"]))
    return frozenset(found)


def of(entry: Claim) -> list[tuple[str, str, bool]]:
    return [e[1:] for e in evidence() if e[0] == entry.id]


def test_every_equation_belongs_to_one_claim_or_defines_something():
    numbers = Counter([*(n for c in CLAIMS for n in c.equations), *DEFINITIONS])
    assert sorted(numbers) == list(range(1, 71))
    assert max(numbers.values()) == 1


def test_ids_are_unique():
    assert len({c.id for c in CLAIMS}) == len(CLAIMS)


def test_evidence_is_only_for_registered_claims_and_assumptions():
    for id, rung, drops, _ in evidence():
        entry = claim(id)
        assert rung in LADDER or rung in ("needed", "unneeded")
        if rung in ("needed", "unneeded"):
            assert drops in (entry.assumptions if rung == "needed" else entry.unneeded), (id, drops)
        else:
            assert not drops, (id, drops)


@claims
def test_a_claim_names_functions_of_the_theory(entry: Claim):
    for function in entry.resolve():
        assert function.__doc__, function


@claims
def test_a_claim_is_shown_to_hold_or_refuted(entry: Claim):
    holds = any(rung in LADDER and rung != "product" and not refutes for rung, _, refutes in of(entry))
    refuted = any(refutes for _, _, refutes in of(entry))
    if entry.origin == "prose" and not entry.assumptions:
        assert refuted
    else:
        assert holds
    if entry.correction or entry.addition:
        assert refuted, "a change to the paper's form needs a counterexample to that form"


@claims
def test_a_claim_meets_the_library_code(entry: Claim):
    assert any(rung == "product" for rung, _, _ in of(entry))


@claims
def test_every_assumption_is_dropped_once(entry: Claim):
    for key in entry.assumptions:
        assert any(rung == "needed" and drops == key for rung, drops, _ in of(entry)), key
    for key in entry.unneeded:
        assert any(rung == "unneeded" and drops == key for rung, drops, _ in of(entry)), key


DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_page_and_the_committed_table_agree():
    """docs/theory.md speaks of every claim, in order, with the verdict of docs/verdicts.md."""
    page = re.split(r"^### ", (DOCS / "theory.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    said = {}
    for section in page:
        id, title = section.splitlines()[0].split(". ", 1)
        assert title == claim(id).title
        said[id] = re.findall(r"\*\*Verdict: (.*)\.\*\*", section)
    table = {}
    for line in (DOCS / "verdicts.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| ["):
            cells = re.split(r"(?<!\\)\|", line)
            table[re.findall(r"\[(.*?)\]", cells[1])[0]] = [cells[4].split("(")[0].strip()]
    assert sorted(table) == sorted(c.id for c in CLAIMS)
    assert sorted(said) == sorted(table)
    assert said == table


def test_figures_named_in_the_page_exist():
    named = re.findall(r"\]\((figures/[^)]*)\)", (DOCS / "theory.md").read_text(encoding="utf-8"))
    assert len(named) >= 10
    for name in named:
        assert (DOCS / name).is_file(), name
