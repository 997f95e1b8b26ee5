"""Where a target ends in an answer that begins with it."""

import pytest

from metake.words import begins_with


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
def test_begins_with_a_target_that_ends_where_a_word_does(answer, target, right):
    assert begins_with(answer, target) is right
