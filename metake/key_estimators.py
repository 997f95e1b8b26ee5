"""Key estimators: one key per request from its keys in several contexts."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from metake.components import Component, register


class KeyEstimator(Component):
    """Choice of a key estimator; a subclass defines `estimate`.

    Attributes:
        exact_at_bare: whether an equality constraint holds at the bare prompt's key, not at the estimate.

    Example:
        >>> import torch
        >>> import metake as mk
        >>> class Bare(mk.KeyEstimator):
        ...     kind = "bare"
        ...     def estimate(self, keys):
        ...         return keys[:, 0]
        >>> Bare().estimate(torch.tensor([[[1.0], [3.0]]]))
        tensor([[1.]])
    """

    family = "keys"
    exact_at_bare: ClassVar[bool] = False

    @abstractmethod
    def estimate(self, keys: Tensor) -> Tensor:
        """Key of each request.

        Args:
            keys: `requests x contexts x d_k`, the bare prompt first.

        Returns:
            `requests x d_k`.
        """


@register
class BareAndContexts(KeyEstimator):
    """Mean of the bare prompt's key and the contexts' mean key, as in MEMIT's code."""

    kind = "bare-and-contexts"

    def estimate(self, keys: Tensor) -> Tensor:
        """Mean of the bare prompt's key and the contexts' mean key.

        Args:
            keys: `requests x contexts x d_k`, the bare prompt first.

        Returns:
            `requests x d_k`.
        """
        if keys.shape[1] == 1:
            return keys[:, 0]
        return (keys[:, 0] + keys[:, 1:].mean(1)) / 2


@register
class ContextMean(KeyEstimator):
    """Mean over all contexts, the bare prompt included (R-ROME, arXiv:2403.07175)."""

    kind = "context-mean"

    def estimate(self, keys: Tensor) -> Tensor:
        """Mean over all contexts.

        Args:
            keys: `requests x contexts x d_k`, the bare prompt first.

        Returns:
            `requests x d_k`.
        """
        return keys.mean(1)


@register
class RomeKeys(ContextMean):
    """Keys of ROME's code: the update has the direction of the mean key and the length of the bare prompt's key."""

    kind = "rome"
    exact_at_bare = True
