"""The proxy and its gradient against automatic differentiation through the whole model."""

from contextlib import ExitStack
from functools import partial

import pytest
import torch
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from metake.models.editable import EditableModel
from metake.models.trace import frozen
from metake.planners.objective import Objective
from metake.prompts import Batch
from metake.requests import EditRequest

TOP = 2
CONTEXTS = ("The harbour is quiet", "Today it rains")
REQUESTS = (
    EditRequest(
        "Which city was {} born in?",
        "Nezan Girok",
        "Red Anchor",
        locality_prompts=("Where is the old mill?",),
    ),
    EditRequest("What is the craft of {}?", "Zumi Bama", "potter"),
)


@pytest.fixture
def double(model):
    """The trained model in fp64, where gradients can be compared to ten digits."""
    model.model.double()
    yield model
    model.model.float()


def whole_model_losses(model, batch, channel, residuals, owner=None):
    """NLL and KL(unedited || edited) with materialized weights W + R Q^T, row by row."""
    module = model.down(TOP)
    name = next(n for n, m in model.model.named_modules() if m is module) + ".weight"
    update = residuals.T @ channel.T
    weight = module.weight + (update.T if isinstance(module, Conv1D) else update)

    def logits(row, edited=True):
        ids = torch.tensor([row.ids])
        parameters = {name: weight} if edited else {}
        return functional_call(model.model, parameters, (ids,), {"use_cache": False}).logits[0]

    nll, kl = [0.0] * len(batch.requests), [0.0] * len(batch.requests)
    for i, row in enumerate(batch.edits):
        who = i // batch.templates
        scores = logits(row).log_softmax(-1)
        for at, token in zip(row.predicting, row.answer_ids, strict=True):
            nll[who] = nll[who] - scores[at, token] / (row.answer * batch.templates)
    for guard in batch.kl_prompts:
        now = logits(guard.row).log_softmax(-1)[guard.row.lookup]
        then = logits(guard.row, edited=False).log_softmax(-1)[guard.row.lookup]
        count = sum(g.owner == guard.owner for g in batch.kl_prompts)
        kl[guard.owner] = kl[guard.owner] + (then.exp() * (then - now)).sum() / count
    return torch.stack(nll), torch.stack(kl)


@pytest.mark.parametrize("lookup", ["subject", "prompt"])
def test_proxy_gradient_equals_autograd_through_written_weights(double, lookup):
    model = double
    batch = Batch.build(model, REQUESTS, CONTEXTS, lookup)
    torch.manual_seed(0)
    channel = torch.randn(model.d_k, 2, dtype=torch.float32) * 0.3
    start = torch.randn(2, model.d_v, dtype=torch.float32)
    with frozen(model.model):
        objective = Objective(model, batch, 1, TOP, channel=channel, joint=True, max_tokens=64)
        residuals = start.clone().requires_grad_(True)
        losses = objective.losses(
            residuals,
            "channel",
            torch.ones(2, dtype=torch.bool),
            kl_weight=0.7,
            kl_from_unedited=True,
            backward=True,
        )
        reference = start.double().requires_grad_(True)
        nll, kl = whole_model_losses(double, batch, channel.double(), reference)
        (nll + 0.7 * kl).sum().backward()
    # Llama's norm is fp32 in any model
    torch.testing.assert_close(losses.nll, nll.detach(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(losses.kl, kl.detach(), rtol=1e-5, atol=1e-7)
    assert residuals.grad.norm() > 1e-3
    torch.testing.assert_close(
        residuals.grad, reference.grad.float(), rtol=1e-5, atol=1e-6 * float(reference.grad.norm())
    )


def test_objective_in_single_form_is_each_edit_alone(double):
    """Without the joint form a row feels its own request only."""
    model = double
    torch.manual_seed(1)
    channel, start = torch.randn(model.d_k, 2) * 0.3, torch.randn(2, model.d_v)
    with frozen(model.model):
        both = Objective(
            model,
            Batch.build(model, REQUESTS, CONTEXTS),
            1,
            TOP,
            channel=channel,
            joint=False,
        ).losses(start, "channel", torch.ones(2, dtype=torch.bool))
        for j, request in enumerate(REQUESTS):
            batch = Batch.build(model, [request], CONTEXTS)
            for joint in (True, False):  # a batch of one: the joint form is the single form
                alone = Objective(model, batch, 1, TOP, channel=channel[:, [j]], joint=joint).losses(
                    start[[j]], "channel", torch.ones(1, dtype=torch.bool)
                )
                torch.testing.assert_close(alone.nll[0], both.nll[j], rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(alone.kl[0], both.kl[j], rtol=1e-4, atol=1e-5)


def test_open_loop_writes_at_the_lookup_token_alone(model):
    """Against a hook that adds delta to the block's output there (2)."""
    batch = Batch.build(model, REQUESTS[:1], ())
    torch.manual_seed(2)
    delta = torch.randn(1, model.d_v)
    row = batch.edits[0]

    def add(_, __, output):
        stream = (output if isinstance(output, torch.Tensor) else output[0]).clone()
        stream[0, row.lookup] += delta[0]
        return stream if isinstance(output, torch.Tensor) else (stream, *output[1:])

    with frozen(model.model), torch.no_grad():
        got = Objective(model, batch, 1, TOP).losses(delta, "token", torch.ones(1, dtype=torch.bool)).nll[0]
        handle = model.blocks[TOP].register_forward_hook(add)
        scores = model.model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
        handle.remove()
    wanted = (
        -sum(scores[at, token] for at, token in zip(row.predicting, row.answer_ids, strict=True)) / row.answer
    )
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gate", ["token", "channel"])
def test_objective_does_not_depend_on_chunks_or_inactive_requests(model, gate):
    """Chunking and inactive requests change nothing."""
    batch = Batch.build(model, REQUESTS, CONTEXTS)
    torch.manual_seed(3)
    residuals, channel = torch.randn(2, model.d_v), torch.randn(model.d_k, 2)
    everyone = torch.ones(2, dtype=torch.bool)
    with frozen(model.model), torch.no_grad():
        whole = Objective(model, batch, 1, TOP, channel=channel, max_tokens=10_000)
        pieces = Objective(model, batch, 1, TOP, channel=channel, max_tokens=20)
        a, b = (o.losses(residuals, gate, everyone) for o in (whole, pieces))
        one = whole.losses(residuals, gate, torch.tensor([False, True]))
        parts = pieces.losses(residuals, gate, torch.tensor([False, True]))  # whole passes are left out
    torch.testing.assert_close(a.nll, b.nll, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(a.kl, b.kl, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.nll[1], a.nll[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts.nll, one.nll, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts.kl, one.kl, rtol=1e-4, atol=1e-5)
    assert one.nll[0] == 0


@pytest.mark.parametrize("gate", ["token", "channel"])
def test_objective_without_active_requests_is_zero(demo, gate):
    """Without an active request losses and gradient are zero."""
    model = demo
    batch = Batch.build(model, REQUESTS, CONTEXTS)
    residuals = torch.ones(2, model.d_v, requires_grad=True)
    with frozen(model.model):
        losses = Objective(model, batch, 1, TOP, channel=torch.ones(model.d_k, 2)).losses(
            residuals, gate, torch.zeros(2, dtype=torch.bool), kl_weight=1.0, backward=True
        )
    assert losses.nll.tolist() == losses.kl.tolist() == [0.0, 0.0]
    assert losses.cost is None
    assert not residuals.grad.any()


@pytest.mark.parametrize("gate", ["token", "channel"])
def test_objective_evaluation_keeps_no_activations(demo, gate):
    model, kept = demo, []
    batch = Batch.build(model, REQUESTS, CONTEXTS)
    residuals = torch.zeros(2, model.d_v, requires_grad=True)
    everyone = torch.ones(2, dtype=torch.bool)
    with (
        frozen(model.model),
        torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(1) or x, lambda x: x),
    ):
        objective = Objective(model, batch, 1, TOP, channel=torch.randn(model.d_k, 2))
        objective.losses(residuals, gate, everyone)
        assert not kept
        objective.losses(residuals, gate, everyone, backward=True)
        assert kept


def test_post_edit_losses_are_those_of_written_weights(model):
    batch = Batch.build(model, REQUESTS, CONTEXTS)
    torch.manual_seed(4)
    factors = {n: (torch.randn(model.d_v, 2) * 0.1, torch.randn(model.d_k, 2) * 0.1) for n in (1, 2)}
    with frozen(model.model), torch.no_grad():
        virtual = Objective(model, batch, 1, TOP).post_edit_losses(factors)
        zero = torch.zeros(2, model.d_v)
        saved = {n: model.weight(n).clone() for n in factors}
        for n, (left, right) in factors.items():
            model.weight(n).add_(left @ right.T)
        written = Objective(model, batch, 1, TOP).losses(zero, "token", torch.ones(2, dtype=torch.bool))
        for n, weight in saved.items():
            model.weight(n).copy_(weight)
    torch.testing.assert_close(virtual.nll, written.nll, rtol=1e-3, atol=1e-4)


def test_objective_leaves_the_architecture_unchanged(model):
    """The model is whole after planning."""
    assert EditableModel(model.model).fingerprint() == model.fingerprint()


def marked_losses(model, batch, residuals, kl_from_unedited):
    """NLL and KL of the open loop, row by row: a hook adds the residual to the block's output at the marked token."""
    model, size = model, len(batch.requests)

    def scores(row, residual):
        def add(_, __, output):
            stream = output if isinstance(output, torch.Tensor) else output[0]
            at = torch.zeros(stream.shape[1], dtype=stream.dtype)
            at[row.lookup] = 1
            stream = stream + at[None, :, None] * residual
            return stream if isinstance(output, torch.Tensor) else (stream, *output[1:])

        with model.blocks[TOP].register_forward_hook(add):
            return model.model(torch.tensor([row.ids])).logits[0].log_softmax(-1)

    nll, kl = [0.0] * size, [0.0] * size
    for i, row in enumerate(batch.edits):
        who = i // batch.templates
        found = scores(row, residuals[who])
        answer = [found[at, token] for at, token in zip(row.predicting, row.answer_ids, strict=True)]
        nll[who] = nll[who] - sum(answer) / len(answer) / batch.templates
    for guard in batch.kl_prompts:
        written = residuals[guard.owner] if guard.has_residual else torch.zeros_like(residuals[0])
        now, then = (scores(guard.row, r)[guard.row.lookup] for r in (written, torch.zeros_like(written)))
        a, b = (then, now) if kl_from_unedited else (now, then)
        count = sum(g.owner == guard.owner for g in batch.kl_prompts)
        kl[guard.owner] = kl[guard.owner] + (a.exp() * (a - b)).sum() / count
    return torch.stack(nll), torch.stack(kl)


@pytest.mark.parametrize(
    ("lookup", "kl_from_unedited"), [("subject", False), ("subject", True), ("prompt", False)]
)
def test_open_loop_losses_and_gradient_equal_autograd(double, lookup, kl_from_unedited):
    """Open loop losses and gradient equal autograd through the marked stream.

    (2) in every context, MEMIT's KL(edited || unedited) about the subject, and the weight of the latter.
    """
    model = double
    batch = Batch.build(model, REQUESTS, CONTEXTS, lookup)
    torch.manual_seed(5)
    start = torch.randn(2, model.d_v, dtype=torch.float64) * 20
    with frozen(model.model):
        residuals = start.clone().requires_grad_(True)
        losses = Objective(model, batch, 1, TOP, max_tokens=64).losses(
            residuals,
            "token",
            torch.ones(2, dtype=torch.bool),
            kl_weight=0.7,
            kl_from_unedited=kl_from_unedited,
            backward=True,
        )
        reference = start.clone().requires_grad_(True)
        nll, kl = marked_losses(double, batch, reference, kl_from_unedited)
        (nll + 0.7 * kl).sum().backward()
    torch.testing.assert_close(losses.nll, nll.detach(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(losses.kl, kl.detach(), rtol=1e-5, atol=1e-7)
    if lookup == "subject":
        backwards = marked_losses(double, batch, start, not kl_from_unedited)[1]
        assert ((losses.kl - backwards).abs() > 0.01 * losses.kl).all()
    else:
        assert losses.kl.abs().max() < 1e-7  # nothing is written at the subject, or in prompts about others
    torch.testing.assert_close(
        residuals.grad, reference.grad, rtol=1e-5, atol=1e-6 * float(reference.grad.norm())
    )


@pytest.mark.parametrize("kl_from_unedited", [True, False])
def test_post_edit_losses_and_gradients_equal_autograd(double, kl_from_unedited):
    """Executed losses and gradients equal autograd through written weights.

    Of every factor of two layers, KL in either direction; what a leaf's gradient held before is kept.
    """
    model = double
    batch = Batch.build(model, REQUESTS, CONTEXTS)
    torch.manual_seed(6)
    factors = {
        n: (torch.randn(model.d_v, 2).double() * 0.3, torch.randn(model.d_k, 2).double() * 0.1)
        for n in (1, 2)
    }
    leaves = {n: tuple(f.clone().requires_grad_(True) for f in pair) for n, pair in factors.items()}
    plain = {n: tuple(f.clone().requires_grad_(True) for f in pair) for n, pair in factors.items()}
    names = {
        n: next(name for name, m in model.model.named_modules() if m is model.down(n)) + ".weight"
        for n in factors
    }

    def logits(row, edited):
        weights = {}
        for n, (left, right) in plain.items():
            update = left @ right.T
            module = model.down(n)
            weights[names[n]] = module.weight + (update.T if isinstance(module, Conv1D) else update)
        ids = torch.tensor([row.ids])
        scores = functional_call(model.model, weights if edited else {}, (ids,), {"use_cache": False}).logits
        return scores[0].log_softmax(-1)

    with frozen(model.model):
        before = torch.ones_like(leaves[1][0])
        leaves[1][0].grad = before.clone()
        losses = Objective(model, batch, 1, TOP, max_tokens=64).post_edit_losses(
            leaves, kl_weight=0.7, kl_from_unedited=kl_from_unedited, backward=True
        )
        nll, kl = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
        for i, row in enumerate(batch.edits):
            found = logits(row, True)
            share = 1 / (row.answer * batch.templates)
            picked = sum(found[at, token] for at, token in zip(row.predicting, row.answer_ids, strict=True))
            nll = nll.index_add(0, torch.tensor([i // batch.templates]), -share * picked[None])
        for guard in batch.kl_prompts:
            now, then = (logits(guard.row, edited)[guard.row.lookup] for edited in (True, False))
            a, b = (then, now) if kl_from_unedited else (now, then)
            count = sum(g.owner == guard.owner for g in batch.kl_prompts)
            kl = kl.index_add(0, torch.tensor([guard.owner]), (a.exp() * (a - b)).sum()[None] / count)
        (nll + 0.7 * kl).sum().backward()
    torch.testing.assert_close(losses.nll, nll.detach(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(losses.kl, kl.detach(), rtol=1e-5, atol=1e-7)
    for n in factors:
        for i in (0, 1):
            found = leaves[n][i].grad - (before if (n, i) == (1, 0) else 0)
            wanted = plain[n][i].grad
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.norm()))


def losses_from_lookup(model, batch, factors):
    """NLL and KL(unedited || edited), row by row: hooks add `left right^T k` to FFN outputs from the lookup token on."""

    def scores(row, edited):
        def add(_, args, output, left, right):
            acts = torch.arange(output.shape[-2]) >= row.lookup
            return output + acts[:, None] * ((args[0] @ right) @ left.T)

        with ExitStack() as hooks:
            for n, (left, right) in factors.items() if edited else ():
                hook = partial(add, left=left, right=right)
                hooks.enter_context(model.down(n).register_forward_hook(hook))
            return model.model(torch.tensor([row.ids])).logits[0].log_softmax(-1)

    nll, kl = [0.0] * len(batch.requests), [0.0] * len(batch.requests)
    for i, row in enumerate(batch.edits):
        found = scores(row, True)
        answer = [found[at, token] for at, token in zip(row.predicting, row.answer_ids, strict=True)]
        nll[i // batch.templates] -= sum(answer) / len(answer) / batch.templates
    for guard in batch.kl_prompts:
        now, then = (scores(guard.row, edited)[guard.row.lookup] for edited in (True, False))
        count = sum(g.owner == guard.owner for g in batch.kl_prompts)
        kl[guard.owner] += (then.exp() * (then - now)).sum() / count
    return torch.stack(nll), torch.stack(kl)


@pytest.mark.parametrize("first", [0, 1])
def test_post_edit_losses_from_lookup_equal_autograd(double, first):
    """Losses and gradients of updates that act from the lookup token on; without effect if the first block is edited."""
    model = double
    batch = Batch.build(model, REQUESTS, CONTEXTS)
    torch.manual_seed(8)
    leaves, plain = (
        {n: tuple(f.clone().requires_grad_(True) for f in pair) for n, pair in factors.items()}
        for factors in [
            {
                n: (torch.randn(model.d_v, 2).double() * 0.3, torch.randn(model.d_k, 2).double() * 0.1)
                for n in (first, TOP)
            }
        ]
        * 2
    )
    with frozen(model.model):
        objective = Objective(model, batch, first, TOP, max_tokens=64)
        options = {"kl_weight": 0.7, "kl_from_unedited": True, "backward": True}
        losses = objective.post_edit_losses(leaves, from_lookup=True, **options)
        whole = objective.post_edit_losses(plain, **options)
        if first == 0:
            torch.testing.assert_close(losses.nll, whole.nll, rtol=0, atol=0)
            return
        assert ((losses.nll - whole.nll).abs() > 1e-4 * whole.nll).all()
        plain = {n: tuple(f.detach().requires_grad_(True) for f in pair) for n, pair in plain.items()}
        nll, kl = losses_from_lookup(model, batch, plain)
        (nll + 0.7 * kl).sum().backward()
    torch.testing.assert_close(losses.nll, nll.detach(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(losses.kl, kl.detach(), rtol=1e-5, atol=1e-7)
    for n, pair in leaves.items():
        for found, wanted in zip(pair, plain[n], strict=True):
            torch.testing.assert_close(
                found.grad, wanted.grad, rtol=1e-4, atol=1e-5 * float(wanted.grad.norm())
            )


def test_objective_fixes_the_unedited_model_at_first_use(demo):
    """Reference and stream are taken when they are first needed, and not again once the model has changed."""
    model = demo
    batch = Batch.build(model, REQUESTS, ())
    with frozen(model.model), torch.no_grad():
        objective = Objective(model, batch, 1, TOP)
        assert objective.post_edit_losses({}, kl_weight=1.0).kl.abs().max() < 1e-6
        saved = model.weight(4).clone()
        try:
            model.weight(4).mul_(1.5)
            assert objective.post_edit_losses({}, kl_weight=1.0).kl.min() > 1e-4
            assert Objective(model, batch, 1, TOP).post_edit_losses({}).kl.abs().max() < 1e-6
        finally:
            model.weight(4).copy_(saved)


def test_planning_losses_are_nll_and_kl_of_memit(demo):
    """Alone losses are NLL and MEMIT's direction.

    Without arguments: no weight on KL in the gradient, and KL(edited || unedited).
    """
    model = demo
    batch = Batch.build(model, REQUESTS, ())
    torch.manual_seed(7)
    everyone, start = torch.ones(2, dtype=torch.bool), torch.randn(2, model.d_v) * 20
    with frozen(model.model):
        objective = Objective(model, batch, 1, TOP)
        gradients = []
        for options in ({}, {"kl_weight": 0.0}, {"kl_weight": 100.0}):
            leaf = start.clone().requires_grad_(True)
            objective.losses(leaf, "token", everyone, backward=True, **options)
            gradients.append(leaf.grad)
        torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)
        assert (gradients[2] - gradients[1]).norm() > 1e-3 * gradients[1].norm()
        factors = {1: (torch.randn(model.d_v, 1), torch.randn(model.d_k, 1) / 10)}
        kl = {
            first: objective.post_edit_losses(factors, kl_from_unedited=first).kl for first in (True, False)
        }
        torch.testing.assert_close(objective.post_edit_losses(factors).kl, kl[False], rtol=0, atol=0)
        assert (kl[True] - kl[False]).abs().max() > 1e-3 * kl[True].max()


@pytest.mark.parametrize("first", [0, 1])
def test_open_loop_shares_the_constants_of_post_edit_losses(double, first, monkeypatch):
    """Losses and gradients are the same, and what stands before the lookup tokens runs once for both loops."""
    model = double
    batch = Batch.build(model, REQUESTS, CONTEXTS)
    torch.manual_seed(3)
    residuals = torch.randn(2, model.d_v).double()
    everyone = torch.ones(2, dtype=torch.bool)
    factors = {TOP: (torch.randn(model.d_v, 2).double() * 0.3, torch.randn(model.d_k, 2).double() * 0.1)}
    passes = []
    built = Objective._from_lookup
    monkeypatch.setattr(Objective, "_from_lookup", lambda *args: passes.append(args[-1]) or built(*args))
    found = {}
    with frozen(model.model):
        for from_lookup in (False, True):
            objective = Objective(model, batch, first, TOP, max_tokens=10_000, from_lookup=from_lookup)
            leaf = residuals.clone().requires_grad_(True)
            passes.clear()
            losses = objective.losses(leaf, "token", everyone, kl_weight=0.7, backward=True)
            objective.post_edit_losses(factors, from_lookup=True)
            found[from_lookup] = losses.nll, losses.kl, leaf.grad, set(passes)
    for plain, shared in zip(found[False][:3], found[True][:3], strict=True):
        torch.testing.assert_close(shared, plain, rtol=1e-9, atol=1e-12)
    assert found[False][3] == ({TOP} if first == 0 else {TOP, 0})
    assert found[True][3] == ({TOP} if first == 0 else {0})
