"""Changes of an update after it is solved.

rect    keeps, of each batch's update, the entries with the largest change relative to their weight
        (RECT, arXiv:2401.04700)
prune   bounds, once after the last batch, the singular values of the total update by the largest one of the
        unedited weight (PRUNE, arXiv:2405.16821)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from metake.components import Component, register
from metake.deltas import Delta
from metake.errors import MetakeError


class Postprocess(Component):
    """Choice of a postprocess; by default it changes nothing.

    Example:
        >>> import torch
        >>> import metake as mk
        >>> class Halved(mk.Postprocess):
        ...     kind = "halved"
        ...     def after_batch(self, delta, weights):
        ...         return mk.Delta({layer: (left / 2, right) for layer, (left, right) in delta.factors.items()})
        >>> delta = mk.Delta({1: (torch.ones(2, 1), torch.ones(3, 1))})
        >>> Halved().after_batch(delta, {}).to_dense(1)
        tensor([[0.5000, 0.5000, 0.5000],
                [0.5000, 0.5000, 0.5000]], dtype=torch.float64)
    """

    family = "postprocess"

    def after_batch(self, delta: Delta, weights: Mapping[int, Tensor]) -> Delta:
        """Update of one batch.

        Args:
            delta: the update as it was solved.
            weights: layer -> its weight before the batch, `d_v x d_k`.

        Returns:
            `delta` itself by default.
        """
        return delta

    def after_all(self, total: Delta, originals: Mapping[int, Tensor]) -> Delta:
        """Total update after the last batch.

        Args:
            total: sum of all batches.
            originals: layer -> its unedited weight, `d_v x d_k`.

        Returns:
            `total` itself by default.
        """
        return total

    def checked(self, delta: object, layers: Sequence[int]) -> Delta:
        """Result of `after_batch` or `after_all`.

        Args:
            delta: what it returned.
            layers: layers of the update that it received.

        Returns:
            The update itself.

        Raises:
            MetakeError: not a `Delta`, or one without layers or with other layers.
        """
        if not isinstance(delta, Delta):
            raise MetakeError(f"postprocess {self.kind}: must return a Delta, not {type(delta).__name__}")
        if not delta.layers or not set(delta.layers) <= set(layers):
            raise MetakeError(
                f"postprocess {self.kind}: must return a Delta of layers of the update, {list(layers)}, not {list(delta.layers)}"
            )
        return delta

    @property
    def acts_on_batch(self) -> bool:
        """Whether `after_batch` changes anything."""
        return type(self).after_batch is not Postprocess.after_batch

    @property
    def acts_on_total(self) -> bool:
        """Whether `after_all` changes anything."""
        return type(self).after_all is not Postprocess.after_all


@register
class NoPostprocess(Postprocess):
    """No change of the update."""

    kind = "none"


@register
class Rect(Postprocess):
    """RECT (arXiv:2401.04700): the entries with the largest relative change; the others are set to 0."""

    kind = "rect"
    aliases: ClassVar[dict[str, str]] = {"keep_ratio": "rect_keep_ratio"}

    keep_ratio: float = Field(0.4, gt=0, le=1, description="share of entries kept by rect")

    def after_batch(self, delta: Delta, weights: Mapping[int, Tensor]) -> Delta:
        """Update of one batch with its largest relative changes only.

        Args:
            delta: the update as it was solved.
            weights: layer -> its weight before the batch, `d_v x d_k`.

        Returns:
            A dense update.
        """
        retained = {
            n: largest_changes(delta.to_dense(n).to(weight), weight, self.keep_ratio)
            for n, weight in weights.items()
        }
        return Delta({}, delta.model, delta.note, retained)


@register
class Prune(Postprocess):
    """PRUNE (arXiv:2405.16821): the total update with bounded singular values."""

    kind = "prune"

    def after_all(self, total: Delta, originals: Mapping[int, Tensor]) -> Delta:
        """Total update with bounded singular values.

        Args:
            total: sum of all batches.
            originals: layer -> its unedited weight, `d_v x d_k`.

        Returns:
            An update of the same rank; see `bounded_spectrum`.
        """
        bounded = {
            n: bounded_spectrum(left, right, originals[n].to(left.device))
            for n, (left, right) in total.factors.items()
        }
        return Delta(bounded, total.model, total.note)


@register
class PruneAdded(Prune):
    """PRUNE as in the code of published comparisons: the bounded update is added to the unbounded one."""

    kind = "prune-added"

    def after_all(self, total: Delta, originals: Mapping[int, Tensor]) -> Delta:
        """Total update plus its bounded form.

        Args:
            total: sum of all batches.
            originals: layer -> its unedited weight, `d_v x d_k`.

        Returns:
            An update of twice the rank.
        """
        return total.then(super().after_all(total, originals))


def largest_changes(change: Tensor, weight: Tensor, keep: float) -> Tensor:
    """Change with the share `keep` of its entries that have the largest `|change / weight|`; the rest is 0.

    Args:
        change: `d_v x d_k`.
        weight: `d_v x d_k`.
        keep: share of entries, in (0, 1].

    Returns:
        Shape and dtype of `change`. As published, the entry at the border is kept.
    """
    relative = (change / (weight.to(change) + 1e-8)).abs().flatten()
    dropped = int((1 - keep) * len(relative))
    if dropped == 0:
        return change
    border = relative.kthvalue(dropped).values
    return torch.where((relative >= border).reshape(change.shape), change, 0)


def bounded_spectrum(left: Tensor, right: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of `left right^T` with singular values s above the weight's largest, s_max, at ln(s / s_max) + s_max.

    The update's n singular values come from an n x n matrix, the weight's from its Gram matrix; in fp64, because the
    Gram matrix squares the weight's condition.

    Args:
        left: `d_v x n`.
        right: `d_k x n`.
        weight: the unedited weight, `d_v x d_k`.

    Returns:
        New left and right, in the dtypes of the old ones.
    """
    q_left, r_left = torch.linalg.qr(left.double())
    q_right, r_right = torch.linalg.qr(right.double())
    u, s, vt = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
    wide_weight = weight.double() if weight.shape[0] <= weight.shape[1] else weight.double().T
    s_max = torch.linalg.eigvalsh(wide_weight @ wide_weight.T)[-1].clamp_min(0).sqrt().to(s.device)
    bounded = torch.where(s > s_max, torch.log(s / s_max) + s_max, s)
    return (q_left @ (u * bounded)).to(left), (q_right @ vt.T).to(right)
