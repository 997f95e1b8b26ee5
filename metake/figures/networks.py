"""A small network in fp64 with all its derivatives, and both sides of Theorem 3.

`Net` is a residual stream over several tokens whose layers are edited one after the other, as in MEMIT: an update
changes the keys and residuals of the layers above it, also at other tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, jacrev

from metake.figures.numbers import Array, basis, tolerance
from theory import fidelity


@dataclass(frozen=True)
class Net:
    """Layer l: key `k = phi(A_l h + b_l)`, then `h <- h + W_l k + tanh(h) of earlier tokens`.

    Attributes:
        A: per edited layer, `d_k x d_v`.
        b: per edited layer, `d_k`.
        W: per edited layer, `d_v x d_k`.
        G: geometry per edited layer, `d_k x d_k`.
        mix: `tokens x tokens`, strictly lower triangular: weights of earlier tokens.
        head: `answers x d_v`; the loss is that of answer 0 at the last token.
        start: `tokens x d_v`, the stream below the first edited layer.
        subject: the token that is edited.
    """

    A: tuple[Tensor, ...]
    b: tuple[Tensor, ...]
    W: tuple[Tensor, ...]
    G: tuple[Tensor, ...]
    mix: Tensor
    head: Tensor
    start: Tensor
    subject: int = 1

    @property
    def layers(self) -> int:
        """Number of edited layers."""
        return len(self.W)

    @property
    def width(self) -> int:
        """Entries of the stream, d_v."""
        return self.start.shape[1]

    @property
    def spread(self) -> tuple[float, ...]:
        """Shares of MEMIT's allocation."""
        return tuple(1 / (self.layers - i) for i in range(self.layers))

    def forward(self, updates: Sequence[Tensor] = ()) -> tuple[list[Tensor], Tensor]:
        """Keys and stream under the weights `W_l + updates[l]`.

        Args:
            updates: update per layer, `d_v x d_k`; none above the last one given.

        Returns:
            Keys of every layer, `tokens x d_k`, and the stream after the last one, `tokens x d_v`.
        """
        h, keys = self.start, []
        for i, (A, b, W) in enumerate(zip(self.A, self.b, self.W, strict=True)):
            key = torch.tanh(h @ A.T + b)
            weight = W + updates[i] if i < len(updates) else W
            h = h + key @ weight.T + self.mix @ torch.tanh(h)
            keys.append(key)
        return keys, h

    def loss(self, updates: Sequence[Tensor] = ()) -> Tensor:
        """`-log P(answer 0)` at the last token, one mixing step above the last edited layer.

        Args:
            updates: update per layer, `d_v x d_k`.

        Returns:
            The loss, a scalar.
        """
        h = self.forward(updates)[1]
        h = h + self.mix @ torch.tanh(h)
        return -torch.log_softmax(self.head @ h[-1], 0)[0]

    def origin(self) -> Tensor:
        """Unedited stream h after the last layer, at the subject; `d_v`."""
        return self.forward()[1][self.subject]

    def scaled(self, factor: float) -> Net:
        """Net with scaled geometries.

        Args:
            factor: factor of every G.

        Returns:
            The net.
        """
        return replace(self, G=tuple(factor * G for G in self.G))


def net(
    seed: int,
    layers: int = 3,
    width: int = 3,
    inner: int = 4,
    tokens: int = 3,
    *,
    stiffness: float = 1.0,
    condition: float = 10.0,
    moving: float = 1.0,
    mixing: float = 0.5,
) -> Net:
    """Random net.

    Args:
        seed: seed of the random generator.
        layers: number of edited layers.
        width: d_v.
        inner: d_k.
        tokens: number of tokens.
        stiffness: smallest eigenvalue of the geometries.
        condition: condition number of the geometries.
        moving: dependence of the keys on the stream; at 0 they are constant.
        mixing: dependence of a token on earlier ones; at 0 there is no path to other tokens, and updates pass
            upwards unchanged if keys are constant.

    Returns:
        The net.
    """
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Tensor:
        return torch.tensor(rng.standard_normal(shape))

    geometries = []
    for i in range(layers):
        U = basis(inner, 1000 + 10 * seed + i)
        geometries.append(torch.tensor((U * np.geomspace(1, condition, inner)) @ U.T * stiffness))
    return Net(
        tuple(moving * normal(inner, width) for _ in range(layers)),
        tuple(normal(inner) for _ in range(layers)),
        tuple(0.3 * normal(width, inner) for _ in range(layers)),
        tuple(geometries),
        mixing * torch.tril(normal(tokens, tokens), -1),
        normal(4, width),
        normal(tokens, width),
        min(1, tokens - 1),
    )


@dataclass(frozen=True)
class Execution:
    """A layered solve; the update of a layer is `r q^T`.

    Attributes:
        k: key per layer, `d_k`.
        q: channel per layer, `d_k`.
        r: residual per layer, `d_v`.
    """

    k: list[Tensor]
    q: list[Tensor]
    r: list[Tensor]

    @property
    def updates(self) -> list[Tensor]:
        """Update per layer, `d_v x d_k`."""
        return [torch.outer(r, q) for r, q in zip(self.r, self.q, strict=True)]


def execute(
    net: Net, z: Tensor, shares: Sequence[float] | None = None, channels: Sequence[Tensor] | None = None
) -> Execution:
    """Layered solve; keys and residuals of a layer are computed with the updates below it.

    Args:
        net: the net.
        z: target, `d_v`.
        shares: share of the missing residual per layer; by default MEMIT's.
        channels: fixed channels, `d_k` per layer; by default they are computed.

    Returns:
        The solve, differentiable with respect to z.
    """
    done = Execution([], [], [])
    for i, share in enumerate(shares or net.spread):
        keys, stream = net.forward(done.updates)
        k = keys[i][net.subject]
        done.k.append(k)
        done.q.append(
            torch.linalg.solve(net.G[i] + torch.outer(k, k), k) if channels is None else channels[i]
        )
        done.r.append(share * (z - stream[net.subject]))
    return done


@dataclass(frozen=True)
class Gradients:
    """Quantities of Theorem 3 at one target; per layer, as fp64 arrays.

    Attributes:
        J: Jacobian of the residual with respect to z at frozen channels, `d_v x d_v`.
        q: channel, `d_k`.
        r: residual, `d_v`.
        k: key, `d_k`.
        Gamma: gradient of the loss with respect to the weight at the edited weights, `d_v x d_k`.
        J_total: total derivative of the residual with respect to z, `d_v x d_v`.
        N: total derivative of the channel with respect to z, `d_k x d_v`.
        frozen: gradient of the post-edit loss with respect to z at frozen channels, by automatic differentiation of
            the whole solve; `d_v`.
        total: the same with channels that depend on z.
    """

    J: list[Array]
    q: list[Array]
    r: list[Array]
    k: list[Array]
    Gamma: list[Array]
    J_total: list[Array]
    N: list[Array]
    frozen: Array
    total: Array


def weight_gradients(net: Net, updates: Sequence[Tensor]) -> list[Array]:
    """`Gamma_l = dLoss/dW_l` at `W + updates`.

    Args:
        net: the net.
        updates: update per layer, `d_v x d_k`.

    Returns:
        `d_v x d_k` per layer.
    """
    return _arrays(grad(lambda u: net.loss(u))(tuple(u.detach() for u in updates)))


def gradients(net: Net, z: Tensor, shares: Sequence[float] | None = None) -> Gradients:
    """Quantities of Theorem 3 at a target.

    Args:
        net: the net.
        z: target, `d_v`.
        shares: share of the missing residual per layer; by default MEMIT's.

    Returns:
        The quantities.
    """
    done = execute(net, z, shares)
    held = [q.detach() for q in done.q]

    def residuals(z: Tensor) -> Tensor:
        return torch.stack(execute(net, z, shares, held).r)

    def everything(z: Tensor) -> tuple[Tensor, Tensor]:
        e = execute(net, z, shares)
        return torch.stack(e.r), torch.stack(e.q)

    J_total, N = jacrev(everything)(z)
    return Gradients(
        _arrays(jacrev(residuals)(z)),
        _arrays(done.q),
        _arrays(done.r),
        _arrays(done.k),
        weight_gradients(net, done.updates),
        _arrays(J_total),
        _arrays(N),
        grad(lambda z: net.loss(execute(net, z, shares, held).updates))(z).numpy(),
        grad(lambda z: net.loss(execute(net, z, shares).updates))(z).numpy(),
    )


def virtual(net: Net, z: Tensor, shares: Sequence[float] | None = None) -> tuple[list[Array], list[Array]]:
    """Gamma^ and q^ of the parallel proxy: updates `s_l (z - h) q_l^T` at all layers at once, unedited keys.

    Args:
        net: the net.
        z: target, `d_v`.
        shares: share of the residual per layer; by default MEMIT's.

    Returns:
        Gamma^ (`d_v x d_k`) and q^ (`d_k`) per layer.
    """
    keys, stream = net.forward()
    q = [
        torch.linalg.solve(G + torch.outer(k[net.subject], k[net.subject]), k[net.subject])
        for G, k in zip(net.G, keys, strict=True)
    ]
    rest = z - stream[net.subject]
    updates = [s * torch.outer(rest, x) for s, x in zip(shares or net.spread, q, strict=True)]
    return weight_gradients(net, updates), _arrays(q)


def _arrays(tensors: Any) -> list[Array]:
    return [t.detach().numpy() for t in tensors]


# -- Theorem 3 ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fidelity:
    """Both sides of Theorem 3.

    Attributes:
        J: Jacobian per layer, the last layer last; `d_v x d_v`.
        Gamma: gradient with respect to the weight per layer, `d_v x d_k`.
        q: channel per layer, `d_k`.
    """

    J: Sequence[Array]
    Gamma: Sequence[Array]
    q: Sequence[Array]

    @classmethod
    def of(cls, source: Gradients) -> Fidelity:
        """Both sides of Theorem 3 at frozen channels.

        Args:
            source: quantities at one target.

        Returns:
            Both sides.
        """
        return cls(source.J, source.Gamma, source.q)

    @property
    def each(self) -> list[Array]:
        """Gradient g_l of each layer (51), `d_v`."""
        return [
            np.asarray(fidelity.layer_gradient(*x), np.float64)
            for x in zip(self.J, self.Gamma, self.q, strict=True)
        ]

    @property
    def g(self) -> Array:
        """Hypergradient at frozen channels, `d_v`."""
        return np.asarray(np.sum(self.each, axis=0), np.float64)

    @property
    def proxy(self) -> Array:
        """Proxy gradient g~ (59) at the same weights, `d_v`."""
        return np.asarray(fidelity.proxy_gradient(self.Gamma[-1], self.q[-1]), np.float64)

    @property
    def gamma(self) -> float:
        """Relative tail gamma (54)."""
        return fidelity.tail(self.each)

    @property
    def gap(self) -> float:
        """Distance eps_I of J_L from the identity (56)."""
        return fidelity.spectral(self.J[-1] - np.eye(len(self.J[-1])))

    @property
    def error(self) -> float:
        """`||g - g~||`."""
        return float(np.linalg.norm(self.g - self.proxy))

    @property
    def bound(self) -> float:
        """Bound (10) of the error."""
        last, Gamma, q = (fidelity.spectral(x) for x in (self.each[-1], self.Gamma[-1], self.q[-1]))
        return fidelity.error_bound(self.gamma, last, self.gap, Gamma, q)

    @property
    def size(self) -> float:
        """`sum_l ||J_l|| ||Gamma_l|| ||q_l||`, the scale of the rounding of a sum over layers."""
        norm = np.linalg.norm
        return float(
            sum(norm(J) * norm(G) * norm(q) for J, G, q in zip(self.J, self.Gamma, self.q, strict=True))
        )

    @property
    def rounding(self) -> float:
        """Absolute error of the hypergradient by rounding."""
        return tolerance() * self.size
