"""REP (arXiv:2410.09338): an adapter of keys, so that mentions of a subject share the key that an edit is written at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import gelu

from metake.components import register
from metake.patches.base import Patch
from metake.patches.row_loss import RowLoss
from metake.patches.spec import PatchProblem, PatchSpec, on_cpu


@dataclass(frozen=True, eq=False)
class KeyAdapter(Patch):
    """Adapters of the input of a down-projection, one per batch: `x + sum_b [gate_b(x) > threshold] up_b down_b x`.

    Attributes:
        down: `n x rank x d_k`.
        up: `n x d_k x rank`.
        hidden: `n x width x d_k`, first layer of the gate.
        bias: `n x width`.
        out: `n x width`, second layer of the gate.
        shift: `n`.
        threshold: value of the sigmoid from which a gate is open.
    """

    kind = "rep"
    at_input = True

    down: Tensor
    up: Tensor
    hidden: Tensor
    bias: Tensor
    out: Tensor
    shift: Tensor
    threshold: float

    def probability(self, x: Tensor) -> Tensor:
        """Value of each gate's sigmoid, `n x ...`.

        Args:
            x: `... x d_k`.

        Returns:
            Values from 0 to 1.
        """
        inner = gelu(torch.einsum("nwk,...k->n...w", self.hidden.to(x.dtype), x) + self._wide(self.bias, x))
        return ((inner * self._wide(self.out, x)).sum(-1) + self._wide(self.shift, x)).sigmoid()

    @staticmethod
    def _wide(parameter: Tensor, x: Tensor) -> Tensor:
        """A parameter of each adapter, with the dimensions of the tokens in between."""
        return parameter.to(x.dtype).reshape(len(parameter), *[1] * (x.ndim - 1), *parameter.shape[1:])

    def shifts(self, x: Tensor) -> Tensor:
        """What each adapter adds for a gate of 1, `n x ... x d_k`.

        Args:
            x: `... x d_k`.

        Returns:
            One shift per adapter and token.
        """
        inner = torch.einsum("nrk,...k->n...r", self.down.to(x.dtype), x)
        return torch.einsum("nkr,n...r->n...k", self.up.to(x.dtype), inner)

    def gate(self, x: Tensor) -> Tensor:
        """1 where any adapter's gate is open; see `Patch.gate`.

        Args:
            x: `... x d_k`.

        Returns:
            `...`.
        """
        return (self.probability(x) > self.threshold).any(0).to(x.dtype)

    def write(self, x: Tensor, y: Tensor) -> Tensor:
        """Sum over the adapters whose gate is open; see `Patch.write`.

        Args:
            x: `n x d_k`.
            y: not used.

        Returns:
            `n x d_k`.
        """
        return ((self.probability(x) > self.threshold)[..., None] * self.shifts(x)).sum(0)

    def joined(self, later: Any) -> Self:
        """The adapters of both; see `Patch.joined`.

        Args:
            later: what a batch adds.

        Returns:
            One patch, with the higher threshold.
        """
        parts = {name: torch.cat([t, later.tensors[name]]) for name, t in self.tensors.items()}
        return type(self)(self.layer, **parts, threshold=max(self.threshold, later.threshold))

    def shapes(self, d_v: int, d_k: int) -> dict[str, tuple[int, ...]]:
        """See `Patch.shapes`.

        Args:
            d_v: outputs.
            d_k: inputs.

        Returns:
            Shapes by name.
        """
        n, rank, _ = self.down.shape
        width = self.bias.shape[-1]
        wide = {"hidden": (n, width, d_k), "bias": (n, width), "out": (n, width), "shift": (n,)}
        return {"down": (n, rank, d_k), "up": (n, d_k, rank), **wide}


@register
class RepSpec(PatchSpec):
    """REP: an adapter that moves keys in contexts to the key of the bare prompt, and leaves the keys of other tokens.

    Reference: arXiv:2410.09338.
    """

    kind = "rep"
    side_by_side = True
    patch = KeyAdapter
    aliases: ClassVar[dict[str, str]] = {
        "lr": "adapter_lr",
        "steps": "adapter_steps",
        "keep": "adapter_keep",
        "rank": "adapter_rank",
        "width": "gate_width",
        "threshold": "gate_threshold",
    }

    lr: float = Field(5e-4, gt=0, description="Adam's learning rate on the adapter [agg_lr]")
    steps: int = Field(10, ge=1, description="steps of Adam per batch [num_train_agg_steps]")
    keep: float = Field(
        5e4, ge=0, description="weight of the mean squared change of other keys [target_consistency_weight]"
    )
    rank: int = Field(32, ge=1, description="rank of the adapter")
    width: float = Field(
        0.1,
        gt=0,
        description="width of the gate's hidden layer, as a share of a key [agg_gate_inner_dim_ratio]",
    )
    threshold: float = Field(
        0.9, gt=0, lt=1, description="value of the gate from which it is open [cls_threshold]"
    )
    seed: int = Field(0, description="seed of the adapter's start")

    def fit(self, problem: PatchProblem) -> KeyAdapter:
        """The adapter of a batch; see `PatchSpec.fit`.

        Args:
            problem: the batch; the rows of a request end in the token whose key is edited, the bare prompt first.

        Returns:
            One adapter.
        """
        with problem.without_earlier():
            rows = [row for group in problem.rows for row in group]
            loss = RowLoss(problem.model, [*rows, *problem.unrelated], problem.layer, problem.max_tokens)
        keys = [loss.keys(i) for i in range(len(loss.rows))]
        edited = torch.stack([keys[i][row.lookup] for i, row in enumerate(rows)])
        owners = [i for i, group in enumerate(problem.rows) for _ in group]
        firsts = [owners.index(i) for i in range(len(problem.rows))]
        others = [key[: row.lookup] for key, row in zip(keys, rows, strict=False)] + keys[len(rows) :]
        fixed = torch.cat([edited[firsts], *others])
        moving = [i for i in range(len(rows)) if i not in firsts]
        targets = edited[[firsts[owners[i]] for i in moving]]
        return self._trained(problem, edited[moving], targets, fixed)

    def _trained(self, problem: PatchProblem, moving: Tensor, targets: Tensor, fixed: Tensor) -> KeyAdapter:
        """Adapter that maps some keys to targets, up to their length, and leaves others."""
        weights = [w.requires_grad_(True) for w in self._start(problem, moving)]
        adam = torch.optim.Adam(weights, lr=self.lr)
        for _ in range(self.steps):
            adapter = self._adapter(problem.layer, weights)
            with torch.enable_grad():
                moved = moving + self._soft(adapter, moving)
                aligned = (torch.nn.functional.normalize(moved, dim=-1) * targets).sum(-1).mean()
                loss = self.keep * self._soft(adapter, fixed).square().mean() - aligned
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            problem.on_step()
        return self._adapter(problem.layer, [on_cpu(w) for w in weights])

    def _adapter(self, layer: int, weights: Sequence[Tensor]) -> KeyAdapter:
        """Patch of some parameters, in the order of its fields."""
        down, up, hidden, bias, out, shift = weights
        return KeyAdapter(layer, down, up, hidden, bias, out, shift, self.threshold)

    @staticmethod
    def _soft(adapter: KeyAdapter, x: Tensor) -> Tensor:
        """What the adapter adds with the sigmoid itself for a gate, which is differentiable."""
        return (adapter.probability(x)[..., None] * adapter.shifts(x)).sum(0)

    def _start(self, problem: PatchProblem, like: Tensor) -> Sequence[Tensor]:
        """Parameters before the first step: `up` is 0, the others are uniform as those of a linear layer."""
        d_k = like.shape[-1]
        width = max(1, int(self.width * d_k))
        batch = 0 if problem.earlier is None else len(problem.earlier.shift)
        generator = torch.Generator().manual_seed(self.seed + batch)

        def uniform(*shape: int, inputs: int) -> Tensor:
            return ((2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(inputs)).to(like)

        down, up = uniform(1, self.rank, d_k, inputs=d_k), like.new_zeros(1, d_k, self.rank)
        hidden, bias = uniform(1, width, d_k, inputs=d_k), uniform(1, width, inputs=d_k)
        return down, up, hidden, bias, uniform(1, width, inputs=width), uniform(1, inputs=width)
