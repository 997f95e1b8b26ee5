"""The cost of a change in the statistics of old keys."""

import pytest
import torch

from metake.deltas import Delta
from metake.solvers.cost import old_key_cost


@pytest.mark.parametrize("kind", ["factors", "dense", "both"])
def test_old_key_cost_is_the_mean_squared_change_of_the_output(monkeypatch, kind):
    """Over the keys whose second moment C is; a dense change is read in blocks of rows."""
    monkeypatch.setattr("metake.solvers.cost.ROWS", 2)
    torch.manual_seed(0)
    keys = torch.randn(50, 7, dtype=torch.float64)
    factors = {3: (torch.randn(5, 2), torch.randn(7, 2))} if kind != "dense" else {}
    dense = {3: torch.randn(5, 7)} if kind != "factors" else {}
    delta = Delta(factors, dense_updates=dense)
    wanted = (keys @ delta.to_dense(3).T).square().sum(1).mean()
    assert old_key_cost(delta, {3: (keys.T @ keys) / 50}) == {3: pytest.approx(float(wanted))}


def test_old_key_cost_times_lambda_is_that_of_the_solve(demo, statistics_of, records):
    """For one layer of MEMIT without a ridge: the sum over requests of X14's cost."""
    from metake.editor import Editor
    from tests.cases import method_of

    method = method_of(demo, "memit", layers=(2,), steps=4, contexts=(), lam=30.0, jitter=0.0)
    statistics = statistics_of(demo)
    with Editor(demo, method=method, statistics=statistics, progress=False) as editor:
        result = editor.edit([r.request for r in records[:4]])
    (stage,) = result.stages
    wanted = float(stage.solution.cost().sum())
    assert 30.0 * old_key_cost(result.delta, statistics)[2] == pytest.approx(wanted, rel=1e-3)
