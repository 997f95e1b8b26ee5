"""The paper as README.md and CITATION.cff name it."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

import metake

ROOT = Path(__file__).resolve().parents[1]
TITLE = "MetaKE: Meta-learning Aligned Knowledge Editing via Bi-level Optimization"


def test_citation_names_the_paper() -> None:
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["preferred-citation"]
    assert paper["title"] == TITLE
    authors = [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert TITLE in readme
    fields = dict(re.findall(r"^  (\w+)\s+= \{(.*)\},?$", readme, flags=re.MULTILINE))
    assert fields["title"].replace("{MetaKE}", "MetaKE") == TITLE
    assert fields["author"].split(" and ") == authors
    assert int(fields["year"]) == paper["year"]
    assert fields["journal"] == paper["journal"] == f"arXiv preprint arXiv:{fields['eprint']}"


def test_citation_has_one_arxiv_number_everywhere() -> None:
    cited = [
        (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/package.md", "CITATION.cff")
    ]
    for text in cited:
        assert "https://arxiv.org/abs/2603.12677" in text
    assert yaml.safe_load(cited[2])["preferred-citation"]["doi"] == "10.48550/arXiv.2603.12677"


def test_citation_has_the_present_version() -> None:
    assert (
        yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == metake.__version__
    )
