"""`--config`: options from a file, and the options of a command saved as one."""

import datetime
import json
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from metake import cli
from metake.commands.config import given_options, known_options, option_words, plain_text
from metake.commands.config_file import OptionsFile
from metake.errors import MetakeError
from metake.models.load import load
from metake.shipped import ASSETS
from tests.cases import EDIT, EVALUATE

COMMANDS = typer.main.get_command(cli.app).commands
WORLD = ASSETS / "world" / "test.json"
FILES = {
    "options.toml": 'model = "demo"\nmethods = ["memit", "metake"]\nmeasure_every = 2\ngenerate = false\n[set]\nlam = 3.5\nlookup = "prompt"\n',
    "options.yaml": "model: demo\nmethods: [memit, metake]\nmeasure-every: 2\ngenerate: false\nset: {lam: 3.5, lookup: prompt}\n",
    "options.json": '{"command": "evaluate", "model": "demo", "methods": "memit,metake", "measure-every": 2, "generate": false, '
    '"set": ["lam=3.5", "lookup=prompt"]}',
}


def context(command, *words):
    return COMMANDS[command].make_context(command, [str(word) for word in words])


@pytest.mark.parametrize("name", FILES)
def test_options_of_every_format_are_those_of_the_command_line(name, write):
    file = write(name, FILES[name])
    found = context("evaluate", "--config", file, "--data", "d", "--out", "o").params
    words = "--model demo --methods memit,metake --measure-every 2 --no-generate --set lam=3.5 --set lookup=prompt --data d --out o"
    expected = context("evaluate", *words.split()).params
    assert {**found, "config": None} == expected


def test_options_of_the_command_line_override_the_file(write):
    file = write("o.yaml", "methods: memit\nedits: 3\nset: {lam: 1, lookup: prompt}\n")
    found = context(
        "evaluate", "--edits", 5, f"--config={file}", "--set", "lam=2", "--data", "d", "--out", "o"
    ).params
    assert (found["methods"], found["edits"]) == ("memit", 5)
    assert found["change"] == ["lam=1", "lookup=prompt", "lam=2"]  # the last one counts


def test_date_of_a_file_is_its_text():
    assert plain_text(datetime.date(2020, 1, 1), "a.yaml: target") == "2020-01-01"


WRONG = {
    "unknown": ("a.yaml", "methds: memit", "a.yaml: unknown 'methds'; did you mean 'methods'?"),
    "itself": ("a.yaml", "config: b.yaml", "a.yaml: unknown 'config'"),
    "number": ("a.yaml", "edits: many", "a.yaml: edits: "),
    "flag": ("a.toml", 'chat = "yes"', 'a.toml: chat: must be true or false, got "yes"'),
    "nested": ("a.json", '{"edits": {"a": 1}}', "a.json: edits: must be a number, a text or a list of them"),
    "command": ("a.json", '{"command": "edit", "model": "demo"}', "a.json: command: options of metake edit"),
    "no mapping": ("a.yaml", "- model", "a.yaml: must be a mapping of options to values"),
    "toml": ("a.toml", "model = ", "a.toml: not TOML"),
    "yaml": ("a.yaml", "model: [", "a.yaml: not YAML"),
    "json": ("a.json", "{", "a.json: not JSON"),
    "list": ("a.yaml", "model: [demo, smollm2]", "a.yaml: model: takes one value, got a list of 2; give one"),
    "yaml twice": ("a.yaml", "edits: 3\nedits: 4", "a.yaml: edits: stands twice; remove one of them"),
    "yaml nested": ("a.yaml", "set: {lr: 1, lr: 2}", "a.yaml: lr: stands twice; remove one of them"),
    "json twice": ("a.json", '{"edits": 3, "edits": 4}', "a.json: edits: stands twice; remove one of them"),
    "toml twice": ("a.toml", "edits = 3\nedits = 4", "a.toml: not TOML"),
    "spelled twice": ("a.yaml", "measure-every: 3\nmeasure_every: 4", "a.yaml: measure-every: stands twice"),
    "setting": ("a.yaml", "set: {lr: -1}", "a.yaml: set: lr: input should be greater than 0 (got -1)"),
    "no setting": ("a.yaml", "set: {lamm: 1}", "a.yaml: set: unknown 'lamm'; did you mean 'lam'?"),
    "no value": ("a.yaml", "set: [lr]", "a.yaml: set lr: write NAME=VALUE"),
    "layers": ("a.yaml", "layers: x", "a.yaml: layers"),
    "suffix": ("a.ini", "model=demo", "a.ini: must be a .toml, .yaml or .json file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_file_is_one_line_that_names_it(case, call, write, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    name, text, said = WRONG[case]
    write(name, text)
    code, out, errors = call(*EVALUATE, "--data", WORLD, "--out", "o", "--config", name)
    assert (code, out) == (2, "")
    (line,) = errors.splitlines()
    assert said in line
    assert not (tmp_path / "o").exists()


def test_missing_file_is_one_line(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, errors = call(*EVALUATE, "--data", WORLD, "--out", "o", "--config", "none.yaml")
    assert (code, out) == (2, "")
    assert errors.startswith("metake: error: none.yaml: cannot be read")


def test_wrong_value_of_the_command_line_is_not_blamed_on_the_file(call, write, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write("a.yaml", "edits: 3")
    _, _, errors = call(*EVALUATE, "--data", WORLD, "--out", "o", "--config", "a.yaml", "--edits", "x")
    assert "a.yaml" not in errors
    assert "--edits" in errors


@pytest.mark.parametrize(
    "command", [name for name, each in COMMANDS.items() if "--config" in known_options(each)]
)
def test_list_is_taken_by_options_of_several_values_alone(command):
    """A list of texts is joined by commas only where the option splits at commas."""
    lists = {"methods", "layers", "columns", "factors", "attenuations", "winners-of"}
    for option, parameter in known_options(COMMANDS[command]).items():
        name = option.removeprefix("--")
        if parameter.is_flag or parameter.multiple or name == "config":
            continue
        if name in lists:
            assert list(option_words({name: ["a", "b"]}, COMMANDS[command], "f")) == [option, "a,b"]
        else:
            with pytest.raises(MetakeError, match=f"^f: {name}: takes one value, got a list of 1; give one$"):
                list(option_words({name: ["a"]}, COMMANDS[command], "f"))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--set", "lr=-2"), "settings: lr: input should be greater than 0 (got -2)"),
        (("--set", "steps=x"), "settings: steps: "),
    ],
)
def test_setting_of_the_command_line_is_not_blamed_on_the_file(
    words, line, call, write, monkeypatch, tmp_path
):
    """Neither if it overrides one of the file, nor if the file has others."""
    monkeypatch.chdir(tmp_path)
    write("a.yaml", "set: {lr: 0.1, lam: 3}\nlayers: [2]")
    _, _, errors = call(*EVALUATE, "--data", WORLD, "--out", "o", "--config", "a.yaml", *words)
    assert errors.startswith(f"metake: error: {line}")


def test_setting_that_no_method_has_names_the_file(call, write, monkeypatch, tmp_path):
    """Known only with the model."""
    monkeypatch.chdir(tmp_path)
    write("a.yaml", "set: {threshold: 0.1}")
    code, _, errors = call(*EVALUATE, "--data", WORLD, "--out", "o", "--config", "a.yaml")
    assert code == 2
    assert errors.splitlines()[-1].startswith("metake: error: a.yaml: set: memit has no threshold")


EDITED = "model: demo\nrequest: 'Where is {}?'\nsubject: A\ntarget: B\n"
MEASURED = "model: demo\ndata: d\nout: o\nmethods: memit\nbatch: 3\nset: {lr: 1}\n"


@pytest.mark.parametrize(
    ("command", "text", "words", "changed"),
    [
        ("edit", EDITED, ("--requests", "f.json"), {"request": None, "subject": None, "target": None}),
        (
            "edit",
            "model: demo\nrequests: f.json\n",
            ("--request", "{} is", "--subject", "A", "--target", "B"),
            {"requests": None, "request": "{} is", "subject": "A"},
        ),
        (
            "evaluate",
            MEASURED,
            ("--edited", "e", "--base", "demo"),
            {"model": None, "methods": "metake,alphaedit,memit", "batch": 20, "change": (), "base": "demo"},
        ),
        (
            "evaluate",
            "edited: e\nbase: demo\ndata: d\nout: o\n",
            ("--model", "demo"),
            {"edited": None, "base": None, "model": "demo"},
        ),
        ("evaluate", MEASURED + "alone: true", ("--measure-every", "2"), {"alone": False, "batch": 3}),
        ("evaluate", MEASURED + "measure-every: 2", ("--alone",), {"alone": True, "measure_every": None}),
        ("sweep", "factors: [1, 2]", ("--attenuations", "0.5"), {"factors": None, "attenuations": "0.5"}),
        ("sweep", "attenuations: [0.5]", ("--factors", "2"), {"factors": "2", "attenuations": None}),
    ],
)
def test_option_of_the_command_line_replaces_those_that_exclude_it(command, text, words, changed, write):
    found = context(command, "--config", write("a.yaml", text), *words).params
    assert {name: found[name] for name in changed} == changed


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1).filter(
    lambda text: text.strip() == text and not text.startswith("-")
)
# "a/" and "a" are one file, and "a" is saved.
paths = texts.filter(lambda text: str(Path(text)) == text)
options = st.fixed_dictionaries(
    {"data": paths, "out": st.just("o")},
    optional={
        "model": texts,
        "methods": texts,
        "edits": st.integers(1, 10**6),
        "batch": st.integers(1, 10**6),
        "alone": st.just(True),
        "generate": st.booleans(),
        "set": st.lists(texts, min_size=1),
        "hparams": st.lists(texts, min_size=1),
        "text": paths,
    },
)


@given(options)
def test_given_options_are_a_file_of_themselves(wanted):
    """Options -> words of a command line -> options that were given: the same, for every value."""
    command = COMMANDS["evaluate"]
    words = list(option_words(wanted, command, "file"))
    found = given_options(command, context("evaluate", *words))
    assert found == {name: value for name, value in wanted.items() if name != "out"}


def measured(results):
    """What a result file says of its methods, without times."""
    return [
        {k: v for k, v in entry.items() if "second" not in k and k != "batches"}
        for entry in results["methods"]
    ]


def test_folder_of_an_evaluation_repeats_it(call, write, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write("o.yaml", f"data: {WORLD}\nedits: 2\ngenerate: false\nset: {{gradient_lr: 0.5}}\n")
    first = call(*EVALUATE[:-1], "ultraedit", "--config", "o.yaml", "--edits", 3, "--out", "first")
    assert first[0] == 0, first[2]
    saved = json.loads((tmp_path / "first" / "options.json").read_text())
    assert saved == {
        "command": "evaluate",
        "data": str(WORLD),
        "model": "demo",
        "methods": "ultraedit",
        "edits": 3,
        "generate": False,
        "set": ["gradient_lr=0.5"],
    }
    again = call("evaluate", "--config", "first", "--out", "again")
    assert again[0] == 0, again[2]
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("first", "again")]
    assert len({json.dumps(measured(content), sort_keys=True) for content in results}) == 1
    assert json.loads((tmp_path / "again" / "options.json").read_text()) == saved


def test_options_saved_with_an_edit_are_no_part_of_the_model(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert call(*EDIT, "--method", "ultraedit", "--out", "edited")[0] in (0, 3)
    saved = OptionsFile.read(tmp_path / "edited", "edit")
    assert saved.options["subject"] == "Nezan Girok"
    saved.path.write_text("{}")
    load("edited", chat=None)


def test_command_that_was_not_started_saves_no_options(tmp_path):
    from metake.commands.config import save_options

    save_options(tmp_path)
    assert not list(tmp_path.iterdir())
