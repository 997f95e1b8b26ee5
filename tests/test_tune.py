"""The search sees shipped settings as points of its space."""

import pytest

optuna = pytest.importorskip("optuna")

from experiments.tune import SPACES, as_trial, suggest  # noqa: E402
from metake.files import read_json  # noqa: E402
from metake.methods import METHODS  # noqa: E402
from metake.presets import PRESETS  # noqa: E402


@pytest.mark.parametrize("model", sorted(SPACES))
def test_every_searched_preset_is_a_trial(model):
    """The point that stands for it gives the same settings again."""
    space = SPACES[model]
    searched = read_json(PRESETS.parent.parent.parent / "experiments" / "search" / f"{model}.json")
    for method in sorted(set(searched) & set(METHODS)):
        choice = searched[method]["trials"][0]["choice"]
        point = as_trial(choice, space)
        assert point is not None
        again = suggest(optuna.trial.FixedTrial(point), method, space)
        held = {name: value for name, value in choice.items() if name not in again}
        assert again == {name: choice[name] for name in again}
        assert set(held) <= {"lookup"}


def test_layers_outside_the_space_are_no_trial():
    assert as_trial({"layers": [0, 5]}, SPACES["demo"]) is None
    assert as_trial({}, SPACES["demo"]) is None
