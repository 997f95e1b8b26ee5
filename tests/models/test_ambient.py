"""What a caller switches on around the library changes neither an edit nor a measurement, and stays switched on."""

from contextlib import nullcontext

import pytest
import torch

from metake.editor import Editor
from metake.errors import MetakeError
from metake.geometry.covariance import collect
from metake.models.ambient import exact_device, neutral
from metake.models.trace import frozen
from metake.texts import default_text
from tests.cases import method_of, tiny

QUICK = {"layers": (1, 2), "steps": 3, "meta_steps": 2, "contexts": None, "lam": 1.0}


class Dtype:
    """`torch.set_default_dtype` as a context."""

    def __enter__(self):
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *_):
        torch.set_default_dtype(torch.float32)


AMBIENT = {
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "dtype": Dtype,
    "device": lambda: torch.device("meta"),
}


def state():
    return (
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.get_default_device(),
    )


@pytest.fixture(scope="module")
def edit(demo):
    with torch.inference_mode():  # statistics may have been collected inside it
        statistics = collect(demo, demo.tokenizer, default_text("demo"), (1, 2), tokens=2000, progress=False)
        statistics.moments[1] = statistics.moments[1] + 0  # as one that was read from a file inside it
    method = method_of(demo, "metake", **QUICK)

    def go(records, around):
        with around:
            outside = state()
            editor = Editor(demo.model, demo.tokenizer, method, statistics=statistics)
            eta = editor.preview([records[0].request]).eta
            result = editor.edit(records[0].request)
            assert state() == outside
            weights = demo.weight(2).clone()
            editor.revert()
            return eta, weights, result.delta

    return go


@pytest.mark.parametrize("name", sorted(AMBIENT))
def test_edit_does_not_depend_on_ambient_modes(edit, records, demo, name):
    """An edit is the same whatever is switched on around it."""
    before = demo.fingerprint()
    eta, weights, delta = edit(records, nullcontext())
    other_eta, other_weights, other_delta = edit(records, AMBIENT[name]())
    assert torch.equal(eta, other_eta)
    assert torch.equal(weights, other_weights)
    assert torch.equal(delta.factors[2][0], other_delta.factors[2][0])
    assert demo.fingerprint() == before


@pytest.mark.parametrize("mode", ["inference", "no_grad"])
@pytest.mark.parametrize("name", ["grace", "wise", "memoir", "rep", "ultraedit", "ft-m"])
def test_methods_that_compute_gradients_do_so_without_the_callers(demo, records, name, mode):
    """An edit of every kind of method is the same inside `no_grad` and inference mode."""
    requests = [record.request for record in records[:2]]
    method = method_of(demo, name, **{"epochs": 3} if name == "ft-m" else {})

    def after(around):
        with around, Editor(demo, method=method, progress=False) as editor:
            editor.edit(requests)
            with torch.no_grad():
                return demo.model(torch.tensor([[1, 2, 3, 4]])).logits.clone()

    assert torch.equal(after(nullcontext()), after(AMBIENT[mode]()))


def test_editor_refuses_a_model_made_in_inference_mode(demo):
    with torch.inference_mode():
        inside = tiny("gpt2")
    with pytest.raises(MetakeError, match=r"created inside torch\.inference_mode\(\).*outside it$"):
        Editor(inside, demo.tokenizer, "ultraedit")


def test_frozen_restores_every_modules_mode(demo):
    """Frozen puts every module's mode back."""
    blocks = demo.blocks
    blocks[0].train()
    try:
        with frozen(demo.model):
            assert not blocks[0].training
        assert blocks[0].training
        assert not blocks[1].training
    finally:
        blocks[0].eval()


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("name", sorted(AMBIENT))
def test_neutral_resets_modes_but_the_gradient_mode(name, gradients):
    """Neutral is PyTorch as it starts with the caller's gradient mode.

    Also after a failure everything is as the caller had it.
    """

    def fails():
        with neutral():
            assert state() == (False, outside[1], False, torch.float32, torch.device("cpu"))
            raise KeyError

    with AMBIENT[name](), torch.set_grad_enabled(gradients):
        outside = state()
        with pytest.raises(KeyError):
            fails()
        assert state() == outside
    assert state() == (False, True, False, torch.float32, torch.device("cpu"))


def test_exact_device_of_an_apple_gpu_is_the_cpu():
    """Apple GPUs have no fp64: sums and solves in fp64 run on the CPU, others on their device."""
    assert exact_device(torch.device("mps")) == torch.device("cpu")
    for kind in ("cpu", "cuda"):
        assert exact_device(torch.device(kind, 0)) == torch.device(kind, 0)


def test_geometry_of_a_model_on_an_apple_gpu_solves_on_the_cpu(demo, statistics_of, monkeypatch):
    """With weights that say that they are on an Apple GPU, statistics, solve and update are formed on the CPU."""
    method = method_of(demo, "memit", layers=(1,))
    state = method.init(demo, statistics_of(demo))
    weight = demo.weight(1)

    class OnAppleGpu:
        device, dtype, shape = torch.device("mps"), weight.dtype, weight.shape

    wanted = method.geometry_at(demo, method.init(demo, statistics_of(demo)), 1)
    monkeypatch.setattr(type(demo), "weight", lambda *_: OnAppleGpu)
    geometry = method.geometry_at(demo, state, 1)
    assert geometry.device == torch.device("cpu")
    keys = torch.randn(512, 3)
    assert torch.equal(geometry.attenuation(keys), wanted.attenuation(keys))
