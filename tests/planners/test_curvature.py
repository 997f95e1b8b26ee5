"""K-FAC: moments against autograd, the projector against the dense Kronecker product, and CrispEdit on a model."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

import metake as mk
from metake import statistics_cache
from metake.geometry.null_space import Projected
from metake.options import find_statistics
from metake.planners.curvature import LowCurvatureProjector, gradient_moments
from metake.statistics_cache import statistics_for

SIZES = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(0, 10_000))


def moment(size, seed):
    root = torch.randn(size, size + 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T


def change_of(d_v, d_k, seed):
    return torch.randn(d_v, d_k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(SIZES, st.floats(0.1, 0.99))
def test_projector_is_that_of_the_dense_kronecker_product(sizes, energy):
    """The eigenvectors of `B (x) A` whose eigenvalues are below the border are kept, all others removed."""
    d_v, d_k, seed = sizes
    a, b, change = moment(d_k, seed), moment(d_v, seed + 1), change_of(d_v, d_k, seed + 2)
    values, vectors = torch.linalg.eigh(torch.kron(b, a))  # row-major: vec(D)_(i d_k + j) = D_ij
    total, removed = 0.0, 0
    for value in values.flip(0):
        total, removed = total + float(value), removed + 1
        if total >= energy * float(values.sum()) * (1 - 1e-12):
            break
    kept = vectors[:, : len(values) - removed]
    wanted = (kept @ (kept.T @ change.flatten())).reshape(change.shape)
    torch.testing.assert_close(LowCurvatureProjector.of(a, b, energy)(change), wanted, rtol=0, atol=1e-8)


@given(SIZES, st.floats(0.1, 0.99))
def test_projector_lowers_the_curvature_and_is_idempotent(sizes, energy):
    """`tr(B D A D^T)` of what is kept is at most the border times its squared norm."""
    d_v, d_k, seed = sizes
    a, b, change = moment(d_k, seed), moment(d_v, seed + 1), change_of(d_v, d_k, seed + 2)
    projector = LowCurvatureProjector.of(a, b, energy)
    kept = projector(change)
    torch.testing.assert_close(projector(kept), kept, rtol=0, atol=1e-10)
    costs = [torch.trace(b @ d @ a @ d.T) for d in (kept, change)]
    assert costs[0] <= (1 - energy) * torch.kron(b, a).trace() * change.square().sum() + 1e-9
    assert costs[0] <= costs[1] + 1e-9


@given(st.integers(1, 4), st.integers(2, 6), st.integers(0, 10_000))
def test_projector_without_an_output_side_is_the_null_space_of_keys(d_v, d_k, seed):
    """With B = I it is AlphaEdit's projection: D P, P onto the eigenvectors of A below the border."""
    a, change = moment(d_k, seed), change_of(d_v, d_k, seed)
    values = torch.linalg.eigvalsh(a).flip(0)
    removed = int((values.cumsum(0) / values.sum() < 0.6).sum()) + 1
    found = LowCurvatureProjector.of(a, torch.eye(d_v, dtype=a.dtype), 0.6)(change)
    if removed == d_k:
        assert float(found.abs().max()) == 0
        return
    border = float((values[removed - 1] + values[removed]) / 2)
    one_sided = Projected(a, 1.0, threshold=border)
    wanted = one_sided.lift(one_sided.coordinates(change.T)).T
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-8)


def test_gradient_moments_are_those_of_autograd(model):
    """Gradients of the summed NLL by each output, from the model itself with a leaf added to its output."""
    text, layers = "The mill is dark. A baker sells bread in Oslo. " * 3, (1, 3)
    found = gradient_moments(model, model.tokenizer, text, layers)
    ids = torch.tensor([model.tokenizer(text).input_ids])
    assert ids.shape[1] < 128
    for layer in layers:
        leaf = torch.zeros(1, ids.shape[1], model.d_v, requires_grad=True)
        handle = model.down(layer).register_forward_hook(lambda _, __, output, leaf=leaf: output + leaf)
        logits = model.model(input_ids=ids).logits[0]
        handle.remove()
        loss = cross_entropy(logits[:-1], ids[0, 1:], reduction="sum")
        g = torch.autograd.grad(loss, leaf)[0][0, :-1].double()
        wanted = g.T @ g / len(g)
        torch.testing.assert_close(
            found[layer].double(), wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max())
        )


@pytest.fixture(scope="module")
def both(demo, tmp_path_factory):
    """Statistics with moments of gradients, collected once and then read from the cache."""
    folder = tmp_path_factory.mktemp("moments")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAKE_CACHE", str(folder))
        made = [
            statistics_for(demo, layers=(3, 4), tokens=12_000, gradients=True, progress=False) for _ in "ab"
        ]
        for layer in (3, 4):
            assert torch.equal(made[0].gradients[layer], made[1].gradients[layer])
        assert len(list(folder.glob("gradients-*"))) == 1
        yield made[1]


def test_crispedit_follows_projected_gradients(demo, both, records, monkeypatch):
    """With plain gradient descent in place of Adam the whole change lies in the kept directions."""
    monkeypatch.setattr(torch.optim, "Adam", lambda parameters, lr: torch.optim.SGD(list(parameters), lr=lr))
    requests = [record.request for record in records[:3]]
    changes = {}
    for name in ("crispedit", "crispedit + projection none"):
        method = mk.settings_for(demo, name, layers=(3, 4), epochs=3, weight_lr=0.05)
        with mk.Editor(demo, method=method, statistics=both, progress=False) as editor:
            delta = editor.edit(requests).delta
            changes[name] = {layer: delta.to_dense(layer) for layer in (3, 4)}
    for layer in (3, 4):
        projector = LowCurvatureProjector.of(both[layer], both.gradients[layer], 0.9)
        projected, free = (found[layer] for found in changes.values())
        scale = float(free.abs().max())
        torch.testing.assert_close(projector(projected), projected, rtol=0, atol=1e-4 * scale)
        assert float((projector(free) - free).norm()) > 0.1 * float(free.norm())


def test_crispedit_refuses_statistics_without_gradients(demo, statistics_of):
    method = mk.settings_for(demo, "crispedit", layers=(3,))
    with pytest.raises(
        mk.MetakeError, match=r"^statistics: hold no moments of gradients, .*gradients=True\) collects them"
    ):
        mk.Editor(demo, method=method, statistics=statistics_of(demo))


def test_statistics_of_a_file_are_joined_by_moments_of_gradients(demo, both, monkeypatch, tmp_path):
    """`--stats FILE`: the moments of keys are those of the file, those of gradients the cached ones of the included text."""
    monkeypatch.setattr(statistics_cache, "TOKENS", 12_000)
    doubled = replace(both, moments={n: 2 * moment for n, moment in both.moments.items()})
    doubled.save(tmp_path / "s.safetensors")
    methods = [mk.settings_for(demo, name, layers=(3, 4)) for name in ("memit", "crispedit")]
    found = find_statistics(demo, methods, tmp_path / "s.safetensors", None)
    for layer in (3, 4):
        assert torch.equal(found[layer], 2 * both[layer])
        assert torch.equal(found.gradients[layer], both.gradients[layer])
    mk.Editor(demo, method=methods[1], statistics=found)
    assert not find_statistics(demo, methods[:1], tmp_path / "s.safetensors", None).gradients
