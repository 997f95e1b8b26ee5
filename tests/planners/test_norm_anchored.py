"""NAS: values are rescaled to a norm of the first batch, which later batches and resumed runs use as well."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import metake as mk
from metake.planners.norm_anchored import NormAnchored, anchored, trimmed_mean

CONTEXTS = ("The market is cold",)


@given(st.integers(1, 6), st.integers(1, 5), st.floats(0.1, 10), st.integers(0, 10_000))
def test_anchored_keeps_directions_and_gives_the_norm(n, d_v, anchor, seed):
    """`v m / ||v||` where `||v|| <= 2 m`, elsewhere the value before the edit."""
    generator = torch.Generator().manual_seed(seed)
    wanted, value = (torch.randn(n, d_v, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    for found, plan, before in zip(anchored(wanted, value, anchor), wanted, value, strict=True):
        if plan.norm() > 2 * anchor:
            assert torch.equal(found, before)
        else:
            torch.testing.assert_close(found, anchor * plan / plan.norm(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("norms", "mean"), [([1.0, 3.0], 2.0), ([2.0] * 19 + [90.0], 2.0), ([5.0], 5.0)], ids=str
)
def test_trimmed_mean_leaves_out_the_largest_twentieth(norms, mean):
    assert trimmed_mean(torch.tensor(norms)) == pytest.approx(mean)


def editor_of(demo, statistics_of, **settings):
    settings = {"layers": (2, 3), "steps": 4, "contexts": CONTEXTS, "lookup": "prompt", **settings}
    method = mk.settings_for(demo, "nas", **settings)
    return mk.Editor(demo, method=method, statistics=statistics_of(demo), progress=False, answers=False)


def planned_norms(editor, requests, stage):
    """Norms of the planned values of a batch, in the present model."""
    state = editor.method.prepare(editor.model, editor.state)
    _, prompts = editor.method.batch(editor.model, requests, state)
    value = editor.method.solver(editor.model, state).ffn_output(prompts)
    return (value + stage.targets.residuals).norm(dim=1)


def test_values_have_the_anchor_of_the_first_batch(demo, statistics_of, records):
    """In every batch; MEMIT's open loop gives them other norms."""
    first, second = ([r.request for r in records[i : i + 3]] for i in (0, 3))
    with editor_of(demo, statistics_of) as editor:
        stage, later = (editor.edit(batch).stages[0] for batch in (first, second))
        anchor = stage.targets.anchor
        assert editor.state.anchors == {3: anchor}
        assert later.targets.anchor == anchor
        editor.undo()
        torch.testing.assert_close(
            planned_norms(editor, second, later), torch.full((3,), anchor), rtol=1e-3, atol=1e-3
        )
        editor.undo()
        assert editor.state.anchors == {}
        torch.testing.assert_close(
            planned_norms(editor, first, stage), torch.full((3,), anchor), rtol=1e-3, atol=1e-3
        )
        plain = mk.Editor(
            demo, method=editor.method.updated(planner="open-loop"), statistics=statistics_of(demo)
        )
        free = plain.edit(first).stages[0]
        plain.revert()
        norms = planned_norms(editor, first, free)
    assert float(norms.std()) > 0.01 * float(norms.mean())
    assert anchor == pytest.approx(float(norms.mean()), rel=1e-3)


def test_a_preview_plans_nothing_and_leaves_the_anchor_to_the_edited_batch(
    demo, statistics_of, records, monkeypatch
):
    """Also after the preview of other requests; neither does the measurement of a strength plan."""
    first, other = ([r.request for r in records[i : i + 2]] for i in (0, 2))
    plans, plan = [], NormAnchored.plan
    monkeypatch.setattr(NormAnchored, "plan", lambda *args: plans.append(1) or plan(*args))
    with editor_of(demo, statistics_of, attenuation=0.5) as editor:
        wanted = editor.edit(first).delta
    with editor_of(demo, statistics_of, attenuation=0.5) as editor:
        editor.preview(first)
        editor.preview(other)
        assert len(plans) == 1
        found = editor.edit(first).delta
        assert len(plans) == 2
    for layer in wanted.layers:
        assert torch.equal(found.to_dense(layer), wanted.to_dense(layer))


def test_a_given_anchor_is_used(demo, statistics_of, records):
    with editor_of(demo, statistics_of, anchor=30.0) as editor:
        requests = [record.request for record in records[:2]]
        stage = editor.edit(requests).stages[0]
        editor.undo()
        moved = stage.targets.residuals.norm(dim=1) > 0
        assert moved.any()
        norms = planned_norms(editor, requests, stage)[moved]
    torch.testing.assert_close(norms, torch.full_like(norms, 30.0), rtol=1e-3, atol=1e-3)


def test_restored_batches_give_the_same_anchor(demo, statistics_of, records):
    """A resumed run measures the anchor again, before it applies the first batch."""
    first, second = ([r.request for r in records[i : i + 2]] for i in (0, 2))
    with editor_of(demo, statistics_of) as editor:
        result = editor.edit(first)
        wanted, anchors = editor.edit(second).delta, editor.state.anchors
    with editor_of(demo, statistics_of) as editor:
        editor.restore(first, result.delta, result.memory)
        assert editor.state.anchors == pytest.approx(anchors, rel=1e-6)
        found = editor.edit(second).delta
    for layer in wanted.layers:
        change = wanted.to_dense(layer)
        torch.testing.assert_close(
            found.to_dense(layer), change, rtol=1e-3, atol=1e-3 * float(change.abs().max())
        )
