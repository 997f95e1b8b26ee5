"""Earlier keys in a memory of bounded size give the same solves as all of them side by side."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metake.editor import Editor
from metake.geometry.identity import Identity
from metake.geometry.null_space import Projected
from metake.geometry.operator import Geometry, Ridge
from metake.methods.geometries import with_earlier_keys
from metake.methods.state import State
from metake.methods.ultraedit import UltraEdit
from metake.planners.normalized_gradient import Moments
from metake.solvers.memory import Memory, NoMemory, PastKeys
from tests.cases import method_of

EPS = {dtype: torch.finfo(dtype).eps for dtype in (torch.float64, torch.float32)}
QUICK = {"layers": (1, 2), "steps": 6, "lr": 0.5, "clamp": None, "l2": 0.01, "lam": 30.0, "contexts": ()}


class Diagonal(Geometry):
    """A geometry of another package: it defines `solve_base` alone."""

    def __init__(self, moment, dtype):
        self.entries = moment.diagonal().to(dtype)[:, None] + 0.1
        self.dtype, self.device = dtype, moment.device

    def solve_base(self, x):
        return x / self.entries


BUILD = {
    "ridge": lambda C, dtype: Ridge(C, 3.0, 0.1, dtype=dtype),
    "projected": lambda C, dtype: Projected(C, 0.3, keep=0.7, dtype=dtype),
    "identity": lambda _, dtype: Identity(dtype=dtype),
    "solve_base alone": Diagonal,
}


@st.composite
def histories(draw):
    """A positive semidefinite C over up to four decades, batches of keys, where they are folded, a scale, and keys."""
    d, sizes = draw(st.integers(2, 12)), draw(st.lists(st.integers(1, 7), min_size=1, max_size=6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    basis, _ = torch.linalg.qr(random(d, d))
    spectrum = 10 ** (-draw(st.floats(0, 4)) * torch.rand(d, generator=generator, dtype=torch.float64))
    share, scale = (
        draw(st.sampled_from((0.0, 1 / 6, 0.5, 1.0, 2.0))),
        draw(st.sampled_from((None, 0.1, 30.0))),
    )
    return (basis * spectrum) @ basis.T, [random(d, n) for n in sizes], share, scale, random(d, 3)


def rounding(base, past):
    """Relative error of Woodbury's solves, in units of eps: the condition number of G, and the growth of its terms.

    `u = G^-1 x` is up to `g = 1 + ||G^-1|| ||P||` times as long as the result, as is the small system's error.
    """
    d = len(past)
    inverse = base._solve_scaled(torch.eye(len(base.coordinates(torch.eye(d))), dtype=base.dtype)).double()
    growth = 1 + torch.linalg.norm(inverse, 2) * torch.linalg.norm(past, 2) ** 2
    return 10 * d * float(torch.linalg.cond(inverse) * growth**2)


@pytest.mark.parametrize("dtype", EPS, ids=str)
@pytest.mark.parametrize("kind", BUILD)
@settings(max_examples=60, deadline=None)
@given(history=histories())
def test_folded_keys_give_the_solves_of_all_keys(kind, dtype, history):
    """After every batch, before and after the crossing point, whatever the scale of the base."""
    moment, batches, share, scale, keys = history
    base = BUILD[kind](moment, dtype)
    base = base if scale is None else base.scaled(scale)
    memory = SimpleNamespace(fold_share=share)
    state = State(scale=scale)
    for i, batch in enumerate(batches):
        state = state.with_memory({3: batch}).fold(partial(PastKeys.fold, memory))
        assert sum(k.shape[1] for k in state.of_layer(3)) < max(share * len(moment), 1)
        past = torch.cat(batches[: i + 1], 1)
        unbounded, bounded = base.with_past(past), with_earlier_keys(base, state, 3)
        tolerance = EPS[dtype] * rounding(base, past)
        if tolerance > 0.1:
            return
        for solve in (Geometry.solve, Geometry.channel, Geometry.attenuation):
            one, other = solve(unbounded, keys), solve(bounded, keys)
            assert (one - other).norm() <= tolerance * one.norm()


@settings(max_examples=60, deadline=None)
@given(d=st.integers(1, 60), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_past_keys_fold_from_a_sixth_of_d_on(d, sizes):
    """Where Woodbury's `2 d^2 p` reaches the `d^3 / 3` of a factorization, and not before; all layers together."""
    state, pending, folds = State(), 0, 0
    for size in sizes:
        keys = torch.ones(d, size, dtype=torch.float64)
        state, pending = state.with_memory({1: keys, 2: keys}).fold(PastKeys().fold), pending + size
        if 2 * d**2 * pending >= d**3 / 3:
            pending, folds = 0, folds + 1
        for layer in (1, 2):
            assert sum(k.shape[1] for k in state.of_layer(layer)) == pending
            assert (layer in state.folded) == (folds > 0)


def test_scaled_forgets_the_moment_and_with_past_keeps_it():
    keys = torch.randn(4, 3, dtype=torch.float64)
    folded = Ridge(torch.eye(4), 2.0).with_moment(keys @ keys.T)
    torch.testing.assert_close(folded.scaled(3.0).solve(keys), keys / 6)
    torch.testing.assert_close(folded.with_past(keys).with_past(None).solve(keys), folded.solve(keys))
    twice = Ridge(torch.eye(4), 2.0).with_past(torch.cat([keys, keys], 1))
    torch.testing.assert_close(folded.with_past(keys).solve(keys), twice.solve(keys))
    torch.testing.assert_close(folded.with_moment(None).solve(keys), keys / 2)


@pytest.mark.parametrize("memory", [Memory, NoMemory])
def test_other_memories_keep_what_they_have(memory):
    assert memory.fold(memory, None, [torch.ones(2, 9)]) is None
    state = State().with_memory({1: torch.ones(2, 9)})
    assert state.fold(lambda *_: None) is state


@pytest.mark.parametrize("name", ["memit + past-keys", "alphaedit", "metake + past-keys"])
def test_edits_with_keys_folded_early_equal_those_without(demo, statistics_of, records, monkeypatch, name):
    """To rounding; with the strength found from an attenuation too, which scales the base alone."""
    method = method_of(demo, name, **QUICK).updated(attenuation=0.8)

    def deltas(share):
        monkeypatch.setattr(PastKeys, "fold_share", share)
        with Editor(demo, method=method, statistics=statistics_of(demo), answers=False) as editor:
            found = [editor.edit([r.request for r in records[i : i + 2]]).delta for i in (0, 2, 4)]
            assert bool(editor.state.folded) == (share == 0) == (not editor.state.memory)
            editor.undo()
            again = editor.edit([r.request for r in records[4:6]]).delta
            assert all(torch.equal(again.to_dense(n), found[-1].to_dense(n)) for n in again.layers)
        return found

    for one, other in zip(deltas(0.0), deltas(float("inf")), strict=True):
        for layer in one.layers:
            gap = (one.to_dense(layer) - other.to_dense(layer)).norm()
            assert (
                gap <= 1e-4 * one.to_dense(layer).norm()
            )  # fp32 planning amplifies the rounding of fp64 solves


def test_moments_of_ultraedit_fold_bit_for_bit():
    """One after the other, or all at the end."""
    parts = [Moments.of(torch.randn(n, 5)).pack() for n in (3, 1, 4)]
    method, late, early = UltraEdit(layers=(1,)), State(), State()
    for part in parts:
        late, early = late.with_memory({1: part}), method.fold(early.with_memory({1: part}))
    assert early.memory == ()
    assert torch.equal(method.fold(late).folded[1], early.folded[1])
