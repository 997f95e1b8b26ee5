"""What a preview and a result say, from values written down here."""

from types import SimpleNamespace

import pytest
import torch

from metake.deltas import Applied, Delta
from metake.requests import Request
from metake.result import EditResult, Preview, Stage
from metake.solvers.layered import Solution

REQUESTS = tuple(Request("{} is", name, "x") for name in ("Ann", "Bo", "Cy"))


def test_a_subject_is_adrift_if_its_key_is_at_any_layer():
    """Cosines below 0.1 at the first layer, at the last, nowhere."""
    steady = torch.tensor([[0.05, 0.9, 0.5], [0.8, -0.3, 0.1001]])
    ones = torch.ones(2, 3)
    preview = Preview(REQUESTS, (1, 2), ones, ones / 2, steady)
    assert preview.adrift == ("Ann", "Bo")


def test_a_preview_says_what_the_last_layer_keeps_and_the_worst_cosine():
    eta = torch.tensor([[0.9, 0.8, 0.7], [0.25, 0.5, 0.125]])
    steady = torch.tensor([[0.4, 0.9, 1.0], [0.8, 0.3, 1.0]])
    lines = str(Preview(REQUESTS, (1, 2), eta / (1 - eta), eta, steady)).splitlines()
    ann, bo = (next(line for line in lines if name in line) for name in ("Ann", "Bo"))
    assert all(part in ann for part in ("0.900 (9)", "0.250 (0.333)", "25%", "0.40"))
    assert all(part in bo for part in ("0.800 (4)", "0.500 (1)", "50%", "0.30"))


def stage(members, hidden, plan_steps, closed_steps, scale, solution):
    descents = [
        None if n is None else SimpleNamespace(steps=torch.tensor(n)) for n in (plan_steps, closed_steps)
    ]
    targets = SimpleNamespace(
        hidden=torch.tensor(hidden), plan=descents[0], closed=descents[1], scale=torch.tensor(scale)
    )
    return Stage(targets, solution, members)


def solution(planned, shift, eta, missing):
    per_layer = {n: torch.tensor(v) for n, v in eta.items()}, {n: torch.tensor(v) for n, v in missing.items()}
    return Solution({}, {}, per_layer[1], per_layer[0], torch.tensor(shift), torch.tensor(planned))


@pytest.fixture
def result():
    """Two requests planned twice (at layer 1, then at 3), a third that stands alone in a group of its own."""
    first = solution([[3.0, 4.0], [0.0, 2.0]], [[3.0, 0.0], [0.0, 1.0]], {1: [0.1, 0.2]}, {1: [5.0, 2.0]})
    second = solution([[0.0, 8.0], [6.0, 0.0]], [[1.0, 4.0], [3.0, 4.0]], {3: [0.3, 0.4]}, {3: [8.0, 6.0]})
    alone = solution([[5.0, 12.0]], [[5.0, 12.0]], {1: [0.6], 3: [0.7]}, {1: [13.0], 3: [2.0]})
    stages = (
        stage(slice(0, 2), [[9.0, 9.0], [9.0, 9.0]], [4, 5], [1, 2], [1.5, 1.0], first),
        stage(slice(0, 2), [[0.0, 2.0], [3.0, 4.0]], [7, 0], None, [1.0, 2.5], second),
        stage(slice(2, 3), [[0.0, 10.0]], [3], [6], [8.0], alone),
    )
    settings = SimpleNamespace(model_dump=dict)
    return EditResult(
        REQUESTS, "memit", settings, Delta({}), stages, 2.5, Applied(None, {1: torch.zeros(1)}), None
    )


def test_a_value_of_a_request_is_its_last_stages_and_steps_add_up(result):
    assert result.steps.tolist() == [12, 7, 9]
    assert result.size.tolist() == [2.0, 5.0, 10.0]
    assert result.planned.tolist() == [8.0, 6.0, 13.0]
    assert result.fraction.tolist() == [0.5, 0.5, 1.0]  # <shift, r> / <r, r>
    assert {n: values.tolist() for n, values in result.eta.items()} == {
        1: [pytest.approx(x) for x in (0.1, 0.2, 0.6)],
        3: [pytest.approx(x) for x in (0.3, 0.4, 0.7)],
    }


def test_a_summary_is_in_units_of_the_stream(result):
    """Planned, executed and missing over ||h||, missing before each layer wrote and after all of them."""
    summary = result.summary()
    assert summary["layers"] == [1, 3]
    assert summary["planned"] == pytest.approx([4.0, 1.2, 1.3])
    assert summary["executed"] == pytest.approx([17**0.5 / 2, 1.0, 1.3])
    assert summary["missing_before"] == [pytest.approx([2.5, 0.4, 1.3]), pytest.approx([4.0, 1.2, 0.2])]
    assert summary["missing_after"] == pytest.approx([17**0.5 / 2, 1.0, 0.0])
    assert summary["eta"] == [pytest.approx([0.1, 0.2, 0.6]), pytest.approx([0.3, 0.4, 0.7])]
    assert summary["fraction"] == [0.5, 0.5, 1.0]
    assert summary["scale"] == [1.0, 2.5, 8.0]
    assert summary["steps"] == [12, 7, 9]
    assert summary["seconds"] == 2.5
    assert [r["subject"] for r in summary["requests"]] == ["Ann", "Bo", "Cy"]


def test_a_printed_result_has_the_same_numbers(result):
    """Per request: length over the stream's, what was executed, eta of each layer, steps."""
    lines = str(result).splitlines()
    for name, parts in {
        "Ann": ("4.00", "0.50", "0.100", "0.300", "12"),
        "Cy": ("1.30", "1.00", "0.600", "0.700", "9"),
    }.items():
        line = next(line for line in lines if name in line)
        assert [part for part in parts if part not in line] == []
    assert result.edited
    result._applied.originals = {}
    assert not result.edited
