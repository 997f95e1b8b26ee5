"""Mixtures of experts: one linear map of a sparse key, one geometry per expert."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from metake.editor import Editor
from metake.errors import MetakeError
from metake.geometry.covariance import collect
from metake.geometry.operator import Ridge
from metake.geometry.per_expert import PerExpert
from metake.geometry.statistics import Statistics
from metake.models.editable import EditableModel
from metake.models.load import load
from metake.models.save import save_model
from metake.models.trace import run
from metake.requests import EditRequest
from metake.texts import default_text
from tests.cases import GROUPED, method_of

LAYERS = (1, 2)
COUNT = 4
EXPERTS = {"num_experts": COUNT, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
FAMILIES = {
    "mixtral": {**GROUPED, "num_local_experts": COUNT, "num_experts_per_tok": 2, "intermediate_size": 24},
    "qwen3_moe": {**GROUPED, **EXPERTS, "head_dim": 8},
    "qwen2_moe": {**GROUPED, **EXPERTS, "shared_expert_intermediate_size": 16},
    "olmoe": {**GROUPED, **EXPERTS, "intermediate_size": 24},
}
REQUEST = EditRequest("{} lives in", "Nezan Girok", "Oak")
IDS = torch.tensor([[46, 69, 738, 591, 346, 86, 278, 306]])


def network_of(family, **more):
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family, **{**FAMILIES[family], **more})
    ).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return network


@pytest.fixture(params=sorted(FAMILIES))
def network(request):
    return network_of(request.param)


@pytest.fixture
def model(network, demo):
    return EditableModel(network, demo.tokenizer)


def statistics_of(model):
    options = {"tokens": 600, "progress": False}
    return collect(model, model.tokenizer, default_text("demo")[:8000], LAYERS, **options)


@torch.no_grad()
def test_experts_are_one_linear_map_of_a_sparse_key(network, demo):
    """Logits are those of the model itself; values are the weight times keys that are 0 outside two experts."""
    wanted = network(input_ids=IDS).logits[0]
    weights = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    model = EditableModel(network, demo.tokenizer)
    assert all(torch.equal(tensor, weights[key]) for key, tensor in network.state_dict().items())
    trace = run(model, IDS, keys=(1,), values=(1,))
    torch.testing.assert_close(trace.logits[0], wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(network(input_ids=IDS).logits[0], wanted, rtol=1e-4, atol=1e-4)
    keys = trace.keys[1][0]
    assert keys.shape == (IDS.shape[1], model.d_k) == (IDS.shape[1], COUNT * 24)
    torch.testing.assert_close(trace.values[1][0], keys @ model.weight(1).T, rtol=1e-4, atol=1e-4)
    used = keys.reshape(len(keys), COUNT, -1).abs().sum(2) > 0
    assert used.sum(1).tolist() == [2] * len(keys)


@torch.no_grad()
def test_weight_of_experts_is_a_view_of_the_fused_tensor(model):
    """A change of the weight changes the experts' slices, and survives a change of dtype of the model."""
    fused = model.experts[1].module.down_proj
    model.weight(1)[:, 24:48] += 1
    expected = fused[1].clone()
    model.weight(1)[:, 24:48] -= 1
    torch.testing.assert_close(expected - fused[1], torch.ones_like(expected), rtol=0, atol=1e-5)
    model.model.double()
    assert model.weight(1).dtype == torch.float64
    model.weight(1).zero_()
    assert not bool(model.experts[1].module.down_proj.any())


@torch.no_grad()
def test_moments_are_those_of_each_expert(model):
    """C is one matrix per expert: the diagonal blocks of the moment of whole keys, weighted by the router."""
    statistics = statistics_of(model)
    assert statistics[1].shape == model.moment_shape == (COUNT, 24, 24)
    text = model.tokenizer(default_text("demo")[:8000], add_special_tokens=False).input_ids[:600]
    keys = torch.cat(
        [
            run(model, torch.tensor([text[i : i + 128]]), keys=(1,), stop=1).keys[1][0]
            for i in range(0, 600, 128)
        ]
    )
    whole = keys.double().T @ keys.double() / len(keys)
    for expert in range(COUNT):
        part = slice(24 * expert, 24 * expert + 24)
        torch.testing.assert_close(statistics[1][expert].double(), whole[part, part], rtol=1e-3, atol=1e-4)


def test_geometry_per_expert_is_block_diagonal():
    """It is the geometry of the block-diagonal C, for whole solves and the attenuation; an unused expert has a floor."""
    generator = torch.Generator().manual_seed(0)
    roots = torch.randn(3, 5, 9, generator=generator, dtype=torch.float64)
    moment, keys = roots @ roots.transpose(1, 2), torch.randn(15, 4, generator=generator, dtype=torch.float64)
    found = PerExpert.build(moment, lambda each: Ridge(each, 2.0, 0.0))
    wanted = Ridge(torch.block_diag(*moment), 2.0, 0.0)
    for name in ("solve", "gram", "attenuation", "channel"):
        torch.testing.assert_close(
            getattr(found, name)(keys), getattr(wanted, name)(keys), rtol=1e-4, atol=1e-4
        )
    moment[1] = 0
    unused = PerExpert.build(moment, lambda each: Ridge(each, 2.0, 0.0)).attenuation(keys)
    assert bool(torch.isfinite(unused).all())


@pytest.mark.parametrize("method", ["memit", "alphaedit", "metake"])
def test_edit_is_distributed_over_the_experts_of_a_key(method, model, network, tmp_path):
    """The stream moves as solved, only experts of the key change, and the weights return bit for bit."""
    statistics = statistics_of(model)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with torch.no_grad():
        still = run(model, IDS, outputs=(2,), stop=2).outputs[2][0, -1]
    made = method_of(
        model,
        method,
        layers=LAYERS,
        lookup="prompt",
        steps=5,
        meta_steps=3,
        contexts=(),
        lam=0.01,
        keep=0.9,
        l2=0.01,
    )
    editor = Editor(model, method=made, statistics=statistics, answers=False)
    result = editor.edit([REQUEST])
    solved = result.stages[0].solution.shift[0]
    with torch.no_grad():
        row = torch.tensor([model.tokenizer("Nezan Girok lives in").input_ids])
        assert torch.equal(row, IDS)
        moved = run(model, IDS, outputs=(2,), stop=2).outputs[2][0, -1] - still
        own = network(input_ids=IDS).logits[0, -1]
        through = run(model, IDS).logits[0, -1]
    assert solved.norm() > 0.1
    torch.testing.assert_close(moved, solved, rtol=0, atol=1e-3 * float(solved.norm()))
    torch.testing.assert_close(own, through, rtol=1e-3, atol=1e-3)  # the model's own forward has the edit
    change = result.delta.to_dense(1).reshape(model.d_v, COUNT, -1)
    assert int((change.norm(dim=(0, 2)) > 1e-9).sum()) == 2
    result.delta.save(tmp_path)
    editor.revert()
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_edit_of_a_mixture_makes_the_target_likely(network, demo):
    """An edit through the experts of the key reads back as the most likely token."""
    with torch.no_grad():
        network.get_output_embeddings().weight.mul_(8)  # so that a target can become likely
    model = EditableModel(network, demo.tokenizer)
    found = {"layers": LAYERS, "lookup": "prompt", "contexts": (), "lam": 0.01, "clamp": 4.0, "steps": 60}
    free = {"meta_steps": 60, "lr": 0.5, "meta_lr": 0.2, "decay": 0.0, "kl": 0.0, "locality": 0.0}
    method = method_of(model, "metake", **found, **free)
    target = demo.tokenizer(" Oak", add_special_tokens=False).input_ids[-1]

    def probability():
        with torch.no_grad():
            return float(network(input_ids=IDS).logits[0, -1].softmax(-1)[target])

    assert probability() < 0.01
    with Editor(model, method=method, statistics=statistics_of(model), answers=False) as editor:
        editor.edit([REQUEST])
        assert probability() > 0.8


def test_mixture_is_saved_loaded_and_generates(demo, tmp_path):
    """The layout in memory is not seen by other code."""
    model = EditableModel(network_of("qwen3_moe"), demo.tokenizer)
    save_model(model, tmp_path / "moe")
    again = load(tmp_path / "moe", device="cpu")
    assert again.fingerprint() == model.fingerprint()
    assert again.ask("Nezan Girok lives in", max_new_tokens=3) == model.ask(
        "Nezan Girok lives in", max_new_tokens=3
    )


def test_statistics_of_a_mixture_survive_saving(model, tmp_path):
    statistics = statistics_of(model)
    statistics.save(tmp_path / "s.safetensors")
    again = Statistics.load(tmp_path / "s.safetensors")
    again.check(model, LAYERS)
    assert torch.equal(again[1], statistics[1])


def test_experts_of_another_form_are_refused():
    network = network_of("qwen3_moe")
    experts = network.model.layers[0].mlp.experts
    experts.register_parameter("down_proj_bias", torch.nn.Parameter(torch.zeros(4, 32)))
    with pytest.raises(MetakeError, match=r"mlp\.experts\.down_proj: the experts' tensors have another form"):
        EditableModel(network)


def test_layers_without_experts_in_a_mixture_are_refused_in_one_line():
    """Families whose first blocks are dense have another down-projection there."""
    with pytest.raises(MetakeError, match=r"no module .mlp\.experts\.down_proj.") as refused:
        EditableModel(network_of("qwen3_moe", mlp_only_layers=[0]))
    assert "\n" not in str(refused.value)
