"""Values of options that a shell completes: names of models, methods and settings; no model library is imported."""

from __future__ import annotations

from pathlib import Path

from metake.files import read_json
from metake.packages import entry_points
from metake.shipped import ASSETS

NAMES = ASSETS / "names.json"  # written by experiments/describe.py


def shipped(kind: str) -> list[str]:
    """Shipped names.

    Args:
        kind: `models`, `methods` or `settings`.

    Returns:
        The names.
    """
    return list(read_json(NAMES)[kind])


def complete_model(incomplete: str) -> list[str]:
    """Models that begin with a text: known names, folders and GGUF files.

    Args:
        incomplete: the text.

    Returns:
        The values.
    """
    paths = (
        sorted(Path().glob(f"{incomplete}*"))
        if not Path(incomplete).is_absolute() and ".." not in incomplete
        else []
    )
    local = [str(path) for path in paths if path.suffix == ".gguf" or (path / "config.json").is_file()]
    return [name for name in [*shipped("models"), *local] if name.startswith(incomplete)]


def complete_method(incomplete: str) -> list[str]:
    """Methods that begin with a text, those of installed packages included; of a list, its last entry is completed.

    Args:
        incomplete: the text.

    Returns:
        The values.
    """
    before, comma, last = incomplete.rpartition(",")
    installed = [point.name for point in entry_points(group="metake.method_rows")]
    return [f"{before}{comma}{name}" for name in [*shipped("methods"), *installed] if name.startswith(last)]


def complete_setting(incomplete: str) -> list[str]:
    """Settings that begin with a text, as `NAME=`.

    Args:
        incomplete: the text.

    Returns:
        The values.
    """
    return [f"{name}=" for name in shipped("settings") if name.startswith(incomplete)]
