"""Where a target ends in an answer that begins with it; nouns with their number."""

from pathlib import Path

import pytest

from metake.words import TruncatedStr, begins_with, counted, shown

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        ("Mal", "Mal", True),
        ("Mal, in the north", "Mal", True),
        ("Mal's coast", "Mal", True),
        ("Malak", "Mal", False),
        ("Mal_2", "Mal", False),
        ("1984", "19", False),
        ("Cafe\u0301", "Cafe", False),
        ("हिन्दी", "हिन्द", False),
        ("C++17", "C++", True),
        ("東京都", "東京", True),
        ("東京は", "東京", True),
        ("サッカーが", "サッカー", True),
        ("서울입니다", "서울", True),
        ("กรุงเทพฯ", "กรุง", True),
        ("Oslo是", "Oslo", True),
        ("In Mal", "Mal", False),
        ("Ma", "Mal", False),
        ("", "Mal", False),
        ("Mal", "", False),
    ],
)
def test_begins_with_needs_a_word_end_after_the_target(answer, target, right):
    """Begins with a target that ends where a word does."""
    assert begins_with(answer, target) is right


@pytest.mark.parametrize(
    ("answer", "wanted", "display"),
    [
        ("Oslo, in Norw", "", "Oslo, in…"),
        ("Oslo, in Norway.", "", "Oslo, in Norway.…"),
        ("Oslo, Bohr's", "", "Oslo,…"),
        ("New York", "New York", "New York…"),
        ("New Yorks", "New York", "New…"),
        ("Norw", "", "Norw…"),
        ("東京都", "", "東京都…"),
        ("", "", ""),
    ],
)
def test_display_truncates_answers_at_a_word_end(answer, wanted, display):
    """A truncated answer is displayed up to a word end.

    The target that it begins with is displayed in full; an answer of one word keeps it.
    """
    assert shown(TruncatedStr(answer), wanted=wanted) == display
    assert shown(TruncatedStr(answer), "...", wanted) == display.replace("…", "...")
    assert shown(answer, wanted=wanted) == answer


def test_truncated_answer_ignores_surrounding_spaces():
    """A truncated answer remains one without its surrounding spaces."""
    assert isinstance(TruncatedStr(" Oslo ").strip(), TruncatedStr)
    assert TruncatedStr(" Oslo ").strip() == "Oslo"


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (0, "edit", "0 edits"),
        (1, "edit", "1 edit"),
        (2, "edit", "2 edits"),
        (1, "batch", "1 batch"),
        (3, "batch", "3 batches"),
        (1234, "record", "1,234 records"),
    ],
)
def test_counted_noun_agrees_with_its_number(count, noun, text):
    assert counted(count, noun) == text


TEXTS = [
    path
    for folder, suffixes in (
        ("metake", (".py", ".html", ".js", ".md")),
        ("experiments", (".py",)),
        ("docs", (".md", ".ipynb")),
    )
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in suffixes
]


@pytest.mark.parametrize(
    "term", ["LoRA folder of peft", "a LoRA folder that", "LoRA file", "made-up", "pip install metake "]
)
def test_one_thing_has_one_word(term):
    """PEFT adapter, GGUF adapter, synthetic world; metake is not on the package index."""
    found = [path for path in [ROOT / "README.md", *TEXTS] if term in path.read_text(encoding="utf-8")]
    assert not found
