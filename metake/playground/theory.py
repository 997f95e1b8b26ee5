"""The theory's bounds beside the results of the library's solver, for the values of the sliders.

Geometry: G = lambda C, C with eigenvalues from 1 down to 1/kappa, evenly spaced on a logarithmic scale, in a rotated
basis. The upper half of the spectrum is protected. A key has a norm and an angle to the protected subspace; its energy is
spread evenly over the eigenvectors of either half.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metake.errors import MetakeError
from metake.geometry.operator import Ridge
from theory import fidelity, suppression, trap

Array = NDArray[np.floating]

D_K = 32  # entries of a key
SERVED = ("served", "not served")
EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Sliders:
    """Values of the sliders.

    Attributes:
        lam: lambda.
        norm: norm of a key.
        angle: of the key to the protected subspace, in degrees.
        condition: kappa, condition number of C.
        between: angle between the two keys, in degrees.
        residuals: angle between the two residuals, in degrees.
        theta: least progress in the trap, relative to the outer radius.
        ratio: hard over easy gradient, b/a.
        penalty: penalty that both requests share.
        key_drift: drift of the key relative to its norm.
    """

    lam: float
    norm: float
    angle: float
    condition: float
    between: float
    residuals: float
    theta: float
    ratio: float
    penalty: float
    key_drift: float

    @property
    def spectrum(self) -> Array:
        """Eigenvalues of C, descending, `d_k`."""
        return np.logspace(0, -np.log10(self.condition), D_K)

    @property
    def outside(self) -> float:
        """Share of the key's energy outside the protected subspace."""
        return float(np.sin(np.deg2rad(self.angle)) ** 2)

    def coordinates(self, signs: Array | None = None) -> Array:
        """A key in the eigenbasis of C, `d_k`; with signs another one of the same norm and rho."""
        half = D_K // 2
        a = np.sqrt(np.where(np.arange(D_K) < half, 1 - self.outside, self.outside) / half)
        key: Array = self.norm * a * (1 if signs is None else signs)
        return key

    def second(self, degrees: float) -> Array:
        """A key at an angle to the first one, in the eigenbasis, `d_k`."""
        turned = self.coordinates(np.where(np.arange(D_K) % 2, -1.0, 1.0))  # orthogonal to the first
        t = np.deg2rad(degrees)
        key: Array = np.cos(t) * self.coordinates() + np.sin(t) * turned
        return key

    @property
    def rounding(self) -> float:
        """Relative rounding of a solve in fp64 (X4)."""
        return float(suppression.rounding_bound(EPS, self.condition))

    def moment(self) -> Array:
        """C in the coordinates of keys, `d_k x d_k`."""
        return _symmetric((BASIS * self.spectrum) @ BASIS.T)


@dataclass(frozen=True)
class Line:
    """A result of the library beside the theory's value.

    Attributes:
        label: what is compared.
        library: result of the library.
        theory: value or bound.
        relation: `equal`, `below` (a bound from above) or `above`.
        slack: absolute tolerance of the rounding.
        verdicts: words for a relation that holds, and for one that does not.
    """

    label: str
    library: float
    theory: float
    relation: str
    slack: float = 0.0
    verdicts: tuple[str, str] = ("holds", "violated")

    @property
    def holds(self) -> bool:
        """Whether the result satisfies the relation, up to rounding."""
        away = self.library - self.theory
        beyond = {"equal": abs(away), "below": away, "above": -away}[self.relation]
        return bool(beyond <= self.slack)

    def plain(self) -> dict[str, Any]:
        """Plain values, with the verdict."""
        return {
            "label": self.label,
            "library": float(self.library),
            "theory": float(self.theory),
            "relation": self.relation,
            "holds": self.holds,
            "verdict": self.verdicts[0 if self.holds else 1],
        }


def _symmetric(matrix: Array) -> Array:
    half: Array = (matrix + matrix.T) / 2
    return half


def _basis(size: int) -> Array:
    """Orthonormal basis, fixed; the library's solver gets a dense matrix."""
    q: Array = np.linalg.qr(np.random.default_rng(0).standard_normal((size, size)))[0]
    return q


BASIS = _basis(D_K)


def library_channel(C: Array, lam: float, K: Array) -> Array:
    """Channel of some keys by the library.

    Args:
        C: second moment, `d_k x d_k`.
        lam: lambda.
        K: keys, `d_k x n`.

    Returns:
        `d_k x n`.
    """
    found: Array = Ridge(torch.from_numpy(C), lam).channel(torch.from_numpy(K)).numpy()
    return found


@dataclass(frozen=True)
class Suppression:
    """One request over lambda.

    Attributes:
        lams: lambdas of the curves.
        eta, bound: the theory's attenuation, and its bound (T1b), at them.
        points: lambdas of the points.
        realized: share of a residual that the library's edit realizes, at them.
        lines: comparison at the slider's lambda.
    """

    lams: Array
    eta: Array
    bound: Array
    points: Array
    realized: Array
    lines: list[Line]


def suppress(s: Sliders) -> Suppression:
    """Attenuation of one request (T1), its bound (T1b) and the library's edit.

    Args:
        s: the sliders.

    Returns:
        Curves, points and comparison.
    """
    C, k, height = s.moment(), BASIS @ s.coordinates(), s.spectrum[D_K // 2 - 1]
    lams, points = np.logspace(-2, 8, 161), np.append(np.logspace(-2, 8, 11), s.lam)
    rho = np.array([suppression.realizability_spectral(lam * s.spectrum, s.coordinates()) for lam in lams])
    bounds = np.array(
        [suppression.suppression_bound(s.norm, s.outside, lam * height, lam * s.spectrum[-1]) for lam in lams]
    )
    realized = np.array([float(k @ library_channel(C, lam, k[:, None])[:, 0]) for lam in points])
    here = suppression.realizability_spectral(s.lam * s.spectrum, s.coordinates())
    bound = suppression.suppression_bound(s.norm, s.outside, s.lam * height, s.lam * s.spectrum[-1])
    rho_here = float(Ridge(torch.from_numpy(C), s.lam).realizability(torch.from_numpy(k[:, None]))[0])
    law, most = float(suppression.attenuation(here)), float(suppression.attenuation(bound))
    lines = [
        Line("rho", rho_here, here, "equal", s.rounding * here),
        Line("realized share, law (T1)", realized[-1], law, "equal", s.rounding),
        Line("realized share, bound (T1b)", realized[-1], most, "below", s.rounding),
    ]
    eta, limit = np.asarray(suppression.attenuation(rho)), np.asarray(suppression.attenuation(bounds))
    return Suppression(lams, eta, limit, points, realized, lines)


@dataclass(frozen=True)
class Requests:
    """Two requests over the angle between their keys.

    Attributes:
        degrees: angles.
        alone: attenuation of the first key alone, at them.
        own, leak: what the first edit realizes of its own residual and of the other's, by the library.
        missing: norm of what is missing of both residuals, relative to them, by the library.
        bound: its bound (X3).
        lines: comparison at the sliders' angle.
    """

    degrees: Array
    alone: Array
    own: Array
    leak: Array
    missing: Array
    bound: Array
    lines: list[Line]


def crosstalk(s: Sliders) -> Requests:
    """Two edits in one solve (X2), with the bounds of X3, by the library's solver.

    Args:
        s: the sliders.

    Returns:
        Points and comparison; the last point of each array is that of the sliders.
    """
    degrees = np.append(np.linspace(0, 90, 19), s.between)
    C, t = s.moment(), np.deg2rad(s.residuals)
    R = np.array([[1.0, np.cos(t)], [0.0, np.sin(t)]])
    found, grams = [], []
    for angle in degrees:
        K = BASIS @ np.stack([s.coordinates(), s.second(angle)], 1)
        B = library_channel(C, s.lam, K).T @ K
        S = suppression.gram(s.lam * C, K)
        grams.append(S)
        found.append(
            (
                float(suppression.attenuation(S[0, 0])),
                B[0, 0],
                B[1, 0],
                np.linalg.norm(R - R @ B) / np.linalg.norm(R),
                suppression.batch_shortfall_bound(S, R) / np.linalg.norm(R),
            )
        )
    alone, own, leak, missing, bound = np.array(found).T
    B = suppression.retention(grams[-1])
    theory = float(np.linalg.norm(R - R @ B) / np.linalg.norm(R))
    slack = _batch_rounding(s, grams[-1])
    lines = [
        Line("share of its own residual, bound eta alone (X3)", own[-1], alone[-1], "below", slack),
        Line("missing of both, batch law (X2)", missing[-1], theory, "equal", slack),
        Line("missing of both, bound 1/(1 + s_min) (X3)", missing[-1], bound[-1], "below", slack),
    ]
    return Requests(degrees, alone, own, leak, missing, bound, lines)


def _batch_rounding(s: Sliders, S: Array) -> float:
    """Rounding of R - R B: of B itself, and of S, since a change of S by `e ||S||` changes B by `e ||S|| / (1 + s_min)^2`."""
    values = np.linalg.eigvalsh(S)
    return float(s.rounding * D_K * (1 + values[-1] / (1 + max(values[0], 0.0)) ** 2))


@dataclass(frozen=True)
class Trap:
    """One penalty for an easy and a hard request, over the condition number.

    Attributes:
        kappas: condition numbers of the curves.
        safe: smallest penalty at which the hard request is feasible.
        progress: largest penalty at which the easy request moves far enough.
        penalties: penalties of the points, at the slider's condition; the last is that of the slider.
        served: whether the library's steps serve both requests at them.
        lines: comparison at the sliders' penalty.
    """

    kappas: Array
    safe: Array
    progress: float
    penalties: Array
    served: NDArray[np.bool_]
    lines: list[Line]


def two_penalties(s: Sliders) -> Trap:
    """Penalties that serve two requests (T2c), and the library's steps under some of them.

    The easy request has a gradient of length 1 along the smallest eigenvalue of H, which is 1; the hard one of length
    b/a along the largest, kappa. Progress is theta, the feasible ellipsoid has tau = 1.

    Args:
        s: the sliders.

    Returns:
        Curves, points and comparison.
    """
    kappas = np.logspace(0, 8, 161)
    safe = np.array([trap.shared_penalties(1.0, s.ratio, s.theta, kappa, 1.0).lower for kappa in kappas])
    interval = trap.shared_penalties(1.0, s.ratio, s.theta, s.condition, 1.0)
    penalties = np.append(np.logspace(-2, 6, 9), s.penalty)
    gradients = np.diag([-1.0, -s.ratio])
    steps = [
        -Ridge(torch.eye(2, dtype=torch.float64), lam).solve(torch.from_numpy(gradients)).numpy()
        for lam in penalties
    ]
    moved = np.array([np.linalg.norm(step[:, 0]) for step in steps])
    cost = np.array([np.sqrt(step[:, 1] @ np.diag([1.0, s.condition]) @ step[:, 1]) for step in steps])
    served = (moved >= s.theta) & (cost <= 1.0)
    inside = float(interval.lower <= s.penalty <= interval.upper)
    lines = [
        Line("easy request: length of the step, needs theta", moved[-1], s.theta, "above", 0.0, SERVED),
        Line("hard request: cost of the step, at most tau", cost[-1], 1.0, "below", 0.0, SERVED),
        Line("both served (1) or not (0), as the interval says (T2c)", served[-1], inside, "equal"),
    ]
    return Trap(kappas, safe, interval.upper, penalties, served, lines)


@dataclass(frozen=True)
class Drift:
    """Change of the channel as the geometry and the key drift.

    Attributes:
        drifts: norms of the geometry's drift, relative to the smallest eigenvalue of G.
        bound: corrected bound (L4) at them.
        stated: the paper's bound (57); infinite beyond its range.
        library: change of the library's channel at them.
        lines: comparison of all points.
    """

    drifts: Array
    bound: Array
    stated: Array
    library: Array
    lines: list[Line]


def channel_drift(s: Sliders) -> Drift:
    """Change of the library's channel under drift, with the paper's bound and the corrected one (L4).

    The geometry drifts along its channel, the key along itself.

    Args:
        s: the sliders.

    Returns:
        Curves and points.
    """
    C, k, mu = s.moment(), BASIS @ s.coordinates(), s.lam * s.spectrum[-1]
    drifts, moved = np.logspace(-2, 3, 16), (1 + s.key_drift) * k
    start, key_drift = library_channel(C, s.lam, k[:, None])[:, 0], s.key_drift * s.norm
    along = start / np.linalg.norm(start)
    found, bound, stated = [], [], []
    for drift in drifts * mu:
        other = _symmetric(C + drift / s.lam * np.outer(along, along))
        found.append(float(np.linalg.norm(library_channel(other, s.lam, moved[:, None])[:, 0] - start)))
        bound.append(fidelity.channel_drift(key_drift, drift, mu, s.norm * (1 + s.key_drift)))
        stated.append(fidelity.channel_drift_stated(key_drift, drift, mu, s.norm * (1 + s.key_drift)))
    slack = s.rounding * float(np.linalg.norm(start))
    worst = int(np.argmax(np.array(found) / np.array(bound)))
    lines = [
        Line(
            "change of the channel at the point nearest to its bound (L4)",
            found[worst],
            bound[worst],
            "below",
            slack,
        )
    ]
    return Drift(drifts, np.array(bound), np.array(stated), np.array(found), lines)


PARTS: dict[str, Callable[[Sliders], Any]] = {
    "suppression": suppress,
    "requests": crosstalk,
    "trap": two_penalties,
    "drift": channel_drift,
}


def part(name: str, values: Mapping[str, float]) -> tuple[Sliders, Any]:
    """A part of the theory for some values.

    Args:
        name: a key of `PARTS`.
        values: value of every slider.

    Returns:
        The sliders and the part.

    Raises:
        MetakeError: there is no such part.
    """
    if name not in PARTS:
        raise MetakeError(f"theory: no part {name!r}; known: {', '.join(PARTS)}")
    sliders = Sliders(**values)
    return sliders, PARTS[name](sliders)
