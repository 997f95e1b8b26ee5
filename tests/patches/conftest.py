"""Editors and patches that the tests of this folder share."""

import pytest
import torch

from metake.editor import Editor
from metake.patches.grace import Codebook
from metake.presets import settings_for

QUICK = {
    "grace": {"value_steps": 30},
    "wise": {"side_steps": 15},
    "memoir": {"memory_steps": 15},
    "rep": {"layers": (2, 3), "adapter_steps": 3, "steps": 20, "lam": 100.0, "lr": 0.3},
}


@pytest.fixture(scope="session")
def facts(records):
    """Four requests."""
    return [record.request for record in records[:4]]


@pytest.fixture(scope="session")
def editor_of(demo, statistics_of):
    """Editor of the demo model with a gated memory, and settings that take a second."""

    def make(name, answers=False, **changes):
        method = settings_for(demo, name, **{**QUICK.get(name, {}), **changes})
        statistics = statistics_of(demo) if method.needs_statistics else None
        return Editor(demo, method=method, statistics=statistics, answers=answers, progress=False)

    return make


@pytest.fixture(scope="session", params=sorted(QUICK))
def edited(request, facts, editor_of):
    """Name of a gated memory, and the total delta of two batches."""
    with editor_of(request.param) as editor:
        editor.edit(facts[:2])
        editor.edit(facts[2:])
        return request.param, editor.delta


@pytest.fixture
def codebook(demo):
    """A codebook of three edits with keys far from any that the model computes."""
    generator = torch.Generator().manual_seed(0)
    keys = 100 + torch.randn(3, demo.d_k, generator=generator)
    values = torch.randn(3, demo.d_v, generator=generator)
    return Codebook(4, keys, values, torch.tensor([[1, -1], [2, 3], [1, -1]]), 1.0)
