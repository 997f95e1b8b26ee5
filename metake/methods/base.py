"""The interface of a method: what it starts from, one batch of edits, and what it does after the last batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from metake.components import Component, Path, families
from metake.deltas import Delta
from metake.errors import MetakeError
from metake.geometry.operator import Fit, Geometry
from metake.geometry.statistics import Statistics
from metake.methods.names import written_name
from metake.models.load import EditableModel
from metake.names import unknown_name
from metake.planners.problem import Targets
from metake.requests import Request
from metake.solvers.allocation import Shares
from metake.solvers.layered import Solution

Learned = dict[int, Tensor]


@dataclass(frozen=True)
class Stage:
    """One plan and its solve, on the model that the stages before it edited.

    Attributes:
        members: which of the batch's requests it is for.
        shares: what each layer was asked for, of what was missing at the layer that `solution.shift` is measured at.
        fit: how each layer was solved.
    """

    targets: Targets
    solution: Solution
    members: slice
    shares: Shares
    fit: Fit = "soft"


@dataclass(frozen=True, eq=False)
class State:
    """What a method carries from one batch to the next; a value, so that an edit is undone by the state before it.

    Attributes:
        statistics: second moments of the edited layers' keys; None if the method needs none.
        contexts: texts put before prompts; None until they are sampled, at the first batch.
        learned: per batch, layer -> what is remembered of it.
        bases: layer -> its geometry without earlier keys; filled when first used.
    """

    statistics: Statistics | None = None
    contexts: tuple[str, ...] | None = None
    learned: tuple[Learned, ...] = ()
    bases: dict[int, Geometry] = field(default_factory=dict, repr=False)

    def with_learned(self, learned: Learned) -> State:
        """The state after one more batch."""
        return replace(self, learned=(*self.learned, learned))

    def of_layer(self, layer: int) -> list[Tensor]:
        """What is remembered of a layer, oldest batch first."""
        return [learned[layer] for learned in self.learned if layer in learned]


@dataclass(frozen=True)
class Preview:
    """Attenuation of requests at each layer, before anything is edited.

    Attributes:
        layers: edited layers.
        rho: `layers x n`, of each request's key.
        cosine: `layers x n`, of the bare prompt's key with its mean in contexts.
        shares, fit: what each layer is asked for, and how it is solved.
    """

    layers: tuple[int, ...]
    rho: Tensor
    cosine: Tensor
    shares: Shares
    fit: Fit


class Method(Component):
    """A method of editing: a value with all its choices and numbers.

    A subclass defines `step`; everything else has a default.

    Attributes:
        layers: edited layers, ascending.
    """

    family = "method"

    layers: tuple[int, ...] = Field(description="edited layers, in ascending order")
    dtype: Literal["float64", "float32"] = Field("float64", description="precision of the solves")
    max_tokens: int | None = Field(
        None,
        ge=64,
        description="padded tokens per pass, which bounds the memory; if null, 1,024 on a CPU (its cache size) and "
        "8,192 on a GPU",
    )
    label: str = Field(
        "", description="row of the table that the method is a variant of, or a name of its own"
    )

    previews: ClassVar[bool] = False  # whether `preview` is defined
    choices: ClassVar[tuple[str, ...]] = ()  # fields other than components that determine the algorithm

    @property
    def needs_statistics(self) -> bool:
        """Whether the method uses C."""
        return False

    @property
    def name(self) -> str:
        """Name of the algorithm in tables and result files; see `metake.methods.names`."""
        return written_name(self)

    @property
    def torch_dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    def init(self, model: EditableModel, statistics: Statistics | None = None) -> State:
        """The state before the first batch.

        Raises:
            MetakeError: the statistics are missing, or of another model.
        """
        if not self.needs_statistics:
            return State()
        if statistics is None:
            raise MetakeError(
                f"statistics: {self.name} needs them; metake.statistics_for(model) collects them"
            )
        statistics.check(model.arch, self.layers)
        return State(statistics)

    def prepare(self, model: EditableModel, state: State) -> State:
        """The state with what is sampled from the model at the first batch."""
        return state

    def step(
        self, model: EditableModel, requests: Sequence[Request], state: State, on_step: Callable[[], object]
    ) -> tuple[Delta, State, tuple[Stage, ...]]:
        """One batch of edits.

        Args:
            requests: distinct; not empty.
            on_step: called after every gradient step, at most `step_count` times.

        Returns:
            The change of the weights (the model is as it was), the next state, and how the change came about.
        """
        raise NotImplementedError

    def preview(self, model: EditableModel, requests: Sequence[Request], state: State) -> Preview:
        """Attenuation of each request, without any edit.

        Raises:
            MetakeError: the method has no attenuation.
        """
        raise MetakeError(f"preview: {self.name} does not solve in a geometry, so there is no attenuation")

    def finalize(self, total: Delta, originals: Mapping[int, Tensor]) -> Delta:
        """The total change after the last batch.

        Args:
            originals: layer -> its unedited weight.
        """
        return total

    def value(self, name: str) -> Any:
        """The value of a setting, by its short, published or dotted name.

        Raises:
            MetakeError: the method has no such setting.
        """
        found: Any = self
        for part in self._paths(name)[0]:
            found = getattr(found, part)
        return found

    def updated(self, **changes: Any) -> Self:
        """A copy with some settings changed.

        A name that several components have changes all of them. The method's name says which components differ from
        its row's.

        Args:
            changes: short, published or dotted name of a setting -> value; a component by its kind.

        Raises:
            MetakeError: a setting that the method does not have, or a value out of range; the line names it.
        """
        made = self
        choices = {
            path: value
            for name, value in changes.items()
            if made._is_choice(name)
            for path in made._paths(name)
        }
        for path in sorted(choices, key=len):  # the settings of a chosen component exist after it is chosen
            made = made.changed({path: choices[path]})
        numbers = {name: value for name, value in changes.items() if not self._is_choice(name)}
        return made.changed({path: value for name, value in numbers.items() for path in made._paths(name)})

    def fitting(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Those of some changes that the method has a setting for."""
        made = self.updated(**{name: value for name, value in changes.items() if self._is_choice(name)})
        return {name: value for name, value in changes.items() if made._paths(name, missing_ok=True)}

    def numbers(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Those of some settings that the method has and that leave its algorithm as it is."""
        return {
            name: value
            for name, value in self.fitting(settings).items()
            if not self._is_choice(name) and self._paths(name)[0][-1] not in self.choices
        }

    def _is_choice(self, name: str) -> bool:
        """Whether a setting holds a component."""
        found: Any = self
        for part in next(iter(self._paths(name, missing_ok=True)), ("layers",)):
            found = getattr(found, part)
        return isinstance(found, Component)

    def _paths(self, name: str, missing_ok: bool = False) -> list[Path]:
        """Paths of fields from the method to a setting."""
        found: list[Path] = []
        if isinstance(name, str) and "." in name:
            path = tuple(name.split("."))
            found = [
                path
                for owner, part in self.parts()
                if owner == path[:-1] and path[-1] in type(part).model_fields
            ]
        elif isinstance(name, str):
            found = [
                (*path, part.setting_names()[name])
                for path, part in self.parts()
                if name in part.setting_names()
            ]
        if not found and not missing_ok:
            raise self._unknown(name)
        return found

    def _unknown(self, name: str) -> MetakeError:
        names = [list(type(part).setting_names()) for _, part in self.parts()]
        known = list(dict.fromkeys(setting for group in names for setting in group))
        owners = [
            f"{family} {kind}"
            for family, kinds in families().items()
            for kind, cls in kinds.items()
            if isinstance(name, str) and name in cls.setting_names()
        ]
        if owners:
            return MetakeError(
                f"settings: {self.name} has no {name}; it is a setting of {', '.join(owners[:3])}; known: {', '.join(known)}"
            )
        return unknown_name("settings", name, known)

    @property
    def context_seed(self) -> int | None:
        """Seed of the contexts that are sampled from the model; None if none are."""
        return None

    @property
    def strength(self) -> str:
        """Name of the setting that states how strongly old keys are protected; empty if there is none."""
        return ""

    @property
    def effort(self) -> str:
        """Name of the setting that states how far a target is optimized; empty if there is none."""
        return ""

    @property
    def clamp(self) -> float | None:
        """Bound of an open-loop plan's norm; None if there is none, or another loop follows."""
        return None

    @property
    def cut(self) -> str:
        """Kind of the postprocess that changes the update after the solve; empty if there is none."""
        return ""

    @property
    def finalizes(self) -> bool:
        """Whether `finalize` changes anything."""
        return False

    def step_count(self, requests: int) -> int:
        """Largest number of gradient steps of a batch of so many requests."""
        return 0
