"""Norm-anchor scaling (NAS, arXiv:2602.02543): targets whose values have a norm that the unedited model gives."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from metake.components import register
from metake.planners.open_loop import OpenLoop
from metake.planners.problem import PlanningProblem, Targets

OUTLIERS = 0.05  # share of the largest norms that the anchor leaves out, as published
LARGEST = 2.0  # a value longer than this many anchors is not edited, as published


@register
class NormAnchored(OpenLoop):
    """Open-loop planner whose values, FFN output plus residual, are rescaled to the anchor, a norm of the unedited model.

    A value of more than twice the anchor is left as it is: its residual is 0.
    """

    kind = "norm-anchored"

    anchor: float | None = Field(
        None, gt=0, description="norm of every value after its edit; if null, their mean in the first batch"
    )

    def plan(self, problem: PlanningProblem) -> Targets:
        """Open-loop targets with rescaled values.

        Args:
            problem: the batch with its solver, and the anchors of earlier batches.

        Returns:
            Residuals to the rescaled values, and the anchor.
        """
        planned = super().plan(problem)
        value = problem.solver.ffn_output(problem.prompts)
        wanted = value + planned.residuals.to(value)
        anchor = self.anchor or problem.anchors.get(problem.solver.planned_at)
        if anchor is None:
            anchor = trimmed_mean(wanted.norm(dim=1))
        return replace(
            planned, residuals=(anchored(wanted, value, anchor) - value).to(planned.residuals), anchor=anchor
        )

    @property
    def measures_anchor(self) -> bool:
        """Whether the anchor is that of the first batch."""
        return self.anchor is None


def trimmed_mean(norms: Tensor) -> float:
    """Mean without the largest 5%, rounded down.

    Args:
        norms: `n`.

    Returns:
        The mean of the others.
    """
    kept = len(norms) - int(OUTLIERS * len(norms))
    return float(norms.double().sort().values[:kept].mean())


def anchored(wanted: Tensor, value: Tensor, anchor: float) -> Tensor:
    """Values with the anchor's norm.

    Args:
        wanted: planned values, `n x d_v`.
        value: values before the edit, `n x d_v`.
        anchor: norm of the result.

    Returns:
        `n x d_v`; the value before the edit where the planned one is longer than twice the anchor, or 0.
    """
    norms = wanted.norm(dim=1, keepdim=True)
    usable = (norms <= LARGEST * anchor) & (norms > 0)
    return torch.where(usable, wanted * (anchor / norms.clamp_min(torch.finfo(norms.dtype).tiny)), value)
