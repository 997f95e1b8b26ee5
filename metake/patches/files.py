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
        start = f"patch.{i}."
        own = {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
        found.append(spec.patch.of({name: v for name, v in entry.items() if name != "kind"}, own))
    return tuple(found)
