"""Theorem 1 in figures: one edit and the spectrum of its geometry."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from metake.figures.core import Data, axes, shows
from metake.figures.measured import available, geometry, measured
from metake.figures.numbers import EPS32, EPS64, Array, basis, tolerance
from metake.geometry.null_space import Projected
from metake.geometry.operator import Ridge
from metake.report.figures import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY
from metake.shipped import DEMOS
from theory import suppression


@shows(
    "T1",
    "T1a",
    caption="The share of a residual that an edit realizes, over twelve decades of realizability, in the library's "
    "operators on a demo model's covariance: ridge (condition 1e4) and null space, in two precisions; dotted: rho itself. Below: relative "
    "distance from the line, and (lines) what rounding may cause, by X4 for the ridge and by the part of the key outside for the null space.",
)
def attenuation_law(data: Data) -> Any:
    """Figure of T1: realized share of a residual over realizability.

    Args:
        data: table to which the points are added.

    Returns:
        The figure.
    """
    C, weight, beta, G = geometry(1e4)
    key = measured("demo").keys[:, :1].double()
    rho = np.logspace(-6, 6, 25)
    figure, (top, bottom) = axes(2.1, 1.3, sharex=True)
    line = np.logspace(-6.3, 6.3, 200)
    top.loglog(line, suppression.attenuation(line), color=BLACK, label=r"$\eta=\rho/(1+\rho)$")
    top.loglog(line, line, ":", color=BLACK, lw=0.7, label=r"$\rho$")
    for name, dtype, eps, colors, (circle, cross) in (
        ("fp64", torch.float64, EPS64, (BLUE, GREEN), "o+"),
        ("fp32", torch.float32, EPS32, (ORANGE, PURPLE), "sx"),
    ):
        ridge = Ridge(C, weight, beta, dtype=dtype)
        space = Projected(C, 1.0, keep=0.5, dtype=dtype)
        inside = float(torch.linalg.norm(space.basis.double().T @ key))
        cases = (
            (
                f"ridge, {name}",
                ridge,
                suppression.realizability(G, key[:, 0].numpy()),
                circle,
                suppression.rounding_bound(eps, 1e4),
            ),
            (f"null space, {name}", space, inside**2, cross, tolerance(float(key.norm()) / inside, 8, eps)),
        )
        for (label, operator, base, marker, limit), color in zip(cases, colors, strict=True):
            keys = key * torch.from_numpy(np.sqrt(rho / base))
            realized = np.array([float(operator.channel(k[:, None])[:, 0].double() @ k) for k in keys.T])
            theory = suppression.attenuation(rho)
            data.points(top, label, rho, theory, realized, "equal", limit, color=color, marker=marker)
            away = np.maximum(np.abs(realized / theory - 1), EPS64 / 16)
            bottom.loglog(rho, away, marker, color=color, mfc="none", mew=0.8)
            bottom.axhline(limit, color=color, lw=0.7, ls="-" if operator is ridge else "--")
    top.set(ylabel=r"realized share $\|D^*k\|/\|r\|$", ylim=(3e-7, 5))
    top.legend(loc="lower right")
    bottom.set(xlabel=r"realizability $\rho=k^\top G^{-1}k$", ylabel="relative distance", ylim=(3e-18, 1))
    bottom.set_yticks([1e-16, 1e-12, 1e-8, 1e-4, 1])
    return figure


@shows(
    "T1b",
    caption="Realizability over that of the worst key of the same length, ||k||^2/mu_min, against the share of the key "
    "outside the protected half of a demo model's spectrum. Keys made for it (the outside share on the smallest eigenvalue, the rest on M) "
    "attain the bound; random keys and keys of facts lie below. Bottom: the share of the bound that is reached.",
)
def suppression_bound(data: Data) -> Any:
    """Figure of T1b: realizability over the share of a key outside the protected subspace.

    Args:
        data: table to which the points are added.

    Returns:
        The figure.
    """
    C, weight, beta, G = geometry(1e6)
    mu, U = np.linalg.eigh(G)
    half, limit = len(mu) // 2, suppression.rounding_bound(EPS64, 1e6)
    operator = Ridge(C, weight, beta)

    def bound(share: Array) -> Array:
        bounds = np.array([suppression.suppression_bound(1.0, e, mu[half], mu[0]) for e in share])
        return np.asarray(bounds * mu[0], np.float64)

    rng = np.random.default_rng(0)
    share, draws = np.logspace(-6, 0, 13), 10 ** rng.uniform(-6, 0, 60)
    parts = [U[:, part] @ rng.standard_normal((half, 60)) for part in (slice(half), slice(half, None))]
    low, high = (part / np.linalg.norm(part, axis=0) for part in parts)
    facts = measured("demo").keys.double().numpy()
    figure, (top, bottom) = axes(2.1, 1.3, sharex=True)
    line = np.logspace(-6, 0, 200)
    top.loglog(line, bound(line), color=BLACK, label="bound (25)")
    for name, keys, relation, line_style in (
        (
            "worst keys",
            U[:, :1] * np.sqrt(share) + U[:, half : half + 1] * np.sqrt(1 - share),
            "equal",
            {"color": RED},
        ),
        (
            "random keys",
            low * np.sqrt(draws) + high * np.sqrt(1 - draws),
            "below",
            {"color": SKY, "marker": "."},
        ),
        ("keys of facts (demo)", facts, "below", {"color": GREEN, "marker": "D"}),
    ):
        outside = np.minimum(np.sum((U[:, :half].T @ keys) ** 2, 0) / np.sum(keys**2, 0), 1)
        rho = operator.realizability(torch.from_numpy(keys)).numpy() * mu[0] / np.sum(keys**2, 0)
        data.points(top, name, outside, bound(outside), rho, relation, limit, **line_style)
        bottom.loglog(
            outside,
            rho / bound(outside),
            line_style.get("marker", "o"),
            color=line_style["color"],
            mew=0.8,
            mfc=line_style["color"] if line_style.get("marker") == "." else "none",
        )
    bottom.axhline(1, color=BLACK)
    top.set(ylabel=r"$\rho\,\mu_{\min}/\|k\|^2$")
    bottom.set(
        xlabel=r"share $\varepsilon$ of $\|k\|^2$ outside the protected half", ylabel="reached / bound"
    )
    top.legend(loc="upper left")
    return figure


@shows(
    "T1c",
    caption="Attenuation of keys within the protected subspace, as its lowest eigenvalue M rises through a demo model's spectrum. "
    "A key on M itself attains the bound, all others lie below: eta vanishes like 1/M. The keys of facts are cut to the subspace.",
)
def suppression_limit(data: Data) -> Any:
    """Figure of T1c: attenuation of protected keys over the height of the protected spectrum.

    Args:
        data: table to which the points are added.

    Returns:
        The figure.
    """
    C, weight, beta, G = geometry(1e6)
    mu, U = np.linalg.eigh(G)
    operator, limit = Ridge(C, weight, beta), suppression.rounding_bound(EPS64, 1e6)
    length = np.sqrt(np.sqrt(mu[0] * mu[-1]))  # so that M passes the square of it half way
    places = np.unique(np.searchsorted(mu[:-1], np.geomspace(mu[0], mu[-1], 24)))
    line = np.geomspace(mu[0], mu[-1], 200) / length**2
    figure, axis = axes(2.2)
    axis.loglog(line, [suppression.suppression_limit(1.0, x) for x in line], color=BLACK, label="bound (26)")
    rng = np.random.default_rng(0)
    facts = measured("demo").keys.double().numpy()
    for name, relation, line_style, draw in (
        ("key on $M$", "equal", {"color": RED}, lambda i: U[:, i : i + 1]),
        (
            "random keys",
            "below",
            {"color": SKY, "marker": "."},
            lambda i: U[:, i:] @ rng.standard_normal((len(mu) - i, 4)),
        ),
        (
            "keys of facts (demo)",
            "below",
            {"color": GREEN, "marker": "d"},
            lambda i: U[:, i:] @ (U[:, i:].T @ facts[:, :3]),
        ),
    ):
        x, eta = [], []
        for i in places:
            keys = draw(i)
            keys = torch.from_numpy(length * keys / np.linalg.norm(keys, axis=0))
            x += [mu[i] / length**2] * keys.shape[1]
            eta += operator.attenuation(keys).tolist()
        bound = [suppression.suppression_limit(1.0, height) for height in x]
        data.points(axis, name, x, bound, eta, relation, limit, **line_style)
    axis.set(xlabel=r"height of the protected spectrum $M/\|k\|^2$", ylabel=r"attenuation $\eta$")
    axis.legend(loc="lower left")
    return figure


@shows(
    "P8",
    models=DEMOS,
    caption="Mean attenuation of keys whose second moment is each demo model's own, against the weight of the constraint over the "
    "dimension, and Jensen's bound with E rho = d_k/lambda; directions that carry less than the ridge (1e-6 of the largest eigenvalue) take a model below it. Crosses: the mean over the "
    "keys of test facts, which have another second moment and need not obey.",
)
def typical_attenuation(data: Data) -> Any:
    """Figure of P8: mean attenuation of keys with a model's own second moment.

    Args:
        data: table to which the points are added.

    Returns:
        The figure.
    """
    figure, axis = axes(2.3)
    x, line = np.logspace(-3, 3, 13), np.logspace(-3, 3, 100)
    bound = np.array([suppression.attenuation(suppression.mean_realizability(1, w)) for w in x])
    axis.loglog(
        line, suppression.attenuation(1 / line), color=BLACK, label=r"$\frac{d_k/\lambda}{1+d_k/\lambda}$"
    )
    for model, color, marker in zip(DEMOS, (BLUE, ORANGE, GREEN), "osD", strict=True):
        if model not in available():
            continue
        C = measured(model).moment.double()
        d = len(C)
        mu, U = torch.linalg.eigh(C)
        K = (U * mu.clamp_min(0).sqrt()) @ torch.from_numpy(basis(d, 3)) * d**0.5
        operators = [Ridge(C, w * d, float(1e-6 * w * d * mu[-1])) for w in x]
        own = [float(operator.attenuation(K).mean()) for operator in operators]
        facts = [float(operator.attenuation(measured(model).keys.double()).mean()) for operator in operators]
        data.points(
            axis,
            model,
            x,
            bound,
            own,
            "below",
            suppression.rounding_bound(EPS64, 1e6),
            color=color,
            marker=marker,
        )
        data.points(axis, f"facts, {model}", x, bound, facts, "shown", color=color, marker="x", label="")
    axis.plot([], [], "x", color=BLACK, label="keys of facts")
    axis.set(xlabel=r"weight of the constraint $\lambda/d_k$", ylabel=r"mean attenuation $\mathbb{E}\,\eta$")
    axis.legend(loc="lower left")
    return figure
