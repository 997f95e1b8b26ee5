"""Claims in exact rational arithmetic, tolerance zero; and the fp64 functions of `theory` against it.

Where a claim has square roots, both sides are compared squared, or the instance is built such that the
root is rational. Each test first settles the claim, then asks `theory` for the same numbers.
"""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from flint import fmpq, fmpq_mat
from hypothesis import assume, given

from theory import fidelity, suppression, trap
from verification import ledger
from verification.ledger import below, checks, equal
from verification.rational import (
    Source,
    Spectral,
    array,
    at_most,
    column,
    condition,
    diagonal,
    dot,
    eye,
    join,
    leading,
    near,
    outer,
    pick,
    root_below,
    same,
    semidefinite,
    sources,
    square,
    table,
    zero,
)
from verification.strategies import EPS, tolerance

# -- Theorem 1, written down once more in rational numbers ---------------------------------------


def cost(D: fmpq_mat, G: fmpq_mat, K: fmpq_mat, R: fmpq_mat) -> fmpq:
    """`||D K - R||^2 + tr(D G D^T)`."""
    return square(D * K - R) + dot(D * G, D)


def least_squares(G: fmpq_mat, K: fmpq_mat, R: fmpq_mat) -> fmpq_mat:
    """D from the normal equations `D (G + K K^T) = R K^T`, by a dense solve."""
    return (G + outer(K, K)).solve(outer(K, R)).transpose()


def share(rho: fmpq) -> fmpq:
    return rho / (1 + rho)


def rho_of(G: fmpq_mat, k: fmpq_mat) -> fmpq:
    return dot(k, G.solve(k))


def attenuation_law(G: fmpq_mat, k: fmpq_mat, r: fmpq_mat) -> fmpq_mat:
    """T1 on one instance; returns D*."""
    D, rho = least_squares(G, k, r), rho_of(G, k)
    same(D * k, r * share(rho))
    same(D, outer(r, G.solve(k) * (1 / (1 + rho))))
    same((D * k - r) * k.transpose() + D * G, fmpq_mat(D.nrows(), D.ncols()))
    return D


@given(sources)
@checks("T1", "exact")
def test_edit_realises_the_attenuated_residual(s: Source):
    g = s.spectral(s.size())
    k, r = s.vector(g.size, nonzero=False), s.vector(s.size())
    D = attenuation_law(g.G, k, r)
    G, x, y = table(g.G), array(k), array(r)
    rho = rho_of(g.G, k)
    near(suppression.realisability(G, x), rho, g.condition)
    near(suppression.attenuation(float(rho)), share(rho))
    near(suppression.channel(G, x), (g.G + outer(k, k)).solve(k), g.condition)
    near(suppression.edit(G, x, y), D, g.condition)


@pytest.mark.parametrize("d", [12, 32, 64, 96])
@checks("T1", "exact")
def test_edit_of_a_wide_layer(d: int):
    s = Source(random.Random(d), d)
    G, k, r = s.definite(d), s.vector(d), s.vector(d // 4)
    D = attenuation_law(G, k, r)
    near(suppression.edit(table(G), array(k), array(r)), D, condition(G))


@given(sources)
@checks("T1", "exact")
def test_any_other_edit_costs_exactly_the_curvature_more(s: Source):
    g = s.spectral(s.size())
    k, r = s.vector(g.size, nonzero=False), s.vector(s.size())
    D = least_squares(g.G, k, r)
    E = s.matrix(D.nrows(), D.ncols())
    rise = dot(E * (g.G + outer(k, k)), E)
    same(cost(D + E, g.G, k, r) - cost(D, g.G, k, r), rise)
    assert rise > 0 or zero(E)
    slope = 2 * (outer((D + E) * k - r, k) + (D + E) * g.G)
    same(slope, 2 * E * (g.G + outer(k, k)))
    numbers = array(D + E).reshape(D.nrows(), -1), table(g.G), array(k), array(r)
    near(suppression.objective(*numbers), cost(D + E, g.G, k, r), 1.0, cost_scale(D + E, g, k, r))
    near(suppression.gradient(*numbers), slope, 1.0, cost_scale(D + E, g, k, r, power=1))


def cost_scale(D: fmpq_mat, g: Spectral, k: fmpq_mat, r: fmpq_mat, power: int = 2) -> float:
    """Size of what is added up in the objective, or (power 1) in its gradient."""
    size = float(square(D)) ** 0.5
    miss = size * float(square(k)) ** 0.5 + float(square(r)) ** 0.5
    top = g.size * float(max(g.mu))
    return miss**2 + top * size**2 if power == 2 else 2 * (miss * float(square(k)) ** 0.5 + top * size)


@given(sources)
@checks("T1a", "exact")
def test_realisability_from_the_spectrum(s: Source):
    g = s.spectral(s.size())
    k = s.vector(g.size, nonzero=False)
    a = g.U.transpose() * k
    rho = sum((x * x / m for x, m in zip(a.entries(), g.mu, strict=True)), fmpq(0))
    same(rho_of(g.G, k), rho)
    near(suppression.realisability_spectral(array(list(g.mu)), array(a)), rho)
    near(suppression.realisability(table(g.G), array(k)), rho, g.condition)


def protected(s: Source, g: Spectral) -> tuple[fmpq_mat, list[int], fmpq]:
    """A key, any set of protected eigenvectors, and the key's exact share outside of it."""
    a = s.vector(g.size)
    inside = [i for i in range(g.size) if s.integer(0, 1)] or [g.size - 1]
    for i in range(g.size):
        if i not in inside:
            a[i, 0] *= s.choose([1, fmpq(1, 1000), 0])
    if zero(a):
        a[inside[0], 0] = fmpq(1)
    outside = 1 - sum((a[i, 0] ** 2 for i in inside), fmpq(0)) / square(a)
    return g.U * a, inside, outside


@given(sources)
@checks("T1b", "exact")
def test_suppression_bound(s: Source):
    """Any index set, M below or at the protected eigenvalues, eps at or above the share outside."""
    g = s.spectral(s.size())
    k, inside, outside = protected(s, g)
    eps = outside + s.share() * (1 - outside)
    height = min(g.mu[i] for i in inside) * s.choose([fmpq(1), fmpq(1, 2), fmpq(1, 1000)])
    bound = square(k) * ((1 - eps) / height + eps / min(g.mu))
    at_most(rho_of(g.G, k), bound)
    norm = float(square(k)) ** 0.5
    near(suppression.suppression_bound(norm, float(eps), float(height), float(min(g.mu))), bound)


@given(sources)
@checks("T1c", "exact")
def test_suppression_limit(s: Source):
    """A key inside: eta below the limit, and eta M below ||k||^2 however large M is."""
    g = s.spectral(s.size())
    inside = [i for i in range(g.size) if s.integer(0, 1)] or [0]
    a = column(s.number() if i in inside else 0 for i in range(g.size))
    k = g.U * a
    raised = s.choose([1, 10**3, 10**12])
    g = Spectral(tuple(m * raised if i in inside else m for i, m in enumerate(g.mu)), g.U)
    height = min(g.mu[i] for i in inside)
    eta, limit = share(rho_of(g.G, k)), square(k) / (height + square(k))
    at_most(eta, limit)
    at_most(eta * height, square(k))
    near(suppression.suppression_limit(float(square(k)) ** 0.5, float(height)), limit)


@given(sources)
@checks("T1d", "exact")
def test_a_larger_geometry_attenuates_more(s: Source):
    g = s.spectral(s.size())
    more = s.matrix(g.size, s.integer(1, g.size))
    larger = g.G + outer(more, more)
    k = s.vector(g.size, nonzero=False)
    eta, less, c = share(rho_of(g.G, k)), share(rho_of(larger, k)), 1 + s.positive(2)
    at_most(less, eta)
    assert semidefinite(g.G.inv() - larger.inv())
    assert 0 <= eta < 1
    assert (eta == 0) == zero(k)
    assert share(rho_of(c * g.G, k)) < eta or zero(k)
    seen = [suppression.attenuation(suppression.realisability(table(X), array(k))) for X in (g.G, larger)]
    near(seen[0], eta, g.condition)
    near(seen[1], less, g.size * g.condition * (1 + float(square(more) / max(g.mu))))


# -- AlphaEdit ----------------------------------------------------------------------------------


def projected(s: Source) -> tuple[fmpq_mat | None, fmpq_mat, fmpq_mat, fmpq_mat, fmpq]:
    """V, P, a key (any, within the range of P, or within its complement), a residual, beta."""
    d = s.size()
    V, P = s.projector(d)
    k = s.choose([eye(d), P, eye(d) - P]) * s.vector(d)
    return V, P, k, s.vector(s.size()), s.positive(2)


def alpha_edit(P: fmpq_mat, k: fmpq_mat, r: fmpq_mat, beta: fmpq) -> fmpq_mat:
    inside = P * k
    return outer(r, inside) * (1 / (beta + square(inside)))


@given(sources)
@checks("T1e", "exact")
def test_projected_edit_is_optimal_under_its_constraint(s: Source):
    """X = X P, and the gradient is orthogonal to every X P: it is a multiplier's, `Lambda (I - P)`."""
    _, P, k, r, beta = projected(s)
    X = alpha_edit(P, k, r, beta)
    same(X * P, X)
    slope = 2 * (outer(X * k - r, k) + beta * X)
    assert zero(slope * P)
    same(X * k, r * (square(P * k) / (beta + square(P * k))))
    step = s.matrix(X.nrows(), X.ncols()) * P
    rise = square(step * k) + beta * square(step)
    ridge = beta * eye(len(k.entries()))
    same(cost(X + step, ridge, k, r) - cost(X, ridge, k, r), rise)
    assert rise > 0 or zero(step)
    numbers = table(P), array(k), array(r), float(beta)
    cond = 1 + float(square(k) / beta)
    size = float(square(r) * square(k)) ** 0.5 / float(beta)
    near(suppression.projected_edit(*numbers), X, cond, size)
    near(suppression.projected_attenuation(table(P), array(k), float(beta)),
         square(P * k) / (beta + square(P * k)), cond, 1.0)  # fmt: skip
    D = X + s.matrix(X.nrows(), X.ncols()) * (eye(X.ncols()) - P)  # what P takes away does not matter
    seen = suppression.projected_objective(table(D), *numbers)
    near(seen, cost(X, ridge, k, r), cond, float(square(r) + square(D) * (square(k) + beta)))


@given(sources)
@checks("T1e", "exact", refutes=True)
def test_the_raw_key_leaves_the_range_unless_it_lies_within(s: Source):
    """(29)-(31) as printed: the minimiser without the constraint."""
    _, P, k, r, beta = projected(s)
    raw = least_squares(beta * eye(P.nrows()), k, r)
    same(raw, outer(r, k) * (1 / (beta + square(k))))
    within = P * k == k
    assert (raw * P == raw) == (within or zero(r))
    assert (raw == alpha_edit(P, k, r, beta)) == (within or zero(r))
    near(suppression.raw_key_edit(array(k), array(r), float(beta)), raw)
    P, k = diagonal([1, 0]), column([1, 1])
    raw = outer(column([1]), k) * fmpq(1, 3)
    assert raw * P != raw
    assert (raw * k)[0, 0] > share(square(P * k))
    ledger.counterexample(f"P = diag(1, 0), k = (1, 1), r = beta = 1: (31) gives {raw.entries()}, outside P")


@given(sources)
@checks("T1e", "exact")
def test_the_shipped_solve_is_the_projected_one(s: Source):
    """Batches and history; the shipped system is not symmetric."""
    d, n, p = s.size(), s.integer(1, 3), s.integer(1, 3)
    _, P = s.projector(d)
    K, past, R, beta = s.matrix(d, n), s.matrix(d, p), s.matrix(s.size(), n), s.positive(1)
    A = outer(K, K) + outer(past, past)
    system, ridge = A * P + beta * eye(d), beta * eye(d)
    same((P * A * P + ridge).inv() * P, P * (A * P + ridge).inv())
    shipped = R * K.transpose() * P * system.inv()
    X = least_squares(ridge + P * outer(past, past) * P, P * K, R)
    same(shipped, X)
    assert zero((outer(X * K - R, K) + X * outer(past, past) + beta * X) * P)
    cond = condition(system)
    scale = float(square(R) * square(K)) ** 0.5 / float(beta)
    seen = suppression.shipped_edit(table(P), table(K), table(R), float(beta), table(past))
    near(seen, X, cond, scale)
    if n == 1:
        seen = suppression.projected_edit(table(P), array(K), table(R)[:, 0], float(beta), table(past))
        near(seen, X, condition(P * A * P + ridge), scale)


@given(sources)
@checks("T1f", "exact")
def test_history_only_attenuates(s: Source):
    """Earlier keys as drawn, or turned G^-1-orthogonal to the key: equality on that side only."""
    _, P, k, r, beta = projected(s)
    d, inside = P.nrows(), P * k
    past = s.matrix(d, s.integer(1, 3))
    if s.integer(0, 1) and not zero(inside):
        past = past - outer(inside, past.transpose() * inside) * (1 / square(inside))
    G = beta * eye(d) + P * outer(past, past) * P
    eta, alone = share(rho_of(G, inside)), square(inside) / (beta + square(inside))
    at_most(eta, alone)
    assert (eta == alone) == zero(past.transpose() * inside)
    same(least_squares(G, inside, r) * k, r * eta)
    seen = suppression.projected_edit(table(P), array(k), array(r), float(beta), table(past))
    cond = condition(G + outer(inside, inside))
    near(seen @ array(k), r * eta, cond, float(square(r)) ** 0.5 * cond)


@given(sources)
@checks("X1", "exact")
def test_alphaedit_in_the_coordinates_of_its_null_space(s: Source):
    V, P, k, r, beta = projected(s)
    assume(V is not None)
    past = s.matrix(P.nrows(), s.integer(1, 3))
    inner = beta * eye(V.ncols()) + outer(V.transpose() * past, V.transpose() * past)
    X = attenuation_law(inner, V.transpose() * k, r) * V.transpose()
    same(X, least_squares(beta * eye(P.nrows()) + P * outer(past, past) * P, P * k, r))
    numbers = array(k), array(r), float(beta), table(past)
    cond = condition(inner) * (1 + float(square(k) / beta))
    scale = float(square(r) * square(k)) ** 0.5 / float(beta)
    near(suppression.coordinates_edit(table(V), *numbers), X, cond, scale)
    near(suppression.projected_edit(table(P), *numbers), X, cond, scale)


@given(sources)
@checks("P15", "exact")
def test_distance_of_ridge_to_its_limit(s: Source):
    """`D_t - X* = L / (t + beta + b/A)`, `A = 1 + ||Pk||^2/beta`, `b = ||(I-P)k||^2`: the rate is exact."""
    _, P, k, r, beta = projected(s)
    inside, outside, t = P * k, k - P * k, s.positive(6)
    X, A, b = alpha_edit(P, k, r, beta), 1 + square(inside) / beta, square(outside)
    L = outer(r, outside - inside * (b / (A * beta))) * (1 / A)
    G = beta * eye(P.nrows()) + t * (eye(P.nrows()) - P)
    same(rho_of(G, k), square(inside) / beta + b / (beta + t))
    same((least_squares(G, k, r) - X) * (t + beta + b / A), L)
    seen = suppression.penalised_geometry(table(P), float(beta), float(t))
    near(seen, G, float((beta + t) / beta))
    near(suppression.edit(seen, array(k), array(r)), X + L * (1 / (t + beta + b / A)), float((beta + t) / beta),
         float(square(r) * square(k)) ** 0.5 / float(beta))  # fmt: skip


# -- batches ------------------------------------------------------------------------------------


def batch(s: Source) -> tuple[fmpq_mat, fmpq_mat, fmpq_mat, fmpq_mat]:
    """G, keys (now and then the same one twice), residuals, and the Gram matrix."""
    d, n = s.size(), s.integer(1, 4)
    G = s.spectral(d).G
    keys = [s.vector(d) for _ in range(n)]
    if n > 1 and s.integer(0, 3) == 0:
        keys[1] = keys[0]
    K = join(keys)
    return G, K, s.matrix(s.size(), n), K.transpose() * G.solve(K)


def batch_law(G: fmpq_mat, K: fmpq_mat, R: fmpq_mat) -> fmpq_mat:
    """X2 on one instance; returns D*."""
    n = K.ncols()
    S = K.transpose() * G.solve(K)
    D = least_squares(G, K, R)
    same(D * K, R * S * (eye(n) + S).inv())
    same(D, R * (eye(n) + S).inv() * G.solve(K).transpose())
    return D


@given(sources)
@checks("X2", "exact")
def test_batch_realises_its_residuals_mixed(s: Source):
    G, K, R, S = batch(s)
    D = batch_law(G, K, R)
    cond = condition(G) * (1 + float(square(S)) ** 0.5)
    near(suppression.gram(table(G), table(K)), S, condition(G))
    near(suppression.retention(table(S)), S * (eye(S.nrows()) + S).inv(), cond, 1.0 + S.nrows())
    scale = float(square(R) * square(G.solve(K))) ** 0.5
    near(suppression.batch_edit(table(G), table(K), table(R)), D, cond, scale)


@pytest.mark.parametrize("d", [12, 32, 96])
@checks("X2", "exact")
def test_batch_of_a_wide_layer(d: int):
    s = Source(random.Random(d), d)
    G, K, R = s.definite(d), s.matrix(d, d // 4), s.matrix(d // 4, d // 4)
    D = batch_law(G, K, R)
    cond = condition(G + outer(K, K)) * condition(G)
    near(suppression.batch_edit(table(G), table(K), table(R)), D, cond)


@given(sources)
@checks("X2", "exact")
def test_eigenvalues_of_what_a_batch_keeps(s: Source):
    """`det(xI - B) det(I + S) = (1 - x)^n det(x/(1 - x) I - S)`, at more points than the degree."""
    *_, S = batch(s)
    n = S.nrows()
    B, scale = S * (eye(n) + S).inv(), (eye(n) + S).det()
    for x in map(fmpq, range(2, n + 4)):
        same((x * eye(n) - B).det() * scale, (1 - x) ** n * ((x / (1 - x)) * eye(n) - S).det())


@given(sources)
@checks("X3", "exact")
def test_crosstalk_lowers_what_an_edit_keeps_of_itself(s: Source):
    """As keys join, one after the other; equality iff the row of S is empty but for its diagonal."""
    G, K, _, S = batch(s)
    n = S.nrows()
    if n > 1 and s.integer(0, 1):  # the last key turned G^-1-orthogonal to the first
        last = pick(K, n - 1) - pick(K, 0) * (S[0, n - 1] / S[0, 0])
        K = join([pick(K, j) for j in range(n - 1)] + [last])
        S = K.transpose() * G.solve(K)
    parts = [leading(S, m, m) for m in range(1, n + 1)]
    kept = [(part * (eye(m) + part).inv())[0, 0] for m, part in enumerate(parts, 1)]
    for earlier, later in pairwise(kept):
        at_most(later, earlier)
    B = S * (eye(n) + S).inv()
    seen = np.diag(suppression.retention(table(S)))
    for j in range(n):
        at_most(B[j, j], share(S[j, j]))
        assert (B[j, j] == share(S[j, j])) == all(S[i, j] == 0 for i in range(n) if i != j)
        near(seen[j], B[j, j], 1 + float(square(S)) ** 0.5, 1.0)


@given(sources)
@checks("X3", "exact")
def test_shortfall_of_a_batch(s: Source):
    """`K = A U diag(t) W` for `G = A A^T`: then `S = W^T diag(t^2) W` has a rational spectrum."""
    d = s.size()
    A, U, W = s.orthogonal(d) * diagonal(s.positive(1) for _ in range(d)), s.orthogonal(d), s.orthogonal(d)
    t = [s.choose([0, 1, s.positive(1)]) for _ in range(d)]
    G, K, R = outer(A, A), A * U * diagonal(t) * W, s.matrix(s.size(), d)
    S = K.transpose() * G.solve(K)
    same(S, W.transpose() * diagonal(x * x for x in t) * W)
    least = fmpq(min(t)) ** 2
    missing = R - least_squares(G, K, R) * K
    at_most(square(missing) * (1 + least) ** 2, square(R))
    seen = suppression.batch_shortfall_bound(table(S), table(R))
    near(seen**2, square(R) / (1 + least) ** 2, 1 + float(square(S)) ** 0.5)


@given(sources)
@checks("P4", "exact")
def test_compensated_batch_is_the_exact_edit(s: Source):
    G, K, R, S = batch(s)
    assume(S.det() != 0)
    n = S.nrows()
    exact = R * S.inv() * G.solve(K).transpose()
    asked = R * (S * (eye(n) + S).inv()).inv()
    same(asked, R + R * S.inv())
    same(least_squares(G, K, asked), exact)
    same(exact * K, R)
    step = s.matrix(R.nrows(), K.nrows())
    step = step - step * K * S.inv() * G.solve(K).transpose()  # no write at any key
    same(dot((exact + step) * G, exact + step) - dot(exact * G, exact), dot(step * G, step))
    cond = condition(G) * condition(S) * (1 + float(square(S)) ** 0.5)
    assume(cond < 1e12)
    size = float(square(R)) ** 0.5 * (1 + float(square(S.inv())) ** 0.5)
    near(suppression.compensated_residuals(table(S), table(R)), asked, cond, size)
    near(
        suppression.exact_edit(table(G), table(K), table(R)),
        exact,
        cond,
        size * float(square(G.solve(K))) ** 0.5,
    )


@given(sources)
@checks("P4", "exact")
def test_compensation_of_one_edit_divides_by_eta(s: Source):
    g = s.spectral(s.size())
    k, r = s.vector(g.size), s.vector(s.size())
    rho = rho_of(g.G, k)
    same(least_squares(g.G, k, r * (1 / share(rho))) * k, r)
    seen = suppression.compensated_residuals(np.array([[float(rho)]]), array(r)[:, None])
    near(seen[:, 0], r * (1 / share(rho)))


@given(sources)
@checks("P8", "exact")
def test_typical_attenuation(s: Source):
    """A finite population and its own second moment: the mean of rho is d_k/lambda, a trace."""
    d = s.size()
    X = s.matrix(d, d + s.integer(0, 4))
    n, weight = X.ncols(), s.positive(4)
    C = outer(X, X) * fmpq(1, n)
    assume(C.det() != 0)
    rhos = [rho_of(weight * C, pick(X, j)) for j in range(n)]
    mean = sum(rhos, fmpq(0)) / n
    same(mean, d / weight)
    at_most(sum((share(rho) for rho in rhos), fmpq(0)) / n, share(mean))
    ridged = weight * C + s.positive(2) * eye(d)
    at_most(sum((rho_of(ridged, pick(X, j)) for j in range(n)), fmpq(0)) / n, d / weight)
    near(suppression.mean_realisability(d, float(weight)), mean)
    seen = np.mean([suppression.realisability(table(weight * C), array(pick(X, j))) for j in range(n)])
    near(seen, mean, condition(C))


@given(sources)
@checks("P9", "exact")
def test_a_key_that_stays_put_is_suppressed(s: Source):
    g, raised = s.spectral(s.size()), 10 ** s.integer(0, 12)
    i = s.integer(0, g.size - 1)
    g = Spectral(tuple(m * raised if j == i else m for j, m in enumerate(g.mu)), g.U)
    k = g.vector(i) * s.positive(1)
    same(rho_of(g.G, k), square(k) / g.mu[i])
    if g.condition < 1e12:
        near(suppression.realisability(table(g.G), array(k)), square(k) / g.mu[i], g.condition)


@given(sources)
@checks("P10", "exact")
def test_drift_of_attenuation(s: Source):
    """The floor a square, the drifts' norms rational, sqrt(3) from below."""
    d, root, drift, away = s.size(), s.positive(2), s.choose([0, s.positive(2)]), s.choose([0, s.positive(2)])
    W = s.orthogonal(d)
    base = (root**2 + drift) * eye(d) + s.choose([0, 1]) * s.spectral(d).G
    other = base + outer(W * diagonal([drift] + [drift * s.share() for _ in range(d - 1)]) * diagonal(
        s.choose([1, -1]) for _ in range(d)), W)  # fmt: skip
    k = s.vector(d, nonzero=False)
    moved = k + s.unit(d) * away
    change = abs(share(rho_of(base, k)) - share(rho_of(other, moved)))
    mu = root**2  # a floor of both, attained by none if the drift is positive
    at_most(change, 3 * root_below(fmpq(3)) / 8 * away / root + drift / (4 * mu))
    bound = suppression.attenuation_drift_bound(float(away), float(drift), float(mu))
    near((bound - float(drift / (4 * mu))) ** 2, fmpq(27, 64) * away**2 / mu, 1.0, bound**2 + 1e-300)


def dyadic(x: float) -> fmpq:
    """The rational number that a float is."""
    return fmpq(*float(x).as_integer_ratio())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(s=sources)
@checks("X4", "exact")
def test_rounding_of_eta(s: Source, dtype: type):
    """The geometry as it is stored is a dyadic rational, so its eta is known exactly."""
    g, eps = s.spectral(s.size()), float(np.finfo(dtype).eps)
    G, k = table(g.G).astype(dtype), array(s.vector(g.size)).astype(dtype)
    cond = float(np.linalg.cond(G.astype(float)))
    assume(cond * eps < 0.02 and cond < 1e12)
    truth = share(rho_of(fmpq_mat([list(map(dyadic, row)) for row in G]), column(map(dyadic, k))))
    seen = dyadic(suppression.attenuation(suppression.realisability(G, k)))
    below(float(abs(seen - truth) / truth), suppression.rounding_bound(eps, cond))


@given(sources)
@checks("X12", "exact")
def test_two_sided_geometry(s: Source):
    """The normal equations as one linear system for all entries of D, solved without an eigenbasis."""
    d, m = s.integer(1, 3), s.integer(1, 3)
    g, values = s.spectral(d), s.spectral(m)
    k, r = s.vector(d), s.vector(m)
    system = kron(outer(k, k), eye(m)) + kron(g.G, values.G)
    D = fmpq_mat(d, m, system.solve(column(outer(k, r).entries())).entries()).transpose()
    same(outer(D * k - r, k) + values.G * D * g.G, fmpq_mat(m, d))
    rho = rho_of(g.G, k)
    shares = [rho / (b + rho) for b in values.mu]
    same(values.U.transpose() * D * k, diagonal(shares) * values.U.transpose() * r)
    along = D * k * r.transpose() == r * (D * k).transpose()  # the direction of r is kept
    if len(set(shares)) == 1:
        assert along
    elif all((values.U.transpose() * r).entries()):
        assert not along
    near(suppression.two_sided_attenuation(float(rho), array(list(values.mu))), shares)
    seen = suppression.two_sided_edit(table(g.G), table(values.G), array(k), array(r))
    near(seen, D, g.condition * values.condition)


def kron(X: fmpq_mat, Y: fmpq_mat) -> fmpq_mat:
    return fmpq_mat([[x * y for x in row for y in other] for row in X.tolist() for other in Y.tolist()])


# -- Theorem 2 ----------------------------------------------------------------------------------


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
def test_nothing_in_the_ball_beats_the_penalised_step(s: Source):
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
    radii = [sum((a * a / (m + x) ** 2 for a, m in zip(along.entries(), A.mu, strict=True)), fmpq(0))
             for x in (lam, more)]  # fmt: skip
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
    assert square(step_of(A.G, g, s.positive(6))) < square(free)
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
    assert bool(serving) == (factor <= 1)
    theta = progress * roots[0] / tau
    kappa = (roots[-1] / roots[0]) ** 2
    assert bool(serving) == (kappa * theta**2 <= 1)
    if clear(factor):
        assert trap.ball_trap(float(progress), float(max(H.mu)), float(tau)) == (not serving)
        assert trap.ball_trap_relative(float(theta), float(kappa)) == (not serving)


def served(g: fmpq_mat, A: fmpq_mat, lam: fmpq, H: fmpq_mat, *, progress=None, tau=None) -> bool:
    """Whether the penalised step of one request moves far enough, or stays within E(tau); squared."""
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
    both = [a / lam >= progress and (b / lam) ** 2 / root**2 <= tau**2
            for lam in (lower, upper, (lower + upper) / 2)]  # fmt: skip
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
def test_one_sided_limit_of_a_regulariser(s: Source):
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
    interval = trap.regularised_penalties(
        *map(float, (a, b, F.mu[0], F.mu[-1], progress, roots[-1] ** 2, tau))
    )
    near([interval.lower, interval.upper], [lower, upper])
    near(trap.one_sided_limit(*map(float, (F.mu[0], F.mu[-1], progress, roots[-1] ** 2, tau))), limit)


@given(sources)
@checks("X6", "exact")
def test_a_regulariser_moves_the_window_and_keeps_its_width(s: Source):
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


# -- Theorem 3 ----------------------------------------------------------------------------------


def bounded(X: fmpq_mat, bound: fmpq) -> bool:
    """Whether `||X|| <= bound` in the spectral norm: `bound^2 I - X X^T >= 0`."""
    return semidefinite(bound**2 * eye(X.nrows()) - outer(X, X))


def perturbation(s: Source, d: int, size: fmpq, symmetric: bool) -> fmpq_mat:
    """E with `||E|| = size`."""
    W = s.orthogonal(d)
    values = diagonal([size] + [size * s.share() * s.choose([1, -1]) for _ in range(d - 1)])
    return s.choose([1, -1]) * (outer(W * values, W) if symmetric else W * values * s.orthogonal(d))


@given(sources)
@checks("L3", "exact")
def test_inverse_under_any_small_perturbation(s: Source):
    d = s.integer(1, 4)
    X = s.spectral(d)
    mu = min(X.mu)
    size = mu * s.choose([fmpq(0), fmpq(1, 2), fmpq(999, 1000), s.share() * fmpq(9, 10)])
    E = perturbation(s, d, size, symmetric=False)
    change = (X.G + E).inv() - X.G.inv()
    same(change, -1 * (X.G + E).inv() * E * X.G.inv())
    bound = size / (mu * (mu - size))
    assert bounded(change, bound)
    near(fidelity.inverse_drift_stated(float(mu), float(size)), bound, float(mu / (mu - size)))


@given(sources)
@checks("L3", "exact")
def test_inverses_above_a_floor(s: Source):
    """Both symmetric and >= mu I: the sharp bound at any size of E, attained where X has mu along it."""
    d = s.integer(1, 4)
    mu, size = s.positive(2), s.choose([fmpq(0), s.positive(3)])
    X = s.spectral(d, low=mu)
    E = perturbation(s, d, size, symmetric=True)
    Y = X.G + E
    if not semidefinite(Y - mu * eye(d)):
        X, Y = Spectral(tuple(m + size for m in X.mu), X.U), Y + size * eye(d)
    bound = size / (mu * (mu + size))
    assert bounded(Y.inv() - X.G.inv(), bound)
    W = s.unit(d)
    end = (mu * eye(d) + size * outer(W, W)).inv() - eye(d) * (1 / mu)
    assert not size or not bounded(end, bound * fmpq(10**9 - 1, 10**9))
    near(fidelity.inverse_drift(float(mu), float(size)), bound)


@given(sources)
@checks("L4", "exact")
def test_drift_of_the_channel(s: Source):
    """Squared; mu = s^2, so mu^1.5 is rational; norms of the drifts along rational unit vectors."""
    d = s.integer(1, 4)
    root, size, away = s.positive(1), s.choose([fmpq(0), s.positive(2)]), s.choose([fmpq(0), s.positive(2)])
    mu = root**2
    G = s.spectral(d, low=mu).G
    E = perturbation(s, d, size, symmetric=True)
    if not semidefinite(G + E - mu * eye(d)):
        G = G + size * eye(d)
    k = s.vector(d, nonzero=False)
    moved = k + away * s.unit(d)
    longest = root_below(max(square(k), square(moved))) * (1 + fmpq(1, 10**20))
    change = (G + outer(k, k)).solve(k) - (G + E + outer(moved, moved)).solve(moved)
    free, capped = size / (2 * root**3), longest * size / (mu * (mu + size))
    bound = away / root**2 + min(free, capped)
    at_most(square(change), bound**2)
    seen = [fidelity.channel_drift(float(away), float(size), float(mu), x) for x in (float(longest), np.inf)]
    near(seen, [bound, away / mu + free])
    e = size + 2 * longest * away
    if e < mu:
        stated = away / mu + longest * e / (mu * (mu - e))
        assert stated >= bound
        seen = fidelity.channel_drift_stated(*map(float, (away, size, mu, longest)))
        near(seen, stated, float(mu / (mu - e)))


@given(sources)
@checks("L5", "exact")
@checks("X8", "exact")
def test_gradient_through_channels_of_a_quadratic_loss(s: Source):
    """Loss(W) = ||W X - Y||^2/2 at W + (Z - H) Q^T: linear part Gamma Q, the rest a square. n = 1 is L5."""
    d_v, d_k, n = s.integer(1, 3), s.integer(1, 3), s.integer(1, 3)
    X, Q = s.matrix(d_k, 4), s.matrix(d_k, n)
    W, Y, Z, H, step = (s.matrix(d_v, m) for m in (d_k, 4, n, n, n))

    def loss(Z: fmpq_mat) -> fmpq:
        return square((W + outer(Z - H, Q)) * X - Y) / 2

    Gamma = ((W + outer(Z - H, Q)) * X - Y) * X.transpose()
    same(loss(Z + step) - loss(Z), dot(Gamma * Q, step) + square(outer(step, Q) * X) / 2)
    same((loss(Z + step) - loss(Z - step)) / 2, dot(Gamma * Q, step))
    at_most(square(Gamma * pick(Q, 0)), square(Gamma) * square(pick(Q, 0)))
    scale = float(square(Gamma) * square(Q)) ** 0.5 + 1e-300
    near(fidelity.joint_proxy_gradient(table(Gamma), table(Q)), Gamma * Q, 1.0, scale)
    near(fidelity.proxy_gradient(table(Gamma), array(pick(Q, 0))), Gamma * pick(Q, 0), 1.0, scale)


@given(sources)
@checks("J1", "exact")
def test_allocation_of_a_perturbed_identity(s: Source):
    d = s.integer(1, 4)
    size = s.choose([fmpq(0), fmpq(1, 2), fmpq(999, 1000), s.share() * fmpq(9, 10)])
    E, z = perturbation(s, d, size, symmetric=False), s.vector(d)
    J = (eye(d) + E).inv()
    same((eye(d) + E) * (J * z), z)
    bound = size / (1 - size)
    assert bounded(J - eye(d), bound)
    assert not size or not bounded(
        (1 / (1 - size) - 1) * eye(d), bound * fmpq(10**9 - 1, 10**9)
    )  # E = -size I
    near(fidelity.allocation_drift_bound(float(size)), bound, float(1 / (1 - size)))


def layers(s: Source, d: int, gap: fmpq):
    """J, Gamma, q of n layers with rational norms where the bounds need them.

    `||g_l||` is rational for l < L, J_L is within exactly `gap` of the identity, and Gamma_L
    is a multiple of an orthogonal matrix, so that `||Gamma_L|| ||q_L|| = ||g~||` is rational.

    Returns:
        The three lists, the sum of the tails' norms, and `||g~||`.
    """
    size, length = s.positive(), s.positive()
    J, Gamma, q = [eye(d) + gap * s.orthogonal(d)], [size * s.orthogonal(d)], [length * s.unit(d)]
    rest = fmpq(0)
    for _ in range(s.integer(0, 3)):
        G, x, norm = s.matrix(d, d), s.vector(d), s.share() * s.choose([fmpq(1, 100), fmpq(1), fmpq(3)])
        inner = G * x
        if zero(inner):
            continue
        rest += norm
        J.insert(0, outer(inner, s.unit(d) * norm) * (1 / square(inner)))  # J^T Gamma q has that norm
        Gamma.insert(0, G)
        q.insert(0, x)
    return J, Gamma, q, rest, size * length


def total(vectors: list[fmpq_mat], d: int) -> fmpq_mat:
    return sum(vectors, fmpq_mat(d, 1))


@given(sources)
@checks("T3a", "exact")
def test_error_of_the_proxy(s: Source):
    """(60)-(66): `g - g~` is the tails and `(J_L - I)^T g~`, exactly; then the bound, squared."""
    d, gap = s.integer(1, 4), s.share() * s.choose([fmpq(1), fmpq(2)])
    J, Gamma, q, rest, length = layers(s, d, gap)
    g = [A.transpose() * X * x for A, X, x in zip(J, Gamma, q, strict=True)]
    proxy = Gamma[-1] * q[-1]
    same(total(g, d) - proxy, total(g[:-1], d) + (J[-1] - eye(d)).transpose() * proxy)
    at_most(square(total(g, d) - proxy), (rest + gap * length) ** 2)
    for A, X, x, exact in zip(J, Gamma, q, g, strict=True):
        size = float(square(A) * square(X) * square(x)) ** 0.5
        near(fidelity.layer_gradient(table(A), table(X), array(x)), exact, 1.0, size)
    last = root_below(square(g[-1]))
    if last:
        near(fidelity.tail([array(x) for x in g]), rest / last)
        norms = (s.positive(), s.positive())  # of Gamma_L and q_L
        bound = fidelity.error_bound(*map(float, (rest / last, last, gap, *norms)))
        near(bound, rest + gap * norms[0] * norms[1])


@given(sources)
@checks("T3b", "exact")
def test_descent(s: Source):
    """gamma rational and not below `sum ||g_l|| / ||g_L||`; sigma = 1 on these instances."""
    d, gap = s.integer(1, 4), s.share() * s.choose([fmpq(1), fmpq(1, 4)])
    J, Gamma, q, rest, length = layers(s, d, gap)
    g = [A.transpose() * X * x for A, X, x in zip(J, Gamma, q, strict=True)]
    proxy, last = Gamma[-1] * q[-1], square(g[-1])
    assume(last > 0)
    gamma = rest / root_below(last)
    whole, zeta = total(g, d), gamma * (1 + gap) + gap
    at_most(last, (1 + gap) ** 2 * length**2)
    at_most(square(whole - proxy), zeta**2 * length**2)
    inner = dot(whole, proxy)
    assert inner >= (1 - zeta) * length**2
    assert zeta >= 1 or inner > 0
    near(fidelity.zeta_sharp(float(gamma), float(gap)), zeta)
    sigma = fmpq(s.integer(1, 12), 12)
    near(fidelity.zeta(float(gamma), float(gap), float(sigma)), gamma * (1 + gap) + gap / sigma)
    assert zeta <= gamma * (1 + gap) + gap / sigma
    t = min(max(gamma, abs(1 - gap)), 1 + gap)  # ||g_L|| / ||g~|| at the worst
    least = (1 + t**2 - gap**2) / 2 - gamma * t
    assert inner >= least * length**2
    near(fidelity.descent_bound(float(gamma), float(gap)), least, 1.0, float((1 + gap + gamma) ** 2))


@given(sources)
@checks("T3b", "exact")
def test_nondegeneracy(s: Source):
    """Gamma with known singular values: sigma^2 is a ratio of squares, and what zeta divides by."""
    d = s.integer(1, 4)
    values = [s.positive(2) for _ in range(d)]
    Gamma, q, top = s.orthogonal(d) * diagonal(values) * s.orthogonal(d), s.vector(d), max(values)
    at_most(square(Gamma * q), top**2 * square(q))
    sigma = square(Gamma * q) / (top**2 * square(q))
    near(fidelity.nondegeneracy(table(Gamma), array(q)) ** 2, sigma, float(top / min(values)))


def right_angled(s: Source) -> tuple[fmpq, fmpq]:
    """Sine and cosine of an angle in [0, pi/2), both rational."""
    t = s.share() * fmpq(s.integer(0, 11), 12)
    return 2 * t / (1 + t**2), (1 - t**2) / (1 + t**2)


@given(sources)
@checks("T3c", "exact")
def test_angle_between_hypergradient_and_proxy(s: Source):
    """Sines gamma and eps of rational angles, so that the bound is rational; J_L any multiple of I + eps W."""
    d = s.integer(2, 4)
    (gap, cos_gap), (gamma, cos_gamma) = right_angled(s), right_angled(s)
    proxy, scale = s.vector(d), s.positive(1)
    last = scale * (eye(d) + gap * s.orthogonal(d)) * proxy
    assume(not zero(last))
    rest = s.orthogonal(d) * last * (gamma * s.choose([fmpq(1), s.share()]))
    whole, bound = last + rest, cos_gap * cos_gamma - gap * gamma
    inner = dot(whole, proxy)
    if bound > 0:
        assert inner > 0
        at_most(bound**2 * square(whole) * square(proxy), inner**2)
    elif inner < 0:
        at_most(inner**2, bound**2 * square(whole) * square(proxy))
    assert (bound > 0) == (gamma**2 + gap**2 < 1)
    seen = fidelity.cosine_bound(float(gamma), float(gap))
    near(seen, bound, float(1 / (cos_gap * cos_gamma)), 1.0)  # 1 - eps^2 loses digits as eps nears 1
    size = float(square(whole) * square(proxy)) ** 0.5
    if size:
        near(fidelity.cosine(array(whole), array(proxy)) * size, inner, 1.0, size)


@given(sources)
@checks("T3c", "exact")
def test_angle_bound_is_attained(s: Source):
    """Two dimensions: J_L turns by the full angle of eps, the tail by that of gamma; equality, tolerance zero."""
    (gap, cos_gap), (gamma, cos_gamma) = right_angled(s), right_angled(s)
    proxy = column([1, 0])
    last = column([1 - gap**2, gap * cos_gap])  # on the circle of radius gap around g~
    same(square(last - proxy), gap**2)
    assume(not zero(last))
    turn = fmpq_mat([[-gamma * gamma, -gamma * cos_gamma], [gamma * cos_gamma, -gamma * gamma]])
    rest = turn * last  # of length gamma ||g_L||, orthogonal to what is left
    same(square(rest), gamma**2 * square(last))
    whole, bound = last + rest, cos_gap * cos_gamma - gap * gamma
    same(dot(whole, proxy) ** 2, bound**2 * square(whole) * square(proxy))
    assert (dot(whole, proxy) > 0) == (bound > 0 and not zero(whole)) == (gamma**2 + gap**2 < 1)
    J = fmpq_mat([[1 - gap**2, gap * cos_gap], [-gap * cos_gap, 1 - gap**2]])  # J^T g~ = g_L
    equal(fidelity.scaled_gap(2.5 * table(J)), float(gap), 4 * EPS**0.5, 1.0)  # a search stops at sqrt(eps)


@given(sources)
@checks("A1", "exact")
def test_first_layer_gets_one_part_in_n(s: Source):
    n, d = s.integer(1, 7), s.integer(1, 3)
    last, first = s.matrix(d, d), eye(d) * fmpq(1, n)
    x = s.unit(d)
    apart, gap = (last - first) * x, (last - eye(d)) * x  # each norm bounds the matrix's from below
    same(apart - gap, x * (1 - fmpq(1, n)))
    least = 1 - fmpq(1, n)  # not both below parts that add up to it, or the triangle would not close
    part = least * s.share()
    assert square(apart) >= part**2 or square(gap) >= (least - part) ** 2
    near(fidelity.spread_shares(n), [fmpq(1, n - i) for i in range(n)])


def transport(etas: list[fmpq]) -> tuple[list[fmpq], list[fmpq], fmpq]:
    """Ask, write, look again: what is missing before each layer, what each is asked for, what arrives of 1."""
    n, stream, missing, asked = len(etas), fmpq(0), [], []
    for i, eta in enumerate(etas):
        missing.append(1 - stream)
        asked.append((1 - stream) / (n - i))
        stream += eta * asked[-1]
    return missing, asked, stream


@given(sources)
@checks("A2", "exact")
@checks("A1", "exact")
def test_identity_transport(s: Source):
    n = s.integer(1, 6)
    etas = [s.share() for _ in range(n)]
    missing, asked, executed = transport(etas)
    product = fmpq(1)
    for i, eta in enumerate(etas):
        same(missing[i], product)
        same(asked[i], product / (n - i))
        product *= 1 - eta / (n - i)
    same(executed, 1 - product)
    same(asked[0], fmpq(1, n))
    assert all(earlier <= later for earlier, later in pairwise(asked))  # the last layer is asked for most
    near(fidelity.missing_shares(array(etas)), missing)
    near(fidelity.allocation_scales(array(etas)), asked)
    near(fidelity.executed_fraction(array(etas)), executed, 1.0, 1.0)
    gamma = sum(asked[:-1], fmpq(0)) / asked[-1]
    harmonic = sum((fmpq(1, i) for i in range(2, n + 1)), fmpq(0))
    at_most(harmonic, gamma) if n > 1 else same(gamma, fmpq(0))
    at_most(gamma, fmpq(n - 1))
    near(fidelity.aligned_tail(array(etas)), gamma, 1.0, 1.0 + n)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@checks("A2", "exact")
def test_ends_of_the_tail(n: int):
    """gamma at eta = 0 is H_n - 1, at eta = 1 it is n - 1; between, within eta n^2 of the first."""
    harmonic = sum((fmpq(1, i) for i in range(1, n + 1)), fmpq(0))

    def tail(eta: fmpq) -> fmpq:
        _, asked, _ = transport([eta] * n)
        return sum(asked[:-1], fmpq(0)) / asked[-1]

    same(tail(fmpq(0)), harmonic - 1)
    same(tail(fmpq(1)), fmpq(n - 1))
    for eta in (fmpq(1, 10), fmpq(1, 10**6)):
        assert 0 <= tail(eta) - harmonic + 1 <= eta * n**2
    assert (harmonic - 1 < 1) == (n <= 3)


@checks("J2", "exact", refutes=True)
def test_layers_without_drift_still_share_the_residual():
    G, k = eye(2), column([1, 0])
    eta = share(rho_of(G, k))
    _, asked, _ = transport([eta, eta])  # the same G and k twice: eps_C = eps_k = 0
    same(asked[-1], fmpq(3, 4))
    near(fidelity.allocation_scales([float(eta)] * 2)[-1], asked[-1])
    ledger.counterexample(f"two identical layers, eta = {eta}: eps_k = eps_C = 0 and J_L = {asked[-1]}")


# -- closing the loop ---------------------------------------------------------------------------


@given(sources)
@checks("P13", "exact")
def test_descent_closes_the_loop_geometrically(s: Source):
    eta, step, steps = s.share(), s.positive(), s.integer(0, 12)
    d = fmpq(0)
    for _ in range(steps):
        d -= step * eta * (eta * d - 1)
    same(eta * d, 1 - (1 - step * eta**2) ** steps)
    rate = step * eta**2
    if rate <= 1:
        at_most(eta * d, steps * rate)  # suppressed while a eta^2 T is small
    size = 1.0 + abs(float(1 - rate)) ** steps
    near(fidelity.realised_after(float(eta), float(step), steps), eta * d, 1.0, size)


@given(sources)
@checks("P13", "exact")
def test_one_layers_proxy_is_the_hypergradient(s: Source):
    """Quadratic loss at W + (z - h) q^T, q from the geometry: the central difference is Gamma q, exactly."""
    d = s.size()
    G, k, z, h, x = s.spectral(d).G, s.vector(d), *(s.vector(2) for _ in range(3))
    q, W, target = (G + outer(k, k)).solve(k), s.matrix(2, d), s.vector(2)

    def loss(z: fmpq_mat) -> fmpq:
        return square((W + outer(z - h, q)) * k - target) / 2

    Gamma = outer((W + outer(z - h, q)) * k - target, k)
    same((loss(z + x) - loss(z - x)) / 2, dot(Gamma * q, x))


def two_targets(s: Source):
    """One layer and two targets: G, k, and D for either residual."""
    g = s.spectral(s.size())
    k = s.vector(g.size)
    r = [s.vector(2) for _ in range(2)]
    return g, k, r, [least_squares(g.G, k, x) for x in r]


@given(sources)
@checks("P1", "exact", refutes=True)
def test_attenuation_does_not_depend_on_the_target(s: Source):
    g, k, r, D = two_targets(s)
    shares = [dot(X * k, x) / square(x) for X, x in zip(D, r, strict=True)]
    same(shares[0], shares[1])
    same(shares[0], share(rho_of(g.G, k)))
    near(suppression.attenuation(suppression.realisability(table(g.G), array(k))), shares[0], g.condition)
    eta = share(rho_of(eye(1), column([1])))
    ledger.counterexample(f"G = k = 1: eta = {eta} at every target z")


@given(sources)
@checks("P2", "exact", refutes=True)
def test_the_gate_of_one_edit_only_scales(s: Source):
    """What is realised at the subject's token is linear in r: its Jacobian is eta I."""
    g, k, r, D = two_targets(s)
    same(D[0] * k + D[1] * k, (r[0] + r[1]) * share(rho_of(g.G, k)))
    same(least_squares(g.G, k, eye(2) * r[0]) * k, eye(2) * share(rho_of(g.G, k)) * r[0])
    gate = join([least_squares(eye(2), column([1, 2]), column(e)) * column([1, 2]) for e in ([1, 0], [0, 1])])
    same(gate, eye(2) * fmpq(5, 6))
    ledger.counterexample("G = I, k = (1, 2): the Jacobian of D k by r is 5/6 I, nothing is turned")


@given(sources)
@checks("P5", "exact", refutes=True)
def test_cost_of_a_compensated_edit_has_no_bound(s: Source):
    """k shrinks by t, the planned displacement stays: the cost grows by t^2."""
    g = s.spectral(s.size())
    k, delta, t = s.vector(g.size), s.vector(2), 10 ** s.integer(0, 6)
    costs = []
    for key in (k, k * fmpq(1, t)):
        D = least_squares(g.G, key, delta * (1 / share(rho_of(g.G, key))))
        same(D * key, delta)
        costs.append(dot(D * g.G, D))
    same(costs[1], costs[0] * t**2)
    near(trap.execution_cost(array(delta), float(rho_of(g.G, k))), costs[0])
    ledger.counterexample("G = 1, delta = 1: the compensated edit costs 1 at k = 1, 10^12 at k = 10^-6")


@given(sources)
@checks("P6", "exact", refutes=True)
def test_direction_in_weight_space_does_not_depend_on_the_target(s: Source):
    """tr(D G D^T)/||D||^2 is q^T G q/||q||^2, whatever the residual."""
    g, k, _, D = two_targets(s)
    q = (g.G + outer(k, k)).solve(k)
    ratios = [dot(X * g.G, X) / square(X) for X in D]
    same(ratios, [dot(q, g.G * q) / square(q)] * 2)
    seen = suppression.channel(table(g.G), array(k))
    near(seen @ table(g.G) @ seen / (seen @ seen), ratios[0], g.condition**2)
    q = (diagonal([1, 4]) + outer(column([1, 1]), column([1, 1]))).solve(column([1, 1]))
    fixed = dot(q, diagonal([1, 4]) * q) / square(q)
    ledger.counterexample(f"G = diag(1, 4), k = (1, 1): q^T G q/||q||^2 = {fixed} at every target z")


@given(sources)
@checks("P7", "exact", refutes=True)
def test_no_target_gets_past_a_hard_projection(s: Source):
    d = s.size()
    _, P = s.projector(d)
    k, r, beta = (eye(d) - P) * s.vector(d), s.vector(2), s.positive(2)
    assert zero(alpha_edit(P, k, r, beta))
    assert zero(least_squares(beta * eye(d), P * k, r))
    size = float(square(k) * square(r)) ** 0.5 / float(beta)
    near(
        suppression.projected_edit(table(P), array(k), array(r), float(beta)),
        fmpq_mat(2, d),
        1.0,
        size + 1e-300,
    )
    ledger.counterexample("P = diag(1, 0), k = e2: q = 0, the edit is 0 at every target z")


@given(sources)
@checks("X9", "exact")
def test_aligned_layers_descend(s: Source):
    """Tails turned such that none opposes the proxy; their sizes do not matter."""
    d, gap = s.integer(1, 4), s.share()
    proxy = s.vector(d)
    tails = [s.vector(d, nonzero=False) * s.choose([fmpq(1), fmpq(1000)]) for _ in range(s.integer(0, 3))]
    tails = [x if dot(x, proxy) >= 0 else -1 * x for x in tails]
    last = proxy + gap * s.unit(d) * root_below(square(proxy))  # <g_L, g~> >= (1 - gap) ||g~||^2
    inner = dot(total([*tails, last], d), proxy)
    assert dot(last, proxy) >= (1 - gap) * square(proxy)
    assert gap == 1 or inner > 0
    same(inner, sum((dot(x, proxy) for x in tails), dot(last, proxy)))
    if dot(last, proxy) > (1 - gap) * square(proxy) > 0 and all(dot(x, proxy) > 0 for x in tails):
        assert fidelity.alignment_premise([array(x) for x in [*tails, last]], array(proxy), float(gap))
    if tails and dot(tails[0], proxy) > 0:
        opposed = [-1 * tails[0], *tails[1:], last]
        assert not fidelity.alignment_premise([array(x) for x in opposed], array(proxy), float(gap))


@given(sources)
@checks("X11", "exact")
def test_error_of_the_parallel_proxy(s: Source):
    """`g - g^` layer by layer as four differences, exactly; each bounded by its own norms."""
    n, d = s.integer(1, 3), s.integer(1, 3)
    shares = [fmpq(1, n - i) for i in range(n)]
    rows = []
    whole, parallel = fmpq_mat(d, 1), fmpq_mat(d, 1)
    for share_l in shares:
        J, G, G_v = (s.matrix(d, d) for _ in range(3))
        q, q_v, moving = (s.vector(d) for _ in range(3))
        g = J.transpose() * G * q + moving
        parts = [(J - share_l * eye(d)).transpose() * G * q, share_l * G * (q - q_v),
                 share_l * (G - G_v) * q_v, moving]  # fmt: skip
        same(g - share_l * G_v * q_v, total(parts, d))
        whole, parallel = whole + g, parallel + share_l * G_v * q_v
        rows.append([table(J), table(G), array(q), table(G_v), array(q_v), array(moving)])
    J, G, q, G_v, q_v, moving = zip(*rows, strict=True)
    bound = fidelity.parallel_error_bound(J, array(shares), G, q, G_v, q_v, moving)
    below(float(square(whole - parallel)) ** 0.5, bound, tolerance())
