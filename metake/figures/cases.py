"""Layers and models with known hypergradient: synthetic layers, small nets, tiny language models."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from metake.figures import networks as nets
from metake.figures import solves
from metake.figures.networks import Fidelity
from metake.figures.numbers import EPS32, EPS64, Array, basis, tolerance


@dataclass(frozen=True)
class Case:
    """Layers and their hypergradient.

    Attributes:
        layers: both sides of Theorem 3.
        g: hypergradient at frozen channels, `d_v`: the sum over the layers, or the derivative of the whole solve.
        eps: machine epsilon of `g`.
    """

    layers: Fidelity
    g: Array
    eps: float = EPS64

    @property
    def rounding(self) -> float:
        """Absolute error of `g` by rounding."""
        return tolerance(eps=self.eps) * self.layers.size


def synthetic(count: int) -> list[Case]:
    """Random layers: J_L near a multiple of the identity, tails of any size.

    Args:
        count: number of cases.

    Returns:
        The cases.
    """
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        n, d_v, d_k = int(rng.integers(2, 6)), int(rng.integers(2, 6)), int(rng.integers(1, 5))
        gap, size = rng.uniform(0, 1.2), rng.uniform(0, 1.4)
        J = [rng.standard_normal((d_v, d_v)) for _ in range(n - 1)] + [np.eye(d_v) + gap * basis(d_v, i + 1)]
        Gamma, q = list(rng.standard_normal((n, d_v, d_k))), list(rng.standard_normal((n, d_k)))
        head = np.linalg.norm(J[-1].T @ Gamma[-1] @ q[-1])
        for j in range(n - 1):
            J[j] *= size * head / (n - 1) / np.linalg.norm(J[j].T @ Gamma[j] @ q[j])
        layers = Fidelity(J, Gamma, q)
        found.append(Case(layers, layers.g))
    return found


def adversaries() -> list[Case]:
    """Worst cases over a grid of (gamma, eps): J_L turns the proxy by arcsin eps, the tail by arcsin gamma more."""

    def turn(angle: float) -> Array:
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    found, one = [], np.array([1.0])
    for eps in np.linspace(0.05, 0.95, 7):
        for gamma in np.linspace(0.05, 0.95, 7):
            angle = np.arcsin(eps)
            J = np.cos(angle) * turn(angle)  # the largest turn at distance eps from the identity
            proxy = np.array([1.0, 0.0])
            tail = gamma * turn(-np.pi / 2 - np.arcsin(gamma)) @ J.T @ proxy
            layers = Fidelity([np.eye(2), J], [tail[:, None], proxy[:, None]], [one, one])
            found.append(Case(layers, layers.g))
    return found


@cache
def networks(count: int) -> list[Case]:
    """Small residual nets in fp64; the hypergradient is the derivative of the whole solve.

    Args:
        count: number of cases.

    Returns:
        The cases.
    """
    found = []
    for seed in range(count):
        net = nets.net(seed, layers=2 + seed % 3)
        z = net.origin() + torch.from_numpy(np.random.default_rng(seed).standard_normal(net.width))
        gradients = nets.gradients(net, z)
        found.append(Case(Fidelity.of(gradients), gradients.frozen))
    return found


def _language_model(family: str, seed: int, weight: float) -> Case:
    """Case of a tiny random language model under the library's solver."""
    s = solves.setting(family, seed, weight)
    gradients = solves.gradients(s, s.residuals(seed))
    return Case(Fidelity.of(gradients), gradients.frozen, EPS32)


@cache
def language_models() -> list[Case]:
    """Cases of tiny random language models of two families, over the strength of the constraint."""
    return [
        _language_model(family, seed, weight)
        for family in ("gpt2", "llama")
        for seed in range(5)
        for weight in (0.1, 1.0, 100.0)
    ]
