"""Stopping, clamping, independence of requests, and compensation."""

from dataclasses import replace

import pytest
import torch

from metake.editor import Editor
from metake.models.tokens import encode
from metake.planners.compensated import compensate
from metake.planners.normalized_gradient import answer_keys_and_gradients
from metake.planners.objective import Losses
from metake.planners.target_optimization import Penalty, group_mean, mean_within, optimize_targets
from metake.requests import EditRequest
from tests.cases import method_of


class Bowl:
    """Losses ||r_j - goal_j||^2: a stand-in slope with a known minimum."""

    def __init__(self, goals, executed=False):
        self.goals, self.is_post_edit = goals, executed
        self.seen, self.gradients = [], []

    def __call__(self, residuals, active, penalty, *, backward=True):
        self.seen.append(active.clone())
        self.gradients.append(backward)
        value = ((residuals - self.goals) ** 2).sum(1) * active
        gradient = torch.autograd.grad(value.sum(), residuals)[0] if backward else None
        return Losses(value.detach(), torch.zeros(len(active))), gradient


GOALS = torch.tensor([[0.1, 0.0], [3.0, 0.0]])


def go(
    stop="planning_loss", steps=40, penalty=None, evaluate_post_edit=None, goals=GOALS, executed=False, **rest
):
    bowl = Bowl(goals, executed)
    start = torch.zeros_like(goals)
    out = optimize_targets(
        bowl,
        start,
        torch.ones(len(goals)),
        steps=steps,
        lr=0.1,
        penalty=penalty or Penalty(),
        stop=stop,
        stop_loss=1e-3,
        evaluate_post_edit=evaluate_post_edit or (lambda r: None),
        **rest,
    )
    return bowl, out


def test_optimize_targets_stops_each_request_on_its_loss():
    bowl, out = go(steps=200)
    assert out.steps[0] < out.steps[1]
    assert ((out.residuals - GOALS) ** 2).sum(1).max() < 1e-3
    assert bowl.seen[-1].tolist() == [False, True]  # the finished one no longer runs


def test_optimize_targets_keeps_the_best_with_cost():
    """What an update costs decides which residual is kept.

    X14: without a cost weight the last and lowest loss is kept, with one the best sum of both.
    """

    class Charged(Bowl):
        def __call__(self, residuals, active, penalty, *, backward=True):
            losses, gradient = super().__call__(residuals, active, penalty, backward=backward)
            if penalty.cost_weights is not None:
                losses = replace(losses, cost=penalty.cost_weights * residuals.detach().square().sum(1))
            return losses, gradient

    def kept(price):
        slope, penalty = Charged(GOALS, executed=True), Penalty(cost_weights=price)
        return optimize_targets(
            slope,
            torch.zeros_like(GOALS),
            torch.ones(2),
            steps=60,
            lr=0.1,
            penalty=penalty,
            stop="post_edit_loss",
            stop_loss=1e-9,
            evaluate_post_edit=lambda r: slope(r, torch.ones(2, dtype=torch.bool), penalty, backward=False)[
                0
            ],
        ).residuals

    free, priced = kept(None), kept(torch.tensor([0.0, 1.0]))
    assert free[1, 0] == pytest.approx(3.0, abs=0.1)
    assert priced[1, 0] == pytest.approx(1.5, abs=0.1)  # (r - 3)^2 + r^2 is least there
    torch.testing.assert_close(priced[0], free[0])


def test_optimize_targets_leaves_stopped_requests_unchanged():
    """A stopped request does not drift."""
    _, short = go(steps=200, goals=GOALS[:1])
    _, both = go(steps=200)
    torch.testing.assert_close(both.residuals[:1], short.residuals)
    assert both.steps[0] == short.steps[0]


def test_optimize_targets_without_stop_steps_at_every_evaluation():
    """Without stop every evaluation but the last is a step."""
    bowl, out = go(stop="none", steps=15)
    assert out.steps.tolist() == [14, 14]
    assert bowl.gradients == [True] * 14 + [False]  # what takes no step needs no gradient


def test_optimize_targets_steps_until_execution_decides():
    """Where execution decides every evaluation is a step."""
    bowl, out = go(
        stop="post_edit_loss",
        steps=15,
        executed=True,
        evaluate_post_edit=lambda r: Losses(((r - GOALS) ** 2).sum(1), torch.zeros(2)),
    )
    assert out.steps.tolist()[1] == 15
    assert bowl.gradients == [True] * 15 + [False]  # the last one evaluates


@pytest.mark.parametrize("stop", ["none", "planning_loss", "post_edit_loss"])
def test_optimize_targets_names_requests_at_the_clamp(stop):
    """Of the targets that are returned; the first goal is within the clamp."""

    def execute(residuals):
        return Losses(((residuals - GOALS) ** 2).sum(1), torch.zeros(2))

    _, out = go(stop=stop, steps=200, penalty=Penalty(clamp=0.5), evaluate_post_edit=execute)
    assert out.clamped.tolist() == [False, True]
    assert go(stop=stop, steps=200, evaluate_post_edit=execute)[1].clamped.tolist() == [False, False]


def test_optimize_targets_clamps_the_length():
    _, out = go(stop="none", penalty=Penalty(clamp=0.5))
    assert out.residuals.norm(dim=1).max() <= 0.5 + 1e-6


def test_optimize_targets_shortens_by_decay_and_regularizer():
    _, free = go(stop="none", steps=100)
    _, decayed = go(stop="none", steps=100, penalty=Penalty(decay=2.0))
    _, near = go(stop="none", steps=100, penalty=Penalty(regularization=5.0))
    assert decayed.residuals[1].norm() < free.residuals[1].norm()
    assert near.residuals[1].norm() < free.residuals[1].norm()
    assert torch.isfinite(decayed.residuals).all()  # the norm has no gradient at the start, 0


def test_optimize_targets_keeps_the_best_executed():
    """Executed stop keeps the best seen.

    The post-edit loss has its minimum half way: going on along one's own loss must not lose it.
    """

    def execute(residuals):
        return Losses((residuals - GOALS / 2).norm(dim=1), torch.zeros(2))

    _, out = go(stop="post_edit_loss", steps=60, evaluate_post_edit=execute, check_every=1)
    assert (out.residuals - GOALS / 2).norm(dim=1).max() < 0.06
    torch.testing.assert_close(out.post_edit_nll, (out.residuals - GOALS / 2).norm(dim=1))


def test_optimize_targets_uses_executed_losses_of_the_gradient():
    """A gradient with the post-edit loss is evaluated at every step.

    The last residuals are evaluated by the same loss, without its gradient; and the best seen is kept although the steps
    overshoot.
    """
    asked = []

    def execute(residuals):
        asked.append(residuals.clone())
        return Losses(((residuals - GOALS) ** 2).sum(1), torch.zeros(2))

    bowl, out = go(
        stop="post_edit_loss", steps=25, evaluate_post_edit=execute, executed=True, check_every=1000
    )
    assert bowl.gradients == [True] * 25 + [False]
    assert bowl.seen[-1].tolist() == [False, True]  # of the unfinished request alone
    assert out.steps[0] < 25  # done, and frozen, on the way
    losses = ((out.residuals - GOALS) ** 2).sum(1)
    torch.testing.assert_close(out.post_edit_nll, losses)
    assert losses[0] < 1e-3

    _, done = go(stop="post_edit_loss", evaluate_post_edit=execute, executed=True, goals=torch.zeros(2, 2))
    assert done.steps.tolist() == [0, 0]
    assert not asked


def test_optimize_targets_skips_requests_already_executed():
    """Executed stop leaves alone what holds already."""
    _, out = go(stop="post_edit_loss", evaluate_post_edit=lambda r: Losses(torch.zeros(2), torch.zeros(2)))
    assert out.steps.tolist() == [0, 0]
    assert out.residuals.abs().max() == 0


@pytest.mark.parametrize("kept", [0.9, 0.3, 0.05])
def test_compensate_finds_the_length(kept):
    plan = torch.randn(3, 4)
    out, scale = compensate(lambda r: torch.full((3,), kept), plan, torch.full((3,), 64.0))
    torch.testing.assert_close(scale, torch.full((3,), 1 / kept), rtol=3e-3, atol=0)
    torch.testing.assert_close(out, plan * scale[:, None])


def test_compensate_measures_shares_of_the_longer_residual():
    """Compensation measures what is kept of the longer residual.

    Where lower edits move upper ones the share depends on the length: at s times the plan 1/2 s^(-1/2) is kept,
    so that 1/2 s^(1/2) = 1 at s = 4; per request, from its own residual."""
    plan = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    lengths = plan.norm(dim=1)

    def fraction_of(residuals):
        return torch.tensor([0.5, 0.25]) * (residuals.norm(dim=1) / lengths) ** -0.5

    out, scale = compensate(fraction_of, plan, torch.full((2,), 64.0))
    torch.testing.assert_close(scale, torch.tensor([4.0, 16.0]), rtol=3e-3, atol=0)
    torch.testing.assert_close(out, plan * scale[:, None])


def test_compensate_is_bounded_where_nothing_is_realized():
    """Compensation is bounded where nothing is kept."""
    _, scale = compensate(lambda r: torch.zeros(2), torch.ones(2, 3), torch.tensor([10.0, 1.0]))
    torch.testing.assert_close(scale, torch.tensor([10.0, 1.0]), rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", ["memit", "metake", "metake-proxy", "memit-compensated"])
def test_optimize_targets_of_one_equals_the_single_form(model, statistics_of, records, name):
    changes = {"steps": 6, "layers": (1, 2, 3), "meta_steps": 4, "contexts": ("The mill is dark",)}
    statistics = statistics_of(model)
    factors = []
    for joint in (True, False):
        method = method_of(model, name, joint=joint, **changes)
        with Editor(model, method=method, statistics=statistics) as editor:
            factors.append(editor.edit(records[0].request).delta.factors)
    for layer in (1, 2, 3):
        for a, b in zip(factors[0][layer], factors[1][layer], strict=True):
            assert (a - b).norm() <= 1e-3 * b.norm()


def test_optimize_targets_plans_open_loops_independently(model, statistics_of, records):
    """Open loop plans are independent."""
    changes = {"steps": 5, "layers": (1, 2, 3), "contexts": ()}
    method = method_of(model, "memit", **changes)
    requests = [r.request for r in records[:3]]
    plans = []
    for group in (requests, requests[1:2]):
        with Editor(model, method=method, statistics=statistics_of(model)) as editor:
            plans.append(editor.edit(group).stages[0].targets.plan.residuals)
    torch.testing.assert_close(plans[0][1], plans[1][0], rtol=1e-2, atol=1e-2)


def test_optimize_targets_shares_residuals_of_tied_requests():
    """Requests 0 and 2 end between their goals, which neither reaches; request 1 goes its own way."""
    goals = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    _, out = go(stop="none", steps=400, goals=goals, groups=torch.tensor([0, 1, 0]))
    assert torch.equal(out.residuals[0], out.residuals[2])
    torch.testing.assert_close(out.residuals[0], torch.tensor([0.5, 0.5]), rtol=0, atol=1e-2)
    torch.testing.assert_close(out.residuals[1], goals[1], rtol=0, atol=1e-2)
    torch.testing.assert_close(out.nll[0], out.nll[2], rtol=0, atol=0)


def test_optimize_targets_stops_and_clamps_tied_requests_alike():
    goals = torch.tensor([[0.1, 0.0], [3.0, 0.0], [3.0, 0.0]])
    _, tied = go(steps=200, goals=goals, groups=torch.tensor([0, 0, 2]), penalty=Penalty(clamp=0.5))
    assert tied.steps[0] == tied.steps[1]
    assert torch.equal(tied.residuals[0], tied.residuals[1])
    _, free = go(steps=200, goals=goals, penalty=Penalty(clamp=0.5))
    assert free.steps[0] < free.steps[1]


def test_editor_merges_requests_with_one_key(demo, statistics_of):
    """Requests of one subject are merged where their keys are one.

    The key of "The river" is the same whatever follows: two targets for it cannot both be executed.
    """
    requests = [
        EditRequest("The {} is loved by the", "river", "doctor"),
        EditRequest("The {} belongs to the", "river", "miller"),
    ]
    changes = {
        "layers": (1, 2),
        "steps": 30,
        "lr": 1.0,
        "clamp": None,
        "lam": 1.0,
        "contexts": (),
        "stop": "none",
    }
    seen = {}
    for method in ("memit", "memit-merge"):
        chosen = method_of(demo, method, **changes)
        editor = Editor(demo, method=chosen, statistics=statistics_of(demo))
        with editor:
            residuals = editor.edit(requests).stages[0].targets.residuals
            rows = [encode(demo.tokenizer, r.text, r.target_new) for r in requests]
            seen[method] = residuals, answer_keys_and_gradients(demo, rows, (1,)).nll.mean()
    apart, merged = seen["memit"][0], seen["memit-merge"][0]
    assert torch.equal(merged[0], merged[1])
    assert (apart[0] - apart[1]).norm() > 0.1 * apart[0].norm()
    assert seen["memit-merge"][1] < seen["memit"][1]


class Valley:
    """NLL ||r_j - goal_j||^2 and KL <r_j, way>^2, of a request's residual alone."""

    is_post_edit = False

    def __init__(self, goals, way=(0.0, 1.0)):
        self.goals, self.way = torch.as_tensor(goals), torch.as_tensor(way)

    def losses(self, residuals):
        return Losses((residuals - self.goals).square().sum(1), (residuals @ self.way).square())

    def __call__(self, residuals, active, penalty, *, backward=True):
        found = self.losses(residuals)
        total = ((found.nll + penalty.kl * found.kl) * active).sum()
        gradient = torch.autograd.grad(total, residuals)[0] if backward else None
        return Losses((found.nll * active).detach(), (found.kl * active).detach()), gradient


def adam(gradients, lr):
    """The next step of Adam (Kingma and Ba 2015, algorithm 1) after these gradients."""
    m = v = torch.zeros_like(gradients[0])
    for g in gradients:
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    t = len(gradients)
    return -lr * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)


def published(goal, start, norm, *, steps, lr, stop_loss, kl=0.0, decay=0.0, regularization=0.0, clamp=None):
    """One request's target as MEMIT's code finds it, with gradients by hand; and its NLL at every look."""
    way, r, gradients, trail = torch.tensor([0.0, 1.0]), start.clone(), [], []
    for step in range(steps):
        trail.append(float((r - goal) @ (r - goal)))
        loss = trail[-1] + kl * float(r @ way) ** 2 + decay * float(r.norm()) / norm**2
        loss += regularization * float((r - start) @ (r - start)) / norm**2
        if loss < stop_loss or step == steps - 1:
            break
        slope = 2 * (r - goal) + 2 * kl * (r @ way) * way + 2 * regularization * (r - start) / norm**2
        slope = slope + decay * r / r.norm().clamp_min(1e-30) / norm**2
        gradients.append(slope)
        r = r + adam(gradients, lr)
        if clamp is not None and float(r.norm()) > clamp * norm:
            r = r * clamp * norm / r.norm()
    return r, len(gradients), trail


GOALS3 = torch.tensor([[0.4, 0.3], [2.0, -1.0], [-0.5, 1.5]])
STARTS3 = torch.tensor([[0.0, 0.0], [0.3, 0.1], [1.0, -0.5]])
NORMS3 = torch.tensor([1.5, 0.6, 2.0])


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"kl": 0.3},
        {"decay": 0.2},
        {"regularization": 0.4},
        {"clamp": 0.7},
        {"kl": 0.1, "decay": 0.05, "regularization": 0.08, "clamp": 0.9},
    ],
    ids=str,
)
@pytest.mark.parametrize("stop", ["planning_loss", "none"])
def test_optimize_targets_equals_the_published_loop(weights, stop):
    """The loop is the published one with every weight.

    Against gradients by hand, per request: decay of ||r|| and pull to r_0, both over ||h||^2; clamp after a step;
    the stop is of the whole loss; the last look takes no step."""
    options = {"steps": 40, "lr": 0.15}
    out = optimize_targets(
        Valley(GOALS3),
        STARTS3,
        NORMS3,
        penalty=Penalty(**weights),
        stop=stop,
        stop_loss=0.02,
        evaluate_post_edit=None,
        **options,
    )
    reached = 0.02 if stop == "planning_loss" else -1.0
    alone = [
        published(goal, start, float(norm), stop_loss=reached, **weights, **options)
        for goal, start, norm in zip(GOALS3, STARTS3, NORMS3, strict=True)
    ]
    torch.testing.assert_close(out.residuals, torch.stack([r for r, *_ in alone]), rtol=1e-4, atol=1e-5)
    assert out.steps.tolist() == [count for _, count, _ in alone]
    torch.testing.assert_close(out.nll, torch.tensor([seen[-1] for *_, seen in alone]), rtol=1e-4, atol=1e-5)
    assert out.post_edit_nll.isnan().all()
    longest = max(len(seen) for *_, seen in alone)
    trail = [sum(seen[min(t, len(seen) - 1)] for *_, seen in alone) / 3 for t in range(longest)]
    assert out.nll_history == pytest.approx(trail, rel=1e-4, abs=1e-5)


def test_optimize_targets_keeps_last_losses_in_the_trail():
    """The last known loss of a request stays in the trail.

    Requests that are done keep their last NLL in the mean, instead of the 0 of a row that no longer runs.
    """
    options = {"steps": 60, "lr": 0.15, "stop_loss": 0.02}
    out = optimize_targets(
        Valley(GOALS3),
        STARTS3,
        NORMS3,
        penalty=Penalty(),
        stop="planning_loss",
        evaluate_post_edit=None,
        **options,
    )
    alone = [published(g, s, 1.0, **options)[2] for g, s in zip(GOALS3, STARTS3, strict=True)]
    assert len({len(seen) for seen in alone}) > 1
    assert out.nll_history[-1] == pytest.approx(sum(seen[-1] for seen in alone) / 3, rel=1e-3)


@pytest.mark.parametrize("check_every", [1, 3, 4])
def test_optimize_targets_evaluates_executed_losses_every_few_steps(check_every):
    """The post-edit loss is evaluated every so many steps and at the end.

    Kept is the residual of the lowest weighted sum at those looks, reported its NLL.
    """
    lr, steps, penalty = 0.15, 10, Penalty(kl=2.0)
    seen, valley = [], Valley(GOALS3)
    away = Valley(GOALS3 * 0.5 + 0.1)

    def execute(residuals):
        seen.append(residuals.clone())
        return away.losses(residuals)

    out = optimize_targets(
        valley,
        STARTS3,
        NORMS3,
        steps=steps,
        lr=lr,
        penalty=penalty,
        stop="post_edit_loss",
        stop_loss=-1.0,
        evaluate_post_edit=execute,
        check_every=check_every,
    )
    paths = [
        [published(g, s, 1.0, steps=n + 1, lr=lr, stop_loss=-1.0, kl=2.0)[0] for n in range(steps + 1)]
        for g, s in zip(GOALS3, STARTS3, strict=True)
    ]
    looked = [*range(0, steps, check_every), steps]
    assert len(seen) == len(looked)
    for at, residuals in zip(looked, seen, strict=True):
        torch.testing.assert_close(residuals, torch.stack([path[at] for path in paths]), rtol=1e-4, atol=1e-5)
    losses = [away.losses(residuals) for residuals in seen]
    scores = torch.stack([found.nll + 2.0 * found.kl for found in losses])
    best = scores.argmin(0)
    torch.testing.assert_close(out.residuals, torch.stack(seen)[best, torch.arange(3)])
    torch.testing.assert_close(
        out.post_edit_nll, torch.stack([found.nll for found in losses])[best, torch.arange(3)]
    )
    assert out.steps.tolist() == [steps] * 3
    assert torch.stack([found.nll for found in losses]).argmin(0).tolist() != best.tolist()  # KL decides too


def test_optimize_targets_freezes_by_nll_alone():
    """What was executed well enough freezes by its NLL and not by the weighted sum.

    A request whose NLL is below the stop is done, however large its weighted divergence.
    """
    execute = lambda r: Losses(torch.tensor([0.01, 1.0, 0.01]), torch.tensor([50.0, 0.0, 0.0]))  # noqa: E731
    out = optimize_targets(
        Valley(GOALS3),
        STARTS3,
        NORMS3,
        steps=4,
        lr=0.1,
        penalty=Penalty(kl=1.0),
        stop="post_edit_loss",
        stop_loss=0.05,
        evaluate_post_edit=execute,
        check_every=2,
    )
    assert out.steps.tolist() == [0, 4, 0]
    torch.testing.assert_close(out.residuals, STARTS3)  # of a loss that never falls the first is the best
    assert out.nll.isnan().tolist() == [True, False, True]


def test_optimize_targets_averages_everything_of_tied_requests():
    """Tied requests share start norm clamp and every loss.

    A group is one request with its means: of starts, of norms, of NLL, KL and cost.
    """
    ties = torch.tensor([0, 1, 0])
    mean = torch.stack([(STARTS3[0] + STARTS3[2]) / 2, STARTS3[1], (STARTS3[0] + STARTS3[2]) / 2])
    norms = torch.tensor([1.75, 0.6, 1.75])
    goals = torch.stack([(GOALS3[0] + GOALS3[2]) / 2, GOALS3[1], (GOALS3[0] + GOALS3[2]) / 2])
    options = {"steps": 30, "lr": 0.1, "stop": "none", "stop_loss": 0.0, "evaluate_post_edit": None}
    penalty = Penalty(kl=0.2, decay=0.3, regularization=0.5, clamp=0.25)
    tied = optimize_targets(Valley(GOALS3), STARTS3, NORMS3, groups=ties, penalty=penalty, **options)
    same = optimize_targets(
        Valley(goals), mean, norms, penalty=penalty, **options
    )  # mean gradient of a square: at the mean goal
    torch.testing.assert_close(tied.residuals, same.residuals, rtol=1e-4, atol=1e-5)
    assert float(tied.residuals[0].norm()) == pytest.approx(0.25 * 1.75, rel=1e-5)


@pytest.mark.parametrize("part", ["nll", "kl", "cost"])
def test_optimize_targets_keeps_one_best_of_tied_requests(part):
    """Their post-edit losses differ, in one part, in opposite ways over the steps: the mean decides for both."""
    looks = iter([(4.0, 1.0), (1.0, 3.0), (3.0, 2.0)])

    def execute(residuals):
        losses = {"nll": torch.ones(2), "kl": torch.ones(2), "cost": torch.ones(2)}
        return Losses(**{**losses, part: torch.tensor(next(looks))})

    seen = []
    slope = Valley(GOALS3[:2])
    out = optimize_targets(
        slope,
        torch.zeros(2, 2),
        torch.ones(2),
        steps=2,
        lr=0.1,
        penalty=Penalty(kl=1.0),
        stop="post_edit_loss",
        stop_loss=-1.0,
        evaluate_post_edit=lambda r: seen.append(r.clone()) or execute(r),
        check_every=1,
        groups=torch.tensor([0, 0]),
    )
    assert torch.equal(out.residuals, seen[1])


def test_mean_within_averages_each_group():
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]])
    means = mean_within(values, torch.tensor([2, 0, 2]), 4)
    assert means.tolist() == [[3.0, 4.0], [0.0, 0.0], [3.0, 5.5], [0.0, 0.0]]
    assert group_mean(values, torch.tensor([2, 0, 2])).tolist() == [[3.0, 5.5], [3.0, 4.0], [3.0, 5.5]]
    assert group_mean(values, None) is values


def test_compensate_follows_each_requests_share():
    """Compensation follows what each request executes.

    Shares that fall with the length and differ between requests: the length at which share x length is 1.
    """
    wanted = torch.tensor([1.7, 6.0, 30.0])
    plan = torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]])

    def fraction(residuals):
        scale = residuals.norm(dim=1) / plan.norm(dim=1)
        return (scale / wanted).sqrt() / scale  # what is executed grows as the root of the length

    out, scale = compensate(fraction, plan, torch.full((3,), 64.0))
    torch.testing.assert_close(scale, wanted, rtol=64 ** (1 / 2**12) - 1, atol=0)
    torch.testing.assert_close(out, plan * scale[:, None])


def test_compensate_neither_shortens_nor_passes_its_bound():
    """What is executed more than in full stays at its plan; the bound is each request's own."""
    _, scale = compensate(lambda r: torch.tensor([3.0, 1e-6]), torch.ones(2, 2), torch.tensor([9.0, 5.0]))
    torch.testing.assert_close(scale, torch.tensor([1.0, 5.0]), rtol=1e-3, atol=0)
    rounds = []
    compensate(lambda r: rounds.append(1) or torch.ones(1), torch.ones(1, 2), torch.tensor([4.0]), rounds=5)
    assert len(rounds) == 5
