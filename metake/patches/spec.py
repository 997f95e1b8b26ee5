"""Choices of a gated memory with their numbers; each fits the patch of a batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from metake.components import Component
from metake.models.editable import EditableModel
from metake.models.tokens import Row
from metake.patches.base import Patch, exchange_patches, patches_at


@dataclass(frozen=True)
class PatchProblem:
    """What the patch of a batch is fitted to.

    Attributes:
        model: the model, with the patches of earlier batches.
        layer: the patched block.
        rows: per request, its token rows with the answer: the bare prompt, then the prompt after each context.
        unrelated: token rows of texts that no request is about.
        earlier: patch of the same kind that the block has; None before the first batch.
        on_step: called after every gradient step.
        max_tokens: padded tokens of a pass; None for what suits the device.
    """

    model: EditableModel
    layer: int
    rows: Sequence[Sequence[Row]]
    unrelated: Sequence[Row]
    earlier: Any
    on_step: Callable[[], object]
    max_tokens: int | None = None

    @property
    def bare(self) -> list[Row]:
        """Rows of the bare prompts."""
        return [rows[0] for rows in self.rows]

    @contextmanager
    def without_earlier(self) -> Iterator[None]:
        """Context in which the block has its other patches, but not `earlier`.

        Yields:
            None: the patches are exchanged.
        """
        held = patches_at(self.model, self.layer)
        exchange_patches(
            self.model, {self.layer: tuple(patch for patch in held if patch is not self.earlier)}
        )
        try:
            yield
        finally:
            exchange_patches(self.model, {self.layer: held})


class PatchSpec(Component):
    """Choice of a gated memory (GRACE, WISE, MEMOIR).

    A subclass defines `patch`, the class of its patches, `fit`, and a field `steps` or `step_count`.

    Attributes:
        patch: class of its patches, as which files are read.
        side_by_side: whether the requests of a batch share its `steps`; otherwise each takes them.
        uses_contexts: whether prompts after sampled contexts, or the contexts as unrelated texts, are used.
    """

    family = "patch"
    patch: ClassVar[type[Patch]]
    uses_contexts: ClassVar[bool] = True
    side_by_side: ClassVar[bool] = False

    @abstractmethod
    def fit(self, problem: PatchProblem) -> Patch:
        """The patch of a batch: what it adds to `problem.earlier`.

        Args:
            problem: the batch.

        Returns:
            A patch on the CPU.
        """

    def step_count(self, requests: int) -> int:
        """Largest number of gradient steps of a batch.

        Args:
            requests: number of requests of the batch.

        Returns:
            The field `steps`, for all requests or for each of them.
        """
        steps: int = getattr(self, "steps", 0)
        return steps if self.side_by_side else steps * requests


def on_cpu(tensor: Tensor) -> Tensor:
    """A trained tensor as a value on the CPU, in fp32.

    Args:
        tensor: the tensor.

    Returns:
        A detached copy or view.
    """
    return tensor.detach().cpu().float()


def has_converged(losses: Sequence[float]) -> bool:
    """Whether no further step is taken: the last loss is at most 0.02 and differs from the one before by at most 1e-4.

    Args:
        losses: loss of every step so far.

    Returns:
        False before the second step.
    """
    return len(losses) > 1 and losses[-1] <= 0.02 and abs(losses[-1] - losses[-2]) <= 1e-4
