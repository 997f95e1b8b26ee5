"""SPHERE's projection, against the whole projector of the published definition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import metake as mk
from metake.solvers.sphere import Sphere, principal_directions

CASES = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10_000))


def published(weight, share):
    """Top eigenvectors of the whole `d_k x d_k` matrix: the largest, up to the first whose sum is above the share."""
    rows = weight / weight.norm(dim=1, keepdim=True)
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    total, count = 0.0, 0
    for value in values.flip(0):
        total, count = total + float(value), count + 1
        if total > share * float(values.sum()):
            break
    return vectors[:, -count:]


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(CASES, st.floats(0.05, 0.95))
def test_principal_directions_span_the_top_eigenvectors(case, share):
    d_v, d_k, seed = case
    weight = random(d_v, d_k, seed=seed)
    u, wanted = principal_directions(weight, share), published(weight, share)
    torch.testing.assert_close(u.T @ u, torch.eye(u.shape[1], dtype=u.dtype), rtol=0, atol=1e-9)
    torch.testing.assert_close(u @ u.T, wanted @ wanted.T, rtol=0, atol=1e-6)


def test_principal_directions_do_not_depend_on_the_lengths_of_rows():
    """Rows are normalized: a long row counts as any other."""
    weight, lengths = random(6, 8, seed=1), torch.logspace(-3, 3, 6, dtype=torch.float64)
    one, other = (principal_directions(w, 0.5) for w in (weight, lengths[:, None] * weight))
    torch.testing.assert_close(one @ one.T, other @ other.T, rtol=0, atol=1e-5)


@given(CASES, st.floats(0, 1))
def test_sphere_multiplies_the_update_by_the_projector(case, alpha):
    """`D (I - alpha U U^T)`, on the side of the keys."""
    d_v, d_k, seed = case
    weight, left, right = (
        random(d_v, d_k, seed=seed),
        random(d_v, 2, seed=seed + 1),
        random(d_k, 2, seed=seed + 2),
    )
    u = published(weight, 0.5)
    found = Sphere(suppression_strength=alpha).after_batch(mk.Delta({3: (left, right)}), {3: weight})
    wanted = left @ right.T @ (torch.eye(d_k, dtype=u.dtype) - alpha * u @ u.T)
    torch.testing.assert_close(found.to_dense(3), wanted, rtol=0, atol=1e-5 * float(wanted.norm() + 1))


def test_sphere_changes_a_batch_after_its_solve(demo, statistics_of, records):
    """Every batch is projected by the weights that it found; `memit + sphere` is MEMIT with that change."""
    requests = [record.request for record in records[:2]]
    settings = {"layers": (1, 2), "steps": 3, "lam": 30.0}
    with mk.Editor(
        demo, method=mk.settings_for(demo, "memit", **settings), statistics=statistics_of(demo)
    ) as editor:
        plain, contexts = editor.edit(requests).delta, editor.contexts
    method = mk.settings_for(demo, "memit + sphere", contexts=contexts, **settings)
    with mk.Editor(demo, method=method, statistics=statistics_of(demo)) as editor:
        weights = {layer: demo.weight(layer).clone() for layer in (1, 2)}
        found = editor.edit(requests).delta
    for layer, weight in weights.items():
        u = published(weight.double(), 0.5)
        change = plain.to_dense(layer)
        assert float((change @ u).norm()) > 0.01 * float(change.norm())
        wanted = change - 0.5 * change @ u @ u.T
        torch.testing.assert_close(found.to_dense(layer), wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("setting", [{"cumulative_ratio": 1.0}, {"suppression_strength": 1.5}])
def test_sphere_refuses_values_out_of_range(setting):
    with pytest.raises(mk.MetakeError, match=rf"^settings: {next(iter(setting))}: "):
        Sphere(**setting)
