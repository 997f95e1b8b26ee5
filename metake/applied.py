"""Weights and patches of a model that are exchanged for others and restored, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from metake.errors import MetakeError
from metake.models.editable import EditableModel
from metake.patches.base import Patch, exchange_patches, patches_at

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bit_sum(weight: Tensor) -> int:
    """The sum of a matrix's bit patterns as integers: a checksum in one pass, where the matrix is.

    Args:
        weight: a matrix of any shape and dtype.

    Returns:
        The sum, in 64-bit arithmetic.
    """
    return int(weight.detach().view(_BITS[weight.element_size()]).sum(dtype=torch.int64))


@dataclass
class Applied:
    """A delta that is applied to a model, with the original weights for `revert`.

    Attributes:
        originals: layer -> its weights before; empty once they are back.
        checksums: layer -> checksum of the weights after the edit; empty while they are written.
        patches: layer -> its patches before; empty once they are back.
        patched: layer -> its patches after the edit; empty while they are written.
    """

    model: EditableModel
    originals: dict[int, Tensor]
    checksums: dict[int, int] = field(default_factory=dict)
    patches: dict[int, tuple[Patch, ...]] = field(default_factory=dict)
    patched: dict[int, tuple[Patch, ...]] = field(default_factory=dict)

    def seal(self) -> Applied:
        """The applied delta, with checksums of the present weights: `revert` restores the originals only from these."""
        self.checksums = {layer: bit_sum(self.model.weight(layer)) for layer in self.originals}
        self.patched = {layer: patches_at(self.model, layer) for layer in self.patches}
        return self

    def check(self, what: str = "revert") -> None:
        """Check that the weights are those that were written.

        Args:
            what: begins the error line.

        Raises:
            MetakeError: other code has changed the weights.
        """
        for layer, checksum in self.checksums.items():
            if bit_sum(self.model.weight(layer)) != checksum:
                raise MetakeError(
                    f"{what}: layer {layer} was changed after this edit (by another edit, training or a cast); "
                    "revert that first, or load the model again; this edit is still in the model"
                )
        for layer, patches in self.patched.items():
            if patches_at(self.model, layer) is not patches:
                raise MetakeError(
                    f"{what}: the patches of layer {layer} were changed after this edit (by another edit); revert that "
                    "first, or load the model again; this edit is still in the model"
                )

    @torch.no_grad()
    def revert(self) -> None:
        """Restore the original weights, bit for bit. A second call does nothing.

        Raises:
            MetakeError: something else has changed the weights since, and would be lost or half undone.
        """
        self.check()
        for layer, original in self.originals.items():
            self.model.set_weight(layer, original)
        exchange_patches(self.model, self.patches)
        self.originals, self.checksums, self.patches, self.patched = {}, {}, {}, {}


@contextmanager
def swapped_weights(
    model: EditableModel,
    weights: Mapping[int, Tensor],
    patches: Mapping[int, tuple[Patch, ...]] | None = None,
) -> Iterator[None]:
    """Context with other weights and patches of some layers; the present ones are restored bit for bit.

    Args:
        model: the model.
        weights: layer -> weight, `d_v x d_k`.
        patches: layer -> all its patches.

    Yields:
        None: the weights and patches are exchanged.
    """
    present = {layer: model.weight(layer).clone() for layer in weights}
    held = {layer: patches_at(model, layer) for layer in patches or {}}
    try:
        exchange_patches(model, patches or {})
        with torch.no_grad():
            for layer, weight in weights.items():
                model.set_weight(layer, weight)
        yield
    finally:
        with torch.no_grad():
            for layer, weight in present.items():
                model.set_weight(layer, weight)
        exchange_patches(model, held)
