"""How far apart keys are, against the definition, and the command."""

import json
from dataclasses import replace

import pytest
import torch

from experiments.compare_lookups import compare
from metake.errors import MetakeError
from metake.models.tokens import encode
from metake.models.trace import frozen, run
from tests.scripts import call_here


def test_cosines_are_those_of_the_keys_in_c(demo, statistics_of, records):
    """Two facts at the prompt's last token: k^T G^-1 k' over the root of both rho, by a dense solve."""
    pair = records[:2]
    (found,) = compare(demo, pair, statistics_of(demo), (2,))
    keys = []
    with frozen(demo.model), torch.no_grad():
        for record in pair:
            row = encode(demo.tokenizer, record.request.text, record.request.target_new)
            trace = run(demo, torch.tensor([row.ids]), keys=(2,))
            keys.append(trace.keys[2][0, row.lookup].double())
    K, C = torch.stack(keys).T, statistics_of(demo)[2].double()
    S = K.T @ torch.linalg.solve(C + 1e-3 * C.trace() / len(C) * torch.eye(len(C)), K)
    cosine = abs(float(S[0, 1] / (S[0, 0] * S[1, 1]).sqrt()))
    assert found["prompt"] == pytest.approx(cosine, rel=1e-4)
    assert found["prompt_nearest"] == pytest.approx(cosine, rel=1e-4)


def test_cosines_of_equal_wordings_are_one(demo, statistics_of, records):
    """The same wording is the same key."""
    same = [replace(record, rephrase=record.request.text) for record in records[:3]]
    (found,) = compare(demo, same, statistics_of(demo), (2,))
    assert found["rephrased"] == pytest.approx(1, abs=1e-5)
    with pytest.raises(MetakeError, match="two records at least"):
        compare(demo, same[:1], statistics_of(demo), (2,))


def test_compare_lookups_writes_its_table(tmp_path):
    call_here("compare_lookups.py", "--edits", 5, "--layers", "1-2", "--out", tmp_path)
    content = json.loads((tmp_path / "demo.json").read_text())
    assert content["layers"] == [1, 2]
    assert all(0 < row["prompt"] <= row["prompt_nearest"] <= 1 for row in content["cosines"])
