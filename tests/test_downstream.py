"""Tasks of the lm-evaluation-harness before and after an edit, on a task of one's own."""

import json
from importlib.util import find_spec

import pytest

from metake.editor import Editor
from metake.presets import settings_for
from tests.scripts import call, refused

TASK = """
task: birthplaces
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: 0
metric_list:
  - metric: acc
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory, records):
    """Two facts of the world, each against the other's answer: a model that knows them picks its own."""
    folder = tmp_path_factory.mktemp("task")
    facts = [record.request for record in records[:2]]
    lines = [
        {"question": r.text, "choices": [r.target_new, other.target_new]}
        for r, other in zip(facts, facts[::-1], strict=True)
    ]
    (folder / "facts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "birthplaces.yaml").write_text(TASK.format(data=folder / "facts.jsonl"))
    return folder


@pytest.fixture(scope="module")
def change(tmp_path_factory, demo, statistics_of, records):
    """A strong edit of these two facts to the targets that the task counts as right."""
    settings = settings_for(demo, "memit").updated(layers=(1, 2, 3), steps=15, lam=30.0, contexts=())
    folder = tmp_path_factory.mktemp("change")
    with Editor(demo.model, demo.tokenizer, settings, statistics=statistics_of(demo)) as editor:
        editor.edit([record.request for record in records[:2]]).delta.save(folder)
    return folder


def test_downstream_has_accuracy_before_and_after(tmp_path, task, change):
    pytest.importorskip("lm_eval")
    call(
        "downstream.py",
        "--model",
        "demo",
        "--device",
        "cpu",
        "--delta",
        change,
        "--tasks",
        "birthplaces",
        "--task-folder",
        task,
        "--out",
        tmp_path,
    )
    content = json.loads((tmp_path / "downstream.json").read_text())
    assert set(content["before"]) == {"birthplaces"}
    assert content["after"]["birthplaces"]["acc"] == 1.0
    assert content["before"]["birthplaces"]["acc"] <= content["after"]["birthplaces"]["acc"]
    assert "birthplaces" in (tmp_path / "downstream.md").read_text()


def test_downstream_refuses_unknown_tasks(tmp_path, task, change):
    pytest.importorskip("lm_eval")
    line = refused(
        "downstream.py",
        "--model",
        "demo",
        "--delta",
        change,
        "--tasks",
        "nonsense",
        "--task-folder",
        task,
        out=tmp_path / "out",
    )
    assert "knows no 'nonsense'" in line


@pytest.mark.skipif(find_spec("lm_eval") is not None, reason="the harness is installed")
def test_downstream_names_the_package_to_install(tmp_path, change):
    """The line says what to install."""
    line = refused(
        "downstream.py", "--model", "demo", "--delta", change, "--tasks", "any", out=tmp_path / "out"
    )
    assert "pip install 'metake[harness]'" in line
