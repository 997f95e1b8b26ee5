"""What some methods do to an update after it is solved, so that it disturbs less.

rect    of each batch's update keep the entries that change their weight most, relative to it
        (RECT, arXiv:2401.04700)
prune   of the whole change, once at the end, pull singular values above the largest of the
        unedited weight towards it (PRUNE, arXiv:2405.16821)
"""

from __future__ import annotations

import torch
from torch import Tensor


def largest_changes(change: Tensor, weight: Tensor, keep: float) -> Tensor:
    """`change` with the share `keep` of its entries, those of largest `|change / weight|`; the rest 0.

    As published, the entry at the border is kept. Shapes `d_v x d_k`, result in `change`'s dtype.
    """
    relative = (change / (weight.to(change) + 1e-8)).abs().flatten()
    dropped = int((1 - keep) * len(relative))
    if dropped == 0:
        return change
    border = relative.kthvalue(dropped).values
    return torch.where((relative >= border).reshape(change.shape), change, 0)


def bounded_spectrum(left: Tensor, right: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """`left right^T` with singular values s above `weight`'s largest, s_max, at ln(s / s_max) + s_max.

    The update's n singular values come from an n x n matrix, the weight's from its Gram matrix; in
    fp64, because the Gram matrix squares the weight's condition.

    Args:
        left, right: `d_v x n` and `d_k x n`.
        weight: the unedited weight, `d_v x d_k`.
    """
    q_left, r_left = torch.linalg.qr(left.double())
    q_right, r_right = torch.linalg.qr(right.double())
    u, s, vt = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
    thin = weight.double() if weight.shape[0] <= weight.shape[1] else weight.double().T
    most = torch.linalg.eigvalsh(thin @ thin.T)[-1].clamp_min(0).sqrt().to(s.device)
    bounded = torch.where(s > most, torch.log(s / most) + most, s)
    return (q_left @ (u * bounded)).to(left), (q_right @ vt.T).to(right)
