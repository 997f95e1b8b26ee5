"""What a method remembers of earlier batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from metake.components import Component, register


class Memory(Component):
    """Choice of a memory.

    Attributes:
        remembers_keys: whether the geometry protects the keys of earlier batches.

    Example:
        >>> import metake as mk
        >>> mk.alphaedit([1, 2]).memory.remembers_keys
        True
        >>> isinstance(mk.memit([1, 2]).memory, mk.Memory)
        True
    """

    family = "memory"
    remembers_keys: ClassVar[bool] = False

    def fold(self, folded: Tensor | None, recent: Sequence[Tensor]) -> Tensor | None:
        """Second moment of all keys of a layer, in place of the keys themselves.

        Args:
            folded: moment of earlier keys, `d_k x d_k`; None if there is none.
            recent: keys of the batches since, `d_k x n` each.

        Returns:
            `d_k x d_k`; None, as here, to keep the keys.
        """
        return None


@register
class NoMemory(Memory):
    """No memory: every batch is solved like the first one."""

    kind = "none"


@register
class PastKeys(Memory):
    """Geometry with the keys of earlier batches, G + K_p K_p^T (AlphaEdit).

    Keys are folded into their second moment P once that is cheaper. Woodbury's system of p keys takes `2 d_k^2 p` flops
    of every batch to first order, a factorization of G + P takes `d_k^3 / 3` once: keys are folded from `p = d_k / 6` on.

    Attributes:
        fold_share: number of recent keys at which they are folded, as a share of d_k.
    """

    kind = "past-keys"
    remembers_keys = True
    fold_share: ClassVar[float] = 1 / 6

    def fold(self, folded: Tensor | None, recent: Sequence[Tensor]) -> Tensor | None:
        """Second moment of all keys of a layer, in fp64; None while the recent keys are few.

        Args:
            folded: moment of earlier keys, `d_k x d_k`; None if there is none.
            recent: keys of the batches since, `d_k x n` each.

        Returns:
            `d_k x d_k`, or None.
        """
        if not recent or sum(keys.shape[1] for keys in recent) < self.fold_share * len(recent[0]):
            return None
        keys = torch.cat([*recent], 1).double()
        moment = keys @ keys.T
        return moment if folded is None else folded.to(moment) + moment
