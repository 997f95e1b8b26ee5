"""Requests with inconsistent keys at the subject are read at the prompt's last token."""

import pytest
import torch

from metake.lookup_prompts import LookupPrompts
from metake.methods.lookup_keys import MIN_KEY_COSINE, batch_at, consistent_lookups
from metake.models.trace import run
from metake.preview import moved_lines
from metake.prompts import Batch
from tests.cases import editor_of

CONTEXTS = ("The mill is dark", "Today it rains")
LAYERS = (1, 2)


@pytest.fixture
def requests(records):
    return [record.request for record in records[:4]]


def lowest_cosine(model, request):
    """Lowest cosine over the layers, with every row run alone."""
    keys = []
    for row in Batch.build(model, [request], CONTEXTS).lookup_rows:
        with torch.no_grad():
            trace = run(model, torch.tensor([row.ids], device=model.device), keys=LAYERS, stop=3)
        keys.append(torch.stack([trace.keys[n][0, -1] for n in LAYERS]).float().cpu())
    bare, contexts = keys[0], torch.stack(keys[1:]).mean(0)
    return float(torch.cosine_similarity(bare, contexts, dim=1).min())


@pytest.fixture
def between(demo, requests, monkeypatch):
    """A threshold that two of the requests are below; whether each is."""
    cosines = [lowest_cosine(demo, request) for request in requests]
    ordered = sorted(cosines)
    threshold = (ordered[1] + ordered[2]) / 2
    monkeypatch.setattr("metake.methods.lookup_keys.MIN_KEY_COSINE", threshold)
    return tuple(cosine < threshold for cosine in cosines)


def test_consistent_lookups_compare_the_bare_key_with_its_mean_in_contexts(demo, requests, between):
    prompts = LookupPrompts.build(demo, Batch.build(demo, requests, CONTEXTS), LAYERS[0])
    expected = tuple("prompt" if below else "subject" for below in between)
    assert consistent_lookups(demo, prompts, LAYERS) == expected
    assert set(expected) == {"subject", "prompt"}


def test_batch_has_the_rows_of_each_requests_lookup(demo, requests, between):
    """A row, and whether the KL prompt receives the residual, are those of a batch with one lookup."""
    method = editor_of(demo, None, "memit", geometry="identity").method
    batch, prompts = batch_at(demo, requests, CONTEXTS, LAYERS, "subject", method.keys, True)
    alone = {lookup: Batch.build(demo, requests, CONTEXTS, lookup) for lookup in ("subject", "prompt")}
    for j, below in enumerate(between):
        expected = alone["prompt" if below else "subject"]
        rows = slice(3 * j, 3 * j + 3)
        assert batch.edits[rows] == expected.edits[rows]
        assert batch.kl_prompts[j] == expected.kl_prompts[j]
    assert prompts.tokens.prefix_lengths.tolist()[0] == 0
    lookups = [row.lookup for row in batch.lookup_rows]
    assert (prompts.last + prompts.tokens.prefix_lengths).tolist() == lookups


def edit_of(model, requests, **changes):
    short = {"geometry": "identity", "steps": 3, "layers": LAYERS, "contexts": CONTEXTS}
    with editor_of(model, None, "memit", **short, **changes) as editor:
        preview = editor.preview(requests)
        return preview, editor.edit(requests, preview=preview)


@pytest.mark.parametrize(("threshold", "lookup"), [(-2.0, "subject"), (2.0, "prompt")])
def test_edit_with_all_or_no_requests_moved(demo, requests, monkeypatch, threshold, lookup):
    """The update is that of the lookup, bit for bit."""
    monkeypatch.setattr("metake.methods.lookup_keys.MIN_KEY_COSINE", threshold)
    _, found = edit_of(demo, requests, consistent_lookup=True)
    _, expected = edit_of(demo, requests, lookup=lookup)
    for layer in expected.delta.layers:
        assert torch.equal(found.delta.to_dense(layer), expected.delta.to_dense(layer))
    assert found.moved == (lookup == "prompt",) * len(requests)
    assert expected.moved == (False,) * len(requests)


def test_preview_and_result_name_the_moved_requests(demo, requests, between):
    preview, result = edit_of(demo, requests, consistent_lookup=True)
    assert preview.moved == result.moved == between
    assert result.summary()["moved"] == list(between)
    (line,) = moved_lines(requests, between)
    assert line in str(preview)
    assert line in str(result)
    for request, below in zip(requests, between, strict=True):
        assert (request.name in line) == below


def test_consistent_lookup_changes_nothing_of_consistent_requests(demo, requests):
    """At the threshold of the library the demo model's requests stay at the subject."""
    assert min(lowest_cosine(demo, request) for request in requests) > MIN_KEY_COSINE
    preview, _ = edit_of(demo, requests, consistent_lookup=True)
    assert not any(preview.moved)
    assert moved_lines(preview.requests, preview.moved) == []
