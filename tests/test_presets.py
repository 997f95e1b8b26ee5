"""Which settings, texts and cached statistics a model gets without a flag."""

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from metake import statistics_cache, texts
from metake.data.world import World
from metake.errors import MetakeError
from metake.models.editable import EditableModel
from metake.presets import default_layers, load_preset, methods_for, settings_for, short_name
from metake.published import read_published
from metake.shipped import DEMOS
from metake.statistics_cache import cache_folder, statistics_for
from metake.texts import default_text, held_out_text
from tests.cases import tiny

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    ("count", "layers"),
    [
        (32, (4, 5, 6, 7, 8)),  # MEMIT's published choice for Llama 2 and 3 of 32 layers
        (24, (3, 4, 5, 6, 7)),
        (30, (4, 5, 6, 7, 8)),
        (48, (7, 8, 9, 10, 11)),
        (23, (3, 4, 5)),
        (12, (2, 3, 4)),
        (6, (1, 2, 3)),
        (4, (1, 2, 3)),
        (3, (0, 1, 2)),
        (2, (0, 1)),
        (1, (0,)),
    ],
)
def test_default_layers_are_five_from_a_seventh_of_depth(count, layers):
    """Default layers are five of a deep model from a seventh of its depth.

    Three of one below 24 layers; all of one below three.
    """
    assert default_layers(count) == layers


@pytest.fixture
def preset(tmp_path):
    path = tmp_path / "preset.json"
    content = {
        "common": {"lr": 0.1, "kl": 0.1, "decay": 0.1, "steps": 1},
        "geometries": {"ridge": {"kl": 0.2, "decay": 0.2, "steps": 2}, "projected": {"kl": 0.9}},
        "methods": {
            "memit": {"decay": 0.3, "steps": 3},
            "memit@own": {"steps": 5},
            "rect": {"clamp": 2.0},
            "rome + past-keys": {"steps": 6},
        },
    }
    path.write_text(json.dumps(content))
    return path


def test_settings_for_combines_defaults_preset_and_changes(preset):
    """Settings are the defaults then common geometry method and what is given."""
    method = settings_for(EditableModel(tiny("gpt2")), "memit", name=preset, steps=4)
    assert method.value("stop_loss") == 0.05
    assert [method.value(name) for name in ("lr", "kl", "decay", "steps")] == [0.1, 0.2, 0.3, 4]
    assert method.layers == default_layers(4)


@pytest.mark.parametrize(
    ("method", "decay", "steps", "clamp"),
    [
        ("memit", 0.3, 3, 0.75),
        ("memit@own", 0.2, 5, 0.75),  # its own part, not beside but in place of the row's
        ("memit@other", 0.3, 3, 0.75),  # a label without a part: the row's
        ("prune", 0.3, 3, 0.75),  # like memit
        ("prune@other", 0.3, 3, 0.75),
        ("rect@other", 0.2, 2, 2.0),  # its row's before that of the row that it is like
        ("metake", 0.2, 2, 0.75),
        ("memit + past-keys", 0.3, 3, 0.75),  # another variant of the row
        ("rome + past-keys", 0.2, 6, 0.75),
        ("rome + past-keys@other", 0.2, 6, 0.75),
        ("rome", 0.2, 6, 0.75),  # the row's variant before the row that it is like
        ("prune + past-keys", 0.3, 3, 0.75),
    ],
)
def test_settings_for_prefers_method_then_row_then_similar_row(preset, method, decay, steps, clamp):
    """A method takes its own part then its rows then that of the row it is like."""
    made = settings_for(EditableModel(tiny("gpt2")), method, name=preset)
    assert [made.value(name) for name in ("decay", "steps", "clamp")] == [decay, steps, clamp]
    assert made.name == method


def test_settings_for_omits_numbers_that_the_method_lacks(tmp_path):
    """Numbers of a part that the method lacks are left out.

    A preset's common part serves every method; a name that no method has is refused.
    """
    path = tmp_path / "preset.json"
    path.write_text(
        json.dumps({"common": {"gradient_lr": 0.5, "meta_steps": 3, "lr": 0.25, "threshold": 1.0}})
    )
    model = EditableModel(tiny("gpt2"))
    assert settings_for(model, "memit", name=path).value("lr") == 0.25
    assert settings_for(model, "metake", name=path).value("meta_steps") == 3
    assert settings_for(model, "alphaedit", name=path).value("threshold") == 1.0
    assert settings_for(model, "ultraedit", name=path).lr == 0.5
    path.write_text(json.dumps({"common": {"stepps": 3}}))
    with pytest.raises(MetakeError, match=r"common: unknown 'stepps'; did you mean 'steps'"):
        settings_for(model, "memit", name=path)


@pytest.mark.parametrize("part", ["common", "geometries", "methods"])
@pytest.mark.parametrize(
    "choice",
    [
        "planner",
        "gradient",
        "start",
        "geometry",
        "memory",
        "fit",
        "rounds",
        "group",
        "merge",
        "allocation",
        "postprocess",
        "keys",
        "hypergradient",
    ],
)
def test_presets_contain_numbers_and_no_choices(tmp_path, part, choice):
    """A name determines an algorithm; a preset's memory or planner would change it behind the name."""
    path = tmp_path / "preset.json"
    place = {"geometries": {"ridge": {choice: 1}}, "methods": {"memit": {choice: 1}}}.get(part, {choice: 1})
    path.write_text(json.dumps({part: place}))
    with pytest.raises(MetakeError, match=rf"^{path}: {part}.*{choice}") as caught:
        settings_for(EditableModel(tiny("gpt2")), "memit", name=path)
    assert "\n" not in str(caught.value)


def test_methods_for_shares_changes_that_some_have(preset):
    model = EditableModel(tiny("gpt2"))
    memit, alphaedit, ultraedit = methods_for(
        model,
        ["memit", "alphaedit", "ultraedit"],
        preset=preset,
        per_method={"memit": {"lr": 0.7}},
        changes={"lam": 5.0, "layers": (1,), "gradient_lr": 0.5},
    )
    assert [m.name for m in (memit, alphaedit, ultraedit)] == ["memit", "alphaedit", "ultraedit"]
    assert (memit.value("lr"), alphaedit.value("lr"), ultraedit.lr) == (0.7, 0.1, 0.5)
    assert memit.value("lam") == 5.0
    assert {m.layers for m in (memit, alphaedit, ultraedit)} == {(1,)}
    with pytest.raises(MetakeError, match="memit has no threshold; it is a setting of geometry projected"):
        methods_for(model, ["memit", "ultraedit"], changes={"threshold": 0.1})
    with pytest.raises(MetakeError, match="unknown 'stepps'; did you mean 'steps'"):
        methods_for(model, ["memit"], changes={"stepps": 1})
    with pytest.raises(MetakeError, match="layer"):
        methods_for(model, ["memit"], changes={"layers": (9,)})


def test_preset_is_found_by_the_names_last_part():
    """A preset is found by the last part of a name in any case."""
    for name in ("openai-community/GPT2-XL", "/data/gpt2-xl/", "gpt2-xl"):
        assert short_name(name) == "gpt2-xl"


@pytest.mark.parametrize("name", [DEMOS[0], "smollm2"])
def test_held_out_text_is_not_in_the_statistics_text(name):
    """No three lines in a row of the one stand in the other."""
    read, held = default_text(name).splitlines(), held_out_text(name).splitlines()
    runs = {tuple(read[i : i + 3]) for i in range(len(read))}
    assert len(held) > 3
    assert not [i for i in range(len(held) - 2) if tuple(held[i : i + 3]) in runs and any(held[i : i + 3])]


def test_default_text_of_demo_models_is_their_world():
    assert default_text("demo") == World().text(6000, seed=7)
    assert held_out_text("demo-llama") == World().text(400, seed=11)
    assert default_text("gpt2") == texts.TEXT.read_text(encoding="utf-8")
    assert held_out_text("gpt2") == texts.HELD_OUT.read_text(encoding="utf-8")


def test_cache_folder_follows_its_variables(monkeypatch):
    """The cache is where the variables say."""
    monkeypatch.delenv("METAKE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/metake")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "metake"
    monkeypatch.setenv("METAKE_CACHE", "~/mine")
    assert cache_folder() == Path.home() / "mine"


TEXT = World().text(400, seed=3)


@pytest.fixture
def collected(demo, monkeypatch, tmp_path):
    """`collected(**changes)`: the file's name in a fresh cache, and what was asked of `collect`."""
    asked = []

    def collect(model, tokenizer, text, layers, **options):
        asked.append((text, layers, options))
        return original(model, tokenizer, TEXT, layers, tokens=600, progress=False)

    original = statistics_cache.collect
    monkeypatch.setattr(statistics_cache, "collect", collect)
    monkeypatch.setenv("METAKE_CACHE", str(tmp_path))

    def go(model=None, layers=(0, 1), **options):
        before = set(tmp_path.iterdir())
        with pytest.warns(UserWarning, match="statistics from 600 tokens are too few for keys of 128"):
            statistics_for(model or EditableModel(tiny("gpt2")), demo.tokenizer, layers, **options)
        (new,) = set(tmp_path.iterdir()) - before
        return new.name, asked[-1]

    return go


def test_statistics_path_depends_on_every_ingredient(collected):
    """Every ingredient of statistics names their file.

    Text, tokens, layers and weights: each change is another file, or those of another run would be found.
    """
    plain = {"text": TEXT, "tokens": 600}
    other = EditableModel(tiny("gpt2"))
    with torch.no_grad():
        other.weight(1).add_(1e-3)
    changes = [
        {},
        {"text": TEXT + "x"},
        {"tokens": 601},
        {"tokens": None},
        {"layers": (1,)},
        {"layers": (0, 1, 2)},
        {"model": other},
    ]
    names = [collected(**{**plain, **change})[0] for change in changes]
    assert len(set(names)) == len(changes)
    assert all(name.startswith("statistics-") and name.endswith(".safetensors") for name in names)


def test_statistics_for_reads_61440_tokens_by_default(collected):
    """The default text is read for 61440 tokens unless another number is given."""
    assert collected()[1][2]["tokens"] == 61_440
    assert collected(tokens=700)[1][2]["tokens"] == 700
    text, layers, options = collected(text=TEXT)[1]
    assert (text, layers, options["tokens"]) == (TEXT, (0, 1), None)  # one's own text is read whole
    assert options["partial"].suffix == ".partial"


EASYEDIT = """
alg_name: "MEMIT"
layers: [4, 5, 6, 7, 8]
clamp_norm_factor: 4
layer_selection: "all"
fact_token: "subject_last"
v_num_grad_steps: 25
v_lr: 5e-1
v_weight_decay: 1e-3
kl_factor: 0.0625
mom2_adjustment: true
mom2_update_weight: 15000
rewrite_module_tmp: "model.layers.{}.mlp.down_proj"
"""  # the fields of hparams/MEMIT/{qwen2.5-7b,mistral-7b,llama3.2-3b,llama3.2-1b}.yaml of zjunlp/EasyEdit that are numbers


@pytest.mark.parametrize("name", ["qwen2.5-7b", "mistral-7b", "llama-3.2-3b", "llama-3.2-1b"])
def test_presets_of_peers_have_the_numbers_of_their_files(name, tmp_path):
    """A preset gives the method that the published file gives, and names its sources."""
    config = LlamaConfig(
        vocab_size=64, hidden_size=8, num_hidden_layers=9, num_attention_heads=2, intermediate_size=16
    )
    model = EditableModel(LlamaForCausalLM(config))
    path = tmp_path / "memit.yaml"
    path.write_text(EASYEDIT)
    published = settings_for(model, "memit", name="none", **read_published(path, model))
    assert settings_for(model, "memit", name=name) == published
    assert settings_for(model, "rome", name=name).layers == (5,)
    sources = load_preset(name)["sources"]
    assert all(source.startswith(("zjunlp/EasyEdit", "jianghoucheng/AlphaEdit")) for source in sources)
    assert all(f"`{source}`" in (DOCS / "models.md").read_text() for source in sources)
    alpha = settings_for(model, "alphaedit", name="qwen2.5-7b")
    assert [alpha.value(key) for key in ("lr", "decay", "clamp", "l2", "threshold")] == [
        0.1,
        0.5,
        0.75,
        10.0,
        0.02,
    ]
