"""Provenance fields of result files."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import metake
from metake.models.editable import EditableModel


def provenance(
    name: str, model: EditableModel, methods: str | Iterable[str], *, dated: bool = True
) -> dict[str, Any]:
    """Model, method, versions and time, as plain values for a result file.

    Args:
        name: the model's name.
        model: the model.
        methods: one method, or all methods that the file compares.
        dated: include the time. False for a file with a digest, in which equal content gives equal bytes.

    Returns:
        Plain values by name.
    """
    said = {
        "model": name,
        "fingerprint": model.fingerprint(),
        "method": methods if isinstance(methods, str) else ", ".join(methods),
        "version": metake.__version__,
        "versions": {
            "metake": metake.__version__,
            **{package: version(package) for package in ("torch", "transformers")},
            "python": platform.python_version(),
            "device": str(model.device),
        },
    }
    return {**said, "written": now()} if dated else said


def now() -> str:
    """Current time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
