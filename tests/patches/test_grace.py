"""GRACE: the balls against the published rules, the training against automatic differentiation of the whole model."""

import torch

from metake.deltas import Delta
from metake.editor import Editor
from metake.models.tokens import encode
from metake.patches.grace import SPLIT, Codebook
from metake.presets import settings_for


def book(points, labels, radius=1.0):
    """A codebook of edits at points of a line."""
    keys = torch.tensor([[float(point), 0.0] for point in points])
    return Codebook(0, keys, keys.clone(), torch.tensor([[label] for label in labels]), radius)


def radii(codebook):
    return [(ball.key, ball.value, round(ball.radius, 4)) for ball in codebook.balls]


def test_far_edit_opens_a_ball():
    """Farther than both radii from every key."""
    assert radii(book([0, 2.1], [7, 8])) == [(0, 0, 1.0), (1, 1, 1.0)]


def test_near_edit_with_the_same_target_widens_the_ball():
    """The ball reaches the new key, and writes the later value; a nearer one leaves the radius."""
    assert radii(book([0, 1.5], [7, 7])) == [(0, 1, 1.5)]
    assert radii(book([0, 0.5], [7, 7])) == [(0, 1, 1.0)]


def test_near_edit_with_another_target_shares_the_distance():
    """Half of the distance each; a ball that is smaller already is not widened, as published code does."""
    assert radii(book([0, 1], [7, 8])) == [(0, 0, round(0.5 - SPLIT, 4)), (1, 1, 0.5)]
    three = radii(book([0, 0.4, 1.0], [7, 8, 9]))  # the second ball has 0.2, and half of the distance is 0.3
    assert three[1] == (1, 1, 0.2)


def test_targets_are_compared_by_their_tokens():
    """Targets with the same mean of token ids are different targets, unlike in published code."""
    keys = torch.tensor([[0.0, 0.0], [0.5, 0.0]])
    codebook = Codebook(0, keys, keys, torch.tensor([[1, 3], [2, 2]]), 1.0)
    assert len(codebook.balls) == 2


def test_two_codebooks_are_their_edits_in_a_row():
    """Joining is replaying."""
    whole = book([0, 1.5, 0.9, 4], [7, 7, 8, 8])
    parts = book([0, 1.5], [7, 7]).joined(book([0.9, 4], [8, 8]))
    assert radii(parts) == radii(whole)


def test_value_is_that_of_autograd_over_the_whole_model(demo, facts):
    """Adam on the value, with the loss of plain forward passes of one row at a time."""
    method = settings_for(demo, "grace", value_steps=5, value_start="warm")
    with Editor(demo, method=method, progress=False, answers=False) as editor:
        (patch,) = editor.edit(facts).delta.patches
    for i, fact in enumerate(facts):
        row = encode(demo.tokenizer, fact.text, fact.target_new)
        at, seen = row.predicting[0], {}

        def hook(module, args, output, at=at, seen=seen):
            seen.setdefault("key", args[0][0, at].detach())
            seen.setdefault("value", output[0, at].detach().clone().requires_grad_(True))
            changed = output.clone()
            changed[0, at] = seen["value"]
            return changed

        handle = demo.down(patch.layer).register_forward_hook(hook)
        adam = None
        for _ in range(5):
            scores = demo.model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
            adam = adam or torch.optim.Adam([seen["value"]], lr=1.0)
            adam.zero_grad()
            (-scores[list(row.predicting), list(row.answer_ids)].mean()).backward()
            adam.step()
        handle.remove()
        torch.testing.assert_close(patch.keys[i], seen["key"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(patch.values[i], seen["value"].detach(), rtol=1e-3, atol=1e-3)


def test_gate_is_the_ball_of_the_nearest_key(demo):
    """Against distances to all keys, one by one."""
    torch.manual_seed(0)
    keys = torch.randn(20, demo.d_k)
    codebook = Codebook(4, keys, torch.randn(20, demo.d_v), torch.arange(20)[:, None], 30.0)
    x = keys[torch.arange(30) % 20] + torch.randn(30, demo.d_k) * torch.linspace(0, 2, 30)[:, None]
    for row, gate in zip(x, codebook.gate(x), strict=True):
        best = min(codebook.balls, key=lambda ball: float((row - keys[ball.key]).norm()))
        assert bool(gate) == (float((row - keys[best.key]).norm()) <= best.radius)
        if gate:
            written = codebook.write(row[None], torch.zeros(1, demo.d_v))[0]
            assert torch.equal(written, codebook.values[best.value])
    assert Delta({}, patches=(codebook,)).layers == (4,)
