"""A patch: gate(x) * write(x), added at one down-projection, token by token.

Where the gate is closed the values are those of the unpatched module, bit for bit. A `Delta`'s weight update is the patch
whose gate is 1 everywhere: the only one that folds into the weights.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from metake.errors import MetakeError
from metake.files import digest
from metake.models.editable import EditableModel
from metake.models.patch_hooks import patches_on, set_patches
from metake.models.trace import upcast
from metake.models.wrappers import runs_compiled
from metake.tensor_files import dtype_name


@dataclass(frozen=True, eq=False)
class Patch(ABC):
    """A gated change at the down-projection of a block.

    A subclass is a frozen dataclass of tensors and numbers. It defines `gate`, `write`, `joined` and `shapes`.

    Attributes:
        kind: name in files.
        integers: tensors of whole numbers; all others are floating-point.
        at_input: whether the input of the down-projection is changed, and not its output.
        layer: the block.
    """

    kind: ClassVar[str]
    at_input: ClassVar[bool] = False
    integers: ClassVar[tuple[str, ...]] = ()

    layer: int

    @abstractmethod
    def gate(self, x: Tensor) -> Tensor:
        """Strength of the write at each token, 0 where the gate is closed.

        Args:
            x: inputs of the down-projection, `... x d_k`, at least fp32.

        Returns:
            `...`, values from 0 to 1.
        """

    @abstractmethod
    def write(self, x: Tensor, y: Tensor) -> Tensor:
        """What is added at tokens whose gate is open, for a gate of 1.

        Args:
            x: inputs of the down-projection, `n x d_k`.
            y: its outputs (inputs, if `at_input`), `n x d`.

        Returns:
            Like `y`.
        """

    @abstractmethod
    def joined(self, later: Any) -> Self:
        """This patch followed by another of its kind at the same layer.

        Args:
            later: what a later batch adds.

        Returns:
            One patch.
        """

    @abstractmethod
    def shapes(self, d_v: int, d_k: int) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor in a model; -1 stands for any number.

        Args:
            d_v: outputs of the down-projection.
            d_k: inputs of the down-projection.
        """

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Values with the patch; see `GatedPatch`.

        Args:
            x: inputs of the down-projection, `... x d_k`.
            y: values to change, `... x d`.

        Returns:
            `y` itself if no gate is open.
        """
        gate = self.gate(upcast(x))
        is_open = gate > 0
        if not bool(is_open.any()):
            return y
        before = upcast(y[is_open])
        after = before + gate[is_open][:, None] * self.write(upcast(x[is_open]), before)
        return y.index_put((is_open,), after.to(y.dtype))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Tensors by the name of their field."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    @property
    def numbers(self) -> dict[str, Any]:
        """All other fields, with the kind."""
        held = self.tensors
        return {"kind": self.kind} | {
            f.name: getattr(self, f.name) for f in fields(self) if f.name not in held
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content."""
        return digest(self.numbers, self.tensors)

    def to(self, device: torch.device | str) -> Self:
        """The patch on a device.

        Args:
            device: the device.

        Returns:
            The patch itself if it is there.
        """
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return self if all(moved[n] is t for n, t in self.tensors.items()) else replace(self, **moved)

    @classmethod
    def of(cls, numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Patch of what a file holds.

        Args:
            numbers: what `numbers` gave, without the kind.
            tensors: what `tensors` gave.

        Returns:
            The patch.

        Raises:
            ValueError: a field is missing, unknown or of another type; the text names it.
        """
        given, known = {**numbers, **tensors}, {field.name for field in fields(cls)}
        for wrong, names in (("is missing", known - given.keys()), ("is unknown", given.keys() - known)):
            if names:
                raise ValueError(f"field {min(names)} of its {cls.kind} patch {wrong}")
        for field in fields(cls):
            if isinstance(given[field.name], Tensor) != (field.type in ("Tensor", Tensor)):
                raise ValueError(f"field {field.name} of its {cls.kind} patch is of another type")
            if isinstance(given[field.name], bool) or not isinstance(given[field.name], Tensor | int | float):
                raise ValueError(f"field {field.name} of its {cls.kind} patch is not a number")
            if field.type in ("int", int) and not isinstance(given[field.name], int):
                raise ValueError(f"field {field.name} of its {cls.kind} patch is not a whole number")
            if isinstance(given[field.name], float) and not math.isfinite(given[field.name]):
                raise ValueError(f"field {field.name} of its {cls.kind} patch is not finite")
        return cls(**given)

    def check_values(self, where: str = "delta") -> None:
        """Refuse a patch whose tensors are of a wrong dtype, or not finite.

        Args:
            where: begins the error line, e.g. the file.

        Raises:
            MetakeError: the line names the tensor.
        """
        for name, tensor in self.tensors.items():
            whole = not (tensor.is_floating_point() or tensor.is_complex())
            if tensor.is_complex() or whole is not (name in self.integers):
                must = "whole" if name in self.integers else "floating-point"
                raise MetakeError(
                    f"{where}: the {self.kind} patch of layer {self.layer}: {name} is of dtype {dtype_name(tensor.dtype)}, must "
                    f"be of {must} numbers; give what metake edit wrote, or save the edit again"
                )
            if not bool(torch.isfinite(tensor).all()):
                raise MetakeError(
                    f"{where}: the {self.kind} patch of layer {self.layer}: {name} is not finite; nothing was changed"
                )

    def check_fits(self, model: EditableModel, where: str = "delta") -> None:
        """Refuse a model that the patch was not made for, and a patch that is not finite.

        Args:
            model: the model.
            where: begins the error line, e.g. the file.

        Raises:
            MetakeError: the line says what does not fit.
        """
        what = f"{where}: the {self.kind} patch of layer {self.layer}"
        if self.layer in model.experts:
            raise MetakeError(
                f"{what}: the block's experts have no down-projection with hooks; not supported"
            )
        if runs_compiled(model.model):
            raise MetakeError(
                f"{what}: a compiled model may skip its hook; patch the model before torch.compile"
            )
        d_v, d_k = model.weight(self.layer).shape
        for name, wanted in self.shapes(d_v, d_k).items():
            shape = tuple(getattr(self, name).shape)
            if len(shape) != len(wanted) or any(w not in (-1, s) for s, w in zip(shape, wanted, strict=True)):
                raise MetakeError(
                    f"{what}: {name} is {shape}, the model's {wanted}; it was made for another model"
                )
        self.check_values(where)


def joined(patches: tuple[Patch, ...], later: tuple[Patch, ...]) -> tuple[Patch, ...]:
    """Patches followed by others: those of one kind and layer become one.

    Args:
        patches: the earlier patches.
        later: the later ones.

    Returns:
        All of them, in the order in which they act.
    """
    found = list(patches)
    for patch in later:
        at = [i for i, old in enumerate(found) if (old.kind, old.layer) == (patch.kind, patch.layer)]
        if at:
            found[at[0]] = found[at[0]].joined(patch)
        else:
            found.append(patch)
    return tuple(found)


def patches_at(model: EditableModel, layer: int) -> tuple[Patch, ...]:
    """Patches that a model has at a block.

    Args:
        model: the model.
        layer: the block.

    Returns:
        The patches in the order in which they act.
    """
    return () if layer in model.experts else patches_on(model.down(layer))


def exchange_patches(model: EditableModel, patches: Mapping[int, tuple[Patch, ...]]) -> None:
    """Exchange the patches of some blocks.

    Args:
        model: the model.
        patches: layer -> all patches that the block has afterwards.
    """
    for layer, held in patches.items():
        set_patches(model.down(layer), held)
