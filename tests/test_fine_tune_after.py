"""What is left of edits after fine-tuning on other text."""

import json
from argparse import Namespace

import pytest
import torch

from experiments import fine_tune_after
from experiments.fine_tune_after import change, draw_rows, fine_tune, other_text
from metake.deltas import Delta
from metake.errors import MetakeError
from metake.evaluation.metrics import Evaluator
from tests.scripts import call_here, refused

FEW = ("--edits", 2, "--batch", 1, "--steps", 2, "--every", 1, "--rows", 2, "--length", 16)


def drawn(model, records, **changes):
    args = Namespace(**{"steps": 3, "rows": 2, "length": 16, "seed": 0, **changes})
    return draw_rows(model, other_text(records, lines=200), args)


@pytest.fixture
def delta(demo):
    """A change of rank one of one layer."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(n, 1, generator=generator) for n in (demo.d_v, demo.d_k))
    return Delta({2: (left, 0.01 * right)}, demo.fingerprint())


def test_other_text_names_no_measured_person(records):
    text = other_text(records, lines=500)
    assert text.count("\n") == 500
    for record in records:
        assert record.request.subject not in text
    assert not any(line in text for record in records for line in (record.locality, record.rephrase))


def test_draw_rows_depends_on_the_seed_and_refuses_a_short_text(demo, records):
    rows = drawn(demo, records)
    assert rows.shape == (3, 2, 16)
    assert torch.equal(rows, drawn(demo, records))
    assert not torch.equal(rows, drawn(demo, records, seed=1))
    with pytest.raises(MetakeError, match="fewer than --length 100000"):
        drawn(demo, records, length=100_000)


def test_fine_tune_changes_the_edited_model_and_restores_it(demo, records, delta):
    """Step 0 is the edited model, later steps differ, and the weights come back bit for bit."""
    before = {name: tensor.clone() for name, tensor in demo.model.state_dict().items()}
    evaluator = Evaluator(demo, records[:2], generate=False)
    points = fine_tune(demo, delta, evaluator, drawn(demo, records), 1e-3, every=2)
    assert [point["step"] for point in points] == [0, 2, 3]
    assert points[0]["change"] == 0 < points[1]["change"] < points[2]["change"]
    with delta.applied(demo):
        assert points[0]["efficacy"] == evaluator.measure().mean("efficacy")
    assert all(torch.equal(tensor, before[name]) for name, tensor in demo.model.state_dict().items())
    assert not any(parameter.grad is not None for parameter in demo.model.parameters())


def test_fine_tune_refuses_a_loss_that_is_not_finite(demo, records, delta):
    before = demo.fingerprint()
    evaluator = Evaluator(demo, records[:1], generate=False)
    with pytest.raises(MetakeError, match=r"--rates 1e\+30: the loss is not finite at step 1"):
        fine_tune(demo, delta, evaluator, drawn(demo, records), 1e30, every=10)
    assert demo.fingerprint() == before


def test_change_measures_along_and_inside_the_edit(demo, delta):
    """Half of the edit taken back, and an equally long change at a key that the edit does not touch."""
    edited = {2: demo.weight(2).double().clone()}
    left, right = delta.factors[2]
    other = torch.randn(demo.d_k, 1, generator=torch.Generator().manual_seed(1))
    other -= right @ (right.T @ other) / right.norm() ** 2
    with Delta({2: (left, -0.5 * right + 0.5 * other * right.norm() / other.norm())}).applied(demo):
        found = change(demo, edited, delta)
    assert found["along"] == pytest.approx(-0.5, abs=1e-3)
    assert found["inside"] == pytest.approx(0.5, abs=1e-3)
    assert found["change"] == pytest.approx(0.5**0.5, abs=1e-3)


def test_fine_tune_after_writes_its_files_and_resumes(tmp_path, monkeypatch):
    arguments = (*FEW, "--methods", "ultraedit,rome", "--rates", "1e-3", "--device", "cpu", "--out", tmp_path)
    call_here("fine_tune_after.py", *arguments)
    first = (tmp_path / "demo.json").read_bytes()
    content = json.loads(first)
    assert set(content["runs"]) == {"unedited 0.001", "ultraedit 0.001", "rome 0.001"}
    assert all([p["step"] for p in points] == [0, 1, 2] for points in content["runs"].values())
    assert content["runs"]["unedited 0.001"][0]["right"] == [True, True]  # their old answers
    assert "| rome | 0.001 |" in (tmp_path / "demo.md").read_text()
    assert (tmp_path / "demo.png").stat().st_size > 1000
    monkeypatch.setattr(fine_tune_after, "fine_tune", None)  # nothing is run again
    call_here("fine_tune_after.py", *arguments)
    assert (tmp_path / "demo.json").read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--rates", "0"), "--rates 0: all have to be above 0"),
        (("--model", "smollm2"), "--data: needed for smollm2"),
        (("--dtype", "bfloat16"), "small steps are lost in rounding"),
        (("--text", "missing.txt"), "missing.txt: cannot be read"),
        (("--methods", "memit,nothing"), "unknown 'nothing'"),
    ],
)
def test_fine_tune_after_refuses_bad_input_in_one_line(tmp_path, arguments, complaint):
    assert complaint in refused("fine_tune_after.py", *arguments, out=tmp_path / "out")
