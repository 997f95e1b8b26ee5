"""Entry points of installed packages."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from importlib import metadata
from typing import Any

Folders = tuple[tuple[str, int], ...]  # of the search path, each with the time of its last change


def entry_points(group: str) -> tuple[metadata.EntryPoint, ...]:
    """Entry points of a group, from one search for all groups until a folder of the search path changes.

    A search reads the metadata of every installed package, and a command needs each of ten groups several times.

    Args:
        group: e.g. `metake.geometry`.

    Returns:
        Those of all packages.
    """
    return _of_group(tuple((folder, _changed(folder)) for folder in sys.path), group)


def _changed(folder: str) -> int:
    """Time of the last change of a folder, in ns; 0 if there is none."""
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=64)
def _of_group(folders: Folders, group: str) -> tuple[metadata.EntryPoint, ...]:
    """Those of a group."""
    return tuple(_search(folders).select(group=group))


@lru_cache(maxsize=1)
def _search(_: Folders) -> Any:
    """Those of all groups; their class depends on the version of Python."""
    return metadata.entry_points()
