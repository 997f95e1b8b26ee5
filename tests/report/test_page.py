"""The page, read as a browser reads it."""

import base64
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from metake.report.answers import Answer, Dialogue, Line
from metake.report.page import Picture, Section, shortened, write_page

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


def talks(*rights):
    """One dialogue per pair of verdicts of two models, and one long answer."""
    return [
        Dialogue(
            f"talk {i}",
            [
                Line(
                    "edited",
                    "Who?",
                    {
                        "before": Answer("x"),
                        **{n: Answer(n, "said", good) for n, good in zip("ab", right, strict=True)},
                    },
                )
            ],
        )
        for i, right in enumerate(rights)
    ]


def test_page_filters_cases_by_wrong_answers(tmp_path):
    """Without scripts: a choice shows the cases of its class, and counts them."""
    section = Section("Answers", dialogues=talks((True, True), (False, True), (False, False)))
    assert section.filters == [("any wrong answer", 2), ("wrong: a", 2), ("wrong: b", 1)]
    page = write_page(tmp_path / "r.html", title="t", sections=[section]).read_text(encoding="utf-8")
    elements = Elements(page)
    classes = [attributes["class"] for attributes, _ in elements.of("details")]
    assert classes == ["case", "case wrong-0 wrong-1", "case wrong-0 wrong-1 wrong-2"]
    chosen = [attributes.get("class") for attributes, _ in elements.of("input")]
    assert chosen == [None, "only-0", "only-1", "only-2"]
    for only in range(3):
        assert f".cases:has(.only-{only}:checked) > .case:not(.wrong-{only}) {{ display: none; }}" in page
    assert [text for _, text in elements.of("label")] == ["", "", "", ""]  # the text follows the input
    assert "any wrong answer (2)" in page
    assert "<script" not in page


def test_page_has_no_filter_without_a_wrong_answer(tmp_path):
    section = Section("Answers", dialogues=talks((True, True), (True, True)))
    assert section.filters == []
    assert "<fieldset" not in write_page(tmp_path / "r.html", title="t", sections=[section]).read_text()


def test_page_cuts_a_long_text_and_holds_all_of_it(tmp_path):
    long = "so on " * 100 + "the end"
    line = Line("edited", "Who?", {"before": Answer(long)})
    path = write_page(
        tmp_path / "r.html", title="t", sections=[Section("A", dialogues=[Dialogue("d", [line])])]
    )
    assert f"<summary>{shortened(long)}</summary>{long}</details>" in path.read_text(encoding="utf-8")
    assert len(shortened(long)) <= 160
    assert (shortened(long)[-1], shortened("short")) == ("…", "short")
