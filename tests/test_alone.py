"""Open-loop plans of requests that are edited alone, found together: those of each request alone, in fp64."""

import pytest
import torch

import metake as mk
from metake.methods.alone import group_of, plan_key, plan_together, plans_alone
from metake.methods.table import method_named
from metake.models.trace import frozen

REQUESTS = (
    mk.EditRequest("Which guild does {} belong to?", "Nezan Girok", "Green Lantern and Red Oak"),
    mk.EditRequest("What is the craft of {}?", "Zumi Bama", "potter"),
)
NUMBERS = {"geometry": "identity", "steps": 4, "meta_steps": 2, "lr": 0.5, "kl": 0.0625, "stop_loss": 6.0}
WINDOWED = ("memit-anyedit", "alphaedit-anyedit", "muke", "metake-windows")


@pytest.fixture
def double(demo):
    demo.model.double()
    with frozen(demo.model):
        yield demo
    demo.model.float()


def method_of(row, **changes):
    method = method_named(row, (1, 2)).changed({("contexts",): ("Yes.",)})
    return method.updated(**method.supported_changes({**NUMBERS, "window_size": 2, **changes}))


@pytest.mark.parametrize("row", ["memit", "pmet", "metake + compensated", *WINDOWED])
def test_plans_found_together_give_the_edits_of_each_request_alone(double, row):
    """Answers of five tokens and of one, whose plans stop at different steps."""
    method = method_of(row)
    assert plans_alone(method)
    state = method.prepare(double, method.init(double))
    plans = plan_together(method, double, REQUESTS, state)
    for request, plan in zip(REQUESTS, plans, strict=True):
        group = group_of(method, double, request, state, plan)
        stage = method.step(double, [request], state, lambda: None, inputs=(group,))[2][0]
        alone = method.step(double, [request], state, lambda: None)[2][0]
        assert torch.equal(stage.targets.plan.steps, alone.targets.plan.steps)
        torch.testing.assert_close(
            stage.targets.plan.residuals, alone.targets.plan.residuals, rtol=1e-8, atol=1e-8
        )
        for layer in (1, 2):
            now, expected = (s.solution.factors[layer] for s in (stage, alone))
            torch.testing.assert_close(now[0] @ now[1].T, expected[0] @ expected[1].T, rtol=1e-6, atol=1e-9)
    assert len({tuple(plan.steps.tolist()) for plan in plans}) == 2


def test_a_known_plan_is_not_made_again(demo):
    method = method_of("memit")
    state, steps = method.prepare(demo, method.init(demo)), []
    plan = plan_together(method, demo, REQUESTS[:1], state, lambda: steps.append(1))[0]
    assert len(steps) == int(plan.steps.max()) + 1
    group = group_of(method, demo, REQUESTS[0], state, plan)
    with frozen(demo.model):
        method.step(demo, REQUESTS[:1], state, lambda: steps.append(2), inputs=(group,))
    assert 2 not in steps


def test_methods_whose_plans_depend_on_the_solve_or_on_each_other_are_told_apart():
    for row, changes in (
        ("memit", {"stop": "post_edit_loss"}),
        ("memit", {"merge": True}),
        ("memit-iterated", {}),
        ("alphaedit-blue", {}),
        ("ultraedit", {}),
    ):
        assert not plans_alone(method_named(row, (1, 2)).updated(**changes)), (row, changes)


def test_methods_share_a_plan_if_nothing_that_it_depends_on_differs(demo):
    def key(row, **changes):
        method = method_of(row, **changes)
        return plan_key(method, method.prepare(demo, method.init(demo)))

    for row in ("metake-windows", "alphaedit-anyedit"):
        assert key(row, meta_steps=9) == key("memit-anyedit")
    for changes in (
        {"steps": 5},
        {"window_size": 3},
        {"loss_dtype": "bfloat16"},
        {"lr": 1.0},
        {"clamp": 3.0},
    ):
        assert key("memit-anyedit", **changes) != key("memit-anyedit")
    assert key("muke") != key("memit-anyedit") != key("memit")
    assert key("memit", lookup="prompt") != key("memit")
