"""The three gradients of the upper level, against differences of post-edit losses."""

from dataclasses import replace

import pytest
import torch

from metake.geometry.null_space import Projected
from metake.geometry.operator import Ridge
from metake.lookup_prompts import LookupPrompts
from metake.methods.lookup_keys import other_keys
from metake.models.trace import frozen
from metake.planners import end_loss
from metake.planners.hypergradient import ParallelLoss, UnrolledLoss, VirtualEditLoss, measured_shares
from metake.planners.objective import Objective
from metake.planners.target_optimization import Penalty
from metake.prompts import Batch
from metake.requests import EditRequest
from metake.solvers.allocation import Forward, Last, Spread
from metake.solvers.layered import LayeredSolver

LAYERS = (1, 2, 3)
SPREAD = Spread()
REQUESTS = (
    EditRequest(
        "Which city was {} born in?", "Nezan Girok", "Sobris", locality_prompts=("Where is the old mill?",)
    ),
    EditRequest("What is the craft of {}?", "Zumi Bama", "potter"),
)
PENALTY = Penalty(kl=0.3, kl_from_unedited=True)
EVERYONE = torch.ones(2, dtype=torch.bool)


@pytest.fixture
def double(model):
    """The trained model in fp64, where a difference of losses has ten digits."""
    model.model.double()
    with frozen(model.model):
        yield model
    model.model.float()


class Case:
    """Two requests on a model, and every gradient of their post-edit losses."""

    def __init__(
        self,
        model,
        statistics,
        kind="ridge",
        weight=30.0,
        allocation=SPREAD,
        fit="least_squares",
        dtype=torch.float64,
        ends=(),
    ):
        moments = {i: statistics[i] for i in LAYERS}
        geometries = {
            i: Ridge(m, weight, 1e-3) if kind == "ridge" else Projected(m, weight / 100, keep=0.9)
            for i, m in moments.items()
        }
        batch = Batch.build(model, REQUESTS, ("The market is cold",))
        self.solver = LayeredSolver(
            model, geometries, allocation.stages(LAYERS)[0], fit, allocation.per_layer
        )
        first, top = self.solver.layers[0], self.solver.planned_at
        self.batch, self.from_lookup = batch, False
        self.prompts = LookupPrompts.build(model, batch, first)
        hidden, key = self.solver.unedited_stream_and_key(self.prompts)
        channel = geometries[top].channel(key.T, fit)
        self.objective = Objective(model, batch, first, top, channel=channel, ends=ends)
        self.gram_channel, self.penalty = key.to(channel) @ channel, PENALTY
        way = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.residuals = (way * float(hidden[0].norm()) / way.shape[1] ** 0.5 / 4).to(dtype)

    def gradient(self, slope, active=EVERYONE):
        return slope(self.residuals, active, self.penalty)

    def with_cost(self, share=0.3):
        """With a weight at which the cost is as large as this share of the losses."""
        losses, cost = self.unrolled()[0], self.solver.solve(self.prompts, self.residuals).cost()
        weights = share * losses.nll.to(cost) / cost
        self.penalty = replace(PENALTY, cost_weights=weights * torch.tensor([1.0, 0.5], dtype=weights.dtype))
        return self

    def proxy(self):
        return self.gradient(VirtualEditLoss(self.objective, "channel", self.gram_channel))

    def parallel(self):
        return self.gradient(ParallelLoss(self.objective, self.solver, self.prompts))

    def unrolled(self, differentiate_keys=True, active=EVERYONE):
        return self.gradient(
            UnrolledLoss(self.objective, self.solver, self.prompts, differentiate_keys, self.from_lookup),
            active,
        )

    def executed(self, residuals, active=EVERYONE):
        with torch.no_grad():
            solution = self.solver.solve(self.prompts, residuals)
        losses = self.objective.post_edit_losses(
            solution.factors, active, from_lookup=self.from_lookup, kl_from_unedited=True
        )
        cost = 0 if self.penalty.cost_weights is None else (self.penalty.cost_weights * solution.cost()).sum()
        return float((self.penalty.answer(losses) + PENALTY.kl * losses.kl).sum() + cost)

    def slope_along(self, way, active=EVERYONE, step=0.03):
        """Central differences of fourth order."""
        near, far = (
            (
                self.executed(self.residuals + s * way, active)
                - self.executed(self.residuals - s * way, active)
            )
            / (2 * s)
            for s in (step, 2 * step)
        )
        return (4 * near - far) / 3


def digits(model):
    """Llama's norm computes its variance in fp32 whatever the model's precision.

    A loss near 10 is then known to about 5 of its roundings, 6e-6, and a difference over 0.06 to 1e-4.
    """
    return {"rel": 5e-3, "abs": 1e-4} if model.name == "demo-llama" else {"rel": 1e-6, "abs": 1e-9}


def cosine(a, b):
    return torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()


@pytest.mark.parametrize(
    ("kind", "fit"),
    [("ridge", "least_squares"), ("projected", "least_squares"), ("ridge", "equality_constrained")],
)
def test_unrolled_equals_central_differences(double, statistics_of, kind, fit):
    case = Case(double, statistics_of(double), kind, fit=fit)
    losses, gradient = case.unrolled()
    assert float((losses.nll + PENALTY.kl * losses.kl).sum()) == pytest.approx(case.executed(case.residuals))
    for seed in range(3):
        way = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert (gradient * way).sum().item() == pytest.approx(case.slope_along(way), **digits(double))


@pytest.mark.parametrize("from_lookup", [False, True])
def test_unrolled_with_constant_preserved_keys_equals_central_differences(double, statistics_of, from_lookup):
    """The keys of `+ preserved-prompt` are in the geometry of every solve and have no derivative."""
    case = Case(double, statistics_of(double))
    without = case.unrolled()[1]
    case.prompts = replace(case.prompts, constant=other_keys(double, case.batch, LAYERS))
    if from_lookup:
        case.prompts = case.prompts.resumed(double, case.batch, case.solver.layers[-1])
        case.from_lookup = True
    losses, gradient = case.unrolled()
    assert float((losses.nll + PENALTY.kl * losses.kl).sum()) == pytest.approx(case.executed(case.residuals))
    assert not torch.allclose(gradient, without, rtol=1e-3, atol=0)
    for seed in range(2):
        way = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert (gradient * way).sum().item() == pytest.approx(case.slope_along(way), **digits(double))


@pytest.mark.parametrize("allocation", [SPREAD, Forward()])
def test_unrolled_from_lookup_equals_central_differences(double, statistics_of, allocation):
    """Without the updates' effect on earlier tokens, in the losses and in the solve."""
    case = Case(double, statistics_of(double), allocation=allocation)
    exact = case.unrolled()[1]
    case.prompts = case.prompts.resumed(double, case.batch, case.solver.layers[-1])
    case.from_lookup = True
    losses, gradient = case.unrolled()
    assert float((losses.nll + PENALTY.kl * losses.kl).sum()) == pytest.approx(case.executed(case.residuals))
    assert not torch.allclose(gradient, exact, rtol=1e-4, atol=0)
    way = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert (gradient * way).sum().item() == pytest.approx(case.slope_along(way), **digits(double))


@pytest.mark.parametrize("gradient", ["unrolled", "proxy"])
def test_gradients_of_the_end_equal_central_differences(double, statistics_of, monkeypatch, gradient):
    """With the answers' probabilities as constants, as the loss has them, and a line break among the ends."""
    monkeypatch.setattr(end_loss, "answer_probability", lambda nll, rows, count: nll.new_full((count,), 0.3))
    case = Case(double, statistics_of(double), ends=(0, 5))
    case.penalty = replace(PENALTY, end=2.0)
    losses, found = getattr(case, gradient)()
    assert (losses.end > 0.1).all()

    def loss(residuals):
        if gradient == "unrolled":
            return case.executed(residuals)
        virtual = case.objective.losses(residuals, "channel", EVERYONE, kl_from_unedited=True)
        return float((case.penalty.answer(virtual) + PENALTY.kl * virtual.kl).sum())

    way = torch.randn(found.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    near, far = (
        (loss(case.residuals + s * way) - loss(case.residuals - s * way)) / (2 * s) for s in (0.03, 0.06)
    )
    assert (found * way).sum().item() == pytest.approx((4 * near - far) / 3, **digits(double))


def test_unrolled_equals_central_differences_with_goals_per_layer(double, statistics_of):
    """Unrolled equals central differences where every layer has a goal.

    FE's allocation: the goals themselves move with the residual.
    """
    case = Case(double, statistics_of(double), allocation=Forward())
    _, gradient = case.unrolled()
    way = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert (gradient * way).sum().item() == pytest.approx(case.slope_along(way), **digits(double))


@pytest.mark.parametrize("kind", ["ridge", "projected"])
def test_unrolled_differentiates_the_cost(double, statistics_of, kind):
    """A cost is in the hypergradient.

    X14: through residuals, channels and keys of every layer, as the losses are.
    """
    case = Case(double, statistics_of(double), kind)
    free = case.unrolled()[1]
    losses, gradient = case.with_cost().unrolled()
    assert float(case.penalty.score(losses).sum()) == pytest.approx(case.executed(case.residuals))
    assert (gradient - free).norm() > 0.05 * free.norm()
    way = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert (gradient * way).sum().item() == pytest.approx(case.slope_along(way), **digits(double))


def test_unrolled_cost_needs_no_recursion_at_one_layer(double, statistics_of):
    case = Case(double, statistics_of(double), allocation=Last()).with_cost()
    (losses, proxy), (other, parallel), (exact, unrolled) = case.proxy(), case.parallel(), case.unrolled()
    torch.testing.assert_close(proxy, unrolled, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(parallel, unrolled, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(losses.cost, exact.cost, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(other.cost, exact.cost)


def test_parallel_differentiates_the_cost_of_every_layer(double, statistics_of):
    """Parallel has the gradient of the cost of every layer.

    X11, of the cost alone: of the layers' recursion little is left under strong protection.
    """
    case = Case(double, statistics_of(double), weight=1e5)
    free, exact_free = case.parallel()[1], case.unrolled()[1]
    case.with_cost(share=1.0)
    parallel, exact = case.parallel()[1] - free, case.unrolled()[1] - exact_free
    assert (parallel - exact).norm() < 0.05 * exact.norm()


def test_unrolled_with_frozen_keys_omits_a_part_of_the_cost(double, statistics_of):
    """Frozen keys leave out a part of the cost."""
    case = Case(double, statistics_of(double))
    free = {moving: case.unrolled(moving)[1] for moving in (True, False)}
    case.with_cost(share=1.0)
    moving, still = (case.unrolled(choice)[1] - free[choice] for choice in (True, False))
    assert 0 < (moving - still).norm() / moving.norm() < 1


def test_unrolled_gives_gradients_of_active_requests_alone(double, statistics_of):
    """Only active requests have gradients, all are executed."""
    case, first = Case(double, statistics_of(double)), torch.tensor([True, False])
    _, gradient = case.unrolled(active=first)
    way = torch.zeros_like(gradient)
    way[1] = torch.randn(gradient.shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert gradient[1].norm() > 0  # the other request's loss depends on this one's residual
    assert (gradient * way).sum().item() == pytest.approx(case.slope_along(way, first), **digits(double))


def test_evaluate_has_the_losses_of_a_step(double, statistics_of):
    """An evaluation has the losses of a step and no gradient."""
    case = Case(double, statistics_of(double)).with_cost()
    for slope in (
        VirtualEditLoss(case.objective, "channel", case.gram_channel),
        ParallelLoss(case.objective, case.solver, case.prompts),
        UnrolledLoss(case.objective, case.solver, case.prompts),
    ):
        stepped, gradient = case.gradient(slope)
        looked, none = slope(case.residuals, EVERYONE, case.penalty, backward=False)
        assert gradient is not None
        assert none is None
        torch.testing.assert_close(looked.nll, stepped.nll, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(looked.kl, stepped.kl, rtol=1e-6, atol=1e-12)
        torch.testing.assert_close(looked.cost, stepped.cost, rtol=1e-9, atol=1e-12)


def test_unrolled_with_frozen_keys_omits_a_part(double, statistics_of):
    """Frozen keys leave out a part."""
    case = Case(double, statistics_of(double))
    (moving_losses, moving), (losses, still) = case.unrolled(), case.unrolled(differentiate_keys=False)
    torch.testing.assert_close(losses.nll, moving_losses.nll)
    assert 0 < (moving - still).norm() / moving.norm() < 1


def test_unrolled_of_one_layer_needs_no_recursion(double, statistics_of):
    """P13: with one edited layer the channel does not depend on the target, and all three agree."""
    case = Case(double, statistics_of(double), allocation=Last())
    (losses, proxy), (_, parallel), (_, unrolled) = case.proxy(), case.parallel(), case.unrolled()
    torch.testing.assert_close(proxy, unrolled, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(parallel, unrolled, rtol=1e-6, atol=1e-9)
    assert float((losses.nll + PENALTY.kl * losses.kl).sum()) == pytest.approx(case.executed(case.residuals))


def test_unrolled_recomputes_activations_of_large_solves(double, statistics_of):
    """A solve over many tokens keeps no activations.

    Its passes run again on the way back: the same gradient, from a smaller graph.
    """
    case = Case(double, statistics_of(double))

    def held(max_tokens):
        case.solver.max_tokens = max_tokens
        sizes = []
        leaf = case.residuals.clone().requires_grad_(True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            case.solver.solve(case.prompts, leaf)
        return sum(sizes), case.unrolled()[1]

    (plain, wanted), (small, found) = held(4096), held(1)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    assert small < plain / 2.5


def test_parallel_is_nearly_exact_under_strong_protection(double, statistics_of):
    """X11: what layers ask of each other vanishes with eta; the last layer alone still misses the others."""
    case = Case(double, statistics_of(double), weight=1e5)
    parallel, proxy, exact = case.parallel()[1], case.proxy()[1], case.unrolled()[1]
    assert (parallel - exact).norm() < 0.05 * exact.norm()
    assert (proxy - exact).norm() > 0.2 * exact.norm()


def test_parallel_at_zero_takes_the_allocations_shares(double, statistics_of):
    case = Case(double, statistics_of(double), weight=1e5)
    case.residuals = torch.zeros_like(case.residuals)
    assert cosine(case.parallel()[1], case.unrolled()[1]) > 0.99


def test_parallel_measures_shares_of_a_short_residual(double, statistics_of):
    """Only a residual of length 0 takes the allocation's."""
    case = Case(double, statistics_of(double))
    short = case.residuals / case.residuals.norm(dim=1, keepdim=True) / 4
    solution = case.solver.solve(case.prompts, short)
    found = measured_shares(solution, case.solver)
    for layer, share in found.items():
        left = solution.factors[layer][0].T
        torch.testing.assert_close(share, (left * short).sum(1) / (short * short).sum(1))
    (last, allocated) = case.solver.shares[-1]
    assert (found[last] - allocated).abs().min() > 1e-3


def test_unrolled_agrees_in_single_precision(model, statistics_of):
    with frozen(model.model):
        _, rough = Case(model, statistics_of(model), dtype=torch.float32).unrolled()
        model.model.double()
        try:
            _, exact = Case(model, statistics_of(model)).unrolled()
        finally:
            model.model.float()
    assert (rough - exact).norm() <= 1e-3 * exact.norm()


@pytest.mark.parametrize("kl_from_unedited", [True, False])
def test_gradients_weigh_kl_in_the_given_direction(double, statistics_of, kl_from_unedited):
    """Every gradient weighs the divergence in the direction it is given.

    Losses with their gradient: those of the objective itself, in either direction of KL.
    """
    case = Case(double, statistics_of(double))
    case.residuals = case.residuals * 4
    case.penalty = replace(PENALTY, kl_from_unedited=kl_from_unedited)
    solution = case.solver.solve(case.prompts, case.residuals)
    kl = {
        first: case.objective.post_edit_losses(solution.factors, kl_from_unedited=first).kl
        for first in (True, False)
    }
    assert ((kl[True] - kl[False]).abs() > 1e-3 * kl[True]).all()
    for found, _ in (case.unrolled(), case.parallel()):
        torch.testing.assert_close(found.kl, kl[kl_from_unedited], rtol=1e-5, atol=1e-9)
    virtual = case.objective.losses(case.residuals, "channel", EVERYONE, kl_from_unedited=kl_from_unedited)
    torch.testing.assert_close(case.proxy()[0].kl, virtual.kl, rtol=1e-6, atol=1e-9)
    other = case.objective.losses(case.residuals, "channel", EVERYONE, kl_from_unedited=not kl_from_unedited)
    assert ((virtual.kl - other.kl).abs() > 1e-4 * virtual.kl).all()


def test_parallel_gives_gradients_of_active_requests_alone(double, statistics_of):
    case, first = Case(double, statistics_of(double)), torch.tensor([True, False])
    parallel = ParallelLoss(case.objective, case.solver, case.prompts)
    losses, gradient = case.gradient(parallel, first)
    _, everyone = case.gradient(parallel)
    assert losses.nll.tolist()[1] == 0
    assert (gradient - everyone).norm() > 0.1 * everyone.norm()
