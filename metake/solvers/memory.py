"""What a method remembers of earlier batches."""

from __future__ import annotations

from typing import ClassVar

from metake.components import Component, register


class Memory(Component):
    """Choice of a memory.

    Attributes:
        remembers_keys: whether the geometry protects the keys of earlier batches.
    """

    family = "memory"
    remembers_keys: ClassVar[bool] = False


@register
class NoMemory(Memory):
    """Every batch is solved as if it were the first."""

    kind = "none"


@register
class PastKeys(Memory):
    """The keys of earlier batches are added to the geometry, G + K_p K_p^T (AlphaEdit)."""

    kind = "past-keys"
    remembers_keys = True
