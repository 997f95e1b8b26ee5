"""KV cache: attention's keys and values of earlier tokens, which a pass over later tokens reads.

Under causal attention the keys and values of a token depend on the tokens before it only. A pass over the last tokens
of some rows, given the cache of the earlier ones, therefore gives the same result as a pass over whole rows.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers.cache_utils import Cache

KeyValues = tuple[Tensor, Tensor]
"""Attention's keys and values of one layer, each `rows x heads x length x d`."""


class KVCache(Cache):
    """Attention's keys and values of the tokens before those of a pass, as a `Cache` of `transformers`.

    Args:
        key_values: layer -> keys and values, `rows x heads x longest x d`, padded; empty if no token is cached.
        lengths: `rows`, number of cached tokens of each row.
        attention_mask: `rows x longest`, True at cached tokens; by default the first `lengths` of each row.
        masks: masks and positions of earlier passes over the same rows, by number of new tokens.

    Attributes:
        recorded: layer -> keys and values of the cached and of the new tokens of a pass; see `recording`.
    """

    def __init__(
        self,
        key_values: Mapping[int, KeyValues],
        lengths: Tensor,
        attention_mask: Tensor | None = None,
        masks: dict[int, tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        super().__init__(layers=[])
        self.key_values, self.lengths, self.attention_mask = key_values, lengths, attention_mask
        self.masks = {} if masks is None else masks
        self.record_from: int | None = None
        self.recorded: dict[int, KeyValues] = {}

    def recording(self, first: int | None) -> KVCache:
        """Cache for one pass, which records keys and values.

        Args:
            first: first layer whose keys and values are recorded; None for no layer.

        Returns:
            A cache with the same keys, values and masks, and nothing recorded.
        """
        cache = copy.copy(self)
        cache.record_from, cache.recorded = first, {}
        return cache

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
    ) -> KeyValues:
        """Keys and values that attention reads: the cached ones, then those of the new tokens.

        Args:
            key_states: keys of the new tokens, `rows x heads x width x d`.
            value_states: values of the new tokens, same shape.
            layer_idx: the layer.

        Returns:
            Keys and values, `rows x heads x (longest + width) x d`.
        """
        if self.key_values:
            keys, values = self.key_values[layer_idx]
            key_states = torch.cat([keys, key_states], -2)
            value_states = torch.cat([values, value_states], -2)
        if self.record_from is not None and layer_idx >= self.record_from:
            self.recorded[layer_idx] = key_states, value_states
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of cached tokens of the longest row; `transformers` reads it, positions and mask are given.

        Args:
            layer_idx: ignored, all layers have the same length.

        Returns:
            0 without cached tokens.
        """
        return int(self.lengths.max()) if self.key_values else 0

    def rows(self, index: Tensor) -> KVCache:
        """Cache of some rows.

        Args:
            index: indices of the rows; a row may occur several times.

        Returns:
            A cache with `len(index)` rows.
        """
        mask = None if self.attention_mask is None else self.attention_mask[index]
        return KVCache(select_rows(self.key_values, index), self.lengths[index], mask)

    def mask_and_positions(
        self, width: int, limit: int | None, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Attention mask and positions of the tokens that follow the cached ones.

        Args:
            width: number of new tokens per row.
            limit: number of positions of the model; positions of padding are clamped below it.
            device: device of both results.

        Returns:
            `rows x 1 x width x (longest + width)`, added to attention's scores (0 at cached tokens and at new tokens
            up to the query's own), and positions, `rows x width`.
        """
        if width not in self.masks:
            values = next(iter(self.key_values.values()))[0]
            cached = self.attention_mask
            if cached is None:
                cached = torch.arange(values.shape[-2]) < self.lengths[:, None]
            visible = torch.cat(
                [
                    cached[:, None, None].expand(-1, 1, width, -1),
                    torch.ones(width, width, dtype=torch.bool).tril().expand(len(cached), 1, -1, -1),
                ],
                -1,
            )
            mask = torch.zeros(visible.shape, dtype=values.dtype).masked_fill(
                ~visible, torch.finfo(values.dtype).min
            )
            at = self.lengths[:, None] + torch.arange(width)
            positions = at if limit is None else at.clamp(max=limit - 1)
            self.masks[width] = mask.to(device), positions.to(device)
        return self.masks[width]


def select_rows(key_values: Mapping[int, KeyValues], index: Tensor) -> dict[int, KeyValues]:
    """Keys and values of some rows.

    Args:
        key_values: layer -> keys and values of all rows.
        index: indices of the rows.

    Returns:
        Layer -> keys and values with `len(index)` rows.
    """
    return {
        layer: (keys[index.to(keys.device)], values[index.to(values.device)])
        for layer, (keys, values) in key_values.items()
    }
