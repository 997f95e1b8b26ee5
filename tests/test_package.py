"""What is distributed says what it is, and speaks of nothing that it lacks."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from metake.geometry.statistics import Statistics
from metake.shipped import ASSETS

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_package_description_mentions_only_what_exists():
    """The package's description mentions nothing that it lacks."""
    text = (ROOT / PROJECT["readme"]).read_text(encoding="utf-8")
    assert not re.search(r"\]\((?!https?:)", text)  # a relative link leads nowhere
    assert not re.search(r"\bmake \w|\b(docs|experiments|theory|verification|tests)/", text)
    for path in re.findall(r"\bmetake/[\w/.-]+", text):
        assert (ROOT / path).exists(), path


def test_shipped_assets_have_an_origin():
    text = (ASSETS / "NOTICE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w.-]+)`", text.replace("`real_facts.json`", "")))
    assert {entry.name for entry in ASSETS.iterdir()} - {"NOTICE.md"} <= named
    for path in re.findall(r"`((?:metake|experiments)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
    assert "metake/assets/NOTICE.md" in PROJECT["license-files"]


def test_convert_reads_older_statistics_as_documented(tmp_path, monkeypatch):
    """Older statistics are converted as the page states."""
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
def test_cache_folder_is_the_documented_one(monkeypatch, tmp_path, variable):
    """The cache is where the page states."""
    from metake.statistics_cache import cache_folder

    monkeypatch.delenv("METAKE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "metake"
    monkeypatch.setenv(variable, str(tmp_path))
    assert cache_folder() == (tmp_path if variable == "METAKE_CACHE" else tmp_path / "metake")


COMMANDS = ("tune", "sweep", "locate", "drift", "figures", "demo", "evaluate")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Wheel of a copy of the sources, and a folder into which it is installed."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    skipped = shutil.ignore_patterns("__pycache__")
    for name in ("metake", "theory"):
        shutil.copytree(ROOT / name, source / name, ignore=skipped)
    for name in ("pyproject.toml", "LICENSE", PROJECT["readme"]):
        (source / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "target"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True)
    return wheel, target


def test_wheel_is_small(installed):
    assert installed[0].stat().st_size < 8e6


def test_installed_copy_has_commands_and_names_missing_parts(installed, tmp_path):
    """One process for all; it finds metake in the installed copy alone."""
    code = f"""
import sys, metake, theory
from metake.commands.program import run_program
from metake.cli import app
assert metake.__file__.startswith({str(installed[1])!r}) and theory.__file__.startswith({str(installed[1])!r})
for name in {COMMANDS!r}:
    run_program("metake", app, [name, "--help"])
assert "torch" not in sys.modules
assert metake.load("demo").name == "demo"
try:
    metake.load("demo-gptj")
except metake.MetakeError as error:
    print(error)
"""
    inherited = {**os.environ, "PYTHONPATH": str(installed[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=inherited
    )
    assert done.returncode == 0, done.stderr
    assert (
        "demo-gptj: not in this installation; it is in the repository, in metake/assets/demo-gptj"
        in done.stdout
    )
    assert done.stdout.count("Usage: metake ") == len(COMMANDS)
