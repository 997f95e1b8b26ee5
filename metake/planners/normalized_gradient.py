"""Keys and gradients at the answer tokens of a batch, and the moments that normalize them.

At each token that predicts a part of an answer, k is the key of a layer and g the gradient of the
batch's mean loss with respect to the output of its down-projection. Normalized, both are at mean 0 and variance 1 in
every entry, over the tokens and edited layers of all batches so far. `metake.maps` makes a change of the weights of them.

No subject, no contexts and no statistics of old keys are needed, and one forward and backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from metake.errors import MetakeError
from metake.models.editable import EditableModel
from metake.models.tokens import Row, answer_positions, length_buckets, pad
from metake.models.trace import run, upcast
from metake.planners.target_optimization import mean_within


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of every entry of some rows, in fp64.

    Attributes:
        count: number of rows.
        mean: `entries`.
        square: `entries`.
    """

    count: int
    mean: Tensor
    square: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Moments:
        """Moments of some rows.

        Args:
            rows: `rows x entries`.

        Returns:
            fp64, whatever the dtype of `rows`.
        """
        rows = rows.double()
        mean = rows.mean(0)
        return cls(len(rows), mean, (rows - mean).square().sum(0))

    def merged(self, other: Moments) -> Moments:
        """Moments of two sets of rows together (Chan, Golub, LeVeque 1979).

        Args:
            other: moments of other rows.

        Returns:
            Moments on the device of this one.
        """
        count = self.count + other.count
        gap = other.mean.to(self.mean) - self.mean  # layers of a sharded model are on several devices
        spread = other.square.to(self.mean) + gap**2 * (self.count * other.count / count)
        return Moments(count, self.mean + gap * (other.count / count), self.square + spread)

    def normalize(self, rows: Tensor) -> Tensor:
        """Rows at mean 0 and variance 1.

        Args:
            rows: `rows x entries`.

        Returns:
            fp64; an entry with variance 0 becomes 0.

        Raises:
            MetakeError: a single row has no variance.
        """
        if self.count < 2:
            raise MetakeError(
                "target gradient: one token alone cannot be normalized; edit more requests at once"
            )
        deviation = (self.square / (self.count - 1)).sqrt()
        scale = (deviation + torch.finfo(torch.float32).eps).to(rows.device)
        return (rows.double() - self.mean.to(rows.device)) / scale

    def pack(self) -> Tensor:
        """Moments as one tensor, `3 x entries`."""
        return torch.stack([torch.full_like(self.mean, self.count), self.mean, self.square])

    @classmethod
    def unpack(cls, packed: Tensor) -> Moments:
        """Moments from one tensor.

        Args:
            packed: `3 x entries`, from `pack`.

        Returns:
            The moments.
        """
        return cls(int(packed[0, 0]), packed[1], packed[2])


@dataclass(frozen=True)
class Signals:
    """Keys and gradients at the answer tokens of a batch, `t` tokens in all.

    Attributes:
        owners: `t`, the request of each.
        keys: layer -> `t x d_k`.
        gradients: layer -> `t x d_v`.
        nll: `n`, mean over a request's answer tokens.
        hidden: `n x d_v`, stream after the last edited layer where the prompt ends.
    """

    owners: Tensor
    keys: dict[int, Tensor]
    gradients: dict[int, Tensor]
    nll: Tensor
    hidden: Tensor

    @property
    def moments(self) -> dict[int, Moments]:
        """Moments of keys and gradients side by side, per layer."""
        return {n: Moments.of(torch.cat([self.keys[n], self.gradients[n]], 1)) for n in self.keys}

    def scaled(self, factor: float) -> Signals:
        """Signals of a multiple of the loss.

        Args:
            factor: the factor of the gradients.

        Returns:
            A copy that shares the keys.
        """
        return replace(self, gradients={n: factor * gradient for n, gradient in self.gradients.items()})

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the tokens of each request.

        Args:
            values: `t x ...`.

        Returns:
            `n x ...`.
        """
        return mean_within(values, self.owners, len(self.nll))


@torch.enable_grad()
def answer_keys_and_gradients(
    model: EditableModel, rows: Sequence[Row], layers: Sequence[int], max_tokens: int | None = None
) -> Signals:
    """Keys, and gradients of the mean NLL over all answer tokens of all rows.

    Args:
        model: the model.
        rows: token rows, one per request.
        layers: layers whose keys and gradients are read.
        max_tokens: padded tokens per pass; by default what suits the device.

    Returns:
        Keys and gradients per answer token, at least fp32.

    Example:
        >>> import metake as mk
        >>> model = mk.load("demo", device="cpu")
        >>> request = mk.EditRequest("Which city was {} born in?", "Ada", "Oslo")
        >>> rows = mk.Batch.build(model, [request], contexts=()).edits
        >>> signals = mk.answer_keys_and_gradients(model, rows, layers=(1,))
        >>> signals.keys[1].shape[0] == signals.gradients[1].shape[0] == rows[0].answer
        True
    """
    total, top = sum(row.answer for row in rows), max(layers)
    owners: list[Tensor] = []
    keys: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    gradients: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    nll = torch.zeros(len(rows))
    hidden = torch.zeros(len(rows), model.d_v)
    zero_edits = _zero_edits(model, layers)
    for group in length_buckets([row.needed for row in rows], max_tokens or model.pass_tokens):
        members = [rows[i] for i in group]
        places = answer_positions(members)
        owner = torch.tensor(group)[places[0]]
        width = max(row.needed for row in members)
        trace = run(
            model,
            pad(members)[:, :width],
            keys=layers,
            values=layers,
            outputs=(top,),
            edits=zero_edits,
            positions=places[:2],
        )
        loss = cross_entropy(upcast(trace.logits), places[2].to(trace.logits.device), reduction="none")
        value_gradients = torch.autograd.grad(loss.sum() / total, [trace.values[layer] for layer in layers])
        for layer, gradient in zip(layers, value_gradients, strict=True):
            at = (places[0].to(gradient.device), places[1].to(gradient.device))
            keys[layer].append(upcast(trace.keys[layer].detach()[at]))
            gradients[layer].append(upcast(gradient[at]))
        owners.append(owner)
        nll.index_add_(0, owner, loss.detach().float().cpu())
        ends = torch.tensor([row.predicting[0] for row in members])
        stream = trace.outputs[top].detach()
        hidden[torch.tensor(group)] = stream[torch.arange(len(members)), ends].float().cpu()
    nll /= torch.tensor([row.answer for row in rows])
    joined_keys, joined_gradients = (
        {layer: torch.cat(parts) for layer, parts in of.items()} for of in (keys, gradients)
    )
    return Signals(torch.cat(owners), joined_keys, joined_gradients, nll, hidden)


def _zero_edits(model: EditableModel, layers: Sequence[int]) -> dict[int, tuple[Tensor, Tensor]]:
    """Virtual edits that change nothing; the values of their layers then have a gradient."""
    edits = {}
    for layer in layers:
        device = model.weight_device(layer)
        left = torch.zeros(model.d_v, 1, device=device, requires_grad=True)
        edits[layer] = (left, torch.zeros(model.d_k, 1, device=device))
    return edits
