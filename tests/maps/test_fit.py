"""A fit: what it lowers, its files, an interruption, and the story of the command line."""

import json
import shutil

import pytest
import torch

import metake.maps.fit as module
from metake.commands.fit import summary_lines
from metake.editor import Editor
from metake.errors import MetakeError
from metake.maps.files import FORMAT, map_file
from metake.maps.fit import Fit
from metake.methods.learned_map import LearnedMap
from metake.models.load import load
from metake.presets import settings_for
from metake.shipped import ASSETS
from metake.tensor_files import read_tensors, write_tensors
from tests.cases import method_of

SMALL = {
    "layers": (2, 3),
    "rank": 8,
    "map_lr": 5e-3,
    "fit_steps": 6,
    "fit_batch": 4,
    "fit_every": 2,
    "fit_held_out": 0.25,
    "fit_lr": 0.02,
    "fit_length": 1,
}
OWN = {"mend": {"map_lr": 1e-3, "fit_lr": 2e-3}, "rledit": {"fit_length": 2, "fit_batch": 3}}
FITTED = ["malmen", "mend", "rledit", "horse"]


def small(model, name, **changes):
    return method_of(model, name, **{**SMALL, **OWN.get(name, {}), **changes})


@pytest.fixture(scope="module")
def fitted(demo, records, tmp_path_factory):
    """Row -> its method after a fit of six steps."""
    kept = {}

    def of(name):
        if name not in kept:
            folder = tmp_path_factory.mktemp(name)
            kept[name] = small(demo, name).fit(demo, records, folder, progress=False)
        return kept[name]

    return of


def curve_of(method):
    return json.loads(method.file().with_suffix(".json").read_text())


@pytest.mark.parametrize("name", FITTED)
def test_fit_lowers_the_held_out_loss(fitted, name):
    content = curve_of(fitted(name))
    held = [point["held_out"] for point in content["curve"]]
    assert [point["step"] for point in content["curve"]] == [0, 2, 4, 6]
    # the first steps also fit the normalization, which step 0 is without
    assert min(held[2:]) < held[1]
    assert (content["method"], content["records"]) == (name, {"fitted": 9, "held_out": 3})
    assert not map_file(fitted(name).file().parent, f"{name}.partial").exists()


@pytest.mark.parametrize("name", FITTED)
def test_interrupted_fit_resumes_to_the_same_map(demo, records, fitted, name, tmp_path, monkeypatch):
    """Killed in its fourth step, after a measurement and a saving; the map and the curve are those of a run in one go."""
    take, method = Fit._take, small(demo, name)

    def cut(self):
        if self.step == 3:
            raise KeyboardInterrupt
        return take(self)

    monkeypatch.setattr(module, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(Fit, "_take", cut)
    with pytest.raises(KeyboardInterrupt):
        method.fit(demo, records, tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.partial.safetensors"]
    with pytest.raises(MetakeError, match="an unfinished fit of another model, data or settings; remove it"):
        method.updated(fit_seed=1).fit(demo, records, tmp_path, progress=False)
    steps = []
    monkeypatch.setattr(Fit, "_take", lambda self: steps.append(self.step) or take(self))
    again = method.fit(demo, records, tmp_path, progress=False)
    assert steps == [3, 4, 5]
    assert again.file().read_bytes() == fitted(name).file().read_bytes()
    assert curve_of(again)["curve"] == curve_of(fitted(name))["curve"]


def test_fit_leaves_the_model_as_it_was(demo, records, tmp_path):
    before = {name: tensor.clone() for name, tensor in demo.model.state_dict().items()}
    small(demo, "malmen", fit_steps=1).fit(demo, records, tmp_path, progress=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in demo.model.state_dict().items())
    assert not any(parameter.requires_grad is False for parameter in demo.model.parameters())


def test_fit_stops_early_and_keeps_the_best_map(demo, records, tmp_path):
    """A rate so large that no measurement is better than the first: the map is the one before the fit."""
    method = small(demo, "malmen", fit_lr=3.0, fit_steps=40, fit_every=1)
    method = method.updated(fit_patience=2)
    found = method.fit(demo, records, tmp_path, progress=False)
    content = curve_of(found)
    held = [point["held_out"] for point in content["curve"]]
    assert content["stopped_early"]
    assert content["steps"] == held.index(min(held)) + 2 < 40
    state = found.init(demo)
    if held.index(min(held)) == 0:
        assert state.learned.log_step.abs().max() == 0


@pytest.mark.parametrize("name", FITTED)
def test_loaded_map_edits_like_itself_and_reverts(demo, records, fitted, name):
    """Two editors with the same folder make the same change; the weights come back bit for bit."""
    before, deltas = demo.weight(2).clone(), []
    for _ in range(2):
        with Editor(demo, method=fitted(name), progress=False) as editor:
            deltas.append(editor.edit([r.request for r in records[:4]]).delta)
            editor.edit([r.request for r in records[4:8]])
            assert not torch.equal(demo.weight(2), before)
        assert torch.equal(demo.weight(2), before)
    for layer in deltas[0].layers:
        torch.testing.assert_close(*(delta.to_dense(layer) for delta in deltas), rtol=0, atol=0)


def test_method_without_a_map_is_refused(demo):
    line = r"^malmen: has no fitted map; fit one with metake fit --method malmen --model MODEL --data FILE --out FOLDER, and give --set map=FOLDER$"
    with pytest.raises(MetakeError, match=line):
        Editor(demo, method=settings_for(demo, "malmen"))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"map": "nowhere"},
            r"^nowhere/malmen.safetensors: no such file; fit one: metake fit --method malmen",
        ),
        (
            {"layers": (1, 2)},
            r"malmen.safetensors: fitted with layers \[2, 3\], not \[1, 2\]; set it so, or fit",
        ),
        ({"reduction": "mean"}, "fitted with reduction sum, not mean; set it so"),
        ({"end": "end-token"}, "fitted with end none, not end-token; set it so"),
        ({"network": "identity-map"}, "fitted with network residual, not identity-map; set it so"),
    ],
)
def test_map_of_another_method_is_refused(demo, fitted, changes, line):
    with pytest.raises(MetakeError, match=line) as caught:
        fitted("malmen").updated(**changes).init(demo)
    assert "\n" not in str(caught.value)


def test_map_of_another_model_is_refused(fitted):
    other = load("demo-llama", device="cpu")
    with pytest.raises(
        MetakeError, match=r"fitted for another model or state \(demo\), not for this demo-llama; "
    ):
        fitted("malmen").init(other)


def test_map_of_an_edited_model_is_refused(demo, fitted, records):
    with Editor(demo, method=fitted("malmen"), progress=False) as editor:
        editor.edit([r.request for r in records[:3]])
        with pytest.raises(MetakeError, match=r"fitted for another model or state \(demo\)"):
            Editor(demo, method=fitted("malmen"))


def test_damaged_map_is_refused(demo, fitted, tmp_path):
    path = tmp_path / "malmen.safetensors"
    shutil.copy(fitted("malmen").file(), path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(MetakeError, match=r"damaged \(its digest does not match\); fit one: metake fit"):
        fitted("malmen").updated(map=str(tmp_path)).init(demo)


@pytest.mark.parametrize(
    ("name", "change", "line"),
    [
        ("log_step", lambda t: t * float("nan"), "log_step is not finite; fit one: metake fit"),
        ("moments", lambda t: t[:2], "the map does not fit the shape of this model; fit one: metake fit"),
    ],
)
def test_map_with_wrong_tensors_is_refused(demo, fitted, tmp_path, name, change, line):
    """A file with a correct digest, and a tensor that no fit writes."""
    path = fitted("malmen").file()
    tensors, meta = read_tensors(path, FORMAT, "")
    assert name in tensors
    write_tensors(tmp_path / path.name, FORMAT, {**tensors, name: change(tensors[name]).contiguous()}, meta)
    with pytest.raises(MetakeError, match=line):
        fitted("malmen").updated(map=str(tmp_path)).init(demo)


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("network", {"kind": "residal"}, "network: unknown 'residal'; did you mean 'residual'"),
        (
            "network",
            {"kind": "residual", "rank": 0},
            "network: rank: input should be greater than or equal to 1",
        ),
        ("network", {"kind": "residual", "color": 1}, "network: "),
        ("network", 3, ""),
        ("update", {"kind": "adam"}, "update: unknown 'adam'"),
        ("map_lr", -1, "map_lr: must be above 0, is -1"),
        ("map_lr", "fast", "the map does not fit the shape of this model"),
        ("layers", None, "fitted with layers None"),
        ("models", 3, ""),
    ],
)
def test_map_with_a_wrong_field_is_refused(demo, fitted, tmp_path, field, value, line):
    """A file with a correct digest and a field that was changed by hand: one line with file, field and remedy."""
    path = fitted("malmen").file()
    tensors, meta = read_tensors(path, FORMAT, "")
    assert field in meta
    write_tensors(tmp_path / path.name, FORMAT, tensors, {**meta, field: value})
    with pytest.raises(MetakeError) as caught:
        fitted("malmen").updated(map=str(tmp_path)).init(demo)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / path.name}: {line}")
    assert "fit one: metake fit --method malmen --model demo --out" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("setting", "other"), [("rank", 5), ("blocks", 3), ("scaling", "before"), ("map_lr", 0.5)]
)
def test_number_that_the_map_has_fixed_is_refused(demo, fitted, setting, other):
    """The file's number alone counts: the same one may be given, another one may not, whatever the preset has."""
    method = fitted("malmen")
    given = {"layers": method.layers, "map": method.map}
    assert settings_for(demo, "malmen", **given).init(demo).learned is not None
    assert settings_for(demo, "malmen", **given, **{setting: method.value(setting)}).map == method.map
    with pytest.raises(
        MetakeError, match=rf"malmen.safetensors: fitted with {setting} .*; leave {setting} out"
    ):
        settings_for(demo, "malmen", **given, **{setting: other})


def test_fit_that_diverges_says_so(demo, records, tmp_path):
    method = small(demo, "malmen", fit_lr=1e30, fit_held_out=0.0)
    with pytest.raises(MetakeError, match=r"^fit: diverged.*; lower fit_lr \(now 1e\+30\) or map_lr"):
        method.fit(demo, records, tmp_path, progress=False)


def without_finite_losses(monkeypatch, measurements):
    """Let these held-out losses be no numbers."""
    loss_of, measured = Fit._measure, []

    def measure(self):
        measured.append(self.step)
        with monkeypatch.context() as inner:
            if len(measured) in measurements:
                inner.setattr(Fit, "_loss", lambda *_, **__: (float("nan"), []))
            loss_of(self)

    monkeypatch.setattr(Fit, "_measure", measure)


def test_first_held_out_loss_that_is_not_finite_does_not_keep_a_later_map_from_being_chosen(
    demo, records, fitted, tmp_path, monkeypatch, capsys
):
    """Also if the fit was killed after it: the file of an unfinished fit has null in its place."""
    without_finite_losses(monkeypatch, {1})
    take, method = Fit._take, small(demo, "malmen", fit_patience=2)

    def cut(self):
        if self.step == 1:
            raise KeyboardInterrupt
        return take(self)

    monkeypatch.setattr(module, "SAVE_EVERY", 0.0)
    with monkeypatch.context() as inner:
        inner.setattr(Fit, "_take", cut)
        with pytest.raises(KeyboardInterrupt):
            method.fit(demo, records, tmp_path, progress=False)
    found = method.fit(demo, records, tmp_path, progress=False)
    content = curve_of(found)
    held = [point["held_out"] for point in content["curve"]]
    assert held[0] is None
    assert held[1:] == [point["held_out"] for point in curve_of(fitted("malmen"))["curve"]][1:]
    assert not content["stopped_early"]
    assert found.file().read_bytes() == fitted("malmen").file().read_bytes()
    assert f"inf before the fit, {min(held[1:]):.3g} of the saved map" in summary_lines(content)[1]


def test_fit_without_any_finite_held_out_loss_is_an_error(demo, records, tmp_path, monkeypatch):
    without_finite_losses(monkeypatch, {1, 2, 3, 4})
    with pytest.raises(MetakeError, match=r"^fit: no loss on held-out records is finite; lower fit_lr"):
        small(demo, "malmen").fit(demo, records, tmp_path, progress=False)
    assert not map_file(tmp_path, "malmen").exists()


def test_map_takes_the_folder(demo, fitted):
    with pytest.raises(MetakeError, match="is a file; give the folder that metake fit wrote"):
        fitted("malmen").updated(map=str(fitted("malmen").file())).init(demo)


def test_fitted_map_is_not_overwritten(demo, records, fitted):
    method = fitted("malmen")
    with pytest.raises(MetakeError, match=r"malmen.safetensors: exists; give another folder, or --overwrite"):
        method.fit(demo, records, method.map, progress=False)


def test_runs_differ_by_the_content_of_the_map(fitted, tmp_path):
    """A moved folder is the same method for a run that resumes; another map is not."""
    method = fitted("malmen")
    shutil.copy(method.file(), tmp_path)
    assert method.updated(map=str(tmp_path)).identity() == method.identity()
    (tmp_path / "malmen.safetensors").write_bytes(b"other")
    assert method.updated(map=str(tmp_path)).identity() != method.identity()
    assert LearnedMap(layers=(1,)).identity()["map"] is None


def test_fit_and_edit_on_the_command_line(call, tmp_path):
    """The story: fit, evaluate with the map, and the lines of those who forget it."""
    data = tmp_path / "dev.json"
    data.write_text(json.dumps(json.loads((ASSETS / "world" / "dev.json").read_text())[:8]))
    settings = [
        word for name, value in SMALL.items() if name != "layers" for word in ("--set", f"{name}={value}")
    ]
    folder = tmp_path / "maps"
    run = ("--model", "demo", "--data", data, "--layers", "2,3")
    code, out, _ = call("fit", "--method", "malmen", *run, *settings, "--out", folder)
    assert code == 0
    assert "malmen: 6 steps on 6 records" in out
    assert f"edit with --set map={folder}" in out
    assert sorted(path.name for path in folder.iterdir()) == [
        "malmen.json",
        "malmen.safetensors",
        "options.json",
    ]
    evaluate = (
        "evaluate",
        *run,
        "--methods",
        "malmen",
        "--batch",
        6,
        "--no-generate",
        "--out",
        tmp_path / "o",
    )
    code, out, errors = call(*evaluate)
    assert code == 2
    assert errors.splitlines()[-1].startswith(
        "metake: error: malmen: has no fitted map; fit one with metake fit"
    )
    code, out, _ = call(*evaluate, "--set", f"map={folder}")
    assert code == 0
    assert "malmen" in out
    code, _, errors = call(*evaluate, "--set", f"map={folder}", "--set", "rank=3")
    assert (code, errors.splitlines()[-1]) == (
        2,
        f"metake: error: {folder}/malmen.safetensors: fitted with rank 8, not 3; leave rank out, or fit another map",
    )
    code, _, errors = call("fit", "--method", "malmen", *run, "--out", folder)
    assert (code, errors.count("\n")) == (2, 1)  # before the data are read
    assert "malmen.safetensors: exists; give another folder, or --overwrite" in errors
    code, _, errors = call("fit", "--method", "memit", "--model", "demo", "--out", folder)
    assert (code, errors.count("\n")) == (2, 1)
    assert "fit: memit has no map to fit; methods with one: malmen, mend, rledit, horse" in errors
