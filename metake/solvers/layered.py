"""The lower level: from targets at the last edited layer to a low-rank update of every edited layer.

Layer by layer, keys and residuals are computed again with the updates so far, as MEMIT does, but
virtually: an update stays a pair of factors that the next pass adds on the fly. So a solve leaves
the model alone and can be repeated, with any targets, while they are still being chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from metake.errors import MetakeError
from metake.geometry.operator import Fit, Geometry
from metake.models.architecture import Architecture
from metake.models.prefix_batch import PrefixSuffix
from metake.models.trace import run, upcast
from metake.prompts import LookupPrompts, pick_tokens
from metake.solvers.allocation import Shares

Keys = Literal["moving", "frozen"]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Solution:
    """What a solve did.

    Attributes:
        factors: layer -> (left, right) = (R, Q); the update is `R Q^T`.
        keys: layer -> `n x d_k`, the keys it was solved with.
        missing: layer -> `n`, norm of what was missing *before* this one wrote, at the last layer (or
            at this one, if every layer has its own goal).
        eta: layer -> `n`, attenuation of each key alone.
        shift: `n x d_v`, what the whole update adds to the stream at the lookup token of the bare
            prompt, after the last edited layer.
        planned: `n x d_v`, what it should have added.
    """

    factors: dict[int, tuple[Tensor, Tensor]]
    keys: dict[int, Tensor]
    missing: dict[int, Tensor]
    eta: dict[int, Tensor]
    shift: Tensor
    planned: Tensor

    @property
    def fraction(self) -> Tensor:
        """Executed share of each planned residual, along it: `<shift, r> / ||r||^2`, shape `n`."""
        square = (self.planned**2).sum(1)
        return (self.shift * self.planned).sum(1) / square.clamp_min(torch.finfo(square.dtype).tiny)

    def cost(self, keys: Keys = "moving") -> Tensor:
        """What each request's part of the update costs what is protected, shape `n` (X14).

        `<r - D k, D k>` with what its layer was asked for, over all layers; the requests' sum is
        `tr(D G D^T)`, of earlier keys' disturbance too where G remembers them. For the soft fit: an
        exact one leaves nothing missing.

        Args:
            keys: whether derivatives follow the keys.
        """
        found = torch.zeros((), device=self.planned.device)
        for layer, (left, right) in self.factors.items():
            key = self.keys[layer] if keys == "moving" else self.keys[layer].detach()
            found = found + cost_of(left.T, key @ right).to(found.device)
        return found


def cost_of(asked: Tensor, kept: Tensor) -> Tensor:
    """`<r_j - s_j, s_j>`, shape `n`, for residuals `asked` (`n x d_v`) realised as `s = kept r`.

    Args:
        kept: `K^T Q`, `n x n`.
    """
    realised = kept @ asked
    return ((asked - realised) * realised).sum(1)


class LayeredSolver:
    """Solves a batch over the layers of an allocation.

    Args:
        geometries: layer -> its effective geometry.
        shares: from `metake.solvers.allocation`.
        fit: soft (MEMIT, AlphaEdit) or exact (ROME, EMMET).
        per_layer: residuals are shifts at the first layer, and every layer has a goal of its own, what the
            model makes of that shift on its way up (FE); otherwise they are shifts at the last layer, of which
            every layer takes its share.
        max_tokens: a solve that is differentiated, over more tokens than this (by default 4,096, on a GPU
            16,384), keeps no activations of its passes but runs them again on the way back.
    """

    def __init__(
        self,
        arch: Architecture,
        geometries: Mapping[int, Geometry],
        shares: Shares,
        fit: Fit = "soft",
        per_layer: bool = False,
        max_tokens: int | None = None,
    ) -> None:
        self.arch, self.geometries, self.shares, self.fit, self.per_layer = (
            arch,
            geometries,
            shares,
            fit,
            per_layer,
        )
        self.max_tokens = max_tokens or (4096 if arch.device.type == "cpu" else 16384)

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(layer for layer, _ in self.shares)

    @property
    def planned_at(self) -> int:
        """The layer whose output residuals are planned at."""
        return self.layers[0 if self.per_layer else -1]

    @torch.no_grad()
    def origin(self, prompts: LookupPrompts) -> tuple[Tensor, Tensor]:
        """Of the unedited model: stream after the block that residuals are planned at, and mean key there.

        Returns:
            `h` (`n x d_v`, bare prompts) and `k` (`n x d_k`).
        """
        top = self.planned_at
        trace = prompts.tokens.run(
            self.arch, start=prompts.start, hidden=prompts.hidden, stop=top, keys=(top,), outputs=(top,)
        )
        stream = prompts.bare(prompts.at_lookup(trace.suffix.outputs[top]))
        return upcast(stream), prompts.mean_key(upcast(prompts.at_lookup(trace.suffix.keys[top])))

    @torch.no_grad()
    def value(self, prompts: LookupPrompts) -> Tensor:
        """What the unedited down-projection of that layer puts out at the bare prompts' lookup tokens, `n x d_v`."""
        ids, last, below = prompts.bare_rows(prompts.hidden)
        top = self.planned_at
        trace = run(self.arch, ids, start=prompts.start, hidden=below, stop=top, values=(top,))
        return upcast(pick_tokens(last, trace.values[top]))

    def solve(self, prompts: LookupPrompts, residuals: Tensor, keys: Keys = "moving") -> Solution:
        """Execute `residuals` (`n x d_v`, wanted shifts after the layer that they are planned at).

        If they require a gradient, the factors can be differentiated by them, through the residuals
        and channels of every layer (X10).

        Args:
            keys: whether derivatives follow what lower updates do to the keys of upper layers.
                The values are those of moving keys either way.

        Raises:
            MetakeError: an update comes out not finite.
        """
        with torch.set_grad_enabled(residuals.requires_grad):
            return self._solve(prompts, residuals, keys)

    def _solve(self, prompts: LookupPrompts, residuals: Tensor, follow: Keys) -> Solution:
        top = self.layers[-1]
        hidden, start = prompts.hidden, prompts.start
        factors: dict[int, tuple[Tensor, Tensor]] = {}
        keys, missing, eta = {}, {}, {}
        before = after = None
        goals: dict[int, Tensor] = {}
        again = torch.is_grad_enabled() and prompts.tokens.ids.suffix.numel() > self.max_tokens
        for layer, share in self.shares:
            # every context is needed up to this layer's key, and only the bare prompts up to the goal's
            # layer, below which nothing else is edited yet
            passes = _Passes(self.arch, prompts, layer, dict(factors), again)
            hidden, at_lookup = passes.keys(start, hidden)
            start = layer
            seen = self.layers if not goals else (layer if self.per_layer else top,)
            streams = passes.streams(hidden, seen)
            if not goals:
                before = upcast(pick_tokens(passes.last, streams[top]))
                goals = self._goals(prompts, streams, residuals)
            aim = layer if self.per_layer else top
            stream = upcast(pick_tokens(passes.last, streams[aim]))
            lookups = upcast(at_lookup)
            key, rest = prompts.mean_key(lookups), goals[aim] - stream
            geometry = self.geometries[layer]
            columns = (key if follow == "moving" else key.detach()).T.to(geometry.device)
            right, kept = geometry.executed(columns, self.fit)
            right = right.to(key)
            own = prompts.bare(lookups)  # of the last layer in the end: nothing follows but its write
            if self.fit == "exact" and prompts.estimator.exact_at_bare:
                right = right @ torch.linalg.pinv(
                    own @ right
                )  # in the least-squares sense where keys coincide
            left = (share * rest).T.to(key.device).contiguous()
            if not bool(torch.isfinite(right).all() and torch.isfinite(left).all()):
                raise MetakeError(f"solve: the update of layer {layer} is not finite; nothing was changed")
            factors[layer] = (left, right)
            keys[layer] = key
            missing[layer] = rest.detach().norm(dim=1)
            eta[layer] = kept.to(torch.float32)
            after = stream + ((own @ right) @ left.T).to(stream.device)
        assert before is not None
        assert after is not None
        return Solution(factors, keys, missing, eta, after - before, goals[top] - before)

    def _goals(
        self, prompts: LookupPrompts, unedited: dict[int, Tensor], residuals: Tensor
    ) -> dict[int, Tensor]:
        """Layer -> `n x d_v`, wanted streams at the lookup token: of the last layer, or of each."""
        place = self.planned_at
        stream = unedited[place]
        ids, last = prompts.bare_rows(prompts.hidden)[:2]
        at = torch.arange(len(last), device=stream.device), last.to(stream.device)
        goals = {place: upcast(stream[at]) + residuals.to(stream.device, upcast(stream).dtype)}
        upper = [layer for layer in self.layers if layer > place]
        if upper:
            shifted = stream.index_put(at, goals[place].to(stream.dtype))
            replay = run(self.arch, ids, start=place + 1, hidden=shifted, stop=upper[-1], outputs=upper)
            goals |= {layer: upcast(pick_tokens(last, replay.outputs[layer])) for layer in upper}
        return goals


@dataclass(frozen=True)
class _Passes:
    """The passes before a layer is solved, with the updates of the layers below.

    Attributes:
        again: keep no activations for the way back, but run again there.
    """

    arch: Architecture
    prompts: LookupPrompts
    layer: int
    factors: dict[int, tuple[Tensor, Tensor]]
    again: bool

    @property
    def last(self) -> Tensor:
        return self.prompts.bare(self.prompts.last)

    def keys(self, start: int, hidden: PrefixSuffix) -> tuple[PrefixSuffix, Tensor]:
        """From the stream before block `start`: that before this layer's, and keys at the lookup token."""

        def climb() -> tuple[PrefixSuffix, Tensor]:
            trace = self.prompts.tokens.run(
                self.arch,
                start=start,
                hidden=hidden,
                stop=self.layer,
                edits=self.factors,
                keys=(self.layer,),
                inputs=(self.layer,),
            )
            return trace.inputs[self.layer], self.prompts.at_lookup(trace.suffix.keys[self.layer])

        return self._run(climb)

    def streams(self, hidden: PrefixSuffix, layers: tuple[int, ...]) -> dict[int, Tensor]:
        """Of the bare prompts, after each of `layers`."""
        ids, _, below = self.prompts.bare_rows(hidden)

        def climb() -> dict[int, Tensor]:
            return run(
                self.arch, ids, start=self.layer, hidden=below, stop=layers[-1], outputs=layers
            ).outputs

        return self._run(climb)

    def _run(self, climb: Callable[[], Found]) -> Found:
        if not self.again:
            return climb()
        return checkpoint(climb, use_reentrant=False, preserve_rng_state=False)
