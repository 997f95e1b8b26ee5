"""Theorem 2 on the library's own geometry: `Ridge(A, 1, lam)` is the penalized step, `Ridge(H)` an ellipsoid,
`channel(fit="equality_constrained")` the executor, and a demo model's logit a margin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from metake.data.records import read_records
from metake.errors import MetakeError
from metake.figures.measured import measured
from metake.geometry.covariance import collect
from metake.geometry.null_space import Projected
from metake.geometry.operator import Geometry, Ridge
from metake.models.editable import EditableModel
from metake.models.load import load
from metake.models.tokens import encode
from metake.models.trace import run
from metake.shipped import ASSETS, DEMOS
from metake.texts import default_text
from theory import trap
from verification.ledger import below, checks, equal, holds
from verification.problems import (
    Curved,
    Executed,
    General,
    Pair,
    Regularized,
    Requests,
    Surrogate,
    along_request,
    by_cost,
    cost,
    curved,
    directions,
    executions,
    generals,
    pairs,
    regularized,
    requests,
    surrogates,
    trust_region,
    window_of,
)
from verification.strategies import Geometry as Spectrum
from verification.strategies import basis, geometries, seeds, tolerance, vectors

Array = NDArray[np.float64]
DTYPES = st.sampled_from([torch.float64, torch.float32])


def eps(dtype: torch.dtype) -> float:
    return float(torch.finfo(dtype).eps)


def tensor(x: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x))


def solved(geometry: Geometry, x: Array) -> Array:
    """`G^-1 x` for one vector or for columns."""
    columns = x[:, None] if x.ndim == 1 else x
    return geometry.solve(tensor(columns)).double().numpy().reshape(x.shape)


def penalized(
    g: Array, A: Array, lam: float, dtype: torch.dtype = torch.float64, weight: float = 1.0
) -> Array:
    """`-(A + lam I)^-1 g`: curvature as moment, the penalty as ridge."""
    return -solved(Ridge(tensor(A / weight), weight, lam, dtype=dtype), g)


def realizability(geometry: Geometry, x: Array) -> Array:
    return geometry.realizability(tensor(x)).double().numpy()


def measurable(condition: float, dtype: torch.dtype) -> None:
    assume(condition * eps(dtype) < 1e-2)


# -- T2a, L1 ------------------------------------------------------------------------------------


@given(surrogates(), DTYPES, st.sampled_from([1.0, 1e-3, 15000.0]))
@checks("T2a", "product")
def test_ridge_takes_the_penalized_step(s: Surrogate, dtype: torch.dtype, weight: float):
    measurable(s.condition, dtype)
    limit = tolerance(s.condition, len(s.g), eps(dtype))
    delta = penalized(s.g, s.A, s.lam, dtype, weight)
    equal(delta, s.delta, limit)
    pull = (s.A + s.lam * np.eye(len(s.g))) @ delta
    equal(
        pull, -s.g, tolerance(1, len(s.g), eps(dtype)), s.size * np.linalg.norm(delta) + np.linalg.norm(s.g)
    )


@given(surrogates(3, ("concave", "indefinite")), DTYPES, st.sampled_from([0.0, 0.5, 0.99, 1.01, 2.0]))
@checks("T2a", "product")
def test_ridge_has_a_step_iff_the_penalty_is_above_the_floor(s: Surrogate, dtype: torch.dtype, factor: float):
    floor = trap.penalty_floor(s.A)
    assume(floor > 0 and abs(factor - 1) * floor > 100 * eps(dtype) * s.size)
    if factor > 1:
        assert holds(np.isfinite(penalized(s.g, s.A, factor * floor, dtype)).all())
    else:
        with pytest.raises(MetakeError, match="not positive definite"):
            penalized(s.g, s.A, factor * floor, dtype)


@given(surrogates(max_exponent=5), DTYPES)
@checks("L1", "product")
def test_ridge_s_step_solves_the_trust_region_of_its_radius(s: Surrogate, dtype: torch.dtype):
    """lam comes back as the multiplier of the secular equation."""
    measurable(s.condition, dtype)
    delta = penalized(s.g, s.A, s.lam, dtype)
    best, multiplier = trust_region(s, float(np.linalg.norm(delta)))
    limit = tolerance(s.condition, len(s.g), eps(dtype))
    equal(multiplier, s.lam, limit, s.size)
    scale = np.linalg.norm(s.g) * np.linalg.norm(best) + s.size * (best @ best)
    equal(s.value(delta), s.value(best), 10 * limit, scale)


@given(surrogates(max_exponent=6), DTYPES, st.sampled_from([1e-3, 1.0, 1e3]))
@checks("L1", "product")
def test_ridge_s_radius_falls_with_the_penalty(s: Surrogate, dtype: torch.dtype, factor: float):
    measurable(s.condition, dtype)
    more = s.lam + factor * s.size
    near, far = (float(np.linalg.norm(penalized(s.g, s.A, lam, dtype))) for lam in (s.lam, more))
    slow, fast = ((alpha + s.lam) / (alpha + more) for alpha in (s.alpha.max(), s.alpha.min()))
    limit = tolerance(s.condition, len(s.g), eps(dtype))
    below(far, near * slow, limit)
    below(near * fast, far, limit)


# -- L2, T2b: the ellipsoid from its support function --------------------------------------------


def support(H: Ridge, V: Array, tau: float) -> Array:
    """`sup v^T delta` over E(tau) for unit columns v: tau times the root of their realizability.

    Its least value is the radius of the largest ball inside, its largest that of the smallest around.
    """
    return tau * np.sqrt(realizability(H, V))


@given(
    geometries(max_exponent=10), st.sampled_from([1.0, 1e-3, 1e3]), DTYPES, st.sampled_from([1.0, 15000.0])
)
@checks("L2", "product")
def test_realizability_spans_the_two_radii(H: Spectrum, tau: float, dtype: torch.dtype, weight: float):
    measurable(H.condition, dtype)
    ridge = Ridge(tensor(H.G / weight), weight, dtype=dtype)
    limit = tolerance(H.condition, H.size, eps(dtype))
    inner, outer = trap.inscribed_radius(H.mu[-1], tau), trap.circumscribed_radius(H.mu[0], tau)
    for reach in support(ridge, directions(H.size), tau):
        below(reach, outer, limit)
        below(inner, reach, limit)
    largest, smallest = support(ridge, H.U[:, [0, -1]], tau)
    equal([smallest, largest], [inner, outer], limit)
    equal(largest / smallest, trap.mismatch(H.condition), 2 * limit)


@given(geometries(min_size=2, max_exponent=6), seeds)
@checks("L2", "product")
def test_the_supporting_point_lies_on_the_ellipsoid(H: Spectrum, seed: int):
    ridge, v = Ridge(tensor(H.G), 1.0), basis(H.size, seed)[:, 0]
    reach = float(support(ridge, v[:, None], 1.0)[0])
    point = solved(ridge, v) / reach
    equal(cost(H, point), 1.0, H.tolerance)
    equal(v @ point, reach, H.tolerance)


@given(geometries(max_exponent=6), st.sampled_from([1.0, 1e-3, 15000.0]))
@checks("L2", "product")
def test_condition_is_at_most_the_squared_mismatch(H: Spectrum, weight: float):
    """An estimate from below, by a power iteration that close eigenvalues slow down."""
    seen = Ridge(tensor(H.G / weight), weight).condition
    below(trap.mismatch(seen), trap.mismatch(H.condition), H.tolerance)


@st.composite
def apart(draw: st.DrawFn) -> Spectrum:
    """Two eigenvalues that the power iteration tells apart, or one twice."""
    kappa = draw(st.just(1.0) | st.floats(3, 1e8))
    return Spectrum(np.array([1.0, kappa]), basis(2, draw(seeds)))


@given(
    apart(),
    st.sampled_from([1e-3, 0.5, None, 2.0, 1e3]),
    st.booleans(),
    st.sampled_from([1.0, 15000.0]),
    DTYPES,
)
@checks("T2b", "product")
@checks("L2", "product")
def test_the_trap_of_balls_from_realizability_and_condition(
    H: Spectrum, factor: float | None, above: bool, weight: float, dtype: torch.dtype
):
    """The ball of radius Delta lies within E(tau) iff no direction's support is shorter.

    `factor`: theta sqrt(kappa), or just off 1 if none is given.
    """
    measurable(H.condition, dtype)
    edge = tolerance(H.condition, 2, eps(dtype))
    theta = (factor or 1 + (2 if above else -2) * edge) / trap.mismatch(H.condition)
    ridge = Ridge(tensor(H.G / weight), weight, dtype=dtype)
    equal(trap.mismatch(ridge.condition), trap.mismatch(H.condition), edge)
    progress = theta * trap.circumscribed_radius(H.mu[0], 1.0)
    contained = bool((support(ridge, np.hstack([H.U, directions(2)]), 1.0) >= progress).all())
    assert trap.ball_trap(progress, H.mu[-1], 1.0) == (not contained)
    assert trap.ball_trap_relative(theta, ridge.condition) == (not contained)


# -- T2c, X6, X7: requests that share a penalty --------------------------------------------------

Step = Callable[[float], Array]


def check_ends(
    r: Requests, easy: Step, hard: Step, found: trap.Interval, blur: tuple[float, float], floor: float = 0.0
) -> None:
    """Safety begins at the lower end, progress ends at the upper one, and a penalty between serves both.

    Args:
        easy, hard: penalty -> displacement.
        blur: how far from the lower and from the upper end rounding reaches.
        floor: no penalty at or below it, and none within the blur above.
    """

    def safe(lam: float) -> bool:
        return cost(r.geometry, hard(lam)) <= r.tau

    def reaches(lam: float) -> bool:
        return bool(np.linalg.norm(easy(lam)) >= r.progress)

    for side in (-1, 1):
        lower, upper = found.lower + side * blur[0], found.upper + side * blur[1]
        if lower > floor + blur[0]:
            assert holds(safe(lower) == (side > 0))
        if upper > floor + blur[1]:
            assert holds(reaches(upper) == (side < 0))
    first, last = max(found.lower + blur[0], floor + sum(blur)), found.upper - blur[1]
    if first < last:
        assert holds(not found.empty)
        assert holds(all(safe(lam) and reaches(lam) for lam in (first, last)))


@given(requests(max_exponent=6), DTYPES)
@checks("T2c", "product")
def test_ridges_that_serve_two_linear_requests(r: Requests, dtype: torch.dtype):
    """No curvature: all of the geometry is the ridge."""
    flat = np.zeros((r.geometry.size, r.geometry.size))
    found = trap.shared_penalties(r.a, r.b, r.progress, r.mu_max, r.tau)
    edge = tolerance(1, r.geometry.size, eps(dtype))
    check_ends(
        r,
        lambda lam: penalized(r.easy, flat, lam, dtype),
        lambda lam: penalized(r.hard, flat, lam, dtype),
        found,
        (edge * found.lower, edge * found.upper),
    )


@given(
    requests(max_exponent=6), st.sampled_from([1e-3, 0.99, 1.01, 1e3]), st.sampled_from([1e-3, 0.5, 1.0, 2.0])
)
@checks("T2c", "product")
def test_the_relative_condition_decides_for_ridges(r: Requests, factor: float, theta: float):
    """At the penalty where both demands are met or missed by the same factor."""
    kappa = r.geometry.condition
    b = factor * r.a / (theta * np.sqrt(kappa))
    progress = theta * trap.circumscribed_radius(r.geometry.mu[0], r.tau)
    lam = np.sqrt(b * np.sqrt(r.mu_max) / r.tau * r.a / progress)
    flat = np.zeros((r.geometry.size, r.geometry.size))
    easy, hard = (penalized(-size * r.geometry.U[:, i], flat, lam) for size, i in ((r.a, 0), (b, -1)))
    served = np.linalg.norm(easy) >= progress and cost(r.geometry, hard) <= r.tau
    assert holds(trap.request_trap_relative(theta, r.a, b, kappa) == (not served))


@given(regularized(), DTYPES)
@checks("X6", "product")
def test_regularizers_as_the_moment_of_a_ridge(case: Regularized, dtype: torch.dtype):
    """F is the moment and lam its weight."""
    r, (f_easy, f_hard) = case.requests, case.f[[0, -1]]
    condition = float(case.f.max() / case.f.min())
    measurable(condition, dtype)
    found = trap.regularized_penalties(r.a, r.b, f_easy, f_hard, r.progress, r.mu_max, r.tau)

    def step(g: Array, lam: float) -> Array:
        return -solved(Ridge(tensor(case.F), lam, dtype=dtype), g)

    edge = tolerance(condition, r.geometry.size, eps(dtype))
    check_ends(
        r,
        lambda lam: step(r.easy, lam),
        lambda lam: step(r.hard, lam),
        found,
        (edge * found.lower, edge * found.upper),
    )
    limit = trap.one_sided_limit(f_easy, f_hard, r.progress, r.mu_max, r.tau)
    equal(found.lower / found.upper * limit, r.b / r.a, tolerance())


@given(regularized(), st.floats(0.01, 1))
@checks("X6", "product")
def test_the_window_of_a_ridge_is_moved_and_not_widened(case: Regularized, theta: float):
    H = case.requests.geometry
    ridge = Ridge(tensor(case.F), 1.0)
    units = [solved(ridge, H.U[:, i]) for i in (0, -1)]
    expected = trap.two_sided_window(theta, H.condition, *case.f[[0, -1]])
    for reach in (by_cost, along_request):
        equal(window_of(H, *units, 1.0, theta, reach), expected, case.tolerance)


@given(requests(max_exponent=6), st.floats(0.01, 1), DTYPES, st.data())
@checks("X6", "product")
def test_an_aligned_region_from_a_ridge(r: Requests, theta: float, dtype: torch.dtype, data: st.DataObject):
    """`-R H^-1 g/sqrt(rho(g))` for requests on the eigenvectors, and for any other."""
    H, R = r.geometry, r.tau * np.sqrt(theta)
    measurable(H.condition, dtype)
    ridge, limit = Ridge(tensor(H.G), 1.0, dtype=dtype), tolerance(H.condition, H.size, eps(dtype))

    def step(g: Array) -> Array:
        return -R * solved(ridge, g) / np.sqrt(realizability(ridge, g[:, None])[0])

    for g, i in ((r.easy, 0), (r.hard, -1)):
        equal(step(g), trap.aligned_displacement(g, H.G, R), 2 * limit)
        below(cost(H, step(g)), R, limit)
        below(theta * r.tau, along_request(H, step(g), i, r.tau) * r.tau, limit)
    equal(cost(H, step(data.draw(vectors(H.size)))), R, limit)


@given(curved(), DTYPES)
@checks("X7", "product")
def test_ridges_that_serve_two_curved_requests(case: Curved, dtype: torch.dtype):
    """The penalty is the ridge, each request's curvature its moment; u_min, u_max are eigenvectors."""
    r, (easy, hard), floor = case.requests, case.curvatures, case.floor
    found = trap.curved_penalties(
        r.a, r.b, case.alphas[0][0], case.alphas[1][-1], r.progress, r.mu_max, r.tau, floor
    )
    size = float(np.abs(case.alphas).max()) + r.a / r.progress + r.b * np.sqrt(r.mu_max) / r.tau
    blur = size * np.sqrt(eps(dtype))  # a solve at lam0 + s errs by eps/s
    check_ends(
        r,
        lambda lam: penalized(r.easy, easy, lam, dtype),
        lambda lam: penalized(r.hard, hard, lam, dtype),
        found,
        (blur, blur),
        floor,
    )


@given(generals(max_size=4))
@checks("X7", "product")
def test_the_sandwich_decides_for_ridges(case: General):
    """Below its lower end the penalty it is proved with serves both, above its upper end none does."""
    free, trapped = case.ends()
    u_min, u_max = case.geometry.U[:, 0], case.geometry.U[:, -1]

    def served(b: float, lam: float) -> bool:
        easy, hard = penalized(-case.a * u_min, case.A, lam), penalized(-b * u_max, case.A, lam)
        return np.linalg.norm(easy) >= case.progress * (1 - 1e-9) and cost(case.geometry, hard) <= case.tau

    if free > 0:
        assert holds(served(0.999 * free, case.a / case.progress - u_min @ case.A @ u_min))
    assert holds(
        not any(
            served(1.001 * trapped, case.floor + s) for s in max(case.last, 1.0) * np.geomspace(1e-4, 2, 6)
        )
    )


# -- P3: the executor ---------------------------------------------------------------------------


def weight_cost(D: Array, G: Array) -> float:
    """`tr(D G D^T)`."""
    return float(np.sum((D @ G) * D))


def away_from(k: Array, rows: int, seed: int) -> Array:
    """Rows that the key does not see."""
    X = np.random.default_rng(seed).standard_normal((rows, len(k)))
    return X - np.outer(X @ k, k) / (k @ k)


@given(
    executions(max_exponent=8),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([1.0, 1e-3, 15000.0]),
    st.booleans(),
    seeds,
    DTYPES,
)
@checks("P3", "product")
def test_the_exact_channel_attains_the_least_cost(
    e: Executed, beta: float, weight: float, history: bool, seed: int, dtype: torch.dtype
):
    """With a ridge and with keys of earlier batches; no other edit with the same effect is cheaper."""
    size, scale = e.geometry.size, e.geometry.mu[-1]
    past = np.sqrt(scale) * np.random.default_rng(seed).standard_normal((size, 2)) if history else None
    G = e.geometry.G + beta * scale * np.eye(size) + (0 if past is None else past @ past.T)
    condition = np.linalg.cond(G)
    if past is not None:  # Woodbury subtracts from an inverse that may be much larger than G's
        base = e.geometry.mu[0] + beta * scale
        condition = e.geometry.condition * np.linalg.eigvalsh(G)[-1] / base
    measurable(condition, dtype)
    ridge = Ridge(
        tensor(e.geometry.G / weight),
        weight,
        beta * scale,
        past=None if past is None else tensor(past),
        dtype=dtype,
    )
    limit = tolerance(condition, size, eps(dtype))
    k = e.k[:, None]
    D = np.outer(e.delta, ridge.channel(tensor(k), fit="equality_constrained").double().numpy())
    equal(D @ e.k, e.delta, limit)
    least = trap.execution_cost(e.delta, float(realizability(ridge, k)[0]))
    equal(weight_cost(D, G), least, limit)
    other = D + 0.1 * np.linalg.norm(D) * away_from(e.k, len(e.delta), seed)
    below(least, weight_cost(other, G), limit)


@given(geometries(min_size=2, max_exponent=6), st.floats(0.1, 10), st.data(), seeds)
@checks("P3", "product")
def test_the_executor_in_a_null_space(spectrum: Spectrum, beta: float, data: st.DataObject, seed: int):
    """AlphaEdit: cost `beta ||D||^2`, and rho = ||P k||^2/beta; the direction of delta does not matter."""
    size = spectrum.size
    k, delta = data.draw(vectors(size)), data.draw(vectors(2))
    projected = Projected(tensor(spectrum.G), beta, keep=0.5)
    inside = projected.basis.numpy() @ (projected.basis.numpy().T @ k)
    share = np.linalg.norm(k) / max(np.linalg.norm(inside), 1e-300)
    assume(share < 1e4)
    rho = float(realizability(projected, k[:, None])[0])
    equal(rho, inside @ inside / beta, tolerance(share))
    q = projected.channel(tensor(k[:, None]), fit="equality_constrained").numpy()[:, 0]
    for d in (delta, basis(2, seed) @ delta):
        D = np.outer(d, q)
        equal(D @ k, d, tolerance(share))
        equal(beta * np.sum(D**2), trap.execution_cost(d, rho), tolerance(share))


@given(executions(max_exponent=6), requests(max_exponent=0), DTYPES)
@checks("P3", "product")
def test_penalties_whose_steps_the_executor_can_afford(e: Executed, r: Requests, dtype: torch.dtype):
    """The hard request's step, executed: its cost in weights is tau^2 at the lower end."""
    measurable(e.geometry.condition, dtype)
    ridge = Ridge(tensor(e.geometry.G), 1.0, dtype=dtype)
    q = ridge.channel(tensor(e.k[:, None]), fit="equality_constrained").double().numpy()[:, 0]
    rho = float(realizability(ridge, e.k[:, None])[0])
    found = trap.cost_penalties(r.a, r.b, r.progress, rho, r.tau)
    edge = tolerance(e.geometry.condition, e.geometry.size, eps(dtype))
    u, flat = e.delta / np.linalg.norm(e.delta), np.zeros((len(e.delta), len(e.delta)))
    for side in (-1, 1):
        hard = penalized(-r.b * u, flat, found.lower * (1 + side * edge), dtype)
        easy = penalized(-r.a * u, flat, found.upper * (1 + side * edge), dtype)
        assert holds((weight_cost(np.outer(hard, q), e.geometry.G) <= r.tau**2) == (side > 0))
        assert holds((np.linalg.norm(easy) >= r.progress) == (side < 0))


@pytest.mark.parametrize("model", DEMOS)
@checks("P3", "product")
def test_the_executor_s_cost_on_a_model_s_covariance(model: str):
    """Real keys and covariances: one number per request, the same for every direction."""
    found = measured(model)
    moment, keys = found.moment.double(), found.keys.double()
    weight, beta = 100.0, 1e-3 * float(moment.diagonal().mean())
    ridge = Ridge(moment, weight, beta)
    G = weight * moment.numpy() + beta * np.eye(len(moment))
    rho = ridge.realizability(keys).numpy()
    limit = tolerance(np.linalg.cond(G), 8)
    for j, k in enumerate(keys.T):
        q = ridge.channel(k[:, None], fit="equality_constrained").numpy()[:, 0]
        for delta in np.random.default_rng(j).standard_normal((3, 4)):
            D = np.outer(delta, q)
            equal(D @ k.numpy(), delta, limit)
            equal(weight_cost(D, G), trap.execution_cost(delta, float(rho[j])), limit)
    assert rho.max() > 1.1 * rho.min()  # what anisotropy there is lies between requests


# -- X5 -----------------------------------------------------------------------------------------


@given(pairs(max_exponent=4), st.sampled_from([1.0, 1e-3, 1e3]), DTYPES)
@checks("X5", "product")
def test_kl_s_ellipsoid_from_the_gram_of_a_root(pair: Pair, tau: float, dtype: torch.dtype):
    """`L^T F^-1 L` with H = L L^T has the relative eigenvalues."""
    condition = pair.F.condition * pair.H.condition
    measurable(condition, dtype)
    ridge = Ridge(tensor(pair.F.G), 1.0, dtype=dtype)
    gram = ridge.gram(tensor(pair.H.U * np.sqrt(pair.H.mu))).double().numpy()
    values = np.linalg.eigvalsh(gram)
    limit = tolerance(condition, pair.F.size, eps(dtype))
    equal(np.sqrt(values[-1] / values[0]), trap.kl_mismatch(pair.F.G, pair.H.G), limit)
    low, high = trap.relative_condition_bounds(pair.F.condition, pair.H.condition)
    below(values[-1] / values[0], high, limit)
    below(low, values[-1] / values[0], limit)
    for side in (-1, 1):
        s = tau / np.sqrt(values[-1]) * (1 + side * limit)
        assert trap.kl_inside(pair.F.G, pair.H.G, s, tau) == (side < 0)


@given(geometries(max_exponent=6), st.sampled_from([1.0, 1e-3, 1e3]), seeds)
@checks("X5", "product")
def test_a_proportional_kl_matches(H: Spectrum, scale: float, seed: int):
    """F = c H by the weight of a ridge: every direction's two supports have the ratio sqrt(c)."""
    V = directions(H.size, seed, 4)
    ratio = support(Ridge(tensor(H.G), 1.0), V, 1.0) / support(Ridge(tensor(H.G), scale), V, 1.0)
    equal(ratio, np.sqrt(scale) * np.ones(len(ratio)), H.tolerance)
    equal(trap.kl_mismatch(scale * H.G, H.G), 1.0, H.tolerance)


# -- T2d: the margin of a logit ------------------------------------------------------------------


@dataclass(frozen=True)
class Logit:
    """One logit of the demo model at a prompt's last token, moved by an edit of the last layer.

    Nothing comes after that layer but the final norm and the head, so the logit depends on the edit
    only through what it adds to the stream at that token.
    """

    ids: torch.Tensor
    token: int
    key: torch.Tensor  # d_k x 1
    stream: torch.Tensor  # d_v

    @property
    def layer(self) -> int:
        return len(demo()) - 1

    @property
    def gradient(self) -> Array:
        """v, by the stream after the last block: norm and head alone."""
        here = self.stream.clone().requires_grad_(True)
        logits = run(
            demo(), torch.zeros(1, 1, dtype=torch.long), start=len(demo()), hidden=here[None, None]
        ).logits
        return torch.autograd.grad(logits[0, 0, self.token], here)[0].numpy()

    def after(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """The logit under the virtual edit `left right^T`."""
        at = torch.tensor([0]), torch.tensor([self.ids.shape[1] - 1])
        return run(demo(), self.ids, edits={self.layer: (left, right)}, positions=at).logits[0, self.token]

    def rise(self, delta: Array, q: torch.Tensor) -> float:
        with torch.no_grad():
            left = tensor(delta)[:, None]
            return float(self.after(left, q) - self.after(0 * left, q))


@cache
def demo() -> EditableModel:
    model = load("demo", device="cpu")
    model.model.double().requires_grad_(False)
    return model


@cache
def logits() -> tuple[Logit, ...]:
    """Three facts, each with its answer's first token."""
    found, model = [], demo()
    tokenizer = load("demo", device="cpu").tokenizer
    for record in read_records(ASSETS / "world" / "test.json", 3):
        request = record.request
        row = encode(tokenizer, request.text, request.target_new)
        ids = torch.tensor([row.ids[: len(row) - row.answer]])
        trace = run(model, ids, keys=(len(model) - 1,), outputs=(len(model) - 1,))
        key, stream = (x[len(model) - 1][0, -1].detach() for x in (trace.keys, trace.outputs))
        found.append(Logit(ids, row.answer_ids[0], key[:, None], stream))
    return tuple(found)


@cache
def executor() -> Ridge:
    layer, tokenizer = len(demo()) - 1, load("demo", device="cpu").tokenizer
    moment = collect(demo(), tokenizer, default_text("demo"), (layer,), tokens=4096, progress=False)[
        layer
    ].double()
    return Ridge(moment, 100.0, 1e-3 * float(moment.diagonal().mean()))


@pytest.mark.parametrize("which", [0, 1, 2])
@checks("T2d", "product")
def test_a_logit_s_gradient_through_the_edit(which: int):
    """The exact channel passes v on as it is, the soft one eta v: then the margin takes 1/eta the length."""
    logit = logits()[which]
    eta = float(executor().attenuation(logit.key)[0])
    for fit, share in (("equality_constrained", 1.0), ("least_squares", eta)):
        left = torch.zeros(len(logit.stream), 1, dtype=torch.float64, requires_grad=True)
        seen = torch.autograd.grad(logit.after(left, executor().channel(logit.key, fit)), left)[0][
            :, 0
        ].numpy()
        equal(seen, share * logit.gradient, tolerance(executor().condition))
        equal(
            trap.margin_norm(1.0, seen),
            trap.margin_norm(1.0, logit.gradient) / share,
            tolerance(executor().condition),
        )


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("rank", [None, 5])
@checks("T2d", "product")
def test_a_small_margin_takes_the_length_that_its_gradient_says(which: int, rank: int | None):
    """Along v, or what of it lies in a subspace, the length suffices; along anything else it takes more.

    To first order: half the logit's second difference bounds what a small step leaves out.
    """
    logit, q = logits()[which], executor().channel(logits()[which].key, "equality_constrained")
    v, margin = logit.gradient, 1e-4
    span = np.eye(len(v)) if rank is None else basis(len(v), 3)[:, :rank]
    length = trap.margin_norm(margin, v, None if rank is None else span)
    best = span @ (span.T @ v)
    for direction in (best, *(span @ np.random.default_rng(0).standard_normal((span.shape[1], 5))).T):
        u = direction / np.linalg.norm(direction)
        up, down = (logit.rise(side * length * u, q) for side in (1, -1))
        bent = abs(up + down) + 1e-12
        equal(up, margin * (v @ u) / np.linalg.norm(span.T @ v), 1.0, bent)
        below(up, margin + bent, 1e-9)
