"""Loss of some token rows as a function of dense changes of down-projections.

What does not depend on the changes is computed once: the keys k of the lowest tuned layer and the stream after its
block. A change D moves that stream by D k at every token, and only the blocks above run again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from metake.models.editable import EditableModel
from metake.models.tokens import Row, length_buckets, pad
from metake.models.trace import run, upcast
from metake.processes import all_reduce_sum, rank_and_size

Objective = Literal["target_new", "prompt_last"]


@dataclass(frozen=True)
class _Activations:
    """Constant activations of a row, up to the last position that is scored.

    Attributes:
        keys: `length x d_k`, inputs of the lowest tuned down-projection.
        above: `length x d_v`, stream after its block in the unchanged model.
    """

    keys: Tensor
    above: Tensor


def scored_columns(row: Row, objective: Objective) -> list[int]:
    """Position whose logits are scored against each answer token.

    Args:
        row: the row.
        objective: `target_new` reads every token off the one before it (teacher forcing), `prompt_last` reads those of
            the target off the prompt's last token. An end is read off the token before it: at the prompt's last token
            it would be that of an empty answer.

    Returns:
        One position per answer token.
    """
    columns = list(row.predicting)
    target = 0 if objective == "target_new" else row.answer - row.has_end
    return columns[:1] * target + columns[target:]


class WeightLoss:
    """Mean NLL of rows: the mean over rows of the mean over their answer tokens.

    In a process group every process runs the rows of its rank.

    Args:
        model: the model, which has to stay as it is.
        rows: token rows with answers.
        layers: changed layers, ascending.
        objective: positions that are scored; see `scored_columns`.
        max_tokens: padded tokens per pass; by default what suits the device.
    """

    def __init__(
        self,
        model: EditableModel,
        rows: Sequence[Row],
        layers: Sequence[int],
        objective: Objective = "target_new",
        max_tokens: int | None = None,
    ) -> None:
        self.model, self.rows, self.layers = model, rows, tuple(layers)
        self.columns = [scored_columns(row, objective) for row in rows]
        self.lengths = [columns[-1] + 1 for columns in self.columns]
        self.max_tokens = max_tokens or model.pass_tokens
        self.weights = {layer: model.weight(layer) for layer in self.layers}
        rank, world = rank_and_size()
        self.own = {i for i in range(len(rows)) if i % world == rank}
        self.activations = self._activations()

    @torch.no_grad()
    def _activations(self) -> dict[int, _Activations]:
        """Row -> its constant activations."""
        first, found = self.layers[0], {}
        for members in self._passes(range(len(self.rows))):
            trace = run(self.model, self._ids(members), keys=(first,), outputs=(first,), stop=first)
            for at, i in enumerate(members):
                keys, above = (
                    x[at, : self.lengths[i]].clone() for x in (trace.keys[first], trace.outputs[first])
                )
                found[i] = _Activations(keys, above)
        return found

    def _passes(self, members: Sequence[int]) -> list[list[int]]:
        """This process's rows among some, in groups of one pass each."""
        own = [i for i in members if i in self.own]
        groups = length_buckets([self.lengths[i] for i in own], self.max_tokens)
        return [[own[j] for j in group] for group in groups]

    def _ids(self, members: Sequence[int]) -> Tensor:
        return pad([self.rows[i] for i in members])[:, : max(self.lengths[i] for i in members)]

    def _scored(self, members: Sequence[int]) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor, Tensor]:
        """Distinct scored positions of a pass; the position, the label and the weight in its row's mean of each answer token."""
        wanted = [(at, column) for at, i in enumerate(members) for column in self.columns[i]]
        distinct = list(dict.fromkeys(wanted))
        index = {position: i for i, position in enumerate(distinct)}
        positions = torch.tensor(distinct)
        labels = [token for i in members for token in self.rows[i].answer_ids]
        shares = [1 / self.rows[i].answer for i in members for _ in self.rows[i].answer_ids]
        of = torch.tensor([index[position] for position in wanted])
        weights = torch.tensor(shares, dtype=torch.float64)
        return (positions[:, 0], positions[:, 1]), of, torch.tensor(labels), weights

    def _executed(self, changes: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """The changes as the weights take them: those of half precision round their sum."""
        found = {}
        for layer, change in changes.items():
            weight = self.weights[layer]
            if weight.dtype != change.dtype:
                wide = weight.to(change)
                change = (wide + change).to(weight.dtype).to(change) - wide
            found[layer] = change.detach().clone().requires_grad_(True)
        return found

    def __call__(
        self, changes: Mapping[int, Tensor], members: Sequence[int]
    ) -> tuple[float, dict[int, Tensor]]:
        """Loss of some rows, and its gradient.

        The gradient is that with respect to the changes as they are rounded by the weights' dtype.

        Args:
            changes: layer -> `d_v x d_k`, at least fp32.
            members: indices of the rows, without repetition.

        Returns:
            The loss, and layer -> gradient like the change.
        """
        leaves, total = self._executed(changes), torch.zeros(1, dtype=torch.float64)
        gradients = {layer: torch.zeros_like(change) for layer, change in changes.items()}
        with torch.enable_grad():
            for group in self._passes(members):
                loss = self._total(leaves, group) / len(members)
                found = torch.autograd.grad(loss, list(leaves.values()))
                for layer, gradient in zip(leaves, found, strict=True):
                    gradients[layer] += gradient
                total += loss.detach().double().cpu()
        return float(all_reduce_sum(total)), {n: all_reduce_sum(g) for n, g in gradients.items()}

    def _moved(self, keys: Tensor, change: Tensor) -> Tensor:
        """Shift of the stream after the lowest tuned block, through the norm of the FFN output where there is one."""
        moved, norm = upcast(keys) @ change.T, self.model.post_norm(self.layers[0])
        if norm is None:
            return moved
        with torch.no_grad():
            value = upcast(self.model.down(self.layers[0])(keys))
            received = norm(value)
        return norm(value + moved) - received

    def _total(self, changes: Mapping[int, Tensor], members: Sequence[int]) -> Tensor:
        """Sum over the rows of a pass of their mean NLL."""
        scores, labels, shares = self._log_probabilities(changes, members)
        nll: Tensor = -scores.gather(1, labels[:, None])[:, 0]
        return (nll * shares).sum()

    def _log_probabilities(
        self, changes: Mapping[int, Tensor], members: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities, label and weight in its row's mean of each answer token of a pass."""
        first, *upper = self.layers
        held = [self.activations[i] for i in members]
        keys, above = (
            pad_sequence([getattr(row, name) for row in held], batch_first=True) for name in ("keys", "above")
        )
        moved = self._moved(keys, changes[first])
        hidden = (upcast(above) + moved.to(above.device)).to(above.dtype)
        positions, of, labels, shares = self._scored(members)
        weights = {n: (self.weights[n].to(changes[n]) + changes[n]).to(self.weights[n].dtype) for n in upper}
        logits = run(
            self.model,
            self._ids(members),
            start=first + 1,
            hidden=hidden,
            weights=weights,
            positions=positions,
        ).logits
        scores = upcast(logits).log_softmax(-1)[of.to(logits.device)]
        return scores, labels.to(scores.device), shares.to(scores)
