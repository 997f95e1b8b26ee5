"""Session of the playground: edits of one model with several methods, compared, undone and exported."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from metake.answers import read_answers
from metake.applied import swapped_weights
from metake.deltas import Delta
from metake.editor import Editor
from metake.errors import MetakeError
from metake.models.ask import check_room
from metake.models.editable import EditableModel
from metake.models.greedy import tokenizer_round_trip
from metake.models.tokens import encode
from metake.patches.base import Patch, patches_at
from metake.playground.choices import Choice, make_editor
from metake.playground.formats import FORMATS
from metake.preview import Preview
from metake.requests import EditRequest
from metake.result import EditResult
from metake.words import begins_with, shown

MOST_PROMPTS = 50  # of each kind


@dataclass(frozen=True, eq=False)
class Plan:
    """An edit before it is made.

    Attributes:
        editor: editor with the method and the reasons of its settings.
        preview: predicted realization; None for a method without attenuation.
        revision: revision of the session that it was made at.
    """

    request: EditRequest
    choice: Choice
    editor: Editor
    preview: Preview | None
    revision: int


@dataclass(frozen=True, eq=False)
class Entry:
    """An edit that the model holds.

    Attributes:
        choice: the chosen method.
        editor: editor that made it.
        result: report of the edit.
    """

    choice: Choice
    editor: Editor
    result: EditResult

    @property
    def request(self) -> EditRequest:
        """The request."""
        return self.result.requests[0]


@dataclass(frozen=True)
class Comparison:
    """Answers to a prompt without the edits of the session, and with them.

    Attributes:
        kind: `edit`, `own`, `rephrasing` or `neighbor`.
        before, after: greedy answers, for display.
        success: whether the answer begins with the target, or is unchanged for a neighbor; None for an own prompt.
    """

    kind: str
    prompt: str
    before: str
    after: str
    success: bool | None


class Session:
    """Edits of one model, one after the other. A step that fails leaves the model as it was.

    Args:
        model: the unedited model.

    Attributes:
        entries: edits that the model holds, oldest first.
        revision: number that grows with every change of the model.
    """

    def __init__(self, model: EditableModel) -> None:
        self.model = model
        self.entries: list[Entry] = []
        self.revision = 0
        self._originals: dict[int, Tensor] = {}
        self._patches: dict[int, tuple[Patch, ...]] = {}
        self._plan: Plan | None = None

    def plan(self, request: EditRequest, choice: Choice) -> Plan:
        """Method, settings and predicted realization of an edit. The model is not changed.

        An editor with edits by the same choice goes on, with its memory of keys; otherwise a new one is made of the
        unedited model.

        Args:
            request: the edit.
            choice: the method.

        Returns:
            The plan. A request or a choice that does not fit the model raises a `MetakeError`.
        """
        known = self._plan
        if known and (known.request, known.choice, known.revision) == (request, choice, self.revision):
            return known
        editor = next((e.editor for e in reversed(self.entries) if e.choice == choice), None)
        if editor is None:
            with swapped_weights(self.model, self._originals, self._patches):
                editor = make_editor(self.model, choice, request)
        preview = editor.preview(request) if editor.method.previews else None
        self._plan = Plan(request, choice, editor, preview, self.revision)
        return self._plan

    def edit(self, request: EditRequest, choice: Choice) -> Entry:
        """Make an edit.

        Args:
            request: the edit.
            choice: the method.

        Returns:
            The edit with its report. If a step fails, the model is unchanged.
        """
        plan = self.plan(request, choice)
        layers = plan.editor.method.layers
        originals = {n: self.model.weight(n).clone() for n in layers if n not in self._originals}
        patches = {n: patches_at(self.model, n) for n in originals}
        result = plan.editor.edit(request, preview=plan.preview)
        self._originals, self._patches = self._originals | originals, self._patches | patches
        self.entries.append(Entry(choice, plan.editor, result))
        self._changed()
        return self.entries[-1]

    def undo(self) -> None:
        """Revert the last edit, bit for bit.

        Raises:
            MetakeError: there is none, or other code has changed the weights.
        """
        if not self.entries:
            raise MetakeError("undo: the model holds no edit")
        self.entries[-1].editor.undo()
        self.entries.pop()
        if not self.entries:
            self._originals, self._patches = {}, {}
        self._changed()

    def undo_all(self) -> None:
        """Revert all edits, bit for bit; without one, or after a change by other code, a `MetakeError`."""
        self.undo()
        while self.entries:
            self.undo()

    def _changed(self) -> None:
        self.revision += 1
        self._plan = None

    def compare(
        self,
        request: EditRequest | None,
        own: Sequence[str] = (),
        rephrasings: Sequence[str] = (),
        neighbors: Sequence[str] = (),
    ) -> list[Comparison]:
        """Answers of the model without any edit of the session and of the present one.

        Args:
            request: the edit, whose prompt is compared too and whose target rephrasings are to begin with; None for none.
            own: complete prompts of any kind.
            rephrasings: complete prompts that should have the target.
            neighbors: complete prompts whose answer should not change.

        Returns:
            One comparison per prompt.

        Raises:
            MetakeError: no prompt, too many, or one that is too long for the model.
        """
        groups = {
            "edit": [request.text] if request else [],
            "own": own,
            "rephrasing": rephrasings,
            "neighbor": neighbors,
        }
        for kind, prompts in groups.items():
            if len(prompts) > MOST_PROMPTS:
                raise MetakeError(
                    f"compare: {len(prompts)} prompts of the kind {kind}; at most {MOST_PROMPTS}"
                )
        if rephrasings and request is None:
            raise MetakeError("compare: rephrasings need the edit; give its prompt, subject and target")
        rows = [(kind, prompt) for kind, prompts in groups.items() for prompt in prompts]
        if not rows:
            raise MetakeError("compare: no prompt given; write one per line")
        return self._answered(rows, request.target_new if request else "")

    def _answered(self, rows: Sequence[tuple[str, str]], target_new: str) -> list[Comparison]:
        """Comparisons of rows `(kind, prompt)`."""
        model, texts = self.model, [prompt for _, prompt in rows]
        targets = [target_new if kind in ("edit", "rephrasing") else "" for kind, _ in rows]
        check_room(model, [encode(model.tokenizer, text).ids for text in texts], "compare")
        after = read_answers(model, texts, targets)
        with swapped_weights(model, self._originals, self._patches):
            before = read_answers(model, texts, targets)
        wanted = tokenizer_round_trip(model.tokenizer, target_new) if target_new else ""
        found = []
        for (kind, prompt), old, new in zip(rows, before, after, strict=True):
            success = (
                None if kind == "own" else new == old if kind == "neighbor" else begins_with(new, wanted)
            )
            expected = wanted if kind in ("edit", "rephrasing") else ""
            old, new = shown(old, wanted=expected), shown(new, wanted=expected)
            found.append(Comparison(kind, prompt, old, new, success))
        return found

    @property
    def delta(self) -> Delta:
        """All edits as one delta of the unedited model; without an edit a `MetakeError`."""
        if not self.entries:
            raise MetakeError("export: the model holds no edit; edit first")
        total = self.entries[0].result.delta
        for entry in self.entries[1:]:
            total = total.then(entry.result.delta)
        return total

    def export(self, form: str, folder: Path) -> None:
        """Write all edits into a folder.

        Args:
            form: a key of `FORMATS`.
            folder: an empty folder.

        Raises:
            MetakeError: unknown format, no edit, or edits that the format cannot hold.
        """
        if form not in FORMATS:
            raise MetakeError(f"export: unknown format {form!r}; known: {', '.join(FORMATS)}")
        delta, chosen = self.delta, FORMATS[form]
        with (
            nullcontext() if chosen.of_edited else swapped_weights(self.model, self._originals, self._patches)
        ):
            chosen.write(delta, self.model, folder)
