"""The Python examples of the README and the package's page use names that exist."""

import ast
import re
from pathlib import Path

import pytest

import metake

ROOT = Path(__file__).resolve().parents[1]
OBJECTS = {
    "metake": metake,
    "editor": metake.Editor,
    "loaded": metake.EditableModel,
    "result": metake.EditResult,
    "delta": metake.Delta,
}


def example(page: str) -> str:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)[0]


@pytest.mark.parametrize("page", ["README.md", "docs/package.md"])
def test_example_uses_public_names_alone(page):
    tree = ast.parse(example(page))
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert {node.attr for node in used} >= {"load", "Editor", "Request", "edit", "save", "revert"}
    for node in used:
        owner = node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")
        if owner == "metake":
            assert node.attr in metake.__all__
        elif node.attr != "delta":  # a field
            assert callable(getattr(OBJECTS[owner], node.attr)), ast.unparse(node)
    imported = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imported == ["import metake"]


def test_the_packages_example_edits_its_model(demo, statistics_of, tmp_path, monkeypatch):
    """As it stands, with fewer steps."""
    monkeypatch.chdir(tmp_path)
    editor = metake.Editor

    def quick(loaded, method):
        plain = metake.settings_for(loaded.arch, method)
        quick = {"steps": 1, "meta_steps": 1, "layers": statistics_of(demo).provenance.layers[:1]}
        chosen = plain.updated(**plain.fitting(quick))
        return editor(loaded, method=chosen, statistics=statistics_of(demo))

    monkeypatch.setattr(metake, "Editor", quick)
    monkeypatch.setattr(metake, "load", {"demo": demo}.__getitem__)
    names: dict = {}
    exec(example("docs/package.md"), names)
    assert (tmp_path / "edit").exists() or (tmp_path / "edit.safetensors").exists()
    assert names["editor"].batches == []
