"""The scalar cores of Theorem 3, proved for all reals."""

from __future__ import annotations

from fractions import Fraction

import pytest
import z3

from theory import fidelity
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
    moved = z3.And(
        d * (x - u) + e * (y - v) == (d - a) * x + (e - b) * y,
        e * (x - u) + f * (y - v) == (e - b) * x + (f - c) * y,
    )
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
    statement = (
        {"gap": gap >= 0, "sigma": sigma <= 1},
        fidelity.zeta_sharp(gamma, gap) <= fidelity.zeta(gamma, gap, sigma),
        [sigma > 0],
    )
    settle(statement)


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
    premises = {
        "aligned": z3.And(first >= 0, second >= 0),
        "last": last >= (1 - gap) * square,
        "positive": (1 - gap) * square > 0,
    }
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
    statement = (
        {
            "spread": first * n == 1,
            "uniform": absolute(J - first, apart),
            "identity": absolute(J - 1, gap),
        },
        apart + gap >= 1 - 1 / n,
        [n >= 1],
    )
    settle(statement)


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
    process = [
        rule
        for i in range(n)
        for rule in (
            missing[i] == 1 - before[i],
            asked[i] * (n - i) == missing[i],
            stream[i] == before[i] + etas[i] * asked[i],
        )
    ]
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
    steps = [
        z3.And(missing[i] < missing[i - 1], missing[i] > Fraction(n - i, n), asked[i] > asked[i - 1])
        for i in range(1, n)
    ]
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
