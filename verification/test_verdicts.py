"""A verdict says what ran: passing, failing, skipped and refuting tests each change it."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from theory.claims import CLAIMS, claim
from verification.expected import Evidence, additions, gather
from verification.ledger import ASIDE, LADDER, unmet
from verification.outcome import Outcome
from verification.page import ROOT, VERDICTS
from verification.verdicts import Verdict, card, markdown, verdicts, write_verdicts


def outcome(
    claim: str, rung: str, result: str = "passed", drops: str = "", refutes: bool = False, **evidence
) -> Outcome:
    return Outcome("file::test", result, ((claim, rung, drops, refutes),), evidence)


def row(id: str, *outcomes: Outcome) -> Verdict:
    return next(v for v in verdicts(list(outcomes)) if v.id == id)


def test_nothing_ran():
    assert row("T1").verdict == "not checked"
    assert row("T1", outcome("T1", "random", "skipped")).verdict == "not checked"
    assert row("T1", outcome("T1", "random", "skipped")).skipped == 1


def test_holds_and_fails():
    passed = outcome("T1", "random", examples=7)
    assert row("T1", passed).verdict == "holds as stated"
    assert row("T1", passed).examples == 7
    broken = row("T1", passed, outcome("T1", "product", "failed"))
    assert broken.verdict == "fails"
    assert broken.failed == ("test",)
    assert row("X2", outcome("X2", "random")).verdict == "holds"


def test_a_refutation_decides_between_corrected_and_more():
    refuted = outcome("T1e", "random", refutes=True, counterexample="P = 0")
    assert row("T1e", outcome("T1e", "random"), refuted).verdict == "holds corrected"
    assert row("T1e", outcome("T1e", "random"), refuted).refutation == "P = 0"
    assert (
        row("T1b", outcome("T1b", "random"), outcome("T1b", "random", refutes=True)).verdict == "needs more"
    )
    assert row("P6", outcome("P6", "exact", refutes=True)).verdict == "fails"


def test_a_refutation_is_not_a_rung_and_neither_is_a_dropped_assumption():
    only = row("T1", outcome("T1", "needed", drops="single", counterexample="two keys"))
    assert only.rungs == ()
    assert only.dropped == {"single": "two keys"}
    assert only.verdict == "not checked"


@pytest.mark.parametrize(("ratio", "word"), [(1.0, "tight"), (0.5, "upper bound"), (None, "-")])
def test_tightness(ratio, word):
    assert row("T1b", outcome("T1b", "searched", ratio=ratio)).bound == word


def test_the_largest_numbers_are_kept_and_rungs_stand_in_order():
    found = row("T1b", outcome("T1b", "product", ratio=0.2), outcome("T1b", "random", ratio=0.7, error=0.1))
    assert found.ratio == 0.7
    assert found.error == 0.1
    assert found.rungs == ("random", "product")
    assert tuple(r for r in LADDER if r in found.rungs) == found.rungs


def test_files(tmp_path):
    rows = verdicts(
        [
            outcome("T1", "random", examples=3, error=0.5),
            outcome("T1", "needed", drops="single", counterexample="a | b"),
        ]
    )
    write_verdicts(rows, tmp_path)
    stored = json.loads((tmp_path / "verdicts.json").read_text(encoding="utf-8"))
    assert stored[0]["id"] == "T1"
    assert stored[0]["examples"] == 3
    lines = [line for line in markdown(rows).splitlines() if line.startswith("| [T1]")]
    assert lines[0].count("|") - lines[0].count("\\|") == 10


def test_lost_evidence_shows_in_the_verdict():
    tests = [
        Outcome("f.py::test_a", "passed", (("T1", "random", "", False),), {"obligations": {"compared": 9}}),
        Outcome("f.py::test_b", "passed", (("T1", "proved", "", False),), {"obligations": {"proved": 2}}),
    ]
    expected = gather(tests)
    assert expected["T1"]["random"]["f.py::test_a"] == {"cases": 1, "compared": 1}
    assert expected["T1"]["proved"]["f.py::test_b"] == {"cases": 1, "proved": 2}

    def text(*outcomes: Outcome) -> str:
        return next(v for v in verdicts(list(outcomes), expected) if v.id == "T1").text

    less = replace(tests[1], evidence={"obligations": {"proved": 1}})
    assert text(*tests) == "holds as stated"
    assert text(tests[0]) == "holds as stated (1 of 2 rungs; 1 test gave less evidence)"
    assert text(tests[0], replace(tests[1], state="skipped")) == text(tests[0])
    assert text(tests[0], less) == "holds as stated (1 test gave less evidence)"
    assert text(tests[0], replace(tests[1], state="hollow")).startswith("holds as stated (1 of 2 rungs")
    assert text(tests[0], replace(tests[1], state="xfail")).startswith("holds as stated (1 of 2 rungs")


def test_evidence_that_is_not_expected_is_named():
    new = Outcome("f.py::test_new", "passed", (("T1", "random", "", False),), {})
    assert additions({}, gather([new])) == [
        "T1 random: f.py::test_new is not in expected.json: run `make verify`"
    ]


@pytest.mark.parametrize("rung", [*LADDER, *ASIDE])
def test_a_rung_without_its_obligations_is_unmet(rung):
    needs = (LADDER | ASIDE)[rung].needs
    assert unmet([("T1", rung, False)], {})
    others = {kind for r in (LADDER | ASIDE).values() for kind in r.needs} - needs
    assert unmet([("T1", rung, False)], dict.fromkeys(others, 1))
    assert not any(unmet([("T1", rung, False)], {kind: 1}) for kind in needs)


def test_card_has_files_tests_per_rung_and_counterexamples_of_its_claim():
    tests = [
        Outcome("verification/test_a.py::test_b[1]", "passed", (("T1", "random", "", False),), {}),
        Outcome("verification/test_a.py::test_c", "passed", (("T1", "exact", "", False),), {}),
        outcome("T1", "needed", drops="single", counterexample="two keys"),
        Outcome("verification/test_a.py::test_d", "failed", (("T1", "product", "", False),), {}),
        Outcome("verification/test_a.py::test_other", "passed", (("T1b", "random", "", False),), {}),
    ]
    lost = Outcome("verification/test_a.py::test_lost", "passed", (("T1", "proved", "", False),), {})
    entry = claim("T1")
    head, *sections = card("T1", tests, gather([*tests, lost])).split("\n\n")
    assert head.startswith(f"T1. {entry.title}: fails")
    assert entry.statement in head
    first, *found = sections
    files = re.findall(r"^  (\S+?)(?:[#:]\S*)?(?: |$)", first, re.MULTILINE)
    assert first.startswith("statement and derivation\n  docs/theory.md#t1-")
    assert {"docs/theory.md", "theory/suppression.py", "theory/derive_suppression.py"} <= set(files)
    assert all((ROOT / file).is_file() for file in files)
    rungs = {**LADDER, **ASIDE}
    assert [section.strip() for section in found] == [
        f"random: {rungs['random'].text}\n  verification/test_a.py::test_b",
        f"exact: {rungs['exact'].text}\n  verification/test_a.py::test_c",
        f"proved: {rungs['proved'].text}",
        f"needed: {rungs['needed'].text}\n  verification/file::test",
        f"counterexamples\n  without single ({entry.assumptions['single']}): two keys",
        "missing\n  proved: test_a.py::test_lost gave no evidence",
        "failed\n  test_d",
    ]


def page_of(outcomes: list[Outcome], expected: Evidence, folder: Path) -> str:
    write_verdicts(verdicts(outcomes, expected), folder, expected)
    return (folder / "verdicts.html").read_text(encoding="utf-8")


def cells(page: str, id: str) -> list[str]:
    """The cells of a claim in the page's table, without their mark-up."""
    (row,) = re.findall(rf'<tr><th scope="row"><a href="#{id}">(.*?)</tr>', page, re.DOTALL)
    return [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row)]


def test_the_page_counts_tests_per_rung_and_names_what_is_missing(tmp_path):
    tests = [
        Outcome("f.py::test_a", "passed", (("T1", "random", "", False),), {"obligations": {"compared": 9}}),
        Outcome("f.py::test_b", "passed", (("T1", "proved", "", False),), {"obligations": {"proved": 2}}),
        Outcome("f.py::test_c", "passed", (("T1", "proved", "", False),), {"obligations": {"proved": 1}}),
    ]
    place = {kind: i for i, kind in enumerate([*LADDER, "refuted"], start=1)}
    whole = page_of(tests, gather(tests), tmp_path)
    assert cells(whole, "T1")[0] == "✓ holds as stated"
    assert cells(whole, "T1")[place["random"]] == "1"
    assert cells(whole, "T1")[place["proved"]] == "2"
    assert cells(whole, "T1")[place["exact"]] == "-"
    assert "No test failed. No expected evidence is missing." in whole
    less = page_of(tests[:2], gather(tests), tmp_path)
    assert cells(less, "T1")[place["proved"]] == "1 of 2"
    assert "Missing: proved: f.py::test_c gave no evidence" in less
    assert "Expected evidence is missing for T1." in less


def test_the_page_puts_failing_claims_first_and_explains_its_words(tmp_path):
    tests = [
        Outcome("f.py::test_a", "passed", (("T1", "random", "", False),), {"obligations": {"compared": 1}}),
        Outcome("f.py::test_b", "failed", (("X11", "random", "", False),), {}),
    ]
    page = page_of(tests, {}, tmp_path)
    assert re.findall(r'<tr><th scope="row"><a href="#(\w+)">', page)[0] == "X11"
    assert "Tests failed for X11." in page
    assert "Failed tests: test_b" in page
    for text in (*VERDICTS.values(), *(rung.text for rung in LADDER.values())):
        assert f"<dd>{html.escape(text, quote=False)}</dd>".replace("'", "&#39;") in page


def test_every_link_of_the_page_leads_somewhere(tmp_path):
    test = "test_attenuation.py::test_edit_realizes_the_attenuated_residual"
    tests = [
        Outcome(test, "passed", ((entry.id, "random", "", False),), {"obligations": {"compared": 1}})
        for entry in CLAIMS
    ]
    page = page_of(tests, {}, tmp_path)
    theory = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", theory, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    links = set(re.findall(r'href="([^"]+)"', page))
    assert len(links) > len(CLAIMS)
    for link in links:
        path, _, anchor = link.partition("#")
        if path:
            assert (tmp_path / path).resolve().is_file(), link
            assert not anchor or anchor in anchors, link
        else:
            assert f'id="{anchor}"' in page, link


def test_the_committed_table_begins_with_the_present_legend(pytestconfig: pytest.Config):
    """Without a run: what stands above the rows of docs/verdicts.md is what `markdown` writes now."""
    if pytestconfig.getoption("--accept"):
        pytest.skip("this run writes docs/verdicts.md anew")
    assert (ROOT / "docs" / "verdicts.md").read_text(encoding="utf-8").startswith(markdown([]))
