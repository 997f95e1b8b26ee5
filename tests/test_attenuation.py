"""The constraint's strength given as an attenuation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metake.deltas import Delta
from metake.editor import Editor
from metake.errors import MetakeError
from metake.geometry.identity import Identity
from metake.geometry.operator import Ridge
from metake.methods.lookup_keys import scale_for
from metake.methods.table import method_named

GEOMETRIES = ("ridge", "projected", "identity")


@given(
    st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=30),
    st.floats(0.01, 0.99),
)
def test_scale_for_gives_the_median_attenuation(rho, eta):
    """The median of `rho / (rho + f)` is the attenuation, for odd and even numbers of keys."""
    factor = scale_for(eta, torch.tensor(rho, dtype=torch.float64))
    found = float(np.median([r / (r + factor) for r in rho]))
    assert found == pytest.approx(eta, rel=1e-6)


def test_scale_for_refuses_keys_out_of_reach():
    with pytest.raises(MetakeError, match="rho = 0"):
        scale_for(0.5, torch.zeros(3))


@given(st.floats(1e-6, 1e6), st.integers(1, 5), st.integers(0, 100))
def test_scaled_divides_realizability(factor, count, seed):
    """The law for any geometry: G -> f G gives rho -> rho / f; and f (a C) = (f a) C for ridge."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    moment = root @ root.T + torch.eye(6)
    keys = torch.randn(6, count, generator=generator, dtype=torch.float64)
    for geometry in (Ridge(moment, 2.0), Identity()):
        scaled = geometry.scaled(factor)
        torch.testing.assert_close(scaled.realizability(keys) * factor, geometry.realizability(keys))
    torch.testing.assert_close(Ridge(moment, 2.0).scaled(3.0).channel(keys), Ridge(moment, 6.0).channel(keys))


def test_scaled_counts_for_earlier_keys():
    """Earlier keys enter with weight 1 whatever the base's factor: (f G + K K^T)^-1, not (f (G + K K^T))^-1."""
    moment, past, key = torch.eye(3, dtype=torch.float64), torch.eye(3)[:, :1], torch.ones(3, 1)
    direct = Ridge(moment, 5.0, past=past).realizability(key)
    torch.testing.assert_close(Ridge(moment, 1.0).scaled(5.0).with_past(past).realizability(key), direct)


@pytest.mark.parametrize("lookup", ["subject", "prompt"])
@pytest.mark.parametrize("kind", GEOMETRIES)
def test_attenuation_is_that_of_the_first_batch(demo, records, statistics_of, kind, lookup):
    """Preview and result have the median that was asked for, and the strength stays for later batches."""
    method = method_named("memit", (1, 2)).updated(
        geometry=kind, attenuation=0.4, lookup=lookup, steps=1, contexts=()
    )
    requests = [r.request for r in records[:5]]
    statistics = statistics_of(demo) if kind != "identity" else None
    with Editor(demo, method=method, statistics=statistics, progress=False) as editor:
        preview = editor.preview(requests)
        assert float(preview.eta.quantile(0.5)) == pytest.approx(0.4, rel=1e-9)
        result = editor.edit(requests)
        assert float(result.eta[1].double().mean()) == pytest.approx(float(preview.eta[0].mean()), rel=1e-4)
        assert result.constraint == preview.constraint
        assert result.constraint["attenuation"] == 0.4
        scale = editor.state.scale
        later = editor.edit([records[6].request])
        assert editor.state.scale == scale
        assert later.constraint == result.constraint
        assert result.summary()["constraint"] == result.delta.note["constraint"] == result.constraint


@pytest.mark.parametrize("kind", ["ridge", "projected"])
def test_attenuation_equals_the_strength_it_leads_to(demo, records, statistics_of, kind):
    """The edit with lambda (or L2) as reported is the same edit."""
    requests = [r.request for r in records[:3]]
    base = method_named("metake", (1, 2)).updated(geometry=kind, steps=2, meta_steps=2, contexts=())

    def edit(method):
        with Editor(demo, method=method, statistics=statistics_of(demo), progress=False) as editor:
            return editor.edit(requests)

    asked = edit(base.updated(attenuation=0.6))
    name = base.constraint_setting
    plain = edit(base.updated(**{name: asked.constraint[name]}))
    assert "attenuation" not in plain.constraint
    for layer in (1, 2):
        torch.testing.assert_close(
            asked.delta.to_dense(layer), plain.delta.to_dense(layer), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("name", ["memit", "alphaedit", "memit-anyedit"])
def test_attenuation_sets_the_strength_without_preserved_keys(demo, records, statistics_of, name):
    """Keys preserved beside C do not scale with the strength: it is that of the same method without them."""
    requests, found = [r.request for r in records[:4]], {}
    without, preserved = (
        ("bare-windows", "windows") if "anyedit" in name else ("whole-answer", "preserved-prompt")
    )
    for windows in (without, preserved):
        method = method_named(name, (1, 2)).updated(windows=windows, attenuation=0.4, steps=1, contexts=())
        with Editor(demo, method=method, statistics=statistics_of(demo), progress=False) as editor:
            preview = editor.preview(requests)
            found[windows] = editor.state.scale or preview.state.scale, float(preview.eta.quantile(0.5))
    assert found[preserved][0] == pytest.approx(found[without][0], rel=1e-4)
    assert found[without][1] == pytest.approx(0.4, rel=1e-4)
    assert found[preserved][1] < 0.4, "the preview has the preserved keys"


def test_attenuation_is_restored_with_a_run(demo, records, statistics_of):
    """A batch that is applied from a file leads to the same strength as the edit did."""
    method = method_named("memit", (1, 2)).updated(attenuation=0.5, steps=1, contexts=())
    requests = [r.request for r in records[:3]]
    with Editor(demo, method=method, statistics=statistics_of(demo), progress=False) as editor:
        result = editor.edit(requests)
        scale = editor.state.scale
    with Editor(demo, method=method, statistics=statistics_of(demo), progress=False) as editor:
        editor.restore(requests, Delta(result.delta.factors), {})
        assert editor.state.scale == scale


@pytest.mark.parametrize("wrong", [0, 1, -0.5, 2, "weak", float("nan")])
def test_attenuation_out_of_range_is_named(wrong):
    with pytest.raises(MetakeError, match="attenuation"):
        method_named("memit", (1,)).updated(attenuation=wrong)


def test_legend_names_the_strength(demo, records, statistics_of):
    method = method_named("memit", (1,)).updated(attenuation=0.5, contexts=())
    with Editor(demo, method=method, statistics=statistics_of(demo), progress=False) as editor:
        text = str(editor.preview(records[0].request))
    assert "constraint: lam = " in text
    assert "a median eta of 0.5" in text
