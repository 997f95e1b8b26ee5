"""A folder holds one result, whole and as it was written."""

import hashlib
import json
import os

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from metake import folders
from metake.errors import MetakeError
from metake.folders import MANIFEST, check_folder, check_run_folder, file_digest, result_folder, verify
from metake.models.editable import EditableModel
from metake.models.load import load
from metake.models.save import save_model
from metake.shipped import ASSETS
from tests.cases import tiny


@pytest.fixture
def small(demo):
    """A tiny model with the demo model's tokenizer."""
    model = tiny("llama")
    return EditableModel(model, demo.tokenizer, name="tiny")


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def put(folder, **files):
    with result_folder(folder) as place:
        for name, text in files.items():
            (place / name).write_text(text)


def test_result_folder_replaces_an_earlier_result(tmp_path):
    """A result takes the place of the one before."""
    folder = tmp_path / "deep" / "o"
    put(folder, a="1", b="2")
    (folder / "realization.png").write_text("drawn later")
    (folder / ".hidden").write_text("not looked at")
    check_folder(folder)
    put(folder, a="3", c="4")
    assert set(contents(folder)) == {"a", "c", MANIFEST, ".hidden"}
    assert (folder / "a").read_text() == "3"


def test_result_folder_keeps_the_earlier_result_after_failure(tmp_path):
    """A failure leaves the earlier result and nothing else."""
    folder = tmp_path / "deep" / "o"

    def fails(error):
        with result_folder(folder) as place:
            (place / "a").write_text("half")
            raise error

    for error, seen in (
        (OSError(28, "No space left on device"), MetakeError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):
        with pytest.raises(seen):
            fails(error)
        assert not list(tmp_path.iterdir())
    put(folder, a="1", b="2")
    before = contents(tmp_path)
    for error, seen in (
        (OSError(28, "No space left on device"), MetakeError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):
        with pytest.raises(seen):
            fails(error)
        assert contents(tmp_path) == before


def test_result_folder_refuses_other_files(tmp_path):
    """Files of something else are refused or left alone."""
    put(tmp_path, a="1")
    check_folder(tmp_path)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(
        MetakeError, match=r"holds other files \(thesis.tex\); choose another folder, or give --overwrite"
    ):
        check_folder(tmp_path)
    check_folder(tmp_path, overwrite=True)
    with result_folder(tmp_path, overwrite=True) as place:
        (place / "result.json").write_text("{}")
    assert (tmp_path / "thesis.tex").read_text() == "mine"
    (tmp_path / MANIFEST).unlink()
    (tmp_path / "thesis.tex").unlink()
    with pytest.raises(
        MetakeError, match="holds other files"
    ):  # without the list it is not known whose they are
        check_folder(tmp_path)


def test_run_folder_finds_its_own_files_alone(tmp_path):
    """A run finds its own files and refuses others."""
    names = ("checkpoints", "results.json")
    check_run_folder(tmp_path / "new", names)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "results.json").write_text("{}")
    check_run_folder(tmp_path, names)
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(MetakeError, match=r"holds other files \(model.safetensors\)"):
        check_run_folder(tmp_path, names)
    check_run_folder(tmp_path, names, overwrite=True)


def test_save_model_writes_an_ordinary_folder(demo, talking, tmp_path):
    """Read with transformers alone: the same weights, ids and template, and no trace of how it was loaded here."""
    for model in (demo, load(str(talking), device="cpu", chat=True)):
        folder = tmp_path / model.name
        save_model(model, folder)
        again, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        assert again.state_dict().keys() == model.model.state_dict().keys()
        for name, weight in model.model.state_dict().items():
            assert torch.equal(again.state_dict()[name], weight)
        for text in ("What is the craft of Nezan Girok?", "a\n <|endoftext|> b"):
            assert tokenizer(text).input_ids == model.tokenizer(text).input_ids
        assert tokenizer.special_tokens_map == demo.tokenizer.special_tokens_map
        config = json.loads((folder / "tokenizer_config.json").read_text())
        assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
        assert not {"local_files_only", "is_local", "backend"} & set(config)
        assert {(file.stat().st_mode & 0o777) for file in folder.iterdir()} == {0o644}
    assert tokenizer.chat_template


def test_save_model_over_shards_leaves_one_model(small, tmp_path):
    small.model.save_pretrained(tmp_path, max_shard_size="50KB")
    small.tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors.index.json").exists()
    (tmp_path / "README.md").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(MetakeError, match="holds other files"):
        save_model(small, tmp_path)
    assert contents(tmp_path) == before
    with torch.no_grad():
        small.weight(1).add_(1)
    save_model(small, tmp_path, overwrite=True)
    assert not list(tmp_path.glob("model-*"))
    assert not (tmp_path / "model.safetensors.index.json").exists()
    assert (tmp_path / "README.md").exists()
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(EditableModel(again).weight(1), small.weight(1))


@pytest.mark.parametrize("where", ["model", "tokenizer"])
def test_save_model_on_a_full_disk_keeps_the_earlier(small, tmp_path, monkeypatch, where):
    save_model(small, tmp_path / "o")
    before = contents(tmp_path)
    save = small.model.save_pretrained

    def full(place, **_):
        save(place)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(getattr(small, where), "save_pretrained", full)
    with torch.no_grad():
        small.weight(1).add_(1)
    for folder in ("o", "new/p"):
        with pytest.raises(
            MetakeError, match=r"cannot be written .*No space left on device.*; free disk space"
        ):
            save_model(small, tmp_path / folder)
    assert contents(tmp_path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["o"]


def test_load_names_a_changed_model(small, tmp_path):
    folder = tmp_path / "o"
    save_model(small, folder)
    verify(folder)
    for name in sorted(contents(folder)):
        path, whole = folder / name, (folder / name).read_bytes()
        path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
        with pytest.raises(MetakeError, match=rf"{name}: (damaged|not JSON).* remove metake.json to load"):
            load(str(folder), device="cpu")
        if name != MANIFEST:
            path.unlink()
            with pytest.raises(MetakeError, match=rf"{name}: damaged or changed"):
                verify(folder)
        path.write_bytes(whole)
    assert load(str(folder), device="cpu").fingerprint() == small.fingerprint()
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**config, "max_length": 99}))
    (folder / MANIFEST).unlink()
    load(str(folder), device="cpu")  # whoever changes a folder by hand takes the list away
    verify(ASSETS / "demo")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_result_folder_refuses_a_read_only_folder(tmp_path):
    """A folder without the right to write is refused."""
    tmp_path.chmod(0o500)
    with pytest.raises(MetakeError, match="Permission denied"):
        check_folder(tmp_path / "o")


@pytest.mark.parametrize("content", [b"", b"a", bytes(range(256)) * 5000], ids=len)
def test_file_digest_is_that_of_the_content(tmp_path, monkeypatch, content):
    """An empty file, and one of several parts, too."""
    monkeypatch.setattr(folders, "LARGE_PART", 1000)
    (tmp_path / "file").write_bytes(content)
    assert file_digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()
