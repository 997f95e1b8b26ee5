"""Experts of a mixture as one linear map.

A block of a mixture of experts adds `sum_e p_e W_e k_e` to the stream, over the experts e that the router sends a token to, with
its weight p_e. This is one linear map of one sparse key:

    [W_1 ... W_E] [p_1 k_1; ...; p_E k_E],    p_e k_e = 0 for the other experts.

An edit of this map distributes itself over the experts of a token, in proportion to their share of its key.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from metake.errors import MetakeError

FUSED = ("gate_up_proj", "down_proj")  # E x 2 d_f x d_v and E x d_v x d_f


class Experts:
    """The experts of a block, with their down-projections as the weight of one `nn.Linear`.

    The fused tensor keeps its shape and its values; its memory is laid out so that `[W_1 ... W_E]` is a view of it.

    Args:
        module: the module with the fused tensors `gate_up_proj` and `down_proj`.

    Attributes:
        module: the module.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._down: nn.Linear | None = None

    @classmethod
    def of(cls, block: nn.Module, down: str) -> Experts | None:
        """Experts of a block; None if its down-projection is a module of its own.

        Args:
            block: the block.
            down: name of the down-projection in the block.

        Returns:
            The experts.

        Raises:
            MetakeError: fused tensors of another form.
        """
        owner, _, name = down.rpartition(".")
        module: Any = block
        for part in filter(None, owner.split(".")):
            module = getattr(module, part, None)
        tensor = getattr(module, "_parameters", {}).get(name)
        if tensor is None:
            return None
        fused = [module._parameters.get(part) for part in FUSED]
        plain = all(part is not None and part.ndim == 3 for part in fused) and hasattr(module, "act_fn")
        if name != FUSED[1] or not plain or len(module._parameters) > len(FUSED):
            raise MetakeError(
                f"{down}: the experts' tensors have another form than gate_up_proj and down_proj; not supported"
            )
        return cls(module)

    @property
    def count(self) -> int:
        """Number of experts."""
        return int(self.module.get_parameter("down_proj").shape[0])

    @property
    def down(self) -> nn.Linear:
        """The down-projections as one map, whose weight is a view of the fused tensor, `d_v x E d_f`."""
        fused = self.module.get_parameter("down_proj")
        if self._down is None or self._down.weight.data_ptr() != fused.data_ptr():  # e.g. moved since
            count, rows, width = fused.shape
            stored = fused.data.permute(1, 0, 2).contiguous()
            fused.data = stored.permute(1, 0, 2)
            linear = nn.Linear(count * width, rows, bias=False, device="meta")
            linear.weight = nn.Parameter(stored.view(rows, count * width), requires_grad=False)
            self._down = linear.eval()
        return self._down

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """The module's output, through `down`.

        Args:
            hidden_states: `tokens x d_v`.
            top_k_index: `tokens x k`, experts of each token.
            top_k_weights: `tokens x k`, their weights.

        Returns:
            `tokens x d_v`.
        """
        rise, width = (
            self.module.get_parameter("gate_up_proj"),
            self.module.get_parameter("down_proj").shape[2],
        )
        activation: Any = self.module.act_fn
        parts: list[Tensor] = []
        for expert in range(self.count):
            tokens, places = torch.where(top_k_index == expert)
            part = hidden_states.new_zeros(len(hidden_states), width)
            if len(tokens):
                gate, up = nn.functional.linear(hidden_states[tokens], rise[expert]).chunk(2, dim=-1)
                weighted = activation(gate) * up * top_k_weights[tokens, places, None].to(up)
                part = part.index_put((tokens,), weighted)
            parts.append(part)
        found: Tensor = self.down(torch.cat(parts, 1))
        return found
