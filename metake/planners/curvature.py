"""K-FAC curvature of the model's own loss at its down-projections, and the projection of a change onto low curvature.

The curvature of the loss in the weight W of a layer is taken as `A (x) B`, of the moments `A = E[k k^T]` of its keys and
`B = E[g g^T]` of the gradients g of the loss with respect to its outputs, so that a change D costs `tr(B D A D^T)` (X12).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from metake.components import Component, register
from metake.errors import MetakeError
from metake.geometry.covariance import token_windows
from metake.geometry.statistics import Statistics
from metake.models.editable import EditableModel
from metake.models.tokens import Row
from metake.models.trace import frozen
from metake.planners.normalized_gradient import answer_keys_and_gradients

WINDOW, ROWS = 128, 16  # tokens per row and rows per pass of the gradients' moments


@dataclass(frozen=True)
class LowCurvatureProjector:
    """Projector of a layer's change onto products of eigenvectors of B and A with a small product of eigenvalues.

    Attributes:
        left: eigenvectors of B, `d_v x d_v`.
        right: eigenvectors of A, `d_k x d_k`.
        keep: whether the product of a pair of eigenvectors is kept, `d_v x d_k`.
    """

    left: Tensor
    right: Tensor
    keep: Tensor

    @classmethod
    def of(cls, key_moment: Tensor, gradient_moment: Tensor, energy: float) -> LowCurvatureProjector:
        """Projector that removes the products of largest curvature.

        Eigenvectors are computed in fp64; the projector has the moments' dtype.

        Args:
            key_moment: A, `d_k x d_k`.
            gradient_moment: B, `d_v x d_v`.
            energy: share of the curvature's trace; the fewest products that hold it are removed, with all equal ones.

        Returns:
            The projector.
        """
        values_a, right = torch.linalg.eigh(key_moment.double())
        values_b, left = torch.linalg.eigh(gradient_moment.double())
        curvature = torch.outer(values_b.clamp_min(0), values_a.clamp_min(0))
        ordered = curvature.flatten().sort(descending=True).values
        share = ordered.cumsum(0) / ordered.sum()
        border = ordered[min(int((share < energy).sum()), len(ordered) - 1)]
        dtype = key_moment.dtype
        return cls(left.to(dtype), right.to(dtype), curvature < border)

    def __call__(self, change: Tensor) -> Tensor:
        """Change, or gradient, without its part in directions of high curvature.

        Args:
            change: `d_v x d_k`.

        Returns:
            Same shape, dtype and device.
        """
        left, right = self.left.to(change), self.right.to(change)
        inside = (left.T @ change @ right) * self.keep.to(change)
        return left @ inside @ right.T


class Projection(Component):
    """Choice of a projection of the gradients of fine-tuning; by default there is none.

    Attributes:
        needs_curvature: whether it uses the moments of keys and gradients.
    """

    family = "projection"
    needs_curvature: ClassVar[bool] = False

    def projector(self, statistics: Statistics | None, layer: int) -> LowCurvatureProjector | None:
        """Projector of a layer's gradient.

        Args:
            statistics: moments of keys and gradients; None if the projection needs none.
            layer: an edited layer.

        Returns:
            None, as here, to leave gradients as they are.
        """
        return None


@register
class NoProjection(Projection):
    """Gradients as they are."""

    kind = "none"


@register
class LowCurvature(Projection):
    """CrispEdit (arXiv:2602.15823): gradients without their part in directions of high K-FAC curvature."""

    kind = "low-curvature"
    needs_curvature = True
    published: ClassVar[dict[str, str]] = {"energy_threshold": "energy"}

    energy: float = Field(
        0.9,
        gt=0,
        le=1,
        description="share of the curvature's trace; gradients lose the directions that hold it [energy_threshold]",
    )

    def projector(self, statistics: Statistics | None, layer: int) -> LowCurvatureProjector | None:
        """Projector of a layer's gradient.

        Args:
            statistics: moments of keys and gradients.
            layer: an edited layer.

        Returns:
            The projector.

        Raises:
            MetakeError: the statistics have no moments of gradients, or one moment per expert.
        """
        if statistics is None or layer not in statistics.gradients:
            raise MetakeError(
                f"statistics: hold no moments of gradients, which the projection {self.kind} uses; "
                "metake.statistics_for(model, layers=..., source=FILE, gradients=True) collects them beside those of a file"
            )
        if statistics[layer].ndim != 2 or statistics.is_projection:
            raise MetakeError(
                f"projection {self.kind}: needs one second moment of keys per layer, not experts' or null-space projections"
            )
        return LowCurvatureProjector.of(statistics[layer], statistics.gradients[layer], self.energy)


def gradient_moments(
    model: EditableModel, tokenizer: Any, text: str, layers: Sequence[int], tokens: int | None = None
) -> dict[int, Tensor]:
    """Second moments `E[g g^T]` of the gradients of the NLL of a text with respect to the outputs of down-projections.

    The NLL is summed over the tokens of a window, so that g is the effect of one output on all later tokens.

    Args:
        model: the model, unedited.
        tokenizer: its tokenizer.
        text: the text.
        layers: layers whose outputs are meant.
        tokens: number of tokens that are read; all if None.

    Returns:
        Layer -> `d_v x d_v`, fp32; sums are formed in fp64.
    """
    window = min(WINDOW, model.max_positions or WINDOW)
    rows = [
        Row(tuple(ids), 0, len(ids) - 1)
        for ids in token_windows(tokenizer, text, window, tokens)
        if len(ids) > 1
    ]
    sums = {layer: torch.zeros(model.d_v, model.d_v, dtype=torch.float64) for layer in layers}
    with frozen(model.model):
        for start in range(0, len(rows), ROWS):
            group = rows[start : start + ROWS]
            total = sum(row.answer for row in group)
            found = answer_keys_and_gradients(model, group, layers).gradients
            for layer in layers:
                g = found[layer].cpu().double() * total  # of the sum, not of the mean
                sums[layer] += g.T @ g
    count = sum(row.answer for row in rows)
    return {layer: (moment / count).float() for layer, moment in sums.items()}
