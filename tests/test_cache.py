"""The cache of statistics: found again, made anew where it is damaged, and never needed."""

import os
import warnings
from pathlib import Path

import pytest
import torch

from metake import statistics_cache
from metake.models.editable import EditableModel
from metake.texts import default_text
from tests.cases import tiny

TEXT = default_text("demo")[:12_000]


@pytest.fixture
def statistics(demo, monkeypatch, tmp_path):
    """Statistics of a tiny model by way of a cache of the test's own; how often they were collected."""
    model, collect, count = EditableModel(tiny("gpt2")), statistics_cache.collect, []
    monkeypatch.setattr(statistics_cache, "collect", lambda *a, **k: (count.append(1), collect(*a, **k))[1])
    monkeypatch.setenv("METAKE_CACHE", str(tmp_path / "cache"))

    def get():
        found = statistics_cache.statistics_for(model, demo.tokenizer, (0, 1), text=TEXT, tokens=2600)
        return found, len(count)

    return get


def test_statistics_for_reuses_cached_files(statistics, tmp_path):
    first, again = statistics(), statistics()
    assert (first[1], again[1]) == (1, 1)
    assert torch.equal(first[0][1], again[0][1])
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_statistics_for_replaces_a_damaged_file_with_a_note(statistics, tmp_path):
    """A damaged cached file is collected again with a note."""
    whole, _ = statistics()
    (path,) = (tmp_path / "cache").iterdir()
    content = path.read_bytes()
    path.write_bytes(content[:-3] + b"abc")
    with pytest.warns(UserWarning, match=rf"{path.name}: damaged .*: collected again"):
        again, count = statistics()
    assert count == 2
    assert torch.equal(again[1], whole[1])
    assert path.read_bytes() == content
    assert statistics()[1] == 2


def test_cache_folder_follows_empty_and_unknown_variables(monkeypatch):
    """An empty or unknown cache is the user's or as it is written.

    An unset variable of a shell is an empty one, which is no folder; a tilde may name nobody.
    """
    monkeypatch.setenv("METAKE_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/ada")
    assert statistics_cache.cache_folder() == Path("/home/ada/.cache/metake")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert statistics_cache.cache_folder() == Path("/x/metake")
    monkeypatch.setenv("METAKE_CACHE", "~/c")
    assert statistics_cache.cache_folder() == Path("/home/ada/c")
    monkeypatch.setenv("METAKE_CACHE", "~nobody-of-that-name/c")
    assert statistics_cache.cache_folder() == Path("~nobody-of-that-name/c")


def test_statistics_for_notes_an_unwritable_cache(statistics, tmp_path, monkeypatch):
    """A cache that cannot be written is a note.

    Its path is a file, goes through a file, or belongs to another user.
    """
    (tmp_path / "file").write_text("")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    places = [tmp_path / "file", tmp_path / "file" / "cache"] + ([closed] if os.geteuid() else [])
    for turn, place in enumerate(places):
        monkeypatch.setenv("METAKE_CACHE", str(place))
        with pytest.warns(UserWarning, match="not cached: .* cannot be written .*set METAKE_CACHE") as notes:
            found, count = statistics()
        assert [str(place) in str(note.message) for note in notes] == [True]
        assert count == turn + 1
        assert found.moments.keys() == {0, 1}
    monkeypatch.setenv("METAKE_CACHE", str(tmp_path / "cache"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        statistics()
