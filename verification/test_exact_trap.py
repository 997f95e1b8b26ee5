"""Theorem 2 in exact rational arithmetic."""

from __future__ import annotations

import numpy as np
from flint import fmpq, fmpq_mat
from hypothesis import assume, given

from theory import trap
from verification.ledger import checks, holds
from verification.rational import (
    Source,
    Spectral,
    array,
    at_most,
    condition,
    diagonal,
    dot,
    eye,
    near,
    outer,
    rho_of,
    same,
    sources,
    square,
    table,
    zero,
)


def curved(s: Source) -> tuple[Spectral, fmpq_mat, fmpq]:
    """A curvature of any sign, a gradient, and a penalty above minus its smallest eigenvalue."""
    A = s.spectral(s.size(), low=s.choose([fmpq(0), s.number()]))
    lam = max(fmpq(0), -min(A.mu)) + s.positive(s.choose([0, 3]))
    return A, s.vector(A.size, nonzero=False), lam


def step_of(A: fmpq_mat, g: fmpq_mat, lam: fmpq) -> fmpq_mat:
    return -1 * (A + lam * eye(A.nrows())).solve(g)


def surrogate(x: fmpq_mat, g: fmpq_mat, A: fmpq_mat, lam: fmpq) -> fmpq:
    return dot(g, x) + dot(x, A * x) / 2 + lam / 2 * square(x)


@given(sources)
@checks("T2a", "exact")
def test_any_other_step_costs_exactly_the_curvature_more(s: Source):
    A, g, lam = curved(s)
    x, e = step_of(A.G, g, lam), s.vector(A.size)
    rise = dot(e, (A.G + lam * eye(A.size)) * e) / 2
    same(surrogate(x + e, g, A.G, lam) - surrogate(x, g, A.G, lam), rise)
    assert rise > 0
    cond = float((max(map(abs, A.mu)) + lam) / (min(A.mu) + lam))
    near(trap.displacement(array(g), table(A.G), float(lam)), x, cond)
    at = x + e
    size = float(square(g) * square(at)) ** 0.5
    size += A.size * float((max(map(abs, A.mu)) + lam) * square(at))
    near(trap.surrogate(array(at), array(g), table(A.G), float(lam)), surrogate(at, g, A.G, lam), 1.0, size)


@given(sources)
@checks("L1", "exact")
def test_nothing_in_the_ball_beats_the_penalized_step(s: Source):
    """With the multiplier's identity: what x gains is a square plus lam times its slack."""
    A, g, lam = curved(s)
    delta, x = step_of(A.G, g, lam), s.vector(A.size, nonzero=False)
    if square(x) > square(delta):  # into the ball, or onto its border
        x = s.orthogonal(A.size) * delta * s.share()
    gain = surrogate(x, g, A.G, fmpq(0)) - surrogate(delta, g, A.G, fmpq(0))
    slack = square(delta) - square(x)
    assert slack >= 0
    away = x - delta
    same(gain, dot(away, (A.G + lam * eye(A.size)) * away) / 2 + lam * slack / 2)
    assert gain >= 0
    same(g + A.G * delta + lam * delta, fmpq_mat(A.size, 1))  # stationary, with multiplier lam >= 0


@given(sources)
@checks("L1", "exact")
def test_radius_falls_with_the_penalty(s: Source):
    A, g, lam = curved(s)
    along = A.U.transpose() * g
    more = lam * (1 + s.choose([fmpq(1, 10**9), s.positive(1)]))
    radii = [
        sum((a * a / (m + x) ** 2 for a, m in zip(along.entries(), A.mu, strict=True)), fmpq(0))
        for x in (lam, more)
    ]
    same([square(step_of(A.G, g, x)) for x in (lam, more)], radii)
    assert radii[1] < radii[0] or zero(g)
    cond = float((max(map(abs, A.mu)) + lam) / (min(A.mu) + lam))
    near(trap.radius(array(g), table(A.G), float(lam)) ** 2, radii[0], cond)


@given(sources)
@checks("L1", "exact")
def test_a_slack_radius_comes_from_no_positive_penalty(s: Source):
    """Beyond ||A^-1 g|| the multiplier is zero, and every lam > 0 gives a smaller radius."""
    A = s.spectral(s.size())
    g = s.vector(A.size)
    free = step_of(A.G, g, fmpq(0))
    assert holds(square(step_of(A.G, g, s.positive(6))) < square(free), "exact")
    x = s.vector(A.size)
    assert surrogate(x, g, A.G, fmpq(0)) >= surrogate(free, g, A.G, fmpq(0))


@given(sources)
@checks("L2", "exact")
def test_containment_ends_at_the_two_radii(s: Source):
    """Squared radii; inside for every direction up to the border, and past it along an eigenvector."""
    H, tau = s.spectral(s.size()), s.positive(2)
    low, high = min(H.mu), max(H.mu)
    x, factor = s.vector(H.size), s.factor()
    ball = tau**2 / high * factor  # R^2
    fits = ball * dot(x, H.G * x) <= tau**2 * square(x)
    top = H.vector(H.mu.index(high))
    assert (ball * dot(top, H.G * top) <= tau**2) == (factor <= 1)
    assert fits or factor > 1
    around = tau**2 / low * factor
    bottom = H.vector(H.mu.index(low))
    assert (tau**2 * square(bottom) <= around * dot(bottom, H.G * bottom)) == (factor >= 1)
    assert tau**2 * square(x) <= around * dot(x, H.G * x) or factor < 1
    near(trap.inscribed_radius(float(high), float(tau)) ** 2, tau**2 / high)
    near(trap.circumscribed_radius(float(low), float(tau)) ** 2, tau**2 / low)
    near(trap.mismatch(float(high / low)) ** 2, (tau**2 / low) / (tau**2 / high))


NARROW = fmpq(1, 10**8)


def clear(factor: fmpq, width: fmpq = NARROW) -> bool:
    """Not so close to the border that fp64 need not see the side."""
    return abs(factor - 1) > width


@given(sources)
@checks("T2b", "exact")
def test_no_radius_serves_iff_progress_passes_the_inner_ball(s: Source):
    """Radii with R >= Delta and R^2 mu_max <= tau^2: the smallest that progresses is Delta itself."""
    roots, H = s.squares(s.size())
    tau, factor = s.positive(2), s.factor()
    progress = tau / roots[-1] * factor
    candidates = [progress, progress * (1 + s.share()), tau / roots[-1], tau / roots[-1] * s.share()]
    top = H.vector(H.size - 1)
    serving = [R for R in candidates if progress <= R and dot(R * top, H.G * (R * top)) <= tau**2]
    assert holds(bool(serving) == (factor <= 1), "exact")
    theta = progress * roots[0] / tau
    kappa = (roots[-1] / roots[0]) ** 2
    assert bool(serving) == (kappa * theta**2 <= 1)
    if clear(factor):
        assert trap.ball_trap(float(progress), float(max(H.mu)), float(tau)) == (not serving)
        assert trap.ball_trap_relative(float(theta), float(kappa)) == (not serving)


def served(g: fmpq_mat, A: fmpq_mat, lam: fmpq, H: fmpq_mat, *, progress=None, tau=None) -> bool:
    """Whether the penalized step of one request moves far enough, or stays within E(tau); squared."""
    delta = step_of(A, g, lam)
    return square(delta) >= progress**2 if progress is not None else dot(delta, H * delta) <= tau**2


def requests(s: Source) -> tuple[tuple[fmpq, ...], Spectral, fmpq, fmpq, fmpq, fmpq, fmpq]:
    """Roots of H's spectrum, H, a, b, Delta, tau, and a/Delta over b sqrt(mu_max)/tau: 1 is the border."""
    roots, H = s.squares(max(2, s.size()))
    b, progress, tau, factor = s.positive(1), s.positive(1), s.positive(1), s.factor()
    return roots, H, b * roots[-1] / tau * factor * progress, b, progress, tau, factor


@given(sources)
@checks("T2c", "exact")
def test_penalties_that_serve_both_requests(s: Source):
    roots, H, a, b, progress, tau, factor = requests(s)
    lower, upper = b * roots[-1] / tau, a / progress
    easy, hard, none = -a * H.vector(0), -b * H.vector(H.size - 1), fmpq_mat(H.size, H.size)
    both = []
    for lam in (lower, upper, (lower + upper) / 2, lower * s.positive(1)):
        moves = served(easy, none, lam, H.G, progress=progress)
        safe = served(hard, none, lam, H.G, tau=tau)
        assert (moves, safe) == (lam <= upper, lam >= lower)
        both.append(moves and safe)
    assert any(both) == (factor >= 1)
    theta, kappa = progress * roots[0] / tau, (roots[-1] / roots[0]) ** 2
    assert any(both) == (theta**2 * b**2 * kappa <= a**2)
    interval = trap.shared_penalties(*map(float, (a, b, progress, roots[-1] ** 2, tau)))
    near([interval.lower, interval.upper], [lower, upper])
    if clear(factor):
        assert interval.empty == (not any(both))
        assert trap.request_trap_relative(*map(float, (theta, a, b, kappa))) == (not any(both))


@given(sources)
@checks("T2d", "exact")
def test_margin_needs_length(s: Source):
    """(v . delta)^2 <= ||v||^2 ||delta||^2, equal iff parallel; where confined, with the projected v."""
    d = s.size()
    V, _ = s.projector(d)
    assume(V is not None)
    v, x = s.vector(d), s.vector(V.ncols())
    inside, delta = V.transpose() * v, V * x
    at_most(dot(v, delta) ** 2, square(inside) * square(delta))
    assert (dot(v, delta) ** 2 == square(inside) * square(delta)) == (outer(inside, x) == outer(x, inside))
    margin = s.positive(1)
    near(trap.margin_norm(float(margin), array(v)) ** 2, margin**2 / square(v))
    if not zero(inside):
        cond = float(square(v) / square(inside))
        basis = table(V)
        near(trap.margin_norm(float(margin), array(v), basis) ** 2, margin**2 / square(inside), cond)


@given(sources)
@checks("P3", "exact")
def test_least_cost_of_a_displacement(s: Source):
    """Any D with D k = delta costs ||delta||^2/rho, plus exactly the cost of what it adds."""
    g = s.spectral(s.size())
    k, delta = s.vector(g.size), s.vector(s.size())
    rho = rho_of(g.G, k)
    best = outer(delta, g.G.solve(k)) * (1 / rho)
    same(best * k, delta)
    same(dot(best * g.G, best), square(delta) / rho)
    step = s.matrix(best.nrows(), g.size)
    step = step - outer(step * k, g.G.solve(k)) * (1 / rho)
    same(dot((best + step) * g.G, best + step), square(delta) / rho + dot(step * g.G, step))
    near(trap.execution_cost(array(delta), float(rho)), square(delta) / rho)


@given(sources)
@checks("P3", "exact")
def test_shared_penalties_under_the_executor_s_cost(s: Source):
    root, b, progress, tau, factor = s.positive(2), s.positive(1), s.positive(1), s.positive(1), s.factor()
    lower = b / (tau * root)
    a = lower * factor * progress
    upper = a / progress
    both = [
        a / lam >= progress and (b / lam) ** 2 / root**2 <= tau**2
        for lam in (lower, upper, (lower + upper) / 2)
    ]
    assert any(both) == (factor >= 1)
    interval = trap.cost_penalties(*map(float, (a, b, progress, root**2, tau)))
    near([interval.lower, interval.upper], [lower, upper])
    if clear(factor):
        assert interval.empty == (not any(both))


@given(sources)
@checks("X5", "exact")
def test_kl_s_ellipsoid_in_its_own_coordinates(s: Source):
    """F = A A^T, H = A U diag(nu) U^T A^T: the relative spectrum is nu."""
    d = s.integer(1, 4)
    A = s.orthogonal(d) * diagonal(s.positive(1) for _ in range(d))
    nu = s.spectral(d)
    F, H = outer(A, A), A * nu.G * A.transpose()
    tau, factor = s.positive(2), s.factor()
    budget = tau**2 / max(nu.mu) * factor  # s^2
    x, top = s.vector(d), A.transpose().solve(nu.vector(nu.mu.index(max(nu.mu))))
    assert (budget * dot(top, H * top) <= tau**2 * dot(top, F * top)) == (factor <= 1)
    assert budget * dot(x, H * x) <= tau**2 * dot(x, F * x) or factor > 1
    assert (max(nu.mu) == min(nu.mu)) == (H * F[0, 0] == F * H[0, 0])
    cond = condition(F) * condition(H)
    if cond < 1e9:
        near(trap.kl_mismatch(table(F), table(H)) ** 2, max(nu.mu) / min(nu.mu), cond)
        if clear(factor, fmpq(1, 100)):
            inside = trap.kl_inside(table(F), table(H), float(budget) ** 0.5, float(tau))
            assert inside == (factor <= 1)


@given(sources)
@checks("X5", "exact")
def test_relative_condition_lies_between_its_bounds(s: Source):
    f, h = ([s.positive(3) for _ in range(s.choose([2, 3]))] for _ in "fh")
    f, h = f[: len(h)], h[: len(f)]
    nu = [y / x for x, y in zip(f, h, strict=True)]
    cond, c_f, c_h = (max(v) / min(v) for v in (nu, f, h))
    at_most(cond, c_f * c_h)
    at_most(max(c_f / c_h, c_h / c_f), cond)
    near(list(trap.relative_condition_bounds(float(c_f), float(c_h))), [max(c_f / c_h, c_h / c_f), c_f * c_h])


@given(sources)
@checks("X6", "exact")
def test_one_sided_limit_of_a_regularizer(s: Source):
    """(i): delta = -(lam F)^-1 g, F with H's eigenvectors."""
    roots, H, a, b, progress, tau, factor = requests(s)
    F = Spectral(tuple(s.positive(2) for _ in roots), H.U)
    a = a * F.mu[0] / F.mu[-1]  # the border moves with F
    easy, hard = -a * H.vector(0), -b * H.vector(H.size - 1)
    lower, upper = b * roots[-1] / (tau * F.mu[-1]), a / (progress * F.mu[0])
    both = []
    for lam in (lower, upper, (lower + upper) / 2, lower * s.positive(1)):
        moved, kept = (-1 * (lam * F.G).solve(g) for g in (easy, hard))
        moves, safe = square(moved) >= progress**2, dot(kept, H.G * kept) <= tau**2
        assert (moves, safe) == (lam <= upper, lam >= lower)
        both.append(moves and safe)
    limit = tau * F.mu[-1] / (progress * F.mu[0] * roots[-1])
    assert any(both) == (factor >= 1) == (b / a <= limit)
    interval = trap.regularized_penalties(
        *map(float, (a, b, F.mu[0], F.mu[-1], progress, roots[-1] ** 2, tau))
    )
    near([interval.lower, interval.upper], [lower, upper])
    near(trap.one_sided_limit(*map(float, (F.mu[0], F.mu[-1], progress, roots[-1] ** 2, tau))), limit)


@given(sources)
@checks("X6", "exact")
def test_a_regularizer_moves_the_window_and_keeps_its_width(s: Source):
    """(ii): safe and at theta of its own limit, both requests; the best lam is the larger of two."""
    roots, H = s.squares(max(2, s.size()))
    F = Spectral(tuple(s.positive(2) for _ in roots), H.U)
    tau, theta = s.positive(1), fmpq(s.integer(1, 11), 12)
    ratio = roots[-1] / roots[0] * F.mu[0] / F.mu[-1]  # sqrt(kappa) f_e/f_h
    window = [theta / ratio, 1 / (theta * ratio)]
    a = s.positive(1)
    b = a * s.choose(window) * s.factor()
    easy, hard = -a * H.vector(0), -b * H.vector(H.size - 1)

    def good(lam: fmpq) -> bool:
        kept = [-1 * (lam * F.G).solve(g) for g in (easy, hard)]
        return all((theta * tau) ** 2 <= dot(x, H.G * x) <= tau**2 for x in kept)

    limits = [a * roots[0] / (tau * F.mu[0]), b * roots[-1] / (tau * F.mu[-1])]
    found = any(good(lam) for lam in (*limits, limits[0] / theta, limits[1] / theta))
    assert found == (window[0] <= b / a <= window[1])
    seen = trap.two_sided_window(*map(float, (theta, (roots[-1] / roots[0]) ** 2, F.mu[0], F.mu[-1])))
    near(list(seen), window)


@given(sources)
@checks("X6", "exact")
def test_an_aligned_region_serves_every_eigen_aligned_request(s: Source):
    """(iii), and that nothing else in the region descends further: Cauchy and Schwarz, squared."""
    roots, H = s.squares(s.size())
    i, tau, theta, size = s.integer(0, H.size - 1), s.positive(1), s.share(), s.positive(3)
    R = tau * (theta + s.share() * (1 - theta))
    delta = H.vector(i) * (R / roots[i])  # for g = -size u_i
    H_length = dot(delta, H.G * delta)
    same(H_length, R**2)
    assert H_length <= tau**2
    assert square(delta) >= (theta * tau) ** 2 / H.mu[i]  # its own limit is tau/sqrt(mu_i)
    g, x = -size * H.vector(i), s.vector(H.size)
    assert dot(g, x) ** 2 * R**2 <= dot(g, delta) ** 2 * dot(x, H.G * x)  # scaled to H-length R
    near(trap.aligned_displacement(array(g), table(H.G), float(R)), delta, H.condition)
    g = s.vector(H.size)
    seen = trap.aligned_displacement(array(g), table(H.G), float(R))
    near(np.outer(seen, seen), outer(H.G.solve(g), H.G.solve(g)) * (R**2 / dot(g, H.G.solve(g))), H.condition)


@given(sources)
@checks("X7", "exact")
def test_shared_penalties_with_curvature(s: Source):
    """Another curvature for each request, both with H's eigenvectors; borders hit and missed."""
    roots, H = s.squares(max(2, s.size()))
    bends = [Spectral(tuple(s.number() for _ in roots), H.U) for _ in "eh"]
    easy_bend, hard_bend = bends[0].mu[0], bends[1].mu[-1]
    floor = max(fmpq(0), *(-m for bend in bends for m in bend.mu))
    progress, tau = s.positive(1), s.positive(1)
    upper = floor + s.choose([fmpq(0), fmpq(-1, 10**9), s.positive(1)])
    lower = upper + s.choose([fmpq(0), fmpq(1, 10**9), fmpq(-1, 10**9), s.number()])
    a, b = (upper + easy_bend) * progress, (lower + hard_bend) * tau / roots[-1]
    assume(a > 0 and b > 0)
    both = []
    for lam in (upper, max(lower, floor + fmpq(1, 10**10)), upper * 2, lower - s.positive()):
        if lam <= floor:
            continue
        moves = served(-a * H.vector(0), bends[0].G, lam, H.G, progress=progress)
        safe = served(-b * H.vector(H.size - 1), bends[1].G, lam, H.G, tau=tau)
        assert (moves, safe) == (lam <= upper, lam >= lower)
        both.append(moves and safe)
    assert any(both) == (upper > floor and lower <= upper)
    numbers = map(float, (a, b, easy_bend, hard_bend, progress, roots[-1] ** 2, tau, floor))
    interval = trap.curved_penalties(*numbers)
    size = float(sum(map(abs, (easy_bend, hard_bend, a / progress, b * roots[-1] / tau)), fmpq(0)))
    near([interval.lower, interval.upper, interval.floor], [lower, upper, floor], 1.0, size + float(floor))
    if min(abs(upper - floor), abs(lower - upper)) > fmpq(1, 10**6) * (1 + floor):
        assert interval.empty == (not any(both))


@given(sources)
@checks("X7", "exact")
def test_the_sandwich_holds_for_any_curvature(s: Source):
    """A with eigenvectors of its own. Progress and safety at some lam > lam0, against either side."""
    roots, H = s.squares(max(2, s.size()))
    A = s.spectral(H.size, low=s.number())
    u, w, floor = H.vector(0), H.vector(H.size - 1), max(fmpq(0), -min(A.mu))
    a, b, progress, tau = (s.positive(1) for _ in range(4))
    need, give, least = b * roots[-1] / tau, a / progress, min(A.mu)
    easy, hard = dot(u, A.G * u), dot(w, A.G * w)
    last = give - easy
    for lam in (floor + s.positive(2), last, need - least, give - least):
        if lam <= floor:
            continue
        moves = served(-a * u, A.G, lam, H.G, progress=progress)
        safe = served(-b * w, A.G, lam, H.G, tau=tau)
        assert moves or lam > last
        assert not moves or lam <= give - least
        assert safe or lam < need - least
        assert not safe or lam >= need - hard
    trapped, free = need - hard > give - least, need - least <= last and last > floor
    assert not (trapped and free)
    near(trap.penalty_floor(table(A.G)), floor, 1.0, float(max(map(abs, A.mu))) + 1e-300)
    size = fmpq(1, 10**8) * (need + give + max(map(abs, A.mu)))
    if min(abs(need - hard - give + least), abs(need - least - last), abs(last - floor)) > size:
        numbers = table(A.G), array(u), array(w), float(progress), float(roots[-1] ** 2), float(tau)
        assert trap.curved_sandwich(float(a), float(b), *numbers) == (trapped, free)
