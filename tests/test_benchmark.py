"""The published procedure, written directly, plans and writes what the library does."""

import json

import pytest
import torch

from experiments.bench import direct
from metake.methods.table import MEMIT
from metake.models.trace import frozen
from tests.scripts import call_here

CONTEXTS = ("The mill is dark", "It is told that")


@pytest.mark.parametrize("clamp", [None, 0.05])
def test_direct_memit_equals_memit(model, statistics_of, records, clamp):
    """MEMIT's procedure plans and writes the same.

    Same prompts, same settings: targets and updates agree to the rounding of fp32 passes.
    """
    method = MEMIT.updated(
        layers=(1, 2, 3), contexts=CONTEXTS, steps=6, lr=0.3, clamp=clamp, lam=30.0, jitter=1e-4
    )
    statistics = statistics_of(model)
    state = method.prepare(model, method.init(model, statistics))
    before = model.fingerprint()
    with frozen(model.model):
        batch, prompts = method.batch(model, [r.request for r in records[:3]], state)
        solver = method.solver(model, state)
        residuals = method.plan(model, solver, batch, prompts).residuals
        alone = torch.stack([direct.plan(model, batch, i, 3, method.planner) for i in range(3)])
        torch.testing.assert_close(residuals, alone, rtol=1e-3, atol=1e-4 * float(alone.norm()))
        solution = solver.solve(prompts, residuals)
        moments = {n: statistics[n] for n in (1, 2, 3)}
        changes = direct.execute(model, batch, residuals, moments, method.geometry)
    assert model.fingerprint() == before
    for layer, change in changes.items():
        left, right = solution.factors[layer]
        torch.testing.assert_close(
            left.double() @ right.double().T, change, rtol=1e-3, atol=1e-4 * float(change.abs().max())
        )


def test_benchmark_reports_every_suite(tmp_path):
    call_here("benchmark.py", "--batch", "1,2", "--steps", 2, "--repeats", 1, "--out", tmp_path)
    report = json.loads((tmp_path / "demo-all-1-2.json").read_text())
    each = ["plan"] * 2 + ["solve"] * 3 + ["metake"] * 4 + ["edit"] * 3
    assert [line["suite"] for line in report["rows"]] == each * 2 + ["stats"] + ["sequence"] * 2
    assert all(line["differs"] < 1e-3 for line in report["rows"] if line["differs"] is not None)
    seconds = {
        (line["suite"], line["name"]): line["seconds"][0] for line in report["rows"] if line["batch"] == 2
    }
    whole = seconds["plan", "this library"] + seconds["solve", "this library"]
    assert seconds["edit", "this library, open loop"] == pytest.approx(whole)
    steps = seconds["edit", "this library, MetaKE, 2 proxy steps"] - whole
    assert steps == pytest.approx(2 * seconds["metake", "step, proxy"])
    assert (tmp_path / "demo-all-1-2.png").stat().st_size > 10_000
