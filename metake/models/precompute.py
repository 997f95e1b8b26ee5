"""Activations that a plan computes once: the stream up to a block, and above it the KV cache of constant tokens.

Each pass has a budget of padded tokens. Rows that are later run together may have prefixes of different lengths.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from metake.models.editable import EditableModel
from metake.models.kv_cache import KeyValues, select_rows
from metake.models.prefix_batch import PrefixBatch
from metake.models.tokens import length_buckets
from metake.models.trace import run


def stream_after(
    model: EditableModel,
    batch: PrefixBatch,
    key_values: Mapping[int, KeyValues],
    block: int,
    lengths: Tensor,
    budget: int,
) -> Tensor:
    """Residual stream after a block at the suffix tokens, `rows x width x d_v`; 0 at padding.

    Args:
        model: the model.
        batch: the rows.
        key_values: of the prefixes, from `PrefixBatch.prefix_key_values`.
        block: the block.
        lengths: `rows`, length of each suffix.
        budget: padded tokens per pass.

    Returns:
        The stream, in the dtype of the model.
    """
    stream: Tensor | None = None
    for group in length_buckets(lengths.tolist(), budget):
        width = int(lengths[group].max())
        cache = batch.prefix_cache(key_values, group, range(block + 1))
        trace = run(model, batch.ids.suffix[group, :width], outputs=(block,), stop=block, cache=cache)
        found = trace.outputs[block]
        if stream is None:
            stream = found.new_zeros(len(lengths), batch.width, found.shape[2])
        stream[group, :width] = found
    assert stream is not None
    return stream


def key_values_above(
    model: EditableModel,
    batch: PrefixBatch,
    key_values: Mapping[int, KeyValues],
    block: int,
    stream: Tensor,
    constant: Tensor,
    budget: int,
) -> dict[int, KeyValues]:
    """Attention's keys and values above a block, of the prefixes and of the constant suffix tokens.

    Args:
        model: the model.
        batch: the rows.
        key_values: of the prefixes, from `PrefixBatch.prefix_key_values`.
        block: the block.
        stream: residual stream after the block, from `stream_after`.
        constant: `rows`, number of suffix tokens of each row whose keys and values are cached.
        budget: padded tokens per pass.

    Returns:
        Layer -> keys and values, `rows x heads x (longest prefix + most constant tokens) x d`.
    """
    upper = range(block + 1, len(model))
    above: dict[int, KeyValues] = {}
    if key_values:
        above = select_rows({layer: key_values[layer] for layer in upper}, batch.prefix_index)
    prefix, most = int(batch.prefix_lengths.max()), int(constant.max())
    rows = constant.nonzero()[:, 0]
    for i, chunk in enumerate(length_buckets(constant[rows].tolist(), budget)):
        group = rows[chunk].tolist()
        width = int(constant[group].max())
        trace = run(
            model,
            batch.ids.suffix[group, :width],
            start=block + 1,
            hidden=stream[group, :width],
            stop=len(model) - 1,
            cache=batch.prefix_cache(key_values, group, upper),
            record_from=block + 1,
        )
        for layer, found in trace.key_values.items():
            if i == 0:
                keys, values = (
                    x.new_zeros(len(constant), x.shape[1], prefix + most, x.shape[3]) for x in found
                )
                if layer in above:
                    keys[:, :, :prefix], values[:, :, :prefix] = above[layer]
                above[layer] = keys, values
            for held, x in zip(above[layer], found, strict=True):
                held[group, :, prefix : prefix + width] = x[:, :, prefix:]
    return above
