"""Batches of a run on disk: a killed run goes on with the same weights and ends with the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from metake.deltas import Delta
from metake.editor import Editor
from metake.errors import MetakeError
from metake.evaluation.metrics import Measurement
from metake.files import read_json, read_tensors, write_json, write_tensors
from metake.requests import Request
from metake.result import EditResult

MEMORY = "metake-memory-1"


@dataclass(frozen=True)
class Checkpoints:
    """A folder with one subfolder per batch: its delta, the keys that were learned, its summary.

    Attributes:
        folder: of this run alone.
        key: everything that the run's numbers depend on, as plain values; a folder of another run is
            refused.
    """

    folder: Path
    key: Mapping[str, Any]

    def __post_init__(self) -> None:
        path = self.folder / "run.json"
        if not path.is_file():
            write_json(path, self.key)
            return
        earlier = read_json(path)
        wrong = [
            name for name in self.key if not isinstance(earlier, dict) or earlier.get(name) != self.key[name]
        ]
        if wrong:
            raise MetakeError(
                f"{self.folder}: holds a run with another {wrong[0]}; give another --out, or remove it"
            )

    def _place(self, index: int) -> Path:
        return self.folder / f"batch-{index:04d}"

    def save(self, index: int, result: EditResult) -> dict[str, Any]:
        """Write a batch, its summary last: a batch without one is done again."""
        place, summary = self._place(index), result.summary()
        result.delta.save(place)
        write_tensors(
            place / "memory.safetensors", {str(n): k for n, k in result.learned.items()}, {"format": MEMORY}
        )
        write_json(place / "batch.json", summary)
        return summary

    def restore(self, index: int, editor: Editor, requests: tuple[Request, ...]) -> dict[str, Any] | None:
        """Put a finished batch into the model; its summary, or None if it was not finished."""
        place = self._place(index)
        if not (place / "batch.json").is_file():
            return None
        memory, _ = read_tensors(place / "memory.safetensors", MEMORY, f"remove {place}")
        learned: dict[int, Tensor] = {int(name): keys for name, keys in memory.items()}
        summary = read_json(place / "batch.json")
        editor.restore(requests, Delta.load(place), learned, seconds=float(summary["seconds"]))
        return summary

    def look(self, index: int) -> Measurement | None:
        """The measurement that was taken after a batch, if it was."""
        path = self._place(index) / "measured.json"
        return Measurement.of_plain(read_json(path)) if path.is_file() else None

    def keep_look(self, index: int, measurement: Measurement) -> None:
        write_json(self._place(index) / "measured.json", measurement.plain())
