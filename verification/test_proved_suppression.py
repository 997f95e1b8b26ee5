"""The scalar cores of Theorem 1 and of batches, proved for all reals."""

from __future__ import annotations

from fractions import Fraction

import pytest
import z3

from theory import suppression
from verification import ledger
from verification.ledger import checks
from verification.smt import (
    Real,
    Statement,
    absolute,
    prove,
    reals,
    refute,
    settle,
    steep,
    without,
)

# -- Theorem 1 -----------------------------------------------------------------------------------


@checks("T1", "proved")
def test_edit_in_two_dimensions_realizes_the_attenuated_residual():
    """Any symmetric invertible G: from the normal equations alone."""
    a, b, c, k1, k2, r, D1, D2, rho = reals("g_11 g_12 g_22 k_1 k_2 r D_1 D_2 rho")
    first, second = D1 * (a + k1 * k1) + D2 * (b + k1 * k2), D1 * (b + k1 * k2) + D2 * (c + k2 * k2)
    definition = rho * (a * c - b * b) == k1 * k1 * c - 2 * k1 * k2 * b + k2 * k2 * a
    statement = (
        {"first": first == r * k1, "second": second == r * k2},
        D1 * k1 + D2 * k2 == suppression.attenuation(rho) * r,
        [definition, a * c != b * b, 1 + rho != 0],
    )
    settle(statement)


def one_minimizer() -> Statement:
    """A step E raises the objective by `E (G + k k^T) E^T`."""
    a, b, c, k1, k2, x, y = reals("g_11 g_12 g_22 k_1 k_2 E_1 E_2")
    rise = x * x * (a + k1 * k1) + 2 * x * y * (b + k1 * k2) + y * y * (c + k2 * k2)
    definite = z3.And(a > 0, a * c > b * b)
    return {"definite": definite, "step": z3.Or(x != 0, y != 0)}, rise > 0, []


@checks("T1", "proved")
def test_every_other_edit_costs_more():
    settle(one_minimizer())


@checks("T1", "needed", drops="definite")
def test_an_indefinite_geometry_has_cheaper_edits():
    g, low, k = reals("g_11 g_22 k_1")
    telling = z3.And(g > 0, low < 0, k > 0)
    without(one_minimizer(), "definite", says="the step E does not raise the objective", where=telling)


def spectral_form() -> Statement:
    m1, m2, c, s, k1, k2, rho = reals("mu_1 mu_2 U_11 U_21 k_1 k_2 rho")
    g11, g12, g22 = c * c * m1 + s * s * m2, c * s * (m1 - m2), s * s * m1 + c * c * m2
    a1, a2 = c * k1 + s * k2, -s * k1 + c * k2
    definition = rho * (g11 * g22 - g12 * g12) == k1 * k1 * g22 - 2 * k1 * k2 * g12 + k2 * k2 * g11
    given = [definition, m1 > 0, m2 > 0, c * c + s * s > 0]
    return {"orthonormal": c * c + s * s == 1}, rho == a1 * a1 / m1 + a2 * a2 / m2, given


@checks("T1a", "proved")
def test_realizability_from_the_spectrum_in_two_dimensions():
    settle(spectral_form())


@checks("T1a", "needed", drops="orthonormal")
def test_columns_of_another_length_give_another_number():
    c, s = reals("U_11 U_21")
    without(
        spectral_form(),
        "orthonormal",
        says="U = [[U_11, -U_21], [U_21, U_11]], the sum is not rho",
        where=z3.And(c > 0, s > 0),
    )


def suppression_bound(inside: int, outside: int) -> Statement:
    """`inside` protected eigenvectors and `outside` others, any spectrum."""
    norm, eps, height, least = reals("norm eps M mu_min")
    a, mu = (z3.Reals([f"{name}_{i + 1}" for i in range(inside + outside)]) for name in ("a", "mu"))
    square = sum(x * x for x in a)
    rho = sum(x * x / m for x, m in zip(a, mu, strict=True))
    premises = {
        "share": eps <= 1,
        "outside": sum(x * x for x in a[inside:]) <= eps * square,
        "smallest": z3.And(*(least <= m for m in mu)),
        "height": z3.And(*(height <= m for m in mu[:inside])),
        "positive": least > 0,
        "positive height": height > 0,
    }
    bound = suppression.suppression_bound(norm, eps, height, least)
    return premises, rho <= bound, [norm * norm == square, norm >= 0, *(m > 0 for m in mu)]


@pytest.mark.parametrize(("inside", "outside"), [(1, 1), (2, 1), (1, 2)])
@checks("T1b", "proved")
def test_suppression_bound(inside: int, outside: int):
    settle(suppression_bound(inside, outside))


@checks("T1b", "proved")
def test_suppression_bound_of_any_dimension():
    """x, y: squares inside and outside; the three sums are bounded term by term, `a^2/mu <= a^2/M`."""
    a, mu, height = reals("a mu M")
    settle(({"height": height <= mu, "positive": height > 0}, a * a / mu <= a * a / height, [mu > 0]))
    norm, eps, least, x, y, inner, outer = reals("norm eps mu_min x y rho_in rho_out")
    premises = {
        "share": eps <= 1,
        "outside": y <= eps * (x + y),
        "inner sum": inner <= x / height,
        "outer sum": outer <= y / least,
        "smallest": inner <= x / least,
    }
    bound = suppression.suppression_bound(norm, eps, height, least)
    statement = (
        premises,
        inner + outer <= bound,
        [norm * norm == x + y, norm >= 0, x >= 0, y >= 0, least > 0, height > 0],
    )
    settle(statement)


@checks("T1b", "unneeded", drops="order")
def test_height_may_lie_below_the_smallest_eigenvalue():
    premises, conclusion, given = suppression_bound(1, 1)
    height, least = reals("M mu_min")
    prove(premises | {"below": height < least}, conclusion, given)


@checks("T1b", "needed", drops="share")
def test_a_share_above_one_breaks_the_bound():
    without(suppression_bound(1, 1), "share", says="rho = a_1^2/mu_1 + a_2^2/mu_2 is above the bound")


@checks("T1b", "needed", drops="smallest")
def test_the_smallest_eigenvalue_is_one_of_all():
    without(suppression_bound(1, 1), "smallest", says="rho = a_1^2/mu_1 + a_2^2/mu_2 is above the bound")


@checks("T1b", "needed", drops="height")
def test_a_height_above_a_protected_eigenvalue_breaks_the_bound():
    without(suppression_bound(1, 1), "height", says="rho = a_1^2/mu_1 + a_2^2/mu_2 is above the bound")


def suppression_limit() -> Statement:
    norm, height, a, b, m1, m2 = reals("norm M a_1 a_2 mu_1 mu_2")
    eta = suppression.attenuation(a * a / m1 + b * b / m2)
    premises = {"inside": b == 0, "height": height <= m1, "positive": height > 0}
    given = [norm * norm == a * a + b * b, norm >= 0, m1 > 0, m2 > 0]
    return premises, eta <= suppression.suppression_limit(norm, height), given


@checks("T1c", "proved")
def test_suppression_limit():
    settle(suppression_limit())


@checks("T1c", "proved")
def test_suppression_limit_tends_to_zero_at_rate_one_over_the_height():
    norm, height, aim = reals("norm M aim")
    limit = suppression.suppression_limit(norm, height)
    settle(({"high": height * aim >= norm * norm, "height": height > 0}, limit <= aim, []))
    settle(({"height": height > 0}, z3.And(limit >= 0, limit * height <= norm * norm), []))


@checks("T1c", "needed", drops="inside")
def test_a_trace_outside_lifts_the_limit():
    without(suppression_limit(), "inside", says="eta is above ||k||^2/(M + ||k||^2)")


@checks("T1d", "proved")
def test_attenuation_is_a_share():
    """In [0, 1), zero for rho = 0 only, growing with rho; and it falls strictly as G is scaled up."""
    rho, more, k, g = reals("rho rho_2 k g")
    eta = suppression.attenuation
    settle(({"rho": rho >= 0}, z3.And(eta(rho) >= 0, eta(rho) < 1, (eta(rho) == 0) == (rho == 0)), []))
    settle(({"rho": rho >= 0, "order": rho <= more}, eta(rho) <= eta(more), [1 + more > 0, 1 + rho != 0]))
    prove({}, (eta(k * k / g) == 0) == (k == 0), [g > 0])
    settle(strict_fall())


def strict_fall() -> Statement:
    c, k, g = reals("c k g")
    eta = suppression.attenuation
    return {"nonzero": k != 0, "factor": c > 1, "positive": g > 0}, eta(k * k / (c * g)) < eta(k * k / g), []


def loewner() -> Statement:
    """`G_1 = diag(g_1, g_2)` in its eigenbasis; `G_2 - G_1 = [[p, q], [q, r]]`. rho as form over determinant."""
    g1, g2, p, q, r, k1, k2, rho1, rho2 = reals("g_1 g_2 p q r k_1 k_2 rho_1 rho_2")
    det = (g1 + p) * (g2 + r) - q * q
    form = k1 * k1 * (g2 + r) - 2 * k1 * k2 * q + k2 * k2 * (g1 + p)
    given = [
        rho1 * g1 * g2 == k1 * k1 * g2 + k2 * k2 * g1,
        rho2 * det == form,
        g1 > 0,
        g2 > 0,
        g1 + p > 0,
        det > 0,
    ]
    return {"loewner": z3.And(p >= 0, r >= 0, p * r >= q * q)}, rho2 <= rho1, given


@checks("T1d", "proved")
def test_a_larger_geometry_attenuates_more():
    settle(loewner())


@checks("T1d", "needed", drops="loewner")
def test_larger_eigenvalues_are_not_enough():
    """Both eigenvalues of G_2 are at least those of G_1, by the signs of det(G_2 - g_i I)."""
    premises, conclusion, given = loewner()
    g1, g2, p, q, r = reals("g_1 g_2 p q r")
    smaller = z3.And(g1 <= g2, p * (g2 + r - g1) >= q * q, g1 <= g2 + r + p)
    larger = (g1 + p - g2) * r <= q * q
    prove(premises, conclusion, given)
    text = refute({"eigenvalues": z3.And(smaller, larger)}, conclusion, given)
    ledger.counterexample(f"{text}: both eigenvalues of G + [[p, q], [q, r]] are larger, and so is rho")


@checks("T1d", "needed", drops="nonzero")
def test_a_zero_key_has_nothing_to_lose():
    without(strict_fall(), "nonzero", says="eta stays 0")


def projection() -> Statement:
    """`P = diag(1, 0)`, X = (x, 0): any other x costs more than `r k_1/(beta + k_1^2)`."""
    beta, k, r, x, best = reals("beta k_1 r x x_best")
    cost = lambda x: (x * k - r) * (x * k - r) + beta * x * x  # noqa: E731
    given = [best * (beta + k * k) == r * k]
    return {"ridge": beta > 0, "other": x != best}, cost(x) > cost(best), given


@checks("T1e", "proved")
def test_projected_edit_is_the_one_minimizer():
    settle(projection())
    beta, k, r, best = reals("beta k_1 r x_best")
    share = suppression.attenuation(k * k / beta)
    realized = z3.And(best * k == share * r, share == k * k / (beta + k * k))
    settle(({"best": best * (beta + k * k) == r * k}, realized, [beta > 0]))


@checks("T1e", "needed", drops="ridge")
def test_without_a_ridge_there_is_no_one_minimizer():
    k, r = reals("k_1 r")
    without(projection(), "ridge", says="x costs no more than x_best", where=z3.And(k > 0, r > 0))


@checks("T1e", "proved", refutes=True)
def test_the_raw_key_leaves_the_range():
    """(31): second entry of `r k^T/(beta + ||k||^2)`; zero iff the key lies within or nothing is asked."""
    beta, k1, k2, r = reals("beta k_1 k_2 r")
    outside = r * k2 / (beta + k1 * k1 + k2 * k2)
    prove({}, (outside == 0) == z3.Or(k2 == 0, r == 0), [beta > 0])
    text = refute({}, outside == 0, [beta > 0])
    ledger.counterexample(f"P = diag(1, 0), {text}: (31) has an entry outside P")


def history() -> Statement:
    """Within range(P) two dimensions: `beta I + h h^T` against `beta I`, the key along the first axis."""
    beta, p, h1, h2, rho = reals("beta p h_1 h_2 rho")
    definition = rho * beta * (beta + h1 * h1 + h2 * h2) == p * p * (beta + h2 * h2)
    return {"orthogonal": h1 * p == 0}, rho == p * p / beta, [definition, beta > 0]


@checks("T1f", "proved")
def test_history_only_attenuates():
    """At most the rho without, and equal iff the earlier key is orthogonal."""
    premises, equality, given = history()
    beta, p, rho = reals("beta p rho")
    settle((premises, equality, given))
    prove({}, rho <= p * p / beta, given)
    prove({}, equality == premises["orthogonal"], given)


@checks("T1f", "needed", drops="orthogonal")
def test_an_overlapping_history_attenuates():
    without(history(), "orthogonal", says="rho with the history is below p^2/beta")


@checks("P15", "proved")
def test_ridge_is_within_one_over_the_penalty_of_its_limit():
    """eta_t - eta_P lies between 0 and `||(I-P) k||^2/(beta + t)`."""
    beta, t, k1, k2 = reals("beta t k_1 k_2")
    eta = suppression.attenuation
    gap = eta(k1 * k1 / beta + k2 * k2 / (beta + t)) - eta(k1 * k1 / beta)
    bound = k2 * k2 / (beta + t)
    settle(({"ridge": beta > 0, "penalty": t > -beta}, z3.And(gap >= 0, gap <= bound), []))


# -- batches -------------------------------------------------------------------------------------


@checks("X2", "proved")
def test_eigenvalues_of_what_a_batch_keeps():
    """Two keys: an eigenvector of S is one of B, from `B (I + S) = S`; and s/(1+s) is in [0, 1), growing."""
    a, c, b, s, x, y = reals("S_11 S_12 S_22 s v_1 v_2")
    B = z3.Reals("B_11 B_12 B_21 B_22")
    definition = [
        B[0] * (1 + a) + B[1] * c == a,
        B[0] * c + B[1] * (1 + b) == c,
        B[2] * (1 + a) + B[3] * c == c,
        B[2] * c + B[3] * (1 + b) == b,
    ]
    eigen = z3.And(a * x + c * y == s * x, c * x + b * y == s * y)
    share = suppression.attenuation(s)
    mapped = z3.And(B[0] * x + B[1] * y == share * x, B[2] * x + B[3] * y == share * y)
    settle(({"eigenvector": eigen}, mapped, [*definition, 1 + s != 0]))


def two_keys() -> tuple[list[Real], z3.BoolRef, Real, Real]:
    """S = [[a, c], [c, b]] >= 0, and the first row of B."""
    a, b, c = reals("rho_1 rho_2 c")
    det = (1 + a) * (1 + b) - c * c
    return [a, b, c], z3.And(a >= 0, b >= 0, a * b >= c * c), (a * (1 + b) - c * c) / det, c / det


def crosstalk() -> Statement:
    (a, _, c), gram, own, _ = two_keys()
    return {"gram": gram, "orthogonal": c == 0}, own == suppression.attenuation(a), []


@checks("X3", "proved")
def test_crosstalk_lowers_what_an_edit_keeps_of_itself():
    """`S = [[rho_1, c], [c, rho_2]]`; it also says that B_11 falls as a second key joins."""
    (a, _, c), gram, own, _ = two_keys()
    alone = suppression.attenuation(a)
    settle(({"gram": gram}, own <= alone, []))
    prove({}, (own == alone) == (c == 0), [gram])


@checks("X3", "needed", drops="orthogonal")
def test_overlapping_keys_keep_less_of_themselves():
    without(crosstalk(), "orthogonal", says="B_11 is below rho_1/(1 + rho_1)")


def own_residual() -> Statement:
    r1, r2 = reals("r_1 r_2")
    _, gram, own, cross = two_keys()
    realized = own * r1 + cross * r2
    return {"coefficient": r2 == 0, "gram": gram}, realized * realized <= r1 * r1, []


@checks("X3", "proved")
def test_an_edit_alone_realizes_no_more_than_its_residual():
    settle(own_residual())


@checks("X3", "needed", drops="coefficient")
def test_a_neighbor_can_add_to_a_residual():
    r = z3.Real("r_1")
    without(
        own_residual(),
        "coefficient",
        says="S = [[rho_1, c], [c, rho_2]], more than r_1 is realized",
        where=r > 0,
    )


@checks("X3", "proved")
def test_shortfall_of_a_batch():
    """In the eigenbasis of S, two directions."""
    s1, s2, least, x, y = reals("s_1 s_2 s_min R_1 R_2")
    left = (x / (1 + s1)) * (x / (1 + s1)) + (y / (1 + s2)) * (y / (1 + s2))
    right = (x * x + y * y) / ((1 + least) * (1 + least))
    settle(({"first": s1 >= least, "second": s2 >= least, "floor": least > -1}, left <= right, []))


@checks("X13", "proved")
def test_two_edits_share_the_rank_of_their_keys():
    """B_11 + B_22 is below 2, and below 1 where the keys are parallel."""
    (a, b, c), gram, first, _ = two_keys()
    second = (b * (1 + a) - c * c) / ((1 + a) * (1 + b) - c * c)
    settle(({"gram": gram}, first + second < 2, []))
    settle(({"gram": gram, "parallel": a * b == c * c}, first + second < 1, []))


@checks("X14", "proved")
def test_what_one_edit_costs_and_where_a_price_ends():
    """`(r - eta r) eta r = (eta r)^2/rho`, and no y has less `(y - x)^2 + alpha y^2/rho` than alpha's share of x."""
    rho, r, price, x, y = reals("rho r alpha x y")
    realized = suppression.attenuation(rho) * r
    prove({}, (r - realized) * realized == realized * realized / rho, [rho > 0])

    def paid(shift):
        return (shift - x) * (shift - x) + price * shift * shift / rho

    prove({}, paid(y) >= paid(x * rho / (price + rho)), [rho > 0, price >= 0])


@checks("P4", "proved")
def test_compensation():
    """One edit: eta times delta/eta; two keys: B is invertible iff S is."""
    rho, delta = reals("rho delta")
    eta = suppression.attenuation(rho)
    prove({}, eta * (delta / eta) == delta, [rho > 0])
    prove({}, delta / eta == delta * (1 + 1 / rho), [rho > 0])
    settle(invertible())


def invertible() -> Statement:
    (a, b, c), gram, own, cross = two_keys()
    other = (b * (1 + a) - c * c) / ((1 + a) * (1 + b) - c * c)
    return {"independent": a * b != c * c, "gram": gram}, own * other - cross * cross > 0, []


@checks("P4", "needed", drops="independent")
def test_dependent_keys_cannot_be_compensated():
    a = z3.Real("rho_1")
    without(invertible(), "independent", says="S = [[rho_1, c], [c, rho_2]], B is singular", where=a > 0)


@checks("P8", "proved")
def test_typical_attenuation_by_jensen():
    """eta lies below its tangent at the mean; averaged, below eta of the mean."""
    rho, mean = reals("rho mean")
    eta = suppression.attenuation
    tangent = eta(mean) + (rho - mean) / ((1 + mean) * (1 + mean))
    settle(({"rho": rho > -1}, eta(rho) <= tangent, [1 + mean > 0]))


def high_eigenvalue() -> Statement:
    k, fixed, mu, aim = reals("k k_0 mu aim")
    return {"fixed": k == fixed, "high": mu * aim >= fixed * fixed}, k * k / mu <= aim, [mu > 0]


@checks("P9", "proved")
def test_a_key_that_stays_put_is_suppressed():
    settle(high_eigenvalue())


@checks("P9", "needed", drops="fixed")
def test_a_key_that_moves_is_not():
    k = z3.Real("k_0")
    without(high_eigenvalue(), "fixed", says="mu is high for k_0, rho = k^2/mu is above the aim", where=k > 0)


@checks("P10", "proved")
def test_slope_of_attenuation_along_the_key():
    """`2 sqrt(rho)/(1 + rho)^2 <= 3 sqrt(3)/8`, s^2 = rho, t^2 = 3; equal at rho = 1/3 only."""
    s, t = reals("s t")
    root = [t * t == 3, t > 0]
    prove({}, 16 * s <= 3 * t * (1 + s * s) * (1 + s * s), root)
    prove({}, (16 * s == 3 * t * (1 + s * s) * (1 + s * s)) == (s * t == 1), root)


@checks("P10", "proved")
def test_slope_of_attenuation_along_the_geometry():
    """`rho/(1 + rho)^2 <= 1/4`, equal at rho = 1 only."""
    rho = z3.Real("rho")
    slope = rho / ((1 + rho) * (1 + rho))
    prove({}, z3.And(slope <= Fraction(1, 4), (slope == Fraction(1, 4)) == (rho == 1)), [rho != -1])


def attenuation_drift(moves: str) -> Statement:
    """One dimension, finite steps: either the key moves or the geometry; mu = s^2, t^2 = 3.

    Both kinds add up by way of the pair (k_L, g_l).
    """
    k, m, g, h, s, t, away, drift = reals("k_l k_L g_l g_L s t eps_k eps_C")
    eta, given = suppression.attenuation, [t * t == 3, t > 0, s > 0, g > 0, h > 0]
    if moves == "key":  # at the geometry g_l^2
        change, premises = eta(k * k / (g * g)) - eta(m * m / (g * g)), {"floor": g >= s}
        return premises | {"drift": absolute(k - m, away)}, absolute(change, 3 * t / 8 * away / s), given
    change, premises = eta(k * k / g) - eta(k * k / h), {"floor": z3.And(g >= s * s, h >= s * s)}
    return premises | {"drift": absolute(g - h, drift)}, absolute(change, drift / (4 * s * s)), given


@pytest.mark.parametrize("moves", ["key", "geometry"])
@checks("P10", "proved")
def test_drift_of_attenuation_of_one_kind(moves: str):
    settle(attenuation_drift(moves), at=steep())


@checks("P10", "needed", drops="floor")
def test_without_a_floor_a_small_drift_moves_eta_far():
    without(attenuation_drift("geometry"), "floor", says="mu = s^2, |eta_l - eta_L| is above the bound")


def two_sided() -> Statement:
    """Along an eigenvector of B: `(D k - r) k + b D g = 0`, rho = k^2/g."""
    b, g, k, r, D, rho = reals("b g k r D rho")
    share = suppression.two_sided_attenuation(rho, b)
    stationary = (D * k - r) * k + b * D * g == 0
    conclusion = z3.And(D * k == share * r, share >= 0, share < 1)
    return {"definite": b > 0, "stationary": stationary}, conclusion, [rho * g == k * k, g > 0, b + rho != 0]


@checks("X12", "proved")
def test_two_sided_share():
    settle(two_sided())
    b, c, rho = reals("b_1 b_2 rho")
    share = suppression.two_sided_attenuation
    settle(({"isotropic": b == c}, share(rho, b) == share(rho, c), [b > 0, c > 0, rho > 0]))


@checks("X12", "needed", drops="definite")
def test_without_definiteness_the_share_leaves_the_unit_interval():
    r = z3.Real("r")
    without(two_sided(), "definite", says="the share rho/(b + rho) is not in [0, 1)", where=r > 0)


@checks("X12", "needed", drops="isotropic")
def test_unequal_values_turn_the_residual():
    b, c, rho = reals("b_1 b_2 rho")
    share = suppression.two_sided_attenuation
    positive = {"positive": z3.And(b > 0, c > 0, rho > 0)}
    prove(positive, (share(rho, b) == share(rho, c)) == (b == c))
    text = refute(positive, share(rho, b) == share(rho, c))
    ledger.counterexample(f"{text}: unequal shares, the direction of r is not kept")
