"""The exception for input that a user can correct."""

from __future__ import annotations


class MetakeError(Exception):
    """Invalid input. Its text is one line that names the argument or file, the fault and the remedy.

    Example:
        >>> import metake as mk
        >>> try:
        ...     mk.memit("layers")
        ... except mk.MetakeError as error:
        ...     print(error)
        memit: must be given layers, e.g. [4, 5, 6], or a model, not str
    """
