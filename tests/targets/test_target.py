"""From settings to targets: the whole upper level."""

import pytest
import torch

from metake.geometry.operator import Ridge
from metake.models.trace import frozen
from metake.presets import settings_for
from metake.prompts import Batch, Trunks
from metake.solvers.allocation import spread
from metake.solvers.layered import LayeredSolver
from metake.targets import target
from metake.targets.target import plan_targets

LAYERS = (2, 3)


@pytest.fixture
def cost_of(demo, statistics_of, records):
    """`cost_of(**settings)`: what the update at the chosen targets costs the geometry, per request."""
    statistics = statistics_of(demo)

    def go(**changes):
        settings = settings_for(
            demo.arch,
            "metake-priced",
            layers=LAYERS,
            lookup="prompt",
            steps=5,
            meta_steps=8,
            meta_stop="none",
            **changes,
        )
        solver = LayeredSolver(
            demo.arch, {n: Ridge(statistics[n], settings.weight, 1e-3) for n in LAYERS}, spread(LAYERS)
        )
        requests = [record.request for record in records[:3]]
        batch = Batch.build(demo.arch, demo.tokenizer, requests, ("The market is cold",), settings.lookup)
        trunks = Trunks.build(demo.arch, batch, LAYERS[0])
        with frozen(demo.model):
            targets = plan_targets(demo.arch, solver, batch, trunks, settings)
            return targets, solver.solve(trunks, targets.residuals).cost()

    return go


@pytest.mark.parametrize(
    "choice",
    [{"hypergradient": "proxy"}, {"hypergradient": "proxy", "joint": False}, {"hypergradient": "parallel"},
     {"hypergradient": "unrolled"}],
    ids=str,
)  # fmt: skip
def test_a_loop_that_pays_disturbs_less(cost_of, choice):
    free, dear = (cost_of(price=price, **choice)[1] for price in (0.0, 300.0))
    assert (dear > 0).all()
    assert float(dear.sum()) < 0.7 * float(free.sum())


def test_the_price_is_in_units_of_the_stream(cost_of, monkeypatch):
    """`price` counts tr(D G D^T) over ||h||^2, as decay and regulariser do, of each request its own."""
    seen = []
    descend = target.descend
    monkeypatch.setattr(
        target,
        "descend",
        lambda *a, penalty, **more: seen.append(penalty) or descend(*a, penalty=penalty, **more),
    )
    targets, _ = cost_of(price=7.0)
    plan, closed = seen
    assert plan.price is None
    torch.testing.assert_close(closed.price, 7.0 / targets.hidden.norm(dim=1).square())
    seen.clear()
    cost_of(price=0.0)
    assert seen[1].price is None
