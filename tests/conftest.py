"""Fixtures that several test files share: the trained demo models, tiny random ones per family, commands."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path

# Before torch is imported: several workers on two cores must not fight over threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"  # a name that is nowhere is not looked up

import pytest
import torch

from metake import cli, components
from metake.data.records import read_records
from metake.editor import Editor
from metake.geometry.covariance import collect
from metake.methods import table
from metake.models.editable import EditableModel
from metake.models.load import load
from metake.shipped import ASSETS, DEMOS
from metake.texts import default_text
from tests.cases import CONFIGS, tiny

torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory):
    """Statistics go to a folder of the test run, never to the user's cache."""
    os.environ["METAKE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(params=sorted(CONFIGS))
def family(request):
    return request.param


@pytest.fixture(scope="session", params=DEMOS)
def model(request):
    """Each trained demo model."""
    return load(request.param, device="cpu")


@pytest.fixture(scope="session")
def demo():
    return load("demo", device="cpu")


@pytest.fixture(scope="session")
def talking(tmp_path_factory):
    """A folder with the demo model and a chat template."""
    folder, model = tmp_path_factory.mktemp("talking"), load("demo", device="cpu")
    model.tokenizer.chat_template = "{% for m in messages %}{{ 'Asked: ' if m.role == 'user' else 'Answered: ' }}{{ m.content }}\n{% endfor %}"
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def records():
    return read_records(ASSETS / "world" / "dev.json", 12)


@pytest.fixture(scope="session")
def statistics_of():
    """Statistics of a demo model's layers 0 to 3 from a short text, collected once per model and dtype."""
    kept = {}

    def of(model):
        key = model.name, model.dtype
        if key not in kept:
            kept[key] = collect(
                model, model.tokenizer, default_text("demo"), (0, 1, 2, 3), tokens=6000, progress=False
            )
        return kept[key]

    return of


@pytest.fixture
def cut_at(monkeypatch):
    """`with cut_at(n) as edited:` a run that is interrupted at its n-th batch; what it was given so far."""

    @contextmanager
    def cut(count: int):
        edit, edited = Editor.edit, []

        def interrupted(self, requests):
            edited.append(requests)
            if len(edited) == count:
                raise KeyboardInterrupt
            return edit(self, requests)

        with monkeypatch.context() as patch:
            patch.setattr(Editor, "edit", interrupted)
            with pytest.raises(KeyboardInterrupt):
                yield edited

    return cut


@pytest.fixture
def write(tmp_path: Path):
    """Write a text into the test's folder and return its path."""

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write_file


@pytest.fixture
def registry():
    """The registry of components; kinds registered by the test are removed afterwards."""
    known = {family: dict(kinds) for family, kinds in components._REGISTRY.items()}
    yield components._REGISTRY
    components._REGISTRY.clear()
    components._REGISTRY.update(known)


@pytest.fixture
def rows():
    """The table of methods; rows registered by the test are removed afterwards."""
    tables = (table.METHODS, table.PROTOTYPES)
    known = [dict(one) for one in tables]
    yield table.METHODS
    for one, before in zip(tables, known, strict=True):
        one.clear()
        one.update(before)


@pytest.fixture
def call(monkeypatch, capfd):
    """`call(arguments)`: exit code, stdout and stderr of a `metake` command."""

    def go(*arguments):
        monkeypatch.setattr(sys, "argv", ["metake", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        return code, *capfd.readouterr()

    return go


@pytest.fixture
def tiny_model(family):
    """A tiny model of each family."""
    return EditableModel(tiny(family))
