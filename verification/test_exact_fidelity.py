"""Theorem 3, and what closing the loop adds, in exact rational arithmetic."""

from __future__ import annotations

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
    alpha_edit,
    array,
    at_most,
    column,
    diagonal,
    dot,
    eye,
    join,
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
from verification.strategies import EPS, tolerance

# -- Theorem 3 -----------------------------------------------------------------------------------


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


# -- closing the loop ----------------------------------------------------------------------------


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
    near(fidelity.realized_after(float(eta), float(step), steps), eta * d, 1.0, size)


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
    near(suppression.attenuation(suppression.realizability(table(g.G), array(k))), shares[0], g.condition)
    eta = share(rho_of(eye(1), column([1])))
    ledger.counterexample(f"G = k = 1: eta = {eta} at every target z")


@given(sources)
@checks("P2", "exact", refutes=True)
def test_the_gate_of_one_edit_only_scales(s: Source):
    """What is realized at the subject's token is linear in r: its Jacobian is eta I."""
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
        parts = [
            (J - share_l * eye(d)).transpose() * G * q,
            share_l * G * (q - q_v),
            share_l * (G - G_v) * q_v,
            moving,
        ]
        same(g - share_l * G_v * q_v, total(parts, d))
        whole, parallel = whole + g, parallel + share_l * G_v * q_v
        rows.append([table(J), table(G), array(q), table(G_v), array(q_v), array(moving)])
    J, G, q, G_v, q_v, moving = zip(*rows, strict=True)
    bound = fidelity.parallel_error_bound(J, array(shares), G, q, G_v, q_v, moving)
    below(float(square(whole - parallel)) ** 0.5, bound, tolerance())
