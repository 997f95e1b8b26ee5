"""The default of a model without a preset: settings calibrated on the first batch."""

import pytest
import torch

from metake.calibration.locate import locate
from metake.editor import Editor
from metake.presets import preset_name

REASONS = ("settings:", "lookup", "layers", "attenuation")


@pytest.fixture
def editor(unchanged, hidden):
    with Editor(unchanged, method="memit", progress=False) as made:
        yield made


def test_editor_by_name_calibrates_on_the_first_batch(editor, unchanged, requests, statistics):
    """Reasons are in preview, result, summary and the note of the delta; the method is that of `locate`."""
    preview = editor.preview(requests)
    expected = locate(unchanged, requests, "memit", statistics)
    assert editor.method == expected.method
    assert preview.reasons == expected.reasons
    assert tuple(line.split()[0] for line in preview.reasons) == REASONS
    result = editor.edit(requests, preview=preview)
    assert result.method == expected.method
    assert result.reasons == preview.reasons
    assert result.summary()["reasons"] == result.delta.note["reasons"] == list(preview.reasons)
    assert result.constraint == preview.constraint == result.delta.note["constraint"]
    assert result.constraint["attenuation"] == 0.9
    for line in preview.reasons:
        assert line in str(preview)
        assert line in str(result)


def test_editor_does_not_calibrate_again(editor, requests, records):
    first = editor.edit(requests)
    later = editor.edit([records[6].request])
    assert later.method == first.method == editor.method
    assert later.constraint == first.constraint


def test_editor_with_given_statistics_keeps_the_layers_by_depth(unchanged, hidden, requests, statistics):
    with Editor(unchanged, method="memit", statistics=statistics, progress=False) as editor:
        result = editor.edit(requests)
    assert result.method.layers == (1, 2, 3)
    assert "layers 1-3: by depth" in result.reasons


def test_restore_gives_the_same_calibration(editor, unchanged, hidden, requests):
    """A batch from a file leads to the method and the strength of its edit."""
    result = editor.edit(requests)
    weight, scale = unchanged.weight(result.method.layers[-1]).clone(), editor.state.scale
    editor.revert()
    with Editor(unchanged, method="memit", progress=False) as other:
        restored = other.restore(requests, result.delta, result.memory)
        assert restored.method == other.method == result.method
        assert other.state.scale == scale
        assert torch.equal(unchanged.weight(result.method.layers[-1]), weight)


def test_editor_by_name_has_the_preset_where_there_is_one(demo, statistics, requests):
    with Editor(demo, method="memit", statistics=statistics, progress=False) as editor:
        result = editor.edit(requests[:1])
    assert result.reasons == (f"settings: preset {preset_name(demo)}",)
    assert "attenuation" not in result.constraint


def test_editor_of_a_given_method_has_no_reasons(unchanged, hidden, statistics, requests):
    method = locate(unchanged, requests, "memit", statistics, windows=False).method
    with Editor(unchanged, method=method, statistics=statistics, progress=False) as editor:
        result = editor.edit(requests)
    assert (result.reasons, result.method) == ((), method)
