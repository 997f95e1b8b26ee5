"""Locate-then-edit: plan a target at the last edited layer, then solve for the weights of every edited layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field, SerializeAsAny, model_validator
from torch import Tensor

from metake.components import register
from metake.deltas import Delta
from metake.geometry.operator import Fit, Geometry
from metake.geometry.specs import GeometrySpec, RidgeSpec
from metake.key_estimators import BareAndContexts, KeyEstimator
from metake.lookup_prompts import LookupPrompts
from metake.methods.base import Method
from metake.methods.geometries import base_at, with_earlier_keys
from metake.methods.lookup_keys import Group, batch_at, lookup_keys, realizability, scale_for
from metake.methods.state import Attenuation, LayerMemory, Stage, State
from metake.models.ambient import exact_device
from metake.models.editable import EditableModel
from metake.models.end_token import ends_of_answer
from metake.models.low_precision import obstacle, with_bf16_products
from metake.models.trace import frozen
from metake.phases import phase
from metake.planners.base import Planner
from metake.planners.closed_loop import ClosedLoop
from metake.planners.compensated import Compensated  # noqa: F401  registers the kind
from metake.planners.open_loop import OpenLoop
from metake.planners.problem import PlanningProblem, Targets
from metake.planners.target_optimization import TargetOptimization
from metake.prompts import Batch, Lookup, sample_contexts
from metake.requests import EditRequest
from metake.solvers.allocation import Allocation, Shares, Spread
from metake.solvers.layered import LayeredSolver
from metake.solvers.memory import Memory, NoMemory
from metake.solvers.postprocess import NoPostprocess, Postprocess
from metake.windows import WholeAnswer, Windows


@register
class LocateThenEdit(Method):
    """Locate-then-edit method: planner, geometry, allocation, key estimator, postprocess and memory (ROME, MEMIT, ...).

    Example:
        >>> from metake.methods.locate_then_edit import LocateThenEdit
        >>> method = LocateThenEdit(layers=(1, 2), label="memit")
        >>> method.updated(memory="past-keys").name
        'memit + past-keys'
    """

    kind = "locate-then-edit"
    choices = ("fit", "rounds", "group", "merge")
    loss_obstacle: ClassVar[str] = ""  # why no model's losses are computed in `loss_dtype`

    planner: SerializeAsAny[Planner] = Field(OpenLoop(), description="chooses the target of each request")
    geometry: SerializeAsAny[GeometrySpec] = Field(RidgeSpec(), description="constraint of the solves")
    allocation: SerializeAsAny[Allocation] = Field(
        Spread(), description="how the residual is divided over the layers"
    )
    fit: Fit = Field(
        "least_squares",
        description="solve: regularized least squares, or with the equality constraint (ROME)",
    )
    keys: SerializeAsAny[KeyEstimator] = Field(
        BareAndContexts(), description="how a request's keys in several contexts become one"
    )
    postprocess: SerializeAsAny[Postprocess] = Field(
        NoPostprocess(), description="change of the update after the solve"
    )
    windows: SerializeAsAny[Windows] = Field(
        WholeAnswer(), description="spans of the answer with a position, a key and a residual of their own"
    )
    memory: SerializeAsAny[Memory] = Field(NoMemory(), description="what is remembered of earlier batches")
    rounds: int = Field(
        1,
        ge=1,
        description="number of plan-and-solve rounds, each on the model edited so far; they divide the steps",
    )
    group: int | None = Field(None, ge=1, description="requests planned and solved together; all if null")
    merge: bool = Field(False, description="requests of the same subject share one target")
    lookup: Lookup = Field(
        "subject",
        description="token at which keys are read and targets written: the subject's last, or the prompt's last (published: fact_token)",
    )
    consistent_lookup: bool = Field(
        False,
        description="keys of a request are read at the prompt's last token if its key at the subject's depends on what precedes it",
    )
    contexts: tuple[str, ...] | None = Field(
        None, description="prefixes of the prompt; sampled from the model if null"
    )
    seed: int = Field(0, description="seed of the sampled contexts")
    loss_dtype: Literal["bfloat16"] | None = Field(
        None,
        description="precision of the matrix products in the losses of a plan; the model's if null. Keys, solves and the "
        "update keep theirs",
    )

    @model_validator(mode="after")
    def _parts_agree(self) -> LocateThenEdit:
        priced = isinstance(self.planner, ClosedLoop) and self.planner.cost_weight > 0
        if priced and self.fit == "equality_constrained":
            raise ValueError(
                "cost_weight requires fit=least_squares; an equality-constrained solve has no such trade-off"
            )
        if self.merge and self.windows.at_prompt:
            raise ValueError("merge requires windows=whole-answer; targets of windows are not shared")
        return self

    @property
    def previews(self) -> bool:
        """Whether `preview` is defined."""
        return True

    @property
    def lookup_token(self) -> Lookup:
        """Token of the first window's key: that of `lookup`; the prompt's last for windows that are edited there."""
        return "prompt" if self.windows.at_prompt else self.lookup

    @property
    def needs_subject(self) -> bool:
        """Whether the prompt must name the subject."""
        return self.lookup_token == "subject"

    @property
    def needs_statistics(self) -> bool:
        """Whether the geometry uses C."""
        return self.geometry.needs_statistics

    @property
    def context_seed(self) -> int | None:
        """Seed of the contexts that are sampled from the model; None if they are given."""
        return self.seed if self.contexts is None and self.windows.uses_contexts else None

    @property
    def constraint_setting(self) -> str:
        """Name of the setting that states how strongly old keys are protected."""
        return self.geometry.strength

    @property
    def step_setting(self) -> str:
        """Name of the setting that states how far a target is optimized."""
        return type(self.planner).aliases.get("steps", "steps")

    @property
    def clamp(self) -> float | None:
        """Bound of an open-loop plan's norm; None for another planner."""
        return self.planner.clamp if isinstance(self.planner, OpenLoop) else None

    @property
    def postprocess_kind(self) -> str:
        """Kind of the postprocess; empty if there is none."""
        return "" if isinstance(self.postprocess, NoPostprocess) else self.postprocess.kind

    @property
    def stages(self) -> list[Shares]:
        """Shares of every stage of a batch."""
        return self.allocation.stages(self.layers) * self.rounds

    @property
    def solved_layers(self) -> tuple[int, ...]:
        """Layers of all stages, ascending."""
        return tuple(sorted({layer for shares in self.stages for layer, _ in shares}))

    @property
    def finalizes(self) -> bool:
        """Whether the postprocess changes the total update."""
        return self.postprocess.acts_on_total

    def finalize(self, total: Delta, originals: Mapping[int, Tensor]) -> Delta:
        """Total change after the last batch, postprocessed.

        Args:
            total: sum of all batches.
            originals: layer -> its unedited weight.

        Returns:
            See `Postprocess.after_all`.
        """
        return self.postprocess.checked(self.postprocess.after_all(total, originals), total.layers)

    def reasons(self, model: EditableModel) -> tuple[str, ...]:
        """Lines on settings that have no effect on a model.

        Args:
            model: the model to edit.

        Returns:
            A line if `loss_dtype` is set and cannot be used.
        """
        why = (self.loss_obstacle or obstacle(model)) if self.loss_dtype else ""
        return (f"loss_dtype {self.loss_dtype}: not used, {why}",) if why else ()

    def step_count(self, requests: int) -> int:
        """Largest number of gradient steps of a batch.

        Args:
            requests: number of requests of the batch.

        Returns:
            Steps of all groups, stages and rounds.
        """
        groups = -(-requests // (self.group or requests))
        return groups * len(self.stages) * self.planner.divided(self.rounds).step_count

    def prepare(self, model: EditableModel, state: State, requests: Sequence[EditRequest] = ()) -> State:
        """State with contexts, sampled from the model, and from the first batch the strength of an attenuation.

        Args:
            model: the model to edit.
            state: the state before the batch.
            requests: the batch; without one the strength stays open.

        Returns:
            The state itself if it has both.
        """
        if state.contexts is None:
            contexts = self.contexts if self.windows.uses_contexts else ()
            contexts = sample_contexts(model, seed=self.seed) if contexts is None else contexts
            state = replace(state, contexts=contexts)
        if self.geometry.attenuation is not None and state.scale is None and requests:
            state = self._with_scale(model, self._groups(model, requests, state), state)
        return state

    def restored(self, model: EditableModel, state: State, requests: Sequence[EditRequest]) -> State:
        """State before a batch that was edited earlier, with anchors that are measured again: the first batch is planned.

        Args:
            model: the model before the batch.
            state: the state before the batch.
            requests: the batch.

        Returns:
            The state itself if it has all that is measured.
        """
        state = self.prepare(model, state, requests)
        if self.planner.measures_anchor and not state.anchors:
            with frozen(model.model):
                state = replace(state, anchors=self.step(model, requests, state, lambda: None)[1].anchors)
        return state

    def _with_scale(self, model: EditableModel, groups: Sequence[Group], state: State) -> State:
        """State with the geometries' factor that gives the attenuation asked for, if one is and it is not known."""
        eta = self.geometry.attenuation
        if eta is None or state.scale is not None:
            return state
        # without the keys that the prompts preserve, which do not scale with the factor
        bare = [replace(group, prompts=group.prompts.without_preserved) for group in groups]
        rho = [found.flatten() for found, _ in self._realizability(model, bare, state)]
        return replace(state, scale=scale_for(eta, torch.cat(rho)))

    def _realizability(
        self, model: EditableModel, groups: Sequence[Group], state: State
    ) -> list[tuple[Tensor, Tensor]]:
        """Per group, realizability of each window's mean key and cosine of its bare and mean keys, both `layers x n`."""
        geometries = {n: self.geometry_at(model, state, n) for n in self.solved_layers}
        return [realizability(model, group.prompts, geometries) for group in groups]

    def constraint(self, state: State) -> dict[str, float]:
        """Strength of the constraint in a state: that of the geometry, or the one that an attenuation led to.

        Args:
            state: a state after the first batch.

        Returns:
            Name -> number, with `attenuation` if it was given; `scale` for a geometry without a field of its strength.
        """
        eta = self.geometry.attenuation
        if eta is None or state.scale is None:
            return super().constraint(state)
        base = self.value(self.constraint_setting) if self.constraint_setting else 1.0
        return {"attenuation": eta, self.constraint_setting or "scale": base * state.scale}

    def geometry_at(self, model: EditableModel, state: State, layer: int) -> Geometry:
        """Effective geometry of a layer, with the keys of earlier batches if they are remembered.

        Args:
            model: the model to edit.
            state: statistics and memory; its geometries are filled.
            layer: an edited layer.

        Returns:
            The operator.
        """
        base = base_at(self.geometry, state, layer, self.torch_dtype, model.weight_device(layer))
        return with_earlier_keys(base, state, layer) if self.memory.remembers_keys else base

    def fold(self, state: State) -> State:
        """State with the keys of earlier batches folded into their second moment, if the memory does so.

        Args:
            state: the state after a batch.

        Returns:
            A new state, or the same one.
        """
        return state.fold(self.memory.fold)

    def solver(self, model: EditableModel, state: State, shares: Shares | None = None) -> LayeredSolver:
        """Lower level of a stage.

        Args:
            model: the model to edit.
            state: statistics and memory.
            shares: shares of the stage; those of the first by default.

        Returns:
            The solver.
        """
        shares = shares or self.stages[0]
        geometries = {layer: self.geometry_at(model, state, layer) for layer, _ in shares}
        per_layer, at_value = self.allocation.per_layer, self.allocation.at_value
        return LayeredSolver(model, geometries, shares, self.fit, per_layer, self.max_tokens, at_value)

    def batch(
        self, model: EditableModel, requests: Sequence[EditRequest], state: State
    ) -> tuple[Batch, LookupPrompts]:
        """Token rows of some requests, and their prefixes up to the lookup token.

        Args:
            model: the model to edit.
            requests: the requests.
            state: the state, with contexts.

        Returns:
            Input of the planner, and input of the solver.
        """
        lookup, layers, contexts = self.lookup_token, self.solved_layers, state.contexts or ()
        consistent = self.consistent_lookup and lookup == "subject"
        return batch_at(model, requests, contexts, layers, lookup, self.keys, consistent, self.windows)

    def step(
        self,
        model: EditableModel,
        requests: Sequence[EditRequest],
        state: State,
        on_step: Callable[[], object],
        inputs: Sequence[Group] | None = None,
    ) -> tuple[Delta, State, tuple[Stage, ...]]:
        """One batch of edits: plan and solve all groups and stages, each on the model that earlier ones edited.

        Args:
            model: the model; it is the same afterwards.
            requests: distinct requests; not empty.
            state: the state before the batch.
            on_step: called after every gradient step, at most `step_count` times.
            inputs: groups that `preview` has built for the same requests, state and model; built here by default.

        Returns:
            The change of the weights, the next state, and the stages of the change.
        """
        state = self.prepare(model, state)
        groups = inputs or self._groups(model, requests, state)
        state = self._with_scale(model, groups, state)
        jobs = [(group, shares) for group in groups for shares in self.stages]
        delta, stages = Delta({}), []
        with ExitStack() as earlier:  # what is returned is the sum of all stages
            for i, (group, shares) in enumerate(jobs):
                solver = self.solver(model, state, shares)
                with phase("plan"):
                    targets = self.plan(
                        model, solver, group.batch, group.prompts, on_step, state.anchors, group.plan
                    )
                state = state.with_anchor(solver.planned_at, targets.anchor)
                with phase("solve"):
                    solution = solver.solve(group.prompts, targets.residuals)
                owners, moved = group.batch.owners, self._moved(group)
                counted = self.allocation.counted(shares)
                stages.append(Stage(targets, solution, group.members, counted, self.fit, moved, owners))
                change = Delta(
                    {n: (left.cpu(), right.cpu()) for n, (left, right) in solution.factors.items()}
                )
                delta = delta.then(change)
                if i + 1 < len(jobs):
                    earlier.enter_context(change.applied(model, check=False))
        if self.postprocess.acts_on_batch:
            weights = {layer: model.weight(layer).cpu() for layer in delta.layers}
            delta = self.postprocess.checked(self.postprocess.after_batch(delta, weights), delta.layers)
        memory = self._learn(model, groups, delta) if self.memory.remembers_keys else {}
        return delta, state.with_memory(memory), tuple(stages)

    def _moved(self, group: Group) -> tuple[bool, ...]:
        """Per request, whether its key is read at another token than the method's."""
        return tuple(token != self.lookup_token for token in group.batch.lookups)

    def plan(
        self,
        model: EditableModel,
        solver: LayeredSolver,
        batch: Batch,
        prompts: LookupPrompts,
        on_step: Callable[[], object] = lambda: None,
        anchors: Mapping[int, float] | None = None,
        plan: TargetOptimization | None = None,
    ) -> Targets:
        """Targets of one stage, on the model as it is.

        Args:
            model: the model to edit.
            solver: solver of the stage.
            batch: token rows of the stage's requests.
            prompts: their prefixes up to the lookup token.
            on_step: called after every gradient step.
            anchors: layer -> norm that values are rescaled to (NAS); none before the first batch.
            plan: the open-loop plan, if it is known.

        Returns:
            Residuals for the solver.
        """
        groups = batch.subjects if self.merge else None
        ends = ends_of_answer(model) if self.planner.scores_end else ()
        losses = with_bf16_products(model) if self.loss_dtype and not obstacle(model) else model
        problem = PlanningProblem(
            model, solver, batch, prompts, groups, self.max_tokens, on_step, ends=ends, loss_model=losses
        )
        problem.anchors, problem.plan = anchors or {}, plan
        return self.planner.divided(self.rounds).plan(problem)

    def _groups(
        self, model: EditableModel, requests: Sequence[EditRequest], state: State
    ) -> tuple[Group, ...]:
        """Groups of a batch, with their token rows and the passes below the first solved layer."""
        size = self.group or len(requests)
        parts = [slice(start, start + size) for start in range(0, len(requests), size)]
        return tuple(Group(part, *self.batch(model, requests[part], state)) for part in parts)

    def _learn(self, model: EditableModel, groups: Sequence[Group], delta: Delta) -> LayerMemory:
        """Keys that are remembered, layer -> `d_k x n`: of lookup tokens in the edited model, as AlphaEdit, and constant ones."""
        with delta.applied(model, check=False):
            keys = [lookup_keys(model, group.prompts, delta.layers) for group in groups]
        keys += [dict(group.prompts.constant) for group in groups if group.prompts.constant]
        return {layer: self._columns([of[layer] for of in keys]) for layer in delta.layers}

    def _columns(self, keys: Sequence[Tensor]) -> Tensor:
        """Keys as columns, in the dtype of the solves, on a device that has it."""
        device = exact_device(keys[0].device)
        return torch.cat([of.to(device).to(self.torch_dtype) for of in keys]).T.contiguous()

    def preview(self, model: EditableModel, requests: Sequence[EditRequest], state: State) -> Attenuation:
        """Attenuation of each request, without any edit.

        Args:
            model: the model.
            requests: the requests.
            state: the state before them.

        Returns:
            Attenuation per layer and request, with the groups as inputs of `step`.
        """
        state = self.prepare(model, state)
        groups = self._groups(model, requests, state)
        state = self._with_scale(model, groups, state)
        rho, cosine = (
            torch.cat([group.per_request(part) for group, part in zip(groups, parts, strict=True)], 1)
            for parts in zip(*self._realizability(model, groups, state), strict=True)
        )
        moved = sum((self._moved(group) for group in groups), ())
        shares = self.allocation.counted(self.stages[-1])
        return Attenuation(self.solved_layers, rho, cosine, shares, self.fit, groups, moved)
