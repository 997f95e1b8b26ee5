"""From a method to targets: the whole upper level."""

from dataclasses import replace

import pytest
import torch

from metake.geometry.operator import Ridge
from metake.lookup_prompts import LookupPrompts
from metake.models.trace import frozen
from metake.planners import closed_loop, compensated, open_loop, problem
from metake.planners.hypergradient import ParallelLoss, UnrolledLoss, VirtualEditLoss
from metake.planners.target_optimization import Penalty
from metake.presets import settings_for
from metake.prompts import Batch
from metake.solvers.allocation import Spread
from metake.solvers.layered import LayeredSolver
from tests.cases import method_of

LAYERS = (2, 3)
SHARES = Spread().stages(LAYERS)[0]


@pytest.fixture
def cost_of(demo, statistics_of, records):
    """`cost_of(**settings)`: what the update at the chosen targets costs the geometry, per request."""
    statistics = statistics_of(demo)

    def go(**changes):
        method = settings_for(
            demo,
            "metake-priced",
            layers=LAYERS,
            lookup="prompt",
            steps=5,
            meta_steps=8,
            meta_stop="none",
            **changes,
        )
        weight = method.value("lam")
        solver = LayeredSolver(demo, {n: Ridge(statistics[n], weight, 1e-3) for n in LAYERS}, SHARES)
        requests = [record.request for record in records[:3]]
        batch = Batch.build(demo, requests, ("The market is cold",), method.lookup)
        prompts = LookupPrompts.build(demo, batch, LAYERS[0])
        with frozen(demo.model):
            targets = method.plan(demo, solver, batch, prompts)
            return targets, solver.solve(prompts, targets.residuals).cost()

    return go


@pytest.mark.parametrize(
    "choice",
    [
        {"hypergradient": "proxy"},
        {"hypergradient": "proxy", "joint": False},
        {"hypergradient": "parallel"},
        {"hypergradient": "unrolled"},
    ],
    ids=str,
)
def test_closed_loop_with_a_cost_disturbs_less(cost_of, choice):
    free, dear = (cost_of(cost_weight=price, **choice)[1] for price in (0.0, 300.0))
    assert (dear > 0).all()
    assert float(dear.sum()) < 0.7 * float(free.sum())


def test_closed_loop_cost_is_in_units_of_the_stream(cost_of, monkeypatch):
    """`cost_weight` counts tr(D G D^T) over ||h||^2, as decay and regularizer do, of each request its own."""
    seen = []
    optimize_targets = open_loop.optimize_targets

    def watched(*given, penalty, **more):
        seen.append(penalty)
        return optimize_targets(*given, penalty=penalty, **more)

    for module in (open_loop, closed_loop):
        monkeypatch.setattr(module, "optimize_targets", watched)
    targets, _ = cost_of(cost_weight=7.0)
    plan, closed = seen
    assert plan.cost_weights is None
    torch.testing.assert_close(closed.cost_weights, 7.0 / targets.hidden.norm(dim=1).square())
    seen.clear()
    cost_of(cost_weight=0.0)
    assert seen[1].cost_weights is None


# every number differs from every other one, so that none can stand in another's place
APART = {
    "steps": 8,
    "rounds": 2,
    "lr": 0.31,
    "kl": 0.011,
    "decay": 0.012,
    "clamp": 0.71,
    "stop": "none",
    "stop_loss": 0.013,
    "meta_steps": 6,
    "meta_lr": 0.32,
    "meta_stop": "post_edit_loss",
    "locality": 0.021,
    "regularization": 0.022,
    "cost_weight": 0.5,
    "check_every": 3,
    "max_scale": 4.0,
    "max_tokens": 512,
}


@pytest.fixture
def planned(demo, statistics_of, records, monkeypatch):
    """`planned(**settings)`: what both descents are given and give, the targets, the solver and its prompts."""
    statistics, calls, objectives = statistics_of(demo), [], []
    optimize_targets, objective = open_loop.optimize_targets, problem.Objective

    def watched(*given, **options):
        calls.append((*given, options, optimize_targets(*given, **options)))
        return calls[-1][-1]

    def built(*given, **options):
        objectives.append(options)
        return objective(*given, **options)

    def go(requests=None, method="metake-priced", contexts=("The market is cold",), **changes):
        calls.clear()
        objectives.clear()
        for module in (open_loop, closed_loop):
            monkeypatch.setattr(module, "optimize_targets", watched)
        monkeypatch.setattr(problem, "Objective", built)
        made = method_of(demo, method, layers=LAYERS, **{**APART, **changes})
        geometries = {n: Ridge(statistics[n], 300.0, 1e-3) for n in LAYERS}
        solver = LayeredSolver(demo, geometries, SHARES, made.fit)
        requests = requests or [record.request for record in records[:3]]
        batch = Batch.build(demo, requests, contexts, made.lookup)
        prompts = LookupPrompts.build(demo, batch, LAYERS[0])
        with frozen(demo.model):
            return made.plan(demo, solver, batch, prompts), list(calls), solver, prompts

    go.objectives = objectives
    return go


@pytest.mark.parametrize("relative", ["stream", "value"])
def test_planners_use_their_own_numbers(planned, relative):
    """Each loop runs on its own numbers.

    The plan with kl, decay and clamp; the closed loop with locality, regularization and cost_weight; each its own rate,
    steps (shared out over the rounds) and stop; lengths relative to the stream, or to the down-projection's output."""
    targets, (plan, closed), solver, prompts = planned(relative=relative)
    (slope, start, norms, options, out), (_, meta_start, meta_norms, meta, meta_out) = plan, closed
    length = (
        solver.unedited_stream_and_key(prompts)[0] if relative == "stream" else solver.ffn_output(prompts)
    ).norm(dim=1)
    torch.testing.assert_close(norms, length)
    torch.testing.assert_close(meta_norms, length)
    assert (slope.gate, start.abs().max().item()) == ("token", 0.0)
    assert torch.equal(meta_start, out.residuals)
    assert torch.equal(targets.residuals, meta_out.residuals)
    assert (targets.plan, targets.closed) == (out, meta_out)
    torch.testing.assert_close(targets.hidden, solver.unedited_stream_and_key(prompts)[0])
    assert {k: options[k] for k in ("steps", "lr", "stop", "stop_loss", "check_every", "groups")} == {
        "steps": 4,
        "lr": 0.31,
        "stop": "none",
        "stop_loss": 0.013,
        "check_every": 3,
        "groups": None,
    }
    assert {k: meta[k] for k in ("steps", "lr", "stop", "stop_loss", "check_every", "groups")} == {
        "steps": 3,
        "lr": 0.32,
        "stop": "post_edit_loss",
        "stop_loss": 0.013,
        "check_every": 3,
        "groups": None,
    }
    assert options["penalty"] == Penalty(kl=0.011, kl_from_unedited=False, decay=0.012, clamp=0.71)
    price = meta["penalty"].cost_weights
    torch.testing.assert_close(price, 0.5 / length**2)
    assert replace(meta["penalty"], cost_weights=None) == Penalty(
        kl=0.021, kl_from_unedited=True, regularization=0.022
    )
    assert [made["max_tokens"] for made in planned.objectives] == [512, 512]


def test_evaluate_post_edit_uses_the_loops_own_weights(planned):
    """The post-edit loss on the way has the weights of the loop that needs it.

    Each loop's post-edit losses in its own direction of KL; only the closed one's pay.
    """
    _, (plan, closed), solver, prompts = planned(stop="post_edit_loss")
    residuals = plan[-1].residuals * 3
    first, second = (call[-2]["evaluate_post_edit"](residuals) for call in (plan, closed))
    torch.testing.assert_close(first.nll, second.nll)
    assert ((first.kl - second.kl).abs() > 1e-3 * first.kl).all()
    assert first.cost is None
    price = closed[-2]["penalty"].cost_weights
    torch.testing.assert_close(
        second.cost, price * solver.solve(prompts, residuals).cost(), rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize(
    ("hypergradient", "kind"),
    [("proxy", VirtualEditLoss), ("parallel", ParallelLoss), ("unrolled", UnrolledLoss)],
)
def test_closed_loop_uses_the_chosen_gradient(planned, hypergradient, kind):
    _, (_, closed), *_ = planned(hypergradient=hypergradient)
    assert type(closed[0]) is kind
    if kind is VirtualEditLoss:
        assert closed[0].gate == "channel"
    else:
        assert closed[0].is_post_edit


@pytest.mark.parametrize("from_lookup", [True, False])
def test_unrolled_gradient_runs_from_the_lookup_token_if_set(planned, from_lookup):
    """Losses and inner solves of the closed loop; the solver's own prompts are whole."""
    _, (_, closed), _, prompts = planned(hypergradient="unrolled", from_lookup=from_lookup)
    assert closed[0].from_lookup is from_lookup
    assert (closed[0].prompts is prompts) is not from_lookup
    assert (closed[0].prompts.tokens.ids.suffix.shape[1] == 1) is from_lookup
    assert prompts.cache is None


@pytest.mark.parametrize("fit", ["least_squares", "equality_constrained"])
@pytest.mark.parametrize("joint", [True, False])
def test_proxy_gradient_has_channels_of_batch_or_edit(planned, fit, joint):
    """The proxy's channel is of the batch or of each edit alone.

    (18) of all keys together (X8), or of every key by itself; and K^T Q, by which it knows what its write costs.
    """
    _, (_, closed), solver, prompts = planned(hypergradient="proxy", joint=joint, fit=fit, cost_weight=0.0)
    geometry = solver.geometries[LAYERS[-1]]
    key = solver.unedited_stream_and_key(prompts)[1].to(geometry.dtype)
    if joint:
        wanted = geometry.channel(key.T, fit)
        kept = key @ wanted
    else:
        wanted = torch.cat([geometry.channel(k[:, None], fit) for k in key], 1)
        kept = (key @ wanted).diagonal().diag()
    channel = planned.objectives[1]["channel"]
    torch.testing.assert_close(channel.to(wanted), wanted, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(closed[0].gram_channel.to(kept), kept, rtol=1e-5, atol=1e-7)
    assert planned.objectives[1]["joint"] is joint
    assert "channel" not in planned.objectives[0]


def test_closed_loop_can_start_at_the_compensated_plan(planned):
    """Its residuals are the plan's, longer; L_reg pulls to them; the factors are in the targets."""
    targets, (plan, closed), *_ = planned(start="compensated", rounds=1)
    assert targets.scale.min() > 1.1
    torch.testing.assert_close(closed[1], plan[-1].residuals * targets.scale[:, None])
    plain, (_, other), *_ = planned(start="open-loop", rounds=1)
    assert plain.scale.tolist() == [1.0] * 3
    torch.testing.assert_close(other[1], plan[-1].residuals)
    only, calls, *_ = planned(method="memit-compensated", cost_weight=0.0, rounds=1)
    assert len(calls) == 1
    assert only.closed is None
    torch.testing.assert_close(only.residuals, closed[1])


@pytest.mark.parametrize("changes", [{"meta_steps": 0}, {"method": "memit", "cost_weight": 0.0}], ids=str)
def test_open_loop_plan_is_the_target(planned, changes):
    """Without a closed loop the plan is the target."""
    targets, calls, *_ = planned(**changes)
    assert len(calls) == 1
    assert targets.closed is None
    assert torch.equal(targets.residuals, calls[0][-1].residuals)


def test_iterated_gives_every_round_one_step_at_least(planned):
    """More rounds than steps are one step each."""
    _, calls, *_ = planned(rounds=9)
    assert [options["steps"] for *_, options, _ in calls] == [1, 1]


def test_planners_tie_requests_only_where_merged(planned, records):
    """Requests of a subject are tied in both loops only where the method merges."""
    request = records[0].request
    requests = [request, records[1].request, replace(request, target_new="baker")]
    for merge, ties in ((True, [0, 1, 0]), (False, None)):
        _, calls, *_ = planned(requests=requests, merge=merge)
        assert [t if (t := options["groups"]) is None else t.tolist() for *_, options, _ in calls] == [
            ties
        ] * 2


def test_compensated_lengthens_by_the_weakest_layer(planned, monkeypatch):
    """A plan is lengthened by what the weakest layer needs and no further.

    1 / eta of the layer that keeps least, between 1 and `max_scale`, the mean over a subject's requests.
    """
    bounds, compensate = [], compensated.compensate
    monkeypatch.setattr(
        compensated, "compensate", lambda f, plan, most: bounds.append(most) or compensate(f, plan, most)
    )
    _, (plan,), solver, prompts = planned(method="memit-compensated", cost_weight=0.0, max_scale=1e3)
    eta = torch.stack(list(solver.solve(prompts, plan[-1].residuals).eta.values()))
    torch.testing.assert_close(bounds[0], 1 / eta.amin(0))
    middle = float(bounds[0].median())
    planned(method="memit-compensated", cost_weight=0.0, max_scale=middle)
    torch.testing.assert_close(bounds[1], bounds[0].clamp_max(middle))
