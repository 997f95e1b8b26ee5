"""A demo model whose preset is hidden, a few of its facts, and statistics of all candidate layers."""

import pytest
import torch

from metake.geometry.covariance import collect
from metake.texts import default_text


@pytest.fixture(scope="session")
def statistics(demo):
    """Statistics of layers 1 to 4, those of the demo model's candidate windows."""
    return collect(
        demo, demo.tokenizer, default_text("demo"), (0, 1, 2, 3, 4, 5), tokens=6000, progress=False
    )


@pytest.fixture(scope="session")
def requests(records):
    return [record.request for record in records[:3]]


@pytest.fixture
def hidden(monkeypatch, statistics):
    """No model has a preset, and statistics are those of the fixture."""
    monkeypatch.setattr("metake.presets.preset_name", lambda model: "")
    for module in ("metake.statistics_cache", "metake.calibration.locate", "metake.calibration.survey"):
        monkeypatch.setattr(f"{module}.statistics_for", lambda *_, **__: statistics)


@pytest.fixture
def unchanged(demo):
    """The demo model; its weights are the same bits after the test."""
    before = {name: value.clone() for name, value in demo.model.state_dict().items()}
    demo.model.zero_grad(set_to_none=True)  # another file's test may have differentiated the shared model
    yield demo
    after = demo.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(parameter.grad is None for parameter in demo.model.parameters())
