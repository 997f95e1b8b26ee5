"""The end as a last target token of methods that plan no target: it is likelier after the edit than without the setting."""

import pytest
import torch

from metake.editor import Editor
from metake.maps import fitting, losses
from metake.maps.files import FORMAT
from metake.models.end_token import end_token
from metake.models.tokens import encode
from metake.planners.normalized_gradient import answer_keys_and_gradients
from metake.planners.weight_loss import WeightLoss
from metake.tensor_files import read_tensors, write_tensors
from tests.cases import method_of

METHODS = {
    "ft-l": {"layers": (4,), "epochs": 60, "weight_lr": 2e-3, "norm_constraint": None},
    "locft-bf": {"layers": (4,), "epochs": 20, "weight_lr": 2e-3},
    "grace": {"value_steps": 30},
    "wise": {"side_steps": 20},
    "memoir": {},
    "ultraedit": {"gradient_lr": 1e-3},
    "malmen": {
        "layers": (2, 3),
        "rank": 8,
        "map_lr": 5e-3,
        "fit_steps": 3,
        "fit_batch": 4,
        "fit_held_out": 0.0,
    },
}


def end_after_edits(model, records, name, folder, end):
    """Mean log probability of the end-of-text token after the targets of an edited model."""
    requests = [record.request for record in records[:4]]
    method = method_of(model, name, **METHODS[name], end=end)
    if method.needs_fit:
        method = method.fit(model, records, folder / end, progress=False)
    with Editor(model, method=method, progress=False) as editor, torch.no_grad():
        editor.edit(requests)
        rows = [encode(model.tokenizer, r.text, r.target_new) for r in requests]
        scores = [model.model(torch.tensor([row.ids])).logits[0, -1].log_softmax(-1) for row in rows]
    return float(torch.stack(scores)[:, end_token(model)].mean())


@pytest.mark.parametrize("name", ["ft-l", "ft-m"])
def test_end_is_not_likelier_than_the_answer(demo, records, name):
    """What follows the target does not make the answer empty, wherever the target's tokens are read off."""
    request = records[0].request
    changes = {**METHODS["ft-l"], "end": "end-token"}
    with Editor(demo, method=method_of(demo, name, **changes), progress=False) as editor, torch.no_grad():
        editor.edit([request])
        row = encode(demo.tokenizer, request.text)
        scores = demo.model(torch.tensor([row.ids])).logits[0, -1].log_softmax(-1)
    first = encode(demo.tokenizer, request.text, request.target_new).answer_ids[0]
    assert scores.argmax() == first
    assert scores[end_token(demo)] < scores[first] - 3


@pytest.mark.parametrize("name", METHODS)
def test_end_is_likelier_after_edits_that_train_it(demo, records, tmp_path, name):
    after = {end: end_after_edits(demo, records, name, tmp_path, end) for end in ("none", "end-token")}
    assert after["end-token"] > after["none"] + 1


def test_fit_with_an_end_trains_it_in_keys_and_loss(demo, records, tmp_path, monkeypatch):
    """The signals that the map reads and the loss that it is fitted by both have the end as the last token of every answer."""
    seen = {"signals": [], "loss": []}

    def signals(model, rows, *args):
        seen["signals"] += rows
        return answer_keys_and_gradients(model, rows, *args)

    class Loss(WeightLoss):
        def __init__(self, model, rows, *args, **options):
            seen["loss"] += rows
            super().__init__(model, rows, *args, **options)

    monkeypatch.setattr(fitting, "answer_keys_and_gradients", signals)
    monkeypatch.setattr(losses, "WeightLoss", Loss)
    method_of(demo, "malmen", **METHODS["malmen"], end="end-token").fit(
        demo, records, tmp_path, progress=False
    )
    lasts = {name: {row.answer_ids[-1] for row in rows} for name, rows in seen.items()}
    assert lasts == {"signals": {end_token(demo)}, "loss": {end_token(demo)}}


def test_map_of_an_earlier_version_has_no_end(demo, records, tmp_path):
    """Files from before the setting are read as fitted without an end."""
    fitted = method_of(demo, "malmen", **METHODS["malmen"]).fit(demo, records, tmp_path, progress=False)
    tensors, meta = read_tensors(fitted.file(), FORMAT, "")
    del meta["end"]
    write_tensors(fitted.file(), FORMAT, tensors, meta)
    assert fitted.init(demo).learned is not None
