"""The public names: all of them, imported when they are first used."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import metake

LIGHT = """
import sys, metake
assert metake.__version__ and "Editor" in dir(metake) and "load" in metake.__all__
assert issubclass(metake.MetakeError, Exception)
print(sorted({"torch", "transformers", "numpy", "pydantic", "matplotlib"} & set(sys.modules)))
"""


def test_import_alone_loads_no_heavy_package():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", metake.__all__)
def test_a_public_name_is_what_its_module_defines(name):
    value = getattr(metake, name)
    assert name in dir(metake)
    if name != "__version__":
        assert value is getattr(import_module(metake._MODULE_OF[name]), name)


def test_type_checkers_see_the_names_that_are_imported_lazily():
    """The imports under TYPE_CHECKING are those of the table, from the same modules."""
    tree = ast.parse(Path(metake.__file__).read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == metake._MODULE_OF
    assert all(alias.name == alias.asname for node in block.body for alias in node.names)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'metake' has no attribute 'Editr'"):
        metake.Editr  # noqa: B018
    with pytest.raises(ImportError):
        from metake import Editr  # noqa: F401
