"""GRACE (arXiv:2211.11031): a codebook of keys; within the ball of the nearest key the output is replaced by its value."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from metake.components import register
from metake.errors import MetakeError
from metake.patches.base import Patch
from metake.patches.row_loss import RowLoss
from metake.patches.spec import PatchProblem, PatchSpec, on_cpu

SPLIT = 1e-5  # distance that separates two balls


@dataclass(frozen=True)
class _Ball:
    """A ball of the codebook.

    Attributes:
        key: index of the edit that its center is the key of.
        value: index of the edit whose value it writes.
        radius: its radius.
    """

    key: int
    value: int
    radius: float


@dataclass(frozen=True, eq=False)
class Codebook(Patch):
    """Edits in their order; the balls follow from them, so that two codebooks in a row are their edits in a row.

    Attributes:
        keys: `n x d_k`, input of the down-projection at the prompt's last token.
        values: `n x d_v`, output that replaces the down-projection's.
        labels: `n x longest`, token ids of the targets, padded with -1.
        radius: radius of a new ball.
    """

    kind = "grace"
    integers = ("labels",)

    keys: Tensor
    values: Tensor
    labels: Tensor
    radius: float

    @cached_property
    def balls(self) -> list[_Ball]:
        """Balls after all edits.

        An edit outside of every ball (widened by the radius of a new one) opens a ball. One near a ball of the same target
        widens it. One near a ball of another target shares the distance: neither ball reaches beyond half of it.
        """
        keys = self.keys.double()
        distances = torch.cdist(keys, keys, compute_mode="donot_use_mm_for_euclid_dist").tolist()
        labels = [tuple(t for t in row if t >= 0) for row in self.labels.tolist()]
        balls: list[_Ball] = []
        for edit in range(len(keys)):
            if not balls:
                balls.append(_Ball(edit, edit, self.radius))
                continue
            near = min(range(len(balls)), key=lambda i: distances[edit][balls[i].key])
            ball, distance = balls[near], distances[edit][balls[near].key]
            if distance > self.radius + ball.radius:
                balls.append(_Ball(edit, edit, self.radius))
            elif labels[edit] == labels[ball.value]:
                balls[near] = _Ball(ball.key, edit, max(ball.radius, distance))
            else:
                balls[near] = _Ball(ball.key, ball.value, min(ball.radius, distance / 2 - SPLIT))
                balls.append(_Ball(edit, edit, min(self.radius, distance / 2)))
        return balls

    @cached_property
    def _entries(self) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values and radii of the balls."""
        at = torch.tensor([[ball.key, ball.value] for ball in self.balls], device=self.keys.device)
        radii = torch.tensor([ball.radius for ball in self.balls], device=self.keys.device)
        return self.keys[at[:, 0]], self.values[at[:, 1]], radii

    def _nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Distance to the nearest key, and its ball."""
        keys = self._entries[0].to(x.dtype)
        found = torch.cdist(x.reshape(-1, x.shape[-1]), keys).argmin(-1).reshape(x.shape[:-1])
        return (x - keys[found]).norm(dim=-1), found

    def gate(self, x: Tensor) -> Tensor:
        """1 in the ball of the nearest key; see `Patch.gate`.

        Args:
            x: `... x d_k`.

        Returns:
            `...`.
        """
        distance, found = self._nearest(x)
        return (distance <= self._entries[2][found]).to(x.dtype)

    def write(self, x: Tensor, y: Tensor) -> Tensor:
        """Value of the nearest key minus the output; see `Patch.write`.

        Args:
            x: `n x d_k`.
            y: `n x d_v`.

        Returns:
            `n x d_v`.
        """
        return self._entries[1].to(y.dtype)[self._nearest(x)[1]] - y

    def joined(self, later: Any) -> Self:
        """The edits of both, in their order; see `Patch.joined`.

        Args:
            later: another codebook.

        Returns:
            One codebook.

        Raises:
            MetakeError: the radii of new balls differ.
        """
        if later.radius != self.radius:
            raise MetakeError(
                f"delta: two grace patches of layer {self.layer} with radius {self.radius:g} and {later.radius:g}; only those of one "
                "radius compose"
            )
        width = max(self.labels.shape[1], later.labels.shape[1])
        labels = [
            torch.nn.functional.pad(t, (0, width - t.shape[1]), value=-1) for t in (self.labels, later.labels)
        ]
        keys, values = torch.cat([self.keys, later.keys]), torch.cat([self.values, later.values])
        return type(self)(self.layer, keys, values, torch.cat(labels), self.radius)

    def shapes(self, d_v: int, d_k: int) -> dict[str, tuple[int, ...]]:
        """See `Patch.shapes`.

        Args:
            d_v: outputs.
            d_k: inputs.

        Returns:
            Shapes by name.
        """
        n = len(self.keys)
        return {"keys": (n, d_k), "values": (n, d_v), "labels": (n, -1)}


@register
class GraceSpec(PatchSpec):
    """GRACE: per edit a value that is trained to replace the output at the prompt's last token.

    Reference: arXiv:2211.11031.
    """

    kind = "grace"
    side_by_side = True
    patch = Codebook
    uses_contexts = False
    aliases: ClassVar[dict[str, str]] = {"lr": "value_lr", "steps": "value_steps", "start": "value_start"}
    published: ClassVar[dict[str, str]] = {"eps": "radius", "n_iter": "steps", "val_init": "start"}

    lr: float = Field(1.0, gt=0, description="Adam's learning rate on the values [edit_lr]")
    steps: int = Field(100, ge=1, description="steps of Adam per batch [n_iter]")
    radius: float = Field(1.0, gt=0, description="radius of a new ball, a distance between keys [eps]")
    start: Literal["cold", "warm"] = Field(
        "cold",
        description="start of a value: uniform between 0 and 1 (cold), or the output (warm) [val_init]",
    )
    seed: int = Field(0, description="seed of the cold starts")

    def fit(self, problem: PatchProblem) -> Codebook:
        """Keys and trained values of a batch; see `PatchSpec.fit`.

        Args:
            problem: the batch.

        Returns:
            Its codebook.
        """
        rows = problem.bare
        loss = RowLoss(problem.model, rows, problem.layer, problem.max_tokens)
        last = [row.predicting[0] for row in rows]
        keys = torch.stack([loss.keys(i)[at] for i, at in enumerate(last)])
        values = self._started(problem, torch.stack([loss.values(i)[at] for i, at in enumerate(last)]))
        adam = torch.optim.Adam([values], lr=self.lr)

        def replaced(members: Any, _: Tensor, y: Tensor) -> Tensor:
            at = torch.arange(len(members)), torch.tensor([last[i] for i in members])
            return y.index_put(at, values[members].to(y.dtype))

        for _ in range(self.steps):
            adam.zero_grad()
            for _, nll in loss(replaced):
                nll.sum().backward()  # type: ignore[no-untyped-call]
            adam.step()
            problem.on_step()
        longest = max(row.answer for row in rows)
        labels = torch.tensor([[*row.answer_ids, *[-1] * (longest - row.answer)] for row in rows])
        return Codebook(problem.layer, on_cpu(keys), on_cpu(values), labels, self.radius)

    def _started(self, problem: PatchProblem, outputs: Tensor) -> Tensor:
        """Values before the first step, `n x d_v`."""
        if self.start == "warm":
            return outputs.clone().requires_grad_(True)
        earlier = 0 if problem.earlier is None else len(problem.earlier.keys)
        generator = torch.Generator().manual_seed(self.seed + earlier)
        return torch.rand(outputs.shape, generator=generator).to(outputs).requires_grad_(True)
