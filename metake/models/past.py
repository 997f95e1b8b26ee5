"""Tokens that a pass need not run again: what attention remembers of them.

Under causal attention the keys and values of a token depend on what stands before it alone. So a pass
over some last tokens of its rows, given those of the earlier ones, is the pass over whole rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers.cache_utils import Cache

States = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Past:
    """Attention's keys and values of the tokens before those of a pass.

    Attributes:
        states: layer -> keys and values, `rows x heads x longest x d`, padded.
        lengths: `rows`, how many of them are there.
        there: `rows x longest`, where they are; by default at the left.
        ready: masks and positions of earlier passes over the same rows; a step need not build them again.
    """

    states: Mapping[int, States]
    lengths: Tensor
    there: Tensor | None = None
    ready: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, compare=False, repr=False)

    def rows(self, which: Tensor) -> Past:
        """Those of some rows; a row may be taken several times."""
        there = None if self.there is None else self.there[which]
        return Past(take(self.states, which), self.lengths[which], there)

    def layout(self, width: int, limit: int | None, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mask and positions of the `width` tokens that follow.

        Returns:
            `rows x 1 x width x (longest + width)`, added to attention's scores: everything that is there is
            seen, and the tokens themselves causally; and `rows x width`, padding kept below `limit`.
        """
        if width not in self.ready:
            values = next(iter(self.states.values()))[0]
            there = self.there
            if there is None:
                there = torch.arange(values.shape[-2]) < self.lengths[:, None]
            seen = torch.cat(
                [
                    there[:, None, None].expand(-1, 1, width, -1),
                    torch.ones(width, width, dtype=torch.bool).tril().expand(len(there), 1, -1, -1),
                ],
                -1,
            )
            mask = torch.zeros(seen.shape, dtype=values.dtype).masked_fill(
                ~seen, torch.finfo(values.dtype).min
            )
            at = self.lengths[:, None] + torch.arange(width)
            positions = at if limit is None else at.clamp(max=limit - 1)
            self.ready[width] = mask.to(device), positions.to(device)
        return self.ready[width]


def take(states: Mapping[int, States], which: Tensor) -> dict[int, States]:
    """States of some rows."""
    return {
        layer: (keys[which.to(keys.device)], values[which.to(values.device)])
        for layer, (keys, values) in states.items()
    }


class Memory(Cache):
    """How `transformers` asks for a past, and how it hands over the present.

    Attributes:
        seen: layer -> keys and values of the past and of the pass's own tokens, from layer `since` on.
    """

    def __init__(self, past: Past | None, since: int | None) -> None:
        super().__init__(layers=[])
        self.past, self.since = past, since
        self.seen: dict[int, States] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
    ) -> States:
        if self.past is not None:
            keys, values = self.past.states[layer_idx]
            key_states = torch.cat([keys, key_states], -2)
            value_states = torch.cat([values, value_states], -2)
        if self.since is not None and layer_idx >= self.since:
            self.seen[layer_idx] = key_states, value_states
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Of the past; positions and mask are given, so nothing else depends on it."""
        return 0 if self.past is None else int(self.past.lengths.max())
