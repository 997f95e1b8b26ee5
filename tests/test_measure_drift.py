"""The instrument for Theorem 3: its norms, its identities, and the command as a user gives it."""

from __future__ import annotations

import json

import pytest
import torch

from metake.drift.edit import Edit, measure
from metake.drift.norms import Jacobian, Tokens, largest_singular, watched
from metake.drift.verdict import judge, sentences, table
from metake.files import read_record, write_record
from metake.geometry.operator import Ridge
from metake.models.trace import frozen
from metake.planners.hypergradient import factor_gradients
from metake.planners.target_optimization import Penalty
from metake.prompts import Batch
from metake.solvers.allocation import Spread, last
from metake.solvers.layered import LayeredSolver
from tests.scripts import call_here, refused

SCRIPT = "measure_drift.py"
LAYERS = (1, 2, 3)


def build(model, statistics, request, shares=None, weight=30.0):
    geometries = {i: Ridge(statistics[i], weight, 1e-3) for i in LAYERS}
    batch = Batch.build(model, [request], ("The market is cold",))
    solver = LayeredSolver(model, geometries, shares or Spread().stages(LAYERS)[0])
    return Edit(model, solver, batch, Penalty(kl=0.1, kl_from_unedited=True), 4096)


def residual(edit, length=0.3):
    way = torch.randn(edit.hidden.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return way * length * float(edit.hidden.norm()) / way.norm()


@pytest.fixture(scope="module")
def double(demo):
    demo.model.double()
    with frozen(demo.model):
        yield demo
    demo.model.float()


@pytest.fixture(scope="module")
def edit(double, statistics_of, records):
    return build(double, statistics_of(double), records[0].request)


@pytest.mark.parametrize("steps", [1, 3, 12])
def test_largest_singular_is_reached_from_below(steps):
    generator = torch.Generator().manual_seed(steps)
    A = torch.randn(9, 7, generator=generator, dtype=torch.float64)
    start = torch.randn(9, generator=generator, dtype=torch.float64)
    found = largest_singular(lambda v: A @ v, lambda u: A.T @ u, start, steps)
    exact = float(torch.linalg.matrix_norm(A, 2))
    assert (A.T @ start).norm() / start.norm() <= found * (1 + 1e-12)
    assert found <= exact * (1 + 1e-12)
    if steps == 12:
        assert found == pytest.approx(exact, rel=1e-12)


def test_largest_singular_of_zero_is_zero():
    """The norm of nothing is zero."""
    assert largest_singular(lambda v: 0 * v, lambda u: 0 * u, torch.ones(3), 4) == 0


def test_norms_from_products_equal_those_of_matrices(edit):
    """Products of a jacobian and the norm of a weight gradient are those of the matrices."""
    leaf = residual(edit).requires_grad_(True)
    with torch.enable_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        solution = edit.solver.solve(edit.prompts, leaf, differentiate_keys=False)
        left = solution.factors[3][0][:, 0]
        J = torch.stack([torch.autograd.grad(x, leaf, retain_graph=True)[0][0] for x in left])
        jacobian = Jacobian(left, leaf)
        v = torch.randn(len(J), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        torch.testing.assert_close(jacobian.transposed(v), J.T @ v)
        torch.testing.assert_close(jacobian.times(v), J @ v)
        eye = torch.eye(len(J), dtype=torch.float64)
        exact = float(torch.linalg.matrix_norm(J / 0.7 - eye, 2))
        assert jacobian.norm(v, len(J), shift=1.0, scale=0.7) == pytest.approx(exact, rel=1e-9)

        with watched(edit.model, 3) as tokens:
            _, gradients = factor_gradients(
                edit.objective, solution.factors, torch.tensor([True]), edit.penalty
            )
        Gamma = sum(
            s.reshape(-1, s.shape[-1]).T @ k.reshape(-1, k.shape[-1])
            for s, k in zip(tokens.signals, tokens.keys, strict=True)
        )
    torch.testing.assert_close(Gamma @ solution.factors[3][1].detach(), gradients[3][0])
    assert tokens.norm() == pytest.approx(float(torch.linalg.matrix_norm(Gamma, 2)), rel=1e-6)


@pytest.mark.parametrize("count", [1, 4, 60])
def test_tokens_norm_equals_that_of_the_matrix(count):
    """With fewer and with more tokens than entries, in several passes."""
    random = torch.Generator().manual_seed(count)
    keys, signals = (torch.randn(2, count, size, generator=random) for size in (9, 5))
    norm = Tokens(list(keys), list(signals)).norm()
    gamma = signals.reshape(-1, 5).T @ keys.reshape(-1, 9)
    assert norm == pytest.approx(float(torch.linalg.matrix_norm(gamma.double(), 2)), rel=1e-6)


def test_measure_has_both_sides_of_the_theorem(edit):
    row = measure(edit.gradients(residual(edit), twice=True), steps=6)
    assert row["sum check"] < 1e-9  # sum_l J_l^T Gamma_l q_l is the frozen-key hypergradient
    assert row["terms check"] < 1e-9  # the parts are the error, as vectors
    assert row["error"] <= sum(row["terms"].values()) * (1 + 1e-9)
    assert row["error"] <= row["bound"] * (1 + 1e-9)
    assert row["gamma"] == pytest.approx(sum(row["g_l"][:-1]) / row["g_l"][-1])
    assert row["eps_I along g~"] <= row["eps_I"]
    assert row["J_l"][0] == pytest.approx(1 / 3)
    assert row["share"][0] == pytest.approx(1 / 3)
    assert 0 < row["sigma"] <= 1
    assert row["cos"]["frozen"] > row["cos"]["proxy"]


def test_measure_of_one_layer_has_no_error(double, statistics_of, records):
    """P13: the proxy is the hypergradient, up to the key that its channel is made of."""
    edit = build(double, statistics_of(double), records[0].request, last(LAYERS))
    row = measure(edit.gradients(residual(edit), twice=True), steps=3)
    assert row["gamma"] == row["eps_I"] == row["zeta"] == 0
    assert row["error"] < 1e-9 * row["exact"]
    assert row["cos"]["proxy"] == pytest.approx(1)


def test_verdict_counts_bounds_and_violations():
    def row(**changes):
        base = {
            "key drift": [0.05, 0.0],
            "gamma": 0.2,
            "J_L - J_1": 0.05,
            "eps_I": 0.05,
            "zeta": 0.5,
            "zeta'": 0.3,
            "T3c": 0.2,
            "alignment": [0.5, 1.0],
            "cos": {"proxy": 0.9, "open": 0.5, "parallel": 0.99},
            "error": 0.4,
            "paper bound": 0.5,
            "bound": 0.6,
            "effect": [1.0, 1.0],
            "exact": 1.0,
            "terms": {"tail": 0.3, "allocation": 0.1},
            "sum check": 1e-8,
        }
        return base | changes

    bad = row(gamma=3.0, zeta=4.0, alignment=[-0.1, 1.0], error=2.0, terms={"tail": 0.1, "allocation": 0.9})
    verdict = judge([row(), row(), row(), bad])
    lines = {line["name"]: line["holds"] for line in verdict["lines"]}
    assert lines["(54) dominance"] == lines["T3b: zeta < 1"] == lines["X9: aligned layers"] == 0.75
    assert lines["T3a as stated"] == lines["T3a with all terms"] == 0.75
    assert lines["(56) J_L near I"] == lines["proxy descends"] == 1
    assert verdict["terms"]["tail"]["dominates"] == 0.75
    assert "guarantees descent by T3b: zeta < 1" in sentences(verdict)[0]
    assert "half of the edits or fewer: 0%" in sentences(judge([bad | {"zeta'": 2.0, "T3c": 2.0}]))[0]


def test_verdict_leaves_out_what_was_not_measured(edit):
    row = measure(edit.gradients(residual(edit)), steps=0)
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    verdict = judge([row])
    lines = {line["name"]: line["holds"] for line in verdict["lines"]}
    assert lines["T3c: angles"] is lines["(55) allocations alike"] is None
    assert "not measured" in sentences(verdict)[0]
    assert any(cells[:2] == ["T3c: angles", "-"] for cells in table(verdict)[1])


def test_measure_drift_writes_all_files_and_resumes(tmp_path):
    """The command writes everything and goes on where it was."""
    small = ("--model", "demo-llama", "--layers", "1-3", "--norms", 1, "--steps", 2, "--factors", 3)
    quick = (*small, "--out", tmp_path)
    call_here(SCRIPT, *quick, "--edits", 1)
    first = read_record(tmp_path / "drift.json", "")
    first["edits"][0]["start"]["nll"] = 123.0  # to be recognized
    write_record(tmp_path / "drift.json", first)
    done = call_here(SCRIPT, *quick, "--edits", 2)
    content = json.loads((tmp_path / "drift.json").read_text())
    assert [e["start"]["nll"] == 123.0 for e in content["edits"]] == [True, False]
    assert content["layers"] == [1, 2, 3]
    assert "the proxy descends" in done.stdout
    assert {p.name for p in tmp_path.iterdir()} == {
        "drift.json",
        "drift.csv",
        "report.html",
        "spectra.png",
        "layers.png",
        "between.png",
        "premises.png",
        "errors.png",
        "cosines.png",
    }
    lines = (tmp_path / "drift.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * (2 + 2)  # the factor 1 is always measured

    changed = (tmp_path / "drift.json").read_text().replace("123.0", "124.0")
    (tmp_path / "drift.json").write_text(changed)
    done = call_here(SCRIPT, *quick, "--edits", 2, check=False)
    assert done.returncode == 2
    assert "drift.json: damaged or changed by hand (its digest does not match); remove it" in done.stderr
    (tmp_path / "drift.json").write_text(changed.replace("124.0", "123.0"))

    call_here(SCRIPT, *quick, "--edits", 1, "--seed", 1)  # another run: nothing of the old one is kept
    assert json.loads((tmp_path / "drift.json").read_text())["edits"][0]["start"]["nll"] != 123.0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--model", "nowhere/nothing"), "nowhere/nothing"),
        (("--edits", "0"), "Invalid value for '--edits': "),
        (("--layers", "1-99"), "layer"),
        (("--layers", "x"), "layers: cannot read 'x'"),
        (("--data", "missing.json"), "missing.json"),
        (("--text", "missing.txt"), "missing.txt"),
        (("--stats", "missing.safetensors"), "missing.safetensors"),
        (("--lambda", "-1"), "'--lambda': must be a number above 0, got -1"),
        (("--factors", "1,x"), "--factors 1,x"),
        (("--factors", "0,1"), "--factors 0,1"),
    ],
)
def test_measure_drift_reports_bad_input_in_one_line(arguments, complaint, tmp_path):
    assert complaint in refused(SCRIPT, *arguments, out=tmp_path / "out")
