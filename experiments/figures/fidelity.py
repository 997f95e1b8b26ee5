"""Theorem 3 in figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from experiments.figures.core import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY, Data, axes, shows
from metake.geometry.operator import Ridge
from metake.models.architecture import Architecture
from metake.models.trace import frozen
from metake.prompts import Trunks
from metake.solvers.allocation import spread
from metake.solvers.layered import LayeredSolver
from theory import fidelity, suppression
from verification import nets
from verification.strategies import Stack, basis


@shows("L4", caption="Change of the channel as the geometry drifts, in units of 1/sqrt(mu), keys of length 0.1 sqrt(mu): the paper's bound (57) ends at a drift of mu, "
       "the corrected one holds for any. Points: the library's channels, for random drifts and for the worst direction found.")  # fmt: skip
def channel_drift(data: Data) -> Any:
    figure, axis = axes()
    d, k = 4, np.eye(4)[0]
    drift = np.logspace(-2, 3, 16)
    line = np.logspace(-2, 3, 300)
    length = 0.1
    stated = np.array([fidelity.channel_drift_stated(0.0, x, 1.0, length) for x in line])
    axis.loglog(
        line[np.isfinite(stated)], stated[np.isfinite(stated)], "--", color=RED, label="paper's bound (57)"
    )
    axis.loglog(
        line,
        [fidelity.channel_drift(0.0, x, 1.0, length) for x in line],
        color=BLACK,
        label="corrected bound",
    )

    def change(direction: np.ndarray, size: float) -> float:
        key = torch.from_numpy(length * k[:, None])
        G = np.eye(d)
        moved = G + size * np.outer(direction, direction)
        return float(
            (
                Ridge(torch.from_numpy(moved), 1.0).channel(key)
                - Ridge(torch.from_numpy(G), 1.0).channel(key)
            ).norm()
        )

    rng = np.random.default_rng(0)
    worst, random_points = [], []
    for x in drift:
        angles = np.linspace(0, np.pi, 181)
        worst.append(max(change(np.cos(t) * k + np.sin(t) * np.eye(4)[1], x) for t in angles))
        random_points.append([change(v / np.linalg.norm(v), x) for v in rng.standard_normal((8, d))])
    points = np.array(random_points)
    bound = [fidelity.channel_drift(0.0, x, 1.0, length) for x in drift]
    axis.loglog(np.repeat(drift, 8), points.flatten(), ".", color=SKY, ms=2.5, label="random drifts")
    axis.loglog(drift, worst, "o", color=BLUE, mfc="none", label="worst found")
    data.add("worst", drift, bound, worst, "below", 1e-9)
    data.add("random", np.repeat(drift, 8), np.repeat(bound, 8), points.flatten(), "below", 1e-9)
    axis.set(
        xlabel=r"drift of the geometry $\|G_l-G_L\|/\mu$", ylabel=r"$\|q_l-q_L\|\,\sqrt{\mu}$", ylim=(1e-5, 3)
    )
    axis.legend(loc="lower right", fontsize=6.5)
    return figure


def _stacks(count: int) -> list[nets.Fidelity]:
    """Synthetic layers: J_L near a multiple of the identity, tails of any size."""
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
        found.append(nets.Fidelity.of(Stack(tuple(J), tuple(Gamma), tuple(q))))
    return found


def _networks(count: int) -> list[nets.Fidelity]:
    """Small residual nets: Jacobians, gradients and channels by automatic differentiation, channels frozen."""
    found = []
    for seed in range(count):
        net = nets.net(seed, layers=2 + seed % 3)
        z = net.origin() + torch.from_numpy(np.random.default_rng(seed).standard_normal(net.width))
        found.append(nets.Fidelity.of(nets.gradients(net, z)))
    return found


@shows("T3a", caption="Error of the last layer's proxy against its bound (10), on synthetic layers and on small nets differentiated automatically "
       "with frozen channels. No point lies above the diagonal.")  # fmt: skip
def proxy_error(data: Data) -> Any:
    figure, axis = axes(1, 2.5)
    for name, cases, colour, marker in (
        ("synthetic", _stacks(300), SKY, "."),
        ("nets", _networks(40), ORANGE, "D"),
    ):
        bound, error = np.array([c.bound for c in cases]), np.array([c.error for c in cases])
        axis.loglog(bound, error, marker, color=colour, mfc="none" if marker == "D" else None, label=name)
        data.add(name, bound, bound, error, "below", 1e-9)
    low, high = axis.get_xlim()
    axis.plot([low, high], [low, high], color=BLACK, label="equality")
    axis.set(
        xlim=(low, high),
        xlabel=r"$\gamma\|g_L\|+\varepsilon_I\|\Gamma_L\|\|q_L\|$",
        ylabel=r"error $\|g-\tilde{g}\|$",
    )
    axis.legend(loc="upper left")
    return figure


@shows("T3b", "T3c", caption="Cosine between hypergradient and proxy. Top: against zeta' of (67); left of 1 descent is guaranteed. Bottom: against the sum of angles "
       "arcsin gamma + arcsin eps; the line is the sharp bound, and left of 90 degrees descent is guaranteed: the orange points are descents "
       "that zeta' misses. Beyond, it happens (blue) or fails (red).")  # fmt: skip
def descent(data: Data) -> Any:
    figure, (top, bottom) = axes(2, 2.0)
    groups: dict[str, list[tuple[float, float, float]]] = {
        "guaranteed by zeta'": [],
        "guaranteed, sharp": [],
        "happens": [],
        "fails": [],
    }
    for case in [*_stacks(500), *_networks(40), *_adversaries()]:
        cos = fidelity.cosine(case.g, case.proxy)
        gap, zeta = fidelity.scaled_gap(case.J[-1]), fidelity.zeta_sharp(case.gamma, case.gap)
        inside = case.gamma < 1 and gap < 1 and case.gamma**2 + gap**2 < 1
        angle = np.arcsin(min(case.gamma, 1)) + np.arcsin(min(gap, 1))
        name = (
            "guaranteed by zeta'"
            if zeta < 1
            else "guaranteed, sharp"
            if inside
            else "happens"
            if cos > 0
            else "fails"
        )
        groups[name].append((zeta, np.degrees(angle), cos))
        if case.gamma < 1 and gap < 1:
            bound = np.degrees(np.arccos(fidelity.cosine_bound(case.gamma, gap)))
            data.add(
                "angle, sharp",
                [np.degrees(angle)],
                [bound],
                [np.degrees(np.arccos(min(cos, 1)))],
                "below",
                1e-6,
            )
        if zeta < 1:
            inner = float(case.g @ case.proxy / (case.proxy @ case.proxy))
            data.add("zeta'", [zeta], [1 - zeta], [inner], "above", 1e-9)
    for (name, points), colour in zip(groups.items(), (GREEN, ORANGE, BLUE, RED), strict=True):
        zeta, angle, cos = np.array(points).T
        top.plot(zeta, cos, ".", ms=2.2, color=colour, label=name)
        bottom.plot(angle, cos, ".", ms=2.2, color=colour)
    top.axvline(1, color=BLACK, lw=0.8)
    top.set(
        xlim=(0, 4),
        ylim=(-1.05, 1.05),
        xlabel=r"$\zeta'=\gamma(1+\varepsilon_I)+\varepsilon_I$",
        ylabel=r"$\cos(g,\tilde{g})$",
    )
    top.axhline(0, color=BLACK, lw=0.4)
    top.legend(loc="lower left", fontsize=6, markerscale=2.5)
    line = np.linspace(0, 180, 200)
    bottom.plot(line, np.cos(np.radians(line)), color=BLACK, label="sharp bound")
    bottom.axvline(90, color=BLACK, lw=0.8)
    bottom.axhline(0, color=BLACK, lw=0.4)
    bottom.set(
        xlabel=r"$\arcsin\gamma+\arcsin\varepsilon$ (degrees)",
        ylabel=r"$\cos(g,\tilde{g})$",
        xlim=(0, 182),
        ylim=(-1.05, 1.05),
    )
    bottom.legend(loc="lower left")
    return figure


def _adversaries() -> list[nets.Fidelity]:
    """The worst case of every (gamma, eps): J_L turns the proxy by arcsin eps, the tail turns it on by arcsin gamma."""
    found = []
    for eps in np.linspace(0.05, 0.95, 7):
        for gamma in np.linspace(0.05, 0.95, 7):
            turn, on = np.arcsin(eps), np.arcsin(gamma)
            c, s = np.cos(turn), np.sin(turn)
            J = c * np.array(
                [[c, s], [-s, c]]
            )  # within eps of the identity, and as far turned as that allows
            head = J.T @ np.array([1.0, 0.0])
            away = np.array(
                [
                    [np.cos(np.pi / 2 + on), -np.sin(np.pi / 2 + on)],
                    [np.sin(np.pi / 2 + on), np.cos(np.pi / 2 + on)],
                ]
            )
            if head[1] < 0:
                away = away.T
            tail = gamma * away @ head
            one = np.array([1.0])
            found.append(
                nets.Fidelity.of(Stack((np.eye(2), J), (tail[:, None], np.array([[1.0], [0.0]])), (one, one)))
            )
    return found


def _still(n: int) -> Architecture:
    """GPT-2 whose edited blocks have one constant key each and look at nothing: writes pass through unchanged."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=32, bos_token_id=0, eos_token_id=0, n_embd=8, n_inner=12, n_layer=n + 1, n_head=2,
                        n_positions=16, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval().double().requires_grad_(False)
    for layer in range(n):
        block = model.transformer.h[layer]
        block.mlp.c_fc.weight.zero_()
        block.mlp.c_fc.bias.copy_(torch.linspace(-1, 2, 12))
        block.attn.c_proj.weight.zero_()
    return Architecture(model)


@shows("A1", "A2", "J2", caption="MEMIT's allocation over n layers with equal attenuation and identity transport. Top: what all layers together execute of a residual. "
       "Bottom: gamma, the weight of the lower layers' gradients against the last one's; above 1 the premise (54) fails. Points: the library's layered solver.")  # fmt: skip
def identity_transport(data: Data) -> Any:
    figure, (top, bottom) = axes(2, 1.9, sharex=True)
    line, etas = np.linspace(1e-3, 0.999, 100), np.array([0.02, 0.2, 0.4, 0.6, 0.8, 0.95])
    for n, colour in zip((2, 3, 4, 5), (BLUE, GREEN, ORANGE, PURPLE), strict=True):
        arch = _still(n)
        layers = tuple(range(n))
        batch = nets.batch(1, 0)
        top.plot(line, [fidelity.executed_fraction([e] * n) for e in line], color=colour)
        bottom.plot(line, [fidelity.aligned_tail([e] * n) for e in line], color=colour, label=f"n = {n}")
        executed, tails = [], []
        with frozen(arch.model):
            trunks = Trunks.build(arch, batch, 0)
            unit = LayeredSolver(arch, {}, [(n - 1, 1.0)])
            square = float((unit.origin(trunks)[1].double() ** 2).sum())
            for eta in etas:
                ridge = Ridge(torch.eye(12, dtype=torch.float64), square * (1 - eta) / eta)
                solution = LayeredSolver(arch, dict.fromkeys(layers, ridge), spread(layers)).solve(
                    trunks, torch.full((1, 8), 10.0)
                )
                asked = np.array([float(solution.asked[i]) for i in layers])
                executed.append(float(solution.fraction))
                tails.append(asked[:-1].sum() / asked[-1])
        top.plot(etas, executed, "o", color=colour, mfc="none")
        bottom.plot(etas, tails, "o", color=colour, mfc="none")
        data.add(
            f"executed, n={n}",
            etas,
            [fidelity.executed_fraction([e] * n) for e in etas],
            executed,
            "equal",
            1e-4,
        )
        data.add(f"gamma, n={n}", etas, [fidelity.aligned_tail([e] * n) for e in etas], tails, "equal", 1e-4)
    top.set(ylabel="executed fraction", ylim=(0, 1.05))
    bottom.axhline(1, color=BLACK, ls=":", lw=0.8)
    bottom.set(xlabel=r"attenuation $\eta$ of every layer", ylabel=r"$\gamma$, best case", ylim=(0, 4.2))
    bottom.legend(loc="upper left", ncols=2)
    return figure


@shows("P13", "P1", caption="Share of the residual that is realised after T steps of plain gradient descent on the target through the library's channel, step 1, for several "
       "attenuations: closing the loop takes 1/eta^2 steps.")  # fmt: skip
def closing_the_loop(data: Data) -> Any:
    figure, axis = axes()
    line, steps = np.logspace(0, 4, 200), np.unique(np.logspace(0, 3.5, 12).astype(int))
    for eta, colour in ((0.9, GREEN), (0.3, BLUE), (0.1, ORANGE), (0.03, PURPLE), (0.01, RED)):
        k = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
        q = Ridge(torch.eye(2, dtype=torch.float64), 5 * (1 - eta) / eta).channel(k)
        kept = float(q[:, 0] @ k[:, 0])
        d, realised = 0.0, {}
        for t in range(1, steps[-1] + 1):
            d -= kept * (kept * d - 1)
            realised[t] = kept * d
        axis.loglog(
            line, [fidelity.realised_after(eta, 1.0, t) for t in line], color=colour, label=rf"$\eta={eta:g}$"
        )
        points = [realised[t] for t in steps]
        axis.loglog(steps, points, "o", color=colour, mfc="none")
        data.add(
            f"eta {eta:g}",
            steps,
            [fidelity.realised_after(eta, 1.0, int(t)) for t in steps],
            points,
            "equal",
            1e-9,
        )
        data.add(
            f"kept {eta:g}",
            [0],
            [eta],
            [suppression.attenuation(float(k[:, 0] @ k[:, 0]) * eta / (5 * (1 - eta)))],
            "equal",
            1e-12,
        )
    axis.set(xlabel="steps $T$", ylabel=r"realised share $\eta\,d_T$", ylim=(7e-5, 1.6))
    axis.legend(loc="lower right", ncols=2)
    return figure
