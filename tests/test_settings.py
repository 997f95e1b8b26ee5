"""Settings, presets and their documentation."""

from pathlib import Path

import pytest

from metake.errors import MetakeError
from metake.files import read_json
from metake.hparams import describe_settings, make_settings
from metake.methods import METHODS, describe_methods, find_method
from metake.models.architecture import Architecture
from metake.presets import PRESETS, default_layers, settings_for
from tests.conftest import tiny


def test_the_documentation_lists_the_settings_as_they_are():
    text = (Path(__file__).resolve().parents[1] / "docs" / "settings.md").read_text()
    assert describe_settings() in text


def test_the_documentation_lists_the_methods_as_they_are():
    text = (Path(__file__).resolve().parents[1] / "docs" / "methods.md").read_text()
    assert describe_methods() in text


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.json")), ids=lambda p: p.stem)
def test_every_preset_is_valid(path):
    content = read_json(path)
    assert {"names", "common", "methods"} <= set(content) <= {"names", "common", "geometries", "methods"}
    assert set(content.get("geometries", {})) <= {row.geometry for row in METHODS.values()}
    for method in {*METHODS, *content["methods"]}:
        row = find_method(method)
        shared = {**content["common"], **content.get("geometries", {}).get(row.geometry, {})}
        fields = {"layers": [0], **row.choices, **shared, **content["methods"].get(method, {})}
        make_settings(fields)


def test_published_settings_of_the_papers_models():
    import torch

    class Named:
        def __init__(self, name, count):
            self.model = type("M", (), {"name_or_path": name})()
            self.count = count

        def __len__(self):
            return self.count

        def check_layers(self, layers):
            assert 0 <= min(layers) <= max(layers) < self.count

    xl = settings_for(Named("gpt2-xl", 48), "memit")
    assert (xl.layers, xl.weight, xl.lr, xl.steps, xl.clamp) == ((13, 14, 15, 16, 17), 20000, 0.5, 20, 0.75)
    gptj = settings_for(Named("EleutherAI/gpt-j-6b", 28), "alphaedit")
    assert (gptj.layers, gptj.threshold, gptj.l2) == ((3, 4, 5, 6, 7, 8), 0.02, 10)
    blue = settings_for(Named("gpt2-xl", 48), "alphaedit-blue")
    assert (blue.threshold, blue.l2, blue.allocation) == (0.02, 80, "boundary")
    rome = settings_for(Named("gpt2-xl", 48), "rome")
    assert (rome.layers, rome.clamp, rome.group, rome.fit, rome.allocation) == ((17,), 4, 1, "exact", "last")
    llama = settings_for(Named("meta-llama/Meta-Llama-3-8B-Instruct", 32), "memit")
    assert (llama.lr, llama.weight, llama.torch_dtype) == (0.1, 15000, torch.float64)


@pytest.mark.parametrize("changes", [{"target": "plan"}, {"fit": "exact"}])
def test_only_a_closed_loop_over_a_soft_fit_has_a_price(changes, demo):
    settings = settings_for(demo.arch, "metake-priced")
    assert settings.price > 0
    with pytest.raises(MetakeError, match=r"^settings: price is of the closed loop over a soft fit"):
        settings.updated(**changes)
    assert settings.updated(price=0, **changes).price == 0


def test_a_row_without_a_preset_takes_that_of_the_row_it_is_like(demo):
    like = settings_for(demo.arch, "memit", name="demo")
    emmet = settings_for(demo.arch, "emmet", name="demo")
    assert "emmet" not in read_json(PRESETS / "demo.json")["methods"]
    assert (emmet.layers, emmet.weight, emmet.lr) == (like.layers, like.weight, like.lr)
    assert (emmet.fit, like.fit) == ("exact", "soft")
    assert all(row.like in ("", *METHODS) for row in METHODS.values())


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 12, 30, 48])
def test_default_layers_exist(count):
    layers = default_layers(count)
    assert layers
    assert 0 <= layers[0] <= layers[-1] < count


def test_overrides_win_and_errors_name_the_setting():
    arch = Architecture(tiny("gpt2"))
    assert settings_for(arch, "memit", lr=0.25).lr == 0.25
    with pytest.raises(MetakeError, match="unknown 'bogus'"):
        settings_for(arch, "memit", bogus=1)
    with pytest.raises(MetakeError, match="keep"):
        settings_for(arch, "memit").updated(keep=2)
    with pytest.raises(MetakeError, match="unknown 'x'"):
        find_method("x@label")
