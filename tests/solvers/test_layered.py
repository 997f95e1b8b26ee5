"""The layered solve: what it promises is what written weights do."""

from contextlib import ExitStack
from functools import partial

import pytest
import torch

from metake.components import families
from metake.deltas import Delta
from metake.errors import MetakeError
from metake.geometry.operator import Ridge
from metake.lookup_prompts import LookupPrompts
from metake.models.trace import frozen
from metake.prompts import Batch
from metake.solvers.allocation import Boundary, Forward, Last, Spread, last
from metake.solvers.layered import LayeredSolver

LAYERS = (1, 2, 3)


def setting(
    model,
    statistics,
    allocation,
    records,
    weight=300.0,
    contexts=("The market is cold",),
    fit="least_squares",
):
    geometries = {n: Ridge(statistics[n], weight, 1e-3) for n in LAYERS}
    batch = Batch.build(model, [r.request for r in records], contexts)
    solver = LayeredSolver(model, geometries, allocation.stages(LAYERS)[0], fit, allocation.per_layer)
    return solver, LookupPrompts.build(model, batch, solver.layers[0])


def test_solve_writes_the_predicted_shift(model, statistics_of, records):
    """The promised shift is the written one."""
    solver, prompts = setting(model, statistics_of(model), Spread(), records[:4])
    torch.manual_seed(0)
    with frozen(model.model):
        before, _ = solver.unedited_stream_and_key(prompts)
        residuals = torch.randn_like(before) * before.norm(dim=1, keepdim=True) / before.shape[1] ** 0.5
        solution = solver.solve(prompts, residuals)
        with Delta(solution.factors).applied(model.model):
            after, _ = solver.unedited_stream_and_key(prompts)
    scale = float(residuals.norm(dim=1).max())
    torch.testing.assert_close(after - before, solution.shift, rtol=1e-3, atol=1e-4 * scale)
    torch.testing.assert_close(solution.planned, residuals, rtol=1e-4, atol=1e-5 * scale)


def test_resumed_prompts_edit_the_lookup_token_alone(model, statistics_of, records):
    """Keys of a solve over resumed prompts are those of updates that act at the lookup token alone."""
    solver, prompts = setting(model, statistics_of(model), Spread(), records[:3])
    batch = Batch.build(model, [r.request for r in records[:3]], ("The market is cold",))
    with frozen(model.model):
        before, key = solver.unedited_stream_and_key(prompts)
        torch.manual_seed(0)
        residuals = torch.randn_like(before)
        whole = solver.solve(prompts, residuals)
        short = prompts.resumed(model, batch, LAYERS[-1])
        assert short.tokens.ids.suffix.shape == (6, 1)
        solution = solver.solve(short, residuals)
        again = solver.unedited_stream_and_key(prompts)
        found = {n: [] for n in LAYERS}
        for row in batch.lookup_rows:

            def add(module, args, output, n, row=row):
                found[n].append(args[0].reshape(-1, model.d_k)[row.lookup])
                left, right = solution.factors[n]
                shift = torch.zeros_like(output.reshape(-1, model.d_v))
                shift[row.lookup] = left @ (right.T @ found[n][-1])
                return output + shift.reshape(output.shape)

            with ExitStack() as hooks:
                for n in LAYERS:
                    hooks.enter_context(model.down(n).register_forward_hook(partial(add, n=n)))
                model.model(torch.tensor([row.ids]))
    for n in LAYERS:
        wanted = prompts.mean_key(torch.stack(found[n]))
        torch.testing.assert_close(solution.keys[n], wanted, rtol=1e-3, atol=1e-4 * float(wanted.norm()))
    torch.testing.assert_close(solution.keys[1], whole.keys[1], rtol=1e-4, atol=1e-5 * float(key.norm()))
    assert not torch.allclose(solution.keys[3], whole.keys[3], rtol=1e-5, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(again, (before, key), strict=True))


def test_solve_of_one_edit_obeys_theorem_1(model, statistics_of, records):
    """T1 on a real model: with a bare prompt alone the executed fraction is eta, the direction is kept."""
    solver, prompts = setting(model, statistics_of(model), Last(), records[:1], contexts=())
    with frozen(model.model):
        before, _ = solver.unedited_stream_and_key(prompts)
        solution = solver.solve(prompts, torch.randn_like(before))
    eta = solution.eta[3]
    assert 0 < eta < 1
    torch.testing.assert_close(solution.shift, eta * solution.planned, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(solution.realized_share, eta, rtol=1e-3, atol=1e-4)


def test_solution_cost_is_that_of_the_geometry(model, statistics_of, records):
    """X14: `sum_j <r_j - D k_j, D k_j>` is `tr(D G D^T)` of every layer, with earlier keys in G."""
    statistics = statistics_of(model)
    solver, prompts = setting(model, statistics, Spread(), records[:4])
    past = torch.randn(model.d_k, 3, generator=torch.Generator().manual_seed(1)) / 3
    solver.geometries = {n: geometry.with_past(past) for n, geometry in solver.geometries.items()}
    with frozen(model.model):
        before, _ = solver.unedited_stream_and_key(prompts)
        solution = solver.solve(prompts, torch.randn_like(before))
    charged = 0.0
    for n, (left, right) in solution.factors.items():
        D, C = (left @ right.T).double(), statistics[n].double()
        charged += float(
            ((D @ (300.0 * C)) * D).sum() + 1e-3 * D.square().sum() + (D @ past.double()).square().sum()
        )
    cost = solution.cost()
    assert cost.shape == (4,)
    assert float(cost.sum()) == pytest.approx(charged, rel=1e-3)


def test_solve_exact_executes_in_full(model, statistics_of, records):
    solver, prompts = setting(
        model, statistics_of(model), Last(), records[:3], contexts=(), fit="equality_constrained"
    )
    with frozen(model.model):
        before, _ = solver.unedited_stream_and_key(prompts)
        solution = solver.solve(prompts, torch.randn_like(before))
    torch.testing.assert_close(solution.shift, solution.planned, rtol=1e-2, atol=1e-2)


def test_forward_goals_need_little_above_the_first_layer(model, statistics_of, records):
    """Goals of upper layers are what the first one makes of them.

    FE: once the first layer has executed its target in full, the layers above have little left to do.

    Not nothing: weights also write at earlier tokens, which the replay does not.
    """
    solver, prompts = setting(
        model, statistics_of(model), Forward(), records[:3], contexts=(), fit="equality_constrained"
    )
    with frozen(model.model):
        before, _ = solver.unedited_stream_and_key(prompts)
        residuals = torch.randn_like(before) * before.norm(dim=1, keepdim=True) / before.shape[1] ** 0.5
        solution = solver.solve(prompts, residuals)
        top = LayeredSolver(model, solver.geometries, last(LAYERS))
        unedited, _ = top.unedited_stream_and_key(prompts)

        def shift(_, __, output):
            stream = output[0] if isinstance(output, tuple) else output
            stream[torch.arange(3), prompts.last] += residuals

        with model.blocks[1].register_forward_hook(shift):
            replayed, _ = top.unedited_stream_and_key(prompts)
    assert solver.planned_at == 1
    torch.testing.assert_close(solution.missing[1], residuals.norm(dim=1), rtol=1e-3, atol=1e-4)
    for layer in LAYERS[1:]:
        assert (solution.missing[layer] < 0.1 * solution.missing[1]).all()
    torch.testing.assert_close(solution.planned, replayed - unedited, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(solution.shift, solution.planned, rtol=2e-2, atol=2e-2)


def test_solve_leaves_attenuated_residual_to_layers_above(model, statistics_of, records):
    """Layers that attenuate leave the rest to those above."""
    solver, prompts = setting(model, statistics_of(model), Forward(), records[:1], contexts=())
    with frozen(model.model):
        before, _ = solver.unedited_stream_and_key(prompts)
        solution = solver.solve(prompts, torch.randn_like(before))
    assert solution.missing[1] * (1 - solution.eta[1]) > 0
    executed = (solution.shift - solution.planned).norm(dim=1)
    torch.testing.assert_close(executed, (1 - solution.eta[3]) * solution.missing[3], rtol=1e-3, atol=1e-4)


def test_solve_recomputes_keys_and_residuals_per_layer(model, statistics_of, records):
    """Against a solve that writes the weights layer by layer, as published code does."""
    solver, prompts = setting(model, statistics_of(model), Spread(), records[:3])
    saved = {n: model.weight(n).clone() for n in LAYERS}
    with frozen(model.model):
        goal, _ = solver.unedited_stream_and_key(prompts)
        residuals = torch.ones_like(goal)
        solution = solver.solve(prompts, residuals)
        goal = goal + residuals
        try:
            for i, layer in enumerate(LAYERS):
                now, _ = solver.unedited_stream_and_key(prompts)
                probe = LayeredSolver(model, solver.geometries, [(layer, 1.0)])
                _, key = probe.unedited_stream_and_key(prompts)
                torch.testing.assert_close(key, solution.keys[layer], rtol=1e-3, atol=1e-4)
                update = ((goal - now) / (3 - i)).T.double() @ solver.geometries[layer].channel(key.T).T
                left, right = solution.factors[layer]
                written = (left @ right.T).double()
                assert (update - written).norm() <= 2e-3 * update.norm()
                model.weight(layer).add_(update.float())
        finally:
            for n, weight in saved.items():
                model.weight(n).copy_(weight)


@pytest.mark.parametrize(
    ("allocation", "passes"),
    [(Spread(), 9), (Forward(), 10), (Last(), 2)],
    ids=lambda x: getattr(x, "kind", x),
)
def test_solve_runs_no_unneeded_block(demo, statistics_of, records, allocation, passes):
    """Blocks run by a solve over layers 1, 2, 3 of 6.

    Keys and outputs: 1, 2, 3, each for the common beginnings and for what follows (6). Streams at the goal:
    2-3, then 3, where the goal is the top (9 in all); 2-3 once and the replay 2-3, where every layer has
    its own (10). One layer: itself, twice.
    """
    solver, prompts = setting(demo, statistics_of(demo), allocation, records[:2])
    _ = demo.returns_tuples  # looks once, in a pass of its own
    counted = []
    handles = [
        demo.down(n).register_forward_hook(lambda *_, n=n: counted.append(n)) for n in range(len(demo))
    ]
    try:
        with frozen(demo.model):
            solver.solve(prompts, torch.zeros(2, demo.d_v))
    finally:
        for handle in handles:
            handle.remove()
    assert len(counted) == passes
    assert set(counted) <= set(LAYERS)


@pytest.mark.parametrize("allocation", [Spread(), Forward()], ids=lambda a: a.kind)
def test_solve_casts_residuals_to_the_streams_dtype(demo, statistics_of, records, allocation):
    """Residuals of any precision are wanted in the streams."""
    solver, prompts = setting(demo, statistics_of(demo), allocation, records[:2])
    with frozen(demo.model):
        residuals = torch.randn(2, demo.d_v, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        fine, plain = solver.solve(prompts, residuals), solver.solve(prompts, residuals.float())
    assert fine.planned.dtype == fine.shift.dtype == torch.float32
    torch.testing.assert_close(fine.shift, plain.shift)


def test_solve_differentiates_keys_only_where_set(demo, statistics_of, records):
    """Derivatives follow keys only where they shall."""
    solver, prompts = setting(demo, statistics_of(demo), Spread(), records[:2])
    rights = {}
    with frozen(demo.model):
        for moving in (True, False):
            residuals = torch.ones(2, demo.d_v, requires_grad=True)
            rights[moving] = solver.solve(prompts, residuals, moving).factors[3][1]
        default = solver.solve(prompts, torch.ones(2, demo.d_v, requires_grad=True)).factors[3][1]
        plain = solver.solve(prompts, torch.ones(2, demo.d_v)).factors[3][1]
    assert [rights[moving].requires_grad for moving in (True, False)] == [True, False]
    assert default.requires_grad
    assert not plain.requires_grad
    torch.testing.assert_close(rights[False], plain)


@pytest.mark.parametrize("where", ["residual", "key"])
def test_solve_refuses_a_non_finite_update(demo, statistics_of, records, where):
    solver, prompts = setting(demo, statistics_of(demo), Last(), records[:1])
    residuals = torch.ones(1, demo.d_v)
    if where == "residual":
        residuals[0, 3] = float("inf")
    else:

        class Broken(Ridge):
            def channel_and_attenuation(self, keys, fit="least_squares"):
                channel, eta = super().channel_and_attenuation(keys, fit)
                return channel * float("nan"), eta

        solver.geometries = {3: Broken(statistics_of(demo)[3], 300.0, 1e-3)}
    with frozen(demo.model), pytest.raises(MetakeError, match="the update of layer 3 is not finite"):
        solver.solve(prompts, residuals)


def test_allocation_is_found_by_name():
    allocations = {kind: cls() for kind, cls in families()["allocation"].items()}
    assert {kind: allocation.stages((1, 2, 3)) for kind, allocation in allocations.items()} == {
        "spread": [[(1, 1 / 3), (2, 1 / 2), (3, 1.0)]],
        "square-roots": [[(1, 3**-0.5), (2, 2**-0.5), (3, 1.0)]],
        "last": [[(3, 1.0)]],
        "forward": [[(1, 1.0), (2, 1.0), (3, 1.0)]],
        "boundary": [[(1, 1.0)], [(3, 1.0)]],
    }
    assert [kind for kind, allocation in allocations.items() if allocation.per_layer] == ["forward"]
    assert [kind for kind, allocation in allocations.items() if allocation.at_value] == ["square-roots"]
    assert Boundary().stages((4,)) == [[(4, 1.0)]]  # one layer has one boundary


@pytest.mark.parametrize("layers", [(4,), (1, 2), (3, 4, 5, 6, 7)])
def test_allocation_has_its_shares(layers):
    (shares,) = Spread().stages(layers)
    assert [s for _, s in shares] == [1 / n for n in range(len(layers), 0, -1)]
    assert last(layers) == [(layers[-1], 1.0)]
    rest = 1.0
    for _, share in shares:  # asked shares add up to the whole residual when every write arrives
        rest *= 1 - share
    assert rest == 0
