"""The scalar cores of Theorem 2, proved for all reals."""

from __future__ import annotations

import z3

from verification import ledger
from verification.ledger import checks
from verification.smt import (
    Real,
    Statement,
    prove,
    reals,
    refute,
    settle,
    without,
)


def surrogate_step() -> tuple[list[Real], z3.BoolRef, Real, Real]:
    """`M = A + lam I` in two dimensions, delta with g = -M delta, another point; the surrogate's rise, without
    the penalty too."""
    p, q, r, x, y, u, v, lam = reals("M_11 M_12 M_22 delta_1 delta_2 x_1 x_2 lam")
    g = (-(p * x + q * y), -(q * x + r * y))
    value = lambda a, b: g[0] * a + g[1] * b + (p * a * a + 2 * q * a * b + r * b * b) / 2  # noqa: E731
    rise = value(u, v) - value(x, y)
    slack = x * x + y * y - u * u - v * v
    return [x, y, u, v, lam, slack], z3.And(p > 0, p * r > q * q), rise, rise + lam * slack / 2


def one_step() -> Statement:
    (x, y, u, v, _, _), convex, rise, _ = surrogate_step()
    return {"convex": convex, "other": z3.Or(x != u, y != v)}, rise > 0, []


@checks("T2a", "proved")
def test_every_other_step_costs_more():
    settle(one_step())


@checks("T2a", "needed", drops="convex")
def test_without_convexity_another_step_costs_no_more():
    p, r, x = reals("M_11 M_22 delta_1")
    without(one_step(), "convex", says="x costs no more than delta", where=z3.And(p > 0, r < 0, x > 0))


def trust_region() -> Statement:
    (_, _, _, _, lam, slack), convex, _, rise = surrogate_step()
    return {"convex": convex, "sign": lam >= 0, "ball": slack >= 0}, rise >= 0, []


@checks("L1", "proved")
def test_nothing_in_the_ball_beats_the_penalized_step():
    """Without the penalty, within the radius."""
    settle(trust_region())


@checks("L1", "needed", drops="convex")
def test_without_convexity_the_ball_holds_better():
    p, lam = reals("M_11 lam")
    without(
        trust_region(),
        "convex",
        says="M = A + lam I, x in the ball is better than delta",
        where=z3.And(p > 0, lam > 0),
    )


@checks("L1", "needed", drops="sign")
def test_a_negative_penalty_is_no_multiplier():
    without(trust_region(), "sign", says="M = A + lam I, x in the ball is better than delta")


def shrinking() -> Statement:
    g, alpha, lam, more = reals("g alpha lam lam_2")
    square = lambda lam: (g / (alpha + lam)) * (g / (alpha + lam))  # noqa: E731
    premises = {"nonzero": g != 0, "convex": alpha + lam > 0, "more": more > lam}
    return premises, square(more) < square(lam), []


@checks("L1", "proved")
def test_radius_falls_with_the_penalty():
    """Along one eigenvector; R^2 is the sum. Strict; without a gradient it stays."""
    settle(shrinking())
    premises, fall, given = shrinking()
    less, right = fall.children()
    prove({k: premises[k] for k in ("convex", "more")}, less <= right, given)


@checks("L1", "needed", drops="nonzero")
def test_without_a_gradient_the_radius_stays():
    without(shrinking(), "nonzero", says="R(lam) = R(lam_2) = 0")


def ellipse() -> tuple[list[Real], Real, Real]:
    """H = diag(mu_1, mu_2), a point; its H-length and its length, squared."""
    m1, m2, x, y, R, tau = reals("mu_1 mu_2 x y R tau")
    return [m1, m2, x, y, R, tau], m1 * x * x + m2 * y * y, x * x + y * y


@checks("L2", "proved")
def test_ball_within_the_ellipse():
    """Iff `R^2 mu_max <= tau^2`: every point of such a ball; and of a larger one, one that is outside.

    This half asks for no definiteness.
    """
    (m1, m2, x, y, R, tau), inside, length = ellipse()
    statement = (
        {"radius": R * R * m2 <= tau * tau, "ball": length <= R * R},
        inside <= tau * tau,
        [m1 <= m2],
    )
    settle(statement)
    witness = [m1 <= m2, x == 0, y == R]
    prove({"too large": R * R * m2 > tau * tau}, z3.And(length == R * R, inside > tau * tau), witness)


@checks("L2", "proved")
def test_ellipse_within_the_ball():
    """Iff `R^2 mu_min >= tau^2`; the ratio of the two radii is sqrt(kappa)."""
    (m1, m2, x, y, R, tau), inside, length = ellipse()
    premises = {"radius": R * R * m1 >= tau * tau, "inside": inside <= tau * tau}
    settle((premises, length <= R * R, [m1 <= m2, tau > 0]))
    witness = [m1 > 0, m1 <= m2, y == 0, m1 * x * x == tau * tau]
    prove({"too small": R * R * m1 < tau * tau}, z3.And(inside == tau * tau, length > R * R), witness)
    r, s, root = reals("R_in R_out sqrt_kappa")
    radii = [r * r * m2 == tau * tau, s * s * m1 == tau * tau, root * root * m1 == m2]
    prove({"definite": m1 > 0}, s == root * r, [*radii, r > 0, s > 0, root > 0])


@checks("L2", "needed", drops="definite")
def test_a_singular_geometry_has_no_outer_ball():
    (m1, m2, _, _, R, tau), inside, length = ellipse()
    ball, large = length <= R * R, [m2 == 1, tau == 1, R == 1000]
    prove({"inside": inside <= tau * tau, "definite": R * R * m1 >= 1}, ball, large)
    text = refute({"inside": inside <= tau * tau}, ball, [*large, m1 == 0])
    ledger.counterexample(f"{text}: (x, y) is in E(tau) and not in the ball, so for every R")


@checks("T2b", "proved")
def test_no_radius_serves_iff_progress_passes_the_inner_ball():
    """s = sqrt(mu_max). Radii that serve leave Delta s <= tau; and if so, R = Delta serves."""
    R, progress, tau, s, mu = reals("R Delta tau s mu_max")
    root = [s * s == mu, s > 0, tau > 0]
    serves = {"progress": progress <= R, "safety": R * R * mu <= tau * tau}
    settle((serves, progress * s <= tau, root))
    settle(
        ({"room": progress * s <= tau, "positive": progress > 0}, progress * progress * mu <= tau * tau, root)
    )


def relative_progress() -> Statement:
    """theta sqrt(kappa) > 1, squared, against Delta sqrt(mu_max) > tau."""
    theta, progress, tau, low, high = reals("theta Delta tau mu_min mu_max")
    premises = {"relative": progress * progress * low == theta * theta * tau * tau}
    trap = theta * theta * high > low
    return (
        premises,
        trap == (progress * progress * high > tau * tau),
        [theta > 0, progress > 0, tau > 0, low > 0, low <= high],
    )


@checks("T2b", "proved")
def test_the_relative_form_is_the_same_condition():
    settle(relative_progress())


@checks("T2b", "needed", drops="relative")
def test_condition_alone_decides_nothing_for_a_ball():
    without(
        relative_progress(), "relative", says="theta sqrt(kappa) > 1 and Delta > tau/sqrt(mu_max) disagree"
    )


def containment() -> Statement:
    """That one displacement is safe, its length then fits the inner ball: true along u_max only."""
    (m1, m2, x, _, _, tau), inside, length = ellipse()
    premises = {"containment": x == 0, "safe": inside <= tau * tau}
    return premises, length * m2 <= tau * tau, [m1 > 0, m1 <= m2, tau > 0]


@checks("T2b", "needed", drops="containment")
def test_one_displacement_can_be_safe_where_its_ball_is_not():
    prove(*containment())
    without(containment(), "containment", says="(x, y) is safe and longer than tau/sqrt(mu_max)")


def requests() -> tuple[list[Real], list[z3.BoolRef]]:
    """a, b, Delta, tau, s = sqrt(mu_max), all positive; lam, not zero."""
    values = reals("a b Delta tau s lam")
    return values, [*(x > 0 for x in values[:-1]), values[-1] != 0]


@checks("T2c", "proved")
def test_no_penalty_serves_iff_the_interval_is_empty():
    """s = sqrt(mu_max). Each demand is an end of the interval; a penalty that meets both, and a/Delta if it is not empty."""
    (a, b, progress, tau, s, lam), positive = requests()
    far = (a / lam) * (a / lam) >= progress * progress
    safe = (b / lam) * (b / lam) * s * s <= tau * tau
    prove({"penalty": lam > 0}, far == (lam <= a / progress), positive)
    prove({"penalty": lam > 0}, safe == (lam >= b * s / tau), positive)
    room = b * s / tau <= a / progress
    settle(({"progress": far, "safety": safe}, room, positive))
    settle(({"room": room, "choice": lam == a / progress}, z3.And(far, safe, lam > 0), positive))


def relative_requests() -> Statement:
    """theta (b/a) sqrt(kappa) > 1, s_e^2 = mu_min, s^2 = mu_max."""
    (a, b, progress, tau, s, _), positive = requests()
    theta, low = reals("theta s_e")
    premises = {"relative": progress * low == theta * tau}
    trap = theta * (b / a) * (s / low) > 1
    return premises, trap == (b * s / tau > a / progress), [*positive, theta > 0, low > 0, low <= s]


@checks("T2c", "proved")
def test_the_relative_condition_decides():
    settle(relative_requests())


def kappa_alone(high: bool) -> Statement:
    """With equal gradients the condition number decides; the ratio b/a undoes that, either way."""
    (a, b, _, _, s, _), positive = requests()
    theta, low = reals("theta s_e")
    trap = theta * (b / a) * (s / low) > 1
    given = [*positive, theta > 0, theta <= 1, low > 0, low <= s]
    kappa = theta * s > low if high else theta * s <= low
    return {"gradients": a == b, "kappa": kappa}, trap if high else z3.Not(trap), given


@checks("T2c", "needed", drops="gradients")
def test_condition_alone_decides_nothing_for_two_requests():
    settle(kappa_alone(high=True))
    settle(kappa_alone(high=False))
    without(kappa_alone(high=True), "gradients", says="theta sqrt(kappa) > 1, kappa = (s/s_e)^2, and no trap")


def margin() -> Statement:
    """v . delta >= m in two dimensions, the displacement confined to the first axis."""
    v, w, x, y, m = reals("v_1 v_2 delta_1 delta_2 m")
    premises = {"margin": v * x + w * y >= m, "positive": m > 0}
    return premises, (x * x + y * y) * (v * v + w * w) >= m * m, []


@checks("T2d", "proved")
def test_margin_needs_length():
    settle(margin())
    settle(length_suffices())
    settle(confined())


def length_suffices() -> Statement:
    """`||delta|| ||v|| >= m`, delta = c v with c >= 0."""
    v, w, x, y, m, c = reals("v_1 v_2 delta_1 delta_2 m c")
    premises = {
        "parallel": z3.And(x == c * v, y == c * w, c >= 0),
        "length": (x * x + y * y) * (v * v + w * w) >= m * m,
    }
    return premises, v * x + w * y >= m, []


def confined() -> Statement:
    """A displacement along the first axis: what counts is v_1."""
    v, w, x, y, m = reals("v_1 v_2 delta_1 delta_2 m")
    premises = {"margin": v * x + w * y >= m, "positive": m > 0, "confined": y == 0}
    return premises, (x * x + y * y) * v * v >= m * m, []


@checks("T2d", "needed", drops="parallel")
def test_length_in_another_direction_does_not_suffice():
    m = z3.Real("m")
    without(length_suffices(), "parallel", says="||delta|| ||v|| >= m and v . delta < m", where=m > 0)


@checks("T2d", "needed", drops="confined")
def test_off_the_axis_the_whole_gradient_counts():
    v = z3.Real("v_1")
    without(confined(), "confined", says="the margin is reached with less than m/|v_1|", where=v > 0)


@checks("P3", "proved")
def test_least_cost_of_a_displacement():
    """G = diag(g_1, g_2), D k = delta: at least delta^2/rho, with equality at `delta k^T G^-1/rho` only."""
    g, h, k, m, x, y, rho = reals("g_1 g_2 k_1 k_2 D_1 D_2 rho")
    delta, price = x * k + y * m, g * x * x + h * y * y
    given = [rho == k * k / g + m * m / h, rho > 0, g > 0, h > 0]
    prove({}, price >= delta * delta / rho, given)
    at = z3.And(x * g * rho == delta * k, y * h * rho == delta * m)
    prove({}, (price == delta * delta / rho) == at, given)


def reachable() -> Statement:
    """Whether some D realizes delta: D = delta k/(g rho) does."""
    g, k, D, delta, rho = reals("g k D delta rho")
    return {"nonzero": rho > 0}, D * k == delta, [rho * g == k * k, g > 0, D * g * rho == delta * k]


@checks("P3", "needed", drops="nonzero")
def test_without_a_key_nothing_is_realized():
    settle(reachable())
    without(reachable(), "nonzero", says="rho = k^2/g = 0, D k is not delta")


@checks("P3", "proved")
def test_shared_penalties_under_the_executor_s_cost():
    """s = sqrt(rho_hard): as T2c with 1/s for the root of the eigenvalue."""
    (a, b, progress, tau, s, lam), positive = requests()
    far = (a / lam) * (a / lam) >= progress * progress
    safe = (b / lam) * (b / lam) <= tau * tau * s * s
    room = b / (tau * s) <= a / progress
    settle(({"progress": far, "safety": safe}, room, positive))
    settle(({"room": room, "choice": lam == a / progress}, z3.And(far, safe, lam > 0), positive))


def kl() -> tuple[list[Real], list[z3.BoolRef]]:
    """F = diag(f_1, f_2), H = diag(h_1, h_2), ordered such that nu_1 = h_1/f_1 <= nu_2 = h_2/f_2."""
    f1, f2, h1, h2 = reals("f_1 f_2 h_1 h_2")
    return [f1, f2, h1, h2], [f1 > 0, f2 > 0, h1 > 0, h2 > 0, h1 * f2 <= h2 * f1]


@checks("X5", "proved")
def test_kl_s_ellipse_within_the_feasible_one():
    (f1, f2, h1, h2), order = kl()
    x, y, s, tau = reals("x y s tau")
    within = f1 * x * x + f2 * y * y <= s * s
    small = s * s * h2 <= tau * tau * f2
    settle(({"small": small, "within": within}, h1 * x * x + h2 * y * y <= tau * tau, order))
    prove(
        {"large": s * s * h2 > tau * tau * f2},
        z3.And(within, h2 * y * y > tau * tau),
        [*order, x == 0, f2 * y * y == s * s],
    )


@checks("X5", "proved")
def test_relative_condition_lies_between_its_bounds():
    (f1, f2, h1, h2), order = kl()
    cond, f, h, F, H = reals("cond f_low h_low f_high h_high")
    ends = [
        z3.And(
            low <= x, low <= y, high >= x, high >= y, z3.Or(low == x, low == y), z3.Or(high == x, high == y)
        )
        for low, high, x, y in ((f, F, f1, f2), (h, H, h1, h2))
    ]
    given = [*order, *ends, cond * h1 * f2 == h2 * f1]
    prove(
        {},
        z3.And(cond >= 1, cond <= (F / f) * (H / h), cond >= (F / f) / (H / h), cond >= (H / h) / (F / f)),
        given,
    )
    settle(proportional())


def proportional() -> Statement:
    (f1, f2, h1, h2), order = kl()
    cond = z3.Real("cond")
    return {"proportional": h1 * f2 == h2 * f1}, cond == 1, [*order, cond * h1 * f2 == h2 * f1]


@checks("X5", "needed", drops="proportional")
def test_same_eigenvectors_are_not_enough_for_a_match():
    without(proportional(), "proportional", says="the mismatch sqrt(cond) is not 1")


@checks("X6", "proved")
def test_one_sided_limit_of_a_regularizer():
    """(i): step sizes a/(lam f_e) and b/(lam f_h), s = sqrt(mu_max)."""
    (a, b, progress, tau, s, lam), positive = requests()
    e, h = reals("f_e f_h")
    given = [*positive, e > 0, h > 0]
    easy, hard = a / (lam * e), b / (lam * h)
    far, safe = easy * easy >= progress * progress, hard * hard * s * s <= tau * tau
    room = b / a <= tau * h / (progress * e * s)
    settle(({"progress": far, "safety": safe}, room, given))
    settle(({"room": room, "choice": lam == a / (progress * e)}, z3.And(far, safe, lam > 0), given))


@checks("X6", "proved")
def test_a_regularizer_moves_the_window_and_keeps_its_width():
    """(ii): H-lengths over tau are u/lam and w/lam, `u = a s_e/(tau f_e)`, `w = b s_h/(tau f_h)`: w/u in the window."""
    u, w, lam, theta = reals("u w lam theta")
    given = [u > 0, w > 0, lam != 0, theta > 0, theta <= 1]
    good = lambda x: z3.And(theta <= x / lam, x / lam <= 1)  # noqa: E731
    window = z3.And(theta <= w / u, w / u <= 1 / theta)
    settle(({"easy": good(u), "hard": good(w)}, window, given))
    larger = z3.If(u >= w, u, w)
    settle(({"window": window, "choice": lam == larger}, z3.And(good(u), good(w), lam > 0), given))
    a, b, tau, low, s, e, h = reals("a b tau s_e s f_e f_h")
    shares = [u == a * low / (tau * e), w == b * s / (tau * h)]
    prove({}, w / u == (b / a) * (s / low) * (e / h), [x > 0 for x in (a, b, tau, low, s, e, h)] + shares)


@checks("X6", "proved")
def test_an_aligned_region_serves_every_eigen_aligned_request():
    """(iii): `delta = R u_i/s_i`, mu_i = s_i^2: safe, and at theta of its own limit tau/s_i; and it is the best."""
    R, theta, tau, s, x, delta, g = reals("R theta tau s_i x delta g")
    given = [s > 0, tau > 0, theta > 0, R > 0]
    step = {"step": delta == R / s}
    statement = (
        step | {"region": tau >= R, "reach": theta * tau <= R},
        z3.And(delta * delta * s * s <= tau * tau, delta >= theta * tau / s),
        given,
    )
    settle(statement)
    settle((step | {"along": g >= 0, "within": x * x * s * s <= R * R}, g * x <= g * delta, given))


@checks("X7", "proved")
def test_shared_penalties_with_curvature():
    """Steps a/(alpha_e + lam), b/(alpha_h + lam); lam0 a floor of both curvatures.

    That the interval is not empty is enough by itself: at its end both curvatures are convex.
    """
    (a, b, progress, tau, s, lam), positive = requests()
    e, h, floor = reals("alpha_e alpha_h lam_0")
    easy, hard = a / (e + lam), b / (h + lam)
    far, safe = easy * easy >= progress * progress, hard * hard * s * s <= tau * tau
    convex = {"floor": z3.And(floor >= -e, floor >= -h), "above": lam > floor}
    upper, lower = a / progress - e, b * s / tau - h
    prove(convex, z3.And(far == (lam <= upper), safe == (lam >= lower)), positive)
    settle((convex | {"progress": far, "safety": safe}, z3.And(upper > floor, lower <= upper), positive))
    room = {"room": lower <= upper, "easy": upper > floor, "choice": lam == upper}
    settle((room, z3.And(far, safe, lam > floor), positive))


@checks("X7", "proved")
def test_steps_of_the_sandwich():
    """Two eigenvalues x, y of A + lam I with weights p + q = 1 of u: length from above, quadratic form from below."""
    p, q, x, y, least = reals("p q x y least")
    weights = z3.And(p >= 0, q >= 0, p + q == 1)
    positive = z3.And(x > 0, y > 0)
    length = p / (x * x) + q / (y * y)
    floor = z3.And(x >= least, y >= least)
    statement = (
        {"weights": weights, "floor": floor, "positive": least > 0},
        length <= 1 / (least * least),
        [],
    )
    settle(statement)
    mean = p * x + q * y
    settle(({"weights": weights, "positive": positive}, p / x + q / y >= 1 / mean, [mean > 0]))
