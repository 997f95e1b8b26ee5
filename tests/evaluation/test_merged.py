"""Finished batches of a run are merged, and a killed run still ends like one that was not."""

import numpy as np
import pytest
import torch

from metake.deltas import Delta
from metake.editor import Editor
from metake.errors import MetakeError
from metake.evaluation import checkpoint, merged
from metake.evaluation.checkpoint import Checkpoints
from metake.evaluation.protocol import Protocol
from metake.solvers.memory import PastKeys
from tests.cases import method_of

QUICK = {
    "layers": (1, 2),
    "steps": 4,
    "lr": 0.5,
    "clamp": None,
    "l2": 0.01,
    "lam": 30.0,
    "gradient_lr": 1e-3,
    "contexts": (),
}


@pytest.fixture
def session(demo, statistics_of, records):
    return Protocol(records[:6], 1, generate=False, measure_every=2).prepare(demo, statistics_of(demo))


def method(demo, name):
    quick = {k: v for k, v in QUICK.items() if name != "ultraedit" or k != "contexts"}
    return method_of(demo, name, **quick)


def merge_from(monkeypatch, batches):
    """Merge once more than so many batches have folders; keys are folded at every batch."""
    monkeypatch.setattr(PastKeys, "fold_share", 0.0)
    size = {}

    def limit(editor):
        files = [f for f in size["folder"].glob("batch-*/*.safetensors")]
        each = max(f.stat().st_size for f in files if f.name == "delta.safetensors")
        rest = max((f.stat().st_size for f in files if f.name == "memory.safetensors"), default=0)
        return batches * (each + rest)

    monkeypatch.setattr(checkpoint, "bytes_when_merged", limit)
    return size


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        # a method's state and a cut each; all pairs with --deep
        pytest.param(name, cut, marks=() if cut in quick else pytest.mark.deep)
        for name, quick in {"alphaedit": (2, 6), "prune": (4,), "rect": (6,), "ultraedit": (4,)}.items()
        for cut in (2, 4, 6)
    ],
)
def test_merged_run_resumes_with_equal_results(demo, session, tmp_path, monkeypatch, cut_at, name, cut):
    """Cut before the first merge, after it, and at the end; like a run without checkpoints, to the last bit."""
    chosen, fingerprint = method(demo, name), demo.fingerprint()
    size = merge_from(monkeypatch, 2)
    size["folder"] = tmp_path / "cut"
    whole = session.run(chosen)
    with cut_at(cut) as done:
        session.run(chosen, tmp_path / "cut")
    assert demo.fingerprint() == fingerprint
    with monkeypatch.context() as patch:
        edit = Editor.edit
        patch.setattr(Editor, "edit", lambda self, r: (done.append(r), edit(self, r))[1])
        again = session.run(chosen, tmp_path / "cut")
    assert len(done) == 7  # only the batch that was cut is edited again
    assert len(list((tmp_path / "cut").glob("batch-*"))) <= 3
    assert (tmp_path / "cut" / "merged.safetensors").is_file()
    assert list(again.measurements) == list(whole.measurements) == [2, 4, 6]
    for at, measurement in whole.measurements.items():
        for metric, values in measurement.values.items():
            np.testing.assert_array_equal(again.measurements[at].values[metric], values)
    strip = lambda run: [{k: v for k, v in b.items() if k != "seconds"} for b in run.batches]  # noqa: E731
    assert strip(whole) == strip(again)
    assert demo.fingerprint() == fingerprint


@pytest.mark.parametrize("at", ["lines", "tensors", "folders"])
def test_run_killed_while_it_merges_gives_equal_results(demo, session, tmp_path, monkeypatch, at):
    """After the lines, before the tensors count; and after the tensors, while folders are removed."""
    chosen = method(demo, "alphaedit")
    size = merge_from(monkeypatch, 1)
    size["folder"] = tmp_path
    whole = session.run(chosen)
    target, name = {
        "lines": (merged.MergedBatches, "write"),
        "tensors": (merged, "write_tensors"),
        "folders": (checkpoint.shutil, "rmtree"),
    }[at]

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(target, name, stop)
        with pytest.raises(KeyboardInterrupt):
            session.run(chosen, tmp_path)
    again = session.run(chosen, tmp_path)
    for metric, values in whole.after.values.items():
        np.testing.assert_array_equal(again.after.values[metric], values)


def saved(demo, statistics, records, folder):
    """Two merged batches in a folder, and the weights after them."""
    checkpoints = Checkpoints(folder, {"seed": 0})
    with Editor(demo, method=method(demo, "alphaedit"), statistics=statistics, undoable=1) as editor:
        for i in range(2):
            checkpoints.save(i, editor.edit(records[i].request))
            checkpoints.merge(i, editor)
        return {n: demo.weight(n).clone() for n in (1, 2)}, editor.delta


def test_merged_batches_hold_weights_delta_and_memory(demo, statistics_of, records, tmp_path, monkeypatch):
    """In a folder of bounded size; the unedited weights are back afterwards, bit for bit."""
    merge_from(monkeypatch, 0)["folder"] = tmp_path
    before = {n: demo.weight(n).clone() for n in (1, 2)}
    weights, delta = saved(demo, statistics_of(demo), records, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["merged.jsonl", "merged.safetensors", "run.json"]
    checkpoints = Checkpoints(tmp_path, {"seed": 0})
    with Editor(demo, method=method(demo, "alphaedit"), statistics=statistics_of(demo)) as editor:
        assert checkpoints.restore(0, editor, (records[0].request,))["requests"]
        assert editor.history.is_empty
        assert checkpoints.restore(1, editor, (records[1].request,))["requests"]
        assert all(torch.equal(demo.weight(n), w) for n, w in weights.items())
        assert editor.delta.merged().digest == delta.merged().digest
        assert sorted(editor.state.folded) == [1, 2]
        with pytest.raises(
            MetakeError, match=r"^undo: the model holds no edit of this editor that is not merged"
        ):
            editor.undo()
        assert checkpoints.load_measurement(1) is None
        with pytest.raises(
            MetakeError, match="no measurement of batch 0, and its weights are merged; remove"
        ):
            checkpoints.load_measurement(0)
    assert all(torch.equal(demo.weight(n), w) for n, w in before.items())


def restored(editor, folder, records):
    checkpoints = Checkpoints(folder, {"seed": 0})
    return [checkpoints.restore(i, editor, (records[i].request,)) for i in range(2)]


@pytest.mark.parametrize("file", ["merged.safetensors", "merged.jsonl"])
def test_damaged_merged_files_are_refused(demo, statistics_of, records, tmp_path, monkeypatch, file):
    merge_from(monkeypatch, 0)["folder"] = tmp_path
    saved(demo, statistics_of(demo), records, tmp_path)
    whole = (tmp_path / file).read_bytes()
    for damaged in (whole[:-9] + b"abcdefg\n\n", whole[: len(whole) // 3], b""):
        (tmp_path / file).write_bytes(damaged)
        with Editor(demo, method=method(demo, "alphaedit"), statistics=statistics_of(demo)) as editor:
            with pytest.raises(MetakeError, match="its batches are edited again") as refused:
                restored(editor, tmp_path, records)
            assert str(refused.value).startswith(str(tmp_path / file))


def test_editor_with_bounded_history_reverts_all(demo, statistics_of, records):
    """As one without: the same total update, the same weights; `undo` as far as batches are kept."""
    before = {n: demo.weight(n).clone() for n in (1, 2)}
    found = []
    for undoable in (None, 2):
        with Editor(
            demo, method=method(demo, "alphaedit"), statistics=statistics_of(demo), undoable=undoable
        ) as editor:
            for record in records[:4]:
                editor.edit(record.request)
            assert len(editor.batches) == (undoable or 4)
            found.append(editor.delta)
            editor.undo()
            editor.undo()
            assert len(editor.state.memory) == 2
            weights = {n: demo.weight(n).clone() for n in (1, 2)}
            if undoable:
                with pytest.raises(MetakeError, match="not merged"):
                    editor.undo()
                editor.edit(records[2].request)
        assert all(torch.equal(demo.weight(n), w) for n, w in before.items())
        found.append(weights)
    assert all(torch.equal(found[1][n], found[3][n]) for n in (1, 2))
    for layer in (1, 2):
        torch.testing.assert_close(found[0].to_dense(layer), found[2].to_dense(layer))
    with pytest.raises(MetakeError, match="undoable: must be at least 1"):
        Editor(demo, method=method(demo, "ultraedit"), undoable=0)


def test_merged_delta_is_dense_where_that_is_smaller():
    note = {"edits": [{}, {}], "merged": 3}
    thin = Delta({1: (torch.randn(6, 1), torch.randn(9, 1))}, "m", note).merged()
    wide = Delta({1: (torch.randn(6, 4), torch.randn(9, 4))}, "m", note)
    assert set(thin.factors) == {1}
    assert (thin.note["merged"], thin.note["edits"]) == (5, [])
    assert set(wide.merged().dense_updates) == {1}
    assert wide.merged().factors == {}
    torch.testing.assert_close(wide.merged().to_dense(1), wide.to_dense(1), rtol=0, atol=0)
