"""Claims proved for all reals: the scalar cores that the theorems rest on, decided by z3.

Each statement is premises, conclusion and definitions. `settle` proves it and, for each premise, finds
numbers that break it without, so a premise that stands here is needed; and numbers that attain every
inequality, so that its constants are the best ones. Formulas of `theory` that are
plain arithmetic are put to the proof themselves, on symbols in place of numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import pytest
import z3

from theory import fidelity, suppression
from verification import ledger, smt
from verification.ledger import checks
from verification.smt import prove, refute, refute_without, strengthened

Real = z3.ArithRef
Statement = tuple[dict[str, z3.BoolRef], z3.BoolRef, list[z3.BoolRef]]


def reals(names: str) -> list[Real]:
    return z3.Reals(names)


def settle(statement: Statement, at: Sequence[z3.BoolRef] = ()) -> None:
    """The premises imply the conclusion, all of them are needed, and nothing stronger follows.

    Args:
        at: where to look for what attains a bound, if that is hard to find.
    """
    premises, conclusion, given = statement
    prove(premises, conclusion, given)
    refute_without(premises, conclusion, given)
    for stronger in strengthened(conclusion):
        refute(premises, stronger, [*given, *at])


def without(statement: Statement, name: str, *, says: str, where: z3.BoolRef | None = None) -> None:
    """Record numbers that meet all premises but one, and what they show.

    Args:
        where: picks telling ones, for instance no zeros.
    """
    premises, conclusion, given = statement
    left = {key: premise for key, premise in premises.items() if key != name}
    assert len(left) < len(premises)
    text = refute(left, conclusion, given if where is None else [*given, where])
    ledger.counterexample(f"{text}: {says}")


def absolute(x: Real, bound: Real) -> z3.BoolRef:
    """`|x| <= bound`."""
    return z3.And(x <= bound, -x <= bound)


# -- what counts as a proof ---------------------------------------------------------------------


def test_what_is_false_undecided_or_vacuous_is_not_proved(monkeypatch):
    x, y = reals("x y")
    prove({"positive": x > 0}, x * x > 0)
    with pytest.raises(AssertionError, match="broken by x = "):
        prove({"positive": x > 0}, x * x > x)
    with pytest.raises(AssertionError, match="contradict"):
        prove({"above": x > 0, "below": x < 0}, x == y)
    with pytest.raises(AssertionError, match="without size: no counterexample"):
        refute_without({"positive": x > 0, "size": x > -1}, x * x > 0)
    monkeypatch.setattr(smt, "LIMIT", 10)
    with pytest.raises(AssertionError, match="undecided"):
        prove({"positive": x > 0}, x * x > 0)


def test_a_counterexample_divides_by_nothing_that_vanishes():
    x, y = reals("x y")
    with pytest.raises(AssertionError, match="no counterexample"):
        refute({}, (x / y) * y == x)


def test_a_loose_bound_is_not_settled():
    x = z3.Real("x")
    settle(({"long": x >= 1}, 1 / x <= 1, []))
    for loose in (1 / x <= 2, 1 / x < 2, x > 0):
        with pytest.raises(AssertionError, match="no counterexample"):
            settle(({"long": x >= 1}, loose, []))


# -- Theorem 1 ----------------------------------------------------------------------------------


@checks("T1", "proved")
def test_edit_in_two_dimensions_realises_the_attenuated_residual():
    """Any symmetric invertible G: from the normal equations alone."""
    a, b, c, k1, k2, r, D1, D2, rho = reals("g_11 g_12 g_22 k_1 k_2 r D_1 D_2 rho")
    first, second = D1 * (a + k1 * k1) + D2 * (b + k1 * k2), D1 * (b + k1 * k2) + D2 * (c + k2 * k2)
    definition = rho * (a * c - b * b) == k1 * k1 * c - 2 * k1 * k2 * b + k2 * k2 * a
    settle((
        {"first": first == r * k1, "second": second == r * k2},
        D1 * k1 + D2 * k2 == suppression.attenuation(rho) * r,
        [definition, a * c != b * b, 1 + rho != 0],
    ))  # fmt: skip


def one_minimiser() -> Statement:
    """A step E raises the objective by `E (G + k k^T) E^T`."""
    a, b, c, k1, k2, x, y = reals("g_11 g_12 g_22 k_1 k_2 E_1 E_2")
    rise = x * x * (a + k1 * k1) + 2 * x * y * (b + k1 * k2) + y * y * (c + k2 * k2)
    definite = z3.And(a > 0, a * c > b * b)
    return {"definite": definite, "step": z3.Or(x != 0, y != 0)}, rise > 0, []


@checks("T1", "proved")
def test_every_other_edit_costs_more():
    settle(one_minimiser())


@checks("T1", "needed", drops="definite")
def test_an_indefinite_geometry_has_cheaper_edits():
    g, low, k = reals("g_11 g_22 k_1")
    telling = z3.And(g > 0, low < 0, k > 0)
    without(one_minimiser(), "definite", says="the step E does not raise the objective", where=telling)


def spectral_form() -> Statement:
    m1, m2, c, s, k1, k2, rho = reals("mu_1 mu_2 U_11 U_21 k_1 k_2 rho")
    g11, g12, g22 = c * c * m1 + s * s * m2, c * s * (m1 - m2), s * s * m1 + c * c * m2
    a1, a2 = c * k1 + s * k2, -s * k1 + c * k2
    definition = rho * (g11 * g22 - g12 * g12) == k1 * k1 * g22 - 2 * k1 * k2 * g12 + k2 * k2 * g11
    given = [definition, m1 > 0, m2 > 0, c * c + s * s > 0]
    return {"orthonormal": c * c + s * s == 1}, rho == a1 * a1 / m1 + a2 * a2 / m2, given


@checks("T1a", "proved")
def test_realisability_from_the_spectrum_in_two_dimensions():
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
    settle(
        (
            premises,
            inner + outer <= bound,
            [norm * norm == x + y, norm >= 0, x >= 0, y >= 0, least > 0, height > 0],
        )
    )


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
    rise = z3.And(g1 <= g2, p * (g2 + r - g1) >= q * q, g1 <= g2 + r + p,  # the smaller eigenvalue
                  (g1 + p - g2) * r <= q * q)  # the larger one  # fmt: skip
    prove(premises, conclusion, given)
    text = refute({"eigenvalues": rise}, conclusion, given)
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
def test_projected_edit_is_the_one_minimiser():
    settle(projection())
    beta, k, r, best = reals("beta k_1 r x_best")
    share = suppression.attenuation(k * k / beta)
    realised = z3.And(best * k == share * r, share == k * k / (beta + k * k))
    settle(({"best": best * (beta + k * k) == r * k}, realised, [beta > 0]))


@checks("T1e", "needed", drops="ridge")
def test_without_a_ridge_there_is_no_one_minimiser():
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


# -- batches ------------------------------------------------------------------------------------


@checks("X2", "proved")
def test_eigenvalues_of_what_a_batch_keeps():
    """Two keys: an eigenvector of S is one of B, from `B (I + S) = S`; and s/(1+s) is in [0, 1), growing."""
    a, c, b, s, x, y = reals("S_11 S_12 S_22 s v_1 v_2")
    B = z3.Reals("B_11 B_12 B_21 B_22")
    definition = [B[0] * (1 + a) + B[1] * c == a, B[0] * c + B[1] * (1 + b) == c,
                  B[2] * (1 + a) + B[3] * c == c, B[2] * c + B[3] * (1 + b) == b]  # fmt: skip
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
    realised = own * r1 + cross * r2
    return {"coefficient": r2 == 0, "gram": gram}, realised * realised <= r1 * r1, []


@checks("X3", "proved")
def test_an_edit_alone_realises_no_more_than_its_residual():
    settle(own_residual())


@checks("X3", "needed", drops="coefficient")
def test_a_neighbour_can_add_to_a_residual():
    r = z3.Real("r_1")
    without(
        own_residual(),
        "coefficient",
        says="S = [[rho_1, c], [c, rho_2]], more than r_1 is realised",
        where=r > 0,
    )


@checks("X3", "proved")
def test_shortfall_of_a_batch():
    """In the eigenbasis of S, two directions."""
    s1, s2, least, x, y = reals("s_1 s_2 s_min R_1 R_2")
    left = (x / (1 + s1)) * (x / (1 + s1)) + (y / (1 + s2)) * (y / (1 + s2))
    right = (x * x + y * y) / ((1 + least) * (1 + least))
    settle(({"first": s1 >= least, "second": s2 >= least, "floor": least > -1}, left <= right, []))


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


def steep() -> list[z3.BoolRef]:
    """Small steps at mu = 1 where a slope along the key is largest, k = 1/sqrt(3), or along the geometry, k = 1."""
    k, m, g, h, s, drift, away = reals("k_l k_L g_l g_L s eps_C eps_k")
    small, third = Fraction(1, 10**4), Fraction(577, 1000)
    up, down = z3.And(k == third + small, m == third), z3.And(k == third, m == third + small)
    more, less = z3.And(g == 1, h == 1 + small), z3.And(g == 1 + small, h == 1)
    return [s == 1, z3.Or(z3.And(g == 1, away == small, z3.Or(up, down)),
                          z3.And(drift == small, z3.Or(more, less), z3.Or(k == 1, k == third, k == -third)))]  # fmt: skip


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


# -- Theorem 2 ----------------------------------------------------------------------------------


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
def test_nothing_in_the_ball_beats_the_penalised_step():
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
    settle((
        {"radius": R * R * m2 <= tau * tau, "ball": length <= R * R},
        inside <= tau * tau,
        [m1 <= m2],
    ))  # fmt: skip
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
    return premises, trap == (progress * progress * high > tau * tau), [
        theta > 0, progress > 0, tau > 0, low > 0, low <= high]  # fmt: skip


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
    premises = {"parallel": z3.And(x == c * v, y == c * w, c >= 0),
                "length": (x * x + y * y) * (v * v + w * w) >= m * m}  # fmt: skip
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
    """Whether some D realises delta: D = delta k/(g rho) does."""
    g, k, D, delta, rho = reals("g k D delta rho")
    return {"nonzero": rho > 0}, D * k == delta, [rho * g == k * k, g > 0, D * g * rho == delta * k]


@checks("P3", "needed", drops="nonzero")
def test_without_a_key_nothing_is_realised():
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
    prove({"large": s * s * h2 > tau * tau * f2}, z3.And(within, h2 * y * y > tau * tau),
          [*order, x == 0, f2 * y * y == s * s])  # fmt: skip


@checks("X5", "proved")
def test_relative_condition_lies_between_its_bounds():
    (f1, f2, h1, h2), order = kl()
    cond, f, h, F, H = reals("cond f_low h_low f_high h_high")
    ends = [z3.And(low <= x, low <= y, high >= x, high >= y, z3.Or(low == x, low == y), z3.Or(high == x, high == y))
            for low, high, x, y in ((f, F, f1, f2), (h, H, h1, h2))]  # fmt: skip
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
def test_one_sided_limit_of_a_regulariser():
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
def test_a_regulariser_moves_the_window_and_keeps_its_width():
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
    settle((step | {"region": tau >= R, "reach": theta * tau <= R},
            z3.And(delta * delta * s * s <= tau * tau, delta >= theta * tau / s), given))  # fmt: skip
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
    settle((
        {"weights": weights, "floor": floor, "positive": least > 0},
        length <= 1 / (least * least),
        [],
    ))  # fmt: skip
    mean = p * x + q * y
    settle(({"weights": weights, "positive": positive}, p / x + q / y >= 1 / mean, [mean > 0]))


# -- Theorem 3 ----------------------------------------------------------------------------------


def sharp_drift() -> Statement:
    x, y, mu, size = reals("x y mu e")
    premises = {"floor": x >= mu, "both": y >= mu, "drift": absolute(x - y, size)}
    change = absolute(1 / x - 1 / y, fidelity.inverse_drift(mu, size))
    return premises, change, [mu > 0, x > 0, y > 0]


@checks("L3", "proved")
def test_inverses_above_a_floor():
    """One eigenvalue."""
    settle(sharp_drift())


def stated_drift() -> Statement:
    x, E, mu, size = reals("x E mu e")
    bound = size / (mu * (mu - size))
    premises = {"floor": x >= mu, "small": size < mu, "drift": absolute(E, size)}
    return premises, absolute(1 / (x + E) - 1 / x, bound), [mu > 0, x > 0, x + E != 0]


@checks("L3", "proved")
def test_inverse_under_any_small_perturbation():
    settle(stated_drift())


@checks("L3", "needed", drops="floor")
def test_a_small_eigenvalue_breaks_the_inverse_drift():
    without(sharp_drift(), "floor", says="|1/x - 1/y| is above e/(mu (mu + e))")


@checks("L3", "needed", drops="both")
def test_the_sharp_form_needs_both_floors():
    without(sharp_drift(), "both", says="|1/x - 1/y| is above e/(mu (mu + e))")


@checks("L3", "needed", drops="small")
def test_the_stated_form_needs_a_small_perturbation():
    x, E, mu, size = reals("x E mu e")
    telling = z3.And(size > mu, 1 / (x + E) - 1 / x > size / (mu * (size - mu)))  # whatever the bound's sign
    without(stated_drift(), "small", says="|1/(x + E) - 1/x| is above e/(mu |mu - e|)", where=telling)


def channel_drift(moves: str) -> Statement:
    """One dimension, mu = s^2: q = k/(g + k^2), either the key or the geometry moves.

    On a line the geometry's part is `3 sqrt(3)/16 eps_C/mu^1.5`; the constant 1/2 takes two dimensions.
    """
    k, m, g, h, s, t, drift, away = reals("k_l k_L g_l g_L s t eps_C eps_k")
    given = [t * t == 3, t > 0, s > 0, g > 0, h > 0]
    if moves == "key":
        change, premises = k / (g + k * k) - m / (g + m * m), {"floor": g >= s * s}
        return premises | {"drift": absolute(k - m, away)}, absolute(change, away / (s * s)), given
    change, premises = k / (g + k * k) - k / (h + k * k), {"floor": z3.And(g >= s * s, h >= s * s)}
    return (
        premises | {"drift": absolute(g - h, drift)},
        absolute(change, 3 * t / 16 * drift / (s * s * s)),
        given,
    )


@checks("L4", "proved")
def test_no_channel_is_long():
    """`|k|/(g + k^2) <= 1/(2 sqrt(mu))`, mu = s^2, whatever the key."""
    k, g, s = reals("k g s")
    settle(({"floor": g >= s * s}, k / (g + k * k) <= 1 / (2 * s), [g > 0, s > 0]))


@checks("L4", "proved")
def test_drift_of_the_channel_of_any_dimension():
    """Norms in `q_l - q_L = M_L^-1 (G_L - G_l) q_l`, at one key: the identity in two dimensions, then the product."""
    change, inverse, drift, q, s = reals("change inverse eps_C q s")
    premises = {
        "product": change <= inverse * drift * q,
        "inverse": inverse <= 1 / (s * s),
        "channel": q <= 1 / (2 * s),
    }
    settle((premises, change <= drift / (2 * s * s * s), [s > 0, inverse >= 0, drift >= 0, q >= 0]))
    a, b, c, d, e, f, x, y, u, v = reals("a b c d e f q_1 q_2 p_1 p_2")  # M_l, M_L, q_l, q_L
    same_key = [a * x + b * y == d * u + e * v, b * x + c * y == e * u + f * v]
    moved = z3.And(d * (x - u) + e * (y - v) == (d - a) * x + (e - b) * y,
                   e * (x - u) + f * (y - v) == (e - b) * x + (f - c) * y)  # fmt: skip
    settle(({"first": same_key[0], "second": same_key[1]}, moved, []))


@pytest.mark.parametrize("moves", ["key", "geometry"])
@checks("L4", "proved")
def test_drift_of_the_channel_of_one_kind(moves: str):
    settle(channel_drift(moves), at=steep() if moves == "geometry" else [])


@checks("L4", "proved")
def test_drift_of_a_bounded_key_s_channel():
    """The other entry of the minimum: `B eps_C/(mu (mu + eps_C))` for |k| <= B."""
    k, g, h, mu, drift, longest = reals("k g_l g_L mu eps_C B")
    change = k / (g + k * k) - k / (h + k * k)
    premises = {
        "floor": z3.And(g >= mu, h >= mu),
        "drift": absolute(g - h, drift),
        "key": absolute(k, longest),
    }
    settle((premises, absolute(change, longest * fidelity.inverse_drift(mu, drift)), [mu > 0, g > 0, h > 0]))


@checks("L4", "needed", drops="floor")
def test_without_a_floor_the_channel_drifts_far():
    without(channel_drift("geometry"), "floor", says="mu = s^2, |q_l - q_L| is above the bound")


@checks("L4", "unneeded", drops="bounded")
@checks("L4", "unneeded", drops="small")
def test_the_channel_needs_neither_bounded_keys_nor_small_drift():
    """Proved at keys of any length above any B, and at e = eps_C + 2 B eps_k above mu."""
    k, m, s, drift, away, longest = reals("k_l k_L s eps_C eps_k B")
    large = drift + 2 * longest * away >= s * s
    for moves in ("key", "geometry"):
        premises, conclusion, given = channel_drift(moves)
        prove(
            premises | {"large": large, "long": z3.And(k > longest, m > longest, longest > 0)},
            conclusion,
            given,
        )


def allocation() -> Statement:
    E, size = reals("E e")
    premises = {"small": size < 1, "drift": absolute(E, size)}
    return premises, absolute(1 / (1 + E) - 1, size / (1 - size)), [1 + E != 0]


@checks("J1", "proved")
def test_allocation_of_a_perturbed_identity():
    settle(allocation())


@checks("J1", "needed", drops="small")
def test_a_perturbation_as_large_as_the_identity_has_no_bound():
    E, size = reals("E e")
    telling = z3.And(size > 1, size / (size - 1) < 1 / (1 + E) - 1)  # whatever the bound's sign
    without(allocation(), "small", says="|1/(1 + E) - 1| is above e/|1 - e|", where=telling)


def fidelity_step() -> Statement:
    """Norms: of the error, of all tails, of `(J_L - I)^T g~`, of g~, and of what bounds them."""
    error, rest, turned, proxy, gamma, last, gap, Gamma, q = reals(
        "error tails turned proxy gamma g_L eps_I Gamma q"
    )
    premises = {
        "triangle": error <= rest + turned,
        "tail": rest <= gamma * last,
        "allocation": turned <= gap * proxy,
        "operator": proxy <= Gamma * q,
    }
    norms = [x >= 0 for x in (error, rest, turned, proxy, gamma, last, gap, Gamma, q)]
    return premises, error <= fidelity.error_bound(gamma, last, gap, Gamma, q), norms


@checks("T3a", "proved")
def test_error_of_the_proxy():
    settle(fidelity_step())


@checks("T3a", "proved")
def test_triangle_in_the_plane():
    """`g - g~ = t + e` as vectors: the one step of T3a that is not about numbers."""
    x, y, u, v, rest, turned = reals("t_1 t_2 e_1 e_2 tails turned")
    premises = {"tails": x * x + y * y <= rest * rest, "turned": u * u + v * v <= turned * turned}
    total = (x + u) * (x + u) + (y + v) * (y + v)
    settle((premises, total <= (rest + turned) * (rest + turned), [rest >= 0, turned >= 0]))


@checks("T3a", "unneeded", drops="dominance")
def test_the_last_layer_need_not_dominate():
    premises, conclusion, given = fidelity_step()
    prove(premises | {"no dominance": z3.Real("gamma") >= 1}, conclusion, given)


@checks("T3b", "proved")
def test_zeta_bounds_the_error():
    """(67)-(69): the error in units of ||g~||, with sigma as the paper has it and without."""
    error, proxy, gamma, last, gap, sigma, product = reals("error proxy gamma g_L eps_I sigma product")
    norms = [x >= 0 for x in (error, proxy, gamma, last, gap)]
    largest = {"last": last <= (1 + gap) * proxy}
    given = [*norms, sigma > 0, sigma <= 1, sigma * product == proxy]
    stated = {"error": error <= fidelity.error_bound(gamma, last, gap, product, 1)}
    settle((largest | stated, error <= fidelity.zeta(gamma, gap, sigma) * proxy, given))
    sharp = {"error": error <= gamma * last + gap * proxy}
    settle((largest | sharp, error <= fidelity.zeta_sharp(gamma, gap) * proxy, norms))


@checks("T3b", "proved")
@checks("T3b", "unneeded", drops="sigma")
def test_zeta_without_sigma_is_never_larger():
    gamma, gap, sigma = reals("gamma eps_I sigma")
    settle(({"gap": gap >= 0, "sigma": sigma <= 1},
            fidelity.zeta_sharp(gamma, gap) <= fidelity.zeta(gamma, gap, sigma), [sigma > 0]))  # fmt: skip


def descent() -> Statement:
    """(70), in the plane: g~ = (p, 0), g = (x, y)."""
    p, x, y, zeta = reals("p g_1 g_2 zeta")
    premises = {
        "error": (x - p) * (x - p) + y * y <= zeta * zeta * p * p,
        "small": zeta < 1,
        "nonzero": p != 0,
    }
    return premises, x * p > 0, [zeta >= 0]


@checks("T3b", "proved")
def test_a_small_error_descends():
    settle(descent())
    premises, _, given = descent()
    p, x, zeta = reals("p g_1 zeta")
    settle(({"error": premises["error"]}, x * p >= (1 - zeta) * p * p, given))


@checks("T3b", "needed", drops="small")
def test_zeta_of_one_is_no_descent():
    p, x = reals("p g_1")
    without(descent(), "small", says="g~ = (p, 0), g does not descend", where=z3.And(p > 0, x < 0))


@checks("T3b", "needed", drops="nonzero")
def test_a_vanishing_proxy_does_not_descend():
    zeta = z3.Real("zeta")
    without(descent(), "nonzero", says="g~ = 0, <g, g~> = 0", where=zeta > 0)


@checks("T3b", "proved")
def test_smallest_descent():
    """`descent_bound`: of all lengths l = ||g_L|| between |1 - eps| and 1 + eps the clamped gamma is the worst."""
    length, worst, gamma, gap = reals("l s gamma eps")
    low = z3.If(gap <= 1, 1 - gap, gap - 1)
    inner = lambda x: (1 + x * x - gap * gap) / 2 - gamma * x  # noqa: E731
    clamped = worst == z3.If(gamma < low, low, z3.If(gamma > 1 + gap, 1 + gap, gamma))
    between = z3.And(low <= length, length <= 1 + gap)
    given = [gap >= 0, gamma >= 0]
    settle(({"clamped": clamped, "between": between}, inner(length) >= inner(worst), given))
    small = [*given, gamma < 1, gap < 1, clamped]
    prove({}, (inner(worst) > 0) == (gamma * gamma + gap * gap < 1), small)


def angles() -> tuple[list[Real], dict[str, z3.BoolRef], list[z3.BoolRef]]:
    """g~ = (1, 0), g_L = (x, y) within eps of it, tails (u, v) of at most gamma ||g_L||."""
    x, y, u, v, gamma, gap = reals("g_1 g_2 t_1 t_2 gamma eps")
    premises = {
        "gap": (x - 1) * (x - 1) + y * y <= gap * gap,
        "tail": u * u + v * v <= gamma * gamma * (x * x + y * y),
        "circle": gamma * gamma + gap * gap < 1,
    }
    return [x, y, u, v, gamma, gap], premises, [gamma >= 0, gap >= 0, gamma < 1, gap < 1]


def angle_descends() -> Statement:
    (x, _, u, _, _, _), premises, given = angles()
    return premises, x + u > 0, given


@checks("T3c", "proved")
def test_inside_the_circle_it_descends():
    """In the plane of g~ and g_L, for every tail."""
    settle(angle_descends())


@checks("T3c", "proved")
def test_the_turn_of_the_last_layer_and_of_the_tail():
    """Sines: of the angle between g_L and g~ at most eps, between g and g_L at most gamma."""
    (x, y, u, v, gamma, gap), premises, _ = angles()
    settle(({"gap": premises["gap"]}, y * y <= gap * gap * (x * x + y * y), []))
    cross = x * v - y * u  # ||g|| ||g_L|| times the sine
    whole = (x + u) * (x + u) + (y + v) * (y + v)
    settle(({"tail": premises["tail"]}, cross * cross <= gamma * gamma * (x * x + y * y) * whole, []))


@checks("T3c", "proved")
def test_the_bound_is_positive_exactly_inside_the_circle():
    """Cosines c_g and c_e of sines gamma and eps."""
    gamma, gap, c, d = reals("gamma eps c_g c_e")
    given = [c * c == 1 - gamma * gamma, d * d == 1 - gap * gap, c > 0, d > 0, gamma >= 0, gap >= 0]
    prove({}, (c * d - gap * gamma > 0) == (gamma * gamma + gap * gap < 1), given)


@checks("T3c", "needed", drops="circle")
def test_on_the_circle_there_is_no_descent():
    without(angle_descends(), "circle", says="g~ = (1, 0), g_L = (g_1, g_2), a tail t that turns it")


def aligned() -> Statement:
    """Three layers by their products with g~."""
    first, second, last, gap, square = reals("g_1 g_2 g_L eps_I square")
    premises = {"aligned": z3.And(first >= 0, second >= 0), "last": last >= (1 - gap) * square,
                "positive": (1 - gap) * square > 0}  # fmt: skip
    return premises, first + second + last > 0, [square >= 0, gap >= 0]


@checks("X9", "proved")
def test_aligned_layers_descend():
    settle(aligned())


@checks("X9", "needed", drops="aligned")
def test_one_opposing_layer_turns_the_descent():
    without(aligned(), "aligned", says="products with g~ that do not add up to a descent")


@checks("A1", "proved")
def test_both_premises_cannot_be_small():
    """`J_1 = 1/n` and any J_L: two distances that add up to 1 - 1/n at least."""
    n, J, first, apart, gap = reals("n J_L J_1 eps_J eps_I")
    settle((
        {"spread": first * n == 1, "uniform": absolute(J - first, apart), "identity": absolute(J - 1, gap)},
        apart + gap >= 1 - 1 / n,
        [n >= 1],
    ))  # fmt: skip


@checks("A1", "needed", drops="spread")
def test_another_allocation_can_keep_both_small():
    n, J, first, apart, gap = reals("n J_L J_1 eps_J eps_I")
    premises = {"uniform": absolute(J - first, apart), "identity": absolute(J - 1, gap)}
    text = refute(premises, apart + gap >= 1 - 1 / n, [n == 2, apart >= 0, gap >= 0])
    ledger.counterexample(f"{text}: J_1 is not 1/n, and eps_J + eps_I < 1 - 1/n")


def transport(n: int) -> tuple[list[Real], list[Real], list[Real], Real, list[z3.BoolRef]]:
    """etas, what is missing, what is asked for, what arrives; by the process: ask, write, look again."""
    etas, missing, asked, stream = (
        z3.Reals([f"{name}_{i + 1}" for i in range(n)]) for name in ("eta", "x", "J", "w")
    )
    before = [z3.RealVal(0), *stream[:-1]]
    process = [rule for i in range(n) for rule in (
        missing[i] == 1 - before[i], asked[i] * (n - i) == missing[i], stream[i] == before[i] + etas[i] * asked[i])]  # fmt: skip
    return etas, missing, asked, stream[-1], process


def partial(etas: list[Real]) -> dict[str, z3.BoolRef]:
    """Every attenuation in (0, 1)."""
    return {"above": z3.And(*(eta > 0 for eta in etas)), "below": z3.And(*(eta < 1 for eta in etas))}


@pytest.mark.parametrize("n", [2, 3, 4])
@checks("A2", "proved")
def test_identity_transport(n: int):
    """The recursion and the executed fraction; x falls, though not below the part left to later layers, and J grows."""
    etas, missing, asked, executed, process = transport(n)
    left = z3.RealVal(1)
    for i, eta in enumerate(etas):
        left = left * (1 - eta / (n - i))
    prove({}, executed == 1 - left, process)
    prove(
        {}, z3.And(*(missing[i + 1] == missing[i] * (1 - etas[i] / (n - i)) for i in range(n - 1))), process
    )
    steps = [z3.And(missing[i] < missing[i - 1], missing[i] > Fraction(n - i, n), asked[i] > asked[i - 1])
             for i in range(1, n)]  # fmt: skip
    settle((partial(etas[:-1]), z3.And(*steps), process))
    settle((partial(etas), z3.And(executed > 0, executed < 1), process))


@pytest.mark.parametrize("n", [2, 3, 4])
@checks("A2", "proved")
def test_tail_lies_between_its_two_limits(n: int):
    """Whatever the etas in (0, 1): gamma above H_n - 1 and below n - 1."""
    etas, _, asked, _, process = transport(n)
    gamma = sum(asked[:-1]) / asked[-1]
    least = sum(Fraction(1, i) for i in range(2, n + 1))
    settle((partial(etas[:-1]), z3.And(gamma > least, gamma < n - 1), process))


@checks("P13", "proved")
def test_descent_closes_the_loop_monotonically():
    """What is missing shrinks by `1 - a eta^2` a step, and `1 - (1 - x)^T <= T x` by induction over T."""
    eta, a, d, new, x, T, power = reals("eta a d d_new x T power")
    step = [new == d - a * eta * (eta * d - 1)]
    prove({}, 1 - eta * new == (1 - a * eta * eta) * (1 - eta * d), step)
    rate = {"positive": a * eta * eta > 0, "rate": a * eta * eta < 1, "missing": eta * d < 1}
    settle((rate, z3.And(eta * d < eta * new, eta * new < 1), step))
    induction = {"so far": power >= 1 - T * x, "rate": x <= 1, "steps": T >= 0}
    settle((induction, power * (1 - x) >= 1 - (T + 1) * x, []))


@checks("P11", "proved", refutes=True)
def test_a_sign_step_can_climb_where_the_proxy_descends():
    """Even within T3b's guarantee, ||g - g~|| < ||g~||: Adam's first step is along (1, 1)."""
    x, y, p, q = reals("g_1 g_2 p_1 p_2")
    guarantee = {"error": (x - p) * (x - p) + (y - q) * (y - q) < p * p + q * q}
    prove(guarantee, x * p + y * q > 0)
    text = refute(guarantee, x + y >= 0, [p > 0, q > 0])
    ledger.counterexample(f"{text}: <g, g~> > 0 and <g, sign(g~)> < 0, g~ = (p_1, p_2)")


@checks("P12", "proved", refutes=True)
def test_the_guarantee_does_not_cover_a_direct_gradient():
    """(e_1, e_2) is the gradient of L_reg; what is needed instead is ||g - g~|| < ||g~ + e||."""
    x, y, p, e, f = reals("g_1 g_2 p e_1 e_2")
    error = (x - p) * (x - p) + y * y
    inner = (x + e) * (p + e) + (y + f) * f
    settle(({"whole": error < (p + e) * (p + e) + f * f}, inner > 0, []))
    text = refute({"guarantee": error < p * p}, inner >= 0, [p == 1])
    ledger.counterexample(f"{text}: ||g - g~|| < ||g~||, g~ = (p, 0), and a step along g~ + e ascends")
