"""Files are whole or absent, and what they hold can be read by others."""

import json
import math
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from metake.errors import MetakeError
from metake.files import check_writable, digest, read_json, read_record, write_json, write_record
from metake.tensor_files import read_tensors, write_tensors

KIND = "metake-test-2"
TENSORS = {
    "a": torch.arange(24, dtype=torch.float32).reshape(4, 6),
    "b": torch.ones(24).bfloat16(),
    "c": torch.tensor(3),
}
META = {"note": {"z": [1, 2.5, None], "a": "Jos\u00e9 \ud800"}, "model": "m"}


def test_write_json_refuses_nan_and_infinity(tmp_path):
    content = {
        "a": [1.5, math.nan, (math.inf, "NaN")],
        "b": {"c": -math.inf, "d": np.float64("nan"), "e": None},
    }
    write_json(tmp_path / "x.json", content)

    def refuse(name):
        raise AssertionError(name)

    found = json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse)
    assert found == {"a": [1.5, None, [None, "NaN"]], "b": {"c": None, "d": None, "e": None}}


def test_write_json_leaves_the_old_file_when_it_fails(tmp_path):
    """What cannot be written leaves what was there."""
    place = tmp_path / "x.json"
    write_json(place, [1])
    with pytest.raises(TypeError):
        write_json(place, [object()])
    assert read_json(place) == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    with pytest.raises(MetakeError, match="cannot be written"):
        write_json(place / "y.json", [1])


def test_tensors_survive_saving_and_loading(tmp_path):
    """Tensors come back as they were written."""
    path = tmp_path / "x.safetensors"
    write_tensors(path, KIND, TENSORS, META)
    tensors, meta = read_tensors(path, KIND, "remedy")
    assert {name: meta[name] for name in META} == META
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_equal_content_gives_equal_bytes(tmp_path):
    """Names in any order; eight times, since safetensors orders several entries of metadata by chance."""
    path, found = tmp_path / "x.safetensors", set()
    for turn in range(8):
        order = sorted(TENSORS, reverse=bool(turn % 2))
        write_tensors(
            path,
            KIND,
            {name: TENSORS[name] for name in order},
            dict(reversed(META.items())) if turn % 2 else META,
        )
        found.add(path.read_bytes())
    assert len(found) == 1


def test_digest_depends_on_names_dtypes_shapes_and_values():
    """A digest depends on names, dtypes shapes bytes and values."""
    a, b = TENSORS["a"], TENSORS["b"]
    contents = [
        (META, {"a": a}),
        (META, {"b": a}),
        (META, {"a": a.reshape(6, 4)}),
        (META, {"a": a.double()}),
        (META, {"a": a + 1}),
        (META, {"a": a, "b": b}),
        (META, {"a": b, "b": a}),
        ({**META, "model": "n"}, {"a": a}),
        (META, {}),
        (META, {"a": a.view(torch.int32)}),
    ]
    assert len({digest(*content) for content in contents}) == len(contents)
    assert digest({"x": 1, "y": 2}, {"a": a, "b": b}) == digest({"y": 2, "x": 1}, {"b": b, "a": a})
    assert digest(META, {"a": a.T.contiguous().T}) == digest(META, {"a": a})  # values, not strides


def swapped(path):
    """The file with the bytes of two tensors of one shape exchanged."""
    write_tensors(path, KIND, {"a": torch.zeros(4), "b": torch.ones(4)}, {})
    content = path.read_bytes()
    return content[:-32] + content[-16:] + content[-32:-16]


def foreign(path):
    save_file(TENSORS, path, {"format": "pt"})
    return path.read_bytes()


def older(path):
    save_file(TENSORS, path, {"format": "metake-test-1", "note": "{}"})
    return path.read_bytes()


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda p: p.read_bytes()[:-1], "damaged or not safetensors"),
        (lambda p: p.read_bytes()[:-1] + b"\x01", "digest does not match"),
        (swapped, "digest does not match"),
        (lambda p: p.read_bytes().replace(b"Jos", b"Joe"), "digest does not match"),
        (lambda p: p.read_bytes().replace(b'\\"digest', b'\\"dijest'), "digest does not match"),
        (lambda p: b"", "damaged or not safetensors"),
        (foreign, "not a metake-test-2 file"),
        (older, "metake-test-1 is a format of an earlier metake"),
    ],
)
def test_load_tensors_refuses_changed_files(tmp_path, spoil, complaint):
    path = tmp_path / "x.safetensors"
    write_tensors(path, KIND, TENSORS, META)
    path.write_bytes(spoil(path))
    with pytest.raises(MetakeError, match=complaint) as refused:
        read_tensors(path, KIND, "do it again")
    assert str(refused.value).startswith(str(path))
    assert str(refused.value).endswith("; do it again")


def test_records_survive_and_changed_ones_are_refused(tmp_path):
    """Records come back as plain values and changed ones are refused."""
    path = tmp_path / "x.json"
    write_record(path, {"a": (1, 2.5), 3: math.nan, "b": np.float64(0.1), "c": {"d": "Jos\u00e9"}})
    content = {"a": [1, 2.5], "3": None, "b": 0.1, "c": {"d": "Jos\u00e9"}}
    assert read_record(path, "remedy") == content
    path.write_text(json.dumps(json.loads(path.read_text())))  # other spaces are the same content
    assert read_record(path, "remedy") == content
    whole = path.read_text()
    for changed, complaint in (
        (whole.replace("2.5", "2.4"), "damaged or changed by hand"),
        (whole.replace('"digest"', '"dijest"'), "has no digest"),
        (whole[:-3], "not JSON"),
        ("[1]", "has no digest"),
        ("[" * 100_000, "not JSON"),
    ):
        path.write_text(changed)
        with pytest.raises(MetakeError, match=complaint):
            read_record(path, "remedy")


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_files_have_the_permissions_of_the_umask(tmp_path, mask):
    """Files have the rights that the umask leaves."""
    before = os.umask(mask)
    try:
        write_json(tmp_path / "x.json", {})
        write_tensors(tmp_path / "x.safetensors", KIND, TENSORS, {})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~mask}


def test_write_json_is_utf8_whatever_the_locale(tmp_path, monkeypatch):
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "latin-1")
    write_json(tmp_path / "x.json", {"a": "\u6771\u4eac"})
    assert read_json(tmp_path / "x.json") == {"a": "\u6771\u4eac"}


@pytest.mark.parametrize("seed", range(40))
def test_load_tensors_never_reads_flipped_bytes(tmp_path, seed):
    """A flipped byte never gives other tensors."""
    draw, path = random.Random(seed), tmp_path / "x.safetensors"
    write_tensors(path, KIND, TENSORS, META)
    content = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 1, 3))):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    try:
        tensors, meta = read_tensors(path, KIND, "remedy")
    except MetakeError:
        return
    assert digest(meta, tensors) == digest({"format": KIND, "version": meta["version"], **META}, TENSORS)


def test_check_writable_leaves_nothing_behind(tmp_path):
    """Whether a place can be written is known before and leaves nothing."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for good, folder in (
        ("new/deep/x", True),
        ("new/x.json", False),
        ("folder", True),
        ("file", False),
        ("folder/x", False),
    ):
        check_writable(tmp_path / good, folder=folder)
    for bad, folder, reason in (
        ("file", True, "is a file"),
        ("folder", False, "is a folder"),
        ("file/x", True, "Not a directory"),
        ("file/x/y.json", False, "Not a directory"),
        ("x" * 300, True, "too long"),
    ):
        with pytest.raises(MetakeError, match=reason):
            check_writable(tmp_path / bad, folder=folder)
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    for bad, folder in (("link", True), ("link/x", True), ("link/x.json", False), ("loop", True)):
        with pytest.raises(MetakeError, match=r"broken link|symbolic links"):
            check_writable(tmp_path / bad, folder=folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder", "link", "loop"]
    assert not list((tmp_path / "folder").iterdir())
    for place in ("/proc/x", "/sys/x"):  # where even root may not write
        with pytest.raises(MetakeError, match="cannot be written"):
            check_writable(Path(place), folder=True)
