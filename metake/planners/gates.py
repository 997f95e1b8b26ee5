"""Gates: the factor with which each residual of a batch enters the stream at each token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metake.models.trace import upcast
from metake.prompts import RowSpec


def token_gates(specs: Sequence[RowSpec], begins: Sequence[int], above: Tensor, size: int) -> Tensor:
    """Gates of residuals at the lookup tokens: 1 there, 0 elsewhere.

    Args:
        specs: the rows.
        begins: position of each row's first token in `above`.
        above: the stream, `rows x length x d_v`.
        size: number of windows of the batch, n.

    Returns:
        `rows x length x n` if a row has several windows, otherwise `rows x length`, for its owner's residual.
    """
    gates = torch.zeros(above.shape[:2], device=above.device, dtype=upcast(above).dtype)
    at = [
        (i, column - begin, window)
        for i, (spec, begin) in enumerate(zip(specs, begins, strict=True))
        if spec.has_residual
        for window, column in zip(spec.windows, spec.row.lookups, strict=True)
    ]
    rows, columns, windows = torch.tensor(at, dtype=torch.long).reshape(-1, 3).T
    if _has_several(specs):
        gates = gates.new_zeros(*gates.shape, size)
        gates[rows, columns, windows] = 1
    else:
        gates[rows, columns] = 1
    return gates


def with_earlier(stream: Tensor, specs: Sequence[RowSpec], begins: Tensor, residuals: Tensor) -> Tensor:
    """Stream of rows with the residuals of earlier windows in place; see `RowSpec.earlier`.

    Args:
        stream: `rows x length x d_v`.
        specs: the rows.
        begins: position of each row's first token in `stream`.
        residuals: `n x d_v`, of all windows.

    Returns:
        Shape and dtype of `stream`; the sum is formed in fp32 at least.
    """
    at = [
        (i, column - int(begins[i]), spec.owner - len(spec.earlier) + j)
        for i, spec in enumerate(specs)
        for j, column in enumerate(spec.earlier)
    ]
    if not at:
        return stream
    rows, columns, windows = torch.tensor(at, device=stream.device).T
    moved = upcast(stream[rows, columns]) + residuals.to(stream.device)[windows]
    return stream.index_put((rows, columns), moved.to(stream.dtype))


def channel_gates(keys: Tensor, channel: Tensor, specs: Sequence[RowSpec], joint: bool) -> Tensor:
    """Gates of residuals that are written through the channel, `q_j . k_t` at every token.

    Args:
        keys: keys of the rows, or of their shared prefixes if joint, `rows x length x d_k`.
        channel: Q, `d_k x n`.
        specs: the rows.
        joint: whether every row receives every residual, not only its own.

    Returns:
        `rows x length x n` if a row receives several residuals, otherwise `rows x length`, for its owner's residual.
    """
    q = channel.to(keys)
    if joint:
        return keys @ q
    if not _has_several(specs):
        return torch.einsum("btk,kb->bt", keys, q[:, [spec.owner for spec in specs]])
    own = torch.tensor([[window in spec.windows for window in range(q.shape[1])] for spec in specs])
    return (keys @ q) * own.to(keys)[:, None]


def _has_several(specs: Sequence[RowSpec]) -> bool:
    """Whether a row has several windows."""
    return any(len(spec.windows) > 1 for spec in specs)
