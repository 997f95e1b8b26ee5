"""Calibration of a conversation, and of a model that is described by the names of its modules."""

import pytest

from metake.calibration.constants import CONSTANTS
from metake.calibration.locate import locate
from metake.calibration.separability import bare_measures
from metake.editor import Editor
from metake.geometry.covariance import collect
from metake.models.editable import EditableModel
from metake.models.load import load
from metake.texts import default_text
from tests.cases import DESCRIBED, tiny

LAYERS = (0, 1, 2, 3)


def test_locate_of_a_conversation_measures_its_prompts(talking, requests, statistics):
    """Separability and size of the stream are those of the prompts in the chat template; the edit has the settings."""
    plain, chat = load(talking, device="cpu", chat=None), load(talking, device="cpu", chat=True)
    found = locate(chat, requests, "memit", statistics, windows=False)
    for lookup in ("subject", "prompt"):
        cosine, scale = bare_measures(chat, requests, lookup, (1, 2, 3), statistics)
        assert (found.cosine[lookup], found.scale[lookup]) == (cosine, scale)
        assert scale != bare_measures(plain, requests, lookup, (1, 2, 3), statistics)[1]
    with Editor(chat, method=found.method, statistics=statistics, progress=False) as editor:
        result = editor.edit(requests)
    assert result.constraint["attenuation"] == found.method.value("attenuation")


@pytest.mark.parametrize("name", sorted(DESCRIBED))
def test_locate_of_a_described_model(name, demo, requests):
    """Settings as of any model; the edit has them and is reverted."""
    model = EditableModel(tiny(name), demo.tokenizer, modules=DESCRIBED[name][1])
    statistics = collect(model, demo.tokenizer, default_text("demo"), LAYERS, tokens=1500, progress=False)
    found = locate(model, requests, "metake", statistics)
    assert found.reasons[0] == "settings: calibrated"
    scale = found.scale[found.method.lookup][found.method.layers[-1]]
    assert found.method.value("lr") == pytest.approx(CONSTANTS["closed-loop"].step * scale)
    quick = found.method.updated(contexts=(), steps=3, meta_steps=3)
    with Editor(model, method=quick, statistics=statistics, progress=False) as editor:
        eta = editor.preview(requests).eta
        assert float(eta.quantile(0.5)) == pytest.approx(found.method.value("attenuation"), rel=1e-6)
        editor.edit(requests)
