"""The interface of a method: what it starts from, one batch of edits, and what it does after the last batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from metake.deltas import Delta
from metake.errors import MetakeError
from metake.geometry.specs import GeometrySpec
from metake.geometry.statistics import Statistics
from metake.methods.named_settings import NamedSettings
from metake.methods.names import written_name
from metake.methods.state import Attenuation, Stage, State
from metake.models.editable import EditableModel
from metake.requests import EditRequest


class Method(NamedSettings):
    """Editing method: a value with all its choices and numbers.

    A subclass defines `step`; everything else has a default.

    Attributes:
        layers: edited layers, ascending.
        dtype: precision of the solves.
        max_tokens: padded tokens per pass.
        label: row of the table that the method is a variant of, or a name of its own.
        needs_fit: whether the method is fitted to records before it edits.

    Example:
        >>> import metake as mk
        >>> mk.memit((4, 5)).updated(lr=0.1).value("lr")
        0.1
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

    depth: ClassVar[str] = "by depth"  # where `default_layers` are, as a reason of settings
    needs_fit: ClassVar[bool] = False  # whether it is fitted to records before it edits

    @classmethod
    def default_layers(cls, count: int) -> tuple[int, ...]:
        """Edited layers of a model without a preset.

        Args:
            count: number of layers of the model.

        Returns:
            By default five (three in a small model) in its lower third.
        """
        if count < 3:
            return tuple(range(count))
        first = max(1, round(count * 0.14)) if count > 3 else 0
        return tuple(range(first, min(count, first + (5 if count >= 24 else 3))))

    @property
    def needs_statistics(self) -> bool:
        """Whether the method uses C."""
        return False

    @property
    def needs_gradients(self) -> bool:
        """Whether the method uses the second moments of gradients beside C."""
        return False

    @property
    def needs_subject(self) -> bool:
        """Whether the method reads keys at the subject's last token, so that the prompt must name the subject."""
        return bool(getattr(self, "lookup", "") == "subject")

    @property
    def name(self) -> str:
        """Name of the algorithm in tables and result files; see `metake.methods.names`."""
        return written_name(self)

    @property
    def torch_dtype(self) -> torch.dtype:
        """Precision of the solves."""
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    def check(self, model: EditableModel) -> None:
        """Refuse a model that the method cannot edit with a `MetakeError`, before any work.

        Args:
            model: the model, unedited.
        """
        model.check_layers(self.layers)

    def reasons(self, model: EditableModel) -> tuple[str, ...]:
        """Lines on settings that have no effect on a model.

        Args:
            model: the model to edit.

        Returns:
            None by default.
        """
        return ()

    def identity(self) -> dict[str, Any]:
        """All that the method's edits depend on, as plain values; runs with equal ones are the same."""
        return self.model_dump(mode="json")

    def init(self, model: EditableModel, statistics: Statistics | None = None) -> State:
        """State before the first batch.

        Args:
            model: the model to edit.
            statistics: second moments of its keys, if the method needs them.

        Returns:
            A state without memory.

        Raises:
            MetakeError: the statistics are missing, of another model, or of a kind that the geometry cannot use.
        """
        if not self.needs_statistics:
            return State()
        if statistics is None:
            raise MetakeError(
                f"statistics: {self.name} needs them; metake.statistics_for(model) collects them"
            )
        statistics.check(model, self.layers)
        for _, part in self.named_components():
            if isinstance(part, GeometrySpec):
                part.for_statistics(statistics)
        return State(statistics)

    def prepare(self, model: EditableModel, state: State, requests: Sequence[EditRequest] = ()) -> State:
        """State with what is sampled or measured at the first batch.

        Args:
            model: the model to edit.
            state: the state before the batch.
            requests: the batch; what is measured of it is left out if there is none.

        Returns:
            The state itself by default.
        """
        return state

    def restored(self, model: EditableModel, state: State, requests: Sequence[EditRequest]) -> State:
        """State before a batch that was edited earlier, with what `step` measures of the first batch.

        Args:
            model: the model before the batch.
            state: the state before the batch.
            requests: the batch.

        Returns:
            That of `prepare` by default.
        """
        return self.prepare(model, state, requests)

    def step(
        self,
        model: EditableModel,
        requests: Sequence[EditRequest],
        state: State,
        on_step: Callable[[], object],
        inputs: Any = None,
    ) -> tuple[Delta, State, tuple[Stage, ...]]:
        """One batch of edits.

        Args:
            model: the model; it is the same afterwards.
            requests: distinct requests; not empty.
            state: the state before the batch.
            on_step: called after every gradient step, at most `step_count` times.
            inputs: inputs that `preview` has built for the same requests, state and model. It is given only if
                `preview` returns some, so a method without them can leave the argument out.

        Returns:
            The change of the weights, the next state, and the stages of the change.
        """
        raise NotImplementedError

    def fold(self, state: State) -> State:
        """State whose memory does not grow with the number of batches; called after every batch.

        Args:
            state: the state after a batch.

        Returns:
            The state itself by default.
        """
        return state

    def constraint(self, state: State) -> dict[str, float]:
        """Strength of the constraint in a state: the setting's value and the attenuation that it was derived from.

        Args:
            state: a state after the first batch.

        Returns:
            Name -> number; empty for a method without such a setting.
        """
        return (
            {self.constraint_setting: self.value(self.constraint_setting)} if self.constraint_setting else {}
        )

    def preview(self, model: EditableModel, requests: Sequence[EditRequest], state: State) -> Attenuation:
        """Attenuation of each request, without any edit.

        Args:
            model: the model.
            requests: the requests.
            state: the state before them.

        Raises:
            MetakeError: the method has no attenuation.
        """
        raise MetakeError(f"preview: {self.name} does not solve in a geometry, so there is no attenuation")

    def finalize(self, total: Delta, originals: Mapping[int, Tensor]) -> Delta:
        """Total change after the last batch.

        Args:
            total: sum of all batches.
            originals: layer -> its unedited weight.

        Returns:
            `total` itself by default.
        """
        return total

    def check_overrides(self, overrides: Mapping[str, Any]) -> None:
        """Refuse settings that would have no effect; nothing is refused here.

        Args:
            overrides: setting -> value, as given by the user over those of a preset.
        """

    @property
    def context_seed(self) -> int | None:
        """Seed of the contexts that are sampled from the model; None if none are."""
        return None

    @property
    def previews(self) -> bool:
        """Whether `preview` is defined."""
        return False

    @property
    def constraint_setting(self) -> str:
        """Name of the setting that states how strongly old keys are protected; empty if there is none."""
        return ""

    @property
    def step_setting(self) -> str:
        """Name of the setting that states how far a target is optimized; empty if there is none."""
        return ""

    @property
    def clamp(self) -> float | None:
        """Bound of an open-loop plan's norm; None if there is none, or another loop follows."""
        return None

    @property
    def postprocess_kind(self) -> str:
        """Kind of the postprocess that changes the update after the solve; empty if there is none."""
        return ""

    @property
    def finalizes(self) -> bool:
        """Whether `finalize` changes anything."""
        return False

    def step_count(self, requests: int) -> int:
        """Largest number of gradient steps of a batch.

        Args:
            requests: number of requests of the batch.

        Returns:
            0 by default.
        """
        return 0
