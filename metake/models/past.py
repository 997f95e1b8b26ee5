"""Tokens that a pass need not run again: what attention remembers of them.

Under causal attention the keys and values of a token depend on what stands before it alone. So a pass
over some last tokens of its rows, given those of the earlier ones, is the pass over whole rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache

States = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Past:
    """Attention's keys and values of the tokens before those of a pass.

    Attributes:
        states: layer -> keys and values, `rows x heads x longest x d`, padded on the right.
        lengths: `rows`, how many of them are there.
    """

    states: Mapping[int, States]
    lengths: Tensor

    def rows(self, which: Tensor, lengths: Tensor | None = None) -> Past:
        """Those of some rows, a row perhaps several times; as many tokens of each as there are, or `lengths`."""
        states = {}
        for layer, (keys, values) in self.states.items():
            at = which.to(keys.device)
            states[layer] = keys[at], values[at]
        return Past(states, self.lengths[which] if lengths is None else lengths)

    def positions(self, width: int, limit: int | None) -> Tensor:
        """Positions of the `width` tokens that follow, `rows x width`; padding stays below the limit."""
        at = self.lengths[:, None] + torch.arange(width)
        return at if limit is None else at.clamp(max=limit - 1)

    def mask(self, width: int) -> Tensor:
        """Who sees whom, `rows x 1 x width x (longest + width)`: all that is there, and causally the rest."""
        longest = next(iter(self.states.values()))[0].shape[-2]
        there = torch.arange(longest) < self.lengths[:, None]
        causal = torch.ones(width, width, dtype=torch.bool).tril()
        seen = there[:, None, None].expand(-1, 1, width, -1)
        return torch.cat([seen, causal.expand(len(there), 1, -1, -1)], -1)


class Memory(Cache):
    """How `transformers` asks for a past, and how it hands over the present.

    Attributes:
        seen: layer -> keys and values of the pass's own tokens, from layer `since` on.
    """

    def __init__(self, past: Past | None, since: int | None) -> None:
        super().__init__(layers=[])
        self.past, self.since = past, since
        self.seen: dict[int, States] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
    ) -> States:
        if self.since is not None and layer_idx >= self.since:
            self.seen[layer_idx] = key_states, value_states
        if self.past is None:
            return key_states, value_states
        keys, values = self.past.states[layer_idx]
        return torch.cat([keys, key_states], -2), torch.cat([values, value_states], -2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Of the past; positions and mask are given, so nothing else depends on it."""
        return 0 if self.past is None else int(self.past.lengths.max())
