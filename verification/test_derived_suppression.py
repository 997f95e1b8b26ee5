"""Theorem 1: the symbolic derivations give the closed forms."""

from __future__ import annotations

import numpy as np
import sympy as sp

from theory import derive_suppression as derive
from theory import suppression
from verification.ledger import checks, equal
from verification.strategies import EPS
from verification.symbols import number, vanishes


@checks("T1", "derived")
def test_normal_equations_solved_give_the_attenuation_law():
    best, residual = derive.normal_equations()
    assert vanishes(residual)
    values = {"g00": 2, "g01": 1, "g11": 3, "k0": 1, "k1": -2, "r0": 1, "r1": 4}
    number = np.array(best.subs({x: values[str(x)] for x in best.free_symbols}), float)
    G, k, r = np.array([[2.0, 1], [1, 3]]), np.array([1.0, -2]), np.array([1.0, 4])
    equal(suppression.edit(G, k, r), number, 64 * EPS)


@checks("T1", "derived")
def test_sherman_morrison_from_elimination():
    assert vanishes(derive.sherman_morrison())


@checks("T1a", "derived")
def test_spectral_form_for_any_rotation():
    assert vanishes(derive.spectral_form())


@checks("T1e", "derived")
def test_lagrange_multipliers_give_the_projected_key():
    kept, printed = derive.constrained_projection()
    assert vanishes(kept)
    assert not vanishes(printed)


@checks("T1f", "derived")
@checks("X1", "derived")
def test_history_adds_to_the_ridge_in_the_null_space():
    assert vanishes(derive.history())


@checks("P15", "derived")
def test_penalty_limit_is_alphaedit():
    assert vanishes(derive.penalty_limit())


@checks("X2", "derived")
def test_batch_law_from_the_normal_equations():
    assert vanishes(derive.batch_law())


@checks("X3", "derived")
def test_crosstalk_costs_a_square():
    assert vanishes(derive.crosstalk())


@checks("X13", "derived")
def test_what_an_edit_keeps_is_its_attenuation_behind_all_others():
    assert vanishes(derive.room())


@checks("X14", "derived")
def test_what_an_edit_costs_and_where_a_price_ends():
    assert vanishes(derive.cost())
    assert vanishes(derive.priced())


@checks("P4", "derived")
def test_compensation_is_the_exact_fit():
    assert vanishes(derive.compensation())


@checks("P8", "derived")
def test_mean_realizability_is_the_dimension_over_lambda():
    assert vanishes(derive.mean_realizability())


@checks("P10", "derived")
def test_largest_slopes_of_eta():
    by_key, by_geometry = derive.steepest_attenuation()
    assert by_key == 3 * sp.sqrt(3) / 8
    assert by_geometry == sp.Rational(1, 4)
    equal(suppression.attenuation_drift_bound(1.0, 0.0, 1.0), number(by_key), 4 * EPS)
    equal(suppression.attenuation_drift_bound(0.0, 1.0, 1.0), number(by_geometry), 4 * EPS)


@checks("X12", "derived")
def test_two_sided_shares_from_the_normal_equations():
    assert vanishes(derive.two_sided())
