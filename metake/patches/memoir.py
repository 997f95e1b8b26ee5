"""MEMOIR (arXiv:2506.07899): a residual memory of which every edit uses the columns that its largest features select."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor

from metake.components import register
from metake.errors import MetakeError
from metake.models.tokens import Row
from metake.patches.base import Patch
from metake.patches.row_loss import RowLoss
from metake.patches.spec import PatchProblem, PatchSpec, has_converged, on_cpu


def top_hash(x: Tensor, mean: Tensor, order: Tensor, size: int) -> Tensor:
    """Columns of the memory that a token selects: its largest features, permuted.

    Args:
        x: `... x d_k`.
        mean: `d_k`, mean of unrelated tokens, which is subtracted.
        order: `d_k`, a permutation.
        size: number of columns.

    Returns:
        `... x size`, indices.
    """
    return order[(x - mean).abs().topk(size, dim=-1).indices]


def as_mask(columns: Tensor, like: Tensor) -> Tensor:
    """Columns as a vector of ones and zeros.

    Args:
        columns: `... x size`, indices.
        like: `... x d_k`, of the wanted dtype.

    Returns:
        `... x d_k`.
    """
    shape = (*columns.shape[:-1], like.shape[-1])
    return like.new_zeros(shape).scatter(-1, columns, 1.0)


@dataclass(frozen=True, eq=False)
class ResidualMemory(Patch):
    """A memory added to a down-projection, with the masks of the edits.

    A token opens the gate if its mask shares enough columns with one of an edit; it then reads the memory through the mask that
    shares most.

    Attributes:
        memory: `d_v x d_k`.
        masks: `n x size`, columns of each token that predicts an answer of an edit.
        mean: `d_k`, see `top_hash`.
        order: `d_k`, see `top_hash`.
        threshold: share of columns from which a gate is open.
    """

    kind = "memoir"
    integers = ("masks", "order")

    memory: Tensor
    masks: Tensor
    mean: Tensor
    order: Tensor
    threshold: float

    def matched(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Largest share of columns that a token's mask has in common with one of an edit, and that mask.

        Args:
            x: `... x d_k`.

        Returns:
            Shares, `...`, and indices of masks, `...`.
        """
        own = as_mask(top_hash(x, self.mean.to(x.dtype), self.order, self.masks.shape[1]), x)
        known = as_mask(self.masks, x)
        shares, found = (own @ known.T).max(-1)
        return shares / self.masks.shape[1], found

    def gate(self, x: Tensor) -> Tensor:
        """1 where enough columns are shared; see `Patch.gate`.

        Args:
            x: `... x d_k`.

        Returns:
            `...`.
        """
        return (self.matched(x)[0] >= self.threshold).to(x.dtype)

    def read(self, x: Tensor) -> Tensor:
        """Inputs of the memory: a token through the mask that it matches, 0 where its gate is closed.

        Args:
            x: `... x d_k`.

        Returns:
            Like `x`.
        """
        shares, found = self.matched(x)
        known = as_mask(self.masks, x)
        return x * known[found] * (shares >= self.threshold)[..., None]

    def write(self, x: Tensor, y: Tensor) -> Tensor:
        """What the memory holds at the columns of the matching mask; see `Patch.write`.

        Args:
            x: `n x d_k`.
            y: not used.

        Returns:
            `n x d_v`.
        """
        return self.read(x) @ self.memory.to(x.dtype).T

    def joined(self, later: Any) -> Self:
        """The sum of both memories, and the masks of both; see `Patch.joined`.

        Args:
            later: what a batch adds.

        Returns:
            One memory.

        Raises:
            MetakeError: the two select columns in different ways.
        """
        alike = all(torch.equal(getattr(self, name), getattr(later, name)) for name in ("mean", "order"))
        if not alike or self.threshold != later.threshold or self.masks.shape[1] != later.masks.shape[1]:
            raise MetakeError(
                f"delta: two memoir patches of layer {self.layer} that select columns in different ways (mean, order, number of "
                "columns or threshold); only those of one model and setting compose"
            )
        masks = torch.cat([self.masks, later.masks])
        return type(self)(
            self.layer, self.memory + later.memory, masks, self.mean, self.order, self.threshold
        )

    def shapes(self, d_v: int, d_k: int) -> dict[str, tuple[int, ...]]:
        """See `Patch.shapes`.

        Args:
            d_v: outputs.
            d_k: inputs.

        Returns:
            Shapes by name.
        """
        return {"memory": (d_v, d_k), "masks": (-1, -1), "mean": (d_k,), "order": (d_k,)}


@register
class MemoirSpec(PatchSpec):
    """MEMOIR: one edit after the other is trained into the columns of the memory that its tokens select.

    Reference: arXiv:2506.07899.
    """

    kind = "memoir"
    patch = ResidualMemory
    aliases: ClassVar[dict[str, str]] = {
        "lr": "memory_lr",
        "steps": "memory_steps",
        "share": "mask_share",
        "threshold": "irr_threshold",
        "clip": "memory_clip",
    }

    lr: float = Field(1.0, gt=0, description="step size of the gradient descent on the memory [edit_lr]")
    steps: int = Field(30, ge=1, description="steps per edit [n_iter]")
    share: float = Field(
        4096 / 14336,
        gt=0,
        le=1,
        description="share of the columns in a mask [top_k of 14,336 for Llama-3-8B]",
    )
    threshold: float = Field(0.4, gt=0, le=1, description="share of common columns from which a gate is open")
    clip: float = Field(1.0, gt=0, description="largest norm of a gradient")
    seed: int = Field(0, description="seed of the permutation of the columns")

    def fit(self, problem: PatchProblem) -> ResidualMemory:
        """What a batch adds to the memory; see `PatchSpec.fit`.

        Args:
            problem: the batch.

        Returns:
            The change of the memory, with the masks of the batch.
        """
        with problem.without_earlier():
            held = problem.earlier or self._empty(problem)
            device = problem.model.weight_device(problem.layer)
            held = first = held.to(device)
            for rows in problem.rows:
                held = self._trained(problem, rows, held)
        masks = held.masks[len(first.masks) :].cpu()
        memory = on_cpu(held.memory - first.memory)
        return ResidualMemory(
            problem.layer, memory, masks, first.mean.cpu(), first.order.cpu(), self.threshold
        )

    def _empty(self, problem: PatchProblem) -> ResidualMemory:
        """A memory without edits: the mean of unrelated tokens, and a permutation."""
        loss = RowLoss(problem.model, problem.unrelated, problem.layer, problem.max_tokens)
        mean = on_cpu(torch.cat([loss.keys(i) for i in range(len(problem.unrelated))]).mean(0))
        d_v, d_k = problem.model.weight(problem.layer).shape
        order = torch.randperm(d_k, generator=torch.Generator().manual_seed(self.seed))
        masks = torch.zeros(0, max(1, round(self.share * d_k)), dtype=torch.long)
        return ResidualMemory(problem.layer, torch.zeros(d_v, d_k), masks, mean, order, self.threshold)

    def _trained(self, problem: PatchProblem, rows: Sequence[Row], held: ResidualMemory) -> ResidualMemory:
        """The memory after one edit."""
        loss = RowLoss(problem.model, rows, problem.layer, problem.max_tokens)
        keys = loss.keys(0)[list(rows[0].predicting)]
        masks = torch.cat([held.masks, top_hash(keys, held.mean, held.order, held.masks.shape[1])])
        patch = ResidualMemory(held.layer, held.memory, masks, held.mean, held.order, held.threshold)
        memory, inputs, losses = held.memory.clone().requires_grad_(True), {}, []

        def written(members: Sequence[int], x: Tensor, y: Tensor) -> Tensor:
            of = tuple(members)
            if of not in inputs:  # they do not depend on the memory
                inputs[of] = patch.read(x.detach().to(memory.dtype))
            return y + inputs[of] @ memory.T

        for _ in range(self.steps):
            memory.grad, total = None, 0.0
            for _, nll in loss(written):
                part = nll.sum() / len(rows)
                part.backward()  # type: ignore[no-untyped-call]
                total += float(part.detach())
            losses.append(total)
            if has_converged(losses):
                break
            assert memory.grad is not None
            scale = (self.clip / memory.grad.norm().clamp_min(1e-12)).clamp_max(1.0)
            with torch.no_grad():
                memory -= self.lr * scale * memory.grad
            problem.on_step()
        return ResidualMemory(held.layer, memory.detach(), masks, held.mean, held.order, held.threshold)
