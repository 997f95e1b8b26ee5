"""Theorem 2 derived with sympy: each function starts from an objective or a condition and solves it.

What comes back is what sympy found, in the symbols below, or a residual that has to vanish. Where H and
its commuting companions are diagonal nothing is lost: the claims turn with the eigenbasis. Two
dimensions stand for the two eigenvectors u_min, u_max that the requests use.
"""

from __future__ import annotations

from functools import cache

import sympy as sp

a, b, tau, theta, Delta, R, margin = sp.symbols("a b tau theta Delta R margin", positive=True)
mu_min, mu_max, f_easy, f_hard = sp.symbols("mu_min mu_max f_easy f_hard", positive=True)
alpha_easy, alpha_hard, lam = sp.symbols("alpha_easy alpha_hard lam", real=True)
g = sp.Matrix(sp.symbols("g0:2", real=True))
A = sp.Matrix(2, 2, sp.symbols("a00 a01 a01 a11", real=True))
H = sp.diag(mu_min, mu_max)


def _stationary(objective: sp.Expr, unknowns: list[sp.Symbol]) -> list[dict[sp.Symbol, sp.Expr]]:
    found: list[dict[sp.Symbol, sp.Expr]] = sp.solve(
        [sp.diff(objective, x) for x in unknowns], unknowns, dict=True
    )
    return found


def _quadratic(x: sp.Matrix, M: sp.Matrix) -> sp.Expr:
    return (x.T * M * x)[0]


# -- the penalized step and its trust region (T2a, L1) ------------------------------------------


def penalized_step(
    g: sp.Matrix = g, A: sp.Matrix = A, F: sp.Matrix | None = None
) -> tuple[sp.Matrix, sp.Matrix]:
    """(37)-(39): the stationary point of `g^T d + d^T A d/2 + lam d^T F d/2`, and its Hessian.

    Args:
        g: gradient of the loss.
        A: curvature, symmetric.
        F: matrix of the regularizer.

    Returns:
        Stationary point, `d`, and Hessian, `d x d`.
    """
    d = sp.Matrix(sp.symbols("d0:2", real=True))
    objective = g.dot(d) + _quadratic(d, A) / 2 + lam * _quadratic(d, sp.eye(2) if F is None else F) / 2
    [found] = _stationary(objective, list(d))
    return d.subs(found), sp.hessian(objective, list(d))


def trust_region_gap() -> sp.Expr:
    """L1: `q(d) - q(delta) - (d - delta)^T (A + lam I) (d - delta)/2 - lam (||delta||^2 - ||d||^2)/2`.

    q is the surrogate without penalty. If the gap vanishes, no d with `||d|| <= ||delta||` has a
    smaller q as soon as `lam >= 0` and `A + lam I > 0`: (41), with multiplier lam.

    Returns:
        The difference, 0.
    """
    delta, hessian = penalized_step()
    d = sp.Matrix(sp.symbols("x0:2", real=True))

    def q(x: sp.Matrix) -> sp.Expr:
        return g.dot(x) + _quadratic(x, A) / 2

    other = _quadratic(d - delta, hessian) / 2 + lam * (delta.dot(delta) - d.dot(d)) / 2
    return sp.simplify(q(d) - q(delta) - other)


def radius_slope() -> sp.Expr:
    """L1: the derivative of `R(lam)^2` by lam, in A's eigenbasis with `s_i = alpha_i + lam > 0`."""
    s = sp.symbols("s0:2", positive=True)
    curvature = sp.diag(alpha_easy, alpha_hard)
    delta, _ = penalized_step(A=curvature)
    slope = sp.diff(delta.dot(delta), lam)
    return sp.simplify(slope.subs({alpha_easy: s[0] - lam, alpha_hard: s[1] - lam}))


# -- ball and ellipsoid (L2, T2b) ---------------------------------------------------------------


@cache
def nested_radii() -> tuple[sp.Expr, sp.Expr]:
    """(42): the extreme `||d||` on the boundary of E(tau), by a Lagrange multiplier.

    The ball of the smaller one is the largest inside: no boundary point lies within it. The ball of
    the larger one is the smallest around.

    Returns:
        Smallest and largest `||d||`.
    """
    x, y, nu = sp.symbols("x y nu", real=True)
    d = sp.Matrix([x, y])
    lagrangian = d.dot(d) - nu * (_quadratic(d, H) - tau**2)
    points = _stationary(lagrangian, [x, y, nu])
    lengths = {sp.sqrt(sp.simplify(d.dot(d).subs(p))) for p in points}
    spread = {mu_min: 1, mu_max: 4, tau: 1}
    small, large = sorted(lengths, key=lambda r: r.subs(spread))
    return small, large


@cache
def largest_share() -> sp.Expr:
    """(43)-(45): the theta up to which `Delta = theta` times the outer radius fits the inner one."""
    inner, outer = nested_radii()
    [found] = sp.solve(theta * outer - inner, theta)
    return found


# -- requests and penalties (T2c, X6, X7) -------------------------------------------------------


def _end(length: sp.Expr, limit: sp.Expr, stiffness: sp.Expr) -> sp.Expr:
    """The lam from which `length <= limit` on, for a length that falls with the stiffness `alpha + lam f`.

    Returns:
        The lam.

    Raises:
        ValueError: the length does not fall, and there is no such lam.
    """
    s = sp.Symbol("s", positive=True)
    [inverse] = sp.solve(stiffness - s, lam)
    along = sp.simplify(length.subs(lam, inverse))
    if not sp.simplify(sp.diff(along, s)).is_negative:
        raise ValueError(f"{along} does not fall")
    [root] = sp.solve(along - limit, s)
    return inverse.subs(s, root)


@cache
def _requests() -> tuple[tuple[sp.Matrix, sp.Expr], tuple[sp.Matrix, sp.Expr]]:
    """Steps of the easy request `-a u_min` and of the hard one `-b u_max`, each with its stiffness."""
    curvature, F = sp.diag(alpha_easy, alpha_hard), sp.diag(f_easy, f_hard)
    gradients = sp.Matrix([-a, 0]), sp.Matrix([0, -b])
    easy, hard = (penalized_step(v, curvature, F)[0] for v in gradients)
    return (easy, alpha_easy + lam * f_easy), (hard, alpha_hard + lam * f_hard)


@cache
def penalties() -> tuple[sp.Expr, sp.Expr]:
    """(46)-(50), X6 (i), X7: `lower <= lam <= upper` from `||delta_e|| >= Delta`, `delta_h` in E(tau).

    With curvature alpha and regularizer F, both diagonal in H's eigenbasis; T2c is alpha = 0, F = I.

    Returns:
        Lower and upper end.
    """
    (easy, soft), (hard, stiff) = _requests()
    return _end(hard[1] * sp.sqrt(mu_max), tau, stiff), _end(easy[0], Delta, soft)


@cache
def largest_ratio(theta_of_limit: bool = False) -> sp.Expr:
    """The b/a at which the penalties of linear requests touch (T2c, X6 i).

    Args:
        theta_of_limit: with `Delta = theta` times the outer radius, as in T2c's relative form.

    Returns:
        The ratio b/a.
    """
    lower, upper = (end.subs({alpha_easy: 0, alpha_hard: 0}) for end in penalties())
    if theta_of_limit:
        upper = upper.subs(Delta, theta * nested_radii()[1])
    [touching] = sp.solve(lower - upper, b)
    return sp.simplify(touching / a)


@cache
def window() -> tuple[sp.Expr, sp.Expr]:
    """X6 (ii): the b/a between which both requests can be safe and reach theta of their own limit.

    Each condition alone leaves an interval of lam; the two intervals have a common point iff neither
    begins after the other's end.

    Returns:
        Lower and upper end of the window.
    """
    linear = {alpha_easy: 0, alpha_hard: 0}
    intervals = []
    for step, stiffness in _requests():
        length = sp.sqrt(_quadratic(step, H)).subs(linear)
        intervals.append([_end(length, limit, stiffness.subs(linear)) for limit in (tau, theta * tau)])
    (easy_from, easy_to), (hard_from, hard_to) = intervals
    [high] = sp.solve(hard_from - easy_to, b)
    [low] = sp.solve(easy_from - hard_to, b)
    return sp.simplify(low / a), sp.simplify(high / a)


@cache
def aligned_step() -> tuple[sp.Matrix, sp.Expr, sp.Expr]:
    """X6 (iii): the least `g^T d` on `d^T H d = R^2` by a Lagrange multiplier, for any g.

    Returns:
        The step, its `d^T H d`, and its `g^T d` relative to the least one in E(tau).
    """
    x, y, nu = sp.symbols("x y nu", real=True)
    p, q = sp.symbols("p q", positive=True)  # g, up to the signs that the axes may be turned by
    d, along = sp.Matrix([x, y]), sp.Matrix([p, q])
    points = _stationary(along.dot(d) + nu * (_quadratic(d, H) - R**2), [x, y, nu])
    [best] = [d.subs(found) for found in points if along.dot(d).subs(found).is_negative]
    reached = along.dot(best)
    step = best.subs({p: g[0], q: g[1]})
    return step, sp.simplify(_quadratic(best, H)), sp.simplify(reached / reached.subs(R, tau))


def cauchy_gap() -> sp.Expr:
    """X7, the sandwich: `(u^T B u)(u^T B^-1 u) - 1` for a unit u, times `det B`; B symmetric.

    A square, so `u^T B^-1 u >= 1/(u^T B u)`: the length along u is at least what `u^T A u` allows.

    Returns:
        The product minus that square, 0.
    """
    t = sp.Symbol("t", real=True)
    u = sp.Matrix([sp.cos(t), sp.sin(t)])
    gap = (_quadratic(u, A) * _quadratic(u, A.inv()) - 1) * A.det()
    across = (sp.Matrix([-sp.sin(t), sp.cos(t)]).T * A * u)[0]
    return sp.simplify(gap - across**2)


def planar_cost_slope() -> sp.Expr:
    """X7 at d = 2: `-dh/dlam` for `h = delta_h^T H delta_h`, curvature `[[s - lam, c], [c, t - lam]]`.

    In s > 0 and `D = s t - c^2 > 0`, the conditions of `A + lam I > 0`.

    Returns:
        The slope.
    """
    s, D = sp.symbols("s D", positive=True)
    c = sp.Symbol("c", real=True)
    p, r = sp.symbols("p r", real=True)
    step, _ = penalized_step(sp.Matrix([0, -b]), sp.Matrix([[p, c], [c, r]]))
    slope = -sp.diff(_quadratic(step, H), lam)
    return sp.factor(slope.subs({p: s - lam, r: (D + c**2) / s - lam}))


# -- margin, the executor's cost, relative ellipsoids (T2d, P3, X5) ------------------------------


def shortest_displacement() -> sp.Expr:
    """T2d: the least `||d||` with `v^T d = margin`, by a Lagrange multiplier; v is g."""
    d = sp.Matrix(sp.symbols("d0:2", real=True))
    nu = sp.Symbol("nu", real=True)
    [found] = _stationary(d.dot(d) + nu * (g.dot(d) - margin), [*d, nu])
    return sp.simplify(sp.sqrt(sp.factor(d.dot(d).subs(found))))


def cheapest_edit() -> sp.Expr:
    """P3: the least `tr(D G D^T)` under `D k = delta`, by multipliers, times `k^T G^-1 k / ||delta||^2`."""
    G = sp.Matrix(2, 2, sp.symbols("g00 g01 g01 g11", real=True))
    k, delta = (sp.Matrix(sp.symbols(f"{name}0:2", real=True)) for name in ("k", "delta"))
    D, nu = sp.Matrix(2, 2, sp.symbols("D0:4", real=True)), sp.Matrix(sp.symbols("nu0:2", real=True))
    cost = (D * G * D.T).trace()
    [found] = _stationary(cost + nu.dot(D * k - delta), [*D, *nu])
    return sp.simplify(cost.subs(found) * _quadratic(k, G.inv()) / delta.dot(delta))


def relative_extremes() -> tuple[sp.Expr, sp.Expr]:
    """X5: the extreme `d^T A d` on `d^T H d = 1`: multipliers nu of `A d = nu H d`.

    Here A is the geometry of E(tau) and H the one of KL's ellipsoid, diagonal.

    Returns:
        Smallest and largest nu.
    """
    nu = sp.Symbol("nu", real=True)
    low, high = sp.solve((A - nu * H).det(), nu)
    return low, high


def proportionality_gap() -> sp.Expr:
    """X5: `(nu_max - nu_min)^2`, times `(mu_min mu_max)^2`, minus its form as a sum of squares.

    The squares vanish together iff A is a multiple of H: only then is the mismatch 1.

    Returns:
        The difference, 0.
    """
    low, high = relative_extremes()
    squares = (A[0, 0] * mu_max - A[1, 1] * mu_min) ** 2 + 4 * mu_min * mu_max * A[0, 1] ** 2
    return sp.simplify((high - low) ** 2 * (mu_min * mu_max) ** 2 - squares)
