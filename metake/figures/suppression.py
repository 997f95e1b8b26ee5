"""Theorem 1 in figures: one edit, its spectrum, and batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metake.figures.core import (
    BLACK,
    BLUE,
    EPS32,
    EPS64,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    Data,
    axes,
    legend_above,
    shows,
)
from metake.figures.measured import DEMOS, measured
from metake.figures.numbers import basis, tolerance
from metake.geometry.null_space import Projected
from metake.geometry.operator import Fit, Ridge
from metake.solvers.layered import cost_of
from theory import suppression

Array = NDArray[np.float64]


def geometry(condition: float, weight: float = 100.0) -> tuple[torch.Tensor, float, float, Array]:
    """The demo model's C, a weight and the ridge that gives G a condition number, and G."""
    C = measured("demo").moment
    beta = weight * float(torch.linalg.eigvalsh(C.double())[-1]) / condition
    return C, weight, beta, weight * C.double().numpy() + beta * np.eye(len(C))


@shows(
    "T1",
    "T1a",
    caption="The share of a residual that an edit realizes, over twelve decades of realizability, in the library's "
    "operators on a demo model's covariance: ridge (condition 1e4) and null space, in two precisions; dotted: rho itself. Below: relative "
    "distance from the line, and (lines) what rounding may cause, by X4 for the ridge and by the part of the key outside for the null space.",
)
def attenuation_law(data: Data) -> Any:
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
    C, weight, beta, G = geometry(1e6)
    mu, U = np.linalg.eigh(G)
    half, limit = len(mu) // 2, suppression.rounding_bound(EPS64, 1e6)
    operator = Ridge(C, weight, beta)

    def bound(share: Array) -> Array:
        return np.array([suppression.suppression_bound(1.0, e, mu[half], mu[0]) for e in share]) * mu[0]

    rng = np.random.default_rng(0)
    share, draws = np.logspace(-6, 0, 13), 10 ** rng.uniform(-6, 0, 60)
    parts = [U[:, part] @ rng.standard_normal((half, 60)) for part in (slice(half), slice(half, None))]
    low, high = (part / np.linalg.norm(part, axis=0) for part in parts)
    facts = measured("demo").keys.double().numpy()
    figure, (top, bottom) = axes(2.1, 1.3, sharex=True)
    line = np.logspace(-6, 0, 200)
    top.loglog(line, bound(line), color=BLACK, label="bound (25)")
    for name, keys, relation, look in (
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
        data.points(top, name, outside, bound(outside), rho, relation, limit, **look)
        bottom.loglog(
            outside,
            rho / bound(outside),
            look.get("marker", "o"),
            color=look["color"],
            mew=0.8,
            mfc=look["color"] if look.get("marker") == "." else "none",
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
    for name, relation, look, draw in (
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
        data.points(axis, name, x, bound, eta, relation, limit, **look)
    axis.set(xlabel=r"height of the protected spectrum $M/\|k\|^2$", ylabel=r"attenuation $\eta$")
    axis.legend(loc="lower left")
    return figure


@shows(
    "X2",
    "X3",
    "P4",
    caption="Two edits of rho = 1 whose keys become parallel (top), and a batch of keys that overlap (middle): what an "
    "edit keeps of its own residual, what it takes of a neighbor's. Dotted: what a lone edit keeps. Asking for more, R B^-1, or the exact "
    "fit, realizes all of it. Bottom: no edit keeps more than it would alone; batches of random keys, and eight facts of the demo model at once, at three lengths of the keys.",
)
def crosstalk(data: Data) -> Any:
    C, weight, beta, G = geometry(1e4)
    operator = Ridge(C, weight, beta)
    L = np.linalg.cholesky(G)

    def placed(S: Array) -> torch.Tensor:
        """Keys whose Gram matrix is S: K = L M, M^T M = S."""
        return torch.from_numpy(L[:, : len(S)] @ np.linalg.cholesky(S).T)

    def kept(K: torch.Tensor, fit: Fit = "soft") -> Array:
        return (K.T @ operator.channel(K, fit)).numpy()

    figure, (top, middle, bottom) = axes(2.0, 1.9, 1.9)
    overlap, line = np.linspace(0.01, 0.999, 12), np.linspace(0, 1, 100)
    grams = [np.array([[1, c], [c, 1]]) for c in overlap]
    seen, theory = (
        [f(x) for x in xs] for f, xs in ((lambda S: kept(placed(S)), grams), (suppression.retention, grams))
    )
    curve = [suppression.retention(np.array([[1, c], [c, 1]])) for c in line]
    # cond(S) enters where S itself is inverted; the placed keys have the Gram matrix S to rounding by cond(G)
    limit = suppression.rounding_bound(EPS64, 1e4)
    for j, name, color in ((0, "keeps", BLUE), (1, "takes", RED)):
        top.plot(line, [B[0, j] for B in curve], color=color)
        data.points(
            top,
            f"B_1{j + 1}",
            overlap,
            [B[0, j] for B in theory],
            [B[0, j] for B in seen],
            "equal",
            limit / overlap,
            color=color,
            label=f"{name}, $B_{{1{j + 1}}}$",
        )
    inverse = limit * np.array([np.linalg.cond(S) for S in grams])
    asked = [suppression.compensated_residuals(S, np.eye(2)) @ B for S, B in zip(grams, seen, strict=True)]
    exact = [kept(placed(S), "exact") for S in grams]
    for name, whole, marker, color in (
        ("compensated", asked, "+", GREEN),
        ("exact fit", exact, "x", ORANGE),
    ):
        data.points(
            top, name, overlap, 1.0, [B[0, 0] for B in whole], "equal", inverse, marker=marker, color=color
        )
    top.axhline(0.5, ls=":", lw=0.7, color=BLACK)
    top.set(xlabel=r"overlap $S_{12}$ of two keys, $\rho=1$", ylabel="share of a residual", ylim=(-0.05, 1.1))
    legend_above(top, 2)
    sizes = np.array([1, 2, 4, 8, 16, 32, 64])
    for share, color, marker in ((0.1, SKY, "s"), (0.3, PURPLE, "o"), (0.8, RED, "D")):
        S = [(1 - share) * np.eye(n) + share for n in sizes]
        seen, theory = [kept(placed(s)) for s in S], [suppression.retention(s) for s in S]
        for (i, j), skip, style in (((0, 0), 0, "-"), ((0, -1), 1, "--")):
            line = np.array([B[i, j] for B in theory[skip:]])
            middle.plot(sizes[skip:], line, style, color=color)
            data.points(
                middle,
                f"{'B_ij' if skip else 'B_jj'}, overlap {share}",
                sizes[skip:],
                line,
                [B[i, j] for B in seen[skip:]],
                "equal",
                limit / np.abs(line),
                color=color,
                marker=marker,
                label="" if skip else f"overlap {share}",
            )
    middle.axhline(0.5, ls=":", lw=0.7, color=BLACK)
    middle.annotate("keeps, $B_{jj}$", (1.05, 0.52), fontsize=7)
    middle.annotate("takes, $B_{ij}$ (dashed)", (6.5, 0.13), fontsize=7)
    middle.set(xscale="log", xlabel="edits in the batch", ylabel="share of a residual", ylim=(-0.02, 0.6))
    middle.set_xticks(sizes, [str(n) for n in sizes])
    middle.minorticks_off()
    legend_above(middle, 3)
    rng = np.random.default_rng(0)
    batches = [
        torch.from_numpy(L @ (rng.standard_normal((len(G), n)) * 10 ** rng.uniform(-2, 1, n) / len(G) ** 0.5))
        for n in (2, 8, 32, 128)
    ]
    for name, keys, look in (
        ("random keys", batches, {"marker": ".", "color": SKY}),
        (
            "facts (demo)",
            [measured("demo").keys.double() * f for f in (0.3, 1, 3)],
            {"marker": "D", "color": GREEN},
        ),
    ):
        alone = np.concatenate([operator.attenuation(K).numpy() for K in keys])
        together = np.concatenate([np.diag(kept(K)) for K in keys])
        data.points(bottom, name, alone, 1.0, together / alone, "below", limit, **look)
    bottom.axhline(1, color=BLACK)
    bottom.set(
        xscale="log",
        xlabel=r"keeps alone, $\eta_j$",
        ylabel=r"in a batch / alone, $B_{jj}/\eta_j$",
        ylim=(0.8, 1.01),
    )
    bottom.legend(loc="lower left")
    return figure


@shows(
    "X14",
    caption="What four facts realize of what they want (a demo model's keys and covariance, mean over the facts), and what it costs what is protected, "
    "against the strength of the constraint. The open loop is attenuated. The closed loop reaches everything at every lambda, so that lambda no longer protects, and its cost grows with it; "
    "where it pays alpha times the cost, it is attenuated by alpha lambda. Points: minimized by gradients through the library's channel and its price.",
)
def price(data: Data) -> Any:
    C, K = measured("demo").moment.double(), measured("demo").keys[:, :4].double()
    beta = float(torch.linalg.eigvalsh(C)[-1]) / 1e4
    wanted = np.random.default_rng(0).standard_normal((16, 4))
    size = float(np.sum(wanted**2))
    line, few = np.logspace(-1, 6, 60), np.logspace(-1, 6, 8)
    figure, (top, bottom) = axes(2.0, 2.0, sharex=True)

    def gram(weight: float) -> Array:
        return np.asarray(
            suppression.gram(weight * (C.numpy() + beta * np.eye(len(C))), K.numpy()), np.float64
        )

    def share(S: Array, alpha: float) -> float:
        return float(np.sum(suppression.priced_shift(S, wanted, alpha) * wanted)) / size

    def cost(S: Array, alpha: float) -> float:
        return suppression.least_cost(S, suppression.priced_shift(S, wanted, alpha)) / size

    def minimized(weight: float, alpha: float) -> tuple[float, float]:
        """Of the loop whose residuals follow the gradient, whitened so that it has no long valley."""
        kept = K.T @ Ridge(C, weight, weight * beta).channel(K)
        aim = torch.from_numpy(wanted.T.copy())
        leaf = torch.zeros_like(aim).requires_grad_(True)
        optimizer = torch.optim.LBFGS(
            [leaf], max_iter=500, tolerance_grad=1e-14, tolerance_change=0, line_search_fn="strong_wolfe"
        )

        def asked() -> torch.Tensor:
            return torch.linalg.solve(kept, leaf)

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            total = (leaf - aim).square().sum() + alpha * cost_of(asked(), kept).sum()
            total.backward()
            return total

        optimizer.step(loss)
        with torch.no_grad():
            return float((leaf * aim).sum()) / size, float(cost_of(asked(), kept).sum()) / size

    opened = [suppression.batch_cost(gram(weight), wanted) / size for weight in line]
    for alpha, color, marker in ((0.0, RED, "o"), (0.01, ORANGE, "s"), (0.1, GREEN, "D"), (1.0, BLUE, "^")):
        name = rf"closed loop, $\alpha={alpha:g}$"
        top.semilogx(line, [share(gram(weight), alpha) for weight in line], color=color, lw=0.9)
        bottom.loglog(line, [cost(gram(weight), alpha) for weight in line], color=color, lw=0.9)
        found = [minimized(weight, alpha) for weight in few]
        grams = [gram(weight) for weight in few]
        data.points(
            top,
            name,
            few,
            [share(S, alpha) for S in grams],
            [x for x, _ in found],
            "equal",
            1e-5,
            color=color,
            marker=marker,
        )
        data.points(
            bottom,
            f"{name}, cost",
            few,
            [cost(S, alpha) for S in grams],
            [x for _, x in found],
            "equal",
            1e-4,
            color=color,
            marker=marker,
            label="",
        )
    top.semilogx(line, [share(gram(weight), 1.0) for weight in line], ":", color=BLACK, label="open loop")
    bottom.loglog(line, opened, ":", color=BLACK)
    top.set(ylabel="realized share", ylim=(-0.03, 1.05))
    bottom.set(
        xlabel=r"strength of the constraint, $\lambda$", ylabel=r"$\mathrm{tr}(DGD^\top)/\Vert X\Vert^2$"
    )
    legend_above(top, 2)
    return figure


@shows(
    "X13",
    caption="The mean of what an edit realizes of its residual, if all edits remember each other's keys, against the number of edits "
    "over the dimension of the key: random keys with a demo model's covariance (its 128 strongest directions), under three strengths of the constraint. Beyond one edit per "
    "dimension no constraint is weak enough: together they keep less than d_k (black). Crosses: single edits, the library's operator with all other keys in its memory.",
)
def room(data: Data) -> Any:
    C = torch.diag(torch.linalg.eigvalsh(measured("demo").moment.double())[-128:])
    d = len(C)
    load = np.array([1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4])
    sizes = (load * d).astype(int)
    draws = np.random.default_rng(0).standard_normal((d, sizes[-1]))
    keys = C.sqrt() @ torch.from_numpy(draws)
    figure, axis = axes(2.4)
    axis.loglog(load, [suppression.room_bound(n, d) for n in sizes], color=BLACK, label=r"$\min(1, d_k/n)$")
    for weight, color, marker in ((3.0, GREEN, "D"), (100.0, BLUE, "o"), (1000.0, ORANGE, "s")):
        beta = weight * float(C[-1, -1]) / 1e4
        operator = Ridge(C, weight, beta)
        G = weight * C.numpy() + beta * np.eye(d)
        limit = suppression.rounding_bound(EPS64, 1e4)
        whitened = np.linalg.solve(np.linalg.cholesky(G), keys.numpy())
        kept, theory = [], []
        for n in sizes:
            K, W = keys[:, :n], whitened[:, :n]
            kept.append((K * operator.channel(K)).sum(0).numpy())
            S = W.T @ W if n < d else W @ W.T  # or what has its eigenvalues
            theory.append(suppression.room(S) / n)
        name = rf"$\lambda={weight:.0f}$"
        axis.loglog(load, theory, color=color, lw=0.8)
        data.points(
            axis,
            name,
            load,
            theory,
            [x.mean() for x in kept],
            "equal",
            limit * sizes,
            color=color,
            marker=marker,
        )
        data.add(f"{name}, room", load, [suppression.room_bound(n, d) for n in sizes], theory, "below", limit)
        for n, entries in zip(sizes[:5:2], kept[:5:2], strict=True):
            some = np.arange(3)
            others = [operator.with_past(torch.cat([keys[:, :j], keys[:, j + 1 : n]], 1)) for j in some]
            eta = [float(o.attenuation(keys[:, [j]])) for o, j in zip(others, some, strict=True)]
            data.points(
                axis,
                f"{name}, behind all others",
                [n / d] * len(some),
                entries[some],
                eta,
                "equal",
                limit * n,
                color=color,
                marker="x",
                label="",
            )
    axis.set(
        xlabel=r"edits per dimension of the key, $n/d_k$", ylabel=r"mean attenuation $\eta$", ylim=(0.01, 1.3)
    )
    legend_above(axis, 2)
    return figure


@shows(
    "P8",
    caption="Mean attenuation of keys whose second moment is each demo model's own, against the weight of the constraint over the "
    "dimension, and Jensen's bound with E rho = d_k/lambda; directions that carry less than the ridge (1e-6 of the largest eigenvalue) take a model below it. Crosses: the mean over the "
    "keys of test facts, which have another second moment and need not obey.",
)
def typical_attenuation(data: Data) -> Any:
    figure, axis = axes(2.3)
    x, line = np.logspace(-3, 3, 13), np.logspace(-3, 3, 100)
    bound = np.array([suppression.attenuation(suppression.mean_realizability(1, w)) for w in x])
    axis.loglog(
        line, suppression.attenuation(1 / line), color=BLACK, label=r"$\frac{d_k/\lambda}{1+d_k/\lambda}$"
    )
    for model, color, marker in zip(DEMOS, (BLUE, ORANGE, GREEN), "osD", strict=True):
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
