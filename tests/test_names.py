"""A name that is not known is refused with the known names that are spelled alike."""

import pytest

from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.table import find_method
from metake.names import did_you_mean, unknown_name


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("demmo", ["demo", "smollm2"], "did you mean 'demo'?"),
        ("MEMIT", ["memit", "rome"], "did you mean 'memit'?"),
        ("memti", ["memit", "rome"], "did you mean 'memit'?"),
        (" demo", ["demo"], "did you mean 'demo'?"),
        ("magic", ["memit", "rome"], ""),
        ("", ["memit"], ""),
        ("x", [], ""),
    ],
)
def test_did_you_mean_close_spellings(name, known, said):
    assert did_you_mean(name, known) == said


def test_did_you_mean_names_three_at_most():
    known = ["metake-proxy", "metake-priced", "metake", "metake-blue", "metake-alphaedit"]
    said = did_you_mean("metakee", known)
    assert said.startswith("did you mean 'metake'")
    assert said.count("'") <= 6


def test_unknown_name_is_one_line():
    error = unknown_name("--method", "memti", ["memit", "rome"], "see metake models")
    assert str(error) == (
        "--method: unknown 'memti'; did you mean 'memit'? known: memit, rome; see metake models"
    )
    assert str(unknown_name("--method", 3, ["memit"])) == "--method: unknown 3; known: memit"


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (lambda: find_method("metka"), "did you mean 'metake'"),
        (lambda: LocateThenEdit(layers=(1,)).updated(stepps=3), "did you mean 'steps'"),
        (lambda: LocateThenEdit(layers=(1,), geometry="rigde"), "did you mean 'ridge'"),
    ],
    ids=["method", "setting", "choice of a setting"],
)
def test_unknown_name_lists_near_misses_wherever_names_are_read(refused, said):
    with pytest.raises(Exception, match=said.replace("?", r"\?")) as caught:
        refused()
    assert "\n" not in str(caught.value)
