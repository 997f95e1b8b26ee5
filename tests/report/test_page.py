"""The page, read as a browser reads it."""

import base64
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from metake.report.answers import Answer, Dialogue, Line
from metake.report.page import Picture, Section, write_page

HOSTILE = "<script>alert(1)</script>"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


class Elements(HTMLParser):
    """Tags with their attributes, and the text below each."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs), []))

    def handle_data(self, data):
        if self.found:
            self.found[-1][2].append(data)

    def of(self, *tags):
        return [(attributes, "".join(text).strip()) for tag, attributes, text in self.found if tag in tags]


@pytest.fixture
def page(tmp_path):
    """A page with every kind of part, and text of a user that looks like markup."""
    figures = [tmp_path / "a.png", tmp_path / "b.png"]
    for figure in figures:
        figure.write_bytes(PIXEL)
    answers = {
        "before": Answer(""),
        "memit": Answer("Oslo", "the target", True),
        HOSTILE: Answer(HOSTILE, "not the target"),
    }
    section = Section(
        HOSTILE,
        [HOSTILE],
        dialogues=[Dialogue(HOSTILE, [Line("edited", HOSTILE, answers)])],
        head=["method", "Eff"],
        rows=[[HOSTILE, "1.0"]],
        caption="per cent",
        pictures=[
            Picture(figure, f'what {figure.stem} shows "{HOSTILE}', f"legend {figure.stem}")
            for figure in figures
        ],
    )
    path = write_page(tmp_path / "r.html", title=HOSTILE, sections=[section], glossary={"Eff": HOSTILE})
    return path.read_text(encoding="utf-8")


def test_page_escapes_user_texts(page):
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_page_has_language_title_viewport_and_dark_scheme(page):
    elements = Elements(page)
    assert elements.of("html")[0][0]["lang"] == "en"
    assert elements.of("title")[0][1] == HOSTILE
    assert any(attributes.get("name") == "viewport" for attributes, _ in elements.of("meta"))
    assert "prefers-color-scheme: dark" in page


def test_page_headings_descend_by_one_level(page):
    levels = [int(tag[1]) for tag, *_ in Elements(page).found if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))


def test_page_images_have_alternative_text_and_legend(page):
    """Page images have a text and a legend of their own."""
    elements = Elements(page)
    texts = [attributes["alt"] for attributes, _ in elements.of("img")]
    assert texts == [f'what {name} shows "{HOSTILE}' for name in "ab"]
    assert [text for _, text in elements.of("figcaption")] == ["legend a", "legend b"]
    assert all(attributes["src"].startswith("data:image/png;base64,") for attributes, _ in elements.of("img"))


def test_page_tables_name_their_rows_and_columns(page):
    elements = Elements(page)
    assert "<caption><span>per cent</span></caption>" in page
    assert {attributes.get("scope") for attributes, _ in elements.of("th")} == {"row", "col"}


def test_page_marks_are_symbols_and_words(page):
    """Without colors, too; an empty answer says that it is empty, and is not marked where it is not judged."""
    marks = [
        (attributes["class"], text)
        for attributes, text in Elements(page).of("span")
        if "verdict" in attributes.get("class", "")
    ]
    assert marks == [("verdict good", "✓ the target"), ("verdict bad", "✗ not the target")]
    assert page.count("<i>(empty)</i>") == 1


def test_page_stacked_cells_name_their_column(page):
    """On a phone the head of a stacked table is not shown."""
    labels = [
        attributes["data-label"] for attributes, _ in Elements(page).of("td") if "data-label" in attributes
    ]
    assert labels == ["before", "memit", HOSTILE]
