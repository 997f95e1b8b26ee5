"""Checkpoints of a run, of bounded size: a killed run resumes with the same weights and ends with the same numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from metake.data.record import Record
from metake.deltas import Delta
from metake.editor import Editor
from metake.errors import MetakeError
from metake.evaluation.merged import MergedBatches, bytes_when_merged
from metake.evaluation.metrics import Measurement
from metake.files import as_plain, read_record, write_record
from metake.geometry.statistics import Statistics, text_fingerprint
from metake.methods.base import Method
from metake.models.chat import described
from metake.models.editable import EditableModel
from metake.requests import EditRequest
from metake.result import EditResult
from metake.tensor_files import read_tensors, write_tensors

MEMORY = "metake-memory-2"


@dataclass(frozen=True)
class Checkpoints:
    """A folder with one subfolder per batch: its delta, the keys that were memory, its summary.

    The subfolders are merged once they hold more than the merged weights, delta and memory (`MergedBatches`).

    Attributes:
        folder: the folder of this run.
        key: all that the run's numbers depend on, as plain values.

    Raises:
        MetakeError: the folder holds a run with another key.
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

    @cached_property
    def merged(self) -> MergedBatches:
        """The first batches of the run, merged."""
        return MergedBatches(self.folder)

    def _folder(self, index: int) -> Path:
        return self.folder / f"batch-{index:04d}"

    def _remedy(self, index: int) -> str:
        return f"remove {self._folder(index)}: the batch is edited again"

    def save(self, index: int, result: EditResult) -> dict[str, Any]:
        """Summary of a batch, after the batch is written. The summary's file is the last: a batch without it is edited again.

        Args:
            index: position of the batch in the run, from 0.
            result: result of the batch.

        Returns:
            `EditResult.summary`, as plain values.
        """
        folder, summary = self._folder(index), result.summary()
        memory = {str(n): keys for n, keys in result.memory.items()}
        result.delta.save(folder)
        write_tensors(folder / "memory.safetensors", MEMORY, memory, {"delta": result.delta.digest})
        write_record(
            folder / "batch.json", {"index": index, "delta": result.delta.digest, "summary": summary}
        )
        return summary

    def restore(self, index: int, editor: Editor, requests: tuple[EditRequest, ...]) -> dict[str, Any] | None:
        """Summary of a finished batch, after the batch is applied to the model; None if the batch was not finished.

        Args:
            index: position of the batch in the run, from 0.
            editor: the editor that holds the batches before this one.
            requests: the requests of the batch.

        Returns:
            the summary that `save` returned.

        Raises:
            MetakeError: a file of the batch is damaged, or belongs to another batch.
        """
        if index <= self.merged.last:
            summary: dict[str, Any] = self.merged.get(index, "summary")
            if index == self.merged.last:
                self.merged.load_into(editor)
            return summary
        folder, remedy = self._folder(index), self._remedy(index)
        if not (folder / "batch.json").is_file():
            return None
        batch = read_record(folder / "batch.json", remedy)
        tensors, meta = read_tensors(folder / "memory.safetensors", MEMORY, remedy)
        delta = Delta.load(folder, remedy)
        if (batch.get("index"), meta.get("delta")) != (index, batch.get("delta")) or delta.digest != meta[
            "delta"
        ]:
            raise MetakeError(f"{folder}: files of different batches; {remedy}")
        memory: dict[int, Tensor] = {int(name): keys for name, keys in tensors.items()}
        summary = batch["summary"]
        editor.restore(requests, delta, memory, seconds=float(summary["seconds"]))
        return summary

    def merge(self, index: int, editor: Editor) -> None:
        """Merge all finished batches, if their folders hold more than they will after it.

        Args:
            index: position of the last finished batch.
            editor: the editor of the model that holds all of them.
        """
        folders = {
            int(path.name.removeprefix("batch-")): path for path in sorted(self.folder.glob("batch-*"))
        }
        held = sum(file.stat().st_size for path in folders.values() for file in path.glob("*.safetensors"))
        if held <= bytes_when_merged(editor):
            return
        lines: list[tuple[int, str, Any]] = []
        for i, path in folders.items():
            for file, name in (("batch.json", "summary"), ("measured.json", "measurement")):
                if i <= index and (path / file).is_file():
                    lines.append((i, name, read_record(path / file, self._remedy(i))[name]))
        self.merged.write(index, editor, lines)
        for i, path in folders.items():
            if i <= index:
                shutil.rmtree(path)

    def load_measurement(self, index: int) -> Measurement | None:
        """The measurement after a batch; None if there is none.

        Args:
            index: position of the batch in the run, from 0.

        Returns:
            the measurement, without what only serves comparisons with later ones.

        Raises:
            MetakeError: the file is damaged, or belongs to another batch; or the batch is merged and was not measured.
        """
        path = self._folder(index) / "measured.json"
        if not path.is_file():
            merged = index < self.merged.last or (index, "measurement") in self.merged.lines
            return Measurement.of_plain(self.merged.get(index, "measurement")) if merged else None
        content = read_record(path, f"remove it: what batch {index} left is measured again")
        if content.get("index") != index:
            raise MetakeError(f"{path}: of another batch; remove it")
        return Measurement.of_plain(content["measurement"])

    def save_measurement(self, index: int, measurement: Measurement) -> None:
        """Write the measurement after a batch.

        Args:
            index: position of the batch in the run, from 0.
            measurement: the measurement.
        """
        write_record(
            self._folder(index) / "measured.json", {"index": index, "measurement": measurement.plain()}
        )


def run_key(
    model: EditableModel,
    records: Sequence[Record],
    method: Method,
    statistics: Statistics | None,
    *,
    batch: int,
    contexts: Sequence[str] | None,
    **measured: Any,
) -> dict[str, Any]:
    """The key of a run's `Checkpoints`: all that its weights and numbers depend on, as plain values.

    Args:
        model: the model, unedited.
        records: the records, in the order of editing.
        method: the method.
        statistics: the statistics of its layers; None if it needs none.
        batch: edits per batch.
        contexts: contexts of planning; None for those of the method.
        measured: what is measured, and whatever else tells two runs apart.

    Returns:
        values that a JSON file can hold.
    """
    source = statistics and statistics.provenance
    return {
        "fingerprint": model.fingerprint(),
        "method": method.name,
        "batch": batch,
        "settings": method.identity(),
        "contexts": list(contexts or ()),
        "statistics": source and [source.text, source.tokens, source.window, source.dtype],
        "chat": described(model.tokenizer),
        "records": text_fingerprint(json.dumps([asdict(record) for record in records])),
        **measured,
    }
