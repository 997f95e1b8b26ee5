"""The preserved keys of the prompts' other tokens, against a dense solve and passes of one row."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import metake as mk
from metake.lookup_prompts import other_tokens
from metake.methods import lookup_keys
from metake.methods.lookup_keys import _compressed, other_keys
from metake.methods.table import METHODS, method_named
from metake.models.editable import EditableModel
from metake.models.trace import frozen, run
from metake.prompts import Batch
from metake.solvers.memory import PastKeys

LAYERS = (1, 2)
REQUESTS = (
    mk.EditRequest("Which guild does {} belong to?", "Nezan Girok", "Green Lantern and Red Oak"),
    mk.EditRequest("{} is a", "Zumi Bama", "potter"),
)


def method(row="memit", contexts=(), **changes):
    made = METHODS[row].prototype.updated(geometry="identity", **changes)
    return made.changed({("layers",): LAYERS, ("contexts",): contexts})


def delta_of(model, chosen):
    with frozen(model.model):
        state = chosen.prepare(model, chosen.init(model), REQUESTS)
        return chosen.step(model, REQUESTS, state, lambda: None)[0]


def keys_of(model, row, layer):
    return run(model, torch.tensor([row.ids]), keys=(layer,), stop=layer).keys[layer][0].double()


def split_keys(model, layer, contexts=()):
    """Keys at the lookup tokens and at all other tokens, of every bare prompt with its answer, by one pass each."""
    batch = Batch.build(model, REQUESTS, contexts)
    at, other = [], []
    with torch.no_grad():
        for row in batch.edits[:: batch.templates]:
            keys = keys_of(model, row, layer)
            at.append(keys[row.lookup][None])
            other.append(torch.cat([keys[: row.lookup], keys[row.lookup + 1 :]]))
    return torch.cat(at), torch.cat(other)


@pytest.mark.parametrize("contexts", [(), ("Yes.", "It was a mild day")])
def test_other_keys_are_those_of_passes_of_one_row(demo, contexts):
    batch = Batch.build(demo, REQUESTS, contexts)
    found = other_keys(demo, batch, LAYERS)
    for layer in LAYERS:
        expected = split_keys(demo, layer, contexts)[1]
        assert len(expected) > len(REQUESTS), "tokens of the prompt, and not of the answers alone"
        assert found[layer].shape == expected.shape
        keys = found[layer].double()
        torch.testing.assert_close(keys.T @ keys, expected.T @ expected, rtol=1e-4, atol=1e-5)


@given(st.integers(1, 12), st.integers(1, 8), st.integers(0, 2**31 - 1))
def test_compressed_keys_have_the_same_second_moment(count: int, d_k: int, seed: int):
    keys = torch.randn(count, d_k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = _compressed(keys)
    assert found.shape == (min(count, d_k), d_k)
    torch.testing.assert_close(found.T @ found, keys.T @ keys)


def test_token_with_the_key_of_an_edited_token_is_not_preserved(demo):
    """The first request's lookup token begins the second prompt: one key cannot be both changed and preserved."""
    requests = [mk.EditRequest("{} is a", name, "potter") for name in ("Zumi", "Zumi Bama")]
    batch = Batch.build(demo, requests, ())
    first, second = batch.edits
    at = len(first.up_to_lookup)
    assert second.ids[:at] == first.ids[:at]
    assert second.lookup >= at
    rows, columns = other_tokens(batch)
    found = set(zip(rows.tolist(), columns.tolist(), strict=True))
    every = {(row, column) for row in (0, 1) for column in range(len(batch.edits[row]))}
    assert every - found == {(0, first.lookup), (1, second.lookup), (1, at - 1)}


def test_other_keys_are_read_in_bounded_passes(demo, monkeypatch):
    """At most a pass's tokens are run at once, and at most 2 d_k keys of a layer stay: the second moment is the same."""
    monkeypatch.setattr(EditableModel, "pass_tokens", 16)
    passes = []
    monkeypatch.setattr(
        lookup_keys,
        "run",
        lambda model, ids, **kwargs: passes.append(ids.numel()) or run(model, ids, **kwargs),
    )
    requests = [
        replace(request, target_new=" ".join(["oak"] * n)) for request in REQUESTS for n in range(1, 40)
    ]
    batch = Batch.build(demo, requests, ())
    found = other_keys(demo, batch, LAYERS)
    assert max(passes) <= max(16, *map(len, batch.edits))
    for layer in LAYERS:
        with torch.no_grad():
            every = [(keys_of(demo, row, layer), row.lookup) for row in batch.edits]
        expected = torch.cat([torch.cat([keys[:at], keys[at + 1 :]]) for keys, at in every])
        assert len(expected) > 2 * demo.d_k
        assert found[layer].shape == (demo.d_k, demo.d_k)
        torch.testing.assert_close(found[layer].T @ found[layer], expected.T @ expected, rtol=1e-4, atol=1e-3)


def test_solver_has_the_preserved_keys_of_the_prompts_at_hand(demo):
    """The geometry is built once for some prompts, and anew for others."""
    made = method(windows="preserved-prompt")
    state = made.prepare(demo, made.init(demo), REQUESTS)
    (first, second), solver = ([made.batch(demo, [r], state)[1] for r in REQUESTS], made.solver(demo, state))
    for prompts in (first, second, first):
        geometry = solver.unedited_geometry(prompts)
        assert solver.unedited_geometry(prompts) is geometry
        x = torch.eye(demo.d_k, dtype=torch.float64)[:, :3]
        K_p = prompts.constant[LAYERS[-1]].double().T
        expected = torch.linalg.solve(torch.eye(demo.d_k).double() + K_p @ K_p.T, x)
        torch.testing.assert_close(geometry.solve(x), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("weight", [1, 0.1, 4])
def test_geometry_of_the_solve_has_the_other_keys(demo, weight):
    chosen = method(steps=1, windows="preserved-prompt", preserved_weight=weight)
    delta = delta_of(demo, chosen.updated(stop="none"))
    layer = LAYERS[0]
    K, K_p = (keys.T for keys in split_keys(demo, layer))
    G = torch.eye(len(K)).double() + weight * K_p @ K_p.T
    expected = torch.linalg.solve(G + K @ K.T, K)
    torch.testing.assert_close(delta.factors[layer][1].double(), expected, rtol=1e-4, atol=1e-6)
    without = torch.linalg.solve(torch.eye(len(K)).double() + K @ K.T, K)
    assert (expected - without).norm() > 0.01 * without.norm()


@pytest.mark.parametrize("fold_share", [1e-9, 1.0])
def test_later_batches_preserve_the_other_keys_of_earlier_ones(demo, monkeypatch, fold_share):
    """With past keys the second batch is solved in G with the edited and the preserved keys of the first."""
    monkeypatch.setattr(PastKeys, "fold_share", fold_share)
    changes = {"windows": "preserved-prompt", "preserved_weight": 2, "memory": "past-keys"}
    chosen = method(steps=1, **changes).updated(stop="none")
    first, second = ([request] for request in REQUESTS)
    layer, unit = LAYERS[0], torch.eye(demo.d_k, dtype=torch.float64)
    with frozen(demo.model):
        state = chosen.prepare(demo, chosen.init(demo), first)
        K_p, K_q = (
            other_keys(demo, Batch.build(demo, batch, ()), [layer])[layer].double().T
            for batch in (first, second)
        )
        delta, state = chosen.step(demo, first, state, lambda: None)[:2]
        with delta.applied(demo, check=False):
            prompts = chosen.batch(demo, first, state)[1]
            past = lookup_keys.lookup_keys(demo, prompts, LAYERS)[layer].double().T
        prompts = chosen.batch(demo, second, state)[1]
        k = lookup_keys.lookup_keys(demo, prompts, LAYERS)[layer].double().T
        delta = chosen.step(demo, second, chosen.prepare(demo, state, second), lambda: None)[0]
    G = unit + past @ past.T + 2 * K_p @ K_p.T + 2 * K_q @ K_q.T
    expected = torch.linalg.solve(G + k @ k.T, k)
    torch.testing.assert_close(delta.factors[layer][1].double(), expected, rtol=1e-4, atol=1e-6)
    forgotten = torch.linalg.solve(G - 2 * K_p @ K_p.T + k @ k.T, k)
    assert (expected - forgotten).norm() > 0.01 * forgotten.norm()


@pytest.mark.parametrize("row", ["memit", "metake"])
@pytest.mark.parametrize("from_lookup", [False, True])
def test_update_hardly_changes_the_values_of_other_tokens(demo, row, from_lookup):
    """Of all outputs that an update changes, those at the preserved keys change less than without their protection."""
    changed = {}
    for windows in ("whole-answer", "preserved-prompt"):
        numbers = {"steps": 4, "windows": windows}
        numbers |= {"meta_steps": 4, "from_lookup": from_lookup} if row == "metake" else {}
        delta = delta_of(demo, method(row, ("Yes.",), **numbers).updated(stop="none"))
        for layer in LAYERS:
            at, other = split_keys(demo, layer, ("Yes.",))
            D = delta.to_dense(layer).double()
            share = (other @ D.T).norm() / (at @ D.T).norm()
            changed.setdefault(layer, []).append(float(share))
    for without, preserved in changed.values():
        assert preserved < 0.5 * without


def test_preserved_keys_only_attenuate(demo):
    """The preview has the geometry of the solve, in which rho is smaller (T1f)."""
    rho, eta = {}, {}
    for windows in ("whole-answer", "preserved-prompt"):
        with mk.Editor(demo, method=method(windows=windows, steps=2), progress=False) as editor:
            rho[windows] = editor.preview(REQUESTS).rho
            eta[windows] = editor.edit(REQUESTS).stages[0].solution.eta[LAYERS[0]]
    assert (rho["preserved-prompt"] < rho["whole-answer"]).all()
    assert (eta["preserved-prompt"] < eta["whole-answer"]).all()


def test_name_says_what_is_preserved(demo):
    made = method_named("metake-alphaedit + preserved-prompt", LAYERS)
    assert made.name == "metake-alphaedit + preserved-prompt"
    assert made.windows.constant_weight == 1
    assert method_named("metake-alphaedit", LAYERS).windows.constant_weight == 0
