"""Patches as the tensors and plain values of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from metake.components import find_kind
from metake.errors import MetakeError
from metake.patches.base import Patch
from metake.patches.grace import GraceSpec
from metake.patches.memoir import MemoirSpec
from metake.patches.rep import RepSpec
from metake.patches.spec import PatchSpec
from metake.patches.wise import WiseSpec

SHIPPED = (GraceSpec, WiseSpec, MemoirSpec, RepSpec)  # imported, so that their patches can be read


def tensors_of(patches: Sequence[Patch]) -> dict[str, Tensor]:
    """Tensors of patches by name, `patch.INDEX.FIELD`.

    Args:
        patches: the patches.

    Returns:
        Name -> tensor.
    """
    return {f"patch.{i}.{name}": t for i, patch in enumerate(patches) for name, t in patch.tensors.items()}


def _check_numbers(spec: type[PatchSpec], entry: Mapping[str, Any]) -> None:
    """Refuse a number that is out of the range of the setting that it comes from."""
    for name in entry.keys() & spec.model_fields.keys():
        if isinstance(entry[name], bool) or not isinstance(entry[name], int | float):
            continue  # refused by the patch
        try:
            spec.check_field(name, entry[name])
        except MetakeError as error:
            said = str(error).partition(": ")[2].partition(": ")[2] or str(error)
            raise ValueError(f"field {name} of its {spec.kind} patch: {said}") from error


def read_patches(numbers: Any, tensors: Mapping[str, Tensor]) -> tuple[Patch, ...]:
    """Patches of what a file holds.

    Args:
        numbers: `Patch.numbers` of each patch.
        tensors: tensors of the file; those with other names are left alone.

    Returns:
        The patches.

    Raises:
        ValueError: an unknown kind, or a field that is missing or unknown.
    """
    if not isinstance(numbers, list) or not all(isinstance(entry, dict) for entry in numbers):
        raise ValueError("its field patches is not a list of records")
    found: list[Patch] = []
    for i, entry in enumerate(numbers):
        try:
            spec = find_kind(PatchSpec.family, entry.get("kind"))
        except MetakeError as error:
            raise ValueError(f"patch of an unknown kind, {entry.get('kind')!r}") from error
        assert issubclass(spec, PatchSpec)
        _check_numbers(spec, entry)
        start = f"patch.{i}."
        own = {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
        found.append(spec.patch.of({name: v for name, v in entry.items() if name != "kind"}, own))
    return tuple(found)
