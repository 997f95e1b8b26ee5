"""WISE: routing, merges and joining against loops; the training against automatic differentiation of the whole model."""

import pytest
import torch

from metake.editor import Editor
from metake.models.tokens import encode
from metake.patches.wise import SideMemory, merged_by_ties
from metake.presets import settings_for
from metake.prompts import templates


def memory(changes, floors, counts, full=2, copies=2):
    return SideMemory(0, changes, torch.tensor(floors), torch.tensor(counts), 0.5, full, copies, 0.5)


def test_token_takes_the_change_with_the_largest_activation():
    """Among those above their own threshold, one token after the other."""
    torch.manual_seed(0)
    changes, x, y = torch.randn(3, 4, 6), torch.randn(40, 6), torch.randn(40, 4)
    patch = memory(changes, [4.0, 8.0, 14.0], [2, 2, 1])
    opened = 0
    for token, before, after in zip(x, y, patch(x, y), strict=True):
        activations = [float((change @ token).norm()) for change in changes]
        usable = [i for i in range(3) if activations[i] > 0.5 * float(patch.floors[i])]
        wanted = before
        if usable:
            wanted = before + changes[max(usable, key=activations.__getitem__)] @ token
            opened += 1
        torch.testing.assert_close(after, wanted)
    assert 0 < opened < 40


def test_ties_merges_entry_by_entry():
    """Largest half of each change; mean of the entries with the sign of their sum; 0 without any."""
    torch.manual_seed(1)
    changes = torch.randn(3, 4, 5)
    kept = [c * (c.abs() >= c.abs().flatten().sort(descending=True).values[9]) for c in changes]
    for i in range(4):
        for j in range(5):
            entries = [float(c[i, j]) for c in kept]
            sign = 1 if sum(entries) >= 0 else -1
            agreeing = [e for e in entries if e * sign > 0]
            wanted = sum(agreeing) / len(agreeing) if agreeing else 0.0
            assert float(merged_by_ties(changes, 0.5)[i, j]) == pytest.approx(wanted, abs=1e-6)


def test_later_edits_fill_the_side_copy_and_full_ones_merge():
    """Two edits per copy, merged at four."""
    torch.manual_seed(2)
    changes = torch.randn(4, 3, 3)
    held = memory(changes[:1], [3.0], [1])
    held = held.joined(memory(changes[1:3], [2.0, 5.0], [1, 1]))
    torch.testing.assert_close(held.changes, torch.stack([changes[0] + changes[1], changes[2]]))
    assert held.counts.tolist() == [2, 1]
    assert held.floors.tolist() == [2.0, 5.0]
    held = held.joined(memory(changes[3:], [1.0], [1]))
    wanted = merged_by_ties(torch.stack([changes[0] + changes[1], changes[2] + changes[3]]), 0.5)
    torch.testing.assert_close(held.changes, wanted[None])
    assert held.counts.tolist() == [4]
    assert held.floors.tolist() == [1.0]


def test_batches_fill_copies_as_one_batch_does(demo, facts):
    """Copies of two edits: the counts are those of the edits, however they are divided into batches."""
    method = settings_for(demo, "wise", side_steps=2, save_freq=2, merge_copies=4)
    counts = []
    for sizes in ([3, 1], [1, 3], [4]):
        with Editor(demo, method=method, progress=False, answers=False) as editor:
            start = 0
            for size in sizes:
                editor.edit(facts[start : start + size])
                start += size
            counts.append(editor.delta.patches[0])
    assert all(patch.counts.tolist() == [2, 2] for patch in counts)
    for patch in counts[1:]:
        torch.testing.assert_close(patch.changes, counts[0].changes, rtol=1e-3, atol=1e-5)


def test_side_copy_is_that_of_autograd_over_the_whole_model(demo, facts):
    """Masked gradient descent with three margins, by plain forward passes of one row at a time."""
    method = settings_for(demo, "wise", side_steps=3, side_lr=0.5, alpha=0.0, beta=3.0, gamma=1.0)
    with Editor(demo, method=method, progress=False, answers=False) as editor:
        (patch,) = editor.edit(facts[0]).delta.patches
        contexts = editor.contexts
    spec, fact, module = method.patch, facts[0], demo.down(patch.layer)
    rows = [encode(demo.tokenizer, t.replace("{}", fact.text), fact.target_new) for t in templates(contexts)]
    mask = (
        torch.rand(demo.d_v, demo.d_k, generator=torch.Generator().manual_seed(0)) < spec.mask_ratio
    ).float()
    change, keys = torch.zeros(demo.d_v, demo.d_k, requires_grad=True), []

    def hook(module, args, output):
        keys.append(args[0][0].detach())
        return output + args[0] @ change.T

    def activation(x):
        return ((x @ change.T).square().sum(-1) + 1e-12).sqrt().mean()

    handle = module.register_forward_hook(hook)
    for _ in range(3):
        keys.clear()
        losses = []
        for row in rows:
            scores = demo.model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
            losses.append(-scores[list(row.predicting), list(row.answer_ids)].mean())
        inside = torch.stack([activation(k[list(r.predicting)]) for k, r in zip(keys, rows, strict=True)])
        demo.model(torch.tensor([encode(demo.tokenizer, contexts[0]).ids]))
        outside = activation(keys[-1])
        total = torch.stack(losses).mean()
        for violation in (outside - inside + 1.0, outside[None] - 0.0, 3.0 - inside):
            if bool((violation > 0).any()):
                total = total + violation[violation > 0].mean()
        (gradient,) = torch.autograd.grad(total, [change])
        change = (change - 0.5 * mask * gradient).clamp(-1, 1).detach().requires_grad_(True)
    handle.remove()
    torch.testing.assert_close(patch.changes[0], change.detach(), rtol=1e-3, atol=1e-4)
