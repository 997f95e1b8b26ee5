"""Formats in which the edits of a session are exported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from metake.adapters.export import save_gguf, save_peft
from metake.deltas import Delta
from metake.models.editable import EditableModel
from metake.models.save import write_model


@dataclass(frozen=True)
class Format:
    """A format of the export.

    Attributes:
        summary: one line.
        write: writes edits of the unedited model, or the edited model, into an existing folder.
        of_edited: whether the model has to hold the edits when it is written.
    """

    summary: str
    write: Callable[[Delta, EditableModel, Path], object]
    of_edited: bool = False


def _peft(delta: Delta, model: EditableModel, folder: Path) -> None:
    save_peft(delta.as_adapter(model), folder, {}, overwrite=True, shown_as="adapter")


def _gguf(delta: Delta, model: EditableModel, folder: Path) -> None:
    save_gguf(delta.as_adapter(model), folder, {}, overwrite=True)


FORMATS = {
    "delta": Format("the weight update alone, for metake apply", lambda delta, _, folder: delta.save(folder)),
    "peft": Format("a PEFT adapter, for vLLM", _peft),
    "gguf-lora": Format("a GGUF adapter, for llama.cpp", _gguf),
    "merged": Format("the edited model", lambda _, model, folder: write_model(model, folder), of_edited=True),
}
