"""Damaged tests of a claim are noticed; `tests/hollow.py` does the same for more claims, one kind of damage at a time."""

import pytest

from tests.hollow import DAMAGE, damaged, run_claim, verdict_line

CLAIM = "T2d"
PAIRS = [("deleted", "skipped"), ("hollowed", "xfail")]  # the first pair fails no test


@pytest.mark.parametrize("kinds", PAIRS, ids=" and ".join)
def test_verdict_notices_damaged_tests(kinds):
    """The run fails, the verdict is another, and every damaged test is named as missing."""
    run = run_claim(CLAIM, kinds)
    assert run.returncode == 1, run.stdout
    assert verdict_line(CLAIM, run.stdout) != "holds as stated"
    for file, function in damaged(CLAIM, kinds).values():
        assert f": {file}::{function} gave no evidence" in run.stdout


def test_every_kind_of_damage_is_done():
    assert sorted(DAMAGE) == sorted(kind for kinds in PAIRS for kind in kinds)


def test_verdict_of_undamaged_tests_holds():
    run = run_claim(CLAIM, [])
    assert run.returncode == 0, run.stdout
    assert verdict_line(CLAIM, run.stdout) == "holds as stated"
