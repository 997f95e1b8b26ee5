"""WISE (arXiv:2405.14768): side copies of a down-projection, used where they and the original one differ enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor

from metake.components import register
from metake.models.tokens import Row
from metake.models.trace import upcast
from metake.patches.base import Patch
from metake.patches.row_loss import RowLoss
from metake.patches.spec import PatchProblem, PatchSpec, has_converged, on_cpu


def merged_by_ties(changes: Tensor, density: float) -> Tensor:
    """TIES (arXiv:2306.01708): the largest entries of each change, the mean of those that have the sign of their sum.

    Args:
        changes: `n x d_v x d_k`.
        density: share of the entries of a change that is kept.

    Returns:
        `d_v x d_k`.
    """
    kept = max(1, int(density * changes[0].numel()))
    flat = changes.flatten(1)
    least = flat.abs().topk(kept, dim=1).values[:, -1:]
    flat = torch.where(flat.abs() >= least, flat, 0)
    agreeing = flat.sign() == torch.where(flat.sum(0) >= 0, 1, -1)
    return ((flat * agreeing).sum(0) / agreeing.sum(0).clamp_min(1)).view(changes.shape[1:])


@dataclass(frozen=True, eq=False)
class SideMemory(Patch):
    """Changes of a weight, each with the least activation of its edits; a token takes the change of the largest activation.

    The activation of a change D at a token is `|D x|`, the distance of the two outputs.

    Attributes:
        changes: `n x d_v x d_k`, side copy minus weight; edits are added to the last one until it is full.
        floors: `n`, least activation at the tokens that predict the answers of its edits.
        counts: `n`, number of its edits.
        ratio: share of a floor above which a gate is open.
        full: number of edits of a full change.
        copies: number of full changes that are merged.
        density: see `merged_by_ties`.
    """

    kind = "wise"
    integers = ("counts",)

    changes: Tensor
    floors: Tensor
    counts: Tensor
    ratio: float
    full: int
    copies: int
    density: float

    def _activations(self, x: Tensor) -> Tensor:
        """Activation of each change at each token, `... x n`; -1 where its gate is closed."""
        found = torch.stack([(x @ change.to(x.dtype).T).norm(dim=-1) for change in self.changes], -1)
        return torch.where(found > self.ratio * self.floors, found, -1.0)

    def gate(self, x: Tensor) -> Tensor:
        """1 where the activation of any change exceeds its threshold; see `Patch.gate`.

        Args:
            x: `... x d_k`.

        Returns:
            `...`.
        """
        return (self._activations(x).amax(-1) > 0).to(x.dtype)

    def write(self, x: Tensor, y: Tensor) -> Tensor:
        """D x of the change with the largest activation; see `Patch.write`.

        Args:
            x: `n x d_k`.
            y: not used.

        Returns:
            `n x d_v`.
        """
        best = self._activations(x).argmax(-1)
        outputs = torch.stack([x @ change.to(x.dtype).T for change in self.changes])
        return outputs[best, torch.arange(len(x), device=x.device)]

    def joined(self, later: Any) -> Self:
        """Changes of both: the later ones are added to the last one while it is not full; see `Patch.joined`.

        Args:
            later: what a batch adds.

        Returns:
            One side memory.
        """
        changes, floors, counts = list(self.changes), self.floors.tolist(), self.counts.tolist()
        for change, floor, count in zip(
            later.changes, later.floors.tolist(), later.counts.tolist(), strict=True
        ):
            if counts[-1] < self.full:
                changes[-1], floors[-1], counts[-1] = (
                    changes[-1] + change,
                    min(floors[-1], floor),
                    counts[-1] + count,
                )
            else:
                changes, floors, counts = [*changes, change], [*floors, floor], [*counts, count]
            n = self.copies
            if sum(self.full <= c < n * self.full for c in counts) == n:
                merged = merged_by_ties(torch.stack(changes[-n:]), self.density)
                changes, floors = [*changes[:-n], merged], [*floors[:-n], min(floors[-n:])]
                counts = [*counts[:-n], sum(counts[-n:])]
        numbers = torch.tensor(floors), torch.tensor(counts)
        return type(self)(
            self.layer, torch.stack(changes), *numbers, self.ratio, self.full, self.copies, self.density
        )

    def shapes(self, d_v: int, d_k: int) -> dict[str, tuple[int, ...]]:
        """See `Patch.shapes`.

        Args:
            d_v: outputs.
            d_k: inputs.

        Returns:
            Shapes by name.
        """
        n = len(self.changes)
        return {"changes": (n, d_v, d_k), "floors": (n,), "counts": (n,)}


def _added(change: Tensor, _: Sequence[int], x: Tensor, y: Tensor) -> Tensor:
    """Outputs of a side copy."""
    return y + x.to(change.dtype) @ change.T


@register
class WiseSpec(PatchSpec):
    """WISE: one edit after the other is trained into a random part of a side copy, with margins on its activation.

    Reference: arXiv:2405.14768; retrieval among several side copies.
    """

    kind = "wise"
    patch = SideMemory
    aliases: ClassVar[dict[str, str]] = {
        "lr": "side_lr",
        "steps": "side_steps",
        "bound": "side_bound",
        "ratio": "act_ratio",
        "full": "save_freq",
        "copies": "merge_copies",
    }
    published: ClassVar[dict[str, str]] = {"densities": "density"}

    lr: float = Field(1.0, gt=0, description="step size of the gradient descent on a side copy [edit_lr]")
    steps: int = Field(70, ge=1, description="steps per edit [n_iter]")
    mask_ratio: float = Field(
        0.2, gt=0, le=1, description="share of a side copy's entries that are trained, drawn once"
    )
    bound: float = Field(1.0, gt=0, description="largest change of each entry [norm_constraint]")
    alpha: float = Field(5.0, ge=0, description="activation above which unrelated texts are penalized")
    beta: float = Field(20.0, ge=0, description="activation below which an edit is penalized")
    gamma: float = Field(
        10.0, ge=0, description="least difference between the activation of an edit and of unrelated texts"
    )
    ratio: float = Field(
        0.88, gt=0, description="share of the least activation of the edits above which a gate opens"
    )
    full: int = Field(500, ge=1, description="edits of a side copy")
    copies: int = Field(2, ge=2, description="full side copies that are merged [merge_freq / save_freq]")
    density: float = Field(
        0.53, gt=0, le=1, description="share of the entries of a side copy that a merge keeps"
    )
    seed: int = Field(0, description="seed of the trained parts")

    def fit(self, problem: PatchProblem) -> SideMemory:
        """What a batch adds to the side copies; see `PatchSpec.fit`.

        Args:
            problem: the batch.

        Returns:
            One change for every side copy that its edits were trained into.
        """
        weight = problem.model.weight(problem.layer)
        change = torch.zeros_like(upcast(weight))
        earlier, done = problem.earlier, 0
        if earlier is not None:
            done = int(earlier.counts.sum())
            if int(earlier.counts[-1]) < self.full:
                change = earlier.changes[-1].to(change)
        found, start, floors = [], change, []
        with problem.without_earlier():
            for i, rows in enumerate(problem.rows):
                mask = self._mask((done + i) // self.full, change)
                unrelated = problem.unrelated[(done + i) % len(problem.unrelated)]
                change, floor = self._trained(problem, rows, unrelated, change, mask)
                floors.append(floor)
                is_full = (done + i + 1) % self.full == 0
                if is_full or i + 1 == len(problem.rows):
                    found.append((on_cpu(change - start), min(floors), len(floors)))
                    floors = []
                if is_full:
                    change = start = torch.zeros_like(change)
        changes, least, counts = zip(*found, strict=True)
        numbers = torch.tensor(least), torch.tensor(counts)
        added = torch.stack(changes)
        return SideMemory(problem.layer, added, *numbers, self.ratio, self.full, self.copies, self.density)

    def _mask(self, index: int, like: Tensor) -> Tensor:
        """Entries of a side copy that are trained."""
        generator = torch.Generator().manual_seed(self.seed + index)
        return (torch.rand(like.shape, generator=generator) < self.mask_ratio).to(like)

    def _trained(
        self, problem: PatchProblem, rows: Sequence[Row], unrelated: Row, start: Tensor, mask: Tensor
    ) -> tuple[Tensor, float]:
        """The change after one edit, and the edit's least activation at the tokens that predict its answer."""
        loss = RowLoss(problem.model, [*rows, unrelated], problem.layer, problem.max_tokens)
        edit = [loss.keys(i)[list(row.predicting)] for i, row in enumerate(rows)]
        other = loss.keys(len(rows))
        loss = RowLoss(problem.model, rows, problem.layer, problem.max_tokens)
        change, losses = start.clone().requires_grad_(True), []
        for _ in range(self.steps):
            change.grad = None
            with torch.enable_grad():
                total = self._margins(change, edit, other)
            for _, nll in loss(partial(_added, change)):
                total = total + nll.sum() / len(rows)
            losses.append(float(total.detach()))
            if has_converged(losses):
                break
            total.backward()  # type: ignore[no-untyped-call]
            assert change.grad is not None
            with torch.no_grad():
                change -= self.lr * mask * change.grad
                change.clamp_(-self.bound, self.bound)
            problem.on_step()
        change = change.detach()
        return change, float((edit[0] @ change.T).norm(dim=-1).min())

    def _margins(self, change: Tensor, edit: Sequence[Tensor], other: Tensor) -> Tensor:
        """Mean violation of each of the three margins on activations, summed."""

        def activation(keys: Tensor) -> Tensor:
            # the norm has no gradient at 0, where every side copy starts
            return ((keys @ change.T).square().sum(-1) + 1e-12).sqrt().mean()

        inside, outside = torch.stack([activation(keys) for keys in edit]), activation(other)
        total = change.new_zeros(())
        for violation in (outside - inside + self.gamma, outside[None] - self.alpha, self.beta - inside):
            if bool((violation > 0).any()):
                total = total + violation[violation > 0].mean()
        return total
