"""GGUF files are converted once; the cached folder gives the same model, and is never needed."""

import shutil
import warnings
from collections import namedtuple

import pytest
import torch
from transformers import AutoModelForCausalLM

from metake.models.converted import Conversion
from metake.models.load import load
from tests.test_gguf import write_gguf


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A GGUF file, and a cache of the test's own."""
    monkeypatch.setenv("METAKE_CACHE", str(tmp_path / "cache"))
    write_gguf(tmp_path / "small.gguf")
    return tmp_path / "small.gguf"


@pytest.fixture
def conversions(monkeypatch):
    """Names of the GGUF files that were dequantized."""
    read, converted = AutoModelForCausalLM.from_pretrained, []

    def counting(place, **options):
        converted.extend([options["gguf_file"]] if "gguf_file" in options else [])
        return read(place, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", counting)
    return converted


def loaded(file, **options):
    """The model, loaded without a warning."""
    with warnings.catch_warnings(action="error", category=UserWarning):
        return load(file, device="cpu", **options)


def entries(file):
    return sorted(path.name for path in (file.parent / "cache").iterdir())


def settings(model):
    """The configuration, without the place that it was read from."""
    return {key: value for key, value in model.model.config.to_dict().items() if key != "_name_or_path"}


def same(one, other):
    """Whether weights, buffers, configuration and tokens are equal."""
    a, b = ({**dict(m.model.named_buffers()), **m.model.state_dict()} for m in (one, other))
    text = "The old mill is dark\n and the river <|endoftext|> cold"
    return (
        a.keys() == b.keys()
        and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)
        and settings(one) == settings(other)
        and one.model.generation_config.to_dict() == other.model.generation_config.to_dict()
        and one.tokenizer(text).input_ids == other.tokenizer(text).input_ids
        and one.tokenizer.chat_template == other.tokenizer.chat_template
        and one.tokenizer.special_tokens_map == other.tokenizer.special_tokens_map
        and one.fingerprint() == other.fingerprint()
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_load_converts_a_gguf_file_once(file, conversions, dtype):
    first, again = loaded(file, dtype=dtype), loaded(file, dtype=dtype)
    assert conversions == ["small.gguf"]
    assert same(first, again)
    assert again.name == "small.gguf"
    assert len(entries(file)) == 1


def test_load_converts_again_for_other_content_and_other_dtypes(file, conversions):
    """A cached folder belongs to a content and a dtype; a copy of the file shares it."""
    first = loaded(file)
    shutil.copy(file, file.with_name("copy.gguf"))
    loaded(file.with_name("copy.gguf"))
    assert conversions == ["small.gguf"]
    loaded(file, dtype="float64")
    write_gguf(file, seed=1)
    assert not same(loaded(file), first)
    assert conversions == ["small.gguf"] * 3
    assert len(entries(file)) == 3


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "metake.json", "config.json"])
@pytest.mark.parametrize("missing", [False, True])
def test_load_replaces_a_damaged_folder_with_a_warning(file, conversions, name, missing):
    first = loaded(file)
    (folder,) = (file.parent / "cache").iterdir()
    if missing:
        (folder / name).unlink()
    else:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
    with pytest.warns(UserWarning, match=rf"^{folder}: damaged: small.gguf is converted again$"):
        again = load(file, device="cpu")
    assert same(first, again)
    assert same(first, loaded(file))
    assert conversions == ["small.gguf"] * 2
    assert entries(file) == [folder.name]


def test_load_works_without_a_cache(file, conversions, monkeypatch):
    """An unwritable cache, and one without room, give a warning."""
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda place: usage(10, 10, 16 * file.stat().st_size - 1))
        with pytest.warns(
            UserWarning, match="small.gguf is converted at every load: .*GB free; set METAKE_CACHE"
        ):
            first = load(file, device="cpu")
    assert not (file.parent / "cache").exists()
    (file.parent / "cache").write_text("not a folder")
    with pytest.warns(UserWarning, match="small.gguf is converted at every load: .*; set METAKE_CACHE"):
        again = load(file, device="cpu")
    assert same(first, again)
    assert conversions == ["small.gguf"] * 2


def test_store_leaves_nothing_where_the_disk_is_full(file):
    conversion = Conversion.of(file, "float32")

    def write(folder):
        (folder / "config.json").write_text("{}")
        raise OSError(28, "No space left on device")

    with pytest.warns(UserWarning, match="No space left on device"):
        conversion.store(write)
    assert entries(file) == []


def test_store_keeps_the_folder_of_a_faster_process(file):
    """Of two processes that convert at once, the first complete folder stays, without a warning."""
    mine, other = Conversion.of(file, "float32"), Conversion.of(file, "float32")

    def write(text):
        return lambda folder: (folder / "config.json").write_text(text)

    def slow(folder):
        write("slow")(folder)
        other.store(write("fast"))

    with warnings.catch_warnings(action="error"):
        mine.store(slow)
    assert (mine.folder / "config.json").read_text() == "fast"
    assert entries(file) == [mine.folder.name]
    assert mine.is_cached()
