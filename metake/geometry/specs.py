"""Choices of an effective geometry with their numbers; each builds the operator of a layer."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor

from metake.components import Component, register
from metake.errors import MetakeError
from metake.geometry.identity import Identity
from metake.geometry.null_space import Projected
from metake.geometry.operator import Geometry, Ridge
from metake.geometry.per_expert import PerExpert
from metake.geometry.statistics import Statistics


class GeometrySpec(Component):
    """Choice of a geometry.

    A subclass defines `build`, and sets `needs_statistics = False` if it does not use C.

    Attributes:
        needs_statistics: whether the geometry uses C.
        strength: field that states how strongly old keys are protected; empty if none does.
        attenuation: median attenuation of the first batch's keys over the edited layers, from which the strength
            follows, one for all layers; None takes the strength as it is.

    Example:
        >>> import torch
        >>> import metake as mk
        >>> from metake.geometry.operator import Ridge
        >>> class Mean(mk.GeometrySpec):
        ...     kind = "mean"
        ...     def build(self, moment, dtype, device):
        ...         scale = moment.diagonal().mean()
        ...         return Ridge(scale * torch.eye(len(moment)), lam=1.0, dtype=dtype)
        >>> geometry = Mean().build(torch.diag(torch.tensor([1.0, 5.0])), torch.float64, torch.device("cpu"))
        >>> geometry.attenuation(torch.eye(2))
        tensor([0.2500, 0.2500], dtype=torch.float64)
    """

    family = "geometry"
    needs_statistics: ClassVar[bool] = True
    strength: ClassVar[str] = ""

    attenuation: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="strength of the constraint, as the median attenuation eta of the first batch's keys without "
        "further preserved keys; replaces lambda or L2",
    )

    @abstractmethod
    def build(self, moment: Tensor | None, dtype: torch.dtype, device: torch.device) -> Geometry:
        """Geometry of a layer, without earlier keys.

        Args:
            moment: C of the layer (`d_k x d_k`, on `device`); None if the spec needs no statistics.
            dtype: precision of the solves.
            device: device of the layer's weight.

        Returns:
            The operator.
        """

    def build_all(self, moment: Tensor | None, dtype: torch.dtype, device: torch.device) -> Geometry:
        """Geometry of a layer; one per expert, if C is.

        Args:
            moment: C of the layer, `d_k x d_k`, or `E x d_f x d_f`; None if the spec needs no statistics.
            dtype: precision of the solves.
            device: device of the layer's weight.

        Returns:
            The operator.
        """
        if moment is None or moment.ndim == 2:
            return self.build(moment, dtype, device)
        return PerExpert.build(moment, lambda each: self.build(each, dtype, device))

    def for_statistics(self, statistics: Statistics) -> Self:
        """The spec for the kind of some statistics.

        Args:
            statistics: the statistics that C is taken from.

        Returns:
            The spec itself.

        Raises:
            MetakeError: null-space projections, which hold no C.
        """
        if statistics.is_projection and self.needs_statistics:
            raise MetakeError(
                f"statistics: null-space projections ({statistics.provenance.source}) hold no C, which the geometry {self.kind} "
                "uses; choose a method with the geometry projected (alphaedit), or statistics of keys"
            )
        return self


def checked(geometry: object, kind: str) -> Geometry:
    """The operator that a spec has built.

    Args:
        geometry: result of `GeometrySpec.build`.
        kind: kind of the spec, for the error line.

    Returns:
        The operator itself.

    Raises:
        MetakeError: not a `Geometry`, or one without `dtype` or `device`.
    """
    name = type(geometry).__name__
    if not isinstance(geometry, Geometry):
        raise MetakeError(f"geometry {kind}: build must return a Geometry, not {name}")
    for attribute in ("dtype", "device"):
        if not hasattr(geometry, attribute):
            raise MetakeError(
                f"geometry {kind}: {name} has no {attribute}; set self.{attribute} in its __init__"
            )
    return geometry


@register
class RidgeSpec(GeometrySpec):
    """MEMIT's geometry, lambda C + beta I."""

    kind = "ridge"
    strength = "lam"
    published: ClassVar[dict[str, str]] = {"mom2_update_weight": "lam"}

    lam: float = Field(15000.0, gt=0, description="lambda of lambda C [mom2_update_weight]")
    jitter: float = Field(1e-7, ge=0, description="beta of lambda C + beta I, as a share of tr(lambda C)")

    def build(self, moment: Tensor | None, dtype: torch.dtype, device: torch.device) -> Ridge:
        """Geometry `lambda C + beta I` of a layer.

        Args:
            moment: C of the layer (`d_k x d_k`, on `device`).
            dtype: precision of the solves.
            device: device of the layer's weight.

        Returns:
            The operator, with beta as a share of tr(lambda C).
        """
        assert moment is not None
        beta = self.jitter * self.lam * float(moment.trace())
        return Ridge(moment, self.lam, beta, dtype=dtype)


@register
class ProjectedSpec(GeometrySpec):
    """AlphaEdit's geometry, beta I in the null space of C."""

    kind = "projected"
    strength = "l2"
    published: ClassVar[dict[str, str]] = {"L2": "l2", "nullspace_threshold": "threshold"}

    l2: float = Field(10.0, gt=0, description="beta in AlphaEdit's null space [L2]")
    threshold: float | None = Field(
        None, gt=0, description="absolute null-space threshold on eigenvalues of C (published: 0.02)"
    )
    keep: float = Field(0.8, gt=0, le=1, description="share of directions kept if no threshold is set")

    def build(self, moment: Tensor | None, dtype: torch.dtype, device: torch.device) -> Projected:
        """Geometry beta I in the null space of C.

        Args:
            moment: C of the layer (`d_k x d_k`, on `device`).
            dtype: precision of the solves.
            device: device of the layer's weight.

        Returns:
            The operator.
        """
        assert moment is not None
        keep = self.keep if self.threshold is None else None
        return Projected(moment, self.l2, threshold=self.threshold, keep=keep, dtype=dtype)

    def for_statistics(self, statistics: Statistics) -> Self:
        """The spec for the kind of some statistics.

        Args:
            statistics: the statistics that C is taken from.

        Returns:
            For projections, a spec that takes the null space as it is: `I - P` has the eigenvalues 0 and 1.
        """
        return self.replaced("threshold", 0.5) if statistics.is_projection else self


@register
class IdentitySpec(GeometrySpec):
    """Geometry G = I: every key is protected equally; it needs no statistics."""

    kind = "identity"
    needs_statistics = False

    def build(self, moment: Tensor | None, dtype: torch.dtype, device: torch.device) -> Identity:
        """Geometry I.

        Args:
            moment: not used.
            dtype: precision of the solves.
            device: device of the layer's weight.

        Returns:
            The operator.
        """
        return Identity(dtype=dtype, device=device)
