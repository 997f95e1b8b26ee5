"""Exact arithmetic: rational matrices, and instances of the theory made of them.

Numbers are `flint.fmpq`, matrices `flint.fmpq_mat`, vectors are columns. An identity that holds here
holds with tolerance zero, and so does an inequality once both sides are rational: instances are built
such that they are (orthogonal matrices by Cayley's transform, norms along rational unit vectors,
square roots by choosing the root).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from typing import Any

import numpy as np
from flint import fmpq, fmpq_mat
from hypothesis import strategies as st
from numpy.typing import NDArray

from verification import ledger
from verification.strategies import tolerance

Array = NDArray[np.float64]
Number = fmpq | int

# -- matrices -----------------------------------------------------------------------------------


def diagonal(values: Iterable[Number]) -> fmpq_mat:
    values = list(values)
    n = len(values)
    return fmpq_mat(n, n, [values[i] if i == j else 0 for i in range(n) for j in range(n)])


def eye(n: int) -> fmpq_mat:
    return diagonal([1] * n)


def column(values: Iterable[Number]) -> fmpq_mat:
    values = list(values)
    return fmpq_mat(len(values), 1, values)


def join(columns: Sequence[fmpq_mat]) -> fmpq_mat:
    """Matrices of equal height side by side."""
    rows = zip(*(X.tolist() for X in columns), strict=True)
    return fmpq_mat([[x for part in row for x in part] for row in rows])


def pick(X: fmpq_mat, j: int) -> fmpq_mat:
    """Column j."""
    return column(X[i, j] for i in range(X.nrows()))


def leading(X: fmpq_mat, m: int, n: int) -> fmpq_mat:
    """First m rows and n columns."""
    return fmpq_mat(m, n, [X[i, j] for i in range(m) for j in range(n)])


def dot(x: fmpq_mat, y: fmpq_mat) -> fmpq:
    """`<x, y>`, entry by entry: for columns the scalar product, for matrices `tr(x^T y)`."""
    return sum((a * b for a, b in zip(x.entries(), y.entries(), strict=True)), fmpq(0))


def square(X: fmpq_mat) -> fmpq:
    """Squared norm, Frobenius's for a matrix."""
    return dot(X, X)


def outer(x: fmpq_mat, y: fmpq_mat) -> fmpq_mat:
    return x * y.transpose()


def zero(X: fmpq_mat) -> bool:
    return not any(X.entries())


def semidefinite(X: fmpq_mat) -> bool:
    """Whether a symmetric X is >= 0: its characteristic polynomial, real-rooted, has no negative root.

    That is so iff the coefficients alternate in sign, zeros allowed.
    """
    assert X.transpose() == X, "not symmetric"
    n = X.nrows()
    return all((-1) ** (n - i) * c >= 0 for i, c in enumerate(X.charpoly().coeffs()))


def root_below(x: fmpq) -> fmpq:
    """A rational below `sqrt(x)`, closer than a part in 10^30; the root itself where it is rational."""
    p, q = isqrt(int(x.p)), isqrt(int(x.q))
    if p * p == x.p and q * q == x.q:
        return fmpq(p, q)
    scale = 10**30 * int(x.q)
    return fmpq(isqrt(int(x.p) * int(x.q) * 10**60), scale)


# -- against exact numbers ----------------------------------------------------------------------


def array(x: Any) -> Array:
    """fp64 of a number, of a sequence, or of a matrix; a column becomes a vector."""
    if isinstance(x, fmpq_mat):
        rows = np.array([float(v) for v in x.entries()]).reshape(x.nrows(), x.ncols())
        return rows[:, 0] if x.ncols() == 1 else rows
    return np.array([float(v) for v in x]) if isinstance(x, list | tuple) else np.array(float(x))


def table(x: fmpq_mat) -> Array:
    """fp64 of a matrix that stays one, however many columns it has."""
    return array(x).reshape(x.nrows(), x.ncols())


def condition(X: fmpq_mat) -> float:
    """Upper bound of the condition number, `||X||_F ||X^-1||_F`, from the exact inverse."""
    return float(square(X) * square(X.inv())) ** 0.5


def same(actual: Any, expected: Any) -> None:
    """Assert equality, tolerance zero."""
    assert actual == expected, f"{actual} != {expected}"
    ledger.record("exact")


def at_most(value: Number, bound: Number) -> None:
    """Assert `value <= bound`, tolerance zero, and record the ratio."""
    assert value <= bound, f"{value} > {bound}"
    ledger.below(float(value), float(bound))  # rounding to fp64 keeps the order
    ledger.record("exact")


def near(actual: Any, exact: Any, cond: float = 1.0, scale: float | None = None) -> None:
    """Assert that an fp64 result agrees with the exact value up to rounding.

    Args:
        cond: condition number of what was solved; 1 for a formula without cancellation.
        scale: size of what the error is relative to, where not the exact value's own.
    """
    actual = np.asarray(actual, float)
    ledger.equal(actual, array(exact).reshape(actual.shape), tolerance(cond), scale)
    ledger.record("exact")


# -- instances ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spectral:
    """`U diag(mu) U^T` with a rational orthogonal U."""

    mu: tuple[fmpq, ...]
    U: fmpq_mat

    @cached_property
    def G(self) -> fmpq_mat:
        return self.U * diagonal(self.mu) * self.U.transpose()

    @property
    def size(self) -> int:
        return len(self.mu)

    @property
    def condition(self) -> float:
        return float(max(self.mu) / min(self.mu))

    def vector(self, i: int) -> fmpq_mat:
        """Eigenvector of `mu[i]`, of length one."""
        return pick(self.U, i)


@dataclass(frozen=True)
class Source:
    """Rational instances out of a stream of small integers.

    Attributes:
        stream: a seeded generator, or one whose numbers hypothesis draws and shrinks.
        most: largest dimension.
    """

    stream: random.Random
    most: int

    def integer(self, low: int, high: int) -> int:
        return self.stream.randint(low, high)

    def choose(self, values: Sequence[Any]) -> Any:
        return values[self.integer(0, len(values) - 1)]

    def size(self, low: int = 1) -> int:
        return self.integer(low, max(low, self.most))

    def number(self) -> fmpq:
        return fmpq(self.integer(-6, 6), self.integer(1, 4))

    def positive(self, exponent: int = 0) -> fmpq:
        """A number in (0, 9], times 10 to a power of at most `exponent` either way."""
        return fmpq(self.integer(1, 9), self.integer(1, 4)) * fmpq(10) ** self.integer(-exponent, exponent)

    def share(self) -> fmpq:
        """A number in [0, 1], the ends included."""
        q = self.integer(1, 12)
        return fmpq(self.integer(0, q), q)

    def factor(self) -> fmpq:
        """A positive number that is often 1, or only just not: for both sides of an equivalence."""
        return self.choose([fmpq(1), 1 - fmpq(1, 10**9), 1 + fmpq(1, 10**9), self.positive(1)])

    def matrix(self, m: int, n: int) -> fmpq_mat:
        return fmpq_mat(m, n, [self.number() for _ in range(m * n)])

    def vector(self, n: int, nonzero: bool = True) -> fmpq_mat:
        x = self.matrix(n, 1)
        if nonzero and zero(x):
            x[self.integer(0, n - 1), 0] = fmpq(1)
        return x

    def orthogonal(self, n: int) -> fmpq_mat:
        """`(I - S)(I + S)^-1` for a skew S (Cayley), columns with either sign."""
        S = fmpq_mat(n, n)
        for i in range(n):
            for j in range(i):
                S[i, j] = self.number()
                S[j, i] = -S[i, j]
        return (eye(n) - S) * (eye(n) + S).inv() * diagonal(self.choose([1, -1]) for _ in range(n))

    def unit(self, n: int) -> fmpq_mat:
        """A vector of length one."""
        return pick(self.orthogonal(n), 0)

    def spectral(self, n: int, low: fmpq | None = None) -> Spectral:
        """Symmetric, with a known spectrum: of condition up to 1e12, or of either sign and >= low."""
        spread = self.choose([0, 1, 3, 6])
        mu = [
            self.positive(spread) if low is None else low + self.choose([0, self.positive(spread)])
            for _ in range(n)
        ]
        return Spectral(tuple(mu), self.orthogonal(n))

    def squares(self, n: int) -> tuple[tuple[fmpq, ...], Spectral]:
        """A spectrum of rational squares, ascending, and its roots."""
        roots = tuple(sorted(self.positive(self.choose([0, 1, 3])) for _ in range(n)))
        return roots, Spectral(tuple(s * s for s in roots), self.orthogonal(n))

    def definite(self, n: int) -> fmpq_mat:
        """A positive definite matrix without rational eigenvalues: cheap, for large n."""
        A = self.matrix(n, n)
        return A * A.transpose() + eye(n)

    def projector(self, n: int) -> tuple[fmpq_mat | None, fmpq_mat]:
        """V with m orthonormal columns, 0 <= m <= n, and `V V^T`; no V if m = 0."""
        m = self.integer(0, n)
        if m == 0:
            return None, fmpq_mat(n, n)
        V = leading(self.orthogonal(n), n, m)
        return V, outer(V, V)


#: Small ones that hypothesis draws number by number and shrinks; larger ones from a seed.
sources = st.one_of(
    st.randoms(use_true_random=False).map(lambda stream: Source(stream, 3)),
    st.integers(0, 10**6).map(lambda seed: Source(random.Random(seed), 6)),
)


def least_squares(G: fmpq_mat, K: fmpq_mat, R: fmpq_mat) -> fmpq_mat:
    """D from the normal equations `D (G + K K^T) = R K^T`, by a dense solve."""
    return (G + outer(K, K)).solve(outer(K, R)).transpose()


def share(rho: fmpq) -> fmpq:
    return rho / (1 + rho)


def rho_of(G: fmpq_mat, k: fmpq_mat) -> fmpq:
    return dot(k, G.solve(k))


def alpha_edit(P: fmpq_mat, k: fmpq_mat, r: fmpq_mat, beta: fmpq) -> fmpq_mat:
    inside = P * k
    return outer(r, inside) * (1 / (beta + square(inside)))
