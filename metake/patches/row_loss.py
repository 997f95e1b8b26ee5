"""NLL of token rows as a function of what a down-projection writes; only its block and those above run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metake.models.editable import EditableModel
from metake.models.patch_hooks import changed_output
from metake.models.tokens import Row, answer_positions, length_buckets, pad
from metake.models.trace import run, upcast

Change = Callable[[Sequence[int], Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class _Pass:
    """Rows that run together, with what does not depend on the change.

    Attributes:
        members: indices of the rows.
        ids: token ids, `rows x length`.
        hidden: stream before the block, `rows x length x d_v`.
        keys: inputs of the down-projection, `rows x length x d_k`.
        values: its outputs, `rows x length x d_v`.
    """

    members: list[int]
    ids: Tensor
    hidden: Tensor
    keys: Tensor
    values: Tensor


class RowLoss:
    """Mean NLL of the answer tokens of each row.

    Args:
        model: the model, which stays as it is.
        rows: token rows with answers; rows without one have activations but no loss.
        layer: the block.
        max_tokens: padded tokens of a pass.
    """

    def __init__(
        self, model: EditableModel, rows: Sequence[Row], layer: int, max_tokens: int | None = None
    ) -> None:
        self.model, self.rows, self.layer = model, list(rows), layer
        self.lengths = [len(row) - 1 if row.answer else len(row) for row in rows]
        self.passes = [
            self._observed(group) for group in length_buckets(self.lengths, max_tokens or model.pass_tokens)
        ]
        self._place = {i: (p, at) for p in self.passes for at, i in enumerate(p.members)}

    @torch.no_grad()
    def _observed(self, members: list[int]) -> _Pass:
        ids = pad([self.rows[i] for i in members])[:, : max(self.lengths[i] for i in members)]
        n = self.layer
        trace = run(self.model, ids, keys=(n,), values=(n,), inputs=(n,), stop=n)
        return _Pass(members, ids, trace.inputs[n], trace.keys[n].clone(), trace.values[n].clone())

    def keys(self, row: int) -> Tensor:
        """Inputs of the down-projection at the tokens of a row, `length x d_k`, at least fp32.

        Args:
            row: index of the row.

        Returns:
            Up to the last token that predicts its answer.
        """
        held, at = self._place[row]
        return upcast(held.keys[at, : self.lengths[row]])

    def values(self, row: int) -> Tensor:
        """Outputs of the down-projection at the tokens of a row, `length x d_v`, at least fp32.

        Args:
            row: index of the row.

        Returns:
            As `keys`.
        """
        held, at = self._place[row]
        return upcast(held.values[at, : self.lengths[row]])

    def __call__(self, change: Change) -> Iterator[tuple[list[int], Tensor]]:
        """NLL of the rows, pass by pass.

        Args:
            change: indices of the rows of a pass, inputs and outputs of the down-projection (`rows x length x d`) -> its
                outputs.

        Yields:
            Indices of rows, and the NLL of each, with gradients.
        """
        for held in self.passes:
            members, shape = held.members, held.ids.shape

            def changed(
                x: Tensor, y: Tensor, members: list[int] = members, shape: torch.Size = shape
            ) -> Tensor:
                after = change(members, x.reshape(*shape, -1), y.reshape(*shape, -1))
                return after.to(y.dtype).reshape(y.shape)

            of, columns, labels = answer_positions([self.rows[i] for i in members])
            with torch.enable_grad(), changed_output(self.model.down(self.layer), changed):
                logits = run(
                    self.model, held.ids, start=self.layer, hidden=held.hidden, positions=(of, columns)
                ).logits
                nll = -upcast(logits).log_softmax(-1)[torch.arange(len(labels)), labels.to(logits.device)]
            of = of.to(nll.device)
            counts = torch.bincount(of, minlength=len(members))
            yield members, nll.new_zeros(len(members)).index_add(0, of, nll) / counts
