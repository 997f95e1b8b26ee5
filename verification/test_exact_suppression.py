"""Theorem 1 in exact rational arithmetic, tolerance zero; and the fp64 functions of `theory` against it."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from flint import fmpq, fmpq_mat
from hypothesis import assume, given

from theory import suppression
from verification import ledger
from verification.ledger import checks
from verification.rational import (
    Source,
    Spectral,
    alpha_edit,
    array,
    at_most,
    column,
    condition,
    diagonal,
    dot,
    eye,
    join,
    leading,
    least_squares,
    near,
    outer,
    pick,
    rho_of,
    root_below,
    same,
    semidefinite,
    share,
    sources,
    square,
    table,
    zero,
)

# -- Theorem 1, written down once more in rational numbers ---------------------------------------


def cost(D: fmpq_mat, G: fmpq_mat, K: fmpq_mat, R: fmpq_mat) -> fmpq:
    """`||D K - R||^2 + tr(D G D^T)`."""
    return square(D * K - R) + dot(D * G, D)


def attenuation_law(G: fmpq_mat, k: fmpq_mat, r: fmpq_mat) -> fmpq_mat:
    """T1 on one instance; returns D*."""
    D, rho = least_squares(G, k, r), rho_of(G, k)
    same(D * k, r * share(rho))
    same(D, outer(r, G.solve(k) * (1 / (1 + rho))))
    same((D * k - r) * k.transpose() + D * G, fmpq_mat(D.nrows(), D.ncols()))
    return D


@given(sources)
@checks("T1", "exact")
def test_edit_realizes_the_attenuated_residual(s: Source):
    g = s.spectral(s.size())
    k, r = s.vector(g.size, nonzero=False), s.vector(s.size())
    D = attenuation_law(g.G, k, r)
    G, x, y = table(g.G), array(k), array(r)
    rho = rho_of(g.G, k)
    near(suppression.realizability(G, x), rho, g.condition)
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
def test_realizability_from_the_spectrum(s: Source):
    g = s.spectral(s.size())
    k = s.vector(g.size, nonzero=False)
    a = g.U.transpose() * k
    rho = sum((x * x / m for x, m in zip(a.entries(), g.mu, strict=True)), fmpq(0))
    same(rho_of(g.G, k), rho)
    near(suppression.realizability_spectral(array(list(g.mu)), array(a)), rho)
    near(suppression.realizability(table(g.G), array(k)), rho, g.condition)


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
    seen = suppression.suppression_bound(norm, float(eps), float(height), float(min(g.mu)))
    # 1 - eps cancels where eps is near 1: its rounding is relative to 1
    near(seen, bound, scale=float(square(k) * (1 / height + eps / min(g.mu))))


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
    seen = [suppression.attenuation(suppression.realizability(table(X), array(k))) for X in (g.G, larger)]
    near(seen[0], eta, g.condition)
    near(seen[1], less, g.size * g.condition * (1 + float(square(more) / max(g.mu))))


# -- AlphaEdit -----------------------------------------------------------------------------------


def projected(s: Source) -> tuple[fmpq_mat | None, fmpq_mat, fmpq_mat, fmpq_mat, fmpq]:
    """V, P, a key (any, within the range of P, or within its complement), a residual, beta."""
    d = s.size()
    V, P = s.projector(d)
    k = s.choose([eye(d), P, eye(d) - P]) * s.vector(d)
    return V, P, k, s.vector(s.size()), s.positive(2)


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
    near(
        suppression.projected_attenuation(table(P), array(k), float(beta)),
        square(P * k) / (beta + square(P * k)),
        cond,
        1.0,
    )
    D = X + s.matrix(X.nrows(), X.ncols()) * (eye(X.ncols()) - P)  # what P takes away does not matter
    seen = suppression.projected_objective(table(D), *numbers)
    near(seen, cost(X, ridge, k, r), cond, float(square(r) + square(D) * (square(k) + beta)))


@given(sources)
@checks("T1e", "exact", refutes=True)
def test_the_raw_key_leaves_the_range_unless_it_lies_within(s: Source):
    """(29)-(31) as printed: the minimizer without the constraint."""
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
    seen = suppression.penalized_geometry(table(P), float(beta), float(t))
    near(seen, G, float((beta + t) / beta))
    near(
        suppression.edit(seen, array(k), array(r)),
        X + L * (1 / (t + beta + b / A)),
        float((beta + t) / beta),
        float(square(r) * square(k)) ** 0.5 / float(beta),
    )


# -- batches -------------------------------------------------------------------------------------


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
def test_batch_realizes_its_residuals_mixed(s: Source):
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
@checks("X13", "exact")
def test_n_edits_share_the_rank_of_their_keys(s: Source):
    """`B_jj` is the attenuation behind all others, and the trace of B stays below the rank of K."""
    G, K, _, S = batch(s)
    n = S.nrows()
    B = S * (eye(n) + S).inv()
    for j in range(n):
        others = [outer(pick(K, i), pick(K, i)) for i in range(n) if i != j]
        same(B[j, j], share(rho_of(sum(others, G), pick(K, j))))
    total, rank = sum((B[j, j] for j in range(n)), fmpq(0)), K.rank()
    assert total < rank or total == rank == 0
    near(suppression.room(table(S)), total, 1 + float(square(S)) ** 0.5, 1.0 + n)


@given(sources)
@checks("X14", "exact")
def test_what_a_batch_costs(s: Source):
    """The cost, the least of changes that realize the same, and where a price ends."""
    G, K, R, S = batch(s)
    n, D = S.nrows(), least_squares(G, K, R)
    paid = dot(D * G, D)
    same(paid, dot(R - D * K, D * K))
    near(
        suppression.batch_cost(table(S), table(R)), paid, 1 + float(square(S)) ** 0.5, 1.0 + float(square(R))
    )
    seen = K.transpose() * K
    if seen.rank() == n:
        other = s.matrix(R.nrows(), G.nrows())
        unseen = other - other * K * seen.inv() * K.transpose()
        same(unseen * K, R * 0)
        at_most(paid, dot((D + unseen) * G, D + unseen))
        price = s.positive(1)
        ends = R * S * (S + price * eye(n)).inv()
        same(least_squares(price * G, K, R) * K, ends)
        same((ends - R) + price * ends * S.inv(), R * 0)


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
    near(suppression.mean_realizability(d, float(weight)), mean)
    seen = np.mean([suppression.realizability(table(weight * C), array(pick(X, j))) for j in range(n)])
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
        near(suppression.realizability(table(g.G), array(k)), square(k) / g.mu[i], g.condition)


@given(sources)
@checks("P10", "exact")
def test_drift_of_attenuation(s: Source):
    """The floor a square, the drifts' norms rational, sqrt(3) from below."""
    d, root, drift, away = s.size(), s.positive(2), s.choose([0, s.positive(2)]), s.choose([0, s.positive(2)])
    W = s.orthogonal(d)
    base = (root**2 + drift) * eye(d) + s.choose([0, 1]) * s.spectral(d).G
    other = base + outer(
        W
        * diagonal([drift] + [drift * s.share() for _ in range(d - 1)])
        * diagonal(s.choose([1, -1]) for _ in range(d)),
        W,
    )
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
    seen = dyadic(suppression.attenuation(suppression.realizability(G, k)))
    at_most(abs(seen - truth) / truth, dyadic(suppression.rounding_bound(eps, cond)))


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
