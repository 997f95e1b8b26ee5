"""Whatever is split, or resumed, must come out as if every row ran whole."""

from collections import Counter

import pytest
import torch

from metake.geometry.operator import Ridge
from metake.lookup_prompts import LookupPrompts
from metake.models.editable import EditableModel
from metake.models.prefix_batch import PrefixBatch, PrefixSuffix
from metake.models.trace import frozen, run
from metake.planners.hypergradient import ParallelLoss, UnrolledLoss, VirtualEditLoss
from metake.planners.objective import Objective
from metake.planners.target_optimization import Penalty
from metake.prompts import Batch
from metake.solvers.allocation import Spread
from metake.solvers.layered import LayeredSolver
from tests.cases import tiny

LAYERS = (1, 2, 3)
CONTEXTS = ("The market is cold", "Today it rains")
IDS = torch.tensor([[5, 9, 17, 30, 2, 7], [5, 9, 17, 4, 90, 0], [8, 1, 4, 4, 11, 0], [8, 1, 6, 2, 2, 2]])


def split() -> PrefixBatch:
    return PrefixBatch.of(IDS, [6, 5, 5, 6], [3, 3, 2, 0], [0, 0, 1, 2])


@torch.no_grad()
def test_prefix_batch_has_every_token_once():
    """Parts hold every token once."""
    parts = split().cut(IDS)
    assert parts.prefix is not None
    assert parts.prefix.tolist() == [[5, 9, 17], [8, 1, 4]]  # the second is needed for two tokens only
    assert [row[:n] for row, n in zip(parts.suffix.tolist(), (3, 2, 3, 6), strict=True)] == [
        [30, 2, 7],
        [4, 90],
        [4, 4, 11],
        [8, 1, 6, 2, 2, 2],
    ]


@torch.no_grad()
def test_prefix_batch_passes_equal_whole_passes_per_family(family):
    """Split passes are whole passes for every family."""
    model = EditableModel(tiny(family))
    edits = {1: (torch.randn(model.d_v, 2) * 0.3, torch.randn(model.d_k, 2) * 0.3)}
    whole = run(model, IDS, keys=(2,), outputs=(2,), inputs=(1,), edits=edits)
    s = split()
    at = torch.tensor([0, 1, 2, 3]), torch.tensor([2, 1, 2, 5])
    trace = s.run(model, keys=(2,), outputs=(2,), inputs=(1,), edits=edits, positions=at)
    for mine, theirs in (
        (trace.keys[2].suffix, whole.keys[2]),
        (trace.outputs[2].suffix, whole.outputs[2]),
    ):
        wanted = s.cut(theirs).suffix
        for row, n in enumerate((3, 2, 3, 6)):
            torch.testing.assert_close(mine[row, :n], wanted[row, :n], rtol=1e-4, atol=1e-4)
    wanted = whole.logits[[0, 1, 2, 3], [5, 4, 4, 5]]
    torch.testing.assert_close(trace.logits, wanted, rtol=1e-4, atol=1e-4)
    later = s.run(model, start=1, hidden=trace.inputs[1], edits=edits, positions=at)
    torch.testing.assert_close(later.logits, wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_prefix_batch_runs_prefixes_through_needed_blocks_alone():
    """Split passes run shared prefixes through needed blocks and never through the head."""
    model, calls = EditableModel(tiny("llama")), Counter()
    for name, module in (*enumerate(model.blocks), ("head", model.head)):
        module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    split().run(model, stop=1)
    assert calls == {0: 2, 1: 2}  # once for the prefixes, once for the rows
    calls.clear()
    split().run(model, positions=(torch.tensor([0]), torch.tensor([2])))
    assert calls == {0: 2, 1: 2, 2: 2, 3: 2, "head": 1}


@torch.no_grad()
def test_prefix_batch_builds_masks_once():
    """Split passes build their masks once."""
    model, s = EditableModel(tiny("llama")), split()
    s.run(model, stop=1)
    ((mask, positions),) = s.masks.values()
    s.run(model, stop=1)
    ((again, _),) = s.masks.values()
    assert again is mask
    assert positions[:, 0].tolist() == s.prefix_lengths.tolist()


def test_prefix_batch_of_some_rows_equals_their_own():
    """A split of some rows is the split of those."""
    part = split().rows(torch.tensor([2, 3]))
    assert part.prefix_lengths.tolist() == [2, 0]
    assert part.ids.suffix.tolist()[0][:3] == [4, 4, 11]


class Whole(EditableModel):
    """Never resumes, as a model outside the table."""

    def can_resume(self, length: int) -> bool:
        return False


@pytest.mark.parametrize("slope", ["token", "proxy", "parallel", "unrolled"])
def test_prefix_batch_losses_and_gradients_equal_whole_rows(model, statistics_of, records, slope):
    """Every gradient of the upper level, on trained models of three families, with some requests done."""
    statistics = statistics_of(model)
    geometries = {n: Ridge(statistics[n], 300.0, 1e-3) for n in LAYERS}
    found = []
    with frozen(model.model):
        for each in (model, Whole(model.model, model.tokenizer)):
            batch = Batch.build(each, [r.request for r in records[:4]], CONTEXTS)
            prompts = LookupPrompts.build(each, batch, LAYERS[0])
            solver = LayeredSolver(each, geometries, Spread().stages(LAYERS)[0])
            hidden, key = solver.unedited_stream_and_key(prompts)
            channel = geometries[LAYERS[-1]].channel(key.T)
            objective = Objective(each, batch, LAYERS[0], LAYERS[-1], channel=channel, max_tokens=90)
            slopes = {
                "token": VirtualEditLoss(objective, "token"),
                "proxy": VirtualEditLoss(objective, "channel"),
                "parallel": ParallelLoss(objective, solver, prompts),
                "unrolled": UnrolledLoss(objective, solver, prompts),
            }
            generator = torch.Generator().manual_seed(0)
            leaf = torch.randn(hidden.shape, generator=generator) * hidden.norm(dim=1, keepdim=True) / 20
            for active in (torch.ones(4, dtype=torch.bool), torch.tensor([True, False, True, True])):
                with torch.enable_grad():
                    losses, gradient = slopes[slope](leaf, active, Penalty(kl=0.3))
                assert not losses.nll[~active].any()
                found.append((losses.nll, losses.kl, gradient))
            assert bool(prompts.tokens.prefix_lengths.any()) == (each is model)
    for split_, whole in zip(found[:2], found[2:], strict=True):
        for a, b in zip(split_, whole, strict=True):
            assert float(b.norm()) > 0
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.norm()))


@pytest.mark.parametrize("gate", ["token", "channel"])
def test_prefix_batch_caches_nothing_above_the_last_block(model, records, gate):
    found = []
    with frozen(model.model), torch.no_grad():
        for each in (model, Whole(model.model, model.tokenizer)):
            last = len(each) - 1
            batch = Batch.build(each, [r.request for r in records[:3]], CONTEXTS)
            channel = torch.randn(each.d_k, 3, generator=torch.Generator().manual_seed(0)) * 0.1
            objective = Objective(each, batch, last, last, channel=channel, max_tokens=90)
            residuals = torch.randn(3, each.d_v, generator=torch.Generator().manual_seed(1))
            found += [
                objective.losses(residuals, gate, torch.tensor(active))
                for active in ([True] * 3, [True, False, True])
            ]
    for a, b in zip(found[:2], found[2:], strict=True):
        torch.testing.assert_close(a.nll, b.nll, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(a.kl, b.kl, rtol=1e-4, atol=1e-4)


def test_prefix_batch_of_some_rows_keeps_all_prefixes():
    """Parts of some rows keep all prefixes."""
    parts = PrefixSuffix(torch.arange(6).reshape(3, 2), torch.tensor([[7]])).rows(torch.tensor([2]))
    assert parts.suffix.tolist() == [[4, 5]]
    assert parts.prefix is not None
    assert parts.prefix.tolist() == [[7]]
