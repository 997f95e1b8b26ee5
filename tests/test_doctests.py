"""Examples of the public names run as doctests."""

import doctest
import inspect

import pytest

import metake

WITHOUT = {"__version__", "METHODS"}  # values, not functions or classes


def example_of(name):
    value = getattr(metake, name)
    return doctest.DocTestParser().get_doctest(inspect.getdoc(value) or "", {}, name, None, None)


@pytest.mark.parametrize("name", [n for n in metake.__all__ if n not in WITHOUT])
def test_example_of_a_public_name_runs(name, registry, rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = example_of(name)
    assert example.examples
    said = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert said == []
