"""What a method remembers of earlier batches."""

from __future__ import annotations

from typing import ClassVar

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


@register
class NoMemory(Memory):
    """No memory: every batch is solved like the first one."""

    kind = "none"


@register
class PastKeys(Memory):
    """Geometry with the keys of earlier batches, G + K_p K_p^T (AlphaEdit)."""

    kind = "past-keys"
    remembers_keys = True
