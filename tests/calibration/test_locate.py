"""Calibrated settings: what is chosen, what is never overridden."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metake.calibration.constants import CONSTANTS, Constants
from metake.calibration.locate import candidates, constants_of, locate, suited, window_starts
from metake.errors import MetakeError
from metake.methods.table import METHODS, method_named
from metake.presets import default_layers

GIVEN = {
    "layers": (1, 3),
    "lookup": "subject",
    "lr": 0.123,
    "meta_lr": 0.321,
    "lam": 77.0,
    "attenuation": 0.33,
    "steps": 3,
    "from_lookup": False,
}


@given(st.integers(1, 200))
def test_window_starts_ascend_inside_the_model(count):
    width = len(default_layers(count))
    starts = window_starts(count, width)
    assert starts[0] == default_layers(count)[0]
    assert starts == sorted(set(starts))
    assert starts[-1] + width <= count
    assert all(start + width <= 0.9 * count for start in starts[1:])


@given(st.integers(1, 100))
def test_candidates_have_windows_of_one_width(count):
    found = candidates(count, "memit")
    assert [method.layers[0] for method in found] == window_starts(count, len(default_layers(count)))
    assert found[0].layers == default_layers(count)
    assert candidates(count, "memit", False) == found[:1]
    assert [method.layers for method in candidates(count, "memit", layers=(0,))] == [(0,)]


@pytest.mark.parametrize("setting", GIVEN)
def test_locate_does_not_override_a_given_setting(unchanged, requests, statistics, setting):
    value = GIVEN[setting]
    method = locate(unchanged, requests, "metake", statistics, windows=False, **{setting: value}).method
    found = method.layers if setting == "layers" else method.value(setting)
    assert found == value
    if setting == "lam":
        assert method.value("attenuation") is None


def test_locate_does_not_override_a_setting_by_its_path(unchanged, requests, statistics):
    method = locate(
        unchanged, requests, "metake", statistics, windows=False, **{"planner.start.lr": 0.123}
    ).method
    assert method.planner.start.lr == 0.123


@pytest.mark.parametrize("name", ["memit", "alphaedit", "metake"])
def test_locate_takes_the_constants_of_the_planner(unchanged, requests, statistics, name):
    """The attenuation is that of the planner's kind, the step a share of the stream's size at the last layer."""
    found = locate(unchanged, requests, name, statistics, windows=False)
    constants = CONSTANTS[found.method.planner.kind]
    assert constants_of(found.method) == constants
    assert found.method.value("attenuation") == constants.attenuation
    scale = found.scale[found.method.lookup][found.method.layers[-1]]
    assert found.method.value("lr") == pytest.approx(constants.step * scale)
    assert found.method.supported_changes({"from_lookup": True}) == (
        {"from_lookup": True} if name == "metake" else {}
    )
    assert name != "metake" or found.method.value("from_lookup") is True
    assert found.method.layers == default_layers(len(unchanged))
    assert found.windows == ()
    assert [line.split()[0] for line in found.reasons] == ["settings:", "lookup", "layers", "attenuation"]


def test_locate_takes_given_constants(unchanged, requests, statistics):
    found = locate(unchanged, requests, "memit", statistics, constants=Constants(0.25, 0.5), windows=False)
    assert found.method.value("attenuation") == 0.25
    assert found.method.value("lr") == pytest.approx(0.5 * found.scale[found.method.lookup][3])


@pytest.mark.parametrize("name", METHODS)
def test_locate_of_every_method(unchanged, requests, statistics, name):
    method = locate(unchanged, requests, name, statistics, windows=False).method
    plain = method_named(name, method.layers)
    assert method.name == plain.name
    if plain.paths("attenuation"):
        assert (
            plain.updated(
                **{n: method.value(n) for n in ("lookup", "consistent_lookup", "attenuation", "lr")}
            ).updated(
                **{n: method.value(n) for n in ("meta_lr", "meta_steps", "from_lookup") if method.paths(n)}
            )
            == method
        )
    else:
        assert method == plain


@given(
    st.floats(0.05, 0.95), st.floats(0.01, 1), st.floats(0.01, 100), st.sampled_from(["subject", "prompt"])
)
def test_suited_has_steps_in_units_of_the_stream(eta, step, scale, lookup):
    method = suited(method_named("metake", (1,)), lookup, scale, Constants(eta, step), {})
    assert method.value("lr") == method.value("meta_lr") == step * scale
    assert (method.value("attenuation"), method.lookup) == (eta, lookup)


def test_locate_is_deterministic_and_chooses_among_windows(unchanged, requests, statistics):
    """The last window whose reach is within the tolerance of the best one; the reasons name the others."""
    first, second = (locate(unchanged, requests, "memit", statistics) for _ in range(2))
    assert first == second
    assert [window.layers for window in first.windows] == [(1, 2, 3), (2, 3, 4)]
    best = max(window.probability for window in first.windows)
    good = [window.layers for window in first.windows if window.probability >= best - 0.05]
    assert first.method.layers == good[-1]
    other = next(window for window in first.windows if window.layers != first.method.layers)
    assert f"layers {other.layers[0]}-{other.layers[-1]}: {other.probability:.2f}" in first.reasons[2]


@pytest.mark.parametrize(
    ("reached", "layers"),
    [((0.9, 0.9), (2, 3, 4)), ((0.9, 0.86), (2, 3, 4)), ((0.9, 0.8), (1, 2, 3)), ((0.2, 0.9), (2, 3, 4))],
)
def test_locate_prefers_the_last_window_that_is_reached(
    unchanged, requests, statistics, monkeypatch, reached, layers
):
    from metake.calibration import locate as module
    from metake.calibration.reach import Reach

    left = list(reached)
    monkeypatch.setattr(
        module, "reach", lambda model, method, *_: Reach(method.layers, 0.7, {}, left.pop(0), 0.1)
    )
    found = locate(unchanged, requests, "memit", statistics, lookup="prompt")
    assert found.method.layers == layers


@pytest.mark.parametrize(
    ("subject", "prompt", "lookup"),
    [(0.1, 0.29, "prompt"), (0.03, 0.62, "subject"), (0.8, 0.62, "prompt"), (0.3, 0.62, "subject")],
)
def test_locate_reads_keys_where_facts_differ(
    unchanged, requests, statistics, monkeypatch, subject, prompt, lookup
):
    """The prompt up to a mean |cos| of 0.3, or if it separates facts better than the subject does."""
    from metake.calibration import locate as module

    alike = {"subject": subject, "prompt": prompt}
    monkeypatch.setattr(
        module,
        "bare_measures",
        lambda model, requests, lookup, layers, _: (
            dict.fromkeys(layers, alike[lookup]),
            dict.fromkeys(layers, 1.0),
        ),
    )
    found = locate(unchanged, requests, "memit", statistics, windows=False)
    assert found.method.lookup == lookup
    assert found.reasons[1].startswith(
        f"lookup {lookup}: keys of different facts have a mean |cos| of {prompt}"
    )


@pytest.mark.parametrize("wrong", [{"layers": (9,)}, {"lrr": 1}, {"attenuation": 2}])
def test_locate_refuses_wrong_settings(unchanged, requests, statistics, wrong):
    with pytest.raises(MetakeError, match=r"layers: 9 is out of range|lrr|attenuation"):
        locate(unchanged, requests, "memit", statistics, **wrong)


def test_located_method_edits(unchanged, requests, statistics):
    """The edit with the method has the attenuation that was chosen."""
    from metake.editor import Editor

    method = locate(unchanged, requests, "memit", statistics, steps=8).method.updated(contexts=())
    with Editor(unchanged, method=method, statistics=statistics, progress=False) as editor:
        assert float(editor.preview(requests).eta.quantile(0.5)) == pytest.approx(0.9, rel=1e-9)
        editor.edit(requests)
        assert not torch.equal(
            unchanged.weight(method.layers[0]), editor.history.originals()[method.layers[0]]
        )


def test_locate_refuses_statistics_that_lack_a_layer(unchanged, requests, statistics):
    lacking = replace(statistics, moments={1: statistics[1]})
    with pytest.raises(MetakeError, match="no statistics for layer"):
        locate(unchanged, requests, "memit", lacking)
