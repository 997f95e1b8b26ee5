"""The demo's sentences follow from the run, whichever way it goes."""

import pytest

from metake.demo.story import (
    CLOSED,
    CONTROL,
    OPEN,
    conclusion,
    missed_by_open,
    story_methods,
    tell_reason,
    tell_result,
)


def content(open_right, closed_right, control_right):
    def row(name, right, eta, executed):
        batch = {"eta": [[eta, eta]], "realized_norm": [executed, executed]}
        return {
            "method": name,
            "settings": {"geometry": {"lam": 15000.0}, "layers": [4, 5]},
            "batches": [batch],
            "per_record": {"generation_start": [1.0] * right + [0.0] * (6 - right)},
            "mean": {"kl": 0.1},
        }

    return {
        "edits": 6,
        "methods": [
            row(OPEN, open_right, 0.17, 0.38),
            row(CLOSED, closed_right, 0.2, 0.76),
            row(CONTROL, control_right, 0.2, 1.23),
        ],
    }


def tell(run):
    return [*tell_result(run), *tell_reason(run)]


def test_missed_by_open_are_edits_of_the_closed_loop_alone():
    assert missed_by_open(content(4, 6, 6)) == [4, 5]
    assert missed_by_open(content(6, 4, 6)) == []


def test_tell_counts_how_many_more_succeed():
    said = " ".join(tell(content(4, 6, 6)))
    assert "eta = 0.17" in said
    assert "4 of 6 answers begin with the target" in said
    assert "succeeds on 2 more: the shift that reaches the last edited layer is 0.76" in said


@pytest.mark.parametrize(("closed", "words"), [(4, "equally often"), (3, "does not support the closed loop")])
def test_tell_claims_only_what_the_run_shows(closed, words):
    """Tell claims nothing that a run does not show."""
    run = content(4, closed, 6)
    said = " ".join(tell(run))
    assert words in said
    assert "more" not in said.replace("more often", "")
    assert conclusion(run) == []


def test_conclusion_names_an_equally_good_control():
    """Conclusion names a control that does as well."""
    assert "Lengthening the plan also works" in conclusion(content(4, 6, 6))[0]
    assert "Lengthening" not in conclusion(content(4, 6, 5))[0]


def test_story_methods_differ_in_the_target_alone(demo):
    methods = story_methods(demo)
    assert [method.name for method in methods] == [OPEN, CLOSED, CONTROL]
    first, second, _ = methods
    planners = {"planner": first.planner, "label": first.label}
    assert second.model_copy(update=planners) == first
    for name in ("lr", "clamp", "decay", "kl", "stop"):
        assert first.value(name) == second.value(name), name
    assert second.value("steps") + second.value("meta_steps") == first.value("steps")
