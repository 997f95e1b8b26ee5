"""Every example of docs/data.md is read, and says what the page says of it."""

import re
import warnings
from pathlib import Path

import pytest

from metake.data.records import read_records

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```(json|jsonl|csv|tsv)\n(.*?)```", PAGE, re.DOTALL)


def test_documentation_shows_every_format():
    assert [kind for kind, _ in EXAMPLES] == [
        "json",
        "json",
        "jsonl",
        "csv",
        "tsv",
        "json",
        "json",
        "json",
        "json",
    ]


@pytest.mark.parametrize("at", range(len(EXAMPLES)))
def test_read_records_reads_documented_examples(at, tmp_path):
    kind, text = EXAMPLES[at]
    (tmp_path / f"x.{kind}").write_text(text, encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records = read_records(tmp_path / f"x.{kind}")
    first = records[0]
    assert (first.request.subject, first.request.target_new) == ("Niels Bohr", "Oslo")
    assert first.request.text.replace("?", "").endswith(("was Niels Bohr born in", "Niels Bohr was born in"))
    assert len(records) == (2 if kind in ("jsonl", "csv", "tsv") else 1)
    full = kind == "json" and at > 0
    assert bool(first.ground_truth) is full
    assert bool(first.locality) is bool(first.locality_answer) is full
    assert bool(first.rephrase) is ("phrase" in text)
    assert bool(first.same_subject) is ("same_subject" in text or "Relation_Specificity" in text)


def test_read_records_gives_equal_facts_of_every_container(tmp_path):
    found = []
    for kind, text in (EXAMPLES[0], EXAMPLES[2], EXAMPLES[4]):
        (tmp_path / f"x.{kind}").write_text(text, encoding="utf-8")
        found.append(read_records(tmp_path / f"x.{kind}")[0])
    assert found[0] == found[1] == found[2]
