"""Theorem 1 derived with sympy: from the objective to the closed forms, by solving and not by restating.

Each function starts from a definition, solves, and returns a residual that has to vanish.
"""

from __future__ import annotations

import sympy as sp


def _symmetric(name: str, n: int) -> sp.Matrix:
    return sp.Matrix(n, n, lambda i, j: sp.Symbol(f"{name}{min(i, j)}{max(i, j)}", real=True))


def _vector(name: str, n: int) -> sp.Matrix:
    return sp.Matrix([sp.Symbol(f"{name}{i}", real=True) for i in range(n)])


def normal_equations(d_v: int = 2, d_k: int = 2) -> tuple[sp.Matrix, sp.Matrix]:
    """(13)-(18): differentiate `||D k - r||^2 + tr(D G D^T)` entry by entry and solve for D.

    Args:
        d_v: entries of a residual.
        d_k: entries of a key.

    Returns:
        The solution, and the residual `D k - eta r` with rho = k^T G^-1 k.
    """
    G, k, r = _symmetric("g", d_k), _vector("k", d_k), _vector("r", d_v)
    D = sp.Matrix(d_v, d_k, lambda i, j: sp.Symbol(f"D{i}{j}", real=True))
    cost = (D * k - r).dot(D * k - r) + (D * G * D.T).trace()
    found = sp.solve([sp.diff(cost, x) for x in D], list(D), dict=True)[0]
    best = D.subs(found)
    rho = (k.T * G.inv() * k)[0]
    return best, sp.simplify(best * k - rho / (1 + rho) * r)


def sherman_morrison(n: int = 3) -> sp.Matrix:
    """(21), (22): solve `(G + k k^T) q = k` for q by elimination, minus `G^-1 k / (1 + rho)`.

    G is diagonal, which is no loss: both sides turn with the eigenbasis.

    Args:
        n: number of layers, keys or dimensions, as in the formula.

    Returns:
        The difference, 0.
    """
    mu = sp.symbols(f"mu0:{n}", positive=True)
    k = _vector("k", n)
    q = sp.Matrix(sp.symbols(f"q0:{n}"))
    found = sp.solve(list((sp.diag(*mu) + k * k.T) * q - k), list(q), dict=True)[0]
    solved = sp.Matrix([k[i] / mu[i] for i in range(n)])
    return (q.subs(found) - solved / (1 + k.dot(solved))).applyfunc(sp.simplify)


def spectral_form(n: int = 2) -> sp.Expr:
    """(24): `k^T (U diag(mu) U^T)^-1 k - sum a_i^2/mu_i` for a rotation U by any angle.

    Args:
        n: number of layers, keys or dimensions, as in the formula.

    Returns:
        The difference, 0.
    """
    t = sp.Symbol("t", real=True)
    mu = sp.symbols("mu0:2", positive=True)
    k = _vector("k", n)
    U = sp.Matrix([[sp.cos(t), -sp.sin(t)], [sp.sin(t), sp.cos(t)]])
    a = U.T * k
    G = U * sp.diag(*mu) * U.T
    return sp.simplify((k.T * G.inv() * k)[0] - sum(a[i] ** 2 / mu[i] for i in range(n)))


def constrained_projection() -> tuple[sp.Matrix, sp.Matrix]:
    """(27)-(35) with the constraint X = X P kept, by Lagrange multipliers; P projects on any line.

    Returns:
        Residual of `X = r k~^T / (beta + ||k~||^2)`, and of the printed relaxation (31) against it.
    """
    t, r = sp.symbols("t r", real=True)
    beta = sp.Symbol("beta", positive=True)
    k, v = _vector("k", 2), sp.Matrix([sp.cos(t), sp.sin(t)])
    P = v * v.T
    x, y, m = sp.symbols("x y m", real=True)
    X = sp.Matrix([[x, y]])
    outside = sp.Matrix([-sp.sin(t), sp.cos(t)])  # X = X P iff X is orthogonal to it
    cost = ((X * k)[0] - r) ** 2 + beta * (x**2 + y**2) + m * (X * outside)[0]
    found = sp.solve([sp.diff(cost, s) for s in (x, y, m)], [x, y, m], dict=True)[0]
    inside = P * k
    closed = r * inside.T / (beta + inside.dot(inside))
    free = ((X * k)[0] - r) ** 2 + beta * (x**2 + y**2)
    printed = X.subs(sp.solve([sp.diff(free, s) for s in (x, y)], [x, y], dict=True)[0])
    return (X.subs(found) - closed).applyfunc(sp.simplify), (printed - closed).applyfunc(sp.simplify)


def penalty_limit() -> sp.Expr:
    """P15: the limit of ridge's eta with `beta I + t (I - P)`, minus AlphaEdit's; key (a, b), P = diag(1, 0)."""
    a, b = sp.symbols("a b", real=True)
    beta, t = sp.symbols("beta t", positive=True)
    rho = a**2 / beta + b**2 / (beta + t)
    return sp.simplify(sp.limit(rho / (1 + rho), t, sp.oo) - a**2 / (beta + a**2))


def batch_law() -> sp.Matrix:
    """X2: solve `D (G + K K^T) = R K^T` for D, two keys, minus `R B` at the keys."""
    mu = sp.symbols("mu0:2", positive=True)
    K = sp.Matrix(2, 2, sp.symbols("k00 k01 k10 k11", real=True))
    R = sp.Matrix(1, 2, sp.symbols("r0 r1", real=True))
    D = sp.Matrix(1, 2, sp.symbols("d0 d1"))
    G = sp.diag(*mu)
    found = sp.solve(list(D * (G + K * K.T) - R * K.T), list(D), dict=True)[0]
    S = K.T * G.inv() * K
    return (D.subs(found) * K - R * S * (sp.eye(2) + S).inv()).applyfunc(sp.simplify)


def crosstalk() -> sp.Expr:
    """X3 for two keys: `eta_1 - B_11`, a square over positive terms.

    Returns:
        The difference minus `s12^2 / ((1 + rho_1) det(I + S))`.
    """
    s1, s2, c = sp.symbols("s1 s2 c", real=True)
    S = sp.Matrix([[s1, c], [c, s2]])
    kept = (S * (sp.eye(2) + S).inv())[0, 0]
    return sp.simplify(s1 / (1 + s1) - kept - c**2 / ((1 + s1) * (sp.eye(2) + S).det()))


def room() -> sp.Matrix:
    """X13 for two keys in two dimensions: B_jj minus the eta of key j in the geometry that holds the other one."""
    G = sp.diag(*sp.symbols("mu0:2", positive=True))
    K = sp.Matrix(2, 2, sp.symbols("k00 k01 k10 k11", real=True))
    S = K.T * G.inv() * K
    B = S * (sp.eye(2) + S).inv()
    last = [K[:, j].T * (G + K[:, 1 - j] * K[:, 1 - j].T).inv() * K[:, j] for j in range(2)]
    return sp.Matrix([sp.simplify(B[j, j] - rho[0] / (1 + rho[0])) for j, rho in enumerate(last)])


def cost() -> sp.Expr:
    """X14 for two keys in two dimensions: `tr(D G D^T) - tr((R - D K)(D K)^T)` of the soft fit."""
    G = sp.diag(*sp.symbols("mu0:2", positive=True))
    K = sp.Matrix(2, 2, sp.symbols("k00 k01 k10 k11", real=True))
    R = sp.Matrix(1, 2, sp.symbols("r0:2", real=True))
    D = R * K.T * (G + K * K.T).inv()
    return sp.simplify((D * G * D.T - (R - D * K) * (D * K).T)[0])


def priced() -> sp.Expr:
    """X14: where the slope of `(y - x)^2 + alpha y^2/rho` vanishes, minus what the geometry alpha G keeps of x."""
    x, y = sp.symbols("x y", real=True)
    rho, price = sp.symbols("rho alpha", positive=True)
    found = sp.solve(sp.diff((y - x) ** 2 + price * y**2 / rho, y), y)[0]
    share = rho / price  # realizability in alpha G
    return sp.simplify(found - x * share / (1 + share))


def compensation() -> sp.Matrix:
    """P4: `R B^-1 Q^T - R S^-1 K^T G^-1` with `Q^T = (I + S)^-1 K^T G^-1`, two keys."""
    S = _symmetric("s", 2)
    B = S * (sp.eye(2) + S).inv()
    return (B.inv() * (sp.eye(2) + S).inv() - S.inv()).applyfunc(sp.simplify)


def mean_realizability(n: int = 2) -> sp.Expr:
    """P8: the mean of `k^T (lambda C)^-1 k` over three keys with C their second moment, minus `n/lambda`.

    Args:
        n: number of layers, keys or dimensions, as in the formula.

    Returns:
        The difference, 0.
    """
    lam = sp.Symbol("lambda", positive=True)
    K = sp.Matrix(n, n + 1, sp.symbols(f"k0:{n * (n + 1)}", real=True))
    C = K * K.T / (n + 1)
    mean = (K.T * (lam * C).inv() * K).trace() / (n + 1)
    return sp.simplify(mean - n / lam)


def steepest_attenuation() -> tuple[sp.Expr, sp.Expr]:
    """P10: the largest slope of eta by the key, with `s = sqrt(rho)`, and by the geometry.

    In one dimension `eta = k^2/(g + k^2)`: the slopes are `2 s/(1 + s^2)^2 / sqrt(g)` and
    `s^2/(1 + s^2)^2 / g`. Found by solving for the zero of the derivative.

    Returns:
        Both maxima over s, at g = 1.
    """
    k, g, s = sp.symbols("k g s", positive=True)
    eta = k**2 / (g + k**2)
    peaks = []
    for slope in (sp.diff(eta, k), -sp.diff(eta, g)):
        f = sp.simplify(slope.subs(g, 1).subs(k, s))
        at = [x for x in sp.solve(sp.diff(f, s), s) if x.is_positive]
        peaks.append(sp.simplify(max(f.subs(s, x) for x in at)))
    return peaks[0], peaks[1]


def two_sided() -> sp.Matrix:
    """X12: solve the normal equations of `||D k - r||^2 + tr(B D G D^T)`, B diagonal; minus the shares."""
    b, mu = sp.symbols("b0:2", positive=True), sp.symbols("mu0:2", positive=True)
    k, r = _vector("k", 2), _vector("r", 2)
    D = sp.Matrix(2, 2, sp.symbols("d0:4"))
    G, B = sp.diag(*mu), sp.diag(*b)
    cost = (D * k - r).dot(D * k - r) + (B * D * G * D.T).trace()
    found = sp.solve([sp.diff(cost, x) for x in D], list(D), dict=True)[0]
    rho = (k.T * G.inv() * k)[0]
    shares = sp.Matrix([rho / (b[j] + rho) * r[j] for j in range(2)])
    return (D.subs(found) * k - shares).applyfunc(sp.simplify)


def history() -> sp.Expr:
    """T1f, X1 in one line of null space: eta with an earlier key `p` there, minus `a^2/(beta + p^2 + a^2)`.

    Solved from `||x a - r||^2 + (beta + p^2) x^2`, the objective that counts the earlier key's change.

    Returns:
        The difference, 0.
    """
    a, p, r, x = sp.symbols("a p r x", real=True)
    beta = sp.Symbol("beta", positive=True)
    cost = (x * a - r) ** 2 + beta * x**2 + (x * p) ** 2
    best = sp.solve(sp.diff(cost, x), x)[0]
    return sp.simplify(best * a / r - a**2 / (beta + p**2 + a**2))
