"""Components: validated values, found by their kinds; what a method of them reads, changes and says."""

import json
from types import SimpleNamespace
from typing import ClassVar

import pytest
from pydantic import Field

from metake import components
from metake.components import Component, families, find_kind, known_kinds, register
from metake.errors import MetakeError
from metake.geometry.specs import GeometrySpec, IdentitySpec, ProjectedSpec, RidgeSpec
from metake.methods.base import Method
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.settings import setting_names
from metake.methods.table import METHODS
from metake.methods.ultraedit import UltraEdit
from metake.planners.closed_loop import ClosedLoop
from metake.planners.compensated import Compensated
from metake.planners.gradients import ProxyGradient, UnrolledGradient
from metake.planners.open_loop import OpenLoop
from metake.solvers.memory import NoMemory, PastKeys
from tests.cases import method_of

MEMIT = LocateThenEdit(layers=(1, 2), label="memit")
METAKE = LocateThenEdit(layers=(1, 2), label="metake", planner=ClosedLoop())


@pytest.fixture
def installed(monkeypatch):
    """`installed["metake.geometry"] = [...]`: entry points of installed packages, and the groups asked for."""
    found = {}
    monkeypatch.setattr(components, "entry_points", lambda group: found.get(group, []))
    return found


def point(cls, name="doubled"):
    return SimpleNamespace(name=name, value=f"theirs:{getattr(cls, '__name__', cls)}", load=lambda: cls)


class Doubled(RidgeSpec):
    """A geometry of another package."""

    kind = "doubled"
    factor: float = Field(2.0, gt=0)


# the registry


def test_register_makes_a_class_usable_by_its_kind(registry):
    """A registered class is found by its kind everywhere."""
    assert register(Doubled) is Doubled
    assert find_kind("geometry", "doubled") is Doubled
    assert families()["geometry"]["doubled"] is Doubled
    assert known_kinds("geometry")[-1] == "doubled"
    assert "factor" in setting_names()
    made = MEMIT.updated(geometry="doubled", factor=3.0, lam=7.0)
    assert made.geometry == Doubled(factor=3.0, lam=7.0)
    assert made.name == "memit + doubled"
    assert LocateThenEdit(layers=(1,), geometry="doubled").geometry == Doubled()
    assert LocateThenEdit(layers=(1,), geometry={"kind": "doubled", "factor": 4}).geometry.factor == 4


def test_register_takes_one_class_per_kind(registry):
    """A kind is one class's alone and may be registered again by itself."""
    register(Doubled)
    again = type(
        "Doubled", (RidgeSpec,), {"kind": "doubled", "__module__": __name__, "__qualname__": "Doubled"}
    )
    register(again)  # the module was executed again, as a notebook's cell is
    assert find_kind("geometry", "doubled") is again
    other = type("Other", (RidgeSpec,), {"kind": "doubled", "__module__": __name__})
    with pytest.raises(
        MetakeError, match=r"^register: geometry 'doubled' is already tests\.test_components\.Doubled$"
    ):
        register(other)
    with pytest.raises(
        MetakeError, match=r"^register: geometry 'ridge' is already metake\.geometry\.specs\.RidgeSpec"
    ):
        register(type("Mine", (GeometrySpec,), {"kind": "ridge", "__module__": __name__}))
    assert find_kind("geometry", "ridge") is RidgeSpec


def test_register_needs_a_family_and_a_kind(registry):
    for fields, bases in (({"kind": "lone"}, (Component,)), ({}, (GeometrySpec,)), ({}, (Component,))):
        cls = type("Lone", bases, {**fields, "__module__": __name__})
        with pytest.raises(
            MetakeError, match=r"^register: Lone needs a family \(by its base class\) and a kind$"
        ):
            register(cls)


def test_register_refuses_a_subclass_with_an_inherited_kind(registry):
    """A subclass without a kind of its own does not take its base's.

    Its base's kind is the base's.
    """
    forgot = type("Forgot", (RidgeSpec,), {"__module__": __name__})
    with pytest.raises(MetakeError, match=r"^register: geometry 'ridge' is already metake\.geometry\.specs"):
        register(forgot)


def test_find_kind_lists_known_kinds_and_a_near_miss():
    """An unknown kind lists the known ones and a near miss."""
    with pytest.raises(MetakeError) as caught:
        find_kind("geometry", "rigde")
    assert (
        str(caught.value)
        == "settings: geometry: unknown 'rigde'; did you mean 'ridge'? known: ridge, projected, identity"
    )
    with pytest.raises(MetakeError, match=r"^settings: memory: unknown 'x'; known: none, past-keys$"):
        MEMIT.updated(memory="x")
    with pytest.raises(
        MetakeError, match=r"^settings: planner: unknown 'opn-loop'; did you mean 'open-loop'"
    ):
        LocateThenEdit(layers=(1,), planner={"kind": "opn-loop"})


@pytest.mark.parametrize("kind", [None, 7, [], {}, ["ridge"]], ids=repr)
def test_find_kind_refuses_what_is_no_text(kind):
    with pytest.raises(MetakeError, match=r"^settings: geometry: unknown ") as caught:
        find_kind("geometry", kind)
    assert "\n" not in str(caught.value)


def test_find_kind_refuses_another_familys_kind():
    """A kind of another family is no component here."""
    with pytest.raises(MetakeError, match="unknown 'open-loop'; known: ridge, projected, identity"):
        MEMIT.updated(geometry="open-loop")
    with pytest.raises(MetakeError, match="geometry: a planner of kind open-loop is not accepted here"):
        MEMIT.updated(geometry=OpenLoop())
    with pytest.raises(MetakeError, match="start: a planner of kind closed-loop is not accepted here"):
        METAKE.updated(start="closed-loop")  # it starts from an open loop


def test_find_kind_loads_an_installed_package(registry, installed):
    """A kind of an installed package is found when it is asked for."""
    installed["metake.geometry"] = [point(Doubled)]
    assert MEMIT.updated(geometry="doubled").geometry == Doubled()
    assert known_kinds("geometry")[-1] == "doubled"
    assert families()["geometry"]["doubled"] is Doubled


def test_known_kinds_load_no_installed_package(registry, installed):
    """Known kinds are found without loading what is installed."""

    def broken():
        raise ImportError("theirs cannot be imported")

    installed["metake.geometry"] = [SimpleNamespace(name="bad", value="theirs:Bad", load=broken)]
    assert find_kind("geometry", "ridge") is RidgeSpec
    assert MEMIT.updated(geometry="projected").geometry == ProjectedSpec()


@pytest.mark.parametrize("cls", [dict, OpenLoop, 7, None, PastKeys], ids=str)
def test_find_kind_names_a_bad_entry_point(registry, installed, cls):
    """An entry point that is no component of its family is named."""
    installed["metake.geometry"] = [point(cls, "strange")]
    with pytest.raises(
        MetakeError, match=r"^entry point strange of metake\.geometry: theirs:.* is not a geometry$"
    ):
        find_kind("geometry", "doubled")


def test_registered_classes_are_documented_and_frozen():
    """Every registered class is documented and frozen."""
    for family, kinds in families().items():
        for kind, cls in kinds.items():
            assert (cls.family, cls.kind) == (family, kind)
            assert cls.__doc__
            assert set(cls.aliases) <= set(cls.model_fields)
            assert set(cls.published.values()) <= set(cls.model_fields)
            assert all(field.description for field in cls.model_fields.values()), cls
    with pytest.raises(ValueError, match="frozen"):
        MEMIT.layers = (3,)


def test_method_settings_clash_only_with_equal_meaning():
    """No two settings of a method clash unless they mean the same.

    A short name that several components have sets them all, so it has to be one thing; a planner's are its own.
    """
    shared = {"stop_loss", "check_every", "end_weight", "seed"}
    for row in METHODS.values():
        names = [name for _, part in row.prototype.named_components() for name in part.setting_names()]
        assert {name for name in names if names.count(name) > 1} <= shared, row.name


# values


@pytest.mark.parametrize("name", METHODS)
def test_method_survives_json(name):
    method = method_of_row(name)
    for content in (
        method.model_dump(mode="json"),
        json.loads(method.model_dump_json()),
        method.model_dump(),
    ):
        assert Method.model_validate(content) == method
        assert type(method).model_validate(content) == method
        assert content["kind"] == method.kind
        for path, part in method.named_components():
            place = content
            for field in path:
                place = place[field]
            assert place["kind"] == part.kind


def method_of_row(name):
    """With a number that is no default in every component that has some."""
    plain = METHODS[name].build((2, 3))
    changes = {
        "lam": 7.5,
        "l2": 3.5,
        "lr": 0.25,
        "meta_lr": 0.125,
        "rect_keep_ratio": 0.5,
        "gradient_lr": 0.5,
        "contexts": ("a", "b"),
        "threshold": None,
        "seed": 3,
    }
    return plain.updated(**plain.supported_changes(changes))


def test_component_is_given_as_itself_kind_or_record():
    for given in (ProjectedSpec(l2=3.0), {"kind": "projected", "l2": 3.0}):
        assert LocateThenEdit(layers=(1,), geometry=given).geometry == ProjectedSpec(l2=3.0)
    assert LocateThenEdit(layers=(1,), geometry="identity").geometry == IdentitySpec()
    assert LocateThenEdit(layers=(1,)).geometry == RidgeSpec()
    with pytest.raises(
        MetakeError, match=r"^settings: geometry: must be a geometry or the kind of one: ridge"
    ):
        LocateThenEdit(layers=(1,), geometry={"lam": 3.0})  # of which kind?


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: RidgeSpec(lam=0), "settings: lam: input should be greater than 0 (got 0)"),
        (lambda: RidgeSpec(lam=float("nan")), "settings: lam: input should be "),
        (
            lambda: ClosedLoop(steps=-1),
            "settings: meta_steps: input should be greater than or equal to 0 (got -1)",
        ),
        (
            lambda: ClosedLoop(start={"kind": "open-loop", "lr": 0}),
            "settings: lr: input should be greater than 0 (got 0)",
        ),
        (lambda: OpenLoop(stepps=3), "settings: unknown 'stepps'; did you mean 'steps'? known: steps, lr, "),
        (lambda: LocateThenEdit(), "settings: layers: field required"),
        (
            lambda: LocateThenEdit(layers=(1,), fit="least_squaers"),
            "settings: fit: unknown 'least_squaers'; did you mean 'least_squares'? known: ",
        ),
        (lambda: UltraEdit(layers=("a",)), "settings: layers.0: input should be a valid integer"),
    ],
)
def test_component_names_a_setting_out_of_bounds(make, line):
    """A value out of its bounds is one line that names the setting.

    By the name that `--set` takes.
    """
    with pytest.raises(MetakeError) as caught:
        make()
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


# settings of a method


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        (MEMIT, "lr", 0.5),
        (MEMIT, "v_lr", 0.5),
        (MEMIT, "planner.lr", 0.5),
        (MEMIT, "lam", 15000.0),
        (MEMIT, "mom2_update_weight", 15000.0),
        (MEMIT, "geometry.lam", 15000.0),
        (MEMIT, "fit", "least_squares"),
        (METAKE, "meta_lr", 0.5),
        (METAKE, "planner.lr", 0.5),
        (METAKE, "lr", 0.5),
        (METAKE, "planner.start.lr", 0.5),
        (METAKE, "steps", 25),
        (METAKE, "v_num_grad_steps", 25),
        (METAKE, "meta_steps", 15),
        (METAKE, "planner.steps", 15),
        (METAKE, "hypergradient", UnrolledGradient()),
        (METAKE, "cost_weight", 0.0),
        (METAKE, "planner.cost_weight", 0.0),
    ],
)
def test_value_reads_short_published_or_dotted_names(method, name, value):
    """A setting is read by its short published or dotted name."""
    assert method.value(name) == value


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("lr", ("start", "lr")),
        ("v_lr", ("start", "lr")),
        ("planner.start.lr", ("start", "lr")),
        ("meta_lr", ("lr",)),
        ("planner.lr", ("lr",)),
    ],
)
def test_updated_changes_what_value_reads_alone(name, path):
    """A name changes the setting that it reads and no other."""
    made = METAKE.updated(**{name: 0.125})
    assert made.value(name) == 0.125
    wanted = ClosedLoop(start=OpenLoop(lr=0.125)) if path == ("start", "lr") else ClosedLoop(lr=0.125)
    assert made == LocateThenEdit(layers=(1, 2), label="metake", planner=wanted)


def test_updated_changes_every_component_with_the_name():
    """A name that several components have changes all of them."""
    made = METAKE.updated(stop_loss=0.25, check_every=7)
    assert (made.planner.stop_loss, made.planner.start.stop_loss) == (0.25, 0.25)
    assert (made.planner.check_every, made.planner.start.check_every) == (7, 7)
    only = METAKE.updated(**{"planner.start.stop_loss": 0.25})
    assert (only.planner.stop_loss, only.planner.start.stop_loss) == (0.05, 0.25)


def test_updated_names_settings_that_the_method_lacks():
    """Changes are refused where the method lacks the setting and say where it is."""
    for name, owner in (
        ("l2", "geometry projected"),
        ("meta_steps", "planner closed-loop"),
        ("rect_keep_ratio", "postprocess rect"),
        ("joint", "gradient proxy"),
        ("gradient_lr", "method ultraedit"),
    ):
        with pytest.raises(MetakeError) as caught:
            MEMIT.updated(**{name: 1})
        assert str(caught.value).startswith(
            f"settings: memit has no {name}; it is a setting of {owner}; known: layers, "
        )
        with pytest.raises(MetakeError, match=f"has no {name}"):
            MEMIT.value(name)
    with pytest.raises(MetakeError, match=r"^settings: unknown 'stepps'; did you mean 'steps'\? known: "):
        MEMIT.updated(stepps=3)
    for name in ("planner.stepps", "geometri.lam", "planner.start.lr", "layers.0", "planner.", ".lr", "."):
        with pytest.raises(MetakeError, match=rf"^settings: unknown '{name}'; "):
            MEMIT.updated(**{name: 3})


def test_fitting_keeps_settings_and_choices_of_the_method():
    """Fitting keeps the settings that the method has with the choices among them."""
    changes = {"lr": 0.5, "l2": 3.0, "meta_lr": 0.25, "planner.clamp": 1.0, "geometry.l2": 2.0, "stepps": 1}
    assert MEMIT.supported_changes(changes) == {"lr": 0.5, "planner.clamp": 1.0}
    assert MEMIT.supported_changes({**changes, "geometry": "projected"}) == {
        "lr": 0.5,
        "l2": 3.0,
        "planner.clamp": 1.0,
        "geometry.l2": 2.0,
        "geometry": "projected",
    }
    assert UltraEdit(layers=(1,)).supported_changes({**changes, "gradient_lr": 1.0}) == {"gradient_lr": 1.0}
    assert MEMIT.supported_changes({}) == {}


def test_method_of_leaves_out_settings_of_other_methods(demo):
    """The helper of the tests leaves out what others have and refuses what none has."""
    assert method_of(demo, "memit", l2=3.0, lr=0.25).value("lr") == 0.25
    with pytest.raises(MetakeError, match="unknown 'stepps'"):
        method_of(demo, "memit", stepps=3)
    with pytest.raises(MetakeError, match=r"unknown 'planner\.stepps'"):
        method_of(demo, "memit", **{"planner.stepps": 3})


@pytest.mark.parametrize("order", [("geometry", "l2"), ("l2", "geometry")])
def test_updated_takes_settings_of_a_chosen_component(order):
    """Settings of a component that is chosen with them exist."""
    changes = {"geometry": "projected", "l2": 3.0}
    assert MEMIT.updated(**{name: changes[name] for name in order}).geometry == ProjectedSpec(l2=3.0)


def test_updated_by_kind_keeps_shared_numbers():
    planned = MEMIT.updated(steps=7, clamp=None)
    assert planned.updated(planner="compensated").planner == Compensated(steps=7, clamp=None)
    longer = planned.updated(planner="compensated", max_scale=2.0)
    assert longer.updated(planner="open-loop").planner == OpenLoop(steps=7, clamp=None)
    other = METAKE.updated(steps=7, meta_steps=3)
    assert other.updated(start="compensated").planner == ClosedLoop(start=Compensated(steps=7), steps=3)
    assert other.updated(hypergradient="proxy").planner.gradient == ProxyGradient()
    assert (
        planned.updated(planner=Compensated()).planner == Compensated()
    )  # one that is given whole is taken as it is
    assert MEMIT.updated(lam=3.0).updated(geometry="projected").geometry == ProjectedSpec()


def test_updated_keeps_the_meaning_of_step_numbers():
    """A number keeps its meaning when the planner changes.

    `steps` is the plan's and `meta_steps` the closed loop's, whichever component holds them.
    """
    planned = MEMIT.updated(steps=7, lr=0.25, kl=0.5)
    looped = planned.updated(planner="closed-loop")
    assert [looped.value(name) for name in ("steps", "lr", "kl")] == [7, 0.25, 0.5]
    assert [looped.value(name) for name in ("meta_steps", "meta_lr", "locality")] == [15, 0.5, 0.0625]
    back = METAKE.updated(steps=7, meta_steps=3, meta_lr=0.125).updated(planner="open-loop")
    assert [back.value(name) for name in ("steps", "lr")] == [7, 0.5]


def test_name_has_changed_kinds_and_no_numbers():
    assert MEMIT.updated(memory="past-keys").name == "memit + past-keys"
    assert MEMIT.updated(memory="past-keys", postprocess="rect").name == "memit + rect + past-keys"
    assert MEMIT.updated(memory="past-keys").updated(postprocess="rect").name == "memit + rect + past-keys"
    assert METAKE.updated(start="compensated").name == "metake + compensated"
    assert METAKE.updated(hypergradient="proxy").name == "metake + proxy"
    assert MEMIT.updated(rounds=3, merge=True).name == "memit + rounds 3 + merge true"
    assert MEMIT.updated(fit="equality_constrained").name == "memit + fit equality_constrained"
    for numbers in (
        {"lr": 0.1},
        {"layers": (3,)},
        {"lam": 2.0},
        {"contexts": ()},
        {"dtype": "float32"},
        {"lookup": "prompt"},
        {"memory": "none"},
        {"geometry": RidgeSpec(lam=2.0)},
    ):
        assert MEMIT.updated(**numbers).name == "memit"
    assert MEMIT.updated(memory="past-keys", label="mine").name == "mine"
    assert LocateThenEdit(layers=(1,)).name == "locate-then-edit"
    assert LocateThenEdit(layers=(1,)).updated(memory="past-keys").name == "locate-then-edit + past-keys"
    assert UltraEdit(layers=(1,)).updated(gradient_lr=1.0).name == "ultraedit"


def test_name_is_restored_with_the_choice():
    """A choice that is taken back leaves the name as it was.

    A name says what an algorithm is, not how it came about.
    """
    assert MEMIT.updated(memory="past-keys").updated(memory="none").name == "memit"
    assert MEMIT.updated(postprocess="rect").updated(postprocess="prune").name == "memit + prune"


def test_updated_returns_another_value():
    """A changed method is another value and the old one stays."""
    before = MEMIT.model_dump()
    made = MEMIT.updated(memory="past-keys", lr=0.1)
    assert MEMIT.model_dump() == before
    assert made != MEMIT
    assert (made.memory, MEMIT.memory) == (PastKeys(), NoMemory())
    assert len({MEMIT, made, LocateThenEdit(layers=(1, 2), label="memit")}) == 2


class Loud(OpenLoop):
    """A planner of another package, with names of its own."""

    kind = "loud"
    aliases: ClassVar[dict[str, str]] = {"gain": "loudness"}
    published: ClassVar[dict[str, str]] = {**OpenLoop.published, "v_gain": "gain"}
    gain: float = Field(1.0, gt=0)


def test_component_has_its_own_short_and_published_names(registry):
    register(Loud)
    made = MEMIT.updated(planner="loud", loudness=3.0, v_lr=0.25)
    assert made.planner == Loud(gain=3.0, lr=0.25)
    assert [made.value(name) for name in ("loudness", "v_gain", "planner.gain", "lr")] == [
        3.0,
        3.0,
        3.0,
        0.25,
    ]
    with pytest.raises(MetakeError, match=r"^settings: loudness: input should be greater than 0 \(got 0\)$"):
        made.updated(v_gain=0)
    with pytest.raises(
        MetakeError, match=r"^settings: memit has no loudness; it is a setting of planner loud; "
    ):
        MEMIT.updated(loudness=2.0)
    assert METAKE.updated(start="loud", loudness=2.0).planner == ClosedLoop(start=Loud(gain=2.0))
    assert Method.model_validate(made.model_dump(mode="json")) == made
