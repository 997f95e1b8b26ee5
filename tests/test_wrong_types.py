"""Whatever is given to a public function in place of what it expects ends in one line that names the argument."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import metake
from metake.geometry.covariance import collect
from metake.methods.table import method_named
from metake.models.modules import LLAMA_LIKE
from metake.presets import load_preset, methods_for
from tests.cases import method_of, tiny

REQUEST = metake.EditRequest("The one who works at the {} is a", "market", "baker")
VALUES = {
    "None": None,
    "int": 7,
    "float": 0.5,
    "bool": True,
    "bytes": b"x",
    "list": [],
    "list of ints": [1],
    "dict": {"a": 1},
    "object": object(),
    "class": dict,
    "tensor": torch.zeros(2),
    "function": len,
    "module": torch.nn.Linear(2, 2),
    "text": "text",
    "empty": "",
    "path": Path("nowhere"),
}
CHANGES = {"layers": (1,), "steps": 2, "meta_steps": 1, "contexts": ()}


@pytest.fixture(scope="module")
def given(demo, statistics_of):
    """What calls below need: a model, its editor, a delta, statistics."""
    statistics = statistics_of(demo)
    method = method_of(demo, "memit", **CHANGES)
    editor = metake.Editor(demo, method=method, statistics=statistics)
    result = editor.edit(REQUEST)
    editor.revert()
    quick = {"method": method, "statistics": statistics}
    return SimpleNamespace(
        demo=demo, editor=editor, delta=result.delta, result=result, statistics=statistics, quick=quick
    )


FOLDER = ("text", "path")
# entry point -> a call with a value, what begins the line, values that are right
ENTRIES = {
    "load": (lambda g, x: metake.load(x), "", ()),
    "load dtype": (lambda g, x: metake.load("demo", dtype=x), "dtype: ", ()),
    "load device": (lambda g, x: metake.load("demo", device=x), "device: ", ("None",)),
    "load modules": (lambda g, x: metake.load("demo", modules=x), "", ("None",)),
    "EditRequest prompt": (lambda g, x: metake.EditRequest(x, "a", "b"), "a: prompt ", ()),
    "EditRequest subject": (lambda g, x: metake.EditRequest("{}", x, "b"), "", ("text",)),
    "EditRequest target_new": (lambda g, x: metake.EditRequest("{}", "a", x), "a: target_new ", ("text",)),
    "EditRequest locality_prompts": (
        lambda g, x: metake.EditRequest("{}", "a", "b", x),
        "a: locality_prompts ",
        ("list",),
    ),
    "EditRequest.from_text": (lambda g, x: metake.EditRequest.from_text(x, "a", "b"), "", ()),
    "EditRequest.from_text name": (
        lambda g, x: metake.EditRequest.from_text("a", "a", "b", name=x),
        "a: name ",
        ("text", "empty"),
    ),
    "EditRequest start": (
        lambda g, x: metake.EditRequest("{}", "a", "b", start=x),
        "a: start ",
        ("None", "int"),
    ),
    "EditRequest.parse": (lambda g, x: metake.EditRequest.parse(x, "a", "b"), "", ()),
    "Editor": (lambda g, x: metake.Editor(x), "", ()),
    "Editor tokenizer": (lambda g, x: metake.Editor(g.demo.model, x), "tokenizer: ", ()),
    "Editor tokenizer of EditableModel": (
        lambda g, x: metake.Editor(g.demo, x, **g.quick),
        "tokenizer: ",
        ("None",),
    ),
    "Editor method": (lambda g, x: metake.Editor(g.demo, method=x), "method: ", ()),
    "Editor statistics": (
        lambda g, x: metake.Editor(g.demo, method="ultraedit", statistics=x),
        "statistics: ",
        ("None",),
    ),
    "Editor modules": (lambda g, x: metake.Editor(g.demo, modules=x, **g.quick), "", ("None",)),
    "preview": (lambda g, x: g.editor.preview(x), "requests: ", ()),
    "edit": (lambda g, x: g.editor.edit(x), "requests: ", ()),
    "edit preview": (
        lambda g, x: (g.editor.edit(REQUEST, preview=x), g.editor.revert()),
        "edit: preview ",
        ("None",),
    ),
    "edit a list": (lambda g, x: g.editor.edit([REQUEST, x]), "requests: ", ()),
    "ask": (lambda g, x: g.editor.ask(x), "ask: ", ("text",)),
    "plot": (lambda g, x: g.result.plot(x), "", FOLDER),
    "save_model model": (lambda g, x: metake.save_model(x, "new"), "save_model: ", ()),
    "save_model folder": (lambda g, x: metake.save_model(g.demo, x), "save_model: folder", FOLDER),
    "Delta.load": (lambda g, x: metake.Delta.load(x), "", ()),
    "Delta.save": (lambda g, x: g.delta.save(x), "Delta.save: folder", FOLDER),
    "Delta.apply": (lambda g, x: g.delta.apply(x), "", ()),
    "Delta.applied": (lambda g, x: g.delta.applied(x).__enter__(), "", ()),
    "Delta.dense": (lambda g, x: g.delta.to_dense(x), "dense: layer ", ()),
    "Editor.restore": (lambda g, x: g.editor.restore(x, None, None), "requests: ", ()),
    "Editor.restore delta": (lambda g, x: g.editor.restore([REQUEST], x, None), "restore: delta ", ()),
    "Editor.restore memory": (lambda g, x: g.editor.restore([REQUEST], g.delta, x), "restore: memory ", ()),
    "Delta.then": (lambda g, x: g.delta.then(x), "delta: ", ()),
    "Statistics.load": (lambda g, x: metake.Statistics.load(x), "", ()),
    "Statistics.save": (lambda g, x: g.statistics.save(x), "Statistics.save: path", FOLDER),
    "Statistics.check": (lambda g, x: g.statistics.check(x, (1,)), "", ()),
    "Statistics.check layers": (lambda g, x: g.statistics.check(g.demo, x), "layers: ", ("list of ints",)),
    "collect": (lambda g, x: collect(x, g.demo.tokenizer, "a text", (1,)), "", ()),
    "collect tokenizer": (lambda g, x: collect(g.demo.model, x, "a text", (1,)), "tokenizer: ", ()),
    "collect text": (lambda g, x: collect(g.demo, g.demo.tokenizer, x, (1,)), "", ()),
    "statistics_for": (lambda g, x: metake.statistics_for(x), "", ()),
    "statistics_for layers": (lambda g, x: metake.statistics_for(g.demo, layers=x, text="a"), "", ()),
    "statistics_for text": (
        lambda g, x: x is None or metake.statistics_for(g.demo, layers=[1], text=x),
        "",
        ("None",),
    ),
    "settings_for": (lambda g, x: metake.settings_for(x, "memit"), "", ()),
    "settings_for method": (lambda g, x: metake.settings_for(g.demo, x), "method: ", ()),
    "settings_for layers": (
        lambda g, x: metake.settings_for(g.demo, "memit", layers=x),
        "",
        ("list of ints",),
    ),
    "settings_for lr": (
        lambda g, x: metake.settings_for(g.demo, "memit", lr=x),
        "settings: lr: ",
        ("int", "float", "bool"),
    ),
    "settings_for name": (
        lambda g, x: metake.settings_for(g.demo, "memit", name=x),
        "",
        ("None", "text", "empty"),
    ),
    "methods_for": (lambda g, x: methods_for(g.demo, x), "", ("list",)),
    "methods_for changes": (
        lambda g, x: methods_for(g.demo, ["memit"], changes={"lr": x}),
        "settings: lr: ",
        ("int", "float", "bool"),
    ),
    "method_named": (lambda g, x: method_named(x), "method: ", ()),
    "Method": (
        lambda g, x: metake.LocateThenEdit(layers=x),
        "settings: layers",
        ("list", "list of ints", "tensor"),
    ),
    "Method planner": (lambda g, x: metake.LocateThenEdit(layers=(1,), planner=x), "", ()),
    "Method kind": (
        lambda g, x: metake.LocateThenEdit(layers=(1,), planner={"kind": x}),
        "settings: planner: ",
        (),
    ),
    "Method.updated": (lambda g, x: g.editor.method.updated(steps=x), "settings: steps: ", ("int", "bool")),
    "Method.updated geometry": (lambda g, x: g.editor.method.updated(geometry=x), "", ()),
    "Method.value": (lambda g, x: g.editor.method.value(x), "settings: ", ()),
    "register": (lambda g, x: metake.register(x), "register: ", ()),
    "register_method": (lambda g, x: metake.register_method(x), "register_method: ", ()),
    "ModuleMap": (lambda g, x: metake.ModuleMap(x, "down"), "modules: blocks: ", ("text",)),
    "ModuleMap.read": (lambda g, x: metake.ModuleMap.read(x), "", ()),
    "read_records": (lambda g, x: metake.read_records(x), "", ()),
    "load_preset": (lambda g, x: load_preset(x), "", ("text", "empty")),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_public_function_reports_a_wrong_type_in_one_line(given, entry, tmp_path, monkeypatch):
    """A wrong type ends in one line and changes nothing."""
    monkeypatch.chdir(tmp_path)
    call, start, right = ENTRIES[entry]
    before = given.demo.fingerprint()
    for kind, value in VALUES.items():
        if kind in right:
            call(given, value)
            continue
        with pytest.raises(metake.MetakeError) as error:
            call(given, value)
        line = str(error.value)
        assert line.startswith(start), (kind, line)
        assert len(line.splitlines()) == 1, (kind, line)
        assert len(line) < 500, (kind, line)
    assert given.demo.fingerprint() == before
    written = {path.name for path in tmp_path.iterdir()}
    assert not written or right == FOLDER, written


@pytest.mark.parametrize("field", ["neighbors", "rephrases"])
def test_check_names_questions_of_no_text(given, field):
    """A check of no texts ends in one line that names them.

    Also of what counts as false: 0 and False are no questions, and not no question.
    """
    right = {"text", "None", "list"}
    asked = {"neighbors": "What is", "rephrases": "What is"}
    given.editor.edit(REQUEST)
    try:
        edited = given.demo.fingerprint()
        for kind, value in {**VALUES, "zero": 0, "false": False, "empty dict": {}}.items():
            if kind in right:
                given.editor.check(**{**asked, field: value})
                continue
            with pytest.raises(metake.MetakeError, match=f"^check: {field[:-1]}") as error:
                given.editor.check(**{**asked, field: value})
            assert len(str(error.value).splitlines()) == 1, kind
        with pytest.raises(metake.MetakeError, match="check: no question given"):
            given.editor.check(neighbors=[], rephrases=None)
        assert given.demo.fingerprint() == edited
    finally:
        given.editor.revert()


@pytest.mark.parametrize("entry", [name for name, (_, _, right) in ENTRIES.items() if right is FOLDER])
def test_public_function_takes_paths_as_text_or_path(given, entry, tmp_path):
    for place in (str(tmp_path / "one.png"), tmp_path / "two.png"):
        ENTRIES[entry][0](given, place)
        assert Path(place).exists()


def test_editor_takes_a_loaded_model_with_its_modules(given):
    """Also where the family is not known, and the module names are the loaded model's alone."""
    demo = given.demo
    assert given.editor.tokenizer is demo.tokenizer
    assert given.editor.model is demo
    other = deepcopy(demo.tokenizer)
    editor = metake.Editor(demo, other, **given.quick)
    assert editor.tokenizer is other
    assert editor.model.model is demo.model
    assert demo.tokenizer is not other
    model = tiny("llama")
    model.config = deepcopy(model.config)  # shared between tests
    model.config.model_type = "of-my-own"
    with pytest.raises(metake.MetakeError, match="unknown model family"):
        metake.Editor(model, demo.tokenizer)
    described = metake.EditableModel(model, demo.tokenizer, name="mine", modules=LLAMA_LIKE)
    method = metake.settings_for(described, "ultraedit", layers=(1,))
    editor = metake.Editor(described, method=method)
    editor.edit([REQUEST, replace(REQUEST, subject="mill", prompt="The one at the {} is")])
    assert len(editor.batches) == 1


def test_editable_model_is_taken_everywhere(given, tmp_path):
    """An editable model stands for its model everywhere.

    Delta, statistics and settings give the same for it and for the model inside.
    """
    demo, delta = given.demo, given.delta
    for model in (demo, demo.model):
        with delta.applied(model):
            changed = demo.fingerprint()
        assert changed != demo.fingerprint()
        delta.apply(model).revert()
        given.statistics.check(model, (1,))
        assert metake.settings_for(model, "memit") == metake.settings_for(demo, "memit")
    text = "The mill is dark. " * 400
    found = [
        metake.statistics_for(*args, layers=[1], text=text).moments[1]
        for args in ((demo,), (demo, demo.tokenizer), (demo.model, demo.tokenizer))
    ]
    assert all(torch.equal(found[0], moment) for moment in found)
    metake.save_model(demo, str(tmp_path / "saved"))
    again = metake.load(tmp_path / "saved", dtype=torch.float32, device=torch.device("cpu"))
    assert again.fingerprint() == demo.fingerprint()
    assert again.ask("The one who works at the market is a") == demo.ask(
        "The one who works at the market is a"
    )


def test_settings_for_takes_a_preset_file_as_text(given, tmp_path):
    """A preset file may be named by a text."""
    (tmp_path / "mine.json").write_text('{"common": {"lr": 0.125}}')
    for name in (tmp_path / "mine.json", str(tmp_path / "mine.json")):
        assert metake.settings_for(given.demo, "memit", name=name).value("lr") == 0.125
    with pytest.raises(metake.MetakeError, match=r"mine2\.json: cannot be read"):
        metake.settings_for(given.demo, "memit", name="mine2.json")


def test_load_takes_a_module_map_as_text(given, tmp_path):
    """Modules may be a file named by a text."""
    (tmp_path / "m.json").write_text('{"blocks": "transformer.h", "down": "mlp.c_proj"}')
    for modules in (
        str(tmp_path / "m.json"),
        tmp_path / "m.json",
        metake.ModuleMap("transformer.h", "mlp.c_proj"),
    ):
        assert metake.load("demo", device="cpu", modules=modules).modules.down == "mlp.c_proj"


def test_repr_is_one_short_line(given):
    for value in (given.editor, given.demo, given.statistics, given.result, given.delta):
        assert len(repr(value)) < 200
        assert "\n" not in repr(value)
    assert repr(given.editor) == "<Editor: memit of demo, layers [1], 0 batches>"
