"""Gated memories as methods: GRACE, WISE, MEMOIR. The weights stay as they are; a batch is a patch at one block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from pydantic import Field, SerializeAsAny

from metake.components import register
from metake.deltas import Delta
from metake.methods.base import Method
from metake.methods.state import Stage, State
from metake.models.editable import EditableModel
from metake.models.end_token import End, ended
from metake.models.tokens import encode
from metake.patches.base import Patch, patches_at
from metake.patches.grace import GraceSpec
from metake.patches.spec import PatchProblem, PatchSpec
from metake.phases import phase
from metake.prompts import Batch, sample_contexts
from metake.requests import EditRequest


def earlier_patch(model: EditableModel, layer: int, spec: PatchSpec) -> Patch | None:
    """The patch that a block has of a kind.

    Args:
        model: the model.
        layer: the block.
        spec: the kind.

    Returns:
        None before the first batch.
    """
    return next((patch for patch in patches_at(model, layer) if patch.kind == spec.patch.kind), None)


@register
class Patching(Method):
    """Gated memory: every batch adds to the patch of one block.

    There is no geometry, so there are no targets, no attenuation of keys and no stages. Earlier edits are read from the
    model's patch, so a reverted edit has no effect on later ones.

    Example:
        >>> import metake as mk
        >>> model, request = mk.load("demo"), mk.EditRequest("The craft of {} is", "Ann", "baker")
        >>> method = mk.settings_for(model, "grace", value_steps=2)
        >>> with mk.Editor(model, method=method, progress=False) as editor:
        ...     delta = editor.edit(request).delta
        >>> delta.foldable, delta.weight_layers, [patch.kind for patch in delta.patches]
        (False, (), ['grace'])
    """

    kind = "patching"
    shares_layers = False
    choices = ("end",)
    depth = "at five sixths of the depth, below the last block (published for Llama-3-8B: 27 of 32)"

    patch: SerializeAsAny[PatchSpec] = Field(
        GraceSpec(), description="gated memory that the batches are added to"
    )
    end: End = "none"
    context_draw: int = Field(0, description="seed of the sampled contexts")

    @classmethod
    def default_layers(cls, count: int) -> tuple[int, ...]:
        """One layer at five sixths of the depth, below the last block.

        A value at the prompt's last token in the last block changes no later token.

        Args:
            count: number of layers of the model.

        Returns:
            One layer.
        """
        return (max(0, min(5 * count // 6, count - 2)),)

    @property
    def context_seed(self) -> int | None:
        """Seed of the contexts; None for a memory that uses none."""
        return self.context_draw if self.patch.uses_contexts else None

    @property
    def step_setting(self) -> str:
        """Name of the setting that states how far a memory is trained."""
        return type(self.patch).aliases.get("steps", "steps")

    def step_count(self, requests: int) -> int:
        """Largest number of gradient steps of a batch.

        Args:
            requests: number of requests of the batch.

        Returns:
            Those of all layers.
        """
        return len(self.layers) * self.patch.step_count(requests)

    def prepare(self, model: EditableModel, state: State, requests: Sequence[EditRequest] = ()) -> State:
        """State with contexts, sampled from the model, if the memory uses them.

        Args:
            model: the model to edit.
            state: the state before the batch.
            requests: not used.

        Returns:
            The state itself if it has them.
        """
        if self.context_seed is None or state.contexts is not None:
            return state
        return replace(state, contexts=sample_contexts(model, seed=self.context_seed))

    def step(
        self,
        model: EditableModel,
        requests: Sequence[EditRequest],
        state: State,
        on_step: Callable[[], object],
        inputs: None = None,
    ) -> tuple[Delta, State, tuple[Stage, ...]]:
        """One batch of edits: at every layer the patch that it adds.

        Args:
            model: the model; it is the same afterwards.
            requests: distinct requests; not empty.
            state: the state before the batch.
            on_step: called after every gradient step, at most `step_count` times.
            inputs: not used.

        Returns:
            The patches, the next state, and no stages.
        """
        state = self.prepare(model, state)
        contexts = state.contexts or ()
        batch = Batch.build(model, requests, contexts)
        edits = ended(model, batch.edits, self.end)
        rows = [edits[i : i + batch.templates] for i in range(0, len(edits), batch.templates)]
        unrelated = [encode(model.tokenizer, text) for text in contexts]
        change = Delta({})
        with phase("fit the patch"), torch.enable_grad():
            for layer in self.layers:
                earlier = earlier_patch(model, layer, self.patch)
                problem = PatchProblem(model, layer, rows, unrelated, earlier, on_step, self.max_tokens)
                change = change.then(Delta({}, patches=(self.patch.fit(problem),)))
        return change, state.with_memory({}), ()
