"""The site of the documentation (`make docs`): it builds without a warning, loads nothing from elsewhere, reads as GitHub's pages do."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

import metake

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if path.name != "package.md"]
WRITTEN = [page for page in PAGES if page.parent.name != "api"]
BLOCKS = ("li", "table", "tr", "h2", "h3", "img", "pre", "strong", "em")

if importlib.util.find_spec("mkdocs") is None:
    pytest.skip("mkdocs is missing: pip install 'metake[docs]'", allow_module_level=True)


def build(folder: Path, *more: object) -> subprocess.CompletedProcess:
    """The site, built into a folder. Without `--quiet`, under which mkdocs does not count warnings."""
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder, *more]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built now; fails where a link or an anchor leads nowhere."""
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


LINKS = ("none.md", "other.md#nowhere", "none.png", "/other.md")


def test_link_that_leads_nowhere_ends_the_build(tmp_path):
    """Each has a warning of its own; with the settings of mkdocs.yml, on two small pages."""
    (tmp_path / "docs").mkdir()
    links = " ".join(f"[words]({link})" for link in LINKS)
    (tmp_path / "docs" / "index.md").write_text(f"# Page\n\n{links} [right](other.md#heading)\n")
    (tmp_path / "docs" / "other.md").write_text("# Other\n\n## Heading\n")
    settings = (
        f"INHERIT: {ROOT / 'mkdocs.yml'}\ndocs_dir: docs\nnav: [index.md, other.md]\nhooks: []\nplugins: []\n"
    )
    (tmp_path / "mkdocs.yml").write_text(settings)
    done = build(tmp_path / "site", "--config-file", tmp_path / "mkdocs.yml")
    assert done.returncode == 1
    warnings = [line for line in done.stderr.splitlines() if line.startswith("WARNING")]
    assert len(warnings) == len(LINKS)
    for link in LINKS:
        assert sum(f"'{link}'" in line for line in warnings) == 1


def article(site: Path, page: Path) -> str:
    """What a page of the site says, without the frame of the site."""
    text = (site / page.relative_to(DOCS).with_suffix(".html")).read_text(encoding="utf-8")
    return text[text.index("<article") : text.index("</article>")]


def test_site_loads_nothing_from_elsewhere(site):
    """No page needs a network: scripts, styles, fonts and images are files of the site."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)="([^"]*)"', text)
        assert loaded
        assert [link for link in loaded if re.match(r"(?:https?:)?//", link)] == [], page


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(DOCS)))
def test_page_of_the_site_has_the_blocks_of_its_source(site, page):
    """A list, table or block of code that the site's parser reads as plain text is noticed."""
    plain = re.sub(r"\$[^$\n]+\$", "x", page.read_text(encoding="utf-8"))
    expected = MarkdownIt("commonmark").enable("table").render(plain)
    built = article(site, page)

    def count(text: str) -> dict[str, int]:
        return {tag: len(re.findall(rf"<{tag}\b", text)) for tag in BLOCKS}

    assert count(built) == count(expected)


def test_every_public_name_has_one_place_in_the_reference(site):
    pages = sorted((DOCS / "api").glob("*.md"))
    named = [
        name for page in pages for name in re.findall(r"^::: metake\.(\w+)$", page.read_text(), re.MULTILINE)
    ]
    assert sorted(named) == sorted(set(metake.__all__) - {"__version__"})
    built = "".join(article(site, page) for page in pages)
    assert all(re.search(rf'id="metake\.(?:\w+\.)*{name}"', built) for name in named)


def test_formulas_are_drawn_without_scripts(site):
    text = article(site, DOCS / "theory.md")
    assert text.count("<math") > 300
    assert "arithmatex" not in text
    assert "\\eta" not in unescape(re.sub(r"<[^>]*>", "", text))


NOTEBOOKS = sorted((DOCS / "tutorials").glob("*.ipynb"))


def test_there_are_five_tutorials():
    assert len(NOTEBOOKS) == 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_saved_outputs_of_a_tutorial_are_small_and_without_errors(path, site):
    """`make notebooks` runs them; what is saved is what the site shows."""
    text = path.read_text(encoding="utf-8")
    cells = json.loads(text)["cells"]
    outputs = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    assert outputs
    assert "error" not in {output["output_type"] for output in outputs}
    assert len(text) < 100_000
    assert "/tmp/" not in text
    page = article(site, path)
    assert page.count("<pre") >= sum(cell["cell_type"] == "code" for cell in cells)
    assert f'href="{path.name}"' in page


def test_readme_fits_on_three_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
