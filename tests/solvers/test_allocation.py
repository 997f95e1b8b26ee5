"""What the attenuation of each layer predicts of all layers together."""

import pytest
import torch

import metake
from metake.geometry.statistics import Provenance
from metake.models.editable import EditableModel
from metake.solvers.allocation import Forward, Spread, describe_shares, predicted_share
from tests.cases import method_of, tiny

LAYERS = (1, 2, 3)


def test_predicted_share_is_that_of_the_missing_residual():
    """MEMIT over three layers, worked out layer by layer: 1/3, 1/2, all of what is still missing."""
    eta = {1: torch.tensor([0.3, 0.9]), 2: torch.tensor([0.4, 0.2]), 3: torch.tensor([0.5, 0.0])}
    done = torch.zeros(2)
    for layer, part in ((1, 1 / 3), (2, 1 / 2), (3, 1)):
        done += part * (1 - done) * eta[layer]
    assert torch.allclose(predicted_share(Spread().stages(LAYERS)[0], eta), done)
    assert torch.equal(predicted_share([(3, 1.0)], eta), eta[3])
    assert torch.equal(
        predicted_share(Spread().stages(LAYERS)[0], eta, "equality_constrained"), torch.ones(2)
    )


@pytest.mark.parametrize(
    ("shares", "fit", "text"),
    [
        ([(3, 1.0)], "least_squares", "eta 3"),
        ([(3, 1.0)], "equality_constrained", "1 (exact fit, independent of eta)"),
        (Spread().stages(LAYERS)[0], "least_squares", "1 - (1 - 0.33 eta 1) (1 - 0.5 eta 2) (1 - eta 3)"),
        (Forward().stages(LAYERS)[0], "least_squares", "1 - (1 - eta 1) (1 - eta 2) (1 - eta 3)"),
        ([(3, 0.5)], "least_squares", "1 - (1 - 0.5 eta 3)"),
    ],
)
def test_describe_shares_names_the_layers_of_a_stage(shares, fit, text):
    """The formula is written with the layers of a stage."""
    assert describe_shares(shares, fit) == text


@pytest.fixture(scope="module")
def constant():
    """A model whose keys are the same whatever it reads: nothing that lower layers write changes them."""
    network = tiny("gpt2")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for block in network.transformer.h:
            block.mlp.c_fc.weight.zero_()
            block.mlp.c_fc.bias.copy_(torch.randn(block.mlp.c_fc.bias.shape, generator=generator))
            block.attn.c_proj.weight.zero_()
    model = EditableModel(network)
    roots = {layer: torch.randn(model.d_k, model.d_k, generator=generator) for layer in LAYERS}
    moments = {layer: torch.eye(model.d_k) + root @ root.T / model.d_k for layer, root in roots.items()}
    return network, metake.Statistics(moments, Provenance.of(model, LAYERS, "text", 10**6, 128))


@pytest.mark.parametrize(
    "method",
    [
        "memit",
        "metake",
        "alphaedit",
        "memit-fe",
        "rome",
        "emmet",
        "alphaedit-blue",
        "memit-iterated",
        "memit-compensated",
    ],
)
@pytest.mark.parametrize("weight", [10.0, 100.0])
def test_preview_equals_execution_where_keys_stay(constant, demo, method, weight):
    """Preview result and execution agree where keys stay.

    For one request alone, by every allocation and fit; eta is far from 0 and 1, so that they differ.
    """
    model, statistics = constant
    changes = {
        "lam": weight,
        "l2": 2 * weight,
        "clamp": None,
        "lr": 0.1,
        "steps": 9,
        "meta_steps": 2,
        "contexts": (),
    }
    chosen = method_of(model, method, layers=LAYERS, **changes)
    editor = metake.Editor(model, demo.tokenizer, chosen, statistics=statistics, answers=False)
    request = metake.EditRequest("The one who works at the {} is a", "market", "baker")
    preview = editor.preview(request)
    result = editor.edit(request)
    editor.revert()
    assert all(0.01 < float(eta) < 0.99 for eta in preview.eta)
    assert (
        chosen.fit == "equality_constrained"
        or float((preview.predicted - preview.eta[-1]).abs()) > 0.01
        or len(editor.method.stages[-1]) == 1
    )
    assert preview.predicted.item() == pytest.approx(result.realized_share.item(), abs=1e-4)
    assert result.predicted.item() == pytest.approx(result.realized_share.item(), abs=1e-4)
    assert f"{preview.predicted.item():.2f}" in str(preview)
    assert set(preview.layers) == {layer for shares in editor.method.stages for layer, _ in shares}
