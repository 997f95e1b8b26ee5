"""SPHERE (arXiv:2510.01172): updates with less of the principal directions of the weight's rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from metake.components import register
from metake.deltas import Delta
from metake.solvers.postprocess import Postprocess


@register
class Sphere(Postprocess):
    """SPHERE: `D (I - alpha U U^T)` with the principal directions U of the weight's normalized rows."""

    kind = "sphere"

    cumulative_ratio: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="share of the sum of the eigenvalues that the principal directions exceed, with the fewest of them",
    )
    suppression_strength: float = Field(
        0.5, ge=0, le=1, description="alpha, share of the update that is removed along these directions"
    )

    def after_batch(self, delta: Delta, weights: Mapping[int, Tensor]) -> Delta:
        """Update of one batch with its part along the principal directions reduced.

        Args:
            delta: the update as it was solved.
            weights: layer -> its weight before the batch, `d_v x d_k`.

        Returns:
            An update of the same rank.
        """
        factors = {}
        for layer, (left, right) in delta.factors.items():
            u = principal_directions(weights[layer], self.cumulative_ratio)
            wide = right.to(u)
            factors[layer] = left, (wide - self.suppression_strength * u @ (u.T @ wide)).to(right)
        return replace(delta, factors=factors)


def principal_directions(weight: Tensor, share: float) -> Tensor:
    """Eigenvectors of `W^T W` for rows of length 1: the fewest, of the largest eigenvalues, whose sum exceeds a share of all.

    They are the right singular vectors of the normalized weight, from its smaller Gram matrix, in fp64: the Gram matrix
    squares the condition.

    Args:
        weight: W, `d_v x d_k`.
        share: share of the sum of the eigenvalues, in (0, 1).

    Returns:
        `d_k x r`, with orthonormal columns.
    """
    rows = weight.double()
    rows = rows / (rows.norm(dim=1, keepdim=True) + 1e-8)
    tall = rows.shape[0] > rows.shape[1]
    values, vectors = torch.linalg.eigh(rows.T @ rows if tall else rows @ rows.T)
    values = values.flip(0).clamp_min(0)
    count = int((values.cumsum(0) / values.sum() <= share).sum()) + 1
    vectors = vectors.flip(1)[:, :count]
    right: Tensor = vectors if tall else rows.T @ vectors / values[:count].sqrt()
    return right
