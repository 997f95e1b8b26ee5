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
from metake.files import as_plain, read_record, read_tensors, write_record, write_tensors
from metake.requests import Request
from metake.result import EditResult

MEMORY = "metake-memory-2"


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
            write_record(path, self.key)
            return
        earlier = read_record(path, f"remove {self.folder}: its batches are edited again")
        wrong = [name for name, value in as_plain(self.key).items() if earlier.get(name) != value]
        if wrong:
            raise MetakeError(
                f"{self.folder}: holds a run with another {wrong[0]}; give another --out, or remove it"
            )

    def _place(self, index: int) -> Path:
        return self.folder / f"batch-{index:04d}"

    def _remedy(self, index: int) -> str:
        return f"remove {self._place(index)}: the batch is edited again"

    def save(self, index: int, result: EditResult) -> dict[str, Any]:
        """Write a batch, its summary last: a batch without one is done again."""
        place, summary = self._place(index), result.summary()
        memory = {str(n): keys for n, keys in result.learned.items()}
        result.delta.save(place)
        write_tensors(place / "memory.safetensors", MEMORY, memory, {"delta": result.delta.digest})
        write_record(place / "batch.json", {"index": index, "delta": result.delta.digest, "summary": summary})
        return summary

    def restore(self, index: int, editor: Editor, requests: tuple[Request, ...]) -> dict[str, Any] | None:
        """Put a finished batch into the model; its summary, or None if it was not finished.

        Raises:
            MetakeError: a file of the batch is damaged, or belongs to another batch.
        """
        place, remedy = self._place(index), self._remedy(index)
        if not (place / "batch.json").is_file():
            return None
        batch = read_record(place / "batch.json", remedy)
        memory, meta = read_tensors(place / "memory.safetensors", MEMORY, remedy)
        delta = Delta.load(place, remedy)
        if (batch.get("index"), meta.get("delta")) != (index, batch.get("delta")) or delta.digest != meta[
            "delta"
        ]:
            raise MetakeError(f"{place}: files of different batches; {remedy}")
        learned: dict[int, Tensor] = {int(name): keys for name, keys in memory.items()}
        summary = batch["summary"]
        editor.restore(requests, delta, learned, seconds=float(summary["seconds"]))
        return summary

    def load_measurement(self, index: int) -> Measurement | None:
        """The measurement that was taken after a batch, if it was."""
        path = self._place(index) / "measured.json"
        if not path.is_file():
            return None
        found = read_record(path, f"remove it: what batch {index} left is measured again")
        if found.get("index") != index:
            raise MetakeError(f"{path}: of another batch; remove it")
        return Measurement.of_plain(found["measurement"])

    def save_measurement(self, index: int, measurement: Measurement) -> None:
        write_record(
            self._place(index) / "measured.json", {"index": index, "measurement": measurement.plain()}
        )
