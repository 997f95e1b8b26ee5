"""The rows of the table as their papers and their code have them."""

import pytest

from metake.methods.table import METHODS

PLAIN = {
    "target": "plan", "geometry": "ridge", "fit": "soft", "allocation": "spread", "rounds": 1, "group": None,
    "merge": False, "restraint": "none", "history": False, "relative": "stream", "price": 0.0,
}  # fmt: skip
NULL = {"geometry": "projected", "memory": "past-keys"}
ROWS = {
    # one request at a time, W k = v exactly, at one layer; v is the down-projection's output, and so is its clamp
    "rome": {"fit": "exact", "allocation": "last", "group": 1, "relative": "value"},
    "memit": {},
    "prune": {"restraint": "prune"},
    "prune-added": {"restraint": "prune-added"},
    "rect": {"restraint": "rect"},
    "alphaedit": NULL,
    "alphaedit-blue": {**NULL, "allocation": "boundary"},
    "metake": {"target": "bilevel", "hypergradient": "unrolled"},
    "metake-proxy": {"target": "bilevel", "hypergradient": "proxy"},
    "metake-parallel": {"target": "bilevel", "hypergradient": "parallel"},
    "metake-priced": {"target": "bilevel", "hypergradient": "unrolled", "price": 1.0},
    "metake-alphaedit": {"target": "bilevel", "hypergradient": "unrolled", **NULL},
    "metake-blue": {"target": "bilevel", "hypergradient": "unrolled", "allocation": "boundary", **NULL},
    "emmet": {"fit": "exact", "allocation": "last"},  # a batch at once
    "memit-fe": {"allocation": "forward", "memory": "past-keys"},
    "alphaedit-fe": {"allocation": "forward", **NULL},
    "memit-merge": {"merge": True},
    "ultraedit": {"target": "gradient", "geometry": "identity", "allocation": "each"},
    "memit-compensated": {"target": "compensated"},
    "alphaedit-compensated": {"target": "compensated", **NULL},
    "memit-iterated": {"rounds": 3},
    "alphaedit-iterated": {"rounds": 3, **NULL},
}


@pytest.mark.parametrize("name", sorted({*ROWS, *METHODS}))
def test_a_row_makes_the_choices_of_its_paper(name):
    choices, wanted = METHODS[name].choices, {**PLAIN, **ROWS[name]}
    assert {column: choices[column] for column in wanted} == wanted
