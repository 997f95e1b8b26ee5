"""The lower level: from targets at the last edited layer to a low-rank update of every edited layer.

Layer by layer, keys and residuals are computed again with the updates so far, as MEMIT does, but
virtually: an update stays a pair of factors, and the next pass begins from the block's output with
the update's share of it. So a solve leaves the model alone and can be repeated, with any targets,
while they are still being chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from metake.errors import MetakeError
from metake.geometry.operator import Fit, Geometry
from metake.lookup_prompts import LookupPrompts
from metake.models.editable import EditableModel
from metake.models.post_norm import PostNorm
from metake.models.prefix_batch import PrefixSuffix
from metake.models.trace import Trace, run, upcast
from metake.solvers.allocation import Shares

Found = TypeVar("Found")


@dataclass(frozen=True)
class Solution:
    """Result of a solve.

    Attributes:
        factors: layer -> (left, right) = (R, Q); the update is `R Q^T`.
        keys: layer -> `n x d_k`, the keys of the solve.
        missing: layer -> `n`, norm of the remaining residual before the layer's update, at the last layer (per-layer goals:
            at that layer).
        eta: layer -> `n`, attenuation of each key alone.
        shift: `n x d_v`, shift of the stream at the lookup token of the bare prompt after the last edited layer, or of the
            output of its down-projection (`LayeredSolver.at_value`).
        planned: `n x d_v`, the shift that was planned.
        gains: layer -> `n x d_v`, factor from the down-projection's output to the stream; only layers with a norm of this
            output (`metake.models.post_norm`).
    """

    factors: dict[int, tuple[Tensor, Tensor]]
    keys: dict[int, Tensor]
    missing: dict[int, Tensor]
    eta: dict[int, Tensor]
    shift: Tensor
    planned: Tensor
    gains: Mapping[int, Tensor] = field(default_factory=dict)

    def to_value(self, layer: int, shift: Tensor) -> Tensor:
        """Shift of a layer's down-projection output that stands for a shift of the stream.

        Args:
            layer: an edited layer.
            shift: `n x d_v`.

        Returns:
            Same shape; the shift itself for a layer without a norm.
        """
        return shift / self.gains[layer].to(shift) if layer in self.gains else shift

    @property
    def realized_share(self) -> Tensor:
        """Realized share of each planned residual, along it: `<shift, r> / ||r||^2`, shape `n`."""
        square = (self.planned**2).sum(1)
        return (self.shift * self.planned).sum(1) / square.clamp_min(torch.finfo(square.dtype).tiny)

    def cost(self, differentiate_keys: bool = True) -> Tensor:
        """Contribution of each request to the update's cost in the geometry, `tr(D G D^T)` (X14).

        `<r - D k, D k>` with the residual r of a layer's solve, summed over the layers. The cost includes the
        disturbance of earlier keys where G holds them. For least squares only: with the equality constraint r = D k.

        Args:
            differentiate_keys: whether derivatives include those of the keys.

        Returns:
            Shape `n`.
        """
        total = torch.zeros((), device=self.planned.device)
        for layer, (left, right) in self.factors.items():
            key = self.keys[layer] if differentiate_keys else self.keys[layer].detach()
            total = total + cost_of(left.T, key @ right).to(total.device)
        return total


def cost_of(residuals: Tensor, gram_channel: Tensor) -> Tensor:
    """Contribution of each request to `tr(D G D^T)`: `<r_j - s_j, s_j>` with `s = gram_channel r`.

    Args:
        residuals: `n x d_v`, r.
        gram_channel: `K^T Q`, `n x n`.

    Returns:
        Shape `n`.
    """
    realized = gram_channel @ residuals
    return ((residuals - realized) * realized).sum(1)


class LayeredSolver:
    """Solver of a batch over the layers of an allocation.

    Args:
        model: the model.
        geometries: layer -> its effective geometry.
        shares: (layer, share) of the stage; see `metake.solvers.allocation`.
        fit: `least_squares` (MEMIT, AlphaEdit) or `equality_constrained` (ROME, EMMET).
        per_layer: whether every layer has its own goal (FE). Residuals are then shifts at the first layer, and the goals
            of later layers are what the model makes of that shift; otherwise they are shifts at the last layer, and
            every layer takes its share of them.
        at_value: whether residuals are shifts of the output of the last layer's down-projection, not of the stream (PMET).
        max_tokens: a differentiated solve over more tokens than this (by default 4,096, on a GPU 16,384) recomputes the
            activations of its passes in the backward pass.

    Reference: MEMIT (arXiv:2210.07229), equations (3), (5), (13)-(18).
    """

    def __init__(
        self,
        model: EditableModel,
        geometries: Mapping[int, Geometry],
        shares: Shares,
        fit: Fit = "least_squares",
        per_layer: bool = False,
        max_tokens: int | None = None,
        at_value: bool = False,
    ) -> None:
        self.model, self.geometries, self.shares, self.fit = model, geometries, shares, fit
        self.per_layer, self.at_value = per_layer, at_value
        if at_value and model.post_norm(self.layers[-1]) is not None:
            raise MetakeError(
                f"allocation: {model.name} ({model.family}) normalizes the output of a down-projection, so a residual of the "
                "stream is none of this output; choose another allocation, e.g. spread"
            )
        self._constant: tuple[Mapping[int, Tensor], dict[int, Geometry]] = {}, {}
        self.max_tokens = max_tokens or (4096 if model.device.type == "cpu" else 16384)

    @property
    def layers(self) -> tuple[int, ...]:
        """Edited layers, ascending."""
        return tuple(layer for layer, _ in self.shares)

    @property
    def planned_at(self) -> int:
        """Layer at whose output residuals are planned."""
        return self.layers[0 if self.per_layer else -1]

    @torch.no_grad()
    def unedited_stream_and_key(self, prompts: LookupPrompts) -> tuple[Tensor, Tensor]:
        """Stream and keys of the unedited model at the layer where residuals are planned.

        Args:
            prompts: prefixes of the requests up to the lookup token.

        Returns:
            `h` (`n x d_v`, bare prompts) and `k` (`n x d_k`).
        """
        top = self.planned_at
        trace = prompts.tokens.run(
            self.model, start=prompts.start, hidden=prompts.hidden, stop=top, keys=(top,), outputs=(top,)
        )
        stream = prompts.bare(prompts.at_lookup(trace.outputs[top].suffix))
        return upcast(stream), prompts.mean_key(upcast(prompts.at_lookup(trace.keys[top].suffix)))

    @torch.no_grad()
    def unedited_geometry(self, prompts: LookupPrompts) -> Geometry:
        """Geometry of the layer where residuals are planned, with the preserved keys of the unedited model.

        Args:
            prompts: prefixes of the requests up to the lookup token.

        Returns:
            The operator.
        """
        top = self.planned_at
        if prompts.preserved is None:
            return self._constant_geometry(prompts, top)
        block = self._run_to(prompts, top, prompts.start, prompts.hidden)
        return protecting(self.geometries[top], prompts.preserved_keys(top, block.keys[top].suffix))

    def _constant_geometry(self, prompts: LookupPrompts, layer: int) -> Geometry:
        """Geometry of a layer with the prompts' constant keys; it is built once for some prompts."""
        if self._constant[0] is not prompts.constant:
            self._constant = prompts.constant, {}
        built = self._constant[1]
        if layer not in built:
            built[layer] = protecting(self.geometries[layer], prompts.constant.get(layer))
        return built[layer]

    def _geometry(
        self, prompts: LookupPrompts, layer: int, keys: Tensor, differentiate_keys: bool
    ) -> Geometry:
        """Geometry of a layer with the keys that the prompts preserve; `keys` are those of all tokens of the suffixes."""
        if prompts.preserved is None:
            return self._constant_geometry(prompts, layer)
        others = prompts.preserved_keys(layer, keys)
        return protecting(
            self.geometries[layer], others if differentiate_keys or others is None else others.detach()
        )

    @torch.no_grad()
    def ffn_output(self, prompts: LookupPrompts) -> Tensor:
        """Output of the unedited down-projection of that layer at the bare prompts' lookup tokens.

        Args:
            prompts: prefixes of the requests up to the lookup token.

        Returns:
            `n x d_v`.
        """
        ids, _, below = prompts.bare_rows(prompts.hidden)
        top = self.planned_at
        trace = run(self.model, ids, start=prompts.start, hidden=below, stop=top, values=(top,))
        return upcast(prompts.at_bare_lookup(trace.values[top]))

    def solve(self, prompts: LookupPrompts, residuals: Tensor, differentiate_keys: bool = True) -> Solution:
        """Updates of all layers for some residuals.

        If the residuals require a gradient, the factors are differentiable with respect to them, through the residuals and
        channels of every layer (X10). An update that is not finite is a `MetakeError`.

        Args:
            prompts: prefixes of the requests up to the lookup token.
            residuals: `n x d_v`, planned shifts after the layer that they are planned at.
            differentiate_keys: whether derivatives include the effect of lower updates on the keys of upper layers. The
                values are the same either way.

        Returns:
            Factors, keys, attenuations and the realized shift.
        """
        with torch.set_grad_enabled(residuals.requires_grad):
            return self._solve(prompts, residuals, differentiate_keys)

    def _solve(self, prompts: LookupPrompts, residuals: Tensor, differentiate_keys: bool) -> Solution:
        top = self.layers[-1]
        hidden, start = prompts.hidden, prompts.start
        factors: dict[int, tuple[Tensor, Tensor]] = {}
        keys, missing, eta, gains = {}, {}, {}, {}
        before = after = None
        goals: dict[int, Tensor] = {}
        for layer, share in self.shares:
            # every context is needed up to this layer's block, and only the bare prompts up to the goal's layer
            block = self._run_to(prompts, layer, start, hidden)
            goal_layer = layer if self.per_layer else top
            streams = self._bare_streams(prompts, layer, block, goal_layer if goals else top)
            if not goals:
                before = upcast(prompts.at_bare_lookup(streams[top]))
                goals = self._goals(prompts, streams, residuals)
            stream = upcast(prompts.at_bare_lookup(streams[goal_layer]))
            lookups = upcast(prompts.at_lookup(block.keys[layer].suffix))
            geometry = self._geometry(prompts, layer, block.keys[layer].suffix, differentiate_keys)
            key, remaining = prompts.mean_key(lookups), goals[goal_layer] - stream
            columns = (key if differentiate_keys else key.detach()).T.to(geometry.device)
            right, attenuation = geometry.channel_and_attenuation(columns, self.fit)
            right = right.to(key)
            bare_keys = prompts.bare(lookups)
            if self.fit == "equality_constrained" and prompts.estimator.exact_at_bare:
                right = right @ torch.linalg.pinv(
                    bare_keys @ right
                )  # in the least-squares sense where keys coincide
            norm, value, asked = self._post_norm(layer), None, share * remaining
            if norm is not None:
                value = upcast(prompts.bare(prompts.at_lookup(block.values[layer].suffix)))
                gain = norm.gain(value)
                asked, gains[layer] = asked.to(value) / gain, gain.detach()
            left = asked.T.to(key.device).contiguous()
            if not bool(torch.isfinite(right).all() and torch.isfinite(left).all()):
                raise MetakeError(f"solve: the update of layer {layer} is not finite; nothing was changed")
            factors[layer] = (left, right)
            keys[layer] = key
            missing[layer] = remaining.detach().norm(dim=1)
            eta[layer] = attenuation.to(torch.float32)
            change = ((bare_keys @ right) @ left.T).to(stream.device)
            if norm is not None and value is not None:
                change = (norm(value + change.to(value)) - norm(value)).to(stream)
            after = stream + change
            if layer != top:
                hidden, start = self._edited_output(block, layer, factors[layer]), layer + 1
        assert before is not None
        assert after is not None
        return Solution(factors, keys, missing, eta, after - before, goals[top] - before, gains)

    def _post_norm(self, layer: int) -> PostNorm | None:
        """The norm between the layer's down-projection and what residuals are measured at; None if there is none."""
        return None if self.at_value else self.model.post_norm(layer)

    def _run_to(
        self, prompts: LookupPrompts, layer: int, start: int, hidden: PrefixSuffix
    ) -> Trace[PrefixSuffix]:
        """Keys and outputs of block `layer` at every token, from the stream before block `start`; values where needed."""
        values = (layer,) if self.at_value or self.model.post_norm(layer) is not None else ()

        def climb() -> Trace[PrefixSuffix]:
            return prompts.tokens.run(
                self.model,
                start=start,
                hidden=hidden,
                stop=layer,
                keys=(layer,),
                values=values,
                outputs=(layer,),
                cache=prompts.cache,
            )

        return self._recomputed(prompts, climb)

    def _bare_streams(
        self, prompts: LookupPrompts, layer: int, block: Trace[PrefixSuffix], last: int
    ) -> dict[int, Tensor]:
        """What residuals are shifts of, in the bare prompts: at block `layer`, which has run, and at block `last`."""
        measured = block.values if self.at_value else block.outputs
        streams = {layer: prompts.bare_rows(measured[layer])[2]}
        if last == layer:
            return streams
        ids, _, below = prompts.bare_rows(block.outputs[layer])
        values = (last,) if self.at_value else ()

        def climb() -> Tensor:
            trace = run(
                self.model,
                ids,
                start=layer + 1,
                hidden=below,
                stop=last,
                values=values,
                outputs=(last,),
                cache=prompts.bare_cache,
            )
            return (trace.values if self.at_value else trace.outputs)[last]

        return streams | {last: self._recomputed(prompts, climb)}

    def _edited_output(
        self, block: Trace[PrefixSuffix], layer: int, factors: tuple[Tensor, Tensor]
    ) -> PrefixSuffix:
        """Stream after a block with an update, from the pass without it."""
        left, right = factors
        norm = self.model.post_norm(layer)

        def edited(output: Tensor, key: Tensor, value: Tensor | None) -> Tensor:
            change = (key.to(right.dtype) @ right.to(key.device)) @ left.to(key.device).T
            if norm is not None and value is not None:
                change = norm((value + change).to(value.dtype)) - norm(value)
            return (upcast(output) + change.to(output.device)).to(output.dtype)

        output, key, value = block.outputs[layer], block.keys[layer], block.values.get(layer)
        prefix = None
        if output.prefix is not None and key.prefix is not None:
            prefix = edited(output.prefix, key.prefix, None if value is None else value.prefix)
        return PrefixSuffix(
            edited(output.suffix, key.suffix, None if value is None else value.suffix), prefix
        )

    def _recomputed(self, prompts: LookupPrompts, climb: Callable[[], Found]) -> Found:
        """Result of a pass; if it is differentiated and too large, the backward pass recomputes its activations."""
        if not torch.is_grad_enabled() or prompts.tokens.ids.suffix.numel() <= self.max_tokens:
            return climb()
        found: Found = checkpoint(climb, use_reentrant=False, preserve_rng_state=False)
        return found

    def _goals(
        self, prompts: LookupPrompts, unedited: dict[int, Tensor], residuals: Tensor
    ) -> dict[int, Tensor]:
        """Layer -> `n x d_v`, target streams at the lookup token: of the last layer, or of each."""
        planned_at = self.planned_at
        stream = unedited[planned_at]
        ids = prompts.bare_rows(prompts.hidden)[0]
        rows, columns = prompts.bare_positions
        at = rows.to(stream.device), columns.to(stream.device)
        goals = {planned_at: upcast(stream[at]) + residuals.to(stream.device, upcast(stream).dtype)}
        upper = [layer for layer in self.layers if layer > planned_at]
        if upper:
            shifted = stream.index_put(at, goals[planned_at].to(stream.dtype))
            replay = run(
                self.model,
                ids,
                start=planned_at + 1,
                hidden=shifted,
                stop=upper[-1],
                outputs=upper,
                cache=prompts.bare_cache,
            )
            goals |= {layer: upcast(prompts.at_bare_lookup(replay.outputs[layer])) for layer in upper}
        return goals


def protecting(geometry: Geometry, keys: Tensor | None) -> Geometry:
    """Geometry with further keys, `G + K_p K_p^T`.

    Args:
        geometry: G.
        keys: `p x d_k`; None for no further keys.

    Returns:
        The geometry itself without further keys.
    """
    return geometry if keys is None else geometry.protecting(upcast(keys).T)
