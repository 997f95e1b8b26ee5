"""Survey: one row per layer and lookup."""

import json

import pytest

from metake.calibration.constants import CONSTANTS
from metake.calibration.locate import locate
from metake.calibration.separability import bare_measures
from metake.calibration.survey import LEGEND, survey, surveyed_layers
from metake.errors import MetakeError
from metake.report.survey import PANELS, plot_survey

ETA = CONSTANTS["open-loop"].attenuation


@pytest.fixture(scope="module")
def found(demo, requests, statistics):
    return survey(demo, requests, "memit", statistics)


def test_survey_has_a_row_per_layer_and_lookup(found):
    assert [(row.lookup, row.layer) for row in found.rows] == [
        (lookup, layer) for lookup in ("subject", "prompt") for layer in (1, 2, 3, 4)
    ]


def test_survey_has_the_choice_of_locate(found, unchanged, requests, statistics):
    assert found.location == locate(unchanged, requests, "memit", statistics)


def test_survey_measures_separability_and_stream(found, unchanged, requests, statistics):
    for lookup in ("subject", "prompt"):
        cosine, scale = bare_measures(unchanged, requests, lookup, (1, 2, 3, 4), statistics)
        rows = [row for row in found.rows if row.lookup == lookup]
        assert {row.layer: row.cosine for row in rows} == pytest.approx(cosine)
        assert {row.layer: row.scale for row in rows} == pytest.approx(scale)


@pytest.mark.parametrize("lookup", ["subject", "prompt"])
def test_survey_has_one_strength_for_the_layers_of_a_lookup(found, lookup):
    """Its median attenuation over all keys is the default's, so that of the layers lies around it."""
    rows = [row for row in found.rows if row.lookup == lookup]
    assert found.constraint[lookup]["attenuation"] == ETA
    assert min(row.eta for row in rows) <= ETA <= max(row.eta for row in rows)
    assert len({row.eta for row in rows}) == len(rows)
    assert all(0 < row.probability <= 1 and row.cost > 0 for row in rows)


def test_survey_is_deterministic(found, unchanged, requests, statistics):
    assert survey(unchanged, requests, "memit", statistics) == found


def test_survey_of_given_layers_keeps_the_choice(found, unchanged, requests, statistics):
    """A row of one layer alone has the default's attenuation; the choice is still among the windows."""
    one = survey(unchanged, requests[:1], "memit", statistics, measured=[5])
    assert [row.layer for row in one.rows] == [5, 5]
    assert [row.eta for row in one.rows] == pytest.approx([ETA, ETA], abs=0.01)
    assert len(one.location.windows) == 2
    assert surveyed_layers(unchanged, "memit", [5], True) == (1, 2, 3, 4, 5)
    assert surveyed_layers(unchanged, "memit", None, False) == (1, 2, 3)


@pytest.mark.parametrize(("setting", "value"), [("lam", 500.0), ("attenuation", 0.4), ("layers", (2, 3))])
def test_survey_does_not_override_a_given_setting(unchanged, requests, statistics, setting, value):
    found = survey(unchanged, requests[:1], "memit", statistics, windows=False, **{setting: value})
    if setting == "layers":
        assert [row.layer for row in found.rows] == [2, 3, 2, 3]
    else:
        assert {strength[setting] for strength in found.constraint.values()} == {value}


def test_survey_refuses_a_method_without_layered_solves(demo, requests):
    with pytest.raises(MetakeError, match="ultraedit has no layered solves"):
        survey(demo, requests, "ultraedit")


def test_survey_prints_rows_legend_and_reasons(found):
    text = str(found)
    for line in (*LEGEND, *found.location.reasons):
        assert line in text
    assert all(cell in text for row in found.rows for cell in row.cells)


def test_survey_is_plain_for_a_result_file(found):
    content = json.loads(json.dumps(found.plain()))
    assert content["rows"][3]["probability"] == found.rows[3].probability
    assert content["layers"] == list(found.location.method.layers)
    assert content["reasons"] == list(found.location.reasons)
    assert [window["layers"] for window in content["windows"]] == [[1, 2, 3], [2, 3, 4]]


def test_plot_survey_has_a_panel_per_measurement(found, tmp_path, monkeypatch):
    """Each panel has the values of both lookups, and the chosen layers are shaded."""
    from metake.report import survey as module

    drawn = []
    monkeypatch.setattr(module, "save", lambda figure, path: drawn.append(figure) or path)
    rows = found.plain()["rows"]
    plot_survey(rows, (2, 3, 4), tmp_path / "locate.png")
    axes = drawn[0].axes
    assert [axis.get_title() for axis in axes] == list(PANELS.values())
    for axis, field in zip(axes, PANELS, strict=True):
        lines = {line.get_label(): list(line.get_ydata()) for line in axis.lines}
        assert lines == {
            f"{lookup}'s last token": [row[field] for row in rows if row["lookup"] == lookup]
            for lookup in ("subject", "prompt")
        }
        (patch,) = axis.patches
        assert patch.get_x() == pytest.approx(1.6)
        assert patch.get_width() == pytest.approx(2.8)
