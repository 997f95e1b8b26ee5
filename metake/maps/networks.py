"""Networks of learned maps: functions of one normalized (key, gradient) pair, the identity before they are fitted."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from metake.components import Component, register

Scaling = Literal["after", "before"]


class Network(Component):
    """Choice of the network that maps a normalized key and gradient to a pseudo key and a pseudo gradient."""

    family = "network"

    def build(self, size: int, layers: int, seed: int) -> nn.Module:
        """The network before it is fitted.

        Args:
            size: entries of a key and of a gradient together, d_k + d_v.
            layers: number of edited layers, which share the network.
            seed: seed of its random weights.

        Returns:
            A module called with rows (`t x size`) and the position of their layer; the identity.

        Raises:
            NotImplementedError: by default.
        """
        raise NotImplementedError


class Same(nn.Module):
    """The identity, without parameters."""

    def forward(self, rows: Tensor, layer: int) -> Tensor:
        """The rows themselves.

        Args:
            rows: `t x size`.
            layer: not used.

        Returns:
            `t x size`.
        """
        return rows


@register
class IdentityNetwork(Network):
    """No network (UltraEdit)."""

    kind = "identity-map"

    def build(self, size: int, layers: int, seed: int) -> nn.Module:
        """The identity.

        Args:
            size: not used.
            layers: not used.
            seed: not used.

        Returns:
            A module without parameters.
        """
        return Same()


class Block(nn.Module):
    """Low-rank residual block with a scale and a shift per layer.

    `y + s relu(y A B + b) + m` (MALMEN), or `y + relu(s (y A B + b) + m)` (MEND). At first B, b and m are 0 and s is 1,
    so the block is the identity. The derivative of relu at 0 is taken as 1; the block could not leave the identity
    otherwise.

    Args:
        size: entries of a row.
        rank: rank of `A B`.
        layers: number of layers.
        scaling: whether scale and shift come after the relu or before it.
        generator: draws A, whose entries have variance 1 / size.
    """

    def __init__(
        self, size: int, rank: int, layers: int, scaling: Scaling, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.first = scaling == "before"
        self.a = nn.Parameter(torch.randn(size, rank, generator=generator) / size**0.5)
        self.b = nn.Parameter(torch.zeros(rank, size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.scale = nn.Parameter(torch.ones(layers, size))
        self.shift = nn.Parameter(torch.zeros(layers, size))

    def forward(self, rows: Tensor, layer: int) -> Tensor:
        """The block's output.

        Args:
            rows: `t x size`.
            layer: position of the layer.

        Returns:
            `t x size`.
        """
        rows = rows.to(self.bias)
        inner = rows @ self.a @ self.b + self.bias
        scale, shift = self.scale[layer], self.shift[layer]
        moved = (scale * inner + shift).clamp(min=0) if self.first else scale * inner.clamp(min=0) + shift
        return rows + moved


class Blocks(nn.Module):
    """Residual blocks in a row.

    Args:
        blocks: the blocks.
    """

    def __init__(self, blocks: list[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, rows: Tensor, layer: int) -> Tensor:
        """Output of the last block.

        Args:
            rows: `t x size`.
            layer: position of the layer.

        Returns:
            `t x size`.
        """
        for block in self.blocks:
            rows = block(rows, layer)
        return rows


@register
class ResidualNetwork(Network):
    """Low-rank residual blocks that all layers share, with a scale and a shift per layer (MEND, MALMEN)."""

    kind = "residual"

    rank: int = Field(1920, ge=1, description="rank of each block of the map; at most d_k + d_v is used")
    blocks: int = Field(2, ge=1, description="number of residual blocks of the map")
    scaling: Scaling = Field(
        "after",
        description="whether a block's scale and shift come after its relu (MALMEN) or before it (MEND)",
    )

    def build(self, size: int, layers: int, seed: int) -> nn.Module:
        """Blocks that are the identity.

        Args:
            size: entries of a row.
            layers: number of edited layers.
            seed: seed of the matrices A.

        Returns:
            The network, in fp32.
        """
        generator, rank = torch.Generator().manual_seed(seed), min(self.rank, size)
        return Blocks([Block(size, rank, layers, self.scaling, generator) for _ in range(self.blocks)])
