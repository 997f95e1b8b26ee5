"""Batches that a model holds, each with the weights and the state to return to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

import metake
from metake.adapters.adapter import described_modules
from metake.applied import Applied
from metake.deltas import Delta
from metake.errors import MetakeError
from metake.methods.base import Method
from metake.methods.state import State
from metake.models.editable import EditableModel
from metake.patches.base import Patch, exchange_patches, joined, patches_at
from metake.requests import EditRequest
from metake.result import EditResult
from metake.tensor_files import dtype_name


def delta_note(
    model: EditableModel,
    method: Method,
    requests: Sequence[EditRequest],
    constraint: Mapping[str, float],
    reasons: Sequence[str],
) -> dict[str, Any]:
    """Note of a batch's delta, as plain values.

    Args:
        model: the edited model.
        method: method of the batch.
        requests: the batch.
        constraint: strength of the constraint by name.
        reasons: where the settings come from.

    Returns:
        Values that a JSON file can hold.
    """
    return {
        "method": method.name,
        "model": getattr(model.model, "name_or_path", "") or "",
        "dtype": dtype_name(model.dtype),
        "modules": described_modules(model),
        "version": metake.__version__,
        "settings": method.model_dump(),
        "edits": [{"prompt": r.prompt, "subject": r.subject, "target_new": r.target_new} for r in requests],
        "constraint": dict(constraint),
        "reasons": list(reasons),
    }


@dataclass(frozen=True, eq=False)
class AppliedBatch:
    """A batch in the model.

    Attributes:
        result: its report.
        applied: its delta in the model, with the original weights.
        state: state of the method before the batch.
    """

    result: EditResult
    applied: Applied
    state: State


@dataclass(frozen=True, eq=False)
class MergedBatches:
    """The oldest batches in a model, as one change.

    Attributes:
        applied: their total delta in the model, with the weights before the first of them.
        delta: their total delta.
        state: state of the method before the first of them.
    """

    applied: Applied
    delta: Delta
    state: State


class History:
    """Stack of the batches that a model holds, and the finalization of their total update.

    Args:
        model: the model.
        undoable: number of last batches that are kept apart; earlier ones are merged. None keeps all.
    """

    def __init__(self, model: EditableModel, undoable: int | None = None) -> None:
        if undoable is not None and undoable < 1:
            raise MetakeError(f"undoable: must be at least 1, or None, got {undoable}")
        self._arch, self._undoable = model, undoable
        self._batches: list[AppliedBatch] = []
        self._merged: MergedBatches | None = None
        self._final: tuple[Applied, Delta] | None = None
        self._final_results: list[EditResult] = []

    @property
    def results(self) -> list[EditResult]:
        """Results of the batches, oldest first; the finalized ones where there are any."""
        return [*self._final_results] or [batch.result for batch in self._batches]

    def push(self, result: EditResult, applied: Applied, state: State) -> None:
        """Add a batch that was applied to the model.

        Args:
            result: its report.
            applied: its delta in the model.
            state: state of the method before the batch.
        """
        self._batches.append(AppliedBatch(result, applied, state))
        while self._undoable is not None and len(self._batches) > self._undoable:
            self._merge_oldest()

    def _merge_oldest(self) -> None:
        """Merge the oldest batch with those merged before it."""
        batch, merged = self._batches.pop(0), self._merged
        applied, delta, state = batch.applied, batch.result.delta, batch.state
        if merged is not None:
            originals = {**applied.originals, **merged.applied.originals}
            checksums = {**merged.applied.checksums, **applied.checksums}
            before = {**applied.patches, **merged.applied.patches}
            after = {**merged.applied.patched, **applied.patched}
            applied = Applied(self._arch, originals, checksums, before, after)
            delta = merged.delta.then(delta)
            state = merged.state
        self._merged = MergedBatches(applied, delta.merged(), state)

    def resume(self, weights: Mapping[int, Tensor], delta: Delta, state: State) -> None:
        """Put batches into the model that were merged and saved.

        Args:
            weights: layer -> weight after the batches, `d_v x d_k`.
            delta: their total delta.
            state: state of the method before them.
        """
        patched = {patch.layer: None for patch in delta.patches}
        applied = Applied(
            self._arch,
            {n: self._arch.weight(n).clone() for n in weights},
            patches={n: patches_at(self._arch, n) for n in patched},
        )
        with torch.no_grad():
            for layer, weight in weights.items():
                self._arch.set_weight(layer, weight)
        for layer, before in applied.patches.items():
            own = tuple(patch for patch in delta.patches if patch.layer == layer)
            exchange_patches(self._arch, {layer: joined(before, own)})
        self._merged = MergedBatches(applied.seal(), delta, state)

    @property
    def is_empty(self) -> bool:
        """Whether the model holds no batch."""
        return not self._batches and self._merged is None

    def pop(self) -> State:
        """Revert the last batch, or all that are merged if it is one of them, bit for bit.

        Returns:
            State of the method before the batch.

        Raises:
            MetakeError: other code has changed the weights since.
        """
        self.unfinalize()
        if self._batches:
            self._batches[-1].applied.revert()
            return self._batches.pop().state
        assert self._merged is not None
        self._merged.applied.revert()
        state, self._merged = self._merged.state, None
        return state

    def index(self, result: EditResult, what: str) -> int:
        """Position of a batch, 0 for the oldest.

        Args:
            result: its report.
            what: begins the error line.

        Returns:
            The position.

        Raises:
            MetakeError: the model does not hold the batch.
        """
        if not isinstance(result, EditResult):
            raise MetakeError(f"{what}: result must be an EditResult, not {type(result).__name__}")
        for i, batch in enumerate(self._batches):
            if batch.result.delta is result.delta:
                return i
        raise MetakeError(
            f"{what}: the model does not hold this edit; it was reverted or merged, or is another editor's"
        )

    def originals(self, first: int = 0) -> dict[int, Tensor]:
        """Layer -> weight before a batch and all later ones, `d_v x d_k`.

        Args:
            first: position of the batch among those that are not merged.

        Returns:
            The weights by layer.
        """
        originals: dict[int, Tensor] = {}
        for batch in reversed(self._batches[first:]):
            originals |= batch.applied.originals
        return originals

    def original_patches(self, first: int = 0) -> dict[int, tuple[Patch, ...]]:
        """Layer -> patches before a batch and all later ones.

        Args:
            first: position of the batch among those that are not merged.

        Returns:
            The patches by layer.
        """
        found: dict[int, tuple[Patch, ...]] = {}
        for batch in reversed(self._batches[first:]):
            found |= batch.applied.patches
        return found

    def verify(self, what: str) -> None:
        """Check that the weights are those that were written last.

        Args:
            what: begins the error line.

        Raises:
            MetakeError: other code has changed the weights.
        """
        if self._final is not None:
            self._final[0].check(what)
        elif self._batches:
            self._batches[-1].applied.check(what)
        elif self._merged is not None:
            self._merged.applied.check(what)

    @property
    def delta(self) -> Delta:
        """Total update, for the model before the first batch."""
        if self._final is not None:
            return self._final[1]
        deltas = [batch.result.delta for batch in self._batches]
        if self._merged is not None:
            deltas.insert(0, self._merged.delta)
        return reduce(Delta.then, deltas) if deltas else Delta({}, self._arch.fingerprint())

    def finalize(self, method: Method) -> bool:
        """Replace the total update by the finalized one.

        Args:
            method: method that produced the batches.

        Returns:
            Whether the weights have changed.

        Raises:
            MetakeError: other code has changed the weights since the last batch.
        """
        if not method.finalizes or self.is_empty or self._final is not None:
            return False
        self.verify("finalize")
        originals = self.originals() | (self._merged.applied.originals if self._merged else {})
        delta = method.finalize(self.delta, originals)
        with torch.no_grad():
            held = Applied(self._arch, {n: self._arch.weight(n).clone() for n in delta.layers})
            try:
                Applied(self._arch, originals).revert()
                delta.apply(self._arch, check=False)
            except BaseException:
                held.revert()
                raise
        self._final = held.seal(), delta
        return True

    def set_final_results(self, results: list[EditResult]) -> None:
        """Replace the results by those of the finalized model, until `unfinalize`.

        Args:
            results: one per batch, oldest first.
        """
        self._final_results = results

    def unfinalize(self) -> None:
        """Restore the total update as it was before `finalize`.

        Raises:
            MetakeError: other code has changed the weights since.
        """
        if self._final is not None:
            self._final[0].revert()
            self._final, self._final_results = None, []
