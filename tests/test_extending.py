"""The examples of docs/extending.md as an installed package of somebody else."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.cases import EDIT

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "extending.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
FILES = {block.splitlines()[0].removeprefix("# "): block for kind, block in BLOCKS if kind == "python"}
STORY = """
import json, sys, warnings
import metake as mk
warnings.simplefilter("ignore")
loaded = mk.load("demo", device="cpu")
request = mk.EditRequest("Which city was {} born in?", "Sino Dufe", "Sobris")
before = {name: weight.clone() for name, weight in loaded.model.state_dict().items()}
found = {}
for name in sys.argv[1:]:
    method = mk.settings_for(loaded, name, layers=(3, 4))
    editor = mk.Editor(loaded, method=method)
    result = editor.edit(request)
    found[name] = {"name": result.method.name, "norms": result.delta.norms(), "dump": method.model_dump(),
                   "rank": max(pair[0].shape[1] for pair in result.delta.factors.values()), "text": str(result)}
    assert mk.Method.model_validate(method.model_dump()) == method
    editor.revert()
    assert all(bool((weight == before[name]).all()) for name, weight in loaded.model.state_dict().items())
assert "myedits" in sys.modules
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package as pip would leave it, entry points included."""
    site = tmp_path_factory.mktemp("site")
    for name, text in FILES.items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(text, encoding="utf-8")
    (site / "myedits" / "__init__.py").touch()
    toml = next(block for kind, block in BLOCKS if kind == "toml")
    groups = tomllib.loads(toml)["project"]["entry-points"]
    lines = [
        line
        for group, points in groups.items()
        for line in (f"[{group}]", *(f"{n} = {v}" for n, v in points.items()))
    ]
    info = site / "myedits-0.1.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: myedits\nVersion: 0.1\n", encoding="utf-8")
    return site


@pytest.fixture
def here(installed, monkeypatch, registry, rows):
    """The package in this process, for one test."""
    monkeypatch.syspath_prepend(installed)


def python(site, *arguments):
    path = os.pathsep.join([str(site), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_extending_page_has_short_examples_of_each_kind():
    """There is an example of each kind in at most thirty lines."""
    assert set(FILES) == {
        f"myedits/{name}.py" for name in ("geometry", "planner", "postprocess", "method", "reader")
    }
    assert all(len(text.splitlines()) <= 30 for text in FILES.values())


def test_installed_package_adds_components_and_methods(installed):
    """By entry points alone: nothing imports the package by name."""
    names = ["memit", "memit + diagonal", "memit + shortened", "memit + truncated", "gradient-step"]
    done = python(installed, "-c", STORY, *names)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [row["name"] for row in found.values()] == names
    assert found["memit + diagonal"]["dump"]["geometry"]["kind"] == "diagonal"
    plain, short = (found[name]["norms"]["4"] for name in ("memit", "memit + shortened"))
    assert 0 < short < plain
    assert found["memit + truncated"]["rank"] == 1
    assert "gradient-step: 1" in found["gradient-step"]["text"]


def test_command_line_finds_installed_methods(installed, tmp_path):
    arguments = (
        "--method",
        "memit + diagonal",
        "--set",
        "lam=50",
        "--delta-only",
        "--out",
        str(tmp_path / "edit"),
    )
    done = python(installed, "-m", "metake", *EDIT, *arguments)
    assert done.returncode in (0, 3), done.stderr
    result = json.loads((tmp_path / "edit" / "result.json").read_text(encoding="utf-8"))
    assert result["method"] == "memit + diagonal"
    assert result["settings"]["geometry"] == {"kind": "diagonal", "attenuation": None, "lam": 50.0}


@pytest.mark.usefixtures("here")
def test_models_lists_installed_methods(call):
    _, out, _ = call("models", "--json")
    assert "gradient-step" in json.loads(out)["methods"]
    assert "diagonal" in json.loads(out)["kinds"]["geometry"]


@pytest.mark.usefixtures("here")
def test_evaluate_reads_an_installed_format(call, tmp_path):
    """By its content, and its probes are a group of the results."""
    entry = {"triple": ["Sino Dufe", "was born in", "Sobris"], "aliases": ["S. Dufe"]}
    (tmp_path / "t.json").write_text(json.dumps([entry, {"triple": ["Sino Dufe", "lives in", ""]}]))
    arguments = ["evaluate", "--model", "demo", "--data", tmp_path / "t.json", "--methods", "ultraedit"]
    code, _, errors = call(*arguments, "--no-generate", "--out", tmp_path / "out")
    assert code == 0, errors
    assert "2 records, 1 left out: Sino Dufe: target_new is empty (1)" in errors
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["reading"]["formats"] == {"triples": 2}
    assert "probes/aliases/accuracy" in content["methods"][0]["mean"]


def test_command_line_lists_known_kinds_without_the_package(call, tmp_path):
    """Without the package an unknown kind lists the known ones."""
    code, _, errors = call(*EDIT, "--method", "memit + diagonal", "--out", tmp_path / "edit")
    assert code == 2
    assert "unknown 'diagonal'" in errors
    assert "ridge, projected, identity" in errors
    assert len(errors.strip().splitlines()) == 1
