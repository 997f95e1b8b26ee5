"""Weights of a model that are exchanged for others and restored, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from metake.errors import MetakeError
from metake.models.editable import EditableModel

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
    """

    model: EditableModel
    originals: dict[int, Tensor]
    checksums: dict[int, int] = field(default_factory=dict)

    def seal(self) -> Applied:
        """The applied delta, with checksums of the present weights: `revert` restores the originals only from these."""
        self.checksums = {layer: bit_sum(self.model.weight(layer)) for layer in self.originals}
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

    @torch.no_grad()
    def revert(self) -> None:
        """Restore the original weights, bit for bit. A second call does nothing.

        Raises:
            MetakeError: something else has changed the weights since, and would be lost or half undone.
        """
        self.check()
        for layer, original in self.originals.items():
            self.model.weight(layer).copy_(original)
        self.originals, self.checksums = {}, {}


@contextmanager
def swapped_weights(model: EditableModel, weights: Mapping[int, Tensor]) -> Iterator[None]:
    """Context with other weights of some layers; the present ones are restored bit for bit.

    Args:
        model: the model.
        weights: layer -> weight, `d_v x d_k`.

    Yields:
        None: the weights are exchanged.
    """
    present = {layer: model.weight(layer).clone() for layer in weights}
    try:
        with torch.no_grad():
            for layer, weight in weights.items():
                model.weight(layer).copy_(weight)
        yield
    finally:
        with torch.no_grad():
            for layer, weight in present.items():
                model.weight(layer).copy_(weight)
