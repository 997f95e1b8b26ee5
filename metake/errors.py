"""The one exception for whatever a user can mend."""

from __future__ import annotations


class MetakeError(Exception):
    """Bad input or an impossible wish; its text is one line that says what, where and the remedy."""
