"""Gaps of the register of claims, one line each: what is missing and where to add it (docs/claims.md)."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

import verification
from theory.claims import CLAIMS, DEFINITIONS, Claim
from verification.ledger import LADDER

PROPERTIES = {1: "suppression", 2: "trap", 3: "fidelity"}  # theorem -> ending of its test files
EQUATIONS = range(1, 71)  # the paper's


class Mark(NamedTuple):
    """What `@checks` says of a test."""

    claim: str
    rung: str
    drops: str
    refutes: bool


def marks_of(test: Callable) -> list[Mark]:
    """Every `@checks` of a test."""
    return [
        Mark(*mark.args, mark.kwargs["drops"], mark.kwargs["refutes"])
        for mark in getattr(test, "pytestmark", [])
        if mark.name == "checks"
    ]


def collect_marks() -> frozenset[Mark]:
    """Every `@checks` of the tests of this package."""
    names = [m.name for m in pkgutil.iter_modules(verification.__path__) if m.name.startswith("test_")]
    modules = [importlib.import_module(f"verification.{name}") for name in names]
    return frozenset(mark for module in modules for item in vars(module).values() for mark in marks_of(item))


def _missing_functions(entry: Claim) -> list[str]:
    lines = []
    for name in entry.functions:
        module, _, function = name.partition(".")
        found = getattr(importlib.import_module(f"theory.{module}"), function, None)
        if found is None:
            lines.append(f"{entry.id}: {name} does not exist: write it in theory/{module}.py")
        elif not found.__doc__:
            lines.append(f"{entry.id}: {name} has no docstring: say in theory/{module}.py what it returns")
    return lines


def _add(entry: Claim, rung: str, more: str = "", file: str = "test_*.py") -> str:
    return f'add a test under @checks("{entry.id}", "{rung}"{more}) to verification/{file}'


def gaps(entry: Claim, marks: Collection[Mark]) -> list[str]:
    """Gaps of a claim: functions, tests that it holds or a refutation, tests of the library, dropped assumptions."""
    mine = [mark for mark in marks if mark.claim == entry.id]
    holds = any(m.rung in LADDER and m.rung != "product" and not m.refutes for m in mine)
    refuted = any(m.refutes for m in mine)
    only_said = entry.origin == "prose" and not entry.assumptions
    lines = _missing_functions(entry)
    if not (holds or only_said):
        lines.append(f"{entry.id}: no test shows that it holds: {_add(entry, 'random')} (or a higher rung)")
    if not refuted and (only_said or entry.correction or entry.addition):
        lines.append(
            f"{entry.id}: no counterexample to the paper's form: {_add(entry, 'random', ', refutes=True')}"
        )
    if not any(m.rung == "product" for m in mine):
        file = f"test_product_{PROPERTIES[entry.theorem]}.py"
        lines.append(f"{entry.id}: no test runs the library's code: {_add(entry, 'product', file=file)}")
    for rung, keys in (("needed", entry.assumptions), ("unneeded", entry.unneeded)):
        dropped = {m.drops for m in mine if m.rung == rung}
        lines += [
            f"{entry.id}: no test drops {key!r}: " + _add(entry, rung, f', drops="{key}"')
            for key in keys
            if key not in dropped
        ]
    return lines


def strays(marks: Iterable[Mark], claims: Iterable[Claim] = CLAIMS) -> list[str]:
    """Marks of tests that name no claim, rung or assumption of the register."""
    known = {entry.id: entry for entry in claims}
    lines = []
    for mark in sorted(marks):
        keys = {"needed": "assumptions", "unneeded": "unneeded"}
        head = f'@checks("{mark.claim}", "{mark.rung}"): '
        if mark.claim not in known:
            lines.append(head + "no such claim: add it to CLAIMS in theory/claims.py")
        elif mark.rung in keys:
            if mark.drops not in getattr(known[mark.claim], keys[mark.rung]):
                lines.append(
                    head
                    + f"drops {mark.drops!r}: add it to `{keys[mark.rung]}` of the claim in theory/claims.py"
                )
        elif mark.rung not in LADDER:
            lines.append(head + "no such rung: add it to LADDER in verification/ledger.py")
        elif mark.drops:
            lines.append(head + f'drops {mark.drops!r}: use the rung "needed" or "unneeded"')
    return lines


def misplaced_equations(
    claims: Iterable[Claim] = CLAIMS, definitions: Iterable[int] = DEFINITIONS
) -> list[str]:
    """Numbers of the paper that belong to no claim or definition, or to several."""
    counts = Counter([*(n for entry in claims for n in entry.equations), *definitions])
    lines = [
        f"equation ({n}) has no place: add it to `equations` of a claim or to DEFINITIONS in theory/claims.py"
        for n in EQUATIONS
        if n not in counts
    ]
    lines += [
        f"equation ({n}) has {count} places in theory/claims.py: keep one"
        for n, count in sorted(counts.items())
        if count > 1
    ]
    return lines + [
        f"equation ({n}) is not in the paper: take it from theory/claims.py"
        for n in sorted(counts)
        if n not in EQUATIONS
    ]


def undocumented(page: str, table: str, claims: Iterable[Claim] = CLAIMS) -> list[str]:
    """Claims that docs/theory.md leaves out, or gives another verdict than docs/verdicts.md.

    Args:
        page: text of docs/theory.md.
        table: text of docs/verdicts.md.
    """
    said = {}
    for section in re.split(r"^### ", page, flags=re.MULTILINE)[1:]:
        said[section.splitlines()[0]] = re.findall(r"\*\*Verdict: (.*)\.\*\*", section)
    rows = {}
    for line in table.splitlines():
        if line.startswith("| ["):
            cells = re.split(r"(?<!\\)\|", line)
            rows[re.findall(r"\[(.*?)\]", cells[1])[0]] = cells[4].split("(")[0].strip()
    lines = []
    for entry in claims:
        head, verdict = f"{entry.id}. {entry.title}", rows.pop(entry.id, None)
        texts = said.pop(head, None)
        if verdict is None:
            lines.append(f"{entry.id}: no row in docs/verdicts.md: run `make verify`")
        if texts is None:
            lines.append(f'{entry.id}: no section "### {head}" in docs/theory.md: add one')
        elif verdict is not None and texts != [verdict]:
            lines.append(
                f'{entry.id}: end its section of docs/theory.md with "**Verdict: {verdict}.**", as in docs/verdicts.md'
            )
    lines += [
        f'"### {head}" of docs/theory.md is no claim of theory/claims.py: name it as there' for head in said
    ]
    return lines + [
        f"{id}: docs/verdicts.md has a row and theory/claims.py no claim: run `make verify`" for id in rows
    ]
