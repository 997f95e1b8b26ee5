"""Completion of a shell: models, methods and settings, as the code has them."""

import os
import subprocess
import sys

import pytest

from experiments.describe import completed_names
from metake.cli import app
from metake.commands.completion import complete_method, complete_model, complete_setting, shipped
from metake.commands.describe import describe_options
from tests.scripts import EXPERIMENTS


def test_completed_names_are_those_of_the_code():
    """`python experiments/describe.py` writes both."""
    assert {kind: shipped(kind) for kind in ("models", "methods", "settings")} == completed_names()


def test_documented_options_are_those_of_the_commands():
    page = EXPERIMENTS.parent / "docs" / "command-line.md"
    assert describe_options(app) in page.read_text(encoding="utf-8")


def test_model_is_a_name_a_folder_or_a_gguf_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demolition").mkdir()
    (tmp_path / "demolition" / "config.json").write_text("{}")
    (tmp_path / "dem.gguf").write_text("")
    (tmp_path / "demo.txt").write_text("")
    assert complete_model("dem") == ["demo", "demo-gptj", "demo-llama", "dem.gguf", "demolition"]
    assert complete_model("../x") == []


def test_method_of_a_list_is_completed_at_its_end():
    assert complete_method("memit,metake-pr") == ["memit,metake-proxy", "memit,metake-priced"]


def test_setting_is_completed_with_its_sign():
    assert complete_setting("meta_l") == ["meta_lr="]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("metake ev", {"evaluate"}),
        ("metake edit --model demo-g", {"demo-gptj"}),
        ("metake sweep --methods rect,rom", {"rect,rome"}),
        ("metake edit --set cost_w", {"cost_weight="}),
    ],
)
def test_shell_is_answered_without_model_libraries(line, expected):
    code = "import sys; from metake import cli\ntry: cli.main()\nfinally: assert 'torch' not in sys.modules"
    environment = {
        **os.environ,
        "_METAKE_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert set(done.stdout.split()) == expected
