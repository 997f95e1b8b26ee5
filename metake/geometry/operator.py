"""The effective geometry G of a layer: gram matrix, channel and attenuation of keys.

With G the geometry (d_k x d_k) and K the keys of a batch (d_k x n), everything an editor needs is
`G^-1 K`:

    S = K^T G^-1 K             gram; its diagonal is rho, the realizability   (19)
    Q = G^-1 K (I + S)^-1      least squares: the edit is R Q^T     (18), X8
    Q = G^-1 K S^-1            equality constrained: (R Q^T) K = R
    eta = rho / (1 + rho)      realized share of the residual of a single edit  (20)-(23)

`Ridge` is MEMIT's G = lambda C + beta I. `Projected` is AlphaEdit's null space, in the coordinates
of that space (X1): there its geometry is beta I and the same solver serves both. `Identity` is I: no key is
protected more than another. Each remembers keys of earlier batches, G + K_p K_p^T, by Woodbury's identity, or by
their second moment P = K_p K_p^T, whose size does not depend on their number.

Solves are done in fp64 by default: C of a trained model has condition numbers up to 1e8, beyond
fp32's 1e7.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Literal, Self

import torch
from torch import Tensor

from metake.errors import MetakeError
from metake.geometry.woodbury import Woodbury, cholesky, columns_of

Fit = Literal["least_squares", "equality_constrained"]


class Geometry(ABC):
    """Operator G of one layer, possibly restricted to a subspace, with earlier keys.

    A subclass defines `solve_base`, and sets `dtype` and `device`; one that is restricted to a subspace also defines
    `coordinates` and `lift`. `plus` makes `with_moment` faster. Earlier keys, gram, channel and attenuation are
    defined here for all.

    Attributes:
        dtype: precision of the solves.
        device: device of the solves.
        past: earlier keys, `coordinates x p`; None without.
        scale: factor of the base, 1 unless the geometry was made by `scaled`.

    Example:
        >>> import torch
        >>> import metake as mk
        >>> class Diagonal(mk.Geometry):
        ...     dtype, device = torch.float64, torch.device("cpu")
        ...     def __init__(self, entries):
        ...         self.entries = entries
        ...     def solve_base(self, x):
        ...         return x / self.entries[:, None]
        >>> geometry = Diagonal(torch.tensor([3.0, 1.0], dtype=torch.float64))
        >>> geometry.attenuation(torch.eye(2))
        tensor([0.2500, 0.5000], dtype=torch.float64)
    """

    dtype: torch.dtype
    device: torch.device
    past: Tensor | None = None  # coordinates x p, earlier keys
    scale: float = 1.0
    _recent: Woodbury | None = None  # of `past`
    _moment: Woodbury | Tensor | None = None  # of `with_moment`: a correction, or the factor of scale G + P

    @abstractmethod
    def solve_base(self, x: Tensor) -> Tensor:
        """Product `G^-1 x` without earlier keys.

        Args:
            x: `coordinates x n`.

        Returns:
            `coordinates x n`.
        """

    def coordinates(self, keys: Tensor) -> Tensor:
        """Keys in the coordinates of the geometry, its dtype and device.

        Args:
            keys: `d_k x n`, of any dtype and device.

        Returns:
            `coordinates x n`; `d_k x n` by default.
        """
        return keys.to(self.device, self.dtype)

    def lift(self, channel: Tensor) -> Tensor:
        """Channel in the coordinates of keys, the transpose of `coordinates`.

        Args:
            channel: `coordinates x n`.

        Returns:
            `d_k x n`.
        """
        return channel

    def plus(self, moment: Tensor) -> Tensor | None:
        """Matrix `scale G + P`, `coordinates x coordinates`, in P's dtype; None, as here, if G is not known as a matrix.

        Args:
            moment: P, `d_k x d_k`, symmetric positive semidefinite.

        Returns:
            `coordinates x coordinates`, or None.
        """
        return None

    @property
    def condition(self) -> float:
        """Condition number of the base, from its eigenvalues or an estimate of them; NaN if it is not known."""
        return float("nan")

    def with_past(self, keys: Tensor | None) -> Self:
        """Same base, and moment, with other earlier keys.

        Args:
            keys: `d_k x p`; None for no earlier keys.

        Returns:
            A copy that shares the base.
        """
        other = copy.copy(self)
        other._remember(keys)
        return other

    def protecting(self, keys: Tensor) -> Self:
        """The geometry with further keys, `G + K K^T`; differentiable with respect to the keys.

        Args:
            keys: K, `d_k x p`.

        Returns:
            A copy that shares the base, with these keys beside the earlier ones.
        """
        inside = self._enter(keys)
        other = copy.copy(self)
        other.past = inside if self.past is None else torch.cat([self.past, inside], 1)
        other._recent = Woodbury(other.past, other._solve_earlier(other.past))
        return other

    def scaled(self, factor: float) -> Self:
        """The geometry `factor G`, without earlier keys and their moment; every rho is divided by the factor.

        Args:
            factor: positive factor of the base.

        Returns:
            A copy that shares the base.
        """
        other = copy.copy(self)
        other.scale = self.scale * factor
        other.past = other._recent = other._moment = None
        return other

    def with_moment(self, moment: Tensor | None) -> Self:
        """Same base, `scale G`, with keys of earlier batches by their second moment, `scale G + P`.

        A geometry that defines `plus` is factored anew; for any other P is written as `F F^T` with at most `d_k` columns.

        Args:
            moment: P, the sum of `k k^T` over these keys, `d_k x d_k`; None for none.

        Returns:
            A copy that shares the base, without `past`; `with_past` adds further keys.

        Raises:
            MetakeError: P is not finite, or `scale G + P` not positive definite.

        Example:
            >>> import torch
            >>> from metake.geometry.identity import Identity
            >>> keys = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
            >>> Identity().with_moment(keys @ keys.T).attenuation(torch.eye(2))
            tensor([0.1429, 0.3333], dtype=torch.float64)
            >>> Identity().with_past(keys).attenuation(torch.eye(2))
            tensor([0.1429, 0.3333], dtype=torch.float64)
        """
        other = copy.copy(self)
        other.past = other._recent = other._moment = None
        if moment is None:
            return other
        if not bool(torch.isfinite(moment).all()):
            raise MetakeError(
                "keys of earlier batches: not finite; the model's activations overflow at this layer"
            )
        moment = moment.to(self.device)
        whole = self.plus(moment)
        if whole is None:
            columns = self.coordinates(columns_of(moment))
            other._moment = Woodbury(columns, other._solve_scaled(columns))
        else:
            other._moment = cholesky(whole, "G + P").to(self.dtype)
        return other

    def _solve_scaled(self, x: Tensor) -> Tensor:
        solved = self.solve_base(x)
        return solved if self.scale == 1.0 else solved / self.scale

    def _remember(self, keys: Tensor | None) -> None:
        """Factor Woodbury's small matrix, I + K_p^T G^-1 K_p, once per memory."""
        self.past = None if keys is None or keys.shape[1] == 0 else self.coordinates(keys)
        self._recent = None if self.past is None else Woodbury(self.past, self._solve_earlier(self.past))

    def _solve_earlier(self, x: Tensor) -> Tensor:
        """Product `(scale G + P)^-1 x`."""
        if isinstance(self._moment, Tensor):
            return torch.cholesky_solve(x, self._moment)
        solved = self._solve_scaled(x)
        return solved if self._moment is None else self._moment.correct(solved)

    def _solve(self, x: Tensor) -> Tensor:
        solved = self._solve_earlier(x)
        return solved if self._recent is None else self._recent.correct(solved)

    def _enter(self, keys: Tensor) -> Tensor:
        if not bool(torch.isfinite(keys).all()):
            raise MetakeError("keys: not finite; the model's activations overflow at this layer")
        return self.coordinates(keys)

    def solve(self, keys: Tensor) -> Tensor:
        """Product `G^-1 K` (for `Projected`: V (V^T G V)^-1 V^T K).

        Args:
            keys: K, `d_k x n`.

        Returns:
            `d_k x n`.
        """
        return self.lift(self._solve(self._enter(keys)))

    def gram(self, keys: Tensor) -> Tensor:
        """Gram matrix `S = K^T G^-1 K`, symmetric positive semidefinite.

        Args:
            keys: K, `d_k x n`.

        Returns:
            `n x n`.
        """
        inside = self._enter(keys)
        gram = inside.T @ self._solve(inside)
        return (gram + gram.T) / 2

    def channel(self, keys: Tensor, fit: Fit = "least_squares") -> Tensor:
        """Channel `Q`: the edit with residuals R (`d_v x n`) is `R Q^T`.

        Least squares minimizes `||D K - R||^2 + tr(D G D^T)` (13)-(18). The equality constraint minimizes `tr(D G D^T)` under
        `D K = R`, in the least-squares sense where keys coincide.

        Args:
            keys: K, `d_k x n`.
            fit: `least_squares` or `equality_constrained`.

        Returns:
            `d_k x n`.
        """
        return self.channel_and_attenuation(keys, fit)[0]

    def channel_and_attenuation(self, keys: Tensor, fit: Fit = "least_squares") -> tuple[Tensor, Tensor]:
        """Channel of a batch, and the attenuation of each of its keys alone, from one solve.

        Args:
            keys: K, `d_k x n`.
            fit: `least_squares` or `equality_constrained`.

        Returns:
            Q (`d_k x n`) and eta (`n`).
        """
        inside = self._enter(keys)
        solved = self._solve(inside)
        gram = inside.T @ solved
        gram = (gram + gram.T) / 2
        rho = gram.detach().diagonal().clamp_min(0)
        eta = rho / (1 + rho)
        if fit == "least_squares":
            small = torch.cholesky_solve(
                solved.T, cholesky(gram + torch.eye(len(gram)).to(gram), "I + K^T G^-1 K")
            )
        else:
            values, vectors = torch.linalg.eigh(gram)
            floor = values[-1].clamp_min(0) * len(values) * torch.finfo(self.dtype).eps
            inverse = torch.where(values > floor, 1 / values, 0)
            small = (vectors * inverse) @ (vectors.T @ solved.T)
        return self.lift(small.T), eta

    def realizability(self, keys: Tensor) -> Tensor:
        """Realizability of each key alone, `rho_j = k_j^T G^-1 k_j` (19).

        Args:
            keys: K, `d_k x n`.

        Returns:
            Shape `n`, at least 0.
        """
        inside = self._enter(keys)
        return (inside * self._solve(inside)).sum(0).clamp_min(0)

    def attenuation(self, keys: Tensor) -> Tensor:
        """Attenuation of each key alone, `eta_j = rho_j / (1 + rho_j)`; 0 only if the projected key is 0 (T1d).

        It is computed as this quotient, because `1 - 1/(1 + rho)` cancels for small rho (X4).

        Args:
            keys: K, `d_k x n`.

        Returns:
            Shape `n`, in [0, 1).
        """
        rho = self.realizability(keys)
        return rho / (1 + rho)


class Ridge(Geometry):
    """MEMIT's geometry, `G = lambda C + beta I`.

    Args:
        moment: C, `d_k x d_k`, symmetric positive semidefinite (up to the rounding of its fp32 sums,
            about 1e-7 of its largest eigenvalue: a model with dead neurons needs a beta above that).
        lam: lambda, how strongly old keys are protected.
        jitter: beta >= 0.
        past: keys of earlier batches, `d_k x p`.
        dtype: precision of the solves.

    Raises:
        MetakeError: lambda or beta out of range, C not finite, or G not positive definite.

    Example:
        >>> import torch
        >>> from metake.geometry.operator import Ridge
        >>> geometry = Ridge(torch.eye(2), lam=3.0)
        >>> geometry.attenuation(torch.tensor([[1.0], [0.0]]))
        tensor([0.2500], dtype=torch.float64)
    """

    def __init__(
        self,
        moment: Tensor,
        lam: float,
        jitter: float = 0.0,
        *,
        past: Tensor | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if not lam > 0 or jitter < 0:
            raise MetakeError(f"geometry: need lambda > 0 and beta >= 0, got {lam} and {jitter}")
        if not bool(torch.isfinite(moment).all()):
            raise MetakeError("statistics: C holds NaN or infinity; collect them again")
        self.dtype, self.device = dtype, moment.device
        matrix = moment.to(dtype) * lam
        matrix.diagonal().add_(jitter)
        self._factor = cholesky(matrix, f"lambda C + beta I (lambda {lam:g}, beta {jitter:g})")
        self._remember(past)

    def solve_base(self, x: Tensor) -> Tensor:
        """Product `(lambda C + beta I)^-1 x`.

        Args:
            x: `d_k x n`.

        Returns:
            `d_k x n`.
        """
        return torch.cholesky_solve(x, self._factor)

    def plus(self, moment: Tensor) -> Tensor:
        """Matrix `scale (lambda C + beta I) + P`, `d_k x d_k`, in P's dtype.

        Args:
            moment: P, `d_k x d_k`.

        Returns:
            `d_k x d_k`.
        """
        factor = self._factor.to(moment)
        return (factor @ factor.T).mul_(self.scale).add_(moment)

    @property
    def condition(self) -> float:
        """Condition number from the Cholesky factor by power iteration on G and G^-1 (a lower estimate)."""
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(len(self._factor), 1, generator=generator, dtype=torch.float64)
        largest = smallest = start.to(self.device, self.dtype)
        top = bottom = torch.ones(())
        for _ in range(30):
            largest = self._factor @ (self._factor.T @ largest)
            top = largest.norm()
            largest = largest / top
            smallest = self.solve_base(smallest)
            bottom = smallest.norm()
            smallest = smallest / bottom
        return float(top * bottom)
