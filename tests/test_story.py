"""The demo's sentences follow from the run, whichever way it goes."""

import pytest

from metake.demo.case import choose_case
from metake.demo.run import case_pictures
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


def with_answers(before, **answers):
    """The run of `content` with six questions, and each method's answers to them."""
    run = content(0, 0, 0)
    run["requests"] = [[f"Q: Where was P{i} born?\nA:", "Oslo", "", "", "", ""] for i in range(6)]
    run["before"] = {"answers": [(text, "", "") for text in before]}
    for row in run["methods"]:
        said = answers[row["method"].replace("-", "_")]
        row["answers"] = [(text, "", "") for text in said]
        row["per_record"]["generation_start"] = [float(text.startswith("Oslo")) for text in said]
        asked = [
            {"prompt": "Q: Where was {} born?\nA:", "subject": f"P{i}", "target_new": "Oslo"}
            for i in range(6)
        ]
        scale = 1.0 if row["method"] == OPEN else 2.0
        row["batches"] = [
            {
                "requests": asked[part],
                "eta": [[0.5] * 3],
                "planned_norm": [scale * i for i in range(6)][part],
                "realized_norm": [0.25 * scale * i for i in range(6)][part],
            }
            for part in (slice(3), slice(3, 6))
        ]
    return run


RIGHT, WRONG = "Oslo, Norway", "Rome"


def test_case_is_the_first_edit_that_only_the_closed_loop_makes():
    """In the order of the file, where the unedited model does not answer with the target anyway."""
    run = with_answers(
        [WRONG, WRONG, RIGHT, WRONG, WRONG, WRONG],
        memit=[RIGHT, WRONG, WRONG, WRONG, WRONG, RIGHT],
        metake=[RIGHT, WRONG, RIGHT, WRONG, RIGHT, RIGHT],
        memit_compensated=[RIGHT] * 6,
    )
    case = choose_case(run)
    assert (case.prompt, case.target, case.before) == ("Where was P4 born?", "Oslo", WRONG)
    assert case.answers == {OPEN: WRONG, CLOSED: RIGHT}
    assert (case.planned, case.realized) == ({OPEN: 4.0, CLOSED: 8.0}, {OPEN: 1.0, CLOSED: 2.0})
    said = case.described()
    assert "memit plans a shift of 4.00 of the hidden state's norm, of which 1.00 is realized" in said
    assert "the answer is 'Oslo, Norway'." in said


def test_case_is_none_where_the_loops_do_not_differ(tmp_path):
    same = with_answers([WRONG] * 6, memit=[RIGHT] * 6, metake=[RIGHT] * 6, memit_compensated=[RIGHT] * 6)
    assert choose_case(same) is None
    assert case_pictures(None, tmp_path / "case.png") == []
    assert not list(tmp_path.iterdir())


def test_case_is_drawn_with_its_words(tmp_path):
    run = with_answers([WRONG] * 6, memit=[WRONG] * 6, metake=[RIGHT] * 6, memit_compensated=[RIGHT] * 6)
    case = choose_case(run)
    (picture,) = case_pictures(case, tmp_path / "case.png")
    assert case.described() in picture.alt
    assert picture.path.stat().st_size > 5000
    assert picture.shape == "tall"  # fits the width of a phone
