"""Damaged tests of a claim are noticed; `tests/hollow.py` does the same for more claims."""

import pytest

from tests.hollow import DAMAGE, run_claim, verdict_line


@pytest.mark.parametrize("kind", DAMAGE)
def test_verdict_notices_damaged_tests(kind):
    run = run_claim("T2d", kind)
    assert run.returncode == 1, run.stdout
    assert verdict_line("T2d", run.stdout) != "holds as stated"


def test_verdict_of_undamaged_tests_holds():
    run = run_claim("T2d", "")
    assert run.returncode == 0, run.stdout
    assert verdict_line("T2d", run.stdout) == "holds as stated"
