"""Finished batches of a run in two files of bounded number: tensors of bounded size, and one line per batch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from metake.deltas import Delta
from metake.editor import Editor
from metake.errors import MetakeError
from metake.files import as_plain, digest
from metake.tensor_files import read_tensors, write_tensors

FORMAT = "metake-merged-1"


@dataclass
class MergedBatches:
    """Batches from the first on, merged: `merged.safetensors` with weights, total delta and memory, `merged.jsonl`.

    A batch counts as merged once the tensors are written; lines of later batches are not used.

    Attributes:
        folder: the folder of the run.
        last: position of the last merged batch; -1 if there is none.
        lines: `(position, name)` -> summary or measurement of a merged batch.
    """

    folder: Path
    last: int = -1
    lines: dict[tuple[int, str], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self._tensors.is_file():
            self.last = int(self._read()[1]["index"])
            self.lines = {place: value for place, value in self._read_lines() if place[0] <= self.last}

    @property
    def _tensors(self) -> Path:
        return self.folder / "merged.safetensors"

    @property
    def _lines(self) -> Path:
        return self.folder / "merged.jsonl"

    @property
    def remedy(self) -> str:
        """End of an error line."""
        return f"remove {self.folder}: its batches are edited again"

    def _read(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return read_tensors(self._tensors, FORMAT, self.remedy)

    def _read_lines(self) -> Iterable[tuple[tuple[int, str], Any]]:
        """Position and name of each whole line, with its value."""
        lines = self._lines.read_bytes().splitlines(keepends=True) if self._lines.is_file() else []
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):  # cut off by a kill
                return
            try:
                found, index, name, value = json.loads(line)
                intact = found == digest([index, name, value])
            except (ValueError, TypeError, RecursionError):
                intact = False
            if not intact:
                raise MetakeError(f"{self._lines}: line {number} is damaged; {self.remedy}")
            yield (index, name), value

    def get(self, index: int, name: str) -> Any:
        """Value of a merged batch.

        Args:
            index: position of the batch, at most `last`.
            name: `summary` or `measurement`.

        Returns:
            Plain value.

        Raises:
            MetakeError: there is none.
        """
        if (index, name) not in self.lines:
            raise MetakeError(
                f"{self._lines}: no {name} of batch {index}, and its weights are merged; {self.remedy}"
            )
        return self.lines[index, name]

    def load_into(self, editor: Editor) -> None:
        """Put the merged batches into a model that holds no batch.

        Args:
            editor: an editor of the unedited model.

        Raises:
            MetakeError: the file is damaged, or of another model.
        """
        tensors, meta = self._read()
        try:
            parts: dict[str, dict[str, Tensor]] = {"weight": {}, "delta": {}, "folded": {}}
            memory: list[dict[int, Tensor]] = [{} for _ in range(meta["batches"])]
            for name, tensor in tensors.items():
                kind, rest = name.split(".", 1)
                if kind == "memory":
                    batch, layer = rest.split(".")
                    memory[int(batch)][int(layer)] = tensor
                else:
                    parts[kind][rest] = tensor
            delta = Delta.of_tensors(parts["delta"], meta)
            scale, anchors = meta["scale"], {int(n): norm for n, norm in meta.get("anchors", {}).items()}
        except (KeyError, ValueError, IndexError) as error:
            raise MetakeError(f"{self._tensors}: holds no merged batches; {self.remedy}") from error
        delta.check_fits(editor.model)
        start = editor.method.prepare(editor.model, editor.state)
        editor.history.resume({int(n): w for n, w in parts["weight"].items()}, delta, start)
        folded = {int(n): tensor for n, tensor in parts["folded"].items()}
        start = replace(start, scale=scale, anchors=anchors)
        editor.state = replace(start, memory=tuple(memory), folded=folded, with_folded={})

    def write(self, index: int, editor: Editor, lines: Iterable[tuple[int, str, Any]]) -> None:
        """Merge all batches that a model holds.

        Args:
            index: position of the last of them.
            editor: the editor of the model.
            lines: position, name and value of what their folders hold.
        """
        added = {(i, name): as_plain(value) for i, name, value in lines}
        text = "".join(
            json.dumps([digest([i, name, value]), i, name, value]) + "\n"
            for (i, name), value in added.items()
        )
        whole = self._lines.read_bytes() if self._lines.is_file() else b""
        with self._lines.open("ab") as file:
            file.truncate(whole.rfind(b"\n") + 1)  # what a killed process left of a line
            file.write(text.encode())
        delta, state = editor.delta.merged(), editor.state
        tensors = {f"delta.{name}": tensor for name, tensor in delta.tensors.items()}
        tensors |= {f"weight.{n}": editor.model.weight(n) for n in delta.weight_layers}
        tensors |= {f"folded.{n}": tensor for n, tensor in state.folded.items()}
        for i, memory in enumerate(state.memory):
            tensors |= {f"memory.{i}.{n}": tensor for n, tensor in memory.items()}
        meta = {"index": index, **delta.meta, "scale": state.scale, "anchors": state.anchors}
        write_tensors(self._tensors, FORMAT, tensors, {**meta, "batches": len(state.memory)})
        self.last, self.lines = index, self.lines | added


def bytes_when_merged(editor: Editor) -> int:
    """Size of the merged tensors: per layer a weight, a dense delta in fp64, and a moment of keys in fp64; and the patches."""
    patches = [t.numel() * t.element_size() for patch in editor.delta.patches for t in patch.tensors.values()]
    weights = [editor.model.weight(layer) for layer in editor.method.layers]
    return sum(patches) + sum(w.numel() * (w.element_size() + 8) + 8 * w.shape[1] ** 2 for w in weights)
