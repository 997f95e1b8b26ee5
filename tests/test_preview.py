"""An edit reuses the inputs of its preview: token rows, and the passes over them."""

import contextlib
import sys
from dataclasses import dataclass

import pytest
import torch

from metake import cli
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.ultraedit import UltraEdit
from tests.cases import EDIT, editor_of

METHODS = ("memit", "rome", "metake", "alphaedit-blue", "ultraedit")


@dataclass
class Counts:
    """Calls of the tokenizer, and passes through the first block."""

    tokenizer: int = 0
    passes: int = 0

    def during(self, action):
        """Result of an action, and the calls during it."""
        before = self.tokenizer, self.passes
        found = action()
        return found, (self.tokenizer - before[0], self.passes - before[1])


@pytest.fixture
def counts(demo, monkeypatch):
    counts, kind = Counts(), type(demo.tokenizer)
    plain = kind.__call__

    def counted(self, *arguments, **options):
        counts.tokenizer += 1
        return plain(self, *arguments, **options)

    def count_pass(*_):
        counts.passes += 1

    monkeypatch.setattr(kind, "__call__", counted)
    hook = demo.blocks[0].register_forward_pre_hook(count_pass)
    yield counts
    hook.remove()


def factors(result):
    return [part for pair in result.delta.factors.values() for part in pair]


def equal(found, wanted):
    return all(torch.equal(a, b) for a, b in zip(factors(found), factors(wanted), strict=True))


@pytest.fixture
def requests(records):
    return [record.request for record in records[:3]]


def build_inputs(editor, requests):
    method = editor.method
    build = method._signals if isinstance(method, UltraEdit) else method._groups
    arguments = () if isinstance(method, UltraEdit) else (editor.state,)
    return build(editor.model, requests, *arguments)


@pytest.mark.parametrize("method", METHODS)
def test_edit_tokenizes_and_traces_once_with_a_preview(method, demo, statistics_of, requests, counts):
    """The same factors bit by bit, without a call of the tokenizer, and without the passes that build the inputs."""
    with editor_of(demo, statistics_of(demo), method, answers=False) as editor:
        assert isinstance(editor.contexts, tuple)  # sampled before anything is counted
        editor.edit(requests)  # the first pass through a model also examines its blocks
        editor.undo()
        plain, (calls, passes) = counts.during(lambda: editor.edit(requests))
        editor.undo()
        _, built = counts.during(lambda: build_inputs(editor, requests))
        preview, _ = counts.during(lambda: editor.preview(requests))
        reused, again = counts.during(lambda: editor.edit(requests, preview=preview))
        assert calls == built[0] > 0
        assert built[1] > 0
        assert again == (0, passes - built[1])
        assert equal(reused, plain)
        assert reused.steps.tolist() == plain.steps.tolist()


def test_edit_command_tokenizes_once_after_its_preview(counts, monkeypatch, tmp_path):
    """`metake edit` passes its preview on: the step does not call the tokenizer."""
    calls = []
    step = LocateThenEdit.step

    def counted(self, *arguments, **options):
        found, (tokenizer, _) = counts.during(lambda: step(self, *arguments, **options))
        calls.append(tokenizer)
        return found

    monkeypatch.setattr(LocateThenEdit, "step", counted)
    quick = [
        "--layers",
        "2",
        "--set",
        "steps=2",
        "--method",
        "memit",
        "--delta-only",
        "--out",
        tmp_path / "o",
    ]
    monkeypatch.setattr(sys, "argv", ["metake", *map(str, [*EDIT, *quick])])
    with contextlib.suppress(SystemExit):
        cli.main()
    assert calls == [0]


def test_edit_ignores_a_preview_of_other_requests(demo, statistics_of, requests, counts):
    with editor_of(demo, statistics_of(demo), "memit", answers=False) as editor:
        plain = editor.edit(requests[:2])
        editor.undo()
        preview = editor.preview(requests)
        found, (calls, _) = counts.during(lambda: editor.edit(requests[:2], preview=preview))
        assert calls > 0
        assert equal(found, plain)


@pytest.mark.parametrize("method", ["memit + past-keys", "ultraedit"])
def test_edit_ignores_a_preview_of_an_earlier_state(method, demo, statistics_of, requests, counts):
    """After another batch, and again after this batch is undone: then the preview fits again."""
    with editor_of(demo, statistics_of(demo), method, answers=False) as editor:
        preview = editor.preview(requests[:2])
        editor.edit(requests[2])
        plain = editor.edit(requests[:2])
        editor.undo()
        found, (calls, _) = counts.during(lambda: editor.edit(requests[:2], preview=preview))
        assert calls > 0
        assert equal(found, plain)
        editor.undo()
        editor.undo()
        assert counts.during(lambda: editor.edit(requests[:2], preview=preview))[1][0] == 0


def test_edit_ignores_a_preview_of_other_weights(demo, statistics_of, requests, counts):
    """Other code has changed a block below the edited ones."""
    with editor_of(demo, statistics_of(demo), "memit", answers=False) as editor:
        preview = editor.preview(requests)
        weight = demo.weight(0)
        kept = weight.clone()
        try:
            weight.data += 0.01
            plain = editor.edit(requests)
            editor.undo()
            found, (calls, _) = counts.during(lambda: editor.edit(requests, preview=preview))
            assert calls > 0
            assert equal(found, plain)
        finally:
            weight.data.copy_(kept)


def test_edit_ignores_a_preview_of_another_editor(demo, statistics_of, requests, counts):
    with (
        editor_of(demo, statistics_of(demo), "memit", answers=False) as one,
        editor_of(demo, statistics_of(demo), "memit", answers=False, lookup="prompt") as other,
    ):
        preview = one.preview(requests)
        plain = other.edit(requests)
        other.undo()
        found, (calls, _) = counts.during(lambda: other.edit(requests, preview=preview))
        assert calls > 0
        assert equal(found, plain)


def test_preview_does_not_depend_on_groups(demo, statistics_of, requests):
    """ROME plans one request after another; its preview of several is that of each alone."""
    with editor_of(demo, statistics_of(demo), "rome", answers=False) as editor:
        together = editor.preview(requests).rho
        alone = torch.cat([editor.preview(request).rho for request in requests], 1)
        assert torch.equal(together, alone)
