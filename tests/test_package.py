"""What is distributed says what it is, and speaks of nothing that it lacks."""

import re
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from metake.geometry.statistics import Statistics
from metake.models.load import ASSETS

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_packages_description_speaks_of_nothing_that_it_lacks():
    text = (ROOT / PROJECT["readme"]).read_text(encoding="utf-8")
    assert not re.search(r"\]\((?!https?:)", text)  # a relative link leads nowhere
    assert not re.search(r"\bmake \w|\b(docs|experiments|theory|verification|tests)/", text)
    for path in re.findall(r"\bmetake/[\w/.-]+", text):
        assert (ROOT / path).exists(), path


def test_every_shipped_asset_has_an_origin():
    text = (ASSETS / "NOTICE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w.-]+)`", text.replace("`real_facts.json`", "")))
    assert {entry.name for entry in ASSETS.iterdir()} - {"NOTICE.md"} <= named
    for path in re.findall(r"`((?:metake|experiments)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
    assert "metake/assets/NOTICE.md" in PROJECT["license-files"]


def test_older_statistics_are_converted_as_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    provenance = '{"model": "m", "text": "t", "tokens": 9, "layers": [3, 4], "window": 4}'
    moments = {"C.3": torch.eye(2), "C.4": torch.ones(2, 2)}
    save_file(moments, "old.safetensors", {"format": "metake-statistics-1", "provenance": provenance})
    (block,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "files.md").read_text(encoding="utf-8"), re.DOTALL
    )
    exec(block, {})
    found = Statistics.load("new.safetensors")
    assert found.provenance.layers == (3, 4)
    assert torch.equal(found[4], moments["C.4"])


@pytest.mark.parametrize("variable", ["METAKE_CACHE", "XDG_CACHE_HOME"])
def test_the_cache_is_where_the_page_says(monkeypatch, tmp_path, variable):
    from metake.statistics_cache import cache_folder

    monkeypatch.delenv("METAKE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "metake"
    monkeypatch.setenv(variable, str(tmp_path))
    assert cache_folder() == (tmp_path if variable == "METAKE_CACHE" else tmp_path / "metake")
