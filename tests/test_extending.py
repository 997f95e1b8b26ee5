"""The page on methods of one's own does what it says."""

import re
from pathlib import Path

import pytest

from metake.methods.table import METHODS
from metake.solvers.allocation import ALLOCATIONS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"


@pytest.fixture
def tables():
    kept = dict(METHODS), dict(ALLOCATIONS)
    yield
    for table, before in zip((METHODS, ALLOCATIONS), kept, strict=True):
        table.clear()
        table.update(before)


def test_every_block_of_the_page_runs(tables, capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    assert len(blocks[1].splitlines()) <= 30
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), {})
    assert "memit-eager: 1 edits" in capsys.readouterr().out
