"""The library's layered solve on tiny language models, and the quantities of Theorem 3.

Gradients are computed by differentiation of the whole solve. Keys, residuals and channels are fp32, which limits the
precision of all quantities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metake.figures import tiny_models as tiny
from metake.figures.networks import Gradients
from metake.figures.numbers import Array
from metake.geometry.operator import Geometry, Ridge
from metake.lookup_prompts import LookupPrompts
from metake.models.editable import EditableModel
from metake.models.tokens import answer_positions, pad
from metake.models.trace import run
from metake.planners.hypergradient import VirtualEditLoss
from metake.planners.objective import Gate, Losses, Objective
from metake.planners.target_optimization import Penalty, TargetOptimization, optimize_targets
from metake.prompts import Batch
from metake.solvers.allocation import spread
from metake.solvers.layered import LayeredSolver, Solution

LAYERS = (1, 2, 3)


@dataclass(frozen=True)
class Setting:
    """A batch, a model and a solver over its edited layers.

    Attributes:
        model: the model.
        batch: the requests.
        weight: lambda.
        layers: edited layers.
        geometries: layer -> its geometry; by default a ridge with a random second moment.
    """

    model: EditableModel
    batch: Batch
    weight: float
    layers: tuple[int, ...] = LAYERS
    geometries: dict[int, Geometry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.geometries:
            own = {layer: Ridge(tiny.moment(layer), self.weight) for layer in self.layers}
            object.__setattr__(self, "geometries", own)

    @property
    def solver(self) -> LayeredSolver:
        """Solver with MEMIT's allocation."""
        return LayeredSolver(self.model, self.geometries, spread(self.layers))

    @cached_property
    def prompts(self) -> LookupPrompts:
        """Prompts of the batch up to their lookup tokens."""
        return LookupPrompts.build(self.model, self.batch, self.layers[0])

    @cached_property
    def origin(self) -> tuple[Tensor, Tensor]:
        """Stream h (`n x d_v`) and keys (`n x d_k`) of the last edited layer."""
        return self.solver.unedited_stream_and_key(self.prompts)

    @property
    def channel(self) -> Tensor:
        """Channel of the last edited layer at unedited keys, `d_k x n`."""
        return self.geometries[self.layers[-1]].channel(self.origin[1].T)

    @cached_property
    def objective(self) -> Objective:
        """Losses of the batch through this channel."""
        return Objective(self.model, self.batch, self.layers[0], self.layers[-1], channel=self.channel)

    def residuals(self, seed: int = 0, length: float = 1.0) -> Tensor:
        """Random residuals.

        Args:
            seed: seed of the random generator.
            length: standard deviation of each entry.

        Returns:
            `n x d_v`, fp32.
        """
        generator = torch.Generator().manual_seed(seed)
        return length * torch.randn(len(self.batch.requests), tiny.WIDTH, generator=generator)

    def solve(self, residuals: Tensor) -> Solution:
        """Solution of the layered solver.

        Args:
            residuals: `n x d_v`.

        Returns:
            The solution.
        """
        return self.solver.solve(self.prompts, residuals)

    def unrolled(self, residuals: Tensor, held: dict[int, Tensor] | None = None) -> Solution:
        """Solution with its graph.

        Args:
            residuals: `n x d_v`.
            held: layer -> fixed channel, `d_k x n`; by default channels depend on the residuals.

        Returns:
            The solution.
        """
        geometries = self.geometries
        if held is not None:
            geometries = {i: tiny.Held(g, held[i]) for i, g in geometries.items()}
        solver = LayeredSolver(self.model, geometries, spread(self.layers))
        return solver.solve(self.prompts, residuals)

    def loss(self, factors: dict[int, tuple[Tensor, Tensor]]) -> Tensor:
        """Sum over the requests of their mean NLL under virtual edits, differentiable; it does not use `Objective`.

        Args:
            factors: layer -> `(left, right)`, `d_v x n` and `d_k x n`.

        Returns:
            The loss, a scalar.
        """
        rows = self.batch.edits
        at, columns, labels = answer_positions(rows)
        logits = run(
            self.model,
            pad(rows),
            start=self.layers[0],
            hidden=self._below,
            edits=factors,
            positions=(at, columns),
        ).logits
        chosen = -logits.log_softmax(-1).gather(1, labels[:, None])[:, 0]
        return (chosen / torch.tensor([rows[i].answer for i in at])).sum()

    @cached_property
    def _below(self) -> Tensor:
        first = self.layers[0]
        return run(self.model, pad(self.batch.edits), stop=first, inputs=(first,)).inputs[first]

    def proxy(self, residuals: Tensor, gate: Gate = "channel") -> tuple[Losses, Array]:
        """Losses of the objective and their gradient.

        Args:
            residuals: `n x d_v`.
            gate: what the residuals are multiplied by.

        Returns:
            Losses, and the gradient, `n x d_v` in fp64.
        """
        leaf = residuals.clone().requires_grad_(True)
        everyone = torch.ones(len(leaf), dtype=torch.bool)
        losses = self.objective.losses(leaf, gate, everyone, backward=True)
        assert leaf.grad is not None
        return losses, leaf.grad.double().numpy()

    def descend(
        self,
        objective: Objective,
        steps: int,
        lr: float,
        penalty: Penalty | None = None,
        gate: Gate = "channel",
    ) -> TargetOptimization:
        """Optimization of the residuals from 0, by default in the closed loop.

        Args:
            objective: the losses.
            steps: number of steps.
            lr: step size.
            penalty: weights of the losses.
            gate: what the residuals are multiplied by.

        Returns:
            The result of the optimization.
        """
        hidden = self.origin[0]
        return optimize_targets(
            VirtualEditLoss(objective, gate),
            torch.zeros_like(hidden),
            hidden.norm(dim=1),
            steps=steps,
            lr=lr,
            penalty=penalty or Penalty(),
            stop="none",
            stop_loss=0.0,
            evaluate_post_edit=lambda r: self.objective.post_edit_losses(self.solve(r).factors),
        )


def setting(family: str, seed: int = 0, weight: float = 1.0, size: int = 1, **more: Any) -> Setting:
    """Setting on a random language model.

    Args:
        family: `gpt2` or `llama`.
        seed: seed of the weights and tokens.
        weight: lambda.
        size: number of requests.
        **more: further fields of `Setting`.

    Returns:
        The setting.
    """
    return Setting(tiny.tiny(family, seed), tiny.batch(size, seed), weight, **more)


def still(weight: float = 1.0, layers: tuple[int, ...] = LAYERS, seed: int = 0, **more: Any) -> Setting:
    """Setting of one request with identity transport, on GPT-2.

    Args:
        weight: lambda.
        layers: edited layers.
        seed: seed of the weights and tokens.
        **more: further fields of `Setting`.

    Returns:
        The setting.
    """
    return Setting(tiny.still(seed, layers), tiny.batch(1, seed), weight, layers, **more)


def _rows(outputs: Tensor, inputs: Tensor) -> Array:
    """Jacobian of a vector with respect to a residual, `len(outputs) x d_v`."""
    if not outputs.requires_grad:  # the first layer's key, and held channels, do not depend on it
        return np.zeros((len(outputs), inputs.shape[1]))
    zero = torch.zeros_like(inputs)
    rows = [torch.autograd.grad(x, inputs, retain_graph=True, allow_unused=True)[0] for x in outputs]
    return torch.stack([zero if row is None else row for row in rows])[:, 0].double().numpy()


def gradients(s: Setting, residuals: Tensor) -> Gradients:
    """Quantities of Theorem 3 for one request, by the library's solver and its virtual edits.

    Args:
        s: the setting.
        residuals: `1 x d_v`.

    Returns:
        The quantities.
    """
    r = residuals.clone().requires_grad_(True)
    whole = s.unrolled(r)
    held = {i: right.detach() for i, (_, right) in whole.factors.items()}
    frozen = s.unrolled(r, held)

    eye, nothing = torch.eye(tiny.INNER), torch.zeros(tiny.WIDTH, tiny.INNER)
    blank = {i: nothing.clone().requires_grad_(True) for i in s.layers}
    fixed = {
        i: (torch.cat([left.detach(), blank[i]], 1), torch.cat([right.detach(), eye], 1))
        for i, (left, right) in whole.factors.items()
    }
    Gamma = torch.autograd.grad(s.loss(fixed), list(blank.values()))

    def arrays(tensors: Sequence[Tensor]) -> list[Array]:
        return [t.detach().double().numpy() for t in tensors]

    left, right = ([f[j][:, 0] for f in whole.factors.values()] for j in (0, 1))
    return Gradients(
        [_rows(f[0][:, 0], r) for f in frozen.factors.values()],
        arrays(right),
        arrays(left),
        arrays([k[0] for k in whole.keys.values()]),
        arrays(Gamma),
        [_rows(x, r) for x in left],
        [_rows(x, r) for x in right],
        torch.autograd.grad(s.loss(frozen.factors), r)[0][0].double().numpy(),
        torch.autograd.grad(s.loss(whole.factors), r)[0][0].double().numpy(),
    )
