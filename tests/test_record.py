"""Methods give what they gave when `tests/data/record.json` was written."""

import json

import pytest

from metake.models.load import load
from tests.record import RECORD, TOLERANCE, furthest, methods_of, run

ALWAYS = ("memit + past-keys", "alphaedit-blue", "metake + past-keys", "ultraedit")
CASES = [
    ("demo", m) if m in ALWAYS else pytest.param("demo", m, marks=pytest.mark.deep)
    for m in methods_of("demo")
]


@pytest.fixture(scope="module")
def recorded():
    return json.loads(RECORD.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("model", "method"), CASES)
def test_record_equals_the_run_of_each_method(model, method, recorded):
    """A method gives what was recorded."""
    assert furthest(run(load(model), method), recorded[model][method]) < TOLERANCE


def test_record_has_every_method(recorded):
    assert {model: set(rows) for model, rows in recorded.items()} == {m: set(methods_of(m)) for m in recorded}


def test_furthest_reports_a_difference(recorded):
    """Of every number: one part in a thousand."""
    row = recorded["demo"]["memit"]
    for part in ("norm", "products", "eta"):
        for layer, value in row[part].items():
            moved = {
                **row[part],
                layer: [1.001 * x for x in value] if isinstance(value, list) else 1.001 * value,
            }
            assert furthest({**row, part: moved}, row) > TOLERANCE
    assert furthest({**row, "efficacy": row["efficacy"] - 0.1}, row) > TOLERANCE
    assert furthest({**row, "eta": {}}, row) == float("inf")
