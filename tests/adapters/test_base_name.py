"""The base model in an adapter: a folder or hub name that peft and vLLM load, or a line that says to give it."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from metake.adapters.base_name import REMEDY, SMOLLM2_HUB, displayed_base, is_hub_name, loadable_base
from metake.deltas import Delta
from metake.models.known import KNOWN
from metake.models.load import load
from metake.shipped import ASSETS, DEMOS


@pytest.mark.parametrize("name", DEMOS)
def test_base_of_a_shipped_model_is_its_folder(name):
    assert Path(loadable_base(name)) == (ASSETS / name).resolve()


def test_base_of_every_listed_model_is_a_folder_or_a_hub_name():
    for known in KNOWN:
        base = loadable_base(known.name)
        if known.name in ("FOLDER", "FILE.gguf"):
            assert base == ""
        elif known.name not in DEMOS:
            assert is_hub_name(base)
            assert base == (SMOLLM2_HUB if known.name == "smollm2" else known.name)


@pytest.mark.parametrize("name", ["", "edited", "a/b/c", "./mine", "~/mine", "owner/file.gguf", "/no/such"])
def test_base_that_cannot_be_loaded_is_empty(name):
    """The name of a loaded folder is the last part of its path, from which nobody can load it."""
    assert loadable_base(name) == ""


def test_base_of_a_folder_is_absolute_where_a_path_was_given(monkeypatch, tmp_path):
    (tmp_path / "owner" / "mine").mkdir(parents=True)
    (tmp_path / "owner" / "mine" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    folder = str(tmp_path.resolve() / "owner" / "mine")
    assert loadable_base("owner/mine", relative=True) == loadable_base(folder) == folder
    assert loadable_base("owner/mine") == "owner/mine"
    assert displayed_base(folder) == displayed_base("owner/../owner/mine") == "mine"


def test_adapter_of_a_shipped_model_names_what_transformers_loads(demo, tmp_path):
    """The config and the card name a folder; its model and the adapter give the edited model."""
    delta = Delta({2: (torch.ones(demo.d_v, 1), torch.ones(demo.d_k, 1))}, note={"model": "demo"})
    done = delta.save_pretrained(tmp_path / "a", demo)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    base = config["base_model_name_or_path"]
    assert done.serve.startswith(f"vllm serve {base} ")
    loaded = AutoModelForCausalLM.from_pretrained(base)
    assert torch.equal(loaded.lm_head.weight, demo.model.lm_head.weight)
    text = (tmp_path / "a" / "README.md").read_text()
    assert f"base = AutoModelForCausalLM.from_pretrained({base!r})" in text
    assert "# Knowledge edit of demo\n" in text
    assert "base_model" not in yaml.safe_load(text.split("---\n")[1])  # a path is no link of the hub


def test_adapter_of_an_unknown_base_says_to_give_it(demo, tmp_path):
    delta = Delta({2: (torch.ones(demo.d_v, 1), torch.ones(demo.d_k, 1))}, note={"model": "edited"})
    done = delta.save_pretrained(tmp_path / "a", load("demo", device="cpu"))
    assert done.serve.startswith("vllm serve BASE ")
    assert str(done).splitlines()[-1] == REMEDY
    assert done.plain()["base"] is None
    text = (tmp_path / "a" / "README.md").read_text()
    assert "BASE: the hub name or folder of the unedited model." in text
    assert "# Knowledge edit of edited\n" in text
    assert json.loads((tmp_path / "a" / "adapter_config.json").read_text())["base_model_name_or_path"] is None
    named = delta.save_pretrained(tmp_path / "b", demo, base="owner/name")
    assert (named.serve.split()[2], REMEDY in str(named)) == ("owner/name", False)
