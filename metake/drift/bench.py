"""Inputs of a measurement: model, statistics and method; and the measurement of one edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metake.drift.edit import Edit, Gradients, measure
from metake.geometry.statistics import Statistics
from metake.methods.combinators import compensated, metake
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.state import State
from metake.models.editable import EditableModel
from metake.options import find_statistics
from metake.planners.closed_loop import ClosedLoop
from metake.planners.objective import Losses
from metake.planners.target_optimization import Penalty, optimize_targets
from metake.presets import default_layers, settings_for
from metake.requests import EditRequest


@dataclass(frozen=True)
class DriftSetup:
    """Inputs of a measurement.

    Attributes:
        model: the unedited model.
        statistics: statistics of the edited layers.
        method: `memit` or `alphaedit` with the settings of the model's preset.
        factors: strengths of the constraint, relative to that of the method.
        norms: pairs of products per norm of a Jacobian; 0 leaves them out.
        steps: steps of the descent that is followed; 0 leaves it out.
    """

    model: EditableModel
    statistics: Statistics
    method: LocateThenEdit
    factors: tuple[float, ...]
    norms: int
    steps: int

    @classmethod
    def build(
        cls,
        model: EditableModel,
        name: str,
        *,
        layers: tuple[int, ...] | None = None,
        strength: float | None = None,
        factors: Sequence[float] = (0.1, 1.0, 10.0),
        norms: int = 4,
        steps: int = 8,
        seed: int = 0,
        stats: Path | None = None,
        text: Path | None = None,
    ) -> DriftSetup:
        """DriftSetup with the settings of the model's preset and statistics of the edited layers.

        Args:
            model: the unedited model.
            name: `memit` or `alphaedit`; the geometry and the memory.
            layers: edited layers; None for the preset's, or the default ones where the preset edits fewer than three.
            strength: lambda, of AlphaEdit the L2; None for the preset's.
            factors: measured strengths, relative to it; 1 is among them in any case.
            norms: pairs of products per norm of a Jacobian; 0 leaves them out.
            steps: steps of the descent that is followed; 0 leaves it out.
            seed: of the sampled contexts.
            stats: file of statistics; None to collect them.
            text: text to collect statistics from; None for the included one.

        Returns:
            The inputs of a measurement.

        Raises:
            MetakeError: a layer does not exist, or statistics cannot be used.
        """
        method = settings_for(model, name)
        if layers is None:  # one layer has no drift
            layers = method.layers if len(method.layers) >= 3 else default_layers(len(model))
        changes: dict[str, Any] = {"layers": layers, "seed": seed}
        if strength is not None:
            changes[method.constraint_setting] = strength
        method = method.updated(**changes)
        model.check_layers(method.layers)
        assert isinstance(method, LocateThenEdit)
        statistics = find_statistics(model, [method], stats, text)
        assert statistics is not None
        return cls(model, statistics, method, tuple(sorted({1.0, *factors})), norms, steps)

    @property
    def closed(self) -> ClosedLoop:
        """MetaKE's planner over the method."""
        planner = metake(self.method).planner
        assert isinstance(planner, ClosedLoop)
        return planner

    def at(self, factor: float = 1.0) -> tuple[LocateThenEdit, State]:
        """Method under another strength of the constraint, and its state before an edit.

        Args:
            factor: strength, relative to that of the method.

        Returns:
            Method and state.
        """
        name = self.method.constraint_setting
        method = self.method.updated(**{name: self.method.value(name) * factor})
        return method, method.prepare(self.model, method.init(self.model, self.statistics))

    def measure(
        self, strengths: dict[float, tuple[LocateThenEdit, State]], request: EditRequest
    ) -> dict[str, Any]:
        """Measurement of one edit on the unedited model.

        Args:
            strengths: factor -> method and state, from `at`.
            request: the edit.

        Returns:
            Measurements at the plan, at the compensated plan, over the strengths, and along MetaKE's descent.
        """
        model = self.model
        batch, _ = self.method.batch(self.model, [request], strengths[1.0][1])
        penalty = Penalty(kl=self.closed.kl, kl_from_unedited=True)

        def at(factor: float) -> Edit:
            method, state = strengths[factor]
            return Edit(model, method.solver(self.model, state), batch, penalty, method.max_tokens)

        edit = at(1.0)
        aimed = compensated(self.method).plan(self.model, edit.solver, batch, edit.prompts)
        plan = aimed.plan.residuals
        start = edit.gradients(plan, twice=self.norms > 0)
        measured = {}
        for factor, (method, _) in strengths.items():
            value = method.value(method.constraint_setting)
            at_plan = start if factor == 1.0 else at(factor).gradients(plan, open_loop=start.open_loop)
            measured[f"{value:g}"] = measure(at_plan, steps=0)
        executed = measure(edit.gradients(aimed.residuals), steps=0)
        return {
            "request": [request.prompt, request.subject, request.target_new],
            "start": measure(start, steps=self.norms),
            "compensated": {**executed, "scale": float(aimed.scale[0])},
            "strengths": measured,
            "trail": self._trail(start),
        }

    def _trail(self, start: Gradients) -> list[dict[str, Any]]:
        """Cosines at four steps of MetaKE's descent by the proxy: the first two, the middle one and the last."""
        if self.steps == 0:
            return []
        edit, followed = start.edit, {1, self.steps // 2, self.steps - 1} - {0}
        step, cosines = [0], [{"step": 0, "cos": start.cosines}]

        class RecordingLoss:
            is_post_edit = False

            def __call__(
                self,
                residuals: torch.Tensor,
                active: torch.Tensor,
                penalty: Penalty,
                *,
                backward: bool = True,
            ) -> tuple[Losses, torch.Tensor | None]:
                if step[0] in followed:
                    cosines.append({"step": step[0], "cos": edit.gradients(residuals).cosines})
                step[0] += 1
                return edit.proxy(residuals, active, penalty, backward=backward)

        optimize_targets(
            RecordingLoss(),
            start.leaf.detach(),
            edit.hidden.norm(dim=1),
            steps=self.steps,
            lr=self.closed.lr,
            penalty=edit.penalty,
            stop="none",
            stop_loss=0.0,
            evaluate_post_edit=lambda r: Losses(torch.zeros(1), torch.zeros(1)),
        )
        return cosines
