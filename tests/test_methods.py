"""The rows of the table as their papers and their code have them."""

from types import SimpleNamespace

import pytest

from metake.errors import MetakeError
from metake.methods import table
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.table import METHODS, Row, find_method, method_named, register_method
from metake.methods.ultraedit import UltraEdit

PLAIN = {
    "planner": "open-loop",
    "geometry": "ridge",
    "allocation": "spread",
    "postprocess": "none",
    "memory": "none",
    "keys": "bare-and-contexts",
    "fit": "least_squares",
    "rounds": 1,
    "group": None,
    "merge": False,
    "lookup": "subject",
    "relative": "stream",
    "windows": "whole-answer",
}
NULL = {"geometry": "projected", "memory": "past-keys"}
LOOP = {"planner": "closed-loop", "start": "open-loop", "hypergradient": "unrolled", "cost_weight": 0.0}
WINDOWS = {"planner": "window-by-window", "windows": "windows"}
ROWS = {
    # one request at a time, W k = v exactly, at one layer; v is the down-projection's output, and so is its clamp
    "rome": {
        "fit": "equality_constrained",
        "allocation": "last",
        "group": 1,
        "relative": "value",
        "keys": "rome",
    },
    "memit": {},
    "prune": {"postprocess": "prune"},
    "prune-added": {"postprocess": "prune-added"},
    "rect": {"postprocess": "rect"},
    "alphaedit": NULL,
    "alphaedit-blue": {**NULL, "allocation": "boundary"},
    "metake": LOOP,
    "metake-proxy": {**LOOP, "hypergradient": "proxy", "joint": True},
    "metake-parallel": {**LOOP, "hypergradient": "parallel"},
    "metake-priced": {**LOOP, "cost_weight": 1.0},
    "metake-alphaedit": {**LOOP, **NULL},
    "metake-blue": {**LOOP, **NULL, "allocation": "boundary"},
    "emmet": {"fit": "equality_constrained", "allocation": "last"},  # a batch at once
    "pmet": {"planner": "with-attention", "allocation": "square-roots", "relative": "value"},
    "nas": {**NULL, "planner": "norm-anchored"},
    "sphere": {**NULL, "postprocess": "sphere"},
    "memit-fe": {"allocation": "forward", "memory": "past-keys"},
    "alphaedit-fe": {**NULL, "allocation": "forward"},
    "memit-merge": {"merge": True},
    "memit-anyedit": WINDOWS,
    "alphaedit-anyedit": {**NULL, **WINDOWS},
    "muke": {**WINDOWS, "planner": "matryoshka"},
    "metake-windows": {**WINDOWS, **LOOP, "start": "window-by-window"},
    "memit-compensated": {"planner": "compensated"},
    "alphaedit-compensated": {**NULL, "planner": "compensated"},
    "memit-iterated": {"rounds": 3},
    "alphaedit-iterated": {**NULL, "rounds": 3},
}


OF_THEIR_OWN = {
    "ultraedit",
    "ft-l",
    "ft-m",
    "locft-bf",
    "crispedit",
    "malmen",
    "mend",
    "rledit",
    "horse",
    "grace",
    "wise",
    "memoir",
    "rep",
}


@pytest.mark.parametrize("name", sorted({*ROWS, *METHODS} - OF_THEIR_OWN))
def test_methods_have_the_choices_of_their_papers(name):
    """A row makes the choices of its paper.

    The components by their kinds and the other choices; everything else is a number with its default.
    """
    method, wanted = METHODS[name].prototype, {**PLAIN, **ROWS[name]}
    assert type(method) is LocateThenEdit
    found = {choice: method.value(choice) for choice in wanted}
    assert {choice: getattr(value, "kind", value) for choice, value in found.items()} == wanted
    assert {part.family for path, part in method.named_components() if path} <= {
        *wanted,
        "gradient",
        "planner",
    }
    chosen = {field for _, part in method.named_components() for field in part.model_fields_set}
    assert chosen <= {"layers", "label", *wanted, "gradient", "cost_weight"}


def test_ultraedit_is_a_method_of_its_own():
    """A gradient step is a method of its own."""
    assert METHODS["ultraedit"].prototype == UltraEdit(layers=())


def test_methods_have_name_source_and_preset_row():
    """Every row has its name its source and the preset of another row."""
    for name, row in METHODS.items():
        assert row.name == name
        assert row.summary
        assert row.source
        assert row.build((1,)).name == method_named(name).name == name
        assert row.like in ("", *METHODS)
        assert METHODS[row.like or name].like == ""  # no chain of presets


def test_methods_differ_between_rows():
    """No two rows are the same algorithm.

    Beside their labels.
    """
    made = [row.prototype.replaced("label", "") for row in METHODS.values()]
    assert all(a != b for i, a in enumerate(made) for b in made[:i])


@pytest.mark.parametrize("name", sorted(METHODS))
def test_method_named_survives_every_single_choice(name):
    """A name has every component that is not the row's.

    `method_named(made.name)` makes the same algorithm, whichever one choice was changed.
    """
    plain = METHODS[name].build((1,))
    changes = [
        {"memory": "none"},
        {"memory": "past-keys"},
        {"postprocess": "rect"},
        {"postprocess": "none"},
        {"geometry": "ridge"},
        {"geometry": "identity"},
        {"geometry": "projected"},
        {"allocation": "last"},
        {"keys": "context-mean"},
        {"fit": "equality_constrained"},
        {"fit": "least_squares"},
        {"rounds": 2},
        {"group": 4},
        {"group": None},
        {"merge": True},
        {"planner": "closed-loop"},
        {"planner": "compensated"},
        {"start": "compensated"},
        {"hypergradient": "proxy"},
        {"objective": "prompt_last"},
        {"end": "line-break"},
    ]
    for change in changes:
        fitting = plain.supported_changes(change)
        if not fitting or (name == "metake-priced" and change == {"fit": "equality_constrained"}):
            continue
        if change == {"merge": True} and plain.value("windows").at_prompt:
            continue
        made = plain.updated(**fitting)
        again = method_named(made.name, (1,))
        kinds = [{path: part.kind for path, part in method.named_components()} for method in (made, again)]
        assert kinds[0] == kinds[1], change
        for choice in made.choices:
            assert getattr(made, choice) == getattr(again, choice), change
        assert (made.name == name) is (
            kinds[0] == {path: p.kind for path, p in plain.named_components()}
            and all(getattr(made, c) == getattr(plain, c) for c in plain.choices)
        )


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("memit + past-keys", {"memory": "past-keys"}),
        ("memit+past-keys", {"memory": "past-keys"}),
        (
            "metake + compensated",
            {"planner": "closed-loop", "start": "compensated"},
        ),  # the loop's start, not the loop
        ("memit + compensated", {"planner": "compensated"}),
        ("memit + closed-loop + proxy", {"planner": "closed-loop", "hypergradient": "proxy"}),
        ("rect + rounds 3 + merge true@mine", {"postprocess": "rect", "rounds": 3, "merge": True}),
        ("alphaedit + fit equality_constrained", {"fit": "equality_constrained", **NULL}),
        ("rome + group 5", {"group": 5, "fit": "equality_constrained"}),
        ("ft-m + end line-break + group 1", {"end": "line-break", "group": 1, "objective": "target_new"}),
        ("memit@a + b", {}),  # a label may be anything
    ],
)
def test_method_named_reads_a_row_with_components(name, values):
    method = method_named(name, (2, 3))
    assert method.layers == (2, 3)
    found = {choice: method.value(choice) for choice in values}
    assert {choice: getattr(value, "kind", value) for choice, value in found.items()} == values
    assert method.name == name.replace("memit+past", "memit + past")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("memti", "method: unknown 'memti'; did you mean 'memit'"),
        ("memit + past-kes", "unknown 'past-kes'; did you mean 'past-keys'"),
        (
            "memit + unrolled",
            "'unrolled' is a kind of the component gradient, which memit does not have",
        ),  # an open loop has no gradient
        (
            "ultraedit + past-keys",
            "'past-keys' is a kind of the component memory, which ultraedit does not have; its components: none",
        ),
        (
            "grace + past-keys",
            "'past-keys' is a kind of the component memory, which grace does not have; its components: patch",
        ),
        (
            "ultraedit + preserved-prompt",
            "'preserved-prompt' is a kind of the component windows, which ultraedit does not have",
        ),
        ("memit-merge + windows", "windows: merge requires windows=whole-answer"),
        ("memit + rounds 0", "settings: rounds: input should be greater than or equal to 1"),
        ("memit + rounds x", "settings: rounds: "),
        ("memit + fit least_square", "settings: fit: unknown 'least_square'; did you mean 'least_squares'"),
        ("memit + ", "unknown ''"),
        ("", "method: unknown ''"),
        ("@x", "method: unknown ''"),
    ],
)
def test_method_named_refuses_other_names_in_one_line(name, line):
    with pytest.raises(MetakeError, match=line.replace("?", r"\?")) as caught:
        method_named(name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_register_method_adds_a_row(rows):
    row = Row("memit-mine", METHODS["memit"].prototype.updated(merge=True), "mine", "me", "memit")
    assert register_method(row) is row
    assert register_method(row) is row  # a second import
    assert find_method("memit-mine@x") is row
    assert method_named("memit-mine + past-keys").merge is True
    with pytest.raises(MetakeError, match=r"^register_method: 'memit-mine' is already a method$"):
        register_method(Row("memit-mine", METHODS["memit"].prototype, "other", "me"))
    with pytest.raises(MetakeError, match=r"^register_method: must be a Row, not str$"):
        register_method("memit-mine")


def test_find_method_loads_rows_of_installed_packages(rows, monkeypatch):
    """Rows of installed packages are found when a name is unknown."""
    row = Row("memit-theirs", METHODS["memit"].prototype.updated(merge=True), "theirs", "them", "memit")
    asked = []

    def entry_points(group):
        asked.append(group)
        return [SimpleNamespace(name="memit-theirs", value="theirs:row", load=lambda: row)]

    monkeypatch.setattr(table, "entry_points", entry_points)
    assert find_method("memit") is METHODS["memit"]
    assert asked == []
    assert find_method("memit-theirs") is row
    assert asked == ["metake.method_rows"]
    with pytest.raises(MetakeError, match=r"unknown 'nowhere'; known: .*memit-theirs"):
        find_method("nowhere")


@pytest.mark.parametrize("name", METHODS)
def test_method_previews_if_it_solves_for_its_values(name):
    """MEND's step has no solve, a gated memory and fine-tuning no geometry; the command line edits by them without a preview."""
    without = {"mend", "ft-l", "ft-m", "locft-bf", "crispedit", "grace", "wise", "memoir", "rep"}
    assert METHODS[name].build((2, 3)).previews == (name not in without)


@pytest.mark.parametrize(
    ("name", "takes"),
    [
        ("memit", True),
        ("ultraedit", True),
        ("rep", True),
        ("ft-m", False),
        ("grace", False),
        ("malmen", False),
    ],
)
def test_layers_that_a_preset_shares_are_those_of_methods_that_locate(name, takes):
    """Fine-tuning, gated memories and fitted maps edit other layers, which a preset states under their own name."""
    method = METHODS[name].prototype
    assert ("layers" in method.numbers_of({"layers": [5]})) == takes
    assert method.numbers_of({"layers": [5]}, method) == {"layers": [5]}
