"""PMET: its two shifts against hooks on the whole model, its solve against whole matrices."""

from contextlib import ExitStack

import pytest
import torch

import metake as mk
from metake.geometry.operator import Ridge
from metake.lookup_prompts import LookupPrompts
from metake.models.editable import EditableModel
from metake.models.trace import frozen
from metake.planners.attention import Attention
from metake.planners.hypergradient import VirtualEditLoss
from metake.planners.objective import Objective
from metake.planners.problem import PlanningProblem
from metake.planners.target_optimization import Penalty
from metake.planners.with_attention import BothShifts
from metake.prompts import Batch
from metake.solvers.allocation import SquareRoots
from metake.solvers.layered import LayeredSolver
from tests.cases import CONFIGS, DESCRIBED, tiny

LAYERS = (1, 2, 3)
CONTEXTS = ("The market is cold",)
NAMES = ("attn", "self_attn", "attention", "self_attention")  # of the families, one by one


def setting(model, statistics, records):
    geometries = {n: Ridge(statistics[n], 300.0, 1e-3) for n in LAYERS}
    batch = Batch.build(model, [record.request for record in records], CONTEXTS)
    solver = LayeredSolver(model, geometries, SquareRoots().stages(LAYERS)[0], at_value=True)
    return PlanningProblem(model, solver, batch, LookupPrompts.build(model, batch, LAYERS[0]))


def shifted_nll(model, row, of_value, of_attention, layer=LAYERS[-1]):
    """NLL of a row's answer, from the whole model with hooks that add both shifts at the lookup token."""

    def adding(shift):
        def hook(_, __, output):
            whole = isinstance(output, tuple)
            first = (output[0] if whole else output).clone()
            first.view(-1, first.shape[-1])[row.lookup] += shift  # OPT lays rows end to end
            return (first, *output[1:]) if whole else first

        return hook

    block = model.blocks[layer]
    attention = next(module for name, module in block.named_children() if name in NAMES)
    with ExitStack() as stack:
        stack.callback(model.down(layer).register_forward_hook(adding(of_value)).remove)
        stack.callback(attention.register_forward_hook(adding(of_attention)).remove)
        scores = model.model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
    return -torch.stack(
        [scores[at, token] for at, token in zip(row.predicting, row.answer_ids, strict=True)]
    ).mean()


def test_both_shifts_act_as_hooks_on_the_whole_model(model, statistics_of, records):
    """Loss and gradient of both shifts, in sequential blocks (GPT-2, Llama) and in parallel ones (GPT-J)."""
    problem = setting(model, statistics_of(model), records[:2])
    generator = torch.Generator().manual_seed(0)
    shifts = 2.0 * torch.randn(4, model.d_v, generator=generator)
    leaf = shifts.clone().requires_grad_(True)
    with frozen(model.model):
        attention = Attention(model, LAYERS[-1], problem.batch.specs)
        objective = problem.planning_objective().transported(attention.transport)
        loss = BothShifts(VirtualEditLoss(objective, "token"), 2)
        losses, gradient = loss(shifts, torch.ones(4, dtype=torch.bool), Penalty())
        wanted = torch.stack(
            [
                torch.stack(
                    [shifted_nll(model, spec.row, leaf[i], leaf[2 + i]) for spec in problem.batch.specs
                     if spec.owner == i and spec.template is not None]
                ).mean()
                for i in range(2)
            ]
        )  # fmt: skip
        (wanted_gradient,) = torch.autograd.grad(wanted.sum(), leaf)
        still, _ = VirtualEditLoss(problem.planning_objective(), "token")(
            torch.zeros(2, model.d_v), torch.ones(2, dtype=torch.bool), Penalty(), backward=False
        )
    torch.testing.assert_close(losses.nll, wanted.detach().repeat(2), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))
    assert (losses.nll[:2] - still.nll).abs().min() > 0.01  # the shifts matter
    parallel = model.name == "demo-gptj"
    equal = torch.allclose(gradient[:2], gradient[2:], rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))
    assert equal is parallel  # where both are only added to the stream


@pytest.mark.parametrize("family", sorted({*CONFIGS, *DESCRIBED}))
def test_both_shifts_act_as_hooks_in_every_family(demo, family):
    """Or the family is refused in one line: its stream does not receive the attention's output as it is."""
    model = EditableModel(tiny(family), demo.tokenizer, modules=DESCRIBED.get(family, (None, None))[1])
    batch = Batch.build(model, [mk.EditRequest("The craft of {} is", "Ann", "baker")], CONTEXTS)
    top = 2  # of four layers: after the last one, a token before the answer has no effect
    if family in ("bloom", "gemma2", "gemma3_text", "olmo2"):
        with pytest.raises(mk.MetakeError, match=r"^planner with-attention: block 2 .* no one attention"):
            Attention(model, top, batch.specs)
        return
    shifts = torch.randn(2, model.d_v, generator=torch.Generator().manual_seed(0))
    with frozen(model.model), torch.no_grad():
        transport = Attention(model, top, batch.specs).transport
        objective = Objective(model, batch, LAYERS[0], top).transported(transport)
        found = objective.losses(shifts, "token", torch.ones(1, dtype=torch.bool)).nll
        still = shifted_nll(model, batch.edits[0], *(0 * shifts), top)
        wanted = [shifted_nll(model, row, *shifts, top) for row in batch.edits]
    torch.testing.assert_close(found[0], torch.stack(wanted).mean(), rtol=1e-4, atol=1e-4)
    assert (wanted[0] - still).abs() > 1e-3


def test_pmet_solves_its_equations(demo, statistics_of, records):
    """R_l = (v - v_now) / sqrt(n) at the n-th layer from the end, D_l = R_l K^T (lambda C + K K^T)^-1, weights written in turn."""
    problem = setting(demo, statistics_of(demo), records[:2])
    solver, prompts = problem.solver, problem.prompts
    residuals = torch.randn(2, demo.d_v, generator=torch.Generator().manual_seed(1))
    with frozen(demo.model), ExitStack() as stack:
        solution = solver.solve(prompts, residuals)
        goal = solver.ffn_output(prompts) + residuals
        for count, layer in zip((3, 2, 1), LAYERS, strict=True):
            at = LayeredSolver(demo, solver.geometries, [(layer, 1.0)])
            key = at.unedited_stream_and_key(prompts)[1].T.double()
            missing = (goal - solver.ffn_output(prompts)).T.double() / count**0.5
            matrix = 300.0 * statistics_of(demo)[layer].double() + 1e-3 * torch.eye(demo.d_k).double()
            wanted = missing @ key.T @ torch.linalg.inv(matrix + key @ key.T)
            found = mk.Delta({layer: tuple(part.detach() for part in solution.factors[layer])})
            torch.testing.assert_close(
                found.to_dense(layer), wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max())
            )
            stack.enter_context(found.applied(demo, check=False))
        after = solver.ffn_output(prompts)
    torch.testing.assert_close(
        after - (goal - residuals), solution.shift, rtol=1e-3, atol=1e-4 * float(residuals.norm())
    )


@pytest.mark.parametrize("family", ["gemma2", "olmo2"])
def test_residuals_of_an_output_are_refused_where_it_is_normalized(family):
    """A planner's residual is one of the stream, which receives the output after its norm."""
    model, shares = EditableModel(tiny(family)), SquareRoots().stages(LAYERS)[0]
    LayeredSolver(model, {}, shares)
    with pytest.raises(mk.MetakeError, match=r"^allocation: .* normalizes the output .* e\.g\. spread$"):
        LayeredSolver(model, {}, shares, at_value=True)


def test_pmet_plans_both_shifts_and_writes_one(demo, statistics_of, records):
    """Each shift is bounded by the norm of its own output; the report counts the last layer's share alone."""
    method = mk.settings_for(
        demo, "pmet", layers=LAYERS, steps=6, clamp=0.3, contexts=CONTEXTS, lookup="subject"
    )
    with mk.Editor(demo, method=method, statistics=statistics_of(demo)) as editor:
        problem = setting(demo, statistics_of(demo), records[:2])
        bound = 0.3 * problem.norms("value")
        result = editor.edit([record.request for record in records[:2]])
    (stage,) = result.stages
    norms = stage.targets.residuals.norm(dim=1)
    assert (norms <= bound * 1.001).all()
    assert (norms > 0.5 * bound).all()
    assert stage.shares == [(3, 1.0)]
    torch.testing.assert_close(stage.solution.planned, stage.targets.residuals, rtol=1e-4, atol=1e-5)


def test_planner_refuses_a_block_without_an_attention_of_its_own(demo, statistics_of, records, monkeypatch):
    block = demo.blocks[LAYERS[-1]]
    monkeypatch.setattr(block, "named_children", lambda: iter([("mlp", block.mlp)]))
    method = mk.settings_for(demo, "pmet", layers=LAYERS, contexts=CONTEXTS)
    editor = mk.Editor(demo, method=method, statistics=statistics_of(demo))
    with pytest.raises(mk.MetakeError, match=r"^planner with-attention: block 3 of demo .*; choose another"):
        editor.edit(records[0].request)


def test_planner_refuses_windows(demo, statistics_of, records):
    method = mk.settings_for(demo, "pmet + windows", layers=LAYERS, window_size=1)
    editor = mk.Editor(demo, method=method, statistics=statistics_of(demo))
    request = mk.EditRequest("The craft of {} is", "Ann", "old baker of bread")
    with pytest.raises(mk.MetakeError, match=r"^planner with-attention: .*windows"):
        editor.edit(request)
