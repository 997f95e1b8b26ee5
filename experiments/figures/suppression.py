"""Theorem 1 in figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from flint import fmpq, fmpq_mat

from experiments.figures.core import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY, Data, axes, shows
from metake.geometry.operator import Projected, Ridge
from theory import suppression
from verification.real import DEMOS, measured
from verification.strategies import basis

EPS32, EPS64 = (float(np.finfo(t).eps) for t in (np.float32, np.float64))


def _geometry(condition: float, weight: float = 100.0) -> tuple[torch.Tensor, float, float, np.ndarray]:
    """The demo model's C, a weight and the ridge that gives G a condition number, and G."""
    C = measured("demo").moment
    beta = weight * float(torch.linalg.eigvalsh(C.double())[-1]) / condition
    return C, weight, beta, weight * C.double().numpy() + beta * np.eye(len(C))


@shows("T1", "T1a", caption="Share of a residual that an edit realises against its realisability, in the library's operators on a "
       "demo model's covariance, over twelve decades; dotted: rho itself.")  # fmt: skip
def attenuation_law(data: Data) -> Any:
    C, weight, beta, G = _geometry(1e4)
    k = measured("demo").keys[:, :1].double()
    projected = Projected(C, 1.0, keep=0.5)
    V = projected.basis.numpy()
    base = {
        "ridge": suppression.realisability(G, k[:, 0].numpy()),
        "null space": float(np.sum((V.T @ k.numpy()) ** 2)),
    }
    rho = np.logspace(-6, 6, 25)
    figure, axis = axes()
    line = np.logspace(-6.3, 6.3, 200)
    axis.loglog(line, suppression.attenuation(line), color=BLACK, label=r"$\eta=\rho/(1+\rho)$")
    axis.loglog(line, line, ":", color=BLACK, lw=0.7)
    cases = [("ridge, fp64", "ridge", Ridge(C, weight, beta), BLUE, "o", 8 * EPS64 * 1e4),
             ("ridge, fp32", "ridge", Ridge(C, weight, beta, dtype=torch.float32), ORANGE, "x", 8 * EPS32 * 1e4),
             ("null space, fp64", "null space", projected, GREEN, "+", 1e-9)]  # fmt: skip
    for name, kind, operator, colour, marker, limit in cases:
        keys = k * torch.from_numpy(np.sqrt(rho / base[kind]))
        realised = np.array([float(operator.channel(key[:, None])[:, 0].double() @ key) for key in keys.T])
        axis.loglog(rho, realised, marker, color=colour, label=name, mfc="none")
        data.add(name, rho, suppression.attenuation(rho), realised, "equal", limit)
    axis.set(
        xlabel=r"realisability $\rho=k^\top G^{-1}k$",
        ylabel=r"realised share $\|D^*k\|/\|r\|$",
        ylim=(3e-7, 5),
    )
    axis.legend(loc="lower right")
    return figure


@shows("T1b", "T1c", caption="Realisability over its bound's unit, ||k||^2/mu_min, against the share of the key outside the protected half of "
       "the spectrum. Adversarial keys (all of the outside share on the smallest eigenvalue, the rest on M) attain the bound; random keys and "
       "keys of facts lie below.")  # fmt: skip
def suppression_bound(data: Data) -> Any:
    C, weight, beta, G = _geometry(1e6)
    mu, U = np.linalg.eigh(G)
    d, half = len(mu), len(mu) // 2
    operator = Ridge(C, weight, beta)

    def rho(K: np.ndarray) -> np.ndarray:
        return operator.realisability(torch.from_numpy(K)).numpy() * mu[0] / np.sum(K**2, 0)

    def bound(share: np.ndarray) -> np.ndarray:
        return np.array([suppression.suppression_bound(1.0, e, mu[half], mu[0]) for e in share]) * mu[0]

    figure, axis = axes()
    line = np.logspace(-6, 0, 200)
    axis.loglog(line, bound(line), color=BLACK, label="bound (25)")
    share = np.logspace(-6, 0, 13)
    worst = U[:, :1] * np.sqrt(share) + U[:, half : half + 1] * np.sqrt(1 - share)
    axis.loglog(share, rho(worst), "o", color=RED, mfc="none", label="adversarial keys")
    data.add("adversarial", share, bound(share), rho(worst), "equal", 1e-6)
    rng = np.random.default_rng(0)
    draws = 10 ** rng.uniform(-6, 0, 60)
    low, high = rng.standard_normal((half, 60)), rng.standard_normal((d - half, 60))
    K = U[:, :half] @ (low / np.linalg.norm(low, axis=0) * np.sqrt(draws)) + U[:, half:] @ (
        high / np.linalg.norm(high, axis=0) * np.sqrt(1 - draws))  # fmt: skip
    axis.loglog(draws, rho(K), ".", color=SKY, label="random keys")
    data.add("random", draws, bound(draws), rho(K), "below", 1e-9)
    K = measured("demo").keys.double().numpy()
    real = np.sum((U[:, :half].T @ K) ** 2, 0) / np.sum(K**2, 0)
    axis.loglog(real, rho(K), "D", color=GREEN, label="keys of facts (demo)")
    data.add("facts", real, bound(real), rho(K), "below", 1e-9)
    axis.set(
        xlabel=r"share $\varepsilon$ of the key outside the protected half",
        ylabel=r"$\rho\,\mu_{\min}/\|k\|^2$",
    )
    axis.legend(loc="upper left")
    return figure


@shows("T1e", "X1", caption="Top: the realised share of a key with a growing part outside the null space, ||Pk|| = beta = 1. The executed edit "
       "keeps 1/2; the form with the raw key says otherwise. Bottom: error of the edit in fp32, solved with the projector in key space as "
       "published, and in the coordinates of the null space.")  # fmt: skip
def projected_key(data: Data) -> Any:
    d, m = 64, 32
    U = basis(d, 5)
    C = torch.from_numpy((U * np.where(np.arange(d) < m, 1e-4, 1.0)) @ U.T)
    C = (C + C.T) / 2
    ratios = np.logspace(-2, 3, 21)
    operator, single = Projected(C, 1.0, keep=0.5), Projected(C, 1.0, keep=0.5, dtype=torch.float32)
    V = operator.basis.numpy()
    inside, outside = V[:, 0], U[:, -1] - V @ (V.T @ U[:, -1])
    outside /= np.linalg.norm(outside)
    K = inside[:, None] + outside[:, None] * ratios
    figure, (top, bottom) = axes(2, 1.7, sharex=True)
    raw = np.array([float(np.sum(suppression.raw_key_edit(k, np.ones(1), 1.0) @ k)) for k in K.T])
    eta = operator.attenuation(torch.from_numpy(K)).numpy()
    theory = np.array([suppression.projected_attenuation(V @ V.T, k, 1.0) for k in K.T])
    top.semilogx(ratios, theory, color=BLACK, label=r"$\|Pk\|^2/(\beta+\|Pk\|^2)$ (35)")
    top.semilogx(ratios, eta, "o", color=BLUE, mfc="none", label="library")
    top.semilogx(ratios, raw, "--", color=RED, label="raw key (31)")
    top.set(ylabel=r"realised share $\eta$", ylim=(0.42, 1.6))
    top.legend(loc="upper left")
    data.add("eta", ratios, theory, eta, "equal", 1e-9)
    data.add("raw key", ratios, theory, raw, "shown")

    def error(edits: list[np.ndarray]) -> np.ndarray:
        exact = [suppression.coordinates_edit(V, k, np.ones(1), 1.0) for k in K.T]
        return np.array(
            [np.linalg.norm(e - x) / np.linalg.norm(x) for e, x in zip(edits, exact, strict=True)]
        )

    P32 = single.basis @ single.basis.T
    eye = torch.eye(d)
    published, ours = [], []
    for k in torch.from_numpy(K.T).float():
        system = torch.outer(k, k) @ P32 + eye
        published.append(torch.linalg.solve(system.T, P32 @ k).double().numpy()[None])
        ours.append(single.channel(k[:, None]).double().numpy().T)
    shipped, coordinates = error(published), error(ours)
    bottom.loglog(ratios, shipped, "s", color=RED, mfc="none", label="projector in the system, fp32")
    bottom.loglog(ratios, coordinates, "o", color=BLUE, mfc="none", label="null-space coordinates, fp32")
    limit = 8 * EPS32 * (1 + ratios)
    bottom.loglog(ratios, limit, color=BLACK, lw=0.8, label=r"$8\,e_{32}(1+\|(I-P)k\|/\|Pk\|)$")
    bottom.set(xlabel=r"$\|(I-P)k\|\,/\,\|Pk\|$", ylabel="relative error of the edit")
    bottom.legend(loc="upper left", fontsize=6)
    data.add("coordinates, fp32", ratios, limit, coordinates, "below")
    data.add("published solve, fp32", ratios, limit, shipped, "shown")
    return figure


@shows("X2", "X3", "P4", caption="What an edit keeps of itself and what it leaks to its neighbour, for two edits of rho = 1 as their keys become "
       "parallel (top), and as more keys with overlap 0.3 join (bottom). Dotted: the share alone.")  # fmt: skip
def crosstalk(data: Data) -> Any:
    C, weight, beta, G = _geometry(1e4)
    operator = Ridge(C, weight, beta)
    L = np.linalg.cholesky(G)

    def kept(S: np.ndarray) -> np.ndarray:
        """B from the library, for keys whose Gram matrix is S: K = L M, M^T M = S."""
        M = np.zeros((len(G), len(S)))
        M[: len(S)] = np.linalg.cholesky(S + 1e-13 * np.eye(len(S))).T
        K = torch.from_numpy(L @ M)
        return (K.T @ operator.channel(K)).numpy()

    figure, (top, bottom) = axes(2, 1.7)
    overlap = np.linspace(0.01, 0.999, 15)
    grams = [np.array([[1, c], [c, 1]]) for c in overlap]
    line = np.linspace(0, 1, 100)
    expected = [suppression.retention(np.array([[1, c], [c, 1]])) for c in line]
    for (i, j), name, colour in (((0, 0), "keeps, $B_{11}$", BLUE), ((0, 1), "leaks, $B_{12}$", RED)):
        top.plot(line, [B[i, j] for B in expected], color=colour)
        points = [kept(S)[i, j] for S in grams]
        top.plot(overlap, points, "o", color=colour, mfc="none", label=name)
        data.add(
            f"B_{i + 1}{j + 1}",
            overlap,
            [suppression.retention(S)[i, j] for S in grams],
            points,
            "equal",
            1e-6,
        )
    top.axhline(0.5, ls=":", lw=0.7, color=BLACK)
    top.set(xlabel=r"overlap $S_{12}$ of two keys, $\rho=1$", ylabel="share")
    top.legend(loc="center left")
    sizes = np.array([1, 2, 4, 8, 16, 32, 64])
    for share, name, colour in ((0.3, "overlap 0.3", PURPLE), (0.0, "orthogonal", GREEN)):
        S = [(1 - share) * np.eye(n) + share for n in sizes]
        theory = [suppression.retention(s)[0, 0] for s in S]
        points = [kept(s)[0, 0] for s in S]
        bottom.semilogx(sizes, theory, color=colour)
        bottom.semilogx(sizes, points, "o", color=colour, mfc="none", label=name)
        data.add(name, sizes, theory, points, "equal", 1e-6)
    bottom.axhline(0.5, ls=":", lw=0.7, color=BLACK)
    bottom.set(xlabel="edits in the batch", ylabel="keeps, $B_{jj}$", ylim=(0.38, 0.52))
    bottom.set_xticks(sizes, [str(n) for n in sizes])
    bottom.minorticks_off()
    bottom.legend(loc="center right")
    return figure


@shows("P8", caption="Mean attenuation of keys drawn from each demo model's own second moment, against the weight of the constraint over the "
       "dimension, and Jensen's bound with E rho = d_k/lambda.")  # fmt: skip
def typical_attenuation(data: Data) -> Any:
    figure, axis = axes()
    x = np.logspace(-3, 3, 13)
    line = np.logspace(-3, 3, 100)
    bound = suppression.attenuation(1 / line)
    axis.loglog(line, bound, color=BLACK, label=r"$\frac{d_k/\lambda}{1+d_k/\lambda}$")
    for model, colour, marker in zip(DEMOS, (BLUE, ORANGE, GREEN), "osD", strict=True):
        C = measured(model).moment.double()
        d = len(C)
        mu, U = torch.linalg.eigh(C)
        K = (U * mu.clamp_min(0).sqrt()) @ torch.from_numpy(basis(d, 3)) * d**0.5
        mean = [float(Ridge(C, w * d, float(1e-6 * w * d * mu[-1])).attenuation(K).mean()) for w in x]
        axis.loglog(x, mean, marker, color=colour, mfc="none", label=model)
        data.add(model, x, suppression.attenuation(1 / x), mean, "below", 1e-9)
    axis.set(xlabel=r"$\lambda/d_k$", ylabel=r"mean attenuation $\mathbb{E}\,\eta$")
    axis.legend(loc="lower left")
    return figure


@shows(
    "P15",
    caption="Distance of ridge's edit with geometry beta I + t (I - P) from AlphaEdit's, on the null space of a demo model; it falls like 1/t.",
)
def projection_limit(data: Data) -> Any:
    layer = measured("demo-llama")
    projected = Projected(layer.moment, 1.0, keep=0.5)
    V = projected.basis
    outside = torch.eye(len(V), dtype=torch.float64) - V @ V.T
    K = layer.keys[:, :1].double()
    limit = projected.channel(K)
    t = np.logspace(1, 7, 13)
    distance = np.array([float((Ridge(outside, x, 1.0).channel(K) - limit).norm() / limit.norm()) for x in t])
    # to first order in 1/t: the outside part of the key is written with weight 1/(beta + t)
    size, far = float((V.T @ K).norm() ** 2), float((outside @ K).norm())
    first = far / np.sqrt(size) * np.sqrt(1 + far**2 * size / (1 + size) ** 2) / t
    figure, axis = axes()
    axis.loglog(t, first, color=BLACK, label="first order, 1/t")
    axis.loglog(t, distance, "o", color=BLUE, mfc="none", label="library")
    axis.set(xlabel=r"penalty $t$ on the complement, $\beta=1$", ylabel="relative distance of the edits")
    axis.legend()
    settled = t >= 100 * far**2
    data.add("settled", t[settled], first[settled], distance[settled], "equal", 0.05)
    data.add("small penalties", t[~settled], first[~settled], distance[~settled], "shown")
    return figure


def _exact_eta(G: np.ndarray, k: np.ndarray, past: np.ndarray | None = None) -> float:
    """eta in rational arithmetic, of floating-point entries as they are."""

    def exact(X: np.ndarray) -> fmpq_mat:
        return fmpq_mat(*X.shape, [fmpq(*float(v).as_integer_ratio()) for v in X.flatten()])

    system = exact(G)
    if past is not None:
        system = system + exact(past) * exact(past).transpose()
    key = exact(k[:, None])
    rho = (key.transpose() * system.solve(key))[0, 0]
    eta = rho / (1 + rho)
    return int(eta.p) / int(eta.q)


@shows("X4", caption="Largest relative error of eta over 12 geometries, against exact rational arithmetic: Cholesky, Woodbury with keys remembered "
       "(both the library's), and a dense solve of G + k k^T. Lines: 8 e cond(G).")  # fmt: skip
def rounding(data: Data) -> Any:
    n, draws = 6, 12
    conditions = 10.0 ** np.arange(1, 13)
    figure, axis = axes(1, 2.6)
    rng = np.random.default_rng(0)
    looks = {"Cholesky": ("o", BLUE, 5), "Woodbury": ("x", ORANGE, 4), "dense": ("+", GREEN, 4)}
    for dtype, eps, label in ((torch.float64, EPS64, "fp64"), (torch.float32, EPS32, "fp32")):
        reach = conditions[conditions * eps < 0.02]
        worst: dict[str, list[float]] = {"Cholesky": [], "Woodbury": [], "dense": []}
        for condition in reach:
            errors: dict[str, list[float]] = {name: [] for name in worst}
            for seed in range(1, draws + 1):
                U = basis(n, seed)
                G = torch.from_numpy((U * np.geomspace(1 / condition, 1, n)) @ U.T).to(dtype)
                G = (G + G.T) / 2
                k = torch.from_numpy(U[:, 0] * 0.1 / np.sqrt(condition)).to(dtype)
                past = torch.from_numpy(rng.standard_normal((n, 2)) * 0.1 / np.sqrt(condition)).to(dtype)
                plain = _exact_eta(G.double().numpy(), k.double().numpy())
                held = _exact_eta(G.double().numpy(), k.double().numpy(), past.double().numpy())
                q = torch.linalg.solve(G + torch.outer(k, k), k)
                seen = {"Cholesky": (Ridge(G, 1.0, dtype=dtype).attenuation(k[:, None]), plain),
                        "Woodbury": (Ridge(G, 1.0, past=past, dtype=dtype).attenuation(k[:, None]), held),
                        "dense": (k @ q, plain)}  # fmt: skip
                for name, (value, truth) in seen.items():
                    errors[name].append(abs(float(value) - truth) / truth)
            for name, values in errors.items():
                worst[name].append(max(max(values), eps / 16))
        bound = suppression.rounding_bound(eps, 1.0) * reach
        axis.loglog(reach, bound, color=BLACK, lw=0.8)
        axis.annotate(label, (reach[0], bound[0]), xytext=(-2, 9), textcoords="offset points", fontsize=7)
        for name, values in worst.items():
            marker, colour, size = looks[name]
            axis.loglog(
                reach,
                values,
                marker,
                color=colour,
                ms=size,
                mfc="none",
                label=name if dtype == torch.float64 else None,
            )
            data.add(f"{name}, {label}", reach, bound, values, "below")
    axis.set(xlabel="condition number of $G$", ylabel=r"relative error of $\eta$", ylim=(1e-18, 10))
    axis.legend(loc="lower right")
    return figure
