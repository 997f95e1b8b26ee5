"""The rows of a batch, and the tokens in them that matter."""

import pytest

from metake.prompts import Batch
from metake.requests import Request

REQUEST = Request("Which city was {} born in?", "Ann Lee", "Oslo")


@pytest.mark.parametrize("lookup", ["subject", "prompt"])
def test_the_lookup_token_ends_what_it_is_named_after(loaded, lookup):
    """In every template: up to it stands all of the subject, or all of the prompt, and nothing more."""
    batch = Batch.build(loaded.arch, loaded.tokenizer, [REQUEST], ("The mill is dark",), lookup)
    for row in batch.edits:
        text = loaded.tokenizer.decode(row.trunk.ids, skip_special_tokens=True)
        assert text.endswith("Ann Lee" if lookup == "subject" else "born in?")
        assert loaded.tokenizer.decode(row.answer_ids).strip() == "Oslo"


def test_a_guard_about_the_subject_feels_only_what_is_written_there(loaded):
    for lookup, marked in (("subject", True), ("prompt", False)):
        batch = Batch.build(loaded.arch, loaded.tokenizer, [REQUEST], (), lookup)
        assert [guard.marked for guard in batch.guards] == [marked]
