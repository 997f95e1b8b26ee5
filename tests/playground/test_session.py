"""The session of the playground without a browser: preview, edit, compare, undo, export."""

import pytest
import torch

from metake.deltas import Delta
from metake.errors import MetakeError
from metake.methods.locate_then_edit import LocateThenEdit
from metake.models.load import load
from metake.playground.choices import Choice, offers
from metake.playground.content import edits, planned
from metake.playground.formats import FORMATS
from metake.playground.session import Session
from metake.requests import EditRequest

PLACE = EditRequest.parse("Which city was Vodan Paner born in?", "Vodan Paner", "Zobru")
CRAFT = EditRequest.parse("What is the craft of Babrek Foser?", "Babrek Foser", "hunter")
REPHRASED = "What is the name of the city where Vodan Paner was born?"
NEIGHBOR = "On which instrument was Nave Drubik trained"
MEMIT = Choice("memit", strength=0.9)


@pytest.fixture(scope="module", autouse=True)
def _short_statistics():
    """Statistics of fewer tokens than by default, which are collected sooner."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metake.statistics_cache.TOKENS", 12_288)
        yield


@pytest.fixture(scope="module")
def demo():
    """A model of this file; its session leaves it as it was."""
    return load("demo", device="cpu")


@pytest.fixture
def session(demo):
    """A session; at its end the model has the weights that it began with."""
    weights = {n: demo.weight(n).clone() for n in range(len(demo))}
    made = Session(demo)
    yield made
    if made.entries:
        made.undo_all()
    assert all(torch.equal(demo.weight(n), weight) for n, weight in weights.items())


def test_preview_leaves_the_model(session):
    """A preview states eta, the key and the reasons, and changes no weight."""
    before = session.model.fingerprint()
    shown = planned(session.plan(PLACE, Choice()))
    assert session.model.fingerprint() == before
    assert shown["reasons"] == ["settings: preset demo"]
    assert [row["layer"] for row in shown["rows"]] == shown["layers"]
    assert all(0 < row["eta"] < 1 for row in shown["rows"])
    assert shown["settings"]["keys read at"] == "last token of the prompt"
    assert shown["figure"].startswith("<?xml")
    assert shown["notes"][0].startswith("The key is consistent")


def test_strength_is_the_median_attenuation(session):
    """The slider's eta is the median over the layers of the previewed key."""
    for strength in (0.3, 0.8):
        rows = planned(session.plan(PLACE, Choice("memit", strength)))["rows"]
        etas = torch.tensor([row["eta"] for row in rows], dtype=torch.float64)
        assert float(etas.quantile(0.5)) == pytest.approx(strength, abs=0.05)
        assert min(etas) <= strength <= max(etas)


def test_inconsistent_key_is_a_note(session, monkeypatch):
    """A key whose cosine is below the threshold is named before anything happens."""
    plan = session.plan(PLACE, Choice())
    monkeypatch.setattr(type(plan.preview), "inconsistent_subjects", ("Vodan Paner",))
    assert planned(plan)["notes"][0].startswith("Inconsistent key: the key of Vodan Paner")


def test_calibrated_settings_state_their_reasons(session):
    """With measured settings the preview names lookup, layers and strength with their reasons."""
    shown = planned(session.plan(PLACE, Choice("memit", calibrate=True)))
    assert shown["reasons"][0] == "settings: calibrated"
    assert {line.split()[0] for line in shown["reasons"][1:]} == {"lookup", "layers", "attenuation"}


def test_edit_is_compared_with_the_unedited_model(session):
    """Edit and rephrasing have the new target, before is the answer of the unedited model, also after a second edit."""
    session.edit(PLACE, Choice())
    session.edit(CRAFT, MEMIT)
    rows = session.compare(PLACE, ["What is the craft of Vodan Paner?"], [REPHRASED], [NEIGHBOR])
    assert [(row.kind, row.before, row.after, row.success) for row in rows] == [
        ("edit", "Semik", "Zobru", True),
        ("own", "jeweller", "jeweller", None),
        ("rephrasing", "Semik", "Zobru", True),
        ("neighbor", "? bell", "? bell", True),
    ]


def test_neighbor_that_changed_is_no_success(session):
    """A neighbor is compared with its own answer before, not with the target."""
    session.edit(PLACE, Choice())
    (_, row) = session.compare(PLACE, neighbors=[PLACE.text])
    assert (row.before, row.after, row.success) == ("Semik", "Zobru", False)


def test_undo_reverts_one_edit_bit_for_bit(session):
    """Undo restores the weights between two edits of different methods; undo all those before the first."""
    model, states = session.model, []
    for request, choice in ((PLACE, Choice()), (CRAFT, MEMIT), (PLACE, Choice("ultraedit"))):
        states.append({n: model.weight(n).clone() for n in range(len(model))})
        session.edit(request, choice)
    session.undo()
    assert all(torch.equal(model.weight(n), weight) for n, weight in states[2].items())
    assert [entry.choice.method for entry in session.entries] == ["metake", "memit"]
    session.undo_all()
    assert all(torch.equal(model.weight(n), weight) for n, weight in states[0].items())
    assert session.revision == 6
    with pytest.raises(MetakeError, match="undo: the model holds no edit"):
        session.undo()


def test_same_choice_goes_on_with_its_editor(session):
    """The memory of keys of AlphaEdit has the first edit's key when the second one is made; another strength begins anew."""
    alphaedit = Choice("alphaedit")
    first = session.edit(PLACE, alphaedit)
    session.edit(CRAFT, MEMIT)
    second = session.edit(CRAFT, alphaedit)
    assert second.editor is first.editor
    assert len(second.editor.state.memory) == 2
    assert session.plan(PLACE, Choice("alphaedit", 0.5)).editor is not first.editor


def test_later_editor_has_statistics_of_the_unedited_model(session):
    """Another choice after an edit begins with the C of the loaded model, and with its own reasons."""
    first = session.plan(CRAFT, MEMIT).editor
    session.edit(PLACE, Choice())
    later = session.plan(CRAFT, Choice("memit", strength=0.8)).editor
    assert later is not first
    assert later.statistics.provenance == first.statistics.provenance


def test_edit_uses_its_preview(session, monkeypatch):
    """An edit right after its preview has the inputs of the preview."""
    plan, given = session.plan(PLACE, MEMIT), []
    step = LocateThenEdit.step
    monkeypatch.setattr(LocateThenEdit, "step", lambda *a, **k: given.append(k["inputs"]) or step(*a, **k))
    session.edit(PLACE, MEMIT)
    assert given == [plan.preview.inputs]


def test_failing_edit_leaves_the_model(session, monkeypatch):
    """An edit that fails after the first one leaves weights, edits and revision."""
    session.edit(PLACE, Choice())
    held = {n: session.model.weight(n).clone() for n in range(len(session.model))}

    def fail(*_, **__):
        raise MetakeError("edit: something is wrong")

    with monkeypatch.context() as patch:
        patch.setattr("metake.editor.compare_requests", fail)  # after the weights were written
        with pytest.raises(MetakeError, match="something is wrong"):
            session.edit(CRAFT, MEMIT)
    assert all(torch.equal(session.model.weight(n), weight) for n, weight in held.items())
    assert (len(session.entries), session.revision) == (1, 1)
    assert session.compare(PLACE)[0].after == "Zobru"


def test_export_holds_all_edits(session, tmp_path):
    """Every format of two edits by two methods, read again, gives the edited model; the session goes on."""
    session.edit(PLACE, Choice())
    session.edit(CRAFT, MEMIT)
    edited = {n: session.model.weight(n).clone() for n in range(len(session.model))}
    for form in FORMATS:
        (tmp_path / form).mkdir()
        session.export(form, tmp_path / form)
        assert all(torch.equal(session.model.weight(n), weight) for n, weight in edited.items())
    merged = load(str(tmp_path / "merged"), device="cpu")
    assert all(torch.equal(merged.weight(n), weight) for n, weight in edited.items())
    assert (tmp_path / "gguf-lora" / "adapter.gguf").read_bytes()[:4] == b"GGUF"
    session.undo_all()
    for delta in (Delta.load(tmp_path / "delta"), Delta.from_pretrained(tmp_path / "peft")):
        assert [edit["target_new"] for edit in delta.note["edits"]] == ["Zobru", "hunter"]
        with delta.applied(session.model):
            for n, weight in edited.items():
                torch.testing.assert_close(session.model.weight(n), weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("choice", "line"),
    [
        (Choice("nothing"), "method: 'nothing' is not offered here"),
        (Choice("prune"), "method: 'prune' is not offered here"),
        (Choice("ft-m", 0.5), "strength: ft-m has no constraint"),
        (Choice("memit", 1.5), "attenuation"),
    ],
)
def test_invalid_choice_is_one_line(session, choice, line):
    with pytest.raises(MetakeError, match=line) as error:
        session.plan(PLACE, choice)
    assert "\n" not in str(error.value)


def test_export_and_compare_refuse_invalid_input(session, tmp_path):
    with pytest.raises(MetakeError, match="export: the model holds no edit"):
        session.export("delta", tmp_path)
    with pytest.raises(MetakeError, match="export: unknown format 'pickle'"):
        session.export("pickle", tmp_path)
    with pytest.raises(MetakeError, match="compare: no prompt given"):
        session.compare(None)
    with pytest.raises(MetakeError, match="compare: 51 prompts of the kind own; at most 50"):
        session.compare(None, own=["Who?"] * 51)
    with pytest.raises(MetakeError, match="compare: rephrasings need the edit"):
        session.compare(None, rephrasings=["Who?"])
    assert not list(tmp_path.iterdir())


# one per way of planning and solving; the others with --deep
QUICK = ("rome", "alphaedit-blue", "memit-iterated", "ultraedit", "ft-l")


@pytest.mark.parametrize(
    "offer",
    [pytest.param(o, marks=() if o.name in QUICK else pytest.mark.deep, id=o.name) for o in offers()],
)
def test_every_offered_method_edits(session, offer):
    """Every offered method has a preview that can be shown, an edit and a revert."""
    choice = Choice(offer.name, 0.9 if offer.has_strength else None)
    assert planned(session.plan(PLACE, choice))["notes"]
    session.edit(PLACE, choice)
    (shown,) = edits(session)["edits"]
    assert shown["before"] == "Semik"
    assert shown["success"] == shown["after"].startswith("Zobru")
