"""Components of another package: what they take from presets, and one line for each of their mistakes."""

from dataclasses import replace

import pytest
import torch
from pydantic import Field

import metake as mk
from metake import components
from metake.errors import MetakeError
from metake.geometry.operator import Ridge
from metake.methods.table import method_named

REQUEST = mk.EditRequest("Which city was {} born in?", "Sino Dufe", "Sobris")


def outside(cls):
    """The class as one of another package."""
    cls.__module__ = "myedits.parts"
    return cls


@outside
class Shrunk(mk.GeometrySpec):
    """Has a field of the ridge's name, with another meaning."""

    kind = "shrunk"
    lam: float = Field(7.0, gt=0, description="lambda of the shrunk moment")

    def build(self, moment, dtype, device):
        return Ridge(moment, self.lam, 1e-3, dtype=dtype)


@outside
class Shortened(mk.OpenLoop):
    """Inherits the numbers of the open loop."""

    kind = "shortened"


@outside
class Weak(mk.Postprocess):
    """Scales an update."""

    kind = "weak"

    def after_batch(self, delta, weights):
        return replace(delta, factors={n: (0.1 * left, right) for n, (left, right) in delta.factors.items()})


@pytest.fixture(autouse=True)
def registry():
    """The registry with the classes above, as it was afterwards."""
    before = {family: dict(kinds) for family, kinds in components._REGISTRY.items()}
    for cls in (Shrunk, Shortened, Weak):
        mk.register(cls)
    yield
    components._REGISTRY.clear()
    components._REGISTRY.update(before)


@pytest.fixture
def edited(demo, statistics_of):
    """Edit of the demo model with a changed MEMIT."""

    def edit(**changes):
        method = method_named("memit", (1, 2)).updated(steps=1, contexts=(), **changes)
        statistics = statistics_of(demo)
        with mk.Editor(demo, method=method, statistics=statistics, answers=False, progress=False) as editor:
            return editor.edit(REQUEST)

    return edit


def test_preset_number_is_not_taken_by_a_foreign_field(demo):
    """The preset's lambda was written for the ridge; what a class inherits keeps its meaning."""
    plain = mk.settings_for(demo, "memit")
    assert plain.value("lam") != 7.0
    assert mk.settings_for(demo, "memit + shrunk").value("lam") == 7.0
    assert mk.settings_for(demo, "memit + shrunk", lam=3.0).value("lam") == 3.0
    assert plain.updated(geometry="shrunk").value("lam") == 7.0
    assert mk.settings_for(demo, "memit + shortened").value("lr") == plain.value("lr")
    assert mk.settings_for(demo, "memit + shortened").value("steps") == plain.value("steps")


@pytest.mark.parametrize(
    "part", [{"geometries": {"shrunk": {"lam": 5}}}, {"methods": {"memit + shrunk": {"lam": 5}}}]
)
def test_preset_entry_for_a_foreign_kind_is_taken(demo, part, tmp_path):
    path = tmp_path / "preset.json"
    path.write_text(str(part).replace("'", '"'), encoding="utf-8")
    assert mk.settings_for(demo, "memit + shrunk", name=path).value("lam") == 5
    assert mk.settings_for(demo, "memit", name=path).value("lam") == 15000


def test_two_kinds_of_one_component_are_refused():
    with pytest.raises(
        MetakeError,
        match=r"^method: memit \+ \.\.\.: 'rect' and 'weak' are both its postprocess; name one of them$",
    ):
        method_named("memit + rect + weak")
    assert method_named("rect + weak").name == "rect + weak"


def test_unknown_kind_lists_the_family_that_is_meant():
    with pytest.raises(MetakeError) as caught:
        method_named("memit + projectd")
    assert str(caught.value) == (
        "method: memit + ...: geometry: unknown 'projectd'; did you mean 'projected'? known: ridge, projected, identity, shrunk"
    )
    with pytest.raises(MetakeError) as caught:
        method_named("memit + zzz")
    assert "; geometry: ridge, projected, identity, shrunk; " in str(caught.value)
    assert "@mk.register" in str(caught.value)


def test_unregistered_instance_says_register_is_missing():
    @outside
    class Unregistered(Shrunk):
        """Not registered."""

        kind = "unregistered"

    with pytest.raises(
        MetakeError,
        match=r"^settings: geometry: Unregistered is not registered; decorate the class with @mk\.register$",
    ):
        mk.memit((1, 2), geometry=Unregistered())


def test_register_refuses_a_spec_without_build():
    with pytest.raises(MetakeError, match=r"^register: geometry 'empty': Empty must define build$"):
        mk.register(type("Empty", (mk.GeometrySpec,), {"kind": "empty", "__module__": "myedits.parts"}))
    with pytest.raises(MetakeError, match=r"^register: keys 'empty': Empty must define estimate$"):
        mk.register(type("Empty", (mk.KeyEstimator,), {"kind": "empty", "__module__": "myedits.parts"}))


class NoDevice(mk.Geometry):
    """An operator that forgets its device."""

    def __init__(self):
        self.dtype = torch.float64

    def solve_base(self, x):
        return x


@pytest.mark.parametrize(
    ("built", "line"),
    [
        (NoDevice, r"^geometry shrunk: NoDevice has no device; set self\.device in its __init__$"),
        (dict, r"^geometry shrunk: build must return a Geometry, not dict$"),
    ],
)
def test_operator_that_is_incomplete_is_named(edited, monkeypatch, built, line):
    monkeypatch.setattr(Shrunk, "build", lambda *_: built())
    with pytest.raises(MetakeError, match=line):
        edited(geometry="shrunk")


@pytest.mark.parametrize(
    ("returned", "line"),
    [
        ({}, r"^postprocess weak: must return a Delta, not dict$"),
        (None, r"^postprocess weak: must return a Delta, not NoneType$"),
        (
            mk.Delta({}),
            r"^postprocess weak: must return a Delta of layers of the update, \[1, 2\], not \[\]$",
        ),
    ],
)
def test_postprocess_that_returns_no_update_is_named(edited, monkeypatch, returned, line):
    monkeypatch.setattr(Weak, "after_batch", lambda *_: returned)
    with pytest.raises(MetakeError, match=line):
        edited(postprocess="weak")


def test_postprocess_from_outside_changes_the_update(edited):
    plain, weak = edited(), edited(postprocess="weak")
    for layer, norm in plain.delta.norms().items():
        assert weak.delta.norms()[layer] == pytest.approx(0.1 * norm, rel=1e-4)


@pytest.mark.parametrize("combine", [mk.compensated, mk.metake])
def test_combinators_refuse_a_method_without_a_planner(combine):
    with pytest.raises(MetakeError, match=r"^method: UltraEdit has no planner or solver to exchange$"):
        combine(method_named("ultraedit"))
