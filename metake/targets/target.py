"""The upper level: from a batch of requests to the residuals that the solver is asked for.

plan          Stage I, open loop (2)
compensated   the plan at the length that execution realises in full (P4)
bilevel       MetaKE, Algorithm 1: from either of them, descend the whole loss (6) along the structural
              proxy (7)-(9) or another of the gradients in `hypergradient.py`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from metake.hparams import Settings
from metake.models.architecture import Architecture
from metake.prompts import Batch, Trunks
from metake.solvers.layered import LayeredSolver
from metake.targets.compensate import compensate
from metake.targets.descent import Descent, Penalty, Slope, descend, group_mean
from metake.targets.hypergradient import Parallel, Unrolled, Virtual, look
from metake.targets.objective import Losses, Objective


@dataclass(frozen=True)
class Targets:
    """Residuals for the solver, and how they came about.

    Attributes:
        residuals: `n x d_v`, z - h at the lookup token of the layer that the solver plans at.
        hidden: `n x d_v`, h.
        plan: the open-loop stage.
        closed: MetaKE's stage, None for open-loop targets.
        scale: factor of compensation per request, 1 where there was none.
    """

    residuals: Tensor
    hidden: Tensor
    plan: Descent
    closed: Descent | None
    scale: Tensor


def plan_targets(
    arch: Architecture,
    solver: LayeredSolver,
    batch: Batch,
    trunks: Trunks,
    settings: Settings,
    tick: Callable[[], object] = lambda: None,
) -> Targets:
    """Choose the targets of a batch by the rule of `settings.target`."""
    top = solver.planned_at
    hidden, key = solver.origin(trunks)
    bilevel = settings.target == "bilevel"
    channel = None
    if bilevel and settings.hypergradient == "proxy":
        geometry = solver.geometries[top]
        columns = key.T.to(geometry.device)
        if settings.joint:
            channel = geometry.channel(columns, solver.fit)
        else:  # each edit's own lower level: q = G^-1 k / (1 + rho), or / rho for the exact fit
            rho = geometry.realisability(columns)
            floor = torch.finfo(rho.dtype).tiny
            channel = geometry.solve(columns) / (1 + rho if solver.fit == "soft" else rho.clamp_min(floor))
    planning = Objective(arch, batch, trunks.start, top, max_tokens=settings.max_tokens)
    objective = Objective(
        arch, batch, trunks.start, top, channel=channel, joint=settings.joint, max_tokens=settings.max_tokens
    )
    norms = (hidden if settings.relative == "stream" else solver.value(trunks)).norm(dim=1)
    ties = batch.subjects if settings.merge else None

    def execute(residuals: Tensor, penalty: Penalty) -> Losses:
        return look(objective, solver.solve(trunks, residuals), everyone, penalty)

    everyone = torch.ones(len(hidden), dtype=torch.bool)
    planned = Penalty(kl=settings.kl, decay=settings.decay, clamp=settings.clamp)
    plan = descend(
        Virtual(planning, "token"), torch.zeros_like(hidden), norms,
        steps=max(1, settings.steps // settings.rounds), lr=settings.lr, stop=settings.stop, stop_loss=settings.stop_loss,
        penalty=planned, execute=lambda r: execute(r, planned), check_every=settings.check_every, ties=ties, tick=tick,
    )  # fmt: skip
    del planning  # holds attention's memory of every row
    residuals, scale = plan.residuals, torch.ones(len(hidden))
    if settings.target == "compensated" or (bilevel and settings.start == "compensated"):
        eta = torch.stack([kept.cpu() for kept in solver.solve(trunks, residuals).eta.values()])
        bound = group_mean(1 / eta.amin(0), ties).clamp(1, settings.stretch)
        residuals, scale = compensate(
            lambda r: group_mean(solver.solve(trunks, r).fraction, ties), residuals, bound
        )
    closed = None
    if bilevel and settings.meta_steps:
        kept = None
        if channel is not None:
            kept = (
                key.to(channel) @ channel if settings.joint else (key.to(channel) * channel.T).sum(1).diag()
            )
        closing = Penalty(
            kl=settings.locality, initial_first=True, regularise=settings.regularise,
            price=settings.price / norms.square() if settings.price else None,
        )  # fmt: skip
        slopes: dict[str, Slope] = {
            "proxy": Virtual(objective, "channel", kept),
            "parallel": Parallel(objective, solver, trunks),
            "unrolled": Unrolled(objective, solver, trunks),
        }
        closed = descend(
            slopes[settings.hypergradient], residuals, norms,
            steps=max(1, settings.meta_steps // settings.rounds), lr=settings.meta_lr,
            stop=settings.meta_stop, stop_loss=settings.stop_loss,
            penalty=closing, execute=lambda r: execute(r, closing),
            check_every=settings.check_every, ties=ties, tick=tick,
        )  # fmt: skip
        residuals = closed.residuals
    return Targets(residuals, hidden, plan, closed, scale)
