"""The public names: all of them, imported when they are first used."""

import ast
import inspect
import io
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import metake
from metake.geometry.covariance import collect
from metake.methods.table import method_named

LIGHT = """
import sys, metake
assert metake.__version__ and "Editor" in dir(metake) and "load" in metake.__all__
assert issubclass(metake.MetakeError, Exception)
print(sorted({"torch", "transformers", "numpy", "pydantic", "matplotlib"} & set(sys.modules)))
"""


def test_import_metake_loads_no_heavy_package():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", metake.__all__)
def test_public_name_is_what_its_module_defines(name):
    value = getattr(metake, name)
    assert name in dir(metake)
    if name != "__version__":
        assert value is getattr(import_module(metake._MODULE_OF[name]), name)


def test_public_names_are_visible_to_type_checkers():
    """Type checkers find the names that are imported lazily.

    The imports under TYPE_CHECKING are those of the table, from the same modules.
    """
    tree = ast.parse(Path(metake.__file__).read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == metake._MODULE_OF
    assert all(alias.name == alias.asname for node in block.body for alias in node.names)


def test_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'metake' has no attribute 'Editr'"):
        metake.Editr  # noqa: B018
    with pytest.raises(ImportError):
        from metake import Editr  # noqa: F401


ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *(ROOT / "docs" / name for name in ("package.md", "extending.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documentation_uses_one_import_path(page):
    """Documentation uses one import path and names that exist."""
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for node in (node for block in blocks for node in ast.walk(ast.parse(block))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "metake":
            assert node.attr in metake.__all__
        if isinstance(node, ast.ImportFrom) and node.module.startswith("metake"):
            assert node.module == "metake"
            assert {alias.name for alias in node.names} <= set(metake.__all__)


def test_first_example_has_ask_check_and_save():
    """The first example is ten lines with ask check and save."""
    block = re.search(r"```python\n(.*?)```", PAGES[0].read_text(encoding="utf-8"), re.DOTALL).group(1)
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    assert [
        name
        for name in ("metake.load(", ".ask(", ".edit(", ".check(", ".save(", ".revert(")
        if name not in block
    ] == []


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "notebook", "progress", "shown"),
    [
        (Terminal, False, True, True),
        (Terminal, False, False, False),
        (io.StringIO, False, True, False),
        (io.StringIO, True, True, True),
        (io.StringIO, True, False, False),
    ],
)
def test_progress_is_shown_on_a_terminal_and_in_notebooks(
    demo, monkeypatch, stream, notebook, progress, shown
):
    """A bar is shown on a terminal and in a notebook by default.

    By the statistics' bar; the editor asks for them by default.
    """
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setitem(sys.modules, "ipykernel", sys) if notebook else None
    collect(
        demo, demo.tokenizer, "The mill is dark. " * 300, (0,), **({} if progress else {"progress": False})
    )
    assert ("statistics: 100%" in sys.stderr.getvalue()) is shown
    for function in (metake.Editor, metake.statistics_for, collect):
        assert inspect.signature(function).parameters["progress"].default is True


def test_help_of_the_package_lists_every_name():
    """The package's help shows the first steps and every name."""
    assert 30 <= len(metake.__all__) <= 42
    assert all(
        step in metake.__doc__ for step in ("mk.load(", "mk.Editor(", "editor.edit(", "editor.revert()")
    )
    assert [
        n for n in metake.__all__ if not re.search(rf"\b{n}\b", metake.__doc__) and n != "__version__"
    ] == []


def test_metake_takes_a_base_a_gradient_or_layers():
    method = metake.metake(metake.alphaedit([1, 2]), gradient="unrolled", meta_lr=0.2)
    assert (method.name, method.planner.gradient.kind) == ("metake(alphaedit)", "unrolled")
    assert (method.geometry.kind, method.value("meta_lr")) == ("projected", 0.2)
    assert metake.metake([1, 2]) == method_named("metake", (1, 2))
    assert metake.metake((1, 2), "proxy").name == "metake + proxy"
    assert metake.metake([1, 2], label="mine").name == "mine"


@pytest.mark.parametrize("name", ["rome", "memit", "alphaedit", "metake"])
def test_constructor_takes_layers_or_a_model(demo, name):
    build = getattr(metake, name)
    assert build(range(1, 3)) == method_named(name, (1, 2))
    assert build(demo) == build(demo) == metake.settings_for(demo, name)
    for wrong in ("12", 7, None):
        with pytest.raises(metake.MetakeError, match=f"^{name}: must be given layers"):
            build(wrong)
