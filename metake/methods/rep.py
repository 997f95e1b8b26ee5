"""REP (arXiv:2410.09338): a key adapter at every edited layer, then a locate-then-edit method on the model with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from pydantic import Field, SerializeAsAny

from metake.components import register
from metake.deltas import Delta
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.patching import earlier_patch
from metake.methods.state import Stage, State
from metake.models.editable import EditableModel
from metake.models.tokens import encode
from metake.patches.rep import RepSpec
from metake.patches.spec import PatchProblem, PatchSpec
from metake.phases import phase
from metake.prompts import Batch
from metake.requests import EditRequest


@register
class Rep(LocateThenEdit):
    """REP: every batch trains an adapter of the keys, and is then edited on the model with the adapter.

    The attenuation that a preview predicts is that of keys without the adapter, so there is no preview.
    """

    kind = "rep"
    loss_obstacle = "the method plans on a model with gated patches"

    patch: SerializeAsAny[PatchSpec] = Field(RepSpec(), description="adapter of the keys")

    @property
    def previews(self) -> bool:
        """Whether `preview` is defined."""
        return False

    def step_count(self, requests: int) -> int:
        """Largest number of gradient steps of a batch.

        Args:
            requests: number of requests of the batch.

        Returns:
            Those of the adapters and of the method.
        """
        return super().step_count(requests) + len(self.solved_layers) * self.patch.step_count(requests)

    def step(
        self,
        model: EditableModel,
        requests: Sequence[EditRequest],
        state: State,
        on_step: Callable[[], object],
        inputs: Any = None,
    ) -> tuple[Delta, State, tuple[Stage, ...]]:
        """One batch of edits; see `LocateThenEdit.step`.

        Args:
            model: the model; it is the same afterwards.
            requests: distinct requests; not empty.
            state: the state before the batch.
            on_step: called after every gradient step, at most `step_count` times.
            inputs: not used.

        Returns:
            The adapters with the change of the weights, the next state, and the stages of the change.
        """
        state = self.prepare(model, state)
        contexts = state.contexts or ()
        groups = [self._mentions(model, request, contexts) for request in requests]
        unrelated = [encode(model.tokenizer, text) for text in contexts]
        adapters = Delta({})
        with ExitStack() as earlier:
            for layer in self.solved_layers:
                with phase("fit the adapter"):
                    held = earlier_patch(model, layer, self.patch)
                    problem = PatchProblem(model, layer, groups, unrelated, held, on_step, self.max_tokens)
                    change = Delta({}, patches=(self.patch.fit(problem),))
                earlier.enter_context(change.applied(model, check=False))
                adapters = adapters.then(change)
            delta, state, stages = super().step(model, requests, state, on_step)
        return adapters.then(delta), state, stages

    def _mentions(self, model: EditableModel, request: EditRequest, contexts: Sequence[str]) -> list[Any]:
        """Rows up to the token whose key is edited: the bare prompt, contexts, and the subject's words in reverse order."""
        rows = list(Batch.build(model, [request], contexts, self.lookup).lookup_rows)
        words = request.subject.split()
        if len(words) > 1 and request.has_subject:
            shuffled = replace(request, subject=" ".join(reversed(words)))
            rows += Batch.build(model, [shuffled], (), self.lookup).lookup_rows
        return rows
