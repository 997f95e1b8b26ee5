"""Files are whole or absent, and what they hold can be read by others."""

import json
import math

import numpy as np
import pytest

from metake.errors import MetakeError
from metake.files import read_json, write_json


def test_json_has_no_nan_and_no_infinity(tmp_path):
    content = {
        "a": [1.5, math.nan, (math.inf, "NaN")],
        "b": {"c": -math.inf, "d": np.float64("nan"), "e": None},
    }
    write_json(tmp_path / "x.json", content)

    def refuse(name):
        raise AssertionError(name)

    found = json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse)
    assert found == {"a": [1.5, None, [None, "NaN"]], "b": {"c": None, "d": None, "e": None}}


def test_what_cannot_be_written_leaves_what_was_there(tmp_path):
    place = tmp_path / "x.json"
    write_json(place, [1])
    with pytest.raises(TypeError):
        write_json(place, [object()])
    assert read_json(place) == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    with pytest.raises(MetakeError, match="cannot be written"):
        write_json(place / "y.json", [1])
