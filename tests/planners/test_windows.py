"""Answers of several windows: positions and spans, preserved keys, planners and gradients against references."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import metake as mk
from metake.errors import MetakeError
from metake.lookup_prompts import LookupPrompts
from metake.methods.combinators import in_windows, metake
from metake.methods.table import METHODS, method_named
from metake.models.tokens import Row
from metake.models.trace import frozen, run
from metake.planners.hypergradient import UnrolledLoss, VirtualEditLoss
from metake.planners.objective import Objective
from metake.planners.open_loop import OpenLoop
from metake.planners.target_optimization import Penalty
from metake.planners.windows import Matryoshka, WindowByWindow, every, matryoshka_weights, nested_spans
from metake.prompts import Batch
from metake.windows import AnswerWindows, BareWindows, WholeAnswer

LAYERS = (1, 2)
REQUESTS = (
    mk.EditRequest("Which guild does {} belong to?", "Nezan Girok", "Green Lantern and Red Oak"),
    mk.EditRequest("What is the craft of {}?", "Zumi Bama", "potter"),
)


@given(st.integers(1, 200), st.integers(1, 60), st.integers(1, 20))
def test_windows_cover_the_answer_exactly(answer: int, size: int, prompt: int):
    row = Row(tuple(range(prompt + answer)), prompt - 1, answer, AnswerWindows(size=size).starts(answer))
    covered = [i for span in row.spans for i in span]
    assert covered == list(range(answer))
    assert all(0 < len(span) <= size for span in row.spans)
    assert [row.predicting[span[0]] for span in row.spans] == list(
        row.lookups
    )  # the token before each window
    assert len(row.up_to_lookup) == row.lookups[-1] + 1


def test_whole_answer_is_one_window_at_the_lookup_token():
    row = Row(tuple(range(9)), 2, 4, WholeAnswer().starts(4))
    assert (row.lookups, row.spans) == ((2,), (range(4),))


def delta_of(model, method, requests=REQUESTS[:1]):
    with frozen(model.model):
        state = method.prepare(model, method.init(model), requests)
        return method.step(model, requests, state, lambda: None)[0]


def identity(row, **changes):
    made = METHODS[row].prototype.updated(geometry="identity", **changes)
    return made.changed({("layers",): LAYERS, ("contexts",): ()})


@pytest.mark.parametrize("row", ["memit", "metake"])
@pytest.mark.parametrize("planner", [None, "window-by-window"])
def test_one_window_is_the_existing_method_bit_for_bit(demo, row, planner):
    numbers = {"steps": 3, "kl": 0.0625, "clamp": 0.75, "decay": 0.5, "stop_loss": 0.05}
    if row == "metake":
        numbers |= {"meta_steps": 2}
    plain = identity(row, lookup="prompt").updated(**numbers)
    start = WindowByWindow() if planner else OpenLoop()
    over = in_windows(METHODS["memit"].prototype, start, BareWindows(size=1000))
    over = metake(over) if row == "metake" else over
    windows = over.updated(geometry="identity", **numbers).changed({("layers",): LAYERS})
    expected, found = delta_of(demo, plain, REQUESTS), delta_of(demo, windows, REQUESTS)
    for layer in LAYERS:
        for a, b in zip(expected.factors[layer], found.factors[layer], strict=True):
            assert torch.equal(a, b)


def parts(model, size=2, preserve=True, requests=REQUESTS):
    windows = AnswerWindows(size=size) if preserve else BareWindows(size=size)
    batch = Batch.build(model, requests, (), "prompt", windows)
    return batch, LookupPrompts.build(model, batch, LAYERS[0], preserve=preserve)


def keys_of(model, row, layer):
    """Keys of all tokens of a row, by one plain pass."""
    return run(model, torch.tensor([row.ids]), keys=(layer,), stop=layer).keys[layer][0]


def test_preserved_keys_of_all_other_tokens_are_in_the_geometry(demo):
    """The channel of the first layer against a dense solve with K_p K_p^T in G."""
    method = identity("memit-anyedit", window_size=2, steps=1, lr=0.5).updated(stop="none")
    delta = delta_of(demo, method, REQUESTS)
    batch, layer = parts(demo)[0], LAYERS[0]
    edited, others = [], []
    with torch.no_grad():
        for row in batch.edits:
            keys = keys_of(demo, row, layer).double()
            rest = [i for i in range(len(row)) if i not in row.lookups]
            assert len(rest) == len(row) - len(row.starts)
            edited.append(keys[list(row.lookups)])
            others.append(keys[rest])
    K, K_p = torch.cat(edited).T, torch.cat(others).T
    G = torch.eye(len(K)).double() + K_p @ K_p.T
    expected = torch.linalg.solve(G + K @ K.T, K)
    torch.testing.assert_close(delta.factors[layer][1].double(), expected, rtol=1e-4, atol=1e-6)
    without = torch.linalg.solve(torch.eye(len(K)).double() + K @ K.T, K)
    assert (expected - without).norm() > 0.01 * without.norm()


def test_preserved_keys_join_those_of_earlier_batches():
    from metake.geometry.identity import Identity

    first, second = torch.randn(2, 6, 3, dtype=torch.float64)
    both = Identity().with_past(first).protecting(second)
    x = torch.randn(6, 2, dtype=torch.float64)
    G = torch.eye(6).double() + first @ first.T + second @ second.T
    torch.testing.assert_close(both.solve(x), torch.linalg.solve(G, x))


@pytest.fixture
def double(demo):
    demo.model.double()
    with frozen(demo.model):
        yield demo
    demo.model.float()


def reference_nll(model, batch, residuals, layer):
    """NLL of each window with residuals written at its position: one hooked pass per row."""
    found, window = [], 0
    for row in batch.edits:
        stream = run(model, torch.tensor([row.ids]), outputs=(layer,), stop=layer).outputs[layer]
        shift = torch.zeros_like(stream)
        for j, column in enumerate(row.lookups):
            shift = shift.index_put((torch.tensor([0]), torch.tensor([column])), residuals[window + j][None])
        logits = run(model, torch.tensor([row.ids]), start=layer + 1, hidden=stream + shift).logits
        scores = logits[0].log_softmax(-1)
        for span in row.spans:
            at = [row.predicting[i] for i in span]
            token = torch.tensor([row.answer_ids[i] for i in span])
            found.append(-scores[at, token].mean())
        window += len(row.starts)
    return torch.stack(found)


def test_open_loop_gradients_of_windows_are_those_of_autograd(double):
    """For every window alone, as it is planned after earlier ones, and for all at once."""
    batch, top = parts(double)[0], LAYERS[-1]
    residuals = 0.1 * torch.randn(batch.size, double.d_v, dtype=torch.float64).requires_grad_(True)
    loss = VirtualEditLoss(Objective(double, batch, LAYERS[0], top), "token")
    for active in (batch.order == 1, batch.order >= 0):
        losses, gradient = loss(residuals, active, Penalty())
        nll = reference_nll(double, batch, residuals, top)
        expected = torch.autograd.grad(nll[active].sum(), residuals)[0]
        torch.testing.assert_close(losses.nll[active], nll[active].detach())
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("resumes", [True, False])
def test_objective_of_windows_has_the_losses_of_whole_rows(double, monkeypatch, resumes):
    """What stands before a window is constant and cut off; its own losses and gradients are the same."""
    monkeypatch.setattr(type(double), "can_resume", lambda *_: resumes)
    batch, top = parts(double)[0], LAYERS[-1]
    assert len(set(batch.counts)) == 2, "requests of different lengths"
    everyone = 0.1 * torch.randn(batch.size, double.d_v, dtype=torch.float64)
    whole = Objective(double, batch, LAYERS[0], top)
    for first in range(max(batch.counts)):
        held = everyone * (batch.order <= first)[:, None]  # later windows are not planned yet
        for end in (first + 1, max(batch.counts)):
            part = Objective(double, batch, LAYERS[0], top, windows=range(first, end), earlier=held)
            weights = torch.ones(batch.size, batch.size).double()
            weights *= (batch.owners[:, None] == batch.owners) & (batch.order >= first) & (batch.order < end)
            loss, reference = (VirtualEditLoss(x.weighted(weights), "token") for x in (part, whole))
            now, expected = (x(held, batch.order == first, Penalty()) for x in (loss, reference))
            active = batch.order == first
            torch.testing.assert_close(now[0].nll[active], expected[0].nll[active])
            torch.testing.assert_close(now[1][active], expected[1][active], rtol=1e-6, atol=1e-12)
            assert now[1][active].norm() > 1e-5


def test_pass_of_a_window_has_its_tokens_only(demo):
    """Rows of whole windows have one token per answer token: the lookup token stands for the first."""
    batch = parts(demo)[0]
    held = torch.zeros(batch.size, demo.d_v)
    with frozen(demo.model):
        for window in range(max(batch.counts)):
            part = Objective(demo, batch, *LAYERS, windows=range(window, window + 1), earlier=held)
            rows = [rows.tokens.ids.suffix.shape for rows in part._lookup_batches]
            tokens = sum(count * width for count, width in rows)
            lengths = batch.window_lengths[batch.order == window].tolist()
            kl_rows = 2 * (window == 0)
            assert tokens <= (len(lengths) + kl_rows) * max(lengths)


def test_hypergradient_over_windows_agrees_with_differences(double):
    """Through keys, residuals, channels and preserved keys of the whole layered solve."""
    batch, prompts = parts(double)
    method = identity("metake-windows")
    solver = method.solver(double, method.init(double))
    loss = UnrolledLoss(Objective(double, batch, LAYERS[0], LAYERS[-1]), solver, prompts)
    generator = torch.Generator().manual_seed(0)
    residuals, direction = torch.randn(2, batch.size, double.d_v, dtype=torch.float64, generator=generator)
    everyone = torch.ones(batch.size, dtype=torch.bool)

    def total(step):
        return loss(residuals + step * direction, everyone, Penalty(), backward=False)[0].nll.sum()

    gradient = loss(residuals, everyone, Penalty())[1]
    difference = (total(1e-5) - total(-1e-5)) / 2e-5
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-5, atol=1e-7)


def test_first_window_is_planned_as_if_the_answer_ended_with_it(double):
    """Later windows have no influence on earlier ones, and the plan of each begins with those before it in place."""
    method = identity("memit-anyedit", window_size=2, steps=4)
    whole, prompts = parts(double, preserve=False)
    ends = [row.lookup + 1 + row.spans[0].stop for row in whole.edits]
    edits = [
        Row(row.ids[:end], row.lookup, end - row.lookup - 1)
        for row, end in zip(whole.edits, ends, strict=True)
    ]
    kl_prompts = tuple(replace(spec, owner=i) for i, spec in enumerate(whole.kl_prompts))
    cut = replace(whole, edits=tuple(edits), kl_prompts=kl_prompts)
    solver = method.solver(double, method.init(double))
    found = method.plan(double, solver, whole, prompts).residuals
    alone = method.plan(double, solver, cut, LookupPrompts.build(double, cut, LAYERS[0])).residuals
    together = method.updated(planner="open-loop").plan(double, solver, whole, prompts).residuals
    torch.testing.assert_close(found[whole.order == 0], alone)
    assert (found[1] - together[1]).norm() > 1e-3 * found[1].norm()


def test_matryoshka_weights_are_means_over_nested_spans():
    """Against the definition, token by token; the second request ends one window earlier."""
    lengths, owners, order = (
        torch.tensor([3, 3, 1, 3, 2]),
        torch.tensor([0, 0, 0, 1, 1]),
        torch.tensor([0, 1, 2, 0, 1]),
    )
    affinity = torch.tensor([[1.0] * 5, [0.5] * 5, [-0.2] * 5], dtype=torch.float64)
    found = matryoshka_weights(nested_spans(lengths, owners, order, 0), affinity, lengths)
    for first, sizes in ((0, [3, 3, 1]), (3, [3, 2])):
        tokens = torch.zeros(sum(sizes), dtype=torch.float64)
        for m in range(len(sizes)):
            tokens[: sum(sizes[: m + 1])] += (2 - affinity[m, first]) / len(sizes)
        per_window = torch.stack([part.sum() for part in tokens.split(sizes)]) / sum(sizes)
        torch.testing.assert_close(found[first, first : first + len(sizes)], per_window, rtol=1e-14, atol=0)
    assert not found[order > 0].any()
    last = nested_spans(lengths, owners, order, 2)
    torch.testing.assert_close(
        matryoshka_weights(last, affinity[:1], lengths)[2, 2], torch.tensor(1.0).double()
    )


def test_span_weights_are_in_fp64():
    """They multiply the losses of a model in fp64, too."""
    lengths, owners, order = torch.tensor([3, 4]), torch.tensor([0, 0]), torch.tensor([0, 1])
    spans = nested_spans(lengths, owners, order, 0)
    torch.testing.assert_close(
        spans[1][0], torch.tensor([3 / 7, 4 / 7], dtype=torch.float64), rtol=1e-15, atol=0
    )


def test_affinity_of_a_window_to_a_span_is_the_cosine_of_their_gradients(double):
    """The first of the averaged steps, at zero residuals."""
    batch, prompts = parts(double)
    method = identity("muke", window_size=2)
    solver = method.solver(double, method.init(double))
    from metake.planners.problem import PlanningProblem

    problem = PlanningProblem(double, solver, batch, prompts)
    spans = nested_spans(batch.window_lengths, batch.owners, batch.order, 0)
    found = Matryoshka(affinity_steps=1).affinities(problem, 0, spans)
    residuals = torch.zeros(batch.size, double.d_v, dtype=torch.float64, requires_grad=True)
    nll = reference_nll(double, batch, residuals, LAYERS[-1])
    own = torch.autograd.grad(nll[0], residuals, retain_graph=True)[0][0]
    for m in range(len(spans)):
        lengths = batch.window_lengths[: m + 1].double()
        mean = (nll[: m + 1] * lengths).sum() / lengths.sum()
        other = torch.autograd.grad(mean, residuals, retain_graph=True)[0][0]
        cosine = torch.cosine_similarity(own, other, dim=0)
        torch.testing.assert_close(found[m, 0], cosine, rtol=1e-10, atol=1e-10)


def test_callback_is_called_once_per_step_of_all_windows():
    calls = []
    step = every(3, lambda: calls.append(1))
    for _ in range(7):
        step()
    assert len(calls) == 2


@pytest.mark.parametrize("row", ["memit-anyedit", "metake-windows"])
def test_demo_gives_an_answer_of_three_windows(demo, row):
    """Read back by generation; revert restores the weights bit for bit."""
    request = mk.EditRequest("Which guild does {} belong to?", "Nezan Girok", "Green Lantern baker")
    changes = {"geometry": "identity", "window_size": 1, "steps": 25, "meta_steps": 15, "clamp": None}
    method = METHODS[row].prototype.changed({("layers",): LAYERS})
    method = method.updated(**method.supported_changes(changes))
    before = {name: value.clone() for name, value in demo.model.state_dict().items()}
    with mk.Editor(demo, method=method, progress=False) as editor:
        result = editor.edit([request])
        assert len(result.stages[0].targets.residuals) == 3, "windows"
        assert editor.ask(request.text).startswith(request.target_new)
        assert result.success == (True,)
        assert len(result.summary()["realized_share"]) == 1
        assert not all(torch.equal(before[name], value) for name, value in demo.model.state_dict().items())
    for name, value in demo.model.state_dict().items():
        assert torch.equal(before[name], value)


def test_merge_of_windows_is_refused():
    with pytest.raises(MetakeError, match="merge requires windows=whole-answer"):
        method_named("memit-anyedit", LAYERS).updated(merge=True)


def test_preview_has_one_attenuation_per_request_with_preserved_keys(demo):
    rho = []
    for windows in ("windows", "bare-windows"):
        method = identity("memit-anyedit").updated(windows=windows, window_size=2)
        with mk.Editor(demo, method=method, progress=False) as editor:
            rho.append(editor.preview(REQUESTS).rho)
    assert rho[0].shape == rho[1].shape == (2, 2)
    assert (rho[0] < rho[1]).all(), "preserved keys only attenuate (T1f)"
