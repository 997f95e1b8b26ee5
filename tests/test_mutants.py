"""What the scoring of tests by mutants reads."""

import pytest

from tests.mutants import ROOMS, ROOT


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_have_files_and_tests(room):
    """A file that was renamed would have no mutants, and nobody would notice."""
    files, tests = ROOMS[room]
    assert [name for name in files if not list((ROOT / "metake").glob(name))] == []
    assert [name for name in tests if not (ROOT / name).exists()] == []
