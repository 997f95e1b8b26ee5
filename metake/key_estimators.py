"""How the keys of a request in several contexts become one key."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from metake.components import Component, register


class KeyEstimator(Component):
    """Choice of a key estimator; a subclass defines `estimate`."""

    family = "keys"
    exact_at_bare: ClassVar[bool] = (
        False  # whether an exact fit holds at the bare prompt's key, not at the estimate
    )

    def estimate(self, keys: Tensor) -> Tensor:
        """`requests x contexts x d_k`, the bare prompt first -> `requests x d_k`."""
        raise NotImplementedError


@register
class BareAndContexts(KeyEstimator):
    """Mean of the bare prompt's key and the contexts' mean key, as in MEMIT's code."""

    kind = "bare-and-contexts"

    def estimate(self, keys: Tensor) -> Tensor:
        if keys.shape[1] == 1:
            return keys[:, 0]
        return (keys[:, 0] + keys[:, 1:].mean(1)) / 2


@register
class ContextMean(KeyEstimator):
    """Mean over all contexts, the bare prompt included (R-ROME, arXiv:2403.07175)."""

    kind = "context-mean"

    def estimate(self, keys: Tensor) -> Tensor:
        return keys.mean(1)


@register
class RomeKeys(ContextMean):
    """ROME's code: the update's direction is that of the mean key, its length that of the bare prompt's key."""

    kind = "rome"
    exact_at_bare = True
