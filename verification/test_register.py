"""The register is complete: every equation has its place, every claim its evidence; docs/claims.md adds one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from theory.claims import CLAIMS, Claim, claim
from verification.ledger import begin, unmet
from verification.register import (
    Mark,
    collect_marks,
    gaps,
    marks_of,
    misplaced_equations,
    strays,
    undocumented,
)

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, TABLE = ((DOCS / name).read_text(encoding="utf-8") for name in ("theory.md", "verdicts.md"))
evidence = cache(collect_marks)


def report(lines: list[str]) -> None:
    """Fail with the lines themselves; docs/claims.md says more."""
    if lines:
        pytest.fail("\n".join(lines), pytrace=False)


@pytest.mark.parametrize("entry", CLAIMS, ids=[c.id for c in CLAIMS])
def test_register_has_the_evidence_of_a_claim(entry: Claim):
    report(gaps(entry, evidence()))


def test_register_has_every_claim_of_a_test():
    report(strays(evidence()))


def test_register_places_every_equation_once():
    report(misplaced_equations())


def test_register_agrees_with_the_pages(pytestconfig: pytest.Config):
    """docs/theory.md speaks of every claim with the verdict of docs/verdicts.md."""
    if pytestconfig.getoption("--accept"):
        pytest.skip("this run writes docs/verdicts.md anew")
    report(undocumented(PAGE, TABLE))


def test_register_ids_are_unique():
    assert len({c.id for c in CLAIMS}) == len(CLAIMS)


def test_guide_names_the_section_and_the_product_tests_of_every_theorem():
    """As docs/claims.md has it: claims stand in the section of their theorem, product tests in its file."""
    guide = (DOCS / "claims.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| `(# -- .*) ---` \| `verification/(\w+)\.py` \|$", guide, re.MULTILINE)
    assert [int(theorem) for theorem, *_ in rows] == sorted({c.theorem for c in CLAIMS})
    source = (DOCS.parent / "theory" / "claims.py").read_text(encoding="utf-8")
    starts = [source.index(f"    {head} ---") for _, head, _ in rows]
    for i, (theorem, _, module) in enumerate(rows):
        mine = {c.id for c in CLAIMS if c.theorem == int(theorem)}
        section = source[starts[i] : (*starts, len(source))[i + 1]]
        assert {id for id in re.findall(r"Claim\(\s+\"(\w+)\"", section)} == mine
        tests = vars(import_module(f"verification.{module}")).values()
        assert {m.claim for test in tests for m in marks_of(test) if m.rung == "product"} >= mine


def test_figures_named_in_the_page_exist():
    named = re.findall(r"\]\((figures/[^)]*)\)", PAGE)
    assert len(named) >= 10
    for name in named:
        assert (DOCS / name).is_file(), name


# -- each gap is one line that says what to add, and where ----------------------------------------

NEW = Claim("X99", 2, "New", "x = x", "ours", ("trap.nothing",), (), {"a": "b"}, {"c": "d"}, addition="e")
LACKS = {
    Mark("X99", "random", "", False): 'X99: no test shows that it holds: add a test under @checks("X99", "random")',
    Mark("X99", "exact", "", True): "X99: no counterexample to the paper's form: add a test under "
    '@checks("X99", "random", refutes=True)',
    Mark("X99", "product", "", False): "X99: no test runs the library's code: add a test under "
    '@checks("X99", "product") to verification/test_product_trap.py',
    Mark("X99", "needed", "a", False): "X99: no test drops 'a': add a test under "
    '@checks("X99", "needed", drops="a")',
    Mark("X99", "unneeded", "c", False): "X99: no test drops 'c': add a test under "
    '@checks("X99", "unneeded", drops="c")',
}  # fmt: skip


@pytest.mark.parametrize("mark", LACKS, ids=lambda mark: mark.rung)
def test_gaps_name_the_evidence_that_a_claim_lacks(mark: Mark):
    entry = replace(NEW, functions=())
    assert gaps(entry, LACKS.keys()) == []
    (line,) = gaps(entry, LACKS.keys() - {mark})
    assert line.startswith(LACKS[mark])
    assert "\n" not in line


def test_gaps_name_a_function_that_is_not_there():
    assert gaps(NEW, LACKS.keys()) == ["X99: trap.nothing does not exist: write it in theory/trap.py"]


def test_gaps_of_prose_are_a_refutation_and_the_library():
    lines = gaps(Claim("P99", 1, "", "", "prose", ()), [])
    assert [line.split(":")[1].strip() for line in lines] == [
        "no counterexample to the paper's form",
        "no test runs the library's code",
    ]


@pytest.mark.parametrize(
    ("mark", "place"),
    [
        (Mark("X98", "random", "", False), "CLAIMS in theory/claims.py"),
        (Mark("X99", "guessed", "", False), "LADDER in verification/ledger.py"),
        (Mark("X99", "needed", "z", False), "`assumptions` of the claim in theory/claims.py"),
        (Mark("X99", "unneeded", "a", False), "`unneeded` of the claim in theory/claims.py"),
        (Mark("X99", "random", "a", False), '"needed" or "unneeded"'),
    ],
)
def test_strays_name_the_place_to_register(mark: Mark, place: str):
    assert strays(LACKS, [NEW]) == []
    (line,) = strays([mark], [NEW])
    assert place in line


def test_misplaced_equations_are_named():
    definitions = [*range(1, 70), 3, 71]
    lines = misplaced_equations([], definitions)
    assert [line.split(":")[0] for line in lines] == [
        "equation (70) has no place",
        "equation (3) has 2 places in theory/claims.py",
        "equation (71) is not in the paper",
    ]


def test_undocumented_claims_are_named():
    entry = claim("T1")
    page, table = (
        "### T1. Attenuation law\n**Verdict: holds.**\n",
        "| [T1](x) | 3 | a \\| b | holds (2 of 6) |\n",
    )
    assert undocumented(page, table, [entry]) == []
    assert undocumented("", table, [entry]) == [
        'T1: no section "### T1. Attenuation law" in docs/theory.md: add one'
    ]
    assert undocumented(page, "", [entry]) == ["T1: no row in docs/verdicts.md: run `make verify`"]
    (line,) = undocumented(page.replace("holds", "fails"), table, [entry])
    assert line.startswith('T1: end its section of docs/theory.md with "**Verdict: holds.**"')
    assert len(undocumented(page, table, [])) == 2


# -- the worked example of docs/claims.md ----------------------------------------------------------


def worked_example(monkeypatch: pytest.MonkeyPatch) -> tuple[Claim, dict[str, Callable]]:
    """The page's claim, and its tests by name; its function stands in `theory.suppression`."""
    function, entry, tests = re.findall(
        r"```python\n(.*?)```", (DOCS / "claims.md").read_text(encoding="utf-8"), re.DOTALL
    )
    space: dict[str, Any] = {"Claim": Claim}
    exec(function, space)
    monkeypatch.setattr("theory.suppression.scaled_attenuation", space["scaled_attenuation"], raising=False)
    new = eval(entry, space)
    exec(tests, space)
    return new, {name: item for name, item in space.items() if name.startswith("test_")}


def test_worked_example_passes_with_the_evidence_of_its_rungs(monkeypatch: pytest.MonkeyPatch):
    _, tests = worked_example(monkeypatch)
    for test in tests.values():
        record = begin()
        test()
        assert unmet([(m.claim, m.rung, m.refutes) for m in marks_of(test)], record.obligations) == []


def test_worked_example_leaves_no_gap_and_needs_each_of_its_tests(monkeypatch: pytest.MonkeyPatch):
    new, tests = worked_example(monkeypatch)
    marks = {name: marks_of(test) for name, test in tests.items()}
    assert gaps(new, [m for found in marks.values() for m in found]) == []
    assert strays([m for found in marks.values() for m in found], [new]) == []
    for left_out in marks:
        assert len(gaps(new, [m for name, found in marks.items() if name != left_out for m in found])) == 1


def test_worked_example_shows_the_lines_of_its_gaps(monkeypatch: pytest.MonkeyPatch):
    new, _ = worked_example(monkeypatch)
    monkeypatch.delattr("theory.suppression.scaled_attenuation")
    lines = [*gaps(new, []), *undocumented("", "", [new])]
    assert "```\n" + "\n".join(lines) + "\n```" in (DOCS / "claims.md").read_text(encoding="utf-8")
