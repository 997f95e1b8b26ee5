"""Stopping, clamping, independence of requests, and compensation."""

from dataclasses import replace

import pytest
import torch

from metake.editor import Editor
from metake.models.tokens import encode
from metake.presets import settings_for
from metake.requests import Request
from metake.targets.compensate import compensate
from metake.targets.descent import Penalty, descend
from metake.targets.gradient import answer_signals
from metake.targets.objective import Losses


class Bowl:
    """Losses ||r_j - goal_j||^2: a stand-in slope with a known minimum."""

    def __init__(self, goals, executed=False):
        self.goals, self.executed = goals, executed
        self.seen, self.gradients = [], []

    def __call__(self, residuals, active, penalty, *, backward=True):
        self.seen.append(active.clone())
        self.gradients.append(backward)
        value = ((residuals - self.goals) ** 2).sum(1) * active
        if backward:
            value.sum().backward()
        return Losses(value.detach(), torch.zeros(len(active)))


GOALS = torch.tensor([[0.1, 0.0], [3.0, 0.0]])


def go(stop="own", steps=40, penalty=None, execute=None, goals=GOALS, executed=False, **rest):
    bowl = Bowl(goals, executed)
    start = torch.zeros_like(goals)
    out = descend(
        bowl, start, torch.ones(len(goals)), steps=steps, lr=0.1, penalty=penalty or Penalty(),
        stop=stop, stop_loss=1e-3, execute=execute or (lambda r: None), **rest,
    )  # fmt: skip
    return bowl, out


def test_each_request_stops_on_its_own_loss():
    bowl, out = go(steps=200)
    assert out.steps[0] < out.steps[1]
    assert ((out.residuals - GOALS) ** 2).sum(1).max() < 1e-3
    assert bowl.seen[-1].tolist() == [False, True]  # the finished one no longer runs


def test_what_an_update_costs_decides_which_residual_is_kept():
    """X14: without a price the last and lowest loss is kept, with one the best sum of both."""

    class Charged(Bowl):
        def __call__(self, residuals, active, penalty, *, backward=True):
            losses = super().__call__(residuals, active, penalty, backward=backward)
            if penalty.price is None:
                return losses
            return replace(losses, cost=penalty.price * residuals.detach().square().sum(1))

    def kept(price):
        slope, penalty = Charged(GOALS, executed=True), Penalty(price=price)
        return descend(
            slope, torch.zeros_like(GOALS), torch.ones(2), steps=60, lr=0.1, penalty=penalty,
            stop="executed", stop_loss=1e-9,
            execute=lambda r: slope(r, torch.ones(2, dtype=torch.bool), penalty, backward=False),
        ).residuals  # fmt: skip

    free, priced = kept(None), kept(torch.tensor([0.0, 1.0]))
    assert free[1, 0] == pytest.approx(3.0, abs=0.1)
    assert priced[1, 0] == pytest.approx(1.5, abs=0.1)  # (r - 3)^2 + r^2 is least there
    torch.testing.assert_close(priced[0], free[0])


def test_a_stopped_request_does_not_drift():
    _, short = go(steps=200, goals=GOALS[:1])
    _, both = go(steps=200)
    torch.testing.assert_close(both.residuals[:1], short.residuals)
    assert both.steps[0] == short.steps[0]


def test_without_stop_every_look_but_the_last_is_a_step():
    bowl, out = go(stop="none", steps=15)
    assert out.steps.tolist() == [14, 14]
    assert bowl.gradients == [True] * 14 + [False]  # what takes no step needs no gradient


def test_where_execution_decides_every_look_is_a_step():
    bowl, out = go(
        stop="executed", steps=15, executed=True,
        execute=lambda r: Losses(((r - GOALS) ** 2).sum(1), torch.zeros(2)),
    )  # fmt: skip
    assert out.steps.tolist()[1] == 15
    assert all(bowl.gradients)


def test_clamp_bounds_the_length():
    _, out = go(stop="none", penalty=Penalty(clamp=0.5))
    assert out.residuals.norm(dim=1).max() <= 0.5 + 1e-6


def test_decay_and_regulariser_shorten():
    _, free = go(stop="none", steps=100)
    _, decayed = go(stop="none", steps=100, penalty=Penalty(decay=2.0))
    _, near = go(stop="none", steps=100, penalty=Penalty(regularise=5.0))
    assert decayed.residuals[1].norm() < free.residuals[1].norm()
    assert near.residuals[1].norm() < free.residuals[1].norm()
    assert torch.isfinite(decayed.residuals).all()  # the norm has no gradient at the start, 0


def test_executed_stop_keeps_the_best_seen():
    """The executed loss has its minimum half way: going on along one's own loss must not lose it."""

    def execute(residuals):
        return Losses((residuals - GOALS / 2).norm(dim=1), torch.zeros(2))

    _, out = go(stop="executed", steps=60, execute=execute, check_every=1)
    assert (out.residuals - GOALS / 2).norm(dim=1).max() < 0.06
    torch.testing.assert_close(out.executed, (out.residuals - GOALS / 2).norm(dim=1))


def test_a_slope_that_knows_the_executed_loss_is_asked_at_every_step():
    """Without another pass until the end; and the best seen is kept although the steps overshoot."""
    asked = []

    def execute(residuals):
        asked.append(residuals.clone())
        return Losses(((residuals - GOALS) ** 2).sum(1), torch.zeros(2))

    _, out = go(stop="executed", steps=25, execute=execute, executed=True, check_every=1000)
    assert len(asked) == 1  # the last step's residual, which no slope has seen
    assert out.steps[0] < 25  # done, and frozen, on the way
    losses = ((out.residuals - GOALS) ** 2).sum(1)
    torch.testing.assert_close(out.executed, losses)
    assert losses[0] < 1e-3

    _, done = go(stop="executed", execute=execute, executed=True, goals=torch.zeros(2, 2))
    assert done.steps.tolist() == [0, 0]
    assert len(asked) == 1


def test_executed_stop_leaves_alone_what_holds_already():
    _, out = go(stop="executed", execute=lambda r: Losses(torch.zeros(2), torch.zeros(2)))
    assert out.steps.tolist() == [0, 0]
    assert out.residuals.abs().max() == 0


@pytest.mark.parametrize("kept", [0.9, 0.3, 0.05])
def test_compensation_finds_the_length(kept):
    plan = torch.randn(3, 4)
    out, scale = compensate(lambda r: torch.full((3,), kept), plan, torch.full((3,), 64.0))
    torch.testing.assert_close(scale, torch.full((3,), 1 / kept), rtol=3e-3, atol=0)
    torch.testing.assert_close(out, plan * scale[:, None])


def test_compensation_is_bounded_where_nothing_is_kept():
    _, scale = compensate(lambda r: torch.zeros(2), torch.ones(2, 3), torch.tensor([10.0, 1.0]))
    torch.testing.assert_close(scale, torch.tensor([10.0, 1.0]), rtol=1e-3, atol=0)


@pytest.mark.parametrize("method", ["memit", "metake", "memit-compensated"])
def test_a_batch_of_one_equals_the_single_form(loaded, statistics_of, records, method):
    changes = {"steps": 6, "layers": (1, 2, 3), "meta_steps": 4, "contexts": ("The mill is dark",)}
    statistics = statistics_of(loaded)
    factors = []
    for joint in (True, False):
        settings = settings_for(loaded.arch, method, name="none", joint=joint, **changes)
        with Editor(
            loaded.model, loaded.tokenizer, method, settings=settings, statistics=statistics
        ) as editor:
            factors.append(editor.edit(records[0].request).delta.factors)
    for layer in (1, 2, 3):
        for a, b in zip(factors[0][layer], factors[1][layer], strict=True):
            assert (a - b).norm() <= 1e-3 * b.norm()


def test_open_loop_plans_do_not_see_each_other(loaded, statistics_of, records):
    changes = {"steps": 5, "layers": (1, 2, 3), "contexts": ()}
    settings = settings_for(loaded.arch, "memit", name="none", **changes)
    requests = [r.request for r in records[:3]]
    plans = []
    for group in (requests, requests[1:2]):
        with Editor(
            loaded.model, loaded.tokenizer, "memit", settings=settings, statistics=statistics_of(loaded)
        ) as editor:
            plans.append(editor.edit(group).stages[0].targets.plan.residuals)
    torch.testing.assert_close(plans[0][1], plans[1][0], rtol=1e-2, atol=1e-2)


def test_tied_requests_share_a_residual_and_its_loss():
    """Requests 0 and 2 end between their goals, which neither reaches; request 1 goes its own way."""
    goals = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    _, out = go(stop="none", steps=400, goals=goals, ties=torch.tensor([0, 1, 0]))
    assert torch.equal(out.residuals[0], out.residuals[2])
    torch.testing.assert_close(out.residuals[0], torch.tensor([0.5, 0.5]), rtol=0, atol=1e-2)
    torch.testing.assert_close(out.residuals[1], goals[1], rtol=0, atol=1e-2)
    torch.testing.assert_close(out.nll[0], out.nll[2], rtol=0, atol=0)


def test_tied_requests_stop_together_and_are_clamped_alike():
    goals = torch.tensor([[0.1, 0.0], [3.0, 0.0], [3.0, 0.0]])
    _, tied = go(steps=200, goals=goals, ties=torch.tensor([0, 0, 2]), penalty=Penalty(clamp=0.5))
    assert tied.steps[0] == tied.steps[1]
    assert torch.equal(tied.residuals[0], tied.residuals[1])
    _, free = go(steps=200, goals=goals, penalty=Penalty(clamp=0.5))
    assert free.steps[0] < free.steps[1]


def test_requests_of_one_subject_are_merged_where_their_keys_are_one(demo, statistics_of):
    """The key of "The river" is the same whatever follows: two targets for it cannot both be executed."""
    requests = [
        Request("The {} is loved by the", "river", "doctor"),
        Request("The {} belongs to the", "river", "miller"),
    ]
    changes = {
        "layers": (1, 2),
        "steps": 30,
        "lr": 1.0,
        "clamp": None,
        "weight": 1.0,
        "contexts": (),
        "stop": "none",
    }
    seen = {}
    for method in ("memit", "memit-merge"):
        settings = settings_for(demo.arch, method, name="none", **changes)
        editor = Editor(demo.model, demo.tokenizer, method, settings=settings, statistics=statistics_of(demo))
        with editor:
            residuals = editor.edit(requests).stages[0].targets.residuals
            rows = [encode(demo.tokenizer, r.text, r.target) for r in requests]
            seen[method] = residuals, answer_signals(demo.arch, rows, (1,)).nll.mean()
    apart, merged = seen["memit"][0], seen["memit-merge"][0]
    assert torch.equal(merged[0], merged[1])
    assert (apart[0] - apart[1]).norm() > 0.1 * apart[0].norm()
    assert seen["memit-merge"][1] < seen["memit"][1]
