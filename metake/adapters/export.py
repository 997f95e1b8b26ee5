"""Export of an adapter as a folder, with what serving it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metake.adapters.adapter import Adapter
from metake.adapters.base_name import PLACEHOLDER, REMEDY
from metake.adapters.card import card
from metake.adapters.gguf_file import FILE, with_equal_ranks, write_gguf
from metake.adapters.peft_folder import write_peft
from metake.adapters.serving import llama_cpp_line, vllm_line
from metake.files import write_text
from metake.folders import check_folder, result_folder

CARD = "README.md"


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: the folder.
        ranks: layer -> rank as it is written.
        errors: layer -> relative error (Frobenius) of the written change.
        dense: layers whose change had no low-rank factors.
        serve: command that serves the adapter.
        base: hub name or folder of the base model; empty if it is not known.
    """

    folder: Path
    ranks: Mapping[int, int]
    errors: Mapping[int, float]
    dense: tuple[int, ...]
    serve: str
    base: str

    def plain(self) -> dict[str, Any]:
        """Values that a JSON file can hold."""
        return {
            "layers": list(self.ranks),
            "ranks": list(self.ranks.values()),
            "relative_errors": list(self.errors.values()),
            "dense_layers": list(self.dense),
            "serve": self.serve,
            "base": self.base or None,
        }

    def __str__(self) -> str:
        lines = [
            f"saved the adapter: {self.folder} (layers {list(self.ranks)}, rank {max(self.ranks.values())})"
        ]
        lines += [
            f"layer {layer}: {'dense change' if layer in self.dense else 'recompressed'}: "
            f"{error:.2%} of its norm is lost at rank {self.ranks[layer]}"
            for layer, error in self.errors.items()
            if error > 0 or layer in self.dense
        ]
        return "\n".join([*lines, f"serve: {self.serve}", *([] if self.base else [REMEDY])])


def exported(adapter: Adapter, folder: Path, serve: str) -> Exported:
    """Description of an adapter that was written.

    Args:
        adapter: the adapter.
        folder: its folder.
        serve: command that serves it.

    Returns:
        The description.
    """
    ranks = {layer: low.rank for layer, low in adapter.written.items()}
    errors = {layer: low.error for layer, low in adapter.layers.items()}
    return Exported(folder, ranks, errors, adapter.dense, serve, adapter.base)


def save_peft(
    adapter: Adapter,
    folder: Path,
    report: Mapping[str, Any],
    *,
    overwrite: bool = False,
    shown_as: str = "",
) -> Exported:
    """Write a PEFT adapter with its model card, completely or not at all.

    Args:
        adapter: the adapter.
        folder: the folder.
        report: measurements for the model card.
        overwrite: write even if the folder holds other files.
        shown_as: name of the adapter in commands; default: the folder.

    Returns:
        What was written.
    """
    check_folder(folder, overwrite=overwrite)
    serve = vllm_line(shown_as or str(folder), adapter.base or PLACEHOLDER, adapter.rank)
    done = exported(adapter, folder, serve)
    with result_folder(folder, overwrite=overwrite) as place:
        write_peft(adapter, place)
        write_text(place / CARD, card(adapter, report, serve))
    return done


def save_gguf(
    adapter: Adapter, folder: Path, report: Mapping[str, Any], *, overwrite: bool = False
) -> Exported:
    """Write a folder with a GGUF adapter and a model card, completely or not at all.

    Args:
        adapter: the adapter.
        folder: the folder.
        report: measurements for the model card.
        overwrite: write even if the folder holds other files.

    Returns:
        What was written.
    """
    check_folder(folder, overwrite=overwrite)
    equal = with_equal_ranks(adapter)
    serve = llama_cpp_line(str(folder / FILE))
    with result_folder(folder, overwrite=overwrite) as place:
        write_gguf(equal, place / FILE)
        write_text(place / CARD, card(equal, report, serve, "gguf"))
    return exported(equal, folder, serve)
