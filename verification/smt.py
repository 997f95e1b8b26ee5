"""Proofs over all reals by z3: premises imply a conclusion, and each premise is needed for it.

A statement is a set of named premises, a conclusion, and definitions (`given`) that introduce an
abbreviation or a root, as in `s * s == mu`. Nothing is sampled: z3 decides that no real numbers meet
the premises and break the conclusion. It may also give up; that is a failure and never a pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

import z3

from verification import ledger

#: Steps of the solver, not seconds: the same on every machine.
LIMIT = 60_000_000


def _decide(formulas: Sequence[z3.BoolRef]) -> z3.ModelRef | None:
    """A model of all formulas, or none if there is none.

    In a context of its own: what was asked before must not change which model is found.

    Raises:
        AssertionError: undecided.
    """
    solver = z3.Solver(ctx=z3.Context())
    solver.set("rlimit", LIMIT)
    solver.add(*(f.translate(solver.ctx) for f in formulas))
    answer = solver.check()
    assert answer != z3.unknown, f"undecided: {solver.reason_unknown()}"
    return solver.model() if answer == z3.sat else None


def _divisors(formula: z3.ExprRef) -> Iterator[z3.ExprRef]:
    """What is divided by: z3 lets x/0 be anything, a counterexample must not."""
    if formula.decl().kind() == z3.Z3_OP_DIV:
        yield formula.arg(1)
    for part in formula.children():
        yield from _divisors(part)


def _text(model: z3.ModelRef) -> str:
    """`a = 1, b = 1/2`, by name; roots as decimals."""
    values = {str(d): model[d] for d in model.decls() if d.arity() == 0}
    return ", ".join(f"{name} = {_number(values[name])}" for name in sorted(values))


def _number(value: z3.ExprRef) -> str:
    return value.as_decimal(4).rstrip("?") + "..." if z3.is_algebraic_value(value) else str(value)


def prove(
    premises: Mapping[str, z3.BoolRef], conclusion: z3.BoolRef, given: Sequence[z3.BoolRef] = ()
) -> None:
    """Assert that the premises can be met and imply the conclusion."""
    known = [*premises.values(), *given]
    assert _decide(known) is not None, "the premises contradict each other"
    broken = _decide([*known, z3.Not(conclusion)])
    assert broken is None, f"broken by {_text(broken)}"
    ledger.record("proved")


def refute(
    premises: Mapping[str, z3.BoolRef], conclusion: z3.BoolRef, given: Sequence[z3.BoolRef] = ()
) -> str:
    """Numbers that meet the premises and break the conclusion.

    Raises:
        AssertionError: there are none.
    """
    known = [*premises.values(), *given, z3.Not(conclusion)]
    known += [divisor != 0 for formula in known for divisor in _divisors(formula)]
    model = _decide(known)
    assert model is not None, "no counterexample"
    for formula in known:  # the solver's word is not taken for it
        assert z3.is_true(model.eval(formula.translate(model.ctx), model_completion=True)), formula
    ledger.record("rejected")
    return _text(model)


def refute_without(
    premises: Mapping[str, z3.BoolRef], conclusion: z3.BoolRef, given: Sequence[z3.BoolRef] = ()
) -> dict[str, str]:
    """For each premise, numbers that meet the others and break the conclusion.

    Raises:
        AssertionError: a premise is not needed.
    """
    found = {}
    for name in premises:
        try:
            found[name] = refute({k: v for k, v in premises.items() if k != name}, conclusion, given)
        except AssertionError as error:
            raise AssertionError(f"without {name}: {error}") from error
    return found


def strengthened(conclusion: z3.BoolRef) -> Iterator[z3.BoolRef]:
    """Its inequalities one by one, each a thousandth stronger where both sides are positive.

    Where these are refuted too the conclusion is tight. An inequality against 0 gets a margin instead
    if it is strict, and becomes strict if it is not.
    """
    kind = conclusion.decl().kind()
    if kind == z3.Z3_OP_AND:
        for part in conclusion.children():
            yield from strengthened(part)
    elif kind in (z3.Z3_OP_LE, z3.Z3_OP_LT, z3.Z3_OP_GE, z3.Z3_OP_GT):
        low, high = conclusion.children()
        if kind in (z3.Z3_OP_GE, z3.Z3_OP_GT):
            low, high = high, low
        if not any(z3.is_rational_value(side) and side.as_fraction() == 0 for side in (low, high)):
            yield z3.Or(high <= 0, 1000 * low <= 999 * high)
        elif kind in (z3.Z3_OP_LE, z3.Z3_OP_GE):
            yield low < high
        else:
            yield low + z3.Q(1, 1000) < high


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


def steep() -> list[z3.BoolRef]:
    """Small steps at mu = 1 where a slope along the key is largest, k = 1/sqrt(3), or along the geometry, k = 1."""
    k, m, g, h, s, drift, away = reals("k_l k_L g_l g_L s eps_C eps_k")
    small, third = Fraction(1, 10**4), Fraction(577, 1000)
    up, down = z3.And(k == third + small, m == third), z3.And(k == third, m == third + small)
    more, less = z3.And(g == 1, h == 1 + small), z3.And(g == 1 + small, h == 1)
    return [
        s == 1,
        z3.Or(
            z3.And(g == 1, away == small, z3.Or(up, down)),
            z3.And(drift == small, z3.Or(more, less), z3.Or(k == 1, k == third, k == -third)),
        ),
    ]
