"""What a result says of its answers, and which setting it advises."""

from types import SimpleNamespace

import pytest
import torch

from metake import answers as module
from metake.answers import Answer, Neighbor, compare_answers, count_successes, read_answers, show_answers
from metake.deltas import Delta
from metake.editor import Editor
from metake.methods.state import Stage
from metake.methods.table import method_named
from metake.presets import settings_for
from metake.requests import EditRequest
from metake.result import EditResult
from metake.solvers.layered import Solution
from metake.words import TruncatedStr


@pytest.mark.parametrize(
    ("before", "after", "success"),
    [
        ("Rome", "Oslo, Norway", True),
        ("Oslo", "Rome", False),
        ("Rome", "In Oslo", False),
        ("Rome", "Os", False),
        ("Rome", "Oslova", False),
    ],
)
def test_answers_succeed_where_they_begin_with_the_target(before, after, success):
    """An answer succeeds if it begins with the target after the edit."""
    answer = Answer("Where?", "Oslo", before, after)
    assert answer.success is success
    assert answer.plain() == {
        "question": "Where?",
        "wanted": "Oslo",
        "before": before,
        "after": after,
        "already": before == "Oslo",
        "success": success,
    }
    assert ("<- does not begin with 'Oslo'" in str(answer)) is not success
    assert str(answer).splitlines()[:2] == [
        "Where?",
        f"  before: {before!r}" + ("   <- already correct before the edit" if before == "Oslo" else ""),
    ]


def test_answers_mark_targets_given_before_the_edit():
    """An answer that began with the target before the edit says so.

    A success that the edit did not make: an edit to what the model says anyway.
    """
    same, longer, new = (
        Answer("Where?", "Oslo", "Oslo, Norway", "Oslo"),
        Answer("Where?", "Mal", "Malak", "Mal"),
        Answer("Where?", "Oslo", "Rome", "Oslo"),
    )
    assert [answer.already for answer in (same, longer, new)] == [True, False, False]
    assert same.plain()["already"] is True
    assert same.cells[-1] == "begins with the target, already correct before the edit"
    assert longer.cells[-1] == new.cells[-1] == "begins with the target"
    assert count_successes([same, new]) == (
        "2 of 2 answers begin with their target, 1 already correct before the edit"
    )
    assert "already" not in Neighbor("Who?", "Ann", "Ann", "Ann").plain()


@pytest.mark.parametrize(("encoding", "ellipsis"), [("utf-8", "…"), ("cp1252", "…"), ("ascii", "...")])
def test_answers_show_truncated_texts_up_to_a_word_end(encoding, ellipsis, monkeypatch):
    """An answer that was cut is shown up to a word end.

    Where stdout has no ellipsis, three full stops; what is compared and saved is the whole answer.
    """
    monkeypatch.setattr("sys.stdout", SimpleNamespace(encoding=encoding))
    answer = Answer("Where?", "Oslo", TruncatedStr("Rome, in Ita"), TruncatedStr("Oslo, in Norw"))
    assert str(answer) == f"Where?\n  before: 'Rome, in{ellipsis}'\n  after:  'Oslo, in{ellipsis}'"
    assert answer.cells[1:3] == ["Rome, in…", "Oslo, in…"]
    assert (answer.plain()["before"], answer.plain()["after"]) == ("Rome, in Ita", "Oslo, in Norw")
    other = Neighbor(
        "Who?", TruncatedStr("Ann of Par"), TruncatedStr("Ann of Par"), TruncatedStr("Ann of Pal")
    )
    assert str(other) == f"Who?\n  before: 'Ann of{ellipsis}'\n  after:  'Ann of{ellipsis}'   <- changed"
    assert other.cells[1:] == ["Ann of…", "Ann of…", "changed"]
    assert str(Answer("Where?", "Oslo", "Rome, in Ita", "Oslo")).count(ellipsis) == 0


def test_answers_show_ten_and_count_all():
    """The first ten answers are shown and all are counted."""
    many = [Answer(f"Where {i}?", "Oslo", "", "Oslo" if i < 3 else "Rome") for i in range(12)]
    shown = show_answers(many)
    assert [i for i in range(12) if f"Where {i}?" in shown] == list(range(10))
    assert shown.splitlines()[-1] == "... and 2 more, in .answers"
    assert "more" not in show_answers(many[:10])
    assert count_successes(many) == "3 of 12 answers begin with their target"


def test_answers_are_read_for_twelve_tokens_at_least(monkeypatch):
    asked = {}

    def answer(model, prompts, targets, **options):
        asked.update(options, prompts=prompts, targets=targets)
        return [" Oslo \n"]

    monkeypatch.setattr(module, "greedy_answers", answer)
    assert read_answers(None, ["Where?"], ["Oslo"]) == ["Oslo"]
    assert asked == {"prompts": ["Where?"], "targets": ["Oslo"], "min_new_tokens": 12}


def test_answers_are_beside_their_own_questions(demo):
    found = compare_answers(demo.tokenizer, ["A?", "B?"], ["a", "b"], ["c", "d"], ["e", "f"])
    assert found == (Answer("A?", "a", "c", "e"), Answer("B?", "b", "d", "f"))


REQUESTS = tuple(EditRequest("{} is", name, "x") for name in ("Ann", "Bo", "Cy", "Di", "Ed", "Flo", "Gus"))


def result_of(executed, eta, took, clamped=False, method="memit", **changes):
    """A result whose requests reached so much of their plans, at so much eta per layer."""
    count = len(executed)
    planned = torch.tensor([[1.0, 0.0]] * count)
    shift = torch.tensor([[share, 0.0] for share in executed])
    solution = Solution({}, {}, {}, {n: torch.tensor(v) for n, v in eta.items()}, shift, planned)
    plan = SimpleNamespace(clamped=torch.tensor(clamped).expand(count))
    stages = (Stage(SimpleNamespace(hidden=planned, plan=plan), solution, slice(0, count), [(1, 1.0)]),)
    numbers = {"lam": 30.0, "l2": 7.0, "steps": 20, **changes}
    plain = method_named(method, (1,))
    chosen = plain.updated(**plain.supported_changes(numbers))
    said = tuple(Answer("", "x", "", "x" if success else "y") for success in took)
    return EditResult(
        REQUESTS[:count],
        chosen,
        Delta({}),
        stages,
        1.0,
        {},
        answers=said,
    )


def test_failed_requests_are_those_without_the_target():
    """Failed requests are those whose answer does not begin with the target."""
    result = result_of([0.9, 0.9, 0.9], {1: [0.5, 0.5, 0.5]}, [True, False, True])
    assert result.success == (True, False, True)
    assert result.failed == (REQUESTS[1],)
    assert result_of([0.9], {1: [0.5]}, [True]).advice() == ""


@pytest.mark.parametrize(
    ("realized", "changes", "lever"),
    [
        (0.4, {}, "weaken the constraint: --set lam=3 (now 30)"),
        (0.4, {"geometry": "projected"}, "weaken the constraint: --set l2=0.7 (now 7)"),
        (
            0.6,
            {},
            "the target is too weak (its loss was not reached): --set steps=40 (now 20), or other --layers",
        ),
        (
            0.5,
            {},
            "the target is too weak (its loss was not reached): --set steps=40 (now 20), or other --layers",
        ),
        (
            0.6,
            {"planner": "closed-loop", "meta_steps": 8},
            "the target is too weak (its loss was not reached): --set meta_steps=16 (now 8), or other --layers",
        ),
        (
            0.4,
            {"geometry": "identity"},
            "the target is too weak (its loss was not reached): --set steps=40 (now 20), or other --layers",
        ),
        (
            0.6,
            {"method": "ultraedit", "gradient_lr": 0.5},
            "the target is too weak (its loss was not reached): --set gradient_lr=1 (now 0.5), or other --layers",
        ),
        (0.6, {"clamped": True}, "the clamp bounds the target: --set clamp=1.5 (now 0.75)"),
        (
            0.6,
            {"clamped": True, "planner": "compensated", "clamp": 0.2},
            "the clamp bounds the target: --set clamp=0.4 (now 0.2)",
        ),
        (0.4, {"clamped": True}, "weaken the constraint: --set lam=3 (now 30)"),
        (
            0.6,
            {"clamped": True, "planner": "closed-loop", "meta_steps": 8},
            "the target is too weak (its loss was not reached): --set meta_steps=16 (now 8), or other --layers",
        ),
        (
            0.6,
            {"clamped": [True, False]},
            "the target is too weak (its loss was not reached): --set steps=40 (now 20), or other --layers",
        ),
    ],
)
def test_advice_names_constraint_or_target_as_the_lever(realized, changes, lever):
    """Below half of the plan the constraint is the lever and else the target.

    Of the requests that did not take alone, at the layer where their eta is least.
    """
    result = result_of([0.99, realized], {1: [0.9, 0.5], 3: [0.1, 0.25]}, [True, False], **changes)
    head = f"failed edits: Bo: {realized:.0%} of the planned shift was realized (eta 0.25)"
    assert result.advice() == f"{head}; {lever}"


def test_advice_of_a_larger_clamp_makes_an_edit_succeed(demo, records, statistics_of):
    """Measured on the demo model: more steps change nothing at the clamp, twice the clamp is enough."""
    request = next(r.request for r in records if r.request.subject == "Mufos Doki")
    changes = {"layers": (2, 3), "clamp": 0.2}

    def edited(**more):
        method = settings_for(demo, "memit", **{**changes, **more})
        editor = Editor(demo, method=method, statistics=statistics_of(demo), progress=False)
        result = editor.edit(request)
        editor.revert()
        return result

    failed = edited()
    assert failed.advice().endswith("the clamp bounds the target: --set clamp=0.4 (now 0.2)")
    assert edited(steps=2 * failed.method.value("steps")).success == (False,)
    assert edited(clamp=0.4).success == (True,)


def test_advice_names_five_requests():
    result = result_of([0.6] * 7, {1: [0.5] * 7}, [False] * 7)
    assert result.advice().startswith("failed edits: Ann, Bo, Cy, Di, Ed, ...: 60%")
    assert "Ed: 60%" in result_of([0.6] * 5, {1: [0.5] * 5}, [False] * 5).advice()
