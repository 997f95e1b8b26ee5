"""Attention of a block at the lookup tokens of token rows, and what a shift of its output does to the stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from metake.errors import MetakeError
from metake.models.editable import EditableModel
from metake.models.tokens import length_buckets, pad
from metake.models.trace import run, upcast
from metake.planners.micro_batch import MicroBatch
from metake.prompts import RowSpec


class Attention:
    """Attention of a block at the lookup tokens of some rows, and what a shift of its output does to the stream.

    Args:
        model: the model.
        layer: the block.
        specs: the rows.
        max_tokens: padded tokens per pass; by default what suits the device.

    Raises:
        MetakeError: the block has no one submodule that is its attention.
    """

    def __init__(
        self, model: EditableModel, layer: int, specs: Sequence[RowSpec], max_tokens: int | None = None
    ) -> None:
        self.model, self.layer, self.specs = model, layer, specs
        self.module = attention_of(model, layer)
        self.known = self._activations(max_tokens or model.pass_tokens)

    @torch.no_grad()
    def _activations(self, max_tokens: int) -> dict[int, tuple[Tensor, Tensor, Tensor]]:
        """Identity of a row -> at its lookup token: stream before the block, output of attention, stream after the block."""
        found, layer = {}, self.layer
        lengths = [spec.row.lookup + 1 for spec in self.specs]
        for members in length_buckets(lengths, max_tokens):
            rows = [self.specs[i].row for i in members]
            ids = pad(rows)[:, : max(lengths[i] for i in members)]
            with observed(self.module) as outputs:
                trace = run(self.model, ids, inputs=(layer,), outputs=(layer,), stop=layer)
            for at, row in enumerate(rows):
                parts = (trace.inputs[layer], outputs[0], trace.outputs[layer])
                before, own, after = (part[at, row.lookup] for part in parts)
                found[id(row)] = before, own, after
        return found

    def bare_norms(self, size: int) -> Tensor:
        """Norm of the attention's output at the bare prompts' lookup tokens.

        Args:
            size: number of requests.

        Returns:
            Shape `size`.
        """
        bare = {spec.owner: self.known[id(spec.row)][1] for spec in self.specs if spec.template == 0}
        return torch.stack([upcast(bare[i]).norm() for i in range(size)])

    def transport(self, rows: MicroBatch, residuals: Tensor) -> Tensor:
        """Shift of the stream after the block, at the lookup token of each row.

        Args:
            rows: rows of a pass.
            residuals: shifts of the down-projection's output, then those of the attention's, `2 n x d_v`.

        Returns:
            `rows x d_v`, differentiable.
        """
        size = len(residuals) // 2
        of_value, of_attention = residuals[:size][rows.owners], residuals[size:][rows.owners]
        known = [self.known[id(spec.row)] for spec in rows.specs]
        before, own, after = (torch.stack(parts) for parts in zip(*known, strict=True))
        output = (upcast(own) + of_attention.to(own.device)).to(own.dtype)
        with given(self.module, output[:, None]):
            ids = torch.zeros(len(known), 1, dtype=torch.long)
            trace = run(
                self.model,
                ids,
                start=self.layer,
                hidden=before[:, None],
                stop=self.layer,
                outputs=(self.layer,),
            )
        return of_value + (upcast(trace.outputs[self.layer][:, 0]) - upcast(after)).to(of_value)


def attention_of(model: EditableModel, layer: int) -> nn.Module:
    """The attention of a block.

    Args:
        model: the model.
        layer: the block.

    Returns:
        Its one direct submodule with parameters that is named as attention is.

    Raises:
        MetakeError: there are none or several, the block normalizes what they return, or they add the stream themselves
            (BLOOM).
    """
    block = model.blocks[layer]
    found = [
        module
        for name, module in block.named_children()
        if ("attn" in name or "attention" in name)
        and "norm" not in name
        and next(module.parameters(), None) is not None  # a dropout has none
    ]
    added = [module for module in found if "residual" not in signature(module.forward).parameters]
    if len(added) != 1 or len(found) > 1 or model.post_norm(layer) is not None:
        raise MetakeError(
            f"planner with-attention: block {layer} of {model.name} ({model.family}) has no one attention whose output is "
            "added to the stream; choose another planner, e.g. open-loop"
        )
    return found[0]


@contextmanager
def observed(module: nn.Module) -> Iterator[list[Tensor]]:
    """Context with a list of the outputs of a module, the first one of each call that returns several.

    Args:
        module: the module.

    Yields:
        The list, which grows with every call.
    """
    found: list[Tensor] = []

    def keep(_: object, __: object, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    handle = module.register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


@contextmanager
def given(module: nn.Module, value: Tensor) -> Iterator[None]:
    """Context in which the (first) output of a module is a given value.

    Args:
        module: the module.
        value: the value.
    """

    def replaced(_: object, __: object, output: Any) -> Any:
        return (value, *output[1:]) if isinstance(output, tuple) else value

    handle = module.register_forward_hook(replaced)
    try:
        yield
    finally:
        handle.remove()
