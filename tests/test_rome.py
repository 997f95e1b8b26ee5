"""ROME against its published formulas, with dense matrices and plain passes of the model."""

import pytest
import torch

from metake.editor import Editor
from metake.methods.table import method_named
from metake.models.tokens import encode

CONTEXTS = ("The mill is dark", "It rained in the valley")
LAYER = 3


@torch.no_grad()
def keys_and_output(demo, request):
    """Keys at the subject's last token, the bare prompt's first, and the down-projection's output at the bare one."""
    down, seen = demo.down(LAYER), {}
    handle = down.register_forward_hook(lambda _, inputs, output: seen.update(key=inputs[0], value=output))
    keys, value = [], None
    try:
        lead = request.prompt.split("{}")[0]
        for text in ("", *(f"{context}. " for context in CONTEXTS)):
            ids = encode(demo.tokenizer, text + lead + request.subject).ids
            demo.model(torch.tensor([ids]))
            keys.append(seen["key"][0, -1].double())
            value = seen["value"][0, -1].double() if value is None else value
    finally:
        handle.remove()
    return torch.stack(keys), value


def published_update(moment, keys, residual):
    """Delta = right left^T: left is C^-1 times the mean key, right the missing value over <bare key, left>."""
    left = torch.linalg.solve(moment.double(), keys.mean(0))
    left = left / left.norm()
    right = residual / (keys[0] @ left)
    return right[:, None] * left[None]


@pytest.mark.parametrize("count", [1, 2])
def test_rome_equals_the_published_update(demo, statistics_of, records, count):
    """One request after the other: the second on the model that holds the first."""
    method = method_named("rome", (LAYER,)).updated(
        contexts=CONTEXTS, steps=6, jitter=0.0, lam=1.0, clamp=None
    )
    requests = [record.request for record in records[:count]]
    statistics = statistics_of(demo)
    with Editor(demo, method=method, statistics=statistics, answers=False) as editor:
        result = editor.edit(requests)
        total, stages = result.delta.to_dense(LAYER), result.stages
    found = torch.zeros_like(total)
    weight = demo.weight(LAYER)
    original = weight.detach().clone()
    try:
        for request, stage in zip(requests, stages, strict=True):
            keys, _ = keys_and_output(demo, request)
            update = published_update(statistics[LAYER], keys, stage.targets.residuals[0].double())
            found += update
            with torch.no_grad():
                weight += update.to(weight)
    finally:
        with torch.no_grad():
            weight.copy_(original)
    assert float((total - found).norm() / found.norm()) < 1e-4  # keys and weights are fp32


def test_rome_differs_with_the_mean_of_memit(demo, statistics_of, records):
    """The mean of MEMIT's code is another update.

    The variants are different algorithms, with different names.
    """
    numbers = {"contexts": CONTEXTS, "steps": 6, "clamp": None}
    updates = {}
    for name in ("rome", "rome + bare-and-contexts", "rome + context-mean"):
        method = method_named(name, (LAYER,)).updated(**numbers)
        with Editor(demo, method=method, statistics=statistics_of(demo), answers=False) as editor:
            updates[name] = editor.edit(records[0].request).delta.to_dense(LAYER)
    rome = updates.pop("rome")
    for other in updates.values():
        assert float((other - rome).norm() / rome.norm()) > 1e-3
