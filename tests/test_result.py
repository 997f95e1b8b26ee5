"""What a preview and a result say, from values written down here."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from metake.answers import Answer, Check, Neighbor
from metake.deltas import Delta
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.state import Stage
from metake.preview import Preview
from metake.requests import EditRequest
from metake.result import EditResult
from metake.solvers.layered import Solution

REQUESTS = tuple(EditRequest("{} is", name, "x") for name in ("Ann", "Bo", "Cy"))
SPREAD, SPREAD_3 = [(1, 0.5), (2, 1.0)], [(1, 0.5), (3, 1.0)]


def test_preview_inconsistent_subjects_have_a_low_cosine():
    """Preview inconsistent subjects are those with a low cosine at any layer.

    Cosines below 0.1 at the first layer, at the last, nowhere.
    """
    cosine = torch.tensor([[0.05, 0.9, 0.5], [0.8, -0.3, 0.1001]])
    ones = torch.ones(2, 3)
    preview = Preview(REQUESTS, (1, 2), ones, cosine, SPREAD, "least_squares")
    assert preview.inconsistent_subjects == ("Ann", "Bo")


def test_preview_has_total_share_and_worst_cosine():
    """A preview says what all layers execute and the worst cosine.

    Half of 0.9 is executed at the first layer, then a quarter of the rest: 1 - 0.55 * 0.75.
    """
    eta = torch.tensor([[0.9, 0.8, 0.7], [0.25, 0.5, 0.125]])
    cosine = torch.tensor([[0.4, 0.9, 1.0], [0.8, 0.3, 1.0]])
    preview = Preview(REQUESTS, (1, 2), eta / (1 - eta), cosine, SPREAD, "least_squares")
    torch.testing.assert_close(preview.eta, eta)
    assert preview.predicted.tolist() == pytest.approx([0.5875, 0.7, 1 - 0.65 * 0.875])
    lines = str(preview).splitlines()
    ann, bo = (next(line for line in lines if name in line) for name in ("Ann", "Bo"))
    assert all(part in ann for part in ("0.900 (9)", "0.250 (0.333)", "0.59", "0.40"))
    assert all(part in bo for part in ("0.800 (4)", "0.500 (1)", "0.70", "0.30"))
    assert "1 - (1 - 0.5 eta 1) (1 - eta 2)" in lines[-1]
    assert repr(preview) == "<Preview: 3 edits, layers [1, 2]>"


def stage(members, hidden, plan_steps, closed_steps, scale, solution, shares):
    descents = [
        None if n is None else SimpleNamespace(steps=torch.tensor(n)) for n in (plan_steps, closed_steps)
    ]
    targets = SimpleNamespace(
        hidden=torch.tensor(hidden), plan=descents[0], closed=descents[1], scale=torch.tensor(scale)
    )
    return Stage(targets, solution, members, shares)


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
        stage(slice(0, 2), [[9.0, 9.0], [9.0, 9.0]], [4, 5], [1, 2], [1.5, 1.0], first, [(1, 1.0)]),
        stage(slice(0, 2), [[0.0, 2.0], [3.0, 4.0]], [7, 0], None, [1.0, 2.5], second, [(3, 1.0)]),
        stage(slice(2, 3), [[0.0, 10.0]], [3], [6], [8.0], alone, SPREAD_3),
    )
    method = LocateThenEdit(layers=(1, 3), label="memit")
    return EditResult(REQUESTS, method, Delta({}), stages, 2.5, {})


def test_result_values_are_of_the_last_stage(result):
    """A value of a request is that of its last stage, and steps add up."""
    assert result.steps.tolist() == [12, 7, 9]
    assert result.hidden_norm.tolist() == [2.0, 5.0, 10.0]
    assert result.planned_norm.tolist() == [8.0, 6.0, 13.0]
    assert result.realized_share.tolist() == [0.5, 0.5, 1.0]  # <shift, r> / <r, r>
    assert {n: values.tolist() for n, values in result.eta.items()} == {
        1: [pytest.approx(x) for x in (0.1, 0.2, 0.6)],
        3: [pytest.approx(x) for x in (0.3, 0.4, 0.7)],
    }


def test_summary_is_in_units_of_the_stream(result):
    """Planned, executed and missing over ||h||, missing before each layer wrote and after all of them."""
    summary = result.summary()
    assert summary["layers"] == [1, 3]
    assert summary["planned_norm"] == pytest.approx([4.0, 1.2, 1.3])
    assert summary["realized_norm"] == pytest.approx([17**0.5 / 2, 1.0, 1.3])
    assert summary["missing_before"] == [pytest.approx([2.5, 0.4, 1.3]), pytest.approx([4.0, 1.2, 0.2])]
    assert summary["missing_after"] == pytest.approx([17**0.5 / 2, 1.0, 0.0])
    assert summary["eta"] == [pytest.approx([0.1, 0.2, 0.6]), pytest.approx([0.3, 0.4, 0.7])]
    assert summary["realized_share"] == [0.5, 0.5, 1.0]
    assert summary["predicted_missing"] == [pytest.approx([0.9, 0.8, 0.7]), pytest.approx([0.7, 0.6, 0.21])]
    assert summary["scale"] == [1.0, 2.5, 8.0]
    assert summary["steps"] == [12, 7, 9]
    assert summary["seconds"] == 2.5
    assert [r["subject"] for r in summary["requests"]] == ["Ann", "Bo", "Cy"]


def test_result_prints_the_numbers_of_the_summary(result):
    """Per request: length over the stream's, eta of each layer, what they predict, what was executed, steps."""
    lines = str(result).splitlines()
    for name, parts in {
        "Ann": ("4.00", "0.100", "0.300", "0.30", "0.50", "12"),
        "Cy": ("1.30", "0.600", "0.700", "0.79", "1.00", "9"),
    }.items():
        line = next(line for line in lines if name in line)
        assert [part for part in parts if part not in line] == []


def test_result_predicts_from_the_last_plan(result):
    """The eta of layer 3 for the first two; for the third 1 - (1 - 0.6 / 2) (1 - 0.7)."""
    assert result.predicted.tolist() == pytest.approx([0.3, 0.4, 0.79])


def test_legend_explains_every_column(result):
    lines = str(result).splitlines()
    assert lines[-4:] == result.legend
    text = "\n".join(result.legend)
    head = result._table()[1]
    assert [name for name in ("|r|/|h|", "eta", "predicted", "realized") if f"{name}: " not in text] == []
    assert {name.split()[0] for name in head} == {
        "subject",
        "target",
        "|r|/|h|",
        "eta",
        "predicted",
        "realized",
        "steps",
    }
    assert "postprocess" not in text
    result = replace(result, method=result.method.updated(postprocess="rect"))
    assert "along r, before the postprocess rect; " in "\n".join(result.legend)


EVIL = "<script>alert('x')</script> & \"quotes\""


def test_html_escapes_every_text(result):
    """Nothing that a user or a model has written becomes markup; tables are whole."""
    requests = (EditRequest("{} is", EVIL, EVIL), *REQUESTS[1:])
    result = replace(result, requests=requests, answers=(Answer(EVIL, EVIL, EVIL, EVIL),))
    eta = torch.full((2, 3), 0.5)
    preview = Preview(requests, (1, 2), eta, eta, SPREAD, "least_squares")
    check = Check((Answer(EVIL, EVIL, EVIL, EVIL),), (Neighbor(EVIL, EVIL, EVIL, "other"),))
    for page in (result._repr_html_(), preview._repr_html_(), check._repr_html_()):
        assert "<script" not in page
        assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; &quot;quotes&quot;" in page
        assert page.count("<table>") == page.count("</table>") > 0
    assert "1 of 1 answers begin with their target" in result._repr_html_()
    assert "neighbors: 0 of 1 unchanged" in check._repr_html_()


def test_check_counts_targets_and_unchanged_answers():
    good, bad = Answer("a", "x", "-", "x!"), Answer("b", "x", "-", "y")
    same, other = Neighbor("c", "p", "p", "p"), Neighbor("d", "p", "p", "p q")
    assert [answer.success for answer in (good, bad, same, other)] == [True, False, True, False]
    check = Check((good, bad), (same, other))
    assert repr(check) == "<Check: rephrases: 1 of 2 begin with the target; neighbors: 1 of 2 unchanged>"
    lines = str(check).splitlines()
    assert [line for line in lines if "<-" in line] == [
        "  after:  'y'   <- does not begin with 'x'",
        "  after:  'p q'   <- changed",
    ]
    assert not check.success
    assert Check((good,), (same,)).success
    assert not Check((), (other,)).success
    assert str(Check((good,), ())).startswith("rephrases: 1 of 1")


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.3, "weaken the constraint: --set lam="),
        (0.9, "the postprocess may limit the edit: change its settings"),
    ],
)
def test_advice_names_the_postprocess(result, monkeypatch, share, said):
    """The realized share is measured before the postprocess, so a failed edit of a fully realized plan is its doing."""
    monkeypatch.setattr(
        Solution, "realized_share", property(lambda self: torch.full((len(self.planned),), share))
    )
    answers = tuple(Answer("q", "x", "-", "y") for _ in REQUESTS)
    rect = replace(result, method=result.method.updated(postprocess="rect"), answers=answers)
    advice = rect.advice()
    assert "was realized (eta 0.3, before the postprocess rect); " in advice
    assert said in advice
    assert (
        "postprocess"
        not in replace(result, answers=answers, method=result.method.updated(clamp=None)).advice()
    )
