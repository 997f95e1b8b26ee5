"""UltraEdit's step: its moments, its signals against plain autograd, its solve against the dense one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

import metake.statistics_cache
from metake.editor import Editor
from metake.errors import MetakeError
from metake.maps.step import check_finite, solution_of
from metake.methods.state import State
from metake.methods.ultraedit import UltraEdit
from metake.models.tokens import encode
from metake.planners.normalized_gradient import Moments, answer_keys_and_gradients
from metake.presets import settings_for
from metake.prompts import Batch
from metake.requests import EditRequest
from tests.cases import method_of

LAYERS = (1, 3)


@given(st.integers(2, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 10_000))
def test_moments_merge_to_those_of_all_rows(first, second, entries, seed):
    rows = torch.randn(first + second, entries, generator=torch.Generator().manual_seed(seed)) * 3 + 1
    merged = Moments.of(rows[:first]).merged(Moments.of(rows[first:]))
    again = Moments.unpack(merged.pack())
    assert again.count == first + second
    scaled = again.normalize(rows)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(entries).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(scaled.std(0), torch.ones(entries).double(), rtol=1e-5, atol=0)


def test_moments_normalize_a_constant_entry_to_zero():
    """An entry that never changes becomes zero."""
    rows = torch.tensor([[1.0, 5.0], [2.0, 5.0]])
    assert Moments.of(rows).normalize(rows)[:, 1].abs().max() == 0


def plain_signals(loaded, requests, layer):
    """One request after the other, with PyTorch's own hooks and gradients of everything."""
    model, tokenizer = loaded.model, loaded.tokenizer
    answers = [tokenizer(" " + r.target_new, add_special_tokens=False)["input_ids"] for r in requests]
    total = sum(map(len, answers))
    keys, slopes = [], []
    for request, answer in zip(requests, answers, strict=True):
        prompt = tokenizer(request.text)["input_ids"]
        seen = {}
        handle = loaded.down(layer).register_forward_hook(
            lambda _, x, y, seen=seen: seen.update(key=x[0], value=y)
        )
        ids = torch.tensor([prompt + answer])
        labels = torch.tensor(answer)
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        seen["value"].retain_grad()
        (cross_entropy(logits, labels, reduction="sum") / total).backward()
        handle.remove()
        places = slice(len(prompt) - 1, len(prompt) + len(answer) - 1)
        keys.append(seen["key"][0, places].detach())
        slopes.append(seen["value"].grad[0, places])
        model.zero_grad()
    return torch.cat(keys), torch.cat(slopes)


@pytest.mark.parametrize("budget", [64, 20, None])
def test_answer_signals_equal_plain_autograd(model, records, budget):
    """In any chunks, at any layer, on each architecture."""
    requests = [r.request for r in records[:5]]
    rows = Batch.build(model, requests, ()).edits
    signals = answer_keys_and_gradients(model, rows, LAYERS, budget)
    order = torch.argsort(signals.owners, stable=True)
    for layer in LAYERS:
        keys, slopes = plain_signals(model, requests, layer)
        torch.testing.assert_close(signals.keys[layer][order], keys, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(signals.gradients[layer][order], slopes, rtol=1e-3, atol=1e-7)
    assert signals.keys[1].shape[0] == sum(row.answer for row in rows)
    assert all(p.grad is None or not p.grad.any() for p in model.model.parameters())


def gradient_step(model, signals, lr):
    """Targets and solution of UltraEdit's step on a first batch."""
    made = UltraEdit(layers=LAYERS, lr=lr).gradient_map(model, State())
    factors = made(signals, made.pooled(signals.moments.values()))
    check_finite(factors)
    return solution_of(signals, factors)


@torch.no_grad()
def test_ultraedit_step_is_the_normal_equation(demo, records):
    rows = Batch.build(demo, [r.request for r in records[:4]], ()).edits
    signals = answer_keys_and_gradients(demo, rows, LAYERS)
    _, solution = gradient_step(demo, signals, 1e-3)
    width = demo.d_k
    both = torch.cat([torch.cat([signals.keys[n], signals.gradients[n]], 1) for n in LAYERS]).double()
    for layer in LAYERS:
        mine = torch.cat([signals.keys[layer], signals.gradients[layer]], 1).double()
        scaled = (mine - both.mean(0)) / (both.std(0) + torch.finfo(torch.float32).eps)
        value = -1e-3 * scaled[:, :width].square().sum(1, keepdim=True) * scaled[:, width:]
        key = signals.keys[layer].double()
        dense = torch.linalg.solve(key.T @ key + torch.eye(width).double(), key.T @ value)
        left, right = solution.factors[layer]
        torch.testing.assert_close((left @ right.T).double(), dense.T, rtol=1e-3, atol=1e-7)


def editor_of(model, **changes):
    method = method_of(model, "ultraedit", **{"layers": (2, 3, 4), "gradient_lr": 1e-3, **changes})
    return Editor(model.model, model.tokenizer, method)


def losses(model, requests):
    rows = [encode(model.tokenizer, r.text, r.target_new) for r in requests]
    return answer_keys_and_gradients(model, rows, (0,)).nll


def test_ultraedit_lowers_the_loss_without_statistics(model, records, monkeypatch):
    """An edit lowers the loss and needs no statistics."""
    monkeypatch.setattr(metake.statistics_cache, "statistics_for", None)  # whoever asks for them fails
    requests = [r.request for r in records[:8]]
    before = losses(model, requests)
    with editor_of(model) as editor:
        eta = editor.preview(requests).eta
        assert ((eta > 0) & (eta < 1)).all()
        result = editor.edit(requests)
        after = losses(model, requests)
        assert after.mean() < 0.7 * before.mean()
        assert result.steps.tolist() == [1] * 8
        torch.testing.assert_close(result.stages[0].targets.plan.nll, before)
    torch.testing.assert_close(losses(model, requests), before, rtol=0, atol=0)


def test_ultraedit_normalizes_by_all_earlier_batches(demo, records):
    """Later batches are normalized by all that was seen.

    Two batches end where one editor does that was restored between them, not where two new ones do.
    """
    first, second = ([r.request for r in part] for part in (records[:4], records[4:8]))
    with editor_of(demo) as editor:
        one, two = editor.edit(first), editor.edit(second)
        seen = {n: Moments.unpack(packed).count for n, packed in editor.state.folded.items()}
        assert editor.state.memory == ()
    count = sum(len(r.factors[2][0][0]) for r in (one.delta, two.delta))
    assert seen == dict.fromkeys((2, 3, 4), count)
    with editor_of(demo) as editor:
        editor.restore(first, one.delta, one.memory)
        again = editor.edit(second).delta
    with editor_of(demo) as forgetful:
        forgetful.restore(first, one.delta, {})
        other = forgetful.edit(second).delta
    for layer in two.delta.layers:
        torch.testing.assert_close(again.to_dense(layer), two.delta.to_dense(layer), rtol=0, atol=0)
        assert (other.to_dense(layer) - two.delta.to_dense(layer)).norm() > 0.01 * two.delta.to_dense(
            layer
        ).norm()


def test_ultraedit_refuses_a_single_token(demo):
    """One token alone is refused and changes nothing."""
    weight = demo.weight(2).clone()
    with pytest.raises(MetakeError, match="one token alone"):
        editor_of(demo, layers=(2,)).edit(EditRequest("The one who works at the {}", "river", "farmer"))
    assert torch.equal(demo.weight(2), weight)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        *(
            (
                {name: value},
                f"^settings: ultraedit has no {name}; it is a setting of method locate-then-edit(, method (fine-tune|rep))*; ",
            )
            for name, value in {
                "allocation": "spread",
                "rounds": 2,
                "group": 1,
                "memory": "past-keys",
                "merge": True,
                "fit": "equality_constrained",
                "planner": "closed-loop",
                "postprocess": "rect",
            }.items()
        ),
        ({"gradient_lr": 0}, "^settings: gradient_lr: "),
    ],
)
def test_ultraedit_has_one_step_and_no_choices(demo, changes, line):
    """One step of the whole batch has no other choice."""
    with pytest.raises(MetakeError, match=line):
        settings_for(demo, "ultraedit", **changes)


@torch.no_grad()
def test_answer_signals_have_nll_and_stream_of_requests(model, records):
    """NLL and stream of each request are those of a plain pass.

    NLL: the mean over a request's own answer tokens; the stream: after the last layer, where the prompt ends.
    """
    requests = [r.request for r in records[:4]]
    rows = Batch.build(model, requests, ()).edits
    assert len({row.answer for row in rows}) > 1
    signals = answer_keys_and_gradients(model, rows, LAYERS, 64)
    for i, row in enumerate(rows):
        seen = {}
        with model.blocks[3].register_forward_hook(
            lambda _, __, y, seen=seen: seen.update(y=y if isinstance(y, torch.Tensor) else y[0])
        ):
            scores = model.model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
        nll = [-scores[at, token] for at, token in zip(row.predicting, row.answer_ids, strict=True)]
        torch.testing.assert_close(signals.nll[i], torch.stack(nll).mean(), rtol=1e-4, atol=1e-5)
        end = len(row) - row.answer - 1
        torch.testing.assert_close(signals.hidden[i], seen["y"][0, end], rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_ultraedit_reports_means_over_tokens(demo, records):
    """What a step says of a request is the mean over its tokens.

    eta = k.k / (1 + k.k) of I, what was asked for at each layer, and what the last layer's update does at its keys.
    """
    rows = Batch.build(demo, [r.request for r in records[:4]], ()).edits
    signals = answer_keys_and_gradients(demo, rows, LAYERS)
    targets, solution = gradient_step(demo, signals, 1e-3)

    def mean(values):
        return torch.stack([values[signals.owners == i].mean(0) for i in range(4)])

    for n in LAYERS:
        key, (left, right) = signals.keys[n], solution.factors[n]
        square = key.square().sum(1)
        torch.testing.assert_close(solution.eta[n], mean(square / (1 + square)), rtol=1e-4, atol=0)
        torch.testing.assert_close(solution.keys[n], mean(key))
        torch.testing.assert_close(solution.missing[n], mean(left.T).norm(dim=1))
    torch.testing.assert_close(solution.planned, mean(left.T))
    torch.testing.assert_close(solution.shift, mean(key @ right @ left.T), rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(targets.residuals, solution.planned)
    torch.testing.assert_close(targets.hidden, signals.hidden)
    assert targets.plan.nll_history == [pytest.approx(float(signals.nll.mean()))]
    assert targets.scale.tolist() == [1.0] * 4
    assert targets.closed is None
    assert targets.plan.post_edit_nll.isnan().all()


def test_ultraedit_refuses_a_non_finite_update(demo, records):
    rows = Batch.build(demo, [r.request for r in records[:2]], ()).edits
    signals = answer_keys_and_gradients(demo, rows, LAYERS)
    with pytest.raises(MetakeError, match="the update of layer 1 is not finite; nothing was changed"):
        gradient_step(demo, signals.scaled(float("nan")), 1e-3)


def test_moments_have_the_variance_of_a_sample():
    """Moments of two equal rows have the variance of a sample.

    n - 1 in the denominator: rows 0 and 2 have variance 2, so they become -1/sqrt 2 and 1/sqrt 2.
    """
    rows = torch.tensor([[0.0], [2.0]])
    scaled = Moments.of(rows).normalize(rows)
    assert scaled[:, 0].tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5], rel=1e-6)
    assert scaled.dtype == torch.float64
