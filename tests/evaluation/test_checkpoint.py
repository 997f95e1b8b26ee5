"""A run that was killed ends like one that was not."""

import numpy as np
import pytest
import torch

from metake.deltas import Delta
from metake.editor import Editor
from metake.errors import MetakeError
from metake.evaluation.checkpoint import Checkpoints
from metake.evaluation.metrics import Evaluator
from metake.evaluation.protocol import Protocol
from tests.cases import method_of

QUICK = {
    "layers": (1, 2),
    "steps": 6,
    "lr": 0.5,
    "clamp": None,
    "l2": 0.01,
    "lam": 30.0,
    "gradient_lr": 1e-3,
}
CONTEXTS = ("The mill is dark",)


@pytest.mark.parametrize("name", ["alphaedit", "prune", "rect", "alphaedit-blue", "ultraedit"])
def test_checkpoint_resumes_a_killed_run_with_equal_results(
    demo, statistics_of, records, name, tmp_path, monkeypatch, cut_at
):
    """A killed run goes on and ends the same.

    With memory of keys or moments, with a bound at the end, with whole changes, with several stages.
    """
    chosen = records[:6]
    method = method_of(demo, name, **QUICK)
    session = Protocol(chosen, 2, generate=False, measure_every=1).prepare(demo, statistics_of(demo))
    session.contexts[0] = CONTEXTS
    fingerprint = demo.fingerprint()

    def run(folder):
        return session.run(method, folder)

    whole = run(tmp_path / "whole")
    edit = Editor.edit
    with cut_at(3) as done:
        run(tmp_path / "cut")
    assert demo.fingerprint() == fingerprint  # whatever happens
    with monkeypatch.context() as patch:
        patch.setattr(Editor, "edit", lambda self, r: (done.append(r), edit(self, r))[1])
        again = run(tmp_path / "cut")
    assert len(done) == 4  # only the third batch was edited again
    assert list(again.measurements) == list(whole.measurements) == [2, 4, 6]
    for metric, values in whole.after.values.items():
        np.testing.assert_array_equal(again.after.values[metric], values)
    for index in range(3):
        mine, other = (Delta.load(tmp_path / run / f"batch-{index:04d}") for run in ("whole", "cut"))
        assert mine.note == other.note
        assert all(torch.equal(mine.to_dense(n), other.to_dense(n)) for n in mine.layers)
    strip = lambda run: [{k: v for k, v in b.items() if k != "seconds"} for b in run.batches]  # noqa: E731
    assert strip(whole) == strip(again)


def test_checkpoint_restore_can_be_undone(demo, statistics_of, records):
    method = method_of(demo, "alphaedit", contexts=CONTEXTS, **QUICK)
    before = {n: demo.weight(n).clone() for n in (1, 2)}

    def editor():
        return Editor(demo, method=method, statistics=statistics_of(demo))

    with editor() as first:
        result = first.edit(records[0].request)
        edited = {n: demo.weight(n).clone() for n in (1, 2)}
        fresh = first.preview([records[0].request]).eta
    with torch.no_grad(), editor() as second:
        restored = second.restore(result.requests, result.delta, result.memory, seconds=1.5)
        assert all(torch.equal(demo.weight(n), w) for n, w in edited.items())
        torch.testing.assert_close(second.preview([records[0].request]).eta, fresh)  # the keys are remembered
        assert restored.seconds == 1.5
        second.undo()
        assert second.preview([records[0].request]).eta.min() > fresh.min()
    assert all(torch.equal(demo.weight(n), w) for n, w in before.items())


def test_checkpoint_refuses_the_folder_of_another_run(tmp_path):
    Checkpoints(tmp_path, {"method": "memit", "seed": 0})
    Checkpoints(tmp_path, {"method": "memit", "seed": 0})
    with pytest.raises(MetakeError, match="another seed"):
        Checkpoints(tmp_path, {"method": "memit", "seed": 1})


def test_checkpoint_refuses_mixed_files_of_a_batch(demo, statistics_of, records, tmp_path):
    """Files of a batch that do not belong together are refused.

    Each is whole, but they are another batch's, or one of them is.
    """
    method = method_of(demo, "alphaedit", contexts=CONTEXTS, **QUICK)

    def editor():
        return Editor(demo, method=method, statistics=statistics_of(demo))

    requests = [(records[i].request,) for i in range(2)]
    checkpoints = Checkpoints(tmp_path, {"method": "alphaedit"})
    with editor() as first:
        for index in range(2):
            checkpoints.save(index, first.edit(requests[index]))
    before = demo.fingerprint()
    for name in ("delta.safetensors", "memory.safetensors", "batch.json"):
        place, other = (tmp_path / f"batch-000{i}" / name for i in range(2))
        whole = place.read_bytes()
        place.write_bytes(other.read_bytes())
        with editor() as second, pytest.raises(MetakeError, match="files of different batches; remove"):
            checkpoints.restore(0, second, requests[0])
        place.write_bytes(whole)
        place.write_bytes(whole[:-3] + b"abc")
        with editor() as second, pytest.raises(MetakeError) as refused:
            checkpoints.restore(0, second, requests[0])
        assert str(refused.value).startswith(f"{place}: ")
        assert str(refused.value).endswith(f"remove {place.parent}: the batch is edited again")
        place.write_bytes(whole)
    assert demo.fingerprint() == before
    with editor() as second:
        assert checkpoints.restore(0, second, requests[0]) is not None
        assert checkpoints.restore(1, second, requests[1]) is not None
        assert checkpoints.restore(2, second, requests[1]) is None


def test_checkpoint_refuses_a_changed_measurement(demo, records, tmp_path):
    checkpoints = Checkpoints(tmp_path, {"method": "memit"})
    measured = Evaluator(demo, records[:2], generate=False).measure()
    checkpoints.save_measurement(1, measured)
    np.testing.assert_array_equal(
        checkpoints.load_measurement(1).values["efficacy"], measured.values["efficacy"]
    )
    path = tmp_path / "batch-0001" / "measured.json"
    (tmp_path / "batch-0002").mkdir()
    (tmp_path / "batch-0002" / path.name).write_text(path.read_text())
    with pytest.raises(MetakeError, match="of another batch"):
        checkpoints.load_measurement(2)
    path.write_text(path.read_text().replace('"index": 1', '"index": 2'))
    with pytest.raises(
        MetakeError,
        match=r"measured\.json: damaged or changed by hand .*; remove it: what batch 1 left is measured again$",
    ):
        checkpoints.load_measurement(1)


def test_checkpoint_completes_a_batch_with_its_last_file(demo, statistics_of, records, tmp_path, monkeypatch):
    """A batch is there once its last file is.

    Cut after the delta, or after the keys: the batch is edited again. What comes back has its time.
    """
    method = method_of(demo, "alphaedit", contexts=CONTEXTS, **QUICK)
    checkpoints, requests = Checkpoints(tmp_path, {}), (records[0].request,)
    with Editor(demo, method=method, statistics=statistics_of(demo)) as editor:
        result = editor.edit(requests)
        for cut in ("write_tensors", "write_record"):
            with monkeypatch.context() as patch:
                patch.setattr(f"metake.evaluation.checkpoint.{cut}", lambda *_: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    checkpoints.save(0, result)
            assert (tmp_path / "batch-0000" / "delta.safetensors").is_file()
            assert checkpoints.restore(0, editor, requests) is None
        saved = checkpoints.save(0, result)
        editor.revert()
        assert checkpoints.restore(0, editor, requests) == saved == result.summary()
        assert editor.batches[0].seconds == result.seconds > 0


def test_checkpoint_key_changes_with_another_ingredient(tmp_path):
    """A key with one more ingredient is another run."""
    Checkpoints(tmp_path, {"method": "memit"})
    with pytest.raises(MetakeError, match="another seed"):
        Checkpoints(tmp_path, {"method": "memit", "seed": 0})
