"""Spectral norms of matrices that are given by their products, or as sums over tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metake.models.editable import EditableModel

Product = Callable[[Tensor], Tensor]


def largest_singular(matvec: Product, rmatvec: Product, start: Tensor, steps: int) -> float:
    """`||A||_2` from below, by Golub and Kahan's bidiagonalization with full reorthogonalization.

    Args:
        matvec: `v -> A v`.
        rmatvec: `u -> A^T u`.
        start: first vector, in the range of A; the estimate is at least `||A^T start|| / ||start||`.
        steps: pairs of products; exact once they reach the rank.

    Returns:
        The estimate; 0 if `A^T start` is 0.
    """
    u = start / start.norm()
    left: list[Tensor] = [u]
    right: list[Tensor] = []
    alphas, betas = [], []
    v = rmatvec(u)
    for _ in range(steps):
        for other in right:
            v = v - (other @ v) * other
        alpha = v.norm()
        if not alpha > 0:
            break
        v = v / alpha
        right.append(v)
        alphas.append(alpha)
        u = matvec(v) - alpha * u
        for other in left:
            u = u - (other @ u) * other
        beta = u.norm()
        betas.append(beta)
        if not beta > torch.finfo(u.dtype).eps * alpha:
            break
        u = u / beta
        left.append(u)
        v = rmatvec(u) - beta * v
    if not alphas:
        return 0.0
    B = torch.zeros(len(alphas) + 1, len(alphas), dtype=torch.float64)
    for i, (alpha, beta) in enumerate(zip(alphas, betas, strict=True)):
        B[i, i], B[i + 1, i] = alpha, beta
    return float(torch.linalg.matrix_norm(B, 2))


class Jacobian:
    """Jacobian of `y(x)` by its products, without a matrix of size `len(y) x len(x)`.

    `J^T u` is a backward pass, `J v` the backward pass of that backward pass.

    Args:
        y: vector that depends on `x`, its graph kept.
        x: `1 x d`.
    """

    def __init__(self, y: Tensor, x: Tensor) -> None:
        self.y, self.x = y, x
        self._probe = torch.zeros_like(y, requires_grad=True)
        (self._pulled,) = torch.autograd.grad(y, x, self._probe, create_graph=True)

    def transposed(self, u: Tensor) -> Tensor:
        """`J^T u`.

        Args:
            u: shape of `y`.

        Returns:
            `d`.
        """
        (out,) = torch.autograd.grad(self.y, self.x, u.to(self.y), retain_graph=True)
        return out[0]

    def times(self, v: Tensor) -> Tensor:
        """`J v`.

        Args:
            v: `d`.

        Returns:
            Shape of `y`.
        """
        (out,) = torch.autograd.grad(self._pulled, self._probe, v.to(self.x)[None], retain_graph=True)
        return out

    def norm(self, start: Tensor, steps: int, *, shift: float = 0.0, scale: float = 1.0) -> float:
        """`||J / scale - shift I||`, from below.

        Args:
            start: first vector, in the range of the matrix.
            steps: pairs of products.
            shift: multiple of the identity that is subtracted.
            scale: divisor of J.

        Returns:
            The estimate.
        """
        return largest_singular(
            lambda v: self.times(v) / scale - shift * v,
            lambda u: self.transposed(u) / scale - shift * u,
            start.to(self.y),
            steps,
        )


@dataclass
class Tokens:
    """Keys of a down-projection and gradients of the loss with respect to its output, of all tokens.

    Attributes:
        keys: one tensor per pass, `... x d_k`.
        signals: one tensor per backward pass, `... x d_v`.
    """

    keys: list[Tensor] = field(default_factory=list)
    signals: list[Tensor] = field(default_factory=list)

    def norm(self) -> float:
        """`||Gamma||_2`, Gamma = sum over tokens of signal key^T, from the smaller Gram matrix: of tokens or of entries."""
        keys, signals = (
            torch.cat([x.reshape(-1, x.shape[-1]) for x in part]).double()
            for part in (self.keys, self.signals)
        )
        if len(signals) > signals.shape[1]:
            gamma = signals.T @ keys
            square = gamma @ gamma.T
        else:
            # singular values of S^T K are those of R_S R_K^T, R the triangular factors of their Gram matrices
            values, vectors = torch.linalg.eigh(signals @ signals.T)
            half = vectors * values.clamp_min(0).sqrt()
            square = half.T @ (keys @ keys.T) @ half
        return float(torch.linalg.eigvalsh((square + square.T) / 2)[-1].clamp_min(0).sqrt())


@contextmanager
def watched(model: EditableModel, layer: int) -> Iterator[Tokens]:
    """Context that collects keys and gradients of a layer during passes that are differentiated.

    Args:
        model: the model.
        layer: the layer.

    Yields:
        The collection.
    """
    tokens = Tokens()

    def collect(_: object, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if not torch.is_grad_enabled():
            return None
        tokens.keys.append(args[0].detach())
        if not output.requires_grad:
            output = output.detach().requires_grad_(True)
        hooked: Any = output  # `register_hook` has no annotations
        hooked.register_hook(lambda g: tokens.signals.append(g.detach()))
        return output

    handle = model.down(layer).register_forward_hook(collect)
    try:
        yield tokens
    finally:
        handle.remove()
