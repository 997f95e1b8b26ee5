"""Map from the keys and gradients of a batch to a change of the weights; between normalizing and stepping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn

from metake.geometry.identity import Identity
from metake.maps.networks import Network
from metake.maps.updates import Factors, Pairs, Update
from metake.models.ambient import exact_device
from metake.models.end_token import End
from metake.planners.normalized_gradient import Moments, Signals

Reduction = Literal["sum", "mean"]


@dataclass(frozen=True)
class MapSpec:
    """What a map is made of, without its fitted numbers.

    Attributes:
        layers: edited layers, ascending.
        network: network that all layers share.
        update: change of the weights from the mapped pairs.
        lr: step size eta of every layer before the fit.
        reduction: gradients are those of the sum of the NLL over a batch's answer tokens, or of the mean.
        end: what follows the targets.
        dtype: precision of the solves.
    """

    layers: tuple[int, ...]
    network: Network
    update: Update
    lr: float
    reduction: Reduction = "sum"
    end: End = "none"
    dtype: torch.dtype = torch.float64


class GradientMap(nn.Module):
    """Normalization, network and update of the (key, gradient) pairs of a batch.

    The learned numbers of a layer are factors of scale and shift in the network, log eta relative to `spec.lr`, and lambda.

    Args:
        spec: what the map is made of.
        d_k: entries of a key.
        d_v: entries of a gradient.
        seed: seed of the network.

    Attributes:
        moments: moments of the pairs that the map was fitted on, all layers together; None for a map that is normalized
            by the edited batches alone.
    """

    def __init__(self, spec: MapSpec, d_k: int, d_v: int, seed: int = 0) -> None:
        super().__init__()
        self.spec, self.widths = spec, (d_k, d_v)
        self.network = spec.network.build(d_k + d_v, len(spec.layers), seed)
        self.log_step = nn.Parameter(torch.zeros(len(spec.layers)))
        self.log_lambda = nn.Parameter(torch.zeros(len(spec.layers)))
        self.moments: Moments | None = None

    def signals(self, signals: Signals) -> Signals:
        """Signals with the gradients of this map's loss.

        Args:
            signals: of the mean NLL over the answer tokens of a batch.

        Returns:
            The signals themselves, or those of the sum, which do not depend on the number of tokens.
        """
        return signals if self.spec.reduction == "mean" else signals.scaled(len(signals.owners))

    def pooled(self, batches: Iterable[Moments]) -> Moments:
        """Moments to normalize by.

        Args:
            batches: moments of each batch and layer, at least one unless the map has moments.

        Returns:
            Moments of the fit and of the batches, all layers together.
        """
        first = [] if self.moments is None else [self.moments]
        return reduce(Moments.merged, [*first, *batches])

    def pairs(self, signals: Signals, moments: Moments) -> dict[int, Pairs]:
        """Mapped pairs of each layer.

        Args:
            signals: keys and gradients of a batch, as `signals` returns them.
            moments: moments to normalize by.

        Returns:
            Layer -> pairs.
        """
        found = {}
        for at, layer in enumerate(self.spec.layers):
            key, gradient = signals.keys[layer], signals.gradients[layer]
            rows = moments.normalize(torch.cat([key, gradient], 1))
            mapped = self.network(rows.to(self.log_step.device), at).to(key.device)
            mapped_key, mapped_gradient = torch.split(mapped, list(self.widths), 1)
            step = self.spec.lr * self.log_step[at].double().exp()
            found[layer] = Pairs(
                key, rows[:, : self.widths[0]], mapped_key, mapped_gradient, step, self.log_lambda[at]
            )
        return found

    def forward(self, signals: Signals, moments: Moments) -> dict[int, Factors]:
        """Change of the weights of a batch.

        Args:
            signals: keys and gradients of the batch.
            moments: moments to normalize by.

        Returns:
            Layer -> factors.
        """
        return self.spec.update.factors(self.pairs(signals, moments), self.spec.dtype)

    def geometry(self, layer: int, device: torch.device | str = "cpu") -> Identity:
        """Geometry that a layer is solved in, `e^lambda I`.

        Args:
            layer: an edited layer.
            device: device of the solve.

        Returns:
            The geometry.
        """
        weight = float(self.log_lambda.detach()[self.spec.layers.index(layer)].exp())
        return Identity(dtype=self.spec.dtype, device=exact_device(torch.device(device))).scaled(weight)


def backward(factors: Mapping[int, Factors], gradients: Mapping[int, Tensor]) -> None:
    """Add the gradients of a loss with respect to a map's parameters to their `grad`.

    For `W = left right^T` they follow from `dL/dleft = (dL/dW) right` and `dL/dright = (dL/dW)^T left`, so the graph of the
    model is not part of that of the map. For least squares `right` is the channel Q, and the first is X8's derivative.

    Args:
        factors: layer -> factors, as the map returned them.
        gradients: layer -> dL/dW, `d_v x d_k`.
    """
    total = torch.zeros((), dtype=torch.float64)
    for layer, change in factors.items():
        gradient = gradients[layer].to(change.left)
        left = ((gradient @ change.right.detach()) * change.left).sum()
        right = ((gradient.T @ change.left.detach()) * change.right).sum()
        total = total + (left + right).to(total)
    torch.autograd.backward(total)
