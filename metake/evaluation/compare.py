"""Several methods on the same records; kept until all callers use `Protocol`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metake.data.records import Record
from metake.evaluation.protocol import Protocol
from metake.evaluation.results import Results
from metake.geometry.statistics import Statistics
from metake.methods.base import Method
from metake.models.load import EditableModel

Comparison = Results


def compare(
    loaded: EditableModel,
    records: Sequence[Record],
    methods: Sequence[Method],
    statistics: Statistics | None,
    *,
    batch: int,
    consecutive: bool = True,
    text: str | None = None,
    generate: bool = True,
    folder: Path | None = None,
    tick: Callable[[int], object] = lambda done: None,
    **extra: Any,
) -> Comparison:
    """Results of `Protocol.run`."""
    protocol = Protocol(records, batch, consecutive, generate, text)
    return protocol.run(loaded, methods, statistics, folder, on_edit=tick, **extra)
