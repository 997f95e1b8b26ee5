"""What a module or a script imports is declared; what is missing is one line that names the extra.

The other half, each extra in an environment of its own, is `tests/extras.py`.
"""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from metake.errors import MetakeError
from metake.extras import needs, require
from metake.models.load import load
from metake.streaming import stream_dataset
from tests.scripts import EXPERIMENTS

ROOT = EXPERIMENTS.parent
OWN = {"metake", "theory", "verification", "experiments", "tests"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# the extra that each script's commands need; the others need none
EXTRA = {
    "measure_drift": "theory",
    "theorem_figures": "theory",
    "run_zsre": "theory",
    "tune": "search",
    "downstream": "harness",
    "long_answers": "text",
    "quantized_base": "quantized",
    "run_notebooks": "docs",
    "playground_pages": "dev",
    "describe": "dev",  # imports every command
}
EXTRA_ROOMS = {
    "drift": "theory",
    "figures": "theory",
    "playground": "playground",
    "tuning": "search",
}  # of metake/
SCRIPTS = sorted(path.stem for path in EXPERIMENTS.glob("*.py"))
OPTIONAL = {
    "accelerate",
    "datasets",
    "gguf",
    "huggingface_hub",
    "rapidfuzz",
    "sacrebleu",
}  # what one option or method of the library needs
DISTRIBUTION = {"flint": "python-flint", "z3": "z3-solver", "lm_eval": "lm-eval", "yaml": "pyyaml"}


def declared(extra: str | None) -> set[str]:
    """Names of the distributions that an installation with an extra asks for, nested extras included."""
    entries = list(PROJECT["dependencies"])
    todo = [] if extra is None else [extra]
    while todo:
        for entry in PROJECT["optional-dependencies"][todo.pop()]:
            inner = re.match(r"metake\[(.*)\]", entry)
            if inner:
                todo += inner[1].split(",")
            else:
                entries.append(entry)
    return {re.match(r"[\w-]+", entry)[0].lower() for entry in entries}


def found_at(module: str) -> Path | None:
    """The file of one of our own modules."""
    path = ROOT.joinpath(*module.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


@cache
def imported(path: Path) -> set[str]:
    """Every module that a file imports, at its top or in a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def foreign(*paths: Path, without: Sequence[str] = ()) -> dict[str, str]:
    """Package -> a file that imports it, over the files and all of ours that they import, but some rooms."""
    seen = {path for room in without for path in (ROOT / "metake" / room).rglob("*.py")}
    found: dict[str, str] = {}
    todo = list(paths)
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for module in imported(path):
            top = module.partition(".")[0]
            if top in OWN:
                todo += [inner for inner in (found_at(module),) if inner is not None]
            elif top not in sys.stdlib_module_names:
                found[top] = str(path.relative_to(ROOT))
    return found


def undeclared(packages: dict[str, str], names: set[str]) -> dict[str, str]:
    return {
        package: file
        for package, file in packages.items()
        if DISTRIBUTION.get(package, package).lower() not in names
    }


def test_library_imports_what_is_declared():
    """Everything but what one option or method needs (`--dataset`, `--seeds`, adapters); rooms of an extra apart."""
    packages = foreign(*(ROOT / "metake").rglob("*.py"), without=list(EXTRA_ROOMS))
    assert "torch" in packages
    assert set(undeclared(packages, declared(None))) == OPTIONAL | {"scipy"}
    assert "datasets" in declared("hub")
    assert {"gguf", "huggingface_hub"} <= declared("adapters")
    assert "scipy" in declared("theory")


@pytest.mark.parametrize("room", EXTRA_ROOMS)
def test_room_imports_what_its_extra_declares(room):
    packages = foreign(*(ROOT / "metake" / room).rglob("*.py"))
    packages = {name: file for name, file in packages.items() if name not in OPTIONAL}
    assert undeclared(packages, declared(None))
    assert not undeclared(packages, declared(EXTRA_ROOMS[room]))


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_imports_what_its_extra_declares(script):
    packages = foreign(EXPERIMENTS / f"{script}.py")
    optional = OPTIONAL - (declared(EXTRA[script]) - declared(None) if script in EXTRA else set())
    packages = {name: file for name, file in packages.items() if name not in optional}
    assert not undeclared(packages, declared(EXTRA.get(script)))
    assert bool(undeclared(packages, declared(None))) == (script in EXTRA)


def test_tests_import_what_dev_declares():
    packages = foreign(*(ROOT / "verification").rglob("*.py"), *(ROOT / "theory").rglob("*.py"))
    assert not undeclared({n: f for n, f in packages.items() if n not in OPTIONAL}, declared("dev"))


def test_import_names_are_those_of_the_distributions():
    """The table above, against what is installed."""
    provided = packages_distributions()
    for package, distribution in DISTRIBUTION.items():
        if package in provided:
            assert distribution in [name.lower() for name in provided[package]]


def test_extras_include_what_transformers_needs():
    """Extras bring what transformers asks for.

    Loading GGUF and sharding need accelerate, which no import of ours shows.
    """
    assert {"gguf", "accelerate"} <= declared("gguf")
    assert {"datasets", "accelerate"} <= declared("hub")


HIDE = """
import importlib.abc, runpy, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
for script, package, place in %r:
    for name in [n for n in sys.modules if n.partition(".")[0] in (package, "metake", "theory", "experiments")]:
        del sys.modules[name]
    sys.argv = [script, "--out", place]
    try:
        runpy.run_path(f"%s/{script}.py", run_name="__main__")
    except SystemExit as end:
        assert end.code == 2, end.code
"""


def test_scripts_without_their_extras_end_in_one_line(tmp_path):
    """In one process of their own; what an earlier script imported of the hidden package and of ours is forgotten."""
    lacking = {"measure_drift": "scipy", "theorem_figures": "flint", "tune": "optuna"}
    code = HIDE % ([(*item, str(tmp_path / "out")) for item in lacking.items()], EXPERIMENTS)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        f"{script}: error: the package {package} is missing; pip install 'metake[{EXTRA[script]}]'"
        for script, package in lacking.items()
    ]
    assert not (tmp_path / "out").exists()


@pytest.fixture
def lacking(monkeypatch):
    """`lacking(package)`: it cannot be found."""

    def hide(package: str) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == package else find(n, *a))

    return hide


@pytest.mark.parametrize("package", ["gguf", "accelerate"])
def test_load_gguf_names_its_extra(package, lacking, tmp_path):
    lacking(package)
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(MetakeError, match=rf"^a.gguf: .*{package} is missing; pip install 'metake\[gguf\]'$"):
        load(str(tmp_path / "a.gguf"))


def test_load_hub_names_its_extra(lacking):
    lacking("datasets")
    with pytest.raises(MetakeError, match=r"datasets is missing; pip install 'metake\[hub\]'$"):
        next(stream_dataset("any"))
    lacking("accelerate")
    with pytest.raises(MetakeError, match=r"accelerate is missing; pip install 'metake\[hub\]'$"):
        load("demo", device="auto")


def test_run_zsre_refuses_intervals_without_scipy(lacking, tmp_path):
    """Intervals over seeds are refused before anything runs."""
    from tests.scripts import refused

    lacking("scipy")
    line = refused("run_zsre.py", "--edits", 2, "--methods", "ultraedit", out=tmp_path / "out")
    assert line.endswith("scipy is missing; pip install 'metake[theory]'\n")


def test_missing_module_of_metake_is_no_missing_package():
    """A missing module of our own is no missing package."""
    with pytest.raises(ModuleNotFoundError), needs("theory"):
        import metake.nowhere  # noqa: F401
    with pytest.raises(MetakeError, match="package nowhere is missing"), needs("theory"):
        import nowhere  # noqa: F401
    require("theory", "json", what="nothing")
