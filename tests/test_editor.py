"""The face of the library, on every family."""

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch

import metake
import metake.editor as module
from metake.deltas import Delta
from metake.editor import Editor
from metake.errors import MetakeError
from metake.geometry.covariance import collect
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.table import METHODS
from metake.methods.ultraedit import UltraEdit
from metake.models.editable import EditableModel
from metake.models.modules import FAMILIES
from metake.models.tokens import encode
from metake.models.trace import run
from metake.prompts import sample_contexts
from metake.requests import EditRequest
from metake.shipped import DEMOS
from metake.solvers.layered import Solution
from tests.cases import QUICK, editor_of, method_of, tiny


def geometry_at(editor, layer):
    """The geometry of a layer in an editor's next step."""
    if isinstance(editor.method, UltraEdit):
        return editor.method.gradient_map(editor.model, editor.state).geometry(layer)
    return editor.method.geometry_at(editor.model, editor.state, layer)


def same(found, wanted):
    """Whether two lists hold equal tensors."""
    return len(found) == len(wanted) and all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.fixture(scope="module")
def tokenizer(demo):
    return demo.tokenizer


# subjects that end the prompt: even in so small a model the edited token decides the answer
FACTS = [
    (f"The one who works at the {place}", place, who)
    for place, who in (("market", "baker"), ("river", "sailor"), ("garden", "doctor"), ("mill", "miner"))
]


@pytest.fixture(scope="module")
def trained(tokenizer):
    """A tiny model of each family, trained on four facts until it knows them."""
    kept = {}

    def of(family):
        if family not in kept:
            model = tiny(family)
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.ndim > 1:
                        parameter.div_(4)
            rows = [tokenizer(f"{q} {a}\n").input_ids for q, _, a in FACTS]
            width = max(map(len, rows))
            ids = torch.tensor([r + [0] * (width - len(r)) for r in rows])
            labels = ids.masked_fill(torch.tensor([[i >= len(r) for i in range(width)] for r in rows]), -100)
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
            model.train()
            for _ in range(250):
                loss = model(ids, labels=labels).loss
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if loss < 0.15:  # the questions are alike: 0.13 is left of their own tokens
                    break
            model.eval()
            kept[family] = model
        return kept[family]

    return of


def says(model, tokenizer, text):
    with torch.no_grad():
        return tokenizer.decode(
            model(torch.tensor([tokenizer(text).input_ids])).logits[0, -1].argmax()
        ).strip()


def loss_of(model, tokenizer, text, answer):
    """NLL of the answer's first token."""
    with torch.no_grad():
        scores = model(torch.tensor([tokenizer(text).input_ids])).logits[0, -1].log_softmax(-1)
    return -float(scores[tokenizer(" " + answer).input_ids[0]])


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_editor_edits_every_family(family, trained, tokenizer):
    """Written weights make the new answer far likelier, and reverted ones do not remember it."""
    network = trained(family)
    for question, _, answer in FACTS:
        assert answer.startswith(says(network, tokenizer, question))
    model = EditableModel(network)
    text = "\n".join(f"{q} {a}" for q, _, a in FACTS) * 8
    statistics = collect(model, tokenizer, text, (1, 2), progress=False)
    changes = {"layers": (1, 2), "steps": 25, "meta_steps": 20, "lam": 0.01, "contexts": ()}
    method = method_of(model, "metake", **{**QUICK, **changes})
    before = loss_of(network, tokenizer, FACTS[1][0], "doctor")
    with Editor(network, tokenizer, method, statistics=statistics) as editor:
        editor.edit(EditRequest("The one who works at the {}", "river", "doctor"))
        assert loss_of(network, tokenizer, FACTS[1][0], "doctor") < 0.5 * before
        assert "doctor".startswith(says(network, tokenizer, FACTS[1][0]))
    assert loss_of(network, tokenizer, FACTS[1][0], "doctor") == before


def test_editor_edits_each_demo_model(model, statistics_of, records):
    """Each demo model learns a new answer."""
    request = records[0].request
    changes = {
        "layers": (0, 1),
        "lam": 1.0,
        "lr": 1.0,
        "meta_lr": 1.0,
        "steps": 30,
        "meta_steps": 20,
        "contexts": (),
    }
    with editor_of(model, statistics_of(model), **changes) as editor:
        assert not request.target_new.startswith(says(model.model, model.tokenizer, request.text))
        editor.edit(request)
        assert request.target_new.startswith(says(model.model, model.tokenizer, request.text))


# fine-tuning and learned maps: test_fine_tune.py, maps/test_fit.py
OTHERS = {
    *("ft-l", "ft-m", "locft-bf", "crispedit", "grace", "wise", "memoir", "rep"),
    *(name for name, row in METHODS.items() if row.prototype.needs_fit),
}


@pytest.mark.parametrize(
    ("model", "method"),
    [
        # every method on one model, and every model with a third of them; all pairs with --deep
        pytest.param(model, method, marks=() if i % 3 == j else pytest.mark.deep)
        for i, method in enumerate(sorted(set(METHODS) - OTHERS))
        for j, model in enumerate(DEMOS)
    ],
    indirect=["model"],
)
def test_editor_reverts_every_method_bit_exactly(model, statistics_of, records, method):
    """Every method lowers the loss and reverts bit exactly."""
    before = {k: v.clone() for k, v in model.model.state_dict().items()}
    with editor_of(
        model, statistics_of(model), method, lam=30.0, l2=0.01, steps=12, gradient_lr=1e-3
    ) as editor:
        result = editor.edit([r.request for r in records[:3]])
        changed = [k for k, v in model.model.state_dict().items() if not torch.equal(v, before[k])]
        assert len(changed) == len(result.delta.layers) == len(result.eta)
        plan = result.stages[0].targets.plan
        assert method == "ultraedit" or plan.nll_history[-1] < plan.nll_history[0]
        assert (result.realized_share > 0.05).all()
        assert records[0].request.subject in str(result)
    assert editor.batches == []
    assert all(torch.equal(v, before[k]) for k, v in model.model.state_dict().items())


STAGES = {"memit-iterated": [(1, 2, 3)] * 3, "alphaedit-blue": [(1,), (3,)]}


@pytest.mark.parametrize("method", sorted(STAGES))
def test_editor_runs_stages_as_edits_in_a_row(demo, statistics_of, records, method):
    """Several rounds, or a target at either boundary, equal the plain method run again on its own result."""
    requests, base = [r.request for r in records[:2]], method.split("-")[0]
    with editor_of(demo, statistics_of(demo), method, l2=0.01) as editor:
        result = editor.edit(requests)
        assert [tuple(stage.solution.eta) for stage in result.stages] == STAGES[method]
        assert (result.steps >= len(result.stages)).all()
    steps = QUICK["steps"] // editor.method.rounds
    again = [
        editor_of(
            demo, statistics_of(demo), base, l2=0.01, layers=layers, contexts=editor.contexts, steps=steps
        )
        for layers in STAGES[method]  # before any edit: statistics of an edited model are refused
    ]
    with ExitStack() as stack:
        total = None
        for plain in again:
            delta = stack.enter_context(plain).edit(requests).delta
            total = delta if total is None else total.then(delta)
    for layer in total.factors:
        torch.testing.assert_close(result.delta.to_dense(layer), total.to_dense(layer), rtol=1e-3, atol=1e-5)


def test_editor_clamps_rome_relative_to_the_value(demo, statistics_of, records):
    requests = [r.request for r in records[:2]]
    lengths = {}
    for relative in ("stream", "value"):
        with editor_of(
            demo, statistics_of(demo), "rome", layers=(2,), clamp=0.1, relative=relative
        ) as editor:
            stage = editor.edit(requests[0]).stages[0]
            lengths[relative] = float(stage.targets.residuals.norm())
    begin = requests[0].text.index(requests[0].subject)
    row = encode(demo.tokenizer, requests[0].text, subject=(begin, begin + len(requests[0].subject)))
    value = run(demo, torch.tensor([row.ids]), values=(2,)).values[2][0, row.lookup]
    stream = run(demo, torch.tensor([row.ids]), outputs=(2,), stop=2).outputs[2][0, row.lookup]
    assert lengths["value"] == pytest.approx(0.1 * value.norm().item(), rel=1e-4)
    assert lengths["stream"] == pytest.approx(0.1 * stream.norm().item(), rel=1e-4)


def test_editor_edits_an_fp64_model_in_fp64(statistics_of, demo, records):
    model = tiny("gpt2").double()
    statistics = collect(
        EditableModel(model), demo.tokenizer, "The mill is dark. " * 200, (1, 2), progress=False
    )
    method = method_of(EditableModel(model), "alphaedit", **{**QUICK, "layers": (1, 2), "l2": 0.01})
    with Editor(model, demo.tokenizer, method, statistics=statistics) as editor:
        result = editor.edit([r.request for r in records[:2]])
        assert result.stages[0].targets.residuals.dtype == torch.float64
        assert all(keys.dtype == torch.float64 for keys in result.memory.values())


def test_editor_applies_rome_request_by_request(demo, statistics_of, records):
    """ROME edits one request after the other."""
    requests = [r.request for r in records[:3]]
    with editor_of(demo, statistics_of(demo), "rome", layers=(2,)) as editor:
        result = editor.edit(requests)
        assert [stage.members for stage in result.stages] == [slice(i, i + 1) for i in range(3)]
        torch.testing.assert_close(
            result.stages[-1].solution.realized_share, torch.ones(1), rtol=0.05, atol=0
        )
        assert len(result.summary()["realized_share"]) == len(result.steps) == 3
    with editor_of(demo, statistics_of(demo), "rome", layers=(2,), contexts=editor.contexts) as again:
        alone = [again.edit(request).delta.to_dense(2) for request in requests]
    torch.testing.assert_close(result.delta.to_dense(2), sum(alone), rtol=1e-3, atol=1e-5)


def test_editor_writes_a_part_of_memit_with_rect(demo, statistics_of, records):
    requests = [r.request for r in records[:3]]
    with editor_of(demo, statistics_of(demo), "memit") as editor:
        whole = editor.edit(requests).delta
    with editor_of(demo, statistics_of(demo), "rect", contexts=editor.contexts) as editor:
        part = editor.edit(requests).delta
    for layer in whole.layers:
        change, kept = whole.to_dense(layer).float(), part.to_dense(layer).float()
        assert float((kept != 0).float().mean()) == pytest.approx(0.4, abs=1e-3)
        torch.testing.assert_close(kept, torch.where(kept != 0, change, 0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["prune", "prune-added"])
def test_finalize_bounds_the_whole_prune_change_once(demo, statistics_of, records, method):
    weights = {n: demo.weight(n).clone() for n in QUICK["layers"]}
    limits = {n: float(torch.linalg.matrix_norm(w.double(), 2)) for n, w in weights.items()}
    with torch.no_grad(), editor_of(demo, statistics_of(demo), method, lam=1e-6, lr=20.0) as editor:
        for i in range(2):
            editor.edit([r.request for r in records[2 * i : 2 * i + 2]])
        raw, edited = editor.delta, {n: demo.weight(n).clone() for n in weights}
        editor.finalize()
        for layer, before in weights.items():
            s = torch.linalg.svdvals(raw.to_dense(layer))
            bounded = torch.where(s > limits[layer], torch.log(s / limits[layer]) + limits[layer], s)
            base = before if method == "prune" else edited[layer]
            change = (demo.weight(layer) - base).double()
            assert float(change.norm()) == pytest.approx(float(bounded.norm()), rel=1e-4)
            total = demo.weight(layer).double() - before.double()
            torch.testing.assert_close(editor.delta.to_dense(layer), total, rtol=1e-3, atol=1e-4)
        assert any(float(torch.linalg.matrix_norm(raw.to_dense(n), 2)) > limits[n] for n in weights)
        editor.finalize()  # once
        editor.undo()  # undoes the bound first
        torch.testing.assert_close(editor.delta.factors, editor.batches[0].delta.factors)
    assert all(torch.equal(demo.weight(n), w) for n, w in weights.items())


def test_finalize_keeps_edits_when_the_bound_fails(demo, statistics_of, records, monkeypatch):
    """A bound that fails leaves the edits as they were."""
    with editor_of(demo, statistics_of(demo), "prune", lam=30.0) as editor:
        editor.edit(records[0].request)
        edited = {n: demo.weight(n).clone() for n in QUICK["layers"]}
        broken = lambda left, right, weight: (left * float("nan"), right)  # noqa: E731
        monkeypatch.setattr("metake.solvers.postprocess.bounded_spectrum", broken)
        with pytest.raises(MetakeError, match="not finite"):
            editor.finalize()
        assert all(torch.equal(demo.weight(n), w) for n, w in edited.items())


def test_editor_keeps_the_model_when_a_second_stage_fails(demo, statistics_of, records, monkeypatch):
    """A failing second stage leaves the model untouched."""
    before = {k: v.clone() for k, v in demo.model.state_dict().items()}
    calls, plan = [], LocateThenEdit.plan

    def fail_later(*args, **kwargs):
        calls.append(args)
        return plan(*args, **kwargs) if len(calls) == 1 else 1 / 0

    monkeypatch.setattr(LocateThenEdit, "plan", fail_later)
    editor = editor_of(demo, statistics_of(demo), "alphaedit-blue")
    with pytest.raises(ZeroDivisionError):
        editor.edit(records[0].request)
    assert len(calls) == 2
    assert all(torch.equal(v, before[k]) for k, v in demo.model.state_dict().items())


def test_editor_reverts_in_order_and_composes(demo, statistics_of, records):
    editor = editor_of(demo, statistics_of(demo), "metake-alphaedit", l2=0.01)
    ids = torch.tensor([demo.tokenizer(records[0].request.text).input_ids])
    with torch.no_grad():
        plain = demo.model(ids).logits
        first = editor.edit(records[0].request)
        editor.edit(records[1].request)
        edited = demo.model(ids).logits
        with pytest.raises(MetakeError, match="later batch"):
            editor.revert(first)
        total = editor.delta
        editor.undo()
        editor.revert(first)
        assert torch.equal(demo.model(ids).logits, plain)
        with total.applied(demo.model):
            torch.testing.assert_close(demo.model(ids).logits, edited, rtol=1e-4, atol=1e-4)


def test_editor_with_history_attenuates_edited_keys(demo, statistics_of, records):
    """T1f: an edited key is protected afterwards; memory goes with the edit."""
    with editor_of(demo, statistics_of(demo), "metake-alphaedit", l2=0.01) as editor:
        fresh = editor.preview([records[0].request]).eta
        editor.edit(records[0].request)
        assert (editor.preview([records[0].request]).eta < fresh).all()
        editor.undo()
        torch.testing.assert_close(editor.preview([records[0].request]).eta, fresh)


@pytest.mark.parametrize("lookup", ["subject", "prompt"])
def test_preview_predicts_the_share_of_a_last_layer(demo, statistics_of, records, lookup):
    """Preview predicts what a lone last layer keeps."""
    changes = {"allocation": "last", "contexts": (), "layers": (3,), "lookup": lookup}
    with editor_of(demo, statistics_of(demo), "memit", **changes) as editor:
        preview = editor.preview([records[0].request])
        assert "predicted: share of the planned shift" in str(preview)
        result = editor.edit(records[0].request)
        torch.testing.assert_close(preview.eta[-1].float(), result.realized_share, rtol=1e-2, atol=1e-3)


def test_compensated_stops_at_the_weakest_layer_or_bound(demo, statistics_of, records, monkeypatch):
    """Compensation stops at what the weakest layer needs and at the bound."""
    requests, statistics = [record.request for record in records[:8]], statistics_of(demo)

    def edit(method, max_scale=8.0):
        with editor_of(demo, statistics, method, lam=3e3, max_scale=max_scale) as editor:
            result = editor.edit(requests)
            return (
                result.delta.factors,
                result.stages[0].targets.scale,
                torch.stack(list(result.eta.values())),
            )

    plan, _, eta = edit("memit")
    same, scale, _ = edit("memit-compensated", max_scale=1.0)
    torch.testing.assert_close(scale, torch.ones(8))
    for layer, factors in plan.items():
        torch.testing.assert_close(same[layer], factors)
    # as at an attention sink: nothing of the bare prompt's residual is executed, at any length
    monkeypatch.setattr(Solution, "realized_share", property(lambda self: torch.zeros(len(self.planned))))
    needed = 1 / eta.amin(0)
    assert needed.min() < 8 < needed.max()
    _, scale, _ = edit("memit-compensated")
    torch.testing.assert_close(scale, needed.clamp_max(8), rtol=1e-2, atol=0)


@pytest.mark.parametrize("method", ["memit", "ultraedit"])
def test_preview_compares_keys_with_and_without_contexts(demo, statistics_of, records, method):
    """Preview compares a key with itself after other text.

    The cosine of the two keys, seen in the model; a method without contexts has one key.
    """
    request, context = records[0].request, "The mill is dark"
    with editor_of(demo, statistics_of(demo), method, layers=(3,), contexts=(context,)) as editor:
        found = editor.preview([request]).cosine
    bare, after = (
        run(demo, torch.tensor([encode(demo.tokenizer, text + request.subject).ids]), stop=3, keys=(3,))
        for text in (request.prompt.split("{}")[0], f"{context}. {request.prompt.split('{}')[0]}")
    )
    cosine = torch.cosine_similarity(bare.keys[3][0, -1], after.keys[3][0, -1], dim=0)
    expected = torch.ones(()) if method == "ultraedit" else cosine
    torch.testing.assert_close(found[0, 0], expected.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["memit", "metake", "metake-proxy"])
def test_editor_moves_the_stream_at_the_prompts_last_token(model, statistics_of, records, method):
    """An edit at the prompt's last token moves the stream there.

    By what its result says, seen in the model: at that token, after the last edited layer.
    """
    request = records[0].request
    ids = torch.tensor([model.tokenizer(request.text).input_ids])

    def stream():
        with torch.no_grad():
            return run(model, ids, stop=3, outputs=(3,)).outputs[3][0, -1]

    before = stream()
    with editor_of(model, statistics_of(model), method, lookup="prompt", lam=30.0) as editor:
        result = editor.edit(request)
        planned = result.stages[0].targets.residuals[0]
        moved = stream() - before
    kept = float(moved @ planned / planned.norm() ** 2)
    assert kept == pytest.approx(float(result.realized_share[0]), rel=1e-3)
    assert kept > 0.3


def test_editor_keeps_the_model_when_an_edit_fails(demo, statistics_of, records, monkeypatch):
    """A failing edit leaves the model untouched."""
    editor = editor_of(demo, statistics_of(demo), "metake-alphaedit")
    before = {k: v.clone() for k, v in demo.model.state_dict().items()}
    monkeypatch.setattr(module, "compare_requests", lambda *_: 1 / 0)  # fails after the weights were written
    with pytest.raises(ZeroDivisionError):
        editor.edit(records[0].request)
    assert all(torch.equal(v, before[k]) for k, v in demo.model.state_dict().items())
    assert editor.batches == []
    assert all(p.requires_grad for p in demo.model.parameters())


def test_editor_is_deterministic_given_the_seed(demo, statistics_of, records):
    """The same seed gives the same edit."""
    factors = []
    for _ in range(2):
        with editor_of(demo, statistics_of(demo), contexts=None) as editor:
            factors.append(editor.edit(records[0].request).delta.factors[2][0])
    assert torch.equal(*factors)


def test_editor_edits_bf16_weights(statistics_of, demo, records):
    """bf16 weights, fp64 solves: the same edit up to bf16's rounding."""
    from metake.models.load import load

    low = load("demo", dtype="bfloat16", device="cpu")
    statistics = collect(
        low, low.tokenizer, "\n".join(r.request.text for r in records) * 30, (1, 2, 3), progress=False
    )
    with editor_of(low, statistics, lam=10.0, steps=15) as editor:
        before = low.weight(2).clone()
        result = editor.edit(records[0].request)
        assert low.weight(2).dtype == torch.bfloat16
        assert not torch.equal(before, low.weight(2))
        assert (result.realized_share > 0.3).all()
    assert torch.equal(before, low.weight(2))


def test_editor_solves_agree_in_fp32_and_fp64(demo, statistics_of, records):
    deltas = []
    for dtype in ("float64", "float32"):
        with editor_of(demo, statistics_of(demo), "memit", dtype=dtype, steps=4) as editor:
            deltas.append(editor.edit(records[0].request).delta.to_dense(1))
    assert (deltas[0] - deltas[1]).norm() <= 2e-2 * deltas[0].norm()


def test_editor_does_not_depend_on_padding_side(demo, statistics_of, records):
    """Padding side of the tokenizer does not matter."""
    deltas = []
    requests = [records[0].request, records[5].request]
    for side in ("left", "right"):
        demo.tokenizer.padding_side = side
        with editor_of(demo, statistics_of(demo), "memit", steps=4) as editor:
            deltas.append(editor.edit(requests).delta.to_dense(1))
    assert torch.equal(*deltas)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_editor_gives_the_same_edit_on_the_gpu(demo, statistics_of, records):
    from metake.models.load import load

    other = load("demo", device="cuda")
    deltas = []
    for model in (demo, other):
        with editor_of(model, statistics_of(demo), "memit", steps=4) as editor:
            deltas.append(editor.edit(records[0].request).delta.to_dense(1))
    assert (deltas[0] - deltas[1]).norm() <= 1e-2 * deltas[0].norm()


def test_result_plot_is_written(demo, statistics_of, records, tmp_path):
    with editor_of(demo, statistics_of(demo), "memit") as editor:
        path = editor.edit(records[0].request).plot(tmp_path / "deep" / "figure.png")
    assert path.stat().st_size > 5000


def test_editor_remembers_keys_of_the_edited_model(demo, statistics_of, records):
    """AlphaEdit's history: half the bare prompt's key and half its context's, with the batch in the weights."""
    requests = [r.request for r in records[:2]]
    context = QUICK["contexts"][0]

    def keys(request, layer):
        begin = request.prompt.split("{}")[0]
        rows = [encode(demo.tokenizer, lead + begin + request.subject).ids for lead in ("", f"{context}. ")]
        bare, after = (run(demo, torch.tensor([ids]), keys=(layer,)).keys[layer][0, -1] for ids in rows)
        return (bare + after) / 2

    with torch.no_grad(), editor_of(demo, statistics_of(demo), "alphaedit", l2=0.01) as editor:
        before = {n: torch.stack([keys(r, n) for r in requests], 1) for n in QUICK["layers"]}
        memory = editor.edit(requests).memory
        for n in QUICK["layers"]:
            after = torch.stack([keys(r, n) for r in requests], 1)
            torch.testing.assert_close(memory[n].to(after), after, rtol=1e-3, atol=1e-4)
            assert n == 1 or (after - before[n]).norm() > 1e-2 * after.norm()


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "memit", "lam": 30.0, "jitter": 1e-2},
        {"method": "alphaedit", "l2": 3.0, "keep": 0.5, "lam": 7.0},
        {"method": "alphaedit", "l2": 3.0, "threshold": 0.02, "keep": 0.5},
        {"method": "ultraedit"},
    ],
    ids=str,
)
def test_editor_builds_geometry_from_its_settings(demo, statistics_of, records, changes):
    """A layer's geometry is made of its own settings.

    lambda C + beta I with beta a share of tr(lambda C); beta I where C is small, by threshold or by share; I.
    """
    statistics = statistics_of(demo)
    with editor_of(demo, statistics, **changes) as editor:
        geometry = geometry_at(editor, 2)
    C, keys = (
        statistics[2].double(),
        torch.randn(demo.d_k, 3, generator=torch.Generator().manual_seed(0)).double(),
    )
    values, vectors = torch.linalg.eigh(C)
    if changes["method"] == "memit":
        wanted = torch.linalg.solve(30.0 * C + 1e-2 * 30.0 * C.trace() * torch.eye(len(C)).double(), keys)
    elif changes["method"] == "alphaedit":
        count = int((values < 0.02).sum()) if "threshold" in changes else round(0.5 * len(values))
        assert 0 < count < len(values)
        null = vectors[:, :count]
        wanted = null @ null.T @ keys / 3.0
    else:
        wanted = keys
    torch.testing.assert_close(geometry.solve(keys), wanted, rtol=1e-6, atol=1e-8 * float(wanted.abs().max()))


@pytest.mark.parametrize("method", ["memit", "alphaedit"])
def test_preview_uses_the_mean_key_at_every_layer(demo, statistics_of, records, method):
    """rho = k^T G^-1 k and eta = rho / (1 + rho), at half the bare key and half its context's."""
    request, context = records[0].request, "The mill is dark"
    before = request.prompt.split("{}")[0]
    rows = [encode(demo.tokenizer, lead + before + request.subject).ids for lead in ("", f"{context}. ")]
    with editor_of(demo, statistics_of(demo), method, l2=0.01, contexts=(context,)) as editor:
        preview = editor.preview([request])
        assert preview.layers == QUICK["layers"]
        for i, layer in enumerate(preview.layers):
            with torch.no_grad():
                bare, after = (
                    run(demo, torch.tensor([ids]), keys=(layer,)).keys[layer][0, -1] for ids in rows
                )
            key = ((bare + after) / 2).double()[:, None]
            rho = float((key * geometry_at(editor, layer).solve(key)).sum())
            assert float(preview.rho[i, 0]) == pytest.approx(rho, rel=1e-3)
            assert float(preview.eta[i, 0]) == pytest.approx(rho / (1 + rho), rel=1e-3)


def test_editor_remembers_keys_only_with_history(demo, statistics_of, records):
    """Only a method with history remembers and batches stand in their order."""
    first, second = records[0].request, records[1].request
    with editor_of(demo, statistics_of(demo), "memit") as editor:
        assert editor.edit(first).memory == {}
        assert all(editor.state.of_layer(n) == [] for n in QUICK["layers"])
    with editor_of(demo, statistics_of(demo), "alphaedit", l2=0.01) as editor:
        one, two = editor.edit(first), editor.edit(second)
        for layer in QUICK["layers"]:
            assert same(editor.state.of_layer(layer), [one.memory[layer], two.memory[layer]])
            assert one.memory[layer].dtype == torch.float64
        editor.revert(two)
        assert all(same(editor.state.of_layer(n), [one.memory[n]]) for n in QUICK["layers"])


def test_rect_compares_with_the_weights_before_the_batch(demo, statistics_of, records):
    """RECT weighs a change against the weights it is added to.

    The second batch's against those that hold the first; the share that is kept is the method's.
    """
    requests = [r.request for r in records[:2]]
    with (
        torch.no_grad(),
        editor_of(demo, statistics_of(demo), "rect", lam=1e-3, lr=3.0, rect_keep_ratio=0.25) as editor,
    ):
        editor.edit(requests[0])
        weights = {n: demo.weight(n).clone() for n in QUICK["layers"]}
        result = editor.edit(requests[1])
        for layer, weight in weights.items():
            left, right = result.stages[0].solution.factors[layer]
            change = (left @ right.T).to(weight)
            relative = (change / (weight + 1e-8)).abs()
            kept = result.delta.to_dense(layer) != 0
            assert float(kept.float().mean()) == pytest.approx(0.25, abs=1e-3)
            assert relative[kept].min() >= relative[~kept].max() * (1 - 1e-4)
            torch.testing.assert_close(
                demo.weight(layer)[kept], (weight + change)[kept], rtol=1e-4, atol=1e-5
            )
            assert torch.equal(demo.weight(layer)[~kept], weight[~kept])


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("fails", ["plan", "solve", "write", "learn"])
def test_editor_restores_everything_wherever_an_edit_fails(
    demo, statistics_of, records, monkeypatch, fails, error
):
    """Wherever an edit fails nothing of it is left.

    Weights, memory, mode, gradients, hooks and the stream of random numbers are as they were, after Ctrl-C too.
    """

    dense = Delta.to_dense

    def stop(*given, **_):
        if fails == "write" and given[1] == QUICK["layers"][0]:
            return dense(*given)  # the first layer is written
        raise error

    editor = editor_of(demo, statistics_of(demo), "alphaedit", l2=0.01)
    with editor:
        editor.edit(records[0].request)
        memory = {n: [keys.clone() for keys in editor.state.of_layer(n)] for n in QUICK["layers"]}
        assert all(len(keys) == 1 for keys in memory.values())
        demo.model.train()
        still = next(demo.model.parameters()).requires_grad_(False)
        before = {k: v.clone() for k, v in demo.model.state_dict().items()}
        wanted = [p.requires_grad for p in demo.model.parameters()]
        state = torch.random.get_rng_state()
        target = {
            "plan": "metake.methods.locate_then_edit.LocateThenEdit.plan",
            "solve": "metake.solvers.layered.LayeredSolver.solve",
            "write": "metake.deltas.Delta.to_dense",
            "learn": "metake.methods.locate_then_edit.LocateThenEdit._learn",
        }[fails]
        try:
            with monkeypatch.context() as patch:
                patch.setattr(target, stop)
                with pytest.raises(error):
                    editor.edit(records[1].request)
            assert demo.model.training
            assert [p.requires_grad for p in demo.model.parameters()] == wanted
            assert all(torch.equal(v, before[k]) for k, v in demo.model.state_dict().items())
            assert all(same(editor.state.of_layer(n), keys) for n, keys in memory.items())
            assert torch.equal(torch.random.get_rng_state(), state)
            assert not any(m._forward_hooks or m._forward_pre_hooks for m in demo.model.modules())
            assert len(editor.batches) == 1
        finally:
            demo.model.eval()
            still.requires_grad_(True)


def test_editor_keeps_mode_gradients_and_random_state(demo, statistics_of, records):
    """An edit leaves mode gradients and random numbers as they were."""
    with editor_of(demo, statistics_of(demo)) as editor:
        demo.model.train()
        try:
            state = torch.random.get_rng_state()
            editor.edit(records[0].request)
            assert demo.model.training
            assert torch.equal(torch.random.get_rng_state(), state)
        finally:
            demo.model.eval()
        assert all(p.requires_grad and p.grad is None for p in demo.model.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in demo.model.modules())


def test_editor_samples_contexts_once_before_edits(demo, statistics_of, records):
    """With the method's seed; a later batch is planned after the same texts, though the model speaks otherwise now."""
    with editor_of(demo, statistics_of(demo), "memit", contexts=None, seed=2, lam=1e-3, lr=3.0) as editor:
        wanted = sample_contexts(demo, seed=2)
        editor.edit([r.request for r in records[:2]])
        assert editor.contexts == wanted
        assert sample_contexts(demo, seed=2) != wanted
        editor.edit(records[2].request)
        assert editor.contexts == wanted


def test_editor_plans_groups_on_the_model_so_far(demo, statistics_of, records):
    """Groups are planned on the model that the ones before them edited.

    Two at a time over three requests: as two editors' batches in a row, without history.
    """
    requests = [r.request for r in records[:3]]
    with editor_of(demo, statistics_of(demo), "memit", group=2) as editor:
        result = editor.edit(requests)
    assert [stage.members for stage in result.stages] == [slice(0, 2), slice(2, 4)]
    with editor_of(demo, statistics_of(demo), "memit") as editor:
        editor.edit(requests[:2])
        editor.edit(requests[2:])
        total = editor.delta
    for layer in total.layers:
        torch.testing.assert_close(result.delta.to_dense(layer), total.to_dense(layer), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", ["emmet", "rome + group 5"])
def test_editor_fits_two_prompts_of_one_key_exactly(demo, statistics_of, method):
    """An exact fit takes two prompts of one key.

    What they ask of the one key contradicts, so that each is executed in part.
    """
    requests = [
        EditRequest("The {} is loved by the", "river", "doctor"),
        EditRequest("The {} belongs to the", "river", "miller"),
    ]
    with editor_of(demo, statistics_of(demo), method, layers=(2,), steps=2, answers=False) as editor:
        fraction = editor.edit(requests).realized_share
    assert ((fraction > 0.1) & (fraction < 1)).all()


def test_delta_describes_edits_method_and_model(demo, statistics_of, records):
    """A delta says what was edited how and on what."""
    fingerprint = demo.fingerprint()
    with editor_of(demo, statistics_of(demo), "memit", lr=0.37) as editor:
        editor.edit(records[0].request)
        second = editor.edit(records[1].request).delta
        total = editor.delta
    one, two = (
        {"prompt": r.prompt, "subject": r.subject, "target_new": r.target_new}
        for r in (x.request for x in records[:2])
    )
    assert (total.model, total.note["method"], total.note["settings"]["planner"]["lr"]) == (
        fingerprint,
        "memit",
        0.37,
    )
    assert total.note["edits"] == [one, two]
    assert second.note["edits"] == [two]
    assert second.model != fingerprint  # it is for the model that holds the first


def test_forward_has_goals_per_layer(demo, statistics_of):
    """Forward aims at a goal of every layer and the others at the top."""
    for method, per_layer in (
        ("memit", False),
        ("memit-fe", True),
        ("rome", False),
        ("alphaedit-blue", False),
    ):
        editor = editor_of(demo, statistics_of(demo), method, max_tokens=777)
        solver = editor.method.solver(editor.model, editor.state)
        assert solver.per_layer is per_layer
        assert solver.max_tokens == 777
        assert solver.fit == METHODS[method].prototype.fit


@pytest.mark.parametrize("method", ["metake", "memit", "rome", "alphaedit", "memit-merge", "ultraedit"])
def test_editor_refuses_contradictions_and_merges_equal_requests(demo, statistics_of, records, method):
    """Requests that fight are refused and identical requests are edited once.

    By every kind of method: the change of a request given twice is that of the request.
    """
    chosen = method_of(demo, method, layers=(1,), contexts=(), steps=2)
    first = records[0].request
    statistics = statistics_of(demo)
    before = demo.weight(1).clone()
    with Editor(demo.model, demo.tokenizer, chosen, statistics=statistics) as editor:
        for attempt in (editor.edit, editor.preview):
            with pytest.raises(MetakeError, match="has two targets,"):
                attempt([first, records[1].request, replace(first, target_new="weaver")])
        torch.testing.assert_close(demo.weight(1), before, rtol=0, atol=0)
        editor.edit([first, records[1].request])
        once = demo.weight(1).clone()
        editor.revert()
        with pytest.warns(UserWarning, match="duplicate requests are ignored"):
            result = editor.edit([first, records[1].request, first])
        assert len(result.requests) == 2
        torch.testing.assert_close(demo.weight(1), once, rtol=0, atol=0)
    assert not torch.equal(once, before)


def test_result_seconds_exclude_reading_answers(demo, statistics_of, records, monkeypatch):
    """Seconds are of planning solving and writing and not of reading answers.

    On a clock on which reading answers takes 100 s and planning 7 s.
    """
    clock, read, plan = [0.0], metake.checks.read_answers, LocateThenEdit.plan

    def slowly(duration, function):
        def run(*args, **kwargs):
            clock[0] += duration
            return function(*args, **kwargs)

        return run

    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr("metake.checks.read_answers", slowly(100.0, read))
    monkeypatch.setattr(LocateThenEdit, "plan", slowly(7.0, plan))
    with editor_of(demo, statistics_of(demo), "memit", layers=(1,)) as editor:
        assert editor.edit(records[0].request).seconds == 7.0
    assert clock == [207.0]


def test_editor_edits_after_finalize_on_the_unbounded_change(demo, statistics_of, records):
    """An edit after the end takes the bound of the end back first.

    PRUNE bounds the whole change: batches that are edited after a first end, as if there had been none.
    """
    options = {"lam": 1e-6, "lr": 20.0, "layers": (1, 2)}
    requests, ends = [r.request for r in records[:2]], {}
    for early in (False, True):
        with editor_of(demo, statistics_of(demo), "prune", **options) as editor:
            editor.edit(requests[0])
            raw = demo.weight(1).clone()
            if early:
                editor.finalize()
                assert not torch.equal(demo.weight(1), raw)
            editor.edit(requests[1])
            editor.finalize()
            ends[early] = [demo.weight(n).clone() for n in (1, 2)]
    assert all(torch.equal(a, b) for a, b in zip(*ends.values(), strict=True))


def test_finalize_reads_answers_again(demo, statistics_of, records, monkeypatch):
    """Answers after the end are those of the bounded change.

    The answers before stay as they were read; those after are read again.
    """
    count = iter(range(100))
    monkeypatch.setattr(
        "metake.checks.read_answers", lambda _, prompts, targets: [f"{next(count)}" for _ in prompts]
    )
    with editor_of(demo, statistics_of(demo), "prune", lam=30.0) as editor:
        first, second = editor.edit(records[0].request), editor.edit([r.request for r in records[1:3]])
        assert [(a.before, a.after) for a in (*first.answers, *second.answers)] == [
            ("0", "1"),
            ("2", "4"),
            ("3", "5"),
        ]
        first, second = editor.finalize()
        assert [(a.before, a.after) for a in (*first.answers, *second.answers)] == [
            ("0", "6"),
            ("2", "7"),
            ("3", "8"),
        ]
        assert editor.finalize() == editor.batches == [first, second]
        assert next(count) == 9
    with editor_of(demo, statistics_of(demo), "memit", layers=(1,), answers=False) as editor:
        assert editor.edit(records[0].request).answers == ()
    assert next(count) == 10


def test_editor_restore_gives_back_earlier_memory(demo, statistics_of, records):
    """A restored batch gives back the memory that was before it."""
    with editor_of(demo, statistics_of(demo), "alphaedit", l2=0.01, layers=(1,)) as editor:
        first = editor.edit(records[0].request)
        second = editor.edit(records[1].request)
        editor.revert(second)
        restored = editor.restore(second.requests, second.delta, second.memory)
        assert same(editor.state.of_layer(1), [first.memory[1], second.memory[1]])
        editor.revert(restored)
        assert same(editor.state.of_layer(1), [first.memory[1]])


@pytest.mark.parametrize("method", ["memit", "rect"])
def test_delta_notes_the_prompt_with_its_gap(demo, statistics_of, records, method):
    """Whatever becomes of the change: RECT's is made anew."""
    with editor_of(demo, statistics_of(demo), method, layers=(1,)) as editor:
        note = editor.edit(records[0].request).delta.note
    request = records[0].request
    assert note["edits"] == [
        {"prompt": request.prompt, "subject": request.subject, "target_new": request.target_new}
    ]
    assert "{}" in note["edits"][0]["prompt"]
    assert (note["method"], note["model"]) == (method, demo.model.name_or_path)
    assert note["settings"] == editor.method.model_dump()
    assert note["version"] == metake.__version__
