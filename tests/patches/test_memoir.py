"""MEMOIR: masks and the memory against loops; the training against automatic differentiation of the whole model."""

import pytest
import torch

from metake.editor import Editor
from metake.errors import MetakeError
from metake.models.tokens import encode
from metake.patches.memoir import ResidualMemory
from metake.presets import settings_for
from metake.prompts import templates


def mask_of(x, mean, order, size):
    """Columns of a token, with Python's sort."""
    largest = sorted(range(len(x)), key=lambda i: -abs(float(x[i] - mean[i])))[:size]
    return {int(order[i]) for i in largest}


def test_token_reads_the_memory_through_the_mask_that_it_matches():
    """Above the threshold the columns of the edit's mask; below nothing."""
    torch.manual_seed(0)
    d_v, d_k, size = 3, 12, 4
    order, mean = torch.randperm(d_k), torch.randn(d_k)
    masks = torch.stack([torch.randperm(d_k)[:size] for _ in range(5)])
    patch = ResidualMemory(0, torch.randn(d_v, d_k), masks, mean, order, 0.7)
    x, y = torch.randn(60, d_k), torch.randn(60, d_v)
    opened = 0
    for token, before, after in zip(x, y, patch(x, y), strict=True):
        own = mask_of(token, mean, order, size)
        shares = [len(own & set(mask.tolist())) / size for mask in masks]
        wanted = before
        if max(shares) >= 0.7:
            columns = masks[shares.index(max(shares))]
            wanted = before + patch.memory[:, columns] @ token[columns]
            opened += 1
        torch.testing.assert_close(after, wanted)
    assert 0 < opened < 60


def test_memories_add_up_and_keep_all_masks():
    torch.manual_seed(0)
    order, mean = torch.randperm(8), torch.zeros(8)
    first = ResidualMemory(0, torch.randn(2, 8), torch.tensor([[1, 2]]), mean, order, 0.5)
    second = ResidualMemory(0, torch.randn(2, 8), torch.tensor([[3, 4]]), mean, order, 0.5)
    both = first.joined(second)
    assert torch.equal(both.memory, first.memory + second.memory)
    assert both.masks.tolist() == [[1, 2], [3, 4]]
    other = ResidualMemory(0, second.memory, second.masks, mean, order.flip(0), 0.5)
    with pytest.raises(
        MetakeError, match="two memoir patches of layer 0 that select columns in different ways"
    ):
        first.joined(other)


def test_memory_is_that_of_autograd_over_the_whole_model(demo, facts):
    """Clipped gradient descent, by plain forward passes of one row at a time."""
    method = settings_for(demo, "memoir", memory_steps=3)
    with Editor(demo, method=method, progress=False, answers=False) as editor:
        (patch,) = editor.edit(facts[0]).delta.patches
        contexts = editor.contexts
    fact, size = facts[0], patch.masks.shape[1]
    rows = [encode(demo.tokenizer, t.replace("{}", fact.text), fact.target_new) for t in templates(contexts)]
    wanted = torch.zeros(demo.d_v, demo.d_k, requires_grad=True)

    def hook(module, args, output):
        added = []
        for token in args[0][0].detach():
            own = mask_of(token, patch.mean, patch.order, size)
            shares = [len(own & set(mask.tolist())) / size for mask in patch.masks]
            columns = patch.masks[shares.index(max(shares))]
            added.append(wanted[:, columns] @ token[columns] * (max(shares) >= patch.threshold))
        return output + torch.stack(added)[None]

    handle = demo.down(patch.layer).register_forward_hook(hook)
    for _ in range(3):
        losses = []
        for row in rows:
            scores = demo.model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
            losses.append(-scores[list(row.predicting), list(row.answer_ids)].mean())
        (gradient,) = torch.autograd.grad(torch.stack(losses).mean(), [wanted])
        gradient = gradient * min(1.0, 1.0 / float(gradient.norm()))
        wanted = (wanted - gradient).detach().requires_grad_(True)
    handle.remove()
    torch.testing.assert_close(patch.memory, wanted.detach(), rtol=1e-3, atol=1e-4)
