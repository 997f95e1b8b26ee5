"""Theorem 3 derived with sympy: drift, adjoints, the allocation's recursion, angles and the closed loop.

Each function starts from a definition and differentiates, solves or expands; what it returns is a
residual that has to vanish, or a closed form to be compared with `theory.fidelity`.
"""

from __future__ import annotations

import sympy as sp


def _matrix(name: str, rows: int, columns: int) -> sp.Matrix:
    return sp.Matrix(rows, columns, lambda i, j: sp.Symbol(f"{name}{i}{j}", real=True))


def _vector(name: str, n: int) -> sp.Matrix:
    return _matrix(name, n, 1)


# -- L3, L4, J1 ---------------------------------------------------------------------------------


def resolvent() -> sp.Expr:
    """`X^-1 - (X+E)^-1 = (X+E)^-1 E X^-1`, for operators of any size, as a residual.

    With A = X^-1 and B = (X+E)^-1: each term is multiplied by an identity, B (X + E) or X A.

    Returns:
        The difference of both sides, 0.
    """
    A, B, X, E = sp.symbols("A B X E", commutative=False)
    return sp.expand(B * (X + E) * A - B * (X * A)) - B * E * A


def neumann() -> sp.Expr:
    """`sum_{j>=1} x^j`, from `s = x + x s`: times 1/mu, with x = ||E||/mu, it bounds the drift (L3), as it is (J1)."""
    x, s = sp.symbols("x s", positive=True)
    return sp.solve(sp.Eq(s, x + x * s), s)[0]


def sharp_inverse_drift() -> tuple[sp.Expr, sp.Expr]:
    """Largest `1/y - 1/(y + e)` over y >= mu (L3, second form).

    X <= Y + e I gives `Y^-1 - X^-1 <= Y^-1 - (Y + e I)^-1`, a function of Y alone, and so with X and Y
    exchanged. Each eigenvalue y of Y is at least mu.

    Returns:
        The value at mu, and the slope over y > 0, negative.
    """
    y, e, mu = sp.symbols("y e mu", positive=True)
    gain = 1 / y - 1 / (y + e)
    return sp.factor(gain.subs(y, mu)), sp.factor(sp.diff(gain, y))


def longest_channel() -> sp.Expr:
    """Largest `t/(g + t^2)` over t > 0: no channel is longer, whatever the key (L4)."""
    t, g = sp.symbols("t g", positive=True)
    q = t / (g + t**2)
    at = sp.solve(sp.diff(q, t), t)
    return sp.simplify(q.subs(t, at[0]))


def channel_derivative(n: int = 2) -> sp.Matrix:
    """`dq/dk - (1-eta) G^-1/2 (I - 2 eta u u^T) G^-1/2`, u the unit vector along G^-1/2 k (L4).

    q is solved from `(G + k k^T) q = k` and differentiated entry by entry. G is diagonal, no loss.

    Args:
        n: number of layers, keys or dimensions, as in the formula.

    Returns:
        The difference, 0.
    """
    root = sp.diag(*sp.symbols(f"s0:{n}", positive=True))
    k = _vector("k", n)
    q = (root**2 + k * k.T).LUsolve(k)
    w = root.inv() * k
    rho = w.dot(w)
    eta = rho / (1 + rho)
    closed = (1 - eta) * root.inv() * (sp.eye(n) - 2 * eta * w * w.T / rho) * root.inv()
    return (q.jacobian(k) - closed).applyfunc(sp.simplify)


def channel_slopes() -> list[sp.Expr]:
    """Eigenvalues of `(1-eta) (I - 2 eta u u^T)`: within [-1/8, 1] for eta in [0, 1), so q moves by eps_k/mu at most."""
    t, eta = sp.symbols("t eta", real=True)
    u = sp.Matrix([sp.cos(t), sp.sin(t)])
    middle = (1 - eta) * (sp.eye(2) - 2 * eta * u * u.T)
    return [sp.factor(sp.simplify(x)) for x in middle.eigenvals()]


# -- L5, X8, T3a, X11: adjoints -----------------------------------------------------------------


def adjoint(d_v: int = 2, d_k: int = 3, n: int = 1) -> tuple[sp.Matrix, sp.Matrix, sp.Matrix]:
    """The chain rule at `W + (Z - H) Q^T` (L5; n > 1: X8): derivative by Z of `<Gamma, (Z - H) Q^T>`.

    Args:
        d_v: entries of a residual.
        d_k: entries of a key.
        n: number of layers, keys or dimensions, as in the formula.

    Returns:
        Gamma, Q and the derivative.
    """
    Gamma, Q = _matrix("G", d_v, d_k), _matrix("q", d_k, n)
    Z, H = _matrix("z", d_v, n), _matrix("h", d_v, n)
    first_order = (Gamma.T * (Z - H) * Q.T).trace()
    return Gamma, Q, Z.applyfunc(lambda x: sp.diff(first_order, x))


def whole_gradient(d_v: int = 2, d_k: int = 2) -> sp.Matrix:
    """Derivative of `<Gamma, r(z) q(z)^T>` by z minus `J^T Gamma q + N^T Gamma^T r`: channels that move (T3a).

    Args:
        d_v: entries of a residual.
        d_k: entries of a key.

    Returns:
        The difference, 0.
    """
    z = _vector("z", d_v)
    r = sp.Matrix([sp.Function(f"r{i}")(*z) for i in range(d_v)])
    q = sp.Matrix([sp.Function(f"q{i}")(*z) for i in range(d_k)])
    Gamma = _matrix("G", d_v, d_k)
    product = (Gamma.T * r * q.T).trace()
    whole = sp.Matrix([sp.diff(product, x) for x in z])
    return (whole - r.jacobian(z).T * Gamma * q - q.jacobian(z).T * Gamma.T * r).applyfunc(sp.expand)


def frozen_error(layers: int = 3, d_v: int = 2, d_k: int = 2) -> sp.Matrix:
    """(60)-(66): `g - g~ - sum_{l<L} g_l - (J_L - I)^T Gamma_L q_L`, both differentiated from their losses.

    Args:
        layers: number of layers.
        d_v: entries of a residual.
        d_k: entries of a key.

    Returns:
        The difference, 0.
    """
    z = _vector("z", d_v)
    J = [_matrix(f"J{i}", d_v, d_v) for i in range(layers)]
    Gamma = [_matrix(f"G{i}", d_v, d_k) for i in range(layers)]
    q = [_vector(f"q{i}", d_k) for i in range(layers)]

    def slope(residuals: list[sp.Matrix], at: list[int]) -> sp.Matrix:
        loss = sum((Gamma[i].T * r * q[i].T).trace() for i, r in zip(at, residuals, strict=True))
        return sp.Matrix([sp.diff(loss, x) for x in z])

    top = layers - 1
    g, proxy = slope([A * z for A in J], list(range(layers))), slope([z], [top])
    rest = slope([A * z for A in J[:-1]], list(range(top)))
    return (g - proxy - rest - (J[top] - sp.eye(d_v)).T * Gamma[top] * q[top]).applyfunc(sp.expand)


def telescope() -> sp.Expr:
    """X11: `J Gamma q - s Gamma^ q^` minus its three differences, for operators of any size."""
    J, G, q, G_v, q_v = sp.symbols("J Gamma q Gamma_v q_v", commutative=False)
    s = sp.Symbol("s", real=True)
    terms = (J - s) * G * q + s * G * (q - q_v) + s * (G - G_v) * q_v
    return sp.expand(J * G * q - s * G_v * q_v - terms)


def parallel_limit() -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """X11 for two layers in one dimension, loss quadratic in what reaches the stream, geometries `c g_l`.

    Returns:
        The limit of c times the parallel proxy's relative error, that of the last-layer proxy's
        relative error, and `s_1 w_1/(s_1 w_1 + s_2 w_2)`.
    """
    c, z, a = sp.symbols("c z a", positive=True)
    g, k = sp.symbols("g1:3", positive=True), sp.symbols("k1:3", positive=True)

    def slope(written: sp.Expr) -> sp.Expr:  # of Loss = a x + x^2/2
        return a + written

    q = [k[i] / (c * g[i] + k[i] ** 2) for i in range(2)]
    first = z / 2
    second = z - first * k[0] * q[0]
    write = first * k[0] * q[0] + second * k[1] * q[1]
    whole = slope(write) * sp.diff(write, z)
    flat = z * (k[0] * q[0] / 2 + k[1] * q[1])
    parallel = slope(flat) * flat / z
    last = slope(write) * k[1] * q[1]
    w = [k[i] ** 2 / g[i] for i in range(2)]
    return (
        sp.simplify(sp.limit(sp.cancel(sp.together((whole - parallel) / whole * c)), c, sp.oo)),
        sp.simplify(sp.limit(sp.cancel(sp.together((whole - last) / whole)), c, sp.oo)),
        sp.simplify((w[0] / 2) / (w[0] / 2 + w[1])),
    )


# -- T3b, T3c -----------------------------------------------------------------------------------


def largest_turn() -> sp.Expr:
    """Sine of the largest angle between v and v + w, ||w|| = eps ||v||, over the direction of w (T3c)."""
    eps, t = sp.symbols("eps t", positive=True)
    x, y = 1 + eps * sp.cos(t), eps * sp.sin(t)
    stationary = sp.numer(sp.together(sp.diff(y / x, t)))  # the tangent grows with the angle
    at = sp.solve(sp.expand_trig(sp.simplify(stationary)), sp.cos(t))[0]
    square = (eps**2 * (1 - at**2)) / ((1 + eps * at) ** 2 + eps**2 * (1 - at**2))
    return sp.sqrt(sp.simplify(square))


def added_angles() -> tuple[sp.Expr, list[sp.Expr]]:
    """`cos(asin gamma + asin eps)` without angles, and gamma^2 where it vanishes."""
    gamma, eps, s = sp.symbols("gamma eps s", positive=True)
    cosine = sp.expand_trig(sp.cos(sp.asin(gamma) + sp.asin(eps)))
    # sqrt((1-eps^2)(1-gamma^2)) = eps gamma, squared: both sides are positive
    return cosine, sp.solve((1 - eps**2) * (1 - s) - eps**2 * s, s)


def smallest_descent() -> tuple[sp.Expr, sp.Expr]:
    """Least `<g, g~>` for ||g~|| = 1, g_L on the sphere of radius eps around it, a tail of size gamma (T3b).

    With c the cosine of the deviation against -g~: `1 - eps c - gamma sqrt(1 - 2 eps c + eps^2)`, convex in c.

    Returns:
        The value at the end c = 1, for gamma, eps < 1, and at the stationary point.
    """
    gamma, eps = sp.symbols("gamma eps", positive=True)
    c = sp.Symbol("c", real=True)
    last = sp.sqrt(1 - 2 * eps * c + eps**2)
    inner = 1 - eps * c - gamma * last
    at = sp.solve(last**2 - gamma**2, c)[0]  # where the slope -eps + gamma eps/last vanishes
    slope = sp.diff(inner, c) - eps * (gamma / last - 1)
    assert sp.simplify(slope) == 0
    end = (1 - eps) - gamma * (1 - eps)  # last = |1 - eps|
    return sp.factor(end), sp.expand(1 - eps * at - gamma * gamma)


# -- A1, A2, P13 --------------------------------------------------------------------------------


def allocation(n: int) -> tuple[list[sp.Symbol], list[sp.Expr], sp.Expr]:
    """MEMIT's allocation under identity transport: ask, write, look again, n times (A1, A2).

    Args:
        n: number of layers, keys or dimensions, as in the formula.

    Returns:
        The attenuations, `J_l = d r_l/dz`, and the executed fraction.
    """
    etas = list(sp.symbols(f"eta1:{n + 1}", positive=True))
    z = sp.Symbol("z")
    stream, asked = sp.Integer(0), []
    for i, eta in enumerate(etas):
        asked.append((z - stream) / (n - i))
        stream = sp.expand(stream + eta * asked[-1])
    return etas, [sp.diff(r, z) for r in asked], sp.diff(stream, z)


def tail_limits(n: int) -> tuple[sp.Expr, sp.Expr]:
    """Limits of gamma of equal, aligned layers as eta -> 0, and at eta = 1 (A2).

    Args:
        n: number of layers, keys or dimensions, as in the formula.

    Returns:
        Both limits.
    """
    etas, J, _ = allocation(n)
    eta = sp.Symbol("eta", positive=True)
    gamma = (sum(J[:-1]) / J[-1]).subs({x: eta for x in etas})
    return sp.limit(gamma, eta, 0), sp.limit(sp.cancel(gamma), eta, 1)


def closed_loop() -> sp.Expr:
    """Value eta d_T of `d <- d - a dLoss/dd`, Loss = (eta d - 1)^2/2, d_0 = 0, solved as a recurrence (P13)."""
    eta, a, d = sp.symbols("eta a d", positive=True)
    T = sp.Symbol("T", integer=True, nonnegative=True)
    f = sp.Function("f")
    step = d - a * sp.diff((eta * d - 1) ** 2 / 2, d)
    found = sp.rsolve(f(T + 1) - sp.expand(step).subs(d, f(T)), f(T), {f(0): 0})
    return sp.simplify(eta * found)
