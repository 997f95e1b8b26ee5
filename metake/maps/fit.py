"""Fit of a map to records: Adam on the post-edit loss, early stop on held-out records, resumable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metake.data.record import Record
from metake.errors import MetakeError
from metake.files import as_plain, digest
from metake.maps.files import described, fill, model_states, tensors_of
from metake.maps.fitting import Fitting
from metake.maps.gradient_map import GradientMap, MapSpec
from metake.models.editable import EditableModel
from metake.models.trace import frozen
from metake.planners.normalized_gradient import Moments
from metake.tensor_files import read_tensors, write_tensors
from metake.words import counted

PARTIAL = "metake-map-partial-1"
SAVE_EVERY = 10.0  # seconds between two savings of an unfinished fit
OnStep = Callable[[int, float], object]


@dataclass
class Fit:
    """A fit in progress.

    Attributes:
        model: the model, unedited.
        records: records to fit.
        held: records that decide when to stop; empty to run all steps.
        fitting: numbers of the fit.
        running: whether edited batches are added to the moments that normalize.
        path: file of the unfinished fit.
        max_tokens: padded tokens per pass; by default what suits the device.
    """

    model: EditableModel
    records: Sequence[Record]
    held: Sequence[Record]
    spec: MapSpec
    fitting: Fitting
    running: bool
    path: Path
    max_tokens: int | None = None
    step: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.records:
            raise MetakeError("fit: no records; give more, or lower fit_held_out")
        self.map = GradientMap(self.spec, self.model.d_k, self.model.d_v, self.fitting.seed)
        self.map.to(self.model.device)
        self.adam = torch.optim.Adam(self.map.parameters(), lr=self.fitting.lr)
        self.best: dict[str, Tensor] = {}
        self.key = digest(
            as_plain(
                {
                    "models": model_states(self.model),
                    "spec": described(self.spec),
                    "fitting": self.fitting.model_dump(mode="json"),
                    "running": self.running,
                    "records": [[asdict(r) for r in part] for part in (self.records, self.held)],
                }
            )
        )

    @property
    def stopped(self) -> bool:
        """Whether the held-out loss has not improved for `patience` measurements."""
        losses = held_out_losses(self.curve)
        if not losses:
            return False
        return len(losses) - 1 - losses.index(min(losses)) >= self.fitting.patience

    def run(self, on_step: OnStep = lambda *_: None) -> GradientMap:
        """The map with the smallest held-out loss; that of the last step without held-out records.

        Args:
            on_step: called after every step with its number and its loss.

        Returns:
            The map.

        Raises:
            MetakeError: the loss of a step or all held-out losses are not finite, or the file belongs to another fit.
        """
        self._resume()
        last_saved = time.monotonic()
        with frozen(self.model.model):
            if not self.curve:
                self._begin()
            while self.step < self.fitting.steps and not self.stopped:
                loss = self._take()
                on_step(self.step, loss)
                if self.step % self.fitting.every == 0 or self.step == self.fitting.steps:
                    self._measure()
                if time.monotonic() - last_saved >= SAVE_EVERY:
                    self._save()
                    last_saved = time.monotonic()
        if self.held and not self.best:
            raise MetakeError(
                f"fit: no loss on held-out records is finite; lower fit_lr (now {self.fitting.lr:g}) or "
                f"map_lr (now {self.spec.lr:g})"
            )
        if self.best:
            fill(self.map, self.best)
        return self.map

    def _begin(self) -> None:
        """Moments of the first step's batches, and the point of the curve before the fit."""
        self.map.moments = self.map.pooled(self._loss(self.fitting.batches(self.records, 0), learn=False)[1])
        self._measure()

    def _take(self) -> float:
        """One step of Adam; its loss."""
        self.adam.zero_grad()
        batches = self.fitting.batches(self.records, self.step)
        loss, seen = self._loss(batches, learn=True)
        if not math.isfinite(loss):
            raise MetakeError(
                f"fit: diverged, the loss of step {self.step + 1} is not finite; lower fit_lr (now {self.fitting.lr:g}) or "
                f"map_lr (now {self.spec.lr:g})"
            )
        torch.nn.utils.clip_grad_norm_(self.map.parameters(), self.fitting.clip)
        self.adam.step()
        if self.step:  # those of the first step are there from the beginning
            self.map.moments = self.map.pooled(seen)
        self.step += 1
        self.recent.append(loss)
        return loss

    def _loss(self, batches: Sequence[Sequence[Record]], learn: bool) -> tuple[float, list[Moments]]:
        try:
            return self.fitting.loss(
                self.map, self.model, batches, running=self.running, learn=learn, max_tokens=self.max_tokens
            )
        except MetakeError as error:
            if not self.step or "not finite" not in str(error):
                raise
            raise MetakeError(
                f"fit: diverged after {counted(self.step, 'step')} ({error}); lower fit_lr (now {self.fitting.lr:g}) or "
                f"map_lr (now {self.spec.lr:g})"
            ) from error

    def _measure(self) -> None:
        """Add a point to the curve; keep the map if its held-out loss is the smallest."""
        point: dict[str, float] = {"step": self.step}
        if self.recent:
            point["loss"] = sum(self.recent) / len(self.recent)
        if self.held:
            size, length = self.fitting.batch, self.fitting.length
            parts = [self.held[i : i + size] for i in range(0, len(self.held), size)]
            losses = [self._loss(parts[i : i + length], learn=False)[0] for i in range(0, len(parts), length)]
            point["held_out"] = sum(losses) / len(losses)
            if all(point["held_out"] < loss for loss in (math.inf, *held_out_losses(self.curve))):
                self.best = {name: tensor.clone() for name, tensor in tensors_of(self.map).items()}
        self.curve.append(point)
        self.recent = []

    def _save(self) -> None:
        """Write the unfinished fit."""
        state: Mapping[str, Any] = self.adam.state_dict()["state"]
        tensors = {f"map.{name}": tensor for name, tensor in tensors_of(self.map).items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors |= {f"adam.{i}.{name}": value for i, part in state.items() for name, value in part.items()}
        meta = {"key": self.key, "step": self.step, "curve": self.curve, "recent": self.recent}
        write_tensors(self.path, PARTIAL, tensors, meta)

    def _resume(self) -> None:
        """Continue from the file of an unfinished fit, if there is one."""
        if not self.path.exists():
            return
        remedy = "remove it to start over"
        tensors, meta = read_tensors(self.path, PARTIAL, remedy)
        if meta["key"] != self.key:
            raise MetakeError(f"{self.path}: an unfinished fit of another model, data or settings; {remedy}")
        self.step, self.curve, self.recent = meta["step"], meta["curve"], meta["recent"]
        fill(self.map, _part(tensors, "map."))
        self.best = _part(tensors, "best.")
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _part(tensors, "adam.").items():
            index, _, entry = name.partition(".")
            state.setdefault(int(index), {})[entry] = value
        if state:
            groups = self.adam.state_dict()["param_groups"]
            self.adam.load_state_dict({"state": state, "param_groups": groups})


def held_out_losses(curve: Sequence[Mapping[str, float | None]]) -> list[float]:
    """Held-out losses of a curve; infinite where they are not finite, which is null in a file.

    Args:
        curve: points of a fit.

    Returns:
        One loss per point that has one.
    """
    losses = [point["held_out"] for point in curve if "held_out" in point]
    return [loss if loss is not None and math.isfinite(loss) else math.inf for loss in losses]


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose names have a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
