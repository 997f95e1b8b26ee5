"""What every result file says of its origin."""

import ast
import json
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import pytest

import metake
from metake.provenance import provenance
from tests.scripts import EXPERIMENTS, check_origins


def test_provenance_names_model_method_version_and_time(demo):
    said = provenance("mine", demo, ["memit", "metake"])
    assert said["model"] == "mine"
    assert said["fingerprint"] == demo.fingerprint()
    assert said["method"] == "memit, metake"
    assert said["version"] == said["versions"]["metake"] == metake.__version__
    assert said["versions"]["torch"] == version("torch")
    assert said["versions"]["transformers"] == version("transformers")
    assert abs(datetime.now(UTC) - datetime.fromisoformat(said["written"])) < timedelta(minutes=1)


def test_provenance_of_a_file_with_a_digest_has_no_time(demo):
    said = provenance("mine", demo, "memit", dated=False)
    assert said["method"] == "memit"
    assert "written" not in said


def names(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.py")), ids=lambda path: path.stem)
def test_provenance_is_in_every_scripts_result_file(path):
    """Every script that writes a result file has its origin.

    Scripts whose content comes from a comparison or a result file have it from there. What describe.py writes is a part of
    the library.
    """
    used = names(path) if path.stem != "describe" else set()
    if used & {"write_json", "write_record"}:
        assert used & {"provenance", "result_file", "now", "Results"}


@pytest.mark.parametrize("lacking", ["model", "fingerprint", "method", "version", "written"])
def test_check_origins_reports_a_file_without_origin(lacking, demo, tmp_path):
    """A result file without its origin is noticed."""
    content = provenance("mine", demo, "memit")
    (tmp_path / "a.json").write_text(json.dumps(content))
    check_origins(tmp_path)
    del content[lacking]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(AssertionError):
        check_origins(tmp_path)
