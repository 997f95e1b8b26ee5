"""Separability of keys: mean |cos| in the metric of C^-1."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metake.calibration.separability import (
    ENOUGH,
    JITTER,
    bare_keys,
    bare_measures,
    completed,
    mean_cosine,
    separability,
)
from metake.models.trace import run
from metake.requests import EditRequest

COUNTS, WIDTHS, SEEDS = st.integers(2, 6), st.integers(1, 8), st.integers(0, 1000)


def random_keys(count, width, seed):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_moment(width, seed):
    root = random_keys(width, width, seed + 1)
    return root @ root.T + torch.eye(width)


@given(COUNTS, WIDTHS, SEEDS)
def test_mean_cosine_is_a_share(count, width, seed):
    keys = random_keys(count, width, seed)
    for moment in (None, random_moment(width, seed)):
        assert 0 <= mean_cosine(keys, moment) <= 1 + 1e-12


@given(COUNTS, WIDTHS, SEEDS, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_mean_cosine_does_not_depend_on_the_length_of_keys_or_the_scale_of_c(
    count, width, seed, length, scale
):
    keys, moment = random_keys(count, width, seed), random_moment(width, seed)
    lengths = torch.linspace(length, -2 * length, count + 2, dtype=torch.float64)[1:, None][:count]
    lengths = torch.where(lengths.abs() < 1e-6, torch.ones_like(lengths), lengths)  # no key is zero
    expected = mean_cosine(keys, moment)
    assert mean_cosine(lengths * keys, scale * moment) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(COUNTS, WIDTHS, SEEDS)
def test_mean_cosine_with_identity_is_the_plain_one(count, width, seed):
    """For C = I, a sum over pairs written out; the jitter is a multiple of I and changes nothing."""
    keys = random_keys(count, width, seed)
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    cosines = [abs(float(torch.cosine_similarity(keys[i], keys[j], dim=0))) for i, j in pairs]
    expected = pytest.approx(sum(cosines) / len(pairs), abs=1e-12)
    assert mean_cosine(keys, None) == expected
    assert mean_cosine(keys, torch.eye(width)) == expected


@given(COUNTS, WIDTHS, SEEDS)
def test_mean_cosine_is_in_the_metric_of_the_inverse(count, width, seed):
    """cos(k, l) = k^T C^-1 l / sqrt(k^T C^-1 k l^T C^-1 l), by an explicit inverse."""
    keys, moment = random_keys(count, width, seed), random_moment(width, seed)
    eye = torch.eye(width, dtype=torch.float64)
    gram = keys @ torch.linalg.inv(moment + JITTER * moment.trace() / width * eye) @ keys.T
    cosines = (gram / gram.diagonal().outer(gram.diagonal()).sqrt()).abs()
    expected = (cosines.sum() - count) / (count * (count - 1))
    assert mean_cosine(keys, moment) == pytest.approx(float(expected), rel=1e-8, abs=1e-10)


def test_mean_cosine_of_equal_and_of_orthogonal_keys():
    assert mean_cosine(torch.ones(3, 4), None) == pytest.approx(1)
    assert mean_cosine(torch.eye(4), None) == 0


@given(st.integers(1, 12), st.integers(1, 12))
def test_completed_keeps_requests_and_has_enough_subjects(count, subjects):
    """The given requests come first; further ones have a prompt of theirs and another subject."""
    given_ones = [EditRequest(f"Fact {i} of {{}} is", f"Name {i % subjects}", "x") for i in range(count)]
    found = completed(given_ones)
    assert found[:count] == given_ones
    distinct = {request.subject for request in given_ones}
    assert len({request.subject for request in found}) == max(ENOUGH, len(distinct))
    assert {request.prompt for request in found[count:]} <= {request.prompt for request in given_ones}


@pytest.mark.parametrize("lookup", ["subject", "prompt"])
def test_bare_keys_are_those_of_the_lookup_token(unchanged, requests, lookup):
    """Keys and stream of each prompt run alone, at the last token of the text up to the subject, or of the prompt."""
    keys, stream = bare_keys(unchanged, requests, lookup, (1, 3))
    for j, request in enumerate(requests):
        text = request.prompt.format(request.subject)
        if lookup == "subject":
            text = text[: text.index(request.subject) + len(request.subject)]
        tokens = unchanged.tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            trace = run(unchanged, tokens, keys=(1, 3), outputs=(1, 3), stop=4)
        for layer in (1, 3):
            torch.testing.assert_close(keys[layer][j], trace.keys[layer][0, -1], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(stream[layer][j], trace.outputs[layer][0, -1], rtol=1e-4, atol=1e-4)


def test_bare_measures_are_those_of_completed_requests(unchanged, requests, statistics):
    cosine, scale = bare_measures(unchanged, requests, "prompt", (1, 2), statistics)
    keys, stream = bare_keys(unchanged, completed(requests), "prompt", (1, 2))
    assert cosine == separability(keys, statistics)
    assert cosine[2] == mean_cosine(keys[2], statistics[2])
    size = stream[2].norm(dim=1) / stream[2].shape[1] ** 0.5
    assert scale[2] == pytest.approx(float(size.median()), rel=1e-6)
