"""Models as users hold them: wrapped, compiled, adapted, sharded, offloaded, computed, shared, hooked."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from metake.deltas import Delta
from metake.errors import MetakeError
from metake.models.editable import EditableModel
from metake.models.modules import FAMILIES, ModuleMap
from metake.models.trace import frozen, run
from tests.cases import DESCRIBED, tiny

IDS = torch.tensor([[5, 9, 17, 30, 2, 7]])


class Mixing(nn.Module):
    """Blocks whose FFN output passes to the next token too."""

    class Block(nn.Module):
        def __init__(self, mix, twice):
            super().__init__()
            self.up, self.down, self.mix, self.twice = nn.Linear(8, 16), nn.Linear(16, 8), mix, twice

        def forward(self, stream):
            for _ in range(1 + self.twice):
                written = self.down(self.up(stream).relu())
                stream = stream + written + self.mix * written.roll(1, 1)
            return stream

    def __init__(self, mix=0.0, twice=False, arguments=()):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(100, 8), nn.Linear(8, 100)
        self.blocks = nn.ModuleList([self.Block(0.0, False), self.Block(mix, twice)])
        self.arguments = arguments

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids, use_cache=False, **more):
        if len(more) < len(self.arguments):
            raise TypeError(f"{self.arguments} are missing")
        stream = self.embed(input_ids)
        for block in self.blocks:
            stream = block(stream)
        return SimpleNamespace(logits=self.head(stream))


MIXING = ModuleMap("blocks", "down", "head")


def one_line(call, *words):
    """The refusal, which has all the words and no line end."""
    with pytest.raises(MetakeError) as refused:
        call()
    text = str(refused.value)
    assert "\n" not in text
    for word in words:
        assert word in text
    return text


@torch.no_grad()
def shift(network, modules=None, layer=1):
    """What a delta does to a plain pass of the model as the user calls it; a virtual edit does the same."""
    model = EditableModel(network, modules=modules)
    torch.manual_seed(0)
    factors = {layer: (torch.randn(model.d_v, 1), torch.randn(model.d_k, 1))}
    still = network(input_ids=IDS).logits
    virtual = run(model, IDS, edits=factors).logits
    with Delta(factors, "", {}).applied(model):
        written = network(input_ids=IDS).logits
    again = network(input_ids=IDS).logits
    assert torch.equal(again, still)
    assert (written - still).abs().max() > 1e-2
    torch.testing.assert_close(virtual, written, rtol=1e-3, atol=1e-3)
    return written - still


def compiled_whole(model):
    return torch.compile(model, backend="eager")


def compiled_in_place(model):
    model.compile(backend="eager")
    return model


def compiled_blocks(model):
    for i, block in enumerate(model.blocks):
        model.blocks[i] = torch.compile(block, backend="eager")
    return model


def compiled_down(model):
    for block in model.blocks:
        block.down = torch.compile(block.down, backend="eager")
    return model


WRAPPED = {
    "compiled": compiled_whole,
    "compiled in place": compiled_in_place,
    "compiled blocks": compiled_blocks,
    "compiled down-projections": compiled_down,
    "data parallel": nn.DataParallel,
    "compiled, data parallel": lambda model: nn.DataParallel(compiled_whole(model)),
}


@pytest.mark.parametrize("how", sorted(WRAPPED))
def test_editable_model_looks_through_wrappers_that_share_weights(how):
    wanted, plain = shift(Mixing(), MIXING), EditableModel(Mixing(), modules=MIXING).fingerprint()
    network = WRAPPED[how](Mixing())
    with torch.no_grad():  # compiled before any hook is there, which such a pass then does not call
        network(input_ids=IDS)
    torch.testing.assert_close(shift(network, MIXING), wanted, rtol=1e-4, atol=1e-4)
    model = EditableModel(network, modules=MIXING)
    assert len(model) == 2
    assert (model.fingerprint() == plain) == (how != "compiled down-projections")  # of a block's own names
    assert run(model, IDS, keys=(0, 1)).keys.keys() == {0, 1}


def test_editable_model_looks_through_distributed_replicas(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(tiny("llama"))
        torch.testing.assert_close(shift(model), shift(tiny("llama")))
    finally:
        torch.distributed.destroy_process_group()


def test_editable_model_refuses_sharded_weights(tmp_path):
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        model = fully_shard(tiny("llama"), mesh=mesh)
        one_line(lambda: EditableModel(model), "sharded", "before it is sharded")
    finally:
        torch.distributed.destroy_process_group()


def test_editable_model_refuses_weights_flattened_by_fsdp():
    """FSDP's own name of a parameter that holds a shard of several weights."""

    class FlatParameter(nn.Parameter):
        pass

    model = tiny("llama")
    model.model.norm.weight = FlatParameter(torch.ones(32))
    text = one_line(lambda: EditableModel(model), "model: model.norm.weight is sharded (FSDP")
    assert text.endswith("edit the model before it is sharded, or shard its layers with device auto")


@pytest.mark.parametrize("target", ["down_proj", "q_proj"])
def test_editable_model_refuses_adapters_and_takes_merged_ones(target):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=[target], init_lora_weights=False)
    model = peft.get_peft_model(tiny("llama"), config)
    text = one_line(lambda: EditableModel(model))
    assert text == (
        f"model: {type(model).__name__} has PEFT adapters, which an edit of its weights would not include; "
        "merge them first: model = PeftModel.from_pretrained(base, adapter).merge_and_unload()"
    )
    one_line(lambda: EditableModel(torch.compile(model, backend="eager")), "PEFT adapters")
    merged = model.merge_and_unload()
    assert shift(merged).abs().max() > 1e-2
    inner = tiny("llama")
    peft.inject_adapter_in_model(config, inner)  # as model.add_adapter does
    one_line(lambda: EditableModel(inner), "PEFT adapters", "merge_and_unload()")


class Adapted(nn.Linear):
    """A low-rank adapter by a subclass, as loralib writes it."""

    def forward(self, x):
        return super().forward(x) + x @ self.a @ self.b


def test_editable_model_refuses_subclasses_that_compute_otherwise():
    """A subclass that computes something else is refused."""
    model = tiny("llama")
    old = model.model.layers[2].mlp.down_proj
    new = Adapted(48, 32, bias=False)
    new.weight = old.weight
    new.a, new.b = torch.randn(48, 2), torch.randn(2, 32)
    model.model.layers[2].mlp.down_proj = new
    one_line(lambda: EditableModel(model), "mlp.down_proj of block 2 (Adapted)", "merge or remove")
    new.a = torch.zeros(48, 2)
    assert EditableModel(model).down(2) is new


class Precise(nn.Linear):
    """The same map, summed in fp64 and rounded once."""

    def forward(self, x):
        return (x.double() @ self.weight.double().T).to(x.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_editable_model_takes_subclasses_that_round_otherwise(dtype):
    """A subclass that only rounds otherwise can take an edit."""
    model = tiny("llama").to(dtype)
    new = Precise(48, 32, bias=False)
    new.weight = model.model.layers[2].mlp.down_proj.weight
    model.model.layers[2].mlp.down_proj = new
    assert EditableModel(model).down(2) is new


def test_editable_model_keeps_and_calls_user_hooks():
    model, seen = tiny("llama"), []
    handle = model.model.layers[1].mlp.down_proj.register_forward_hook(lambda *_: seen.append(1))
    shift(model)
    assert seen
    assert list(model.model.layers[1].mlp.down_proj._forward_hooks) == [handle.id]


@pytest.mark.parametrize(
    ("change", "fits"), [(lambda y: y + 3, True), (lambda y: 2 * y, False), (lambda y: y * 0, False)]
)
def test_editable_model_measures_user_hooks_that_change_a_value(change, fits):
    """A constant (a steering vector) leaves the edit's share as it is."""
    model = tiny("llama")
    model.model.layers[1].mlp.down_proj.register_forward_hook(lambda _, __, output: change(output))
    if fits:
        shift(model)
    else:
        one_line(lambda: EditableModel(model), "block 1", "merge or remove the adapter or hook")


def doubled_input(down):
    down.register_forward_pre_hook(lambda _, args: (2 * args[0],))


def doubled_forward(down):
    forward = down.forward
    down.forward = lambda x: 2 * forward(x)


@pytest.mark.parametrize("change", [doubled_input, doubled_forward])
def test_editable_model_measures_modules_around_a_down_projection(change):
    """What is attached in front or in place of a down projection is measured."""
    model = tiny("llama")
    change(model.model.layers[2].mlp.down_proj)
    one_line(
        lambda: EditableModel(model),
        "mlp.down_proj of block 2 (Linear): the output is not the weight times the input",
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_editable_model_takes_every_precision_of_plain_weights(dtype):
    """Every precision of plain weights can take an edit."""
    assert EditableModel(tiny("llama").to(dtype)).weight(0).dtype == dtype


def test_editable_model_refuses_weights_that_are_no_plain_tensors():
    class Packed(torch.Tensor):
        """As libraries of quantization wrap what they have packed."""

    model = tiny("llama")
    down = model.model.layers[1].mlp.down_proj
    down.weight = nn.Parameter(down.weight.detach().as_subclass(Packed))
    one_line(lambda: EditableModel(model), "block 1: the weight is a Packed, not a plain tensor")


COMPUTED = {
    "weight_norm": lambda module: parametrizations.weight_norm(module),
    "the older weight_norm": lambda module: nn.utils.weight_norm(module),
    "spectral_norm": lambda module: parametrizations.spectral_norm(module),
    "pruning": lambda module: prune.l1_unstructured(module, "weight", 0.3),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("how", sorted(COMPUTED))
def test_editable_model_refuses_a_computed_weight(how):
    """A computed weight is refused until it is plain."""
    model = tiny("llama")
    down = model.model.layers[1].mlp.down_proj
    COMPUTED[how](down)
    one_line(
        lambda: EditableModel(model), "block 1", "computed from other parameters", "remove_parametrizations"
    )
    if how == "pruning":
        prune.remove(down, "weight")
    elif how == "the older weight_norm":
        nn.utils.remove_weight_norm(down)
    else:
        nn.utils.parametrize.remove_parametrizations(down, "weight")
    shift(model)


def shared_weight(model):
    model.model.layers[3].mlp.down_proj.weight = model.model.layers[1].mlp.down_proj.weight


def shared_module(model):
    model.model.layers[3].mlp.down_proj = model.model.layers[1].mlp.down_proj


def shared_block(model):
    model.model.layers[3] = model.model.layers[1]


def shared_with_another_kind(model):
    model.model.layers[1].mlp.down_proj.weight.data = model.model.layers[1].mlp.up_proj.weight.data.T


@pytest.mark.parametrize(
    ("share", "also"),
    [
        (shared_weight, "model.layers.3.mlp.down_proj.weight"),
        (shared_module, "another block"),
        (shared_block, "another block"),
        (shared_with_another_kind, "model.layers.1.mlp.up_proj.weight"),
    ],
)
def test_editable_model_refuses_an_edited_shared_projection(share, also):
    """A shared down projection is refused where it is edited."""
    network = tiny("llama")
    share(network)
    model = EditableModel(network)
    assert len(model) == 4
    one_line(
        lambda: model.check_layers((1, 2)), "layers: 1", f"is also that of {also}", "choose another layer"
    )
    model.check_layers((0, 2))
    factors = {1: (torch.ones(32, 1), torch.ones(48, 1))}
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    one_line(lambda: Delta(factors, "", {}).apply(network), "layers: 1")
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_editable_model_refuses_weights_outside_memory(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    offloaded = accelerate.cpu_offload(tiny("llama"), execution_device=torch.device("cpu"))
    one_line(lambda: EditableModel(offloaded), "not in memory", "another device")
    on_disk = accelerate.disk_offload(tiny("llama"), str(tmp_path), execution_device=torch.device("cpu"))
    one_line(lambda: EditableModel(on_disk), "not in memory")
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(tiny("llama").config)
    one_line(lambda: EditableModel(empty), "not in memory")


QUANTIZED = {
    "dynamic": lambda m: torch.ao.quantization.quantize_dynamic(m, {nn.Linear}, dtype=torch.qint8),
    "int8": lambda m: _retype(m, torch.int8),
    "fp8": lambda m: _retype(m, torch.float8_e4m3fn),
}


def _retype(model, dtype):
    for block in model.model.layers:
        block.mlp.down_proj.weight = nn.Parameter(
            block.mlp.down_proj.weight.data.to(dtype), requires_grad=False
        )
    return model


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", sorted(QUANTIZED))
def test_editable_model_refuses_quantized_layers(how):
    model = QUANTIZED[how](tiny("llama"))
    one_line(lambda: EditableModel(model), "mlp.down_proj of block 0", "quantized weights cannot be edited")


@pytest.mark.parametrize("thing", [None, "demo", SimpleNamespace(model=1)])
def test_editable_model_refuses_what_is_no_model(thing):
    one_line(lambda: EditableModel(thing), "a torch module is needed", type(thing).__name__)


WRONG = {
    "empty list": (ModuleMap("transformer.drop", "mlp.c_proj"), "holds no blocks"),
    "other modules": (ModuleMap("transformer", "mlp.c_proj"), "no module 'mlp.c_proj'"),
    "a head that is never run": (
        ModuleMap("transformer.h", "mlp.c_proj", "spare"),
        "spare does not turn the stream",
    ),
    "a head before the stream": (
        ModuleMap("transformer.h", "mlp.c_proj", "transformer.wte"),
        "does not turn the stream",
    ),
    "blocks that are never run": (ModuleMap("idle", "mlp.c_proj"), "block 0 of idle is not run"),
    "attention's input": (ModuleMap("transformer.h", "attn.c_attn"), "has 96 entries, the stream 32"),
    "a projection that is never run": (ModuleMap("transformer.h", "idle"), "never computed"),
}


@pytest.mark.parametrize("why", sorted(WRONG))
def test_editable_model_names_a_wrong_module_map(why):
    modules, reason = WRONG[why]
    model = tiny("gpt2")
    model.spare, model.idle = nn.Linear(32, 1024), copy.deepcopy(model.transformer.h)
    for block in model.transformer.h:
        block.idle = Conv1D(32, 128)
    one_line(lambda: EditableModel(model, modules=modules), reason)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_editable_model_measures_every_block_at_several_tokens():
    modules = MIXING
    assert len(EditableModel(Mixing(), modules=modules)) == 2
    one_line(
        lambda: EditableModel(Mixing(mix=0.01), modules=modules),
        "down of block 1",
        "stream would not receive the edit",
    )
    one_line(lambda: EditableModel(Mixing(twice=True), modules=modules), "down of block 1", "2 times")
    one_line(
        lambda: EditableModel(Mixing(arguments=("pixels",)), modules=modules), "token ids alone", "pixels"
    )


def test_editable_model_refuses_a_projection_of_some_tokens():
    """As the experts of a mixture do."""
    model = Mixing()
    block = model.blocks[1]
    block.forward = lambda stream: (
        stream + nn.functional.pad(block.down(block.up(stream[:, 1:])), (0, 0, 1, 0))
    )
    one_line(
        lambda: EditableModel(model, modules=MIXING),
        "down of block 1",
        "for some tokens only (a mixture of experts?)",
    )


def test_editable_model_refuses_a_reordered_stream():
    """A stream that receives the entries in another order is refused."""
    model = Mixing()
    block = model.blocks[1]
    block.forward = lambda stream: stream + block.down(block.up(stream)).flip(-1)
    one_line(
        lambda: EditableModel(model, modules=MIXING), "down of block 1", "stream would not receive the edit"
    )


def test_editable_model_restores_modes_of_every_module():
    """A user may train a part and leave the rest as it is."""
    network = tiny("opt").train()
    network.model.decoder.layers[1].eval()
    network.model.decoder.embed_tokens.requires_grad_(False)
    modes = [module.training for module in network.modules()]
    wanted = [parameter.requires_grad for parameter in network.parameters()]
    model = EditableModel(network, modules=DESCRIBED["opt"][1])
    assert model.returns_tuples in (True, False)
    with frozen(network):
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())
    assert [module.training for module in network.modules()] == modes
    assert [parameter.requires_grad for parameter in network.parameters()] == wanted


CONFIGURED = {
    "tuples": {"return_dict": False},
    "hidden states": {"output_hidden_states": True},
    "attentions": {"output_attentions": True},
    "no cache": {"use_cache": False},
}


@torch.no_grad()
@pytest.mark.parametrize("how", sorted(CONFIGURED))
def test_run_ignores_output_settings_of_the_configuration(how, family):
    """A pass does not depend on what the configuration returns."""
    wanted = run(EditableModel(tiny(family)), IDS, outputs=(1,), record_from=0)
    network = copy.deepcopy(tiny(family))  # with a configuration of its own
    if how == "attentions":
        network.set_attn_implementation("eager")
    for name, value in CONFIGURED[how].items():
        setattr(network.config, name, value)
    model = EditableModel(network)
    run(model, IDS)  # transformers attaches its own hooks by the first pass

    def attached():
        return [
            (m.__dict__.get("forward"), *m._forward_hooks, *m._forward_pre_hooks) for m in network.modules()
        ]

    before = attached()
    run(model, IDS, stop=1)  # left in the middle
    found = run(model, IDS, outputs=(1,), record_from=0)
    torch.testing.assert_close(found.logits, wanted.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.outputs[1], wanted.outputs[1], rtol=1e-4, atol=1e-4)
    assert found.key_values.keys() == wanted.key_values.keys()
    assert attached() == before
    assert all(getattr(network.config, name) == value for name, value in CONFIGURED[how].items())


@torch.no_grad()
def test_run_ignores_gradient_checkpointing():
    """Gradient checkpointing changes no pass."""
    wanted, network = run(EditableModel(tiny("llama")), IDS, keys=(1,)), tiny("llama").train()
    network.gradient_checkpointing_enable()
    model = EditableModel(network)
    with frozen(network):
        found = run(model, IDS, keys=(1,))
    torch.testing.assert_close(found.logits, wanted.logits, rtol=0, atol=0)
    assert network.is_gradient_checkpointing
    assert FAMILIES[model.family] == model.modules
