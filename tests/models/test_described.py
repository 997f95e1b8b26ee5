"""A family outside the table, described by the names of its modules, is observed and edited as any other."""

import json

import pytest
import torch

from metake.editor import Editor
from metake.geometry.covariance import collect
from metake.models.editable import EditableModel
from metake.models.trace import run
from metake.texts import default_text
from tests.cases import DESCRIBED, method_of, tiny
from tests.scripts import call_here

IDS = torch.tensor([[5, 9, 17, 30, 2, 7], [8, 1, 4, 4, 11, 0]])


@pytest.fixture(params=sorted(DESCRIBED))
def model(request):
    return EditableModel(tiny(request.param), modules=DESCRIBED[request.param][1])


@pytest.fixture
def folder(tmp_path, demo):
    """A saved OPT with the demo model's tokenizer, and the file that describes it."""
    folder, described = tmp_path / "opt", tmp_path / "opt.json"
    tiny("opt").save_pretrained(folder)
    demo.tokenizer.save_pretrained(folder)
    described.write_text(json.dumps({"blocks": "model.decoder.layers", "down": "fc2"}))
    return folder, described


def test_run_has_values_of_weight_times_keys(model):
    trace = run(model, IDS, keys=(1,), values=(1,))
    bias = model.down(1).bias
    wanted = trace.keys[1] @ model.weight(1).T + (0 if bias is None else bias)
    assert trace.values[1].shape == (2, 6, 32)
    torch.testing.assert_close(trace.values[1], wanted, rtol=1e-4, atol=1e-5)


def test_run_has_logits_that_depend_on_the_values(model):
    """By the gradient's prediction of a small change, in fp64."""
    model.model.double()
    trace = run(model, IDS, values=(2,))
    loss = trace.logits.square().mean()
    (slope,) = torch.autograd.grad(loss, trace.values[2])
    left, right = torch.randn(32, 1).double(), torch.randn(model.d_k, 1).double() * 1e-6
    keys = run(model, IDS, keys=(2,)).keys[2]
    moved = run(model, IDS, edits={2: (left, right)}).logits.square().mean()
    torch.testing.assert_close(moved - loss, (slope * (keys @ right @ left.T)).sum(), rtol=1e-3, atol=1e-12)


@torch.no_grad()
def test_run_from_the_middle_equals_the_whole_pass(model):
    edits = {2: (torch.randn(32, 2) * 0.3, torch.randn(model.d_k, 2) * 0.3)}
    whole = run(model, IDS, inputs=(2,), outputs=(3,), edits=edits)
    later = run(model, IDS, start=2, hidden=whole.inputs[2], outputs=(3,), edits=edits)
    torch.testing.assert_close(later.logits, whole.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(later.outputs[3], whole.outputs[3], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["memit", "metake", "metake-proxy", "ultraedit", "rome"])
def test_editor_writes_what_was_predicted_for_described_models(model, demo, records, method):
    """What is predicted of an edit is what is written.

    The edited model's loss is the virtual one; taken back, nothing is left.
    """
    statistics = collect(model, demo.tokenizer, default_text("demo"), (1, 2), tokens=1500, progress=False)
    changes = {
        "layers": (1, 2),
        "steps": 10,
        "meta_steps": 5,
        "contexts": ("The mill is dark",),
        "gradient_lr": 0.1,
    }
    settings = method_of(model, method, lam=1.0, clamp=None, **changes)
    before = {name: weight.clone() for name, weight in model.model.state_dict().items()}
    ids = torch.tensor([demo.tokenizer(records[0].request.text).input_ids])
    with (
        torch.no_grad(),
        Editor(model.model, demo.tokenizer, settings, statistics=statistics, modules=model.modules) as editor,
    ):
        unedited = model.model(ids).logits
        delta = editor.edit([record.request for record in records[:2]]).delta
        written = model.model(ids).logits
        editor.revert()
        factors = {n: (left.float(), right.float()) for n, (left, right) in delta.factors.items()}
        predicted = run(model, ids, edits=factors).logits
    assert (written - unedited).abs().max() > 1e-3
    torch.testing.assert_close(predicted, written, rtol=1e-3, atol=1e-3)
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.state_dict().items())


SCRIPTS = {
    "run_zsre.py": (
        "--edits",
        2,
        "--batch",
        2,
        "--seeds",
        1,
        "--no-generate",
        "--methods",
        "memit,ultraedit",
    ),
    "measure_drift.py": ("--edits", 1, "--norms", 1, "--steps", 1, "--factors", 1),
    "sweep.py": ("--edits", 2, "--batch", 2, "--factors", 1, "--methods", "memit"),
    "compare_lookups.py": (
        "--edits",
        4,
    ),
    "statistics_convergence.py": ("--tokens", 800, "--edits", 2),
    "fine_tune_after.py": (
        "--edits",
        2,
        "--steps",
        1,
        "--rows",
        1,
        "--length",
        16,
        "--rates",
        "1e-4",
        "--methods",
        "ultraedit",
    ),
}


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_experiments_take_a_described_model(script, folder, records, write, tmp_path):
    entries = [
        {
            "subject": r.request.subject,
            "src": r.request.text,
            "alt": r.request.target_new,
            "answers": [r.ground_truth],
            "pred": r.ground_truth,
            "rephrase": r.rephrase,
            "loc": r.locality,
            "loc_ans": r.locality_answer,
        }
        for r in records[:4]
    ]
    text, data = write("text.txt", default_text("demo")[:20_000]), write("data.json", json.dumps(entries))
    given = () if script == "compare_lookups.py" else ("--text", text)
    call_here(
        script,
        "--model",
        folder[0],
        "--modules",
        folder[1],
        "--data",
        data,
        *given,
        *SCRIPTS[script],
        "--out",
        tmp_path / "out",
    )
    assert any((tmp_path / "out").rglob("*.json"))
