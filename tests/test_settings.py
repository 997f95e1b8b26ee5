"""Settings, presets and their documentation."""

from pathlib import Path
from types import SimpleNamespace

import annotated_types
import pytest
import torch

from metake.components import families
from metake.errors import MetakeError
from metake.files import read_json
from metake.methods.combinators import metake
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.settings import choice_names, describe_settings, setting_names
from metake.methods.table import METHODS, describe_methods, find_method, method_named
from metake.methods.ultraedit import UltraEdit
from metake.models.editable import EditableModel
from metake.models.load import load
from metake.presets import PRESETS, default_layers, preset_name, settings_for
from tests.cases import tiny


def test_documentation_lists_the_settings():
    text = (Path(__file__).resolve().parents[1] / "docs" / "settings.md").read_text()
    assert describe_settings() in text


def test_documentation_lists_the_methods():
    text = (Path(__file__).resolve().parents[1] / "docs" / "methods.md").read_text()
    assert describe_methods() in text


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.json")), ids=lambda p: p.stem)
def test_presets_are_valid(path):
    """Its methods exist by their names and have every one of its numbers, each within its bounds."""
    content = read_json(path)
    needed = {"names", "model", "common", "methods"}
    assert needed <= set(content) <= {*needed, "geometries", "sources"}
    assert set(content.get("geometries", {})) <= set(families()["geometry"])
    assert set(content["common"]) <= set(setting_names())
    for method in {*METHODS, *content["methods"]}:
        made, own = method_named(method, (0,)), content["methods"].get(method, {})
        geometry = made.geometry.kind if isinstance(made, LocateThenEdit) else ""
        shared = {**content["common"], **content.get("geometries", {}).get(geometry, {})}
        assert made.supported_changes(own) == own, method
        numbers = {**made.supported_changes(shared), **own}
        assert not set(numbers) & set(choice_names())
        changed = made.updated(**numbers)
        assert changed.name == method  # numbers change no algorithm
        for name, value in numbers.items():
            assert changed.value(name) == (tuple(value) if isinstance(value, list) else value)


class StandIn(EditableModel):
    d_v = d_k = 0

    """What is read of a model to find its preset, without its weights."""

    def __init__(self, type, layers, d_v, d_k, vocabulary, name=""):
        config = SimpleNamespace(model_type=type)
        embedding = SimpleNamespace(weight=torch.empty(vocabulary, 0))
        self.model = SimpleNamespace(config=config, get_input_embeddings=lambda: embedding, name_or_path=name)
        self.layers, self.d_v, self.d_k = layers, d_v, d_k

    def __len__(self):
        return self.layers

    def check_layers(self, layers):
        assert 0 <= min(layers) <= max(layers) < self.layers

    def fingerprint(self, layers):
        return "another"


GPT2_XL = ("gpt2", 48, 1600, 6400, 50257)
SMOLLM2 = ("llama", 30, 576, 1536, 49152)


def values(method, *names):
    return tuple(method.value(name) for name in names)


def test_presets_of_the_papers_models_are_the_published_ones():
    xl = settings_for(StandIn(*GPT2_XL), "memit")
    assert xl.layers == (13, 14, 15, 16, 17)
    assert values(xl, "lam", "lr", "steps", "clamp") == (20000, 0.5, 20, 0.75)
    gptj = settings_for(StandIn("gptj", 28, 4096, 16384, 50400), "alphaedit")
    assert (gptj.layers, *values(gptj, "threshold", "l2")) == ((3, 4, 5, 6, 7, 8), 0.02, 10)
    blue = settings_for(StandIn(*GPT2_XL), "alphaedit-blue")
    assert (*values(blue, "threshold", "l2"), blue.allocation.kind) == (0.02, 80, "boundary")
    rome = settings_for(StandIn(*GPT2_XL), "rome")
    assert (rome.layers, rome.value("clamp")) == ((17,), 4)
    assert (rome.group, rome.fit, rome.allocation.kind) == (1, "equality_constrained", "last")
    llama = settings_for(StandIn("llama", 32, 4096, 14336, 128256), "memit")
    assert (*values(llama, "lr", "lam"), llama.torch_dtype) == (0.1, 15000, torch.float64)


NEEDS_LEAST_SQUARES = (
    r"^settings: cost_weight requires fit=least_squares; an equality-constrained solve has no such trade-off$"
)


def test_updated_refuses_a_cost_without_closed_soft_loop(demo):
    """Only a closed loop over a least-squares fit has a cost."""
    priced = settings_for(demo, "metake-priced")
    assert priced.value("cost_weight") > 0
    with pytest.raises(MetakeError, match=NEEDS_LEAST_SQUARES):
        priced.updated(fit="equality_constrained")
    with pytest.raises(MetakeError, match=NEEDS_LEAST_SQUARES):
        LocateThenEdit(layers=(1,), fit="equality_constrained", planner=priced.planner)
    with pytest.raises(MetakeError, match=NEEDS_LEAST_SQUARES):
        metake(METHODS["emmet"].build((1,)), cost_weight=0.5)
    assert metake(METHODS["emmet"].build((1,))).value("cost_weight") == 0
    with pytest.raises(MetakeError, match="has no cost_weight; it is a setting of planner closed-loop"):
        priced.updated(planner="open-loop", cost_weight=0.5)


@pytest.mark.parametrize("order", [("cost_weight", "fit"), ("fit", "cost_weight")])
def test_updated_makes_changes_together(demo, order):
    """Changes that go together are made together.

    Whatever their order: what is refused is the result, not what it would be half-way.
    """
    changes = {"cost_weight": 0.0, "fit": "equality_constrained"}
    made = settings_for(demo, "metake-priced").updated(**{name: changes[name] for name in order})
    assert values(made, *order) == tuple(changes[name] for name in order)


def test_settings_for_a_row_without_preset_uses_a_similar_row(demo):
    """A row without a preset takes that of the row it is like."""
    like = settings_for(demo, "memit", name="demo")
    emmet = settings_for(demo, "emmet", name="demo")
    assert "emmet" not in read_json(PRESETS / "demo.json")["methods"]
    assert (emmet.layers, *values(emmet, "lam", "lr")) == (like.layers, *values(like, "lam", "lr"))
    assert (emmet.fit, like.fit) == ("equality_constrained", "least_squares")
    assert all(row.like in ("", *METHODS) for row in METHODS.values())


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 12, 30, 48])
def test_default_layers_exist(count):
    layers = default_layers(count)
    assert layers
    assert 0 <= layers[0] <= layers[-1] < count


def test_settings_for_prefers_overrides_and_names_errors():
    """Overrides win and errors name the setting."""
    model = EditableModel(tiny("gpt2"))
    assert settings_for(model, "memit", lr=0.25).value("lr") == 0.25
    with pytest.raises(MetakeError, match="unknown 'bogus'"):
        settings_for(model, "memit", bogus=1)
    with pytest.raises(MetakeError, match="keep"):
        settings_for(model, "alphaedit").updated(keep=2)
    with pytest.raises(
        MetakeError, match=r"^settings: memit has no keep; it is a setting of geometry projected; known: "
    ):
        settings_for(model, "memit", keep=0.5)
    with pytest.raises(MetakeError, match="unknown 'x'"):
        find_method("x@label")


@pytest.mark.parametrize("off", range(5))
def test_preset_needs_every_number_of_the_architecture(off):
    assert preset_name(StandIn(*GPT2_XL)) == "gpt2-xl"
    other = [value + (1 if i else "x") if i == off else value for i, value in enumerate(GPT2_XL)]
    assert preset_name(StandIn(*other)) == ""
    assert preset_name(StandIn(*other, name="gpt2-xl")) == ""


def test_preset_needs_weights_or_hub_name():
    """An architecture that many models share is not enough.

    SmolLM has SmolLM2's: the weights decide, or the name on the hub, never a folder's name.
    """
    for name, found in (("", ""), ("smollm2", ""), ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2")):
        assert preset_name(StandIn(*SMOLLM2, name=name)) == found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_preset_is_kept_by_renamed_copies_in_any_dtype(model, dtype, tmp_path):
    """A copy under another name keeps its preset in every dtype.

    A folder's name decided: a renamed copy took other layers and settings, and did not take the edit.
    """
    folder = tmp_path / "renamed"
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    copy = load(str(folder), dtype=dtype, device="cpu")
    assert preset_name(copy) == model.name
    assert settings_for(copy, "metake") == settings_for(model, "metake")


def test_preset_does_not_change_with_an_edit(demo):
    weight = demo.weight(3)
    kept = weight.clone()
    with torch.no_grad():
        weight.add_(1)
        try:
            assert preset_name(demo) == "demo"
        finally:
            weight.copy_(kept)


def test_preset_is_refused_to_a_foreign_folder(demo, tmp_path):
    """A foreign model in a folder of that name does not get the preset.

    Neither another architecture nor the same one with other weights.
    """
    other = load("demo", device="cpu")
    with torch.no_grad():
        other.model.get_input_embeddings().weight.add_(0.01)
    for model in (tiny("gpt2"), other.model):
        folder = tmp_path / str(id(model)) / "demo"
        model.save_pretrained(folder)
        demo.tokenizer.save_pretrained(folder)
        foreign = load(str(folder), device="cpu")
        assert foreign.name == "demo"
        assert preset_name(foreign) == ""
        assert settings_for(foreign, "memit") == settings_for(foreign, "memit", name="none")


EDGES = {  # the least value, whether it is allowed itself, and the greatest one
    "rounds": (1, True, None),
    "window_size": (1, True, None),
    "preserved_weight": (0, False, None),
    "affinity_steps": (0, True, None),
    "group": (1, True, None),
    "attenuation": (0, False, 0.999),
    "lam": (0, False, None),
    "jitter": (0, True, None),
    "l2": (0, False, None),
    "threshold": (0, False, None),
    "keep": (0, False, 1),
    "rect_keep_ratio": (0, False, 1),
    "energy": (0, False, 1),
    "anchor": (0, False, None),
    "cumulative_ratio": (0, False, 0.999),
    "suppression_strength": (0, True, 1),
    "steps": (1, True, None),
    "lr": (0, False, None),
    "kl": (0, True, None),
    "decay": (0, True, None),
    "clamp": (0, False, None),
    "stop_loss": (0, True, None),
    "max_scale": (1, True, None),
    "meta_steps": (0, True, None),
    "meta_lr": (0, False, None),
    "locality": (0, True, None),
    "regularization": (0, True, None),
    "cost_weight": (0, True, None),
    "end_weight": (0, True, None),
    "gradient_lr": (0, False, None),
    "check_every": (1, True, None),
    "max_tokens": (64, True, None),
    "weight_lr": (0, False, None),
    "epochs": (1, True, None),
    "mini_batch": (1, True, None),
    "norm_constraint": (0, False, None),
    "epoch_loss": (0, True, None),
    "map_lr": (0, False, None),
    "rank": (1, True, None),
    "blocks": (1, True, None),
    "fit_batch": (1, True, None),
    "fit_steps": (0, True, None),
    "fit_lr": (0, False, None),
    "fit_clip": (0, False, None),
    "fit_answer": (0, True, None),
    "fit_locality": (0, True, None),
    "fit_length": (1, True, None),
    "fit_depth": (1, True, None),
    "fit_decay": (0, False, 1),
    "fit_norm": (0, True, None),
    "fit_held_out": (0, True, 0.99),
    "fit_every": (1, True, None),
    "fit_patience": (1, True, None),
    "value_lr": (0, False, None),
    "value_steps": (1, True, None),
    "radius": (0, False, None),
    "side_lr": (0, False, None),
    "side_steps": (1, True, None),
    "mask_ratio": (0, False, 1),
    "side_bound": (0, False, None),
    "alpha": (0, True, None),
    "beta": (0, True, None),
    "gamma": (0, True, None),
    "act_ratio": (0, False, None),
    "save_freq": (1, True, None),
    "merge_copies": (2, True, None),
    "density": (0, False, 1),
    "memory_lr": (0, False, None),
    "memory_steps": (1, True, None),
    "mask_share": (0, False, 1),
    "irr_threshold": (0, False, 1),
    "memory_clip": (0, False, None),
    "adapter_lr": (0, False, None),
    "adapter_steps": (1, True, None),
    "adapter_keep": (0, True, None),
    "adapter_rank": (1, True, None),
    "gate_width": (0, False, None),
    "gate_threshold": (0, False, 0.999),
}


# a method that has a number that others lack
OWNERS = {
    "value_lr": "grace",
    "value_steps": "grace",
    "radius": "grace",
    **dict.fromkeys(("side_lr", "side_steps", "mask_ratio", "side_bound", "alpha", "beta", "gamma"), "wise"),
    **dict.fromkeys(("act_ratio", "save_freq", "merge_copies", "density"), "wise"),
    **dict.fromkeys(("memory_lr", "memory_steps", "mask_share", "irr_threshold", "memory_clip"), "memoir"),
    **dict.fromkeys(("adapter_lr", "adapter_steps", "adapter_keep", "adapter_rank"), "rep"),
    **dict.fromkeys(("gate_width", "gate_threshold"), "rep"),
    "window_size": "muke",
    "preserved_weight": "memit + preserved-prompt",
    "affinity_steps": "muke",
    "l2": "alphaedit",
    "threshold": "alphaedit",
    "keep": "alphaedit",
    "rect_keep_ratio": "rect",
    "anchor": "nas",
    "energy": "crispedit",
    **dict.fromkeys(("cumulative_ratio", "suppression_strength"), "sphere"),
    "max_scale": "memit-compensated",
    "meta_steps": "metake",
    "meta_lr": "metake",
    "locality": "metake",
    "regularization": "metake",
    "cost_weight": "metake",
    "gradient_lr": "ultraedit",
    "weight_lr": "ft-m",
    "epochs": "ft-m",
    "mini_batch": "ft-m",
    "norm_constraint": "ft-m",
    "epoch_loss": "ft-m",
    **dict.fromkeys((name for name in EDGES if name.startswith("fit_")), "malmen"),
    **dict.fromkeys(("map_lr", "rank", "blocks"), "malmen"),
}


@pytest.mark.parametrize("name", EDGES)
def test_number_is_taken_within_its_bounds_alone(name):
    """A weight may be nothing, a rate may not; a share is at most the whole."""
    least, allowed, greatest = EDGES[name]
    plain = method_named(OWNERS.get(name, "memit"), (0,))
    path = plain._paths(name)[-1]
    owner = dict(plain.named_components())[path[:-1]]
    whole = isinstance(least, int) and allowed and "int" in str(type(owner).model_fields[path[-1]].annotation)
    inside = [least if allowed else least + 1e-3] + [greatest] * (greatest is not None)
    outside = (
        [least - (1 if whole else 1e-3)] + [least] * (not allowed) + [(greatest or 0) + 0.1] * bool(greatest)
    )
    for value in inside:
        assert plain.updated(**{name: value}).value(name) == value
    for value in outside:
        with pytest.raises(MetakeError, match=rf"^settings: {name}: .* \(got {value}\)"):
            plain.updated(**{name: value})


BOUNDS = (annotated_types.Ge, annotated_types.Gt, annotated_types.Le, annotated_types.Lt)


def test_number_bounds_are_all_tested():
    """Every number with a bound has an edge that is tested."""
    bounded = {
        cls.aliases.get(name, name)
        for kinds in families().values()
        for cls in kinds.values()
        for name, field in cls.model_fields.items()
        if cls.__module__.startswith("metake.") and any(isinstance(m, BOUNDS) for m in field.metadata)
    }
    assert bounded == set(EDGES)


def test_updated_keeps_every_other_setting():
    method = LocateThenEdit(layers=(2, 3), contexts=("x",), geometry="projected").updated(lr=0.3)
    changed = method.updated(kl=0.4)
    assert changed.value("kl") == 0.4
    assert changed.name == method.name
    assert changed.updated(kl=method.value("kl")) == method
    before, after = method.model_dump(), changed.model_dump()
    assert {**after, "planner": {**after["planner"], "kl": method.value("kl")}} == before
    assert method.value("kl") == 0.0625  # the method itself is a value


@pytest.mark.parametrize(
    "change",
    [
        {"rounds": 2},
        {"group": 1},
        {"memory": "past-keys"},
        {"allocation": "spread"},
        {"planner": "open-loop"},
        {"geometry": "ridge"},
    ],
)
def test_ultraedit_has_no_allocation_and_no_groups(change):
    """A gradient step is one of the whole batch to all layers.

    The method has no such choice, so that none has to be refused.
    """
    step = UltraEdit(layers=(0,))
    (name,) = change
    with pytest.raises(MetakeError, match=f"^settings: ultraedit has no {name}; it is a setting of method "):
        step.updated(**change)
    with pytest.raises(MetakeError, match=f"^settings: unknown '{name}'; "):
        UltraEdit(layers=(0,), **change)
    assert step.supported_changes(change) == {}


@pytest.mark.parametrize("planner", ["open-loop", "closed-loop"])
@pytest.mark.parametrize("fit", ["least_squares", "equality_constrained"])
def test_cost_needs_both_a_closed_loop_and_soft_fit(planner, fit):
    fields = {"layers": [0], "fit": fit, "planner": {"kind": planner, "cost_weight": 0.5}}
    if planner == "open-loop":
        with pytest.raises(MetakeError, match=r"^settings: unknown 'cost_weight'"):
            LocateThenEdit(**fields)
    elif fit == "equality_constrained":
        with pytest.raises(MetakeError, match=NEEDS_LEAST_SQUARES):
            LocateThenEdit(**fields)
    else:
        assert LocateThenEdit(**fields).value("cost_weight") == 0.5
