"""Losses of a batch as functions of its residuals; everything constant is computed once.

A target changes only the last edited layer and those below, so the stream after
that layer is the only input of the rest. A residual r enters it as

    h_t + gate_t r

at position t. The open loop writes at the lookup token alone (gate 1 there, 0 elsewhere), so what
stands before it never changes and is read from the KV cache. The structural proxy (7) writes
through the channel, gate_t = q . k_t, at every token, which is the virtual weight W + r q^T without
ever forming it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from metake.models.editable import EditableModel
from metake.models.kv_cache import KVCache
from metake.models.precompute import key_values_above, stream_after
from metake.models.prefix_batch import PrefixBatch, PrefixSuffix
from metake.models.tokens import length_buckets, pad
from metake.models.trace import run, upcast
from metake.planners.gates import channel_gates, token_gates, with_earlier
from metake.planners.micro_batch import MicroBatch
from metake.processes import all_reduce_sum, rank_and_size
from metake.prompts import Batch, RowSpec

Gate = Literal["token", "channel"]
Transport = Callable[[MicroBatch, Tensor], Tensor]


@dataclass(frozen=True)
class Losses:
    """Losses of each window of each request, shape `n` each.

    Attributes:
        nll: mean NLL over the window's answer tokens and contexts (11).
        kl: mean KL divergence over KL prompts (12).
        cost: weighted cost of the update in the geometry (X14); None if it has no weight.
        end: loss of what follows the answers (`EndLoss`); None if it is not scored.
    """

    nll: Tensor
    kl: Tensor
    cost: Tensor | None = None
    end: Tensor | None = None


class Objective:
    """Losses of a batch for residuals at layer `top`: open loop, through the proxy, or after the solve.

    What is constant is computed when it is first needed, with the model as it is then. The KL prompts of a request
    count for its first window, the end of its answer for the last.

    Args:
        model: the model.
        batch: token rows of the requests.
        first: first edited layer.
        top: last edited layer.
        channel: Q at `top`, `d_k x n`; needed for the proxy.
        joint: whether every row receives every request's residual, not only its owner's (X8).
        max_tokens: padded tokens per pass; by default what suits the device.
        ends: tokens that end an answer; none if the end is not scored.
        windows: indices within each request of the windows whose losses at their lookup tokens are needed, for residuals of
            the first of them; all windows by default. What stands before that window is then constant.
        earlier: `n x d_v`, residuals that earlier windows have; none by default.
        from_lookup: whether post-edit losses, too, run from the lookup token on; the open loop then shares what is constant
            in them.
    """

    def __init__(
        self,
        model: EditableModel,
        batch: Batch,
        first: int,
        top: int,
        *,
        channel: Tensor | None = None,
        joint: bool = True,
        max_tokens: int | None = None,
        ends: Sequence[int] = (),
        windows: range | None = None,
        earlier: Tensor | None = None,
        from_lookup: bool = False,
    ) -> None:
        self.model, self.first, self.top = model, first, top
        self.channel, self.joint = channel, joint
        self.max_tokens = max_tokens or model.pass_tokens
        self.ends = torch.tensor(ends) if ends else None
        self.size = batch.size
        self.weights: Tensor | None = None
        self.transport: Transport | None = None
        self.templates = batch.templates
        self.kl_counts = [sum(spec.owner == i for spec in batch.kl_prompts) for i in range(self.size)]
        self._prefix_lengths = batch.prefix_lengths
        self._earlier = earlier
        self._from_first = from_lookup and first > 0
        rank, world = rank_and_size()  # every process its own requests
        self._specs = [
            replace(spec, scores_end=bool(ends) and spec.template is not None)
            for spec in batch.specs
            if spec.owner % world == rank
        ]
        if windows is not None:
            parts = [spec.of_windows(windows) for spec in self._specs]
            self._specs = [part for part in parts if part is not None]

    def weighted(self, weights: Tensor) -> Objective:
        """Same objective with another NLL of each window: a weighted sum of the NLL of all windows of its request.

        Args:
            weights: `n x n`; 0 between windows of two requests.

        Returns:
            A copy that shares what was already computed of the model.
        """
        other = copy.copy(self)
        other.weights = weights
        return other

    def transported(self, transport: Transport) -> Objective:
        """Same objective of residuals at another place than the stream after `top`.

        Args:
            transport: rows and the residuals -> shift of the stream at each row's lookup token, `rows x d_v`, differentiable.

        Returns:
            A copy that shares what was already computed of the model.
        """
        other = copy.copy(self)
        other.transport = transport
        return other

    @cached_property
    def _lookup_batches(self) -> list[MicroBatch]:
        """Micro-batches of residuals at the lookup token: rows from there on; earlier tokens are in the KV cache."""
        if self._from_first:
            return [self._above_edits(batch) for batch in self._edited_batches]
        return self._resumed(self.top)

    @cached_property
    def _edited_batches(self) -> list[MicroBatch]:
        """The same for updates of all layers; the stream begins before the first edited block."""
        return self._resumed(self.first - 1)

    @torch.no_grad()
    def _above_edits(self, batch: MicroBatch) -> MicroBatch:
        """Micro-batch with the stream after the last edited block, from one with that before the first."""
        trace = run(
            self.model,
            batch.tokens.ids.suffix,
            start=self.first,
            hidden=batch.above.suffix,
            outputs=(self.top,),
            stop=self.top,
            cache=batch.cache,
        )
        return replace(batch, above=PrefixSuffix(trace.outputs[self.top]))

    def _resumed(self, block: int) -> list[MicroBatch]:
        """Micro-batches of rows from the lookup token on, with the stream after a block."""
        begins = [spec.row.lookup if self._resume else 0 for spec in self._specs]
        return [
            self._from_lookup([self._specs[i] for i in group], [begins[i] for i in group], block)
            for group in self._groups(begins)
        ]

    @cached_property
    def _whole_batches(self) -> list[MicroBatch]:
        """Micro-batches of changes at every token: whole rows; those of a template share their context."""
        begins = self._shared_lengths(self._specs) if self.joint else [0] * len(self._specs)
        return [
            self._whole([self._specs[i] for i in group], [begins[i] for i in group])
            for group in self._groups(begins)
        ]

    def _shared_lengths(self, specs: list[RowSpec]) -> list[int]:
        """Number of tokens that each row has in common with all others of its template."""
        return [
            self._prefix_lengths[spec.template] if self._resume and spec.template is not None else 0
            for spec in specs
        ]

    @cached_property
    def _resume(self) -> bool:
        return self.model.can_resume(max((spec.needed for spec in self._specs), default=0))

    def _groups(self, begins: list[int]) -> Iterator[list[int]]:
        lengths = [spec.needed - begin for spec, begin in zip(self._specs, begins, strict=True)]
        return length_buckets(lengths, self.max_tokens)

    @torch.no_grad()
    def _from_lookup(self, specs: list[RowSpec], begins: list[int], block: int) -> MicroBatch:
        needed = torch.tensor([spec.needed for spec in specs])
        shared = self._prefix_batch(specs, self._shared_lengths(specs))
        contexts, ahead = shared.prefix_lengths, torch.tensor(begins) - shared.prefix_lengths
        states = shared.prefix_key_values(self.model)
        stream = stream_after(self.model, shared, states, block, needed - contexts, self.max_tokens)
        if self._earlier is not None:
            stream = with_earlier(stream, specs, contexts, self._earlier)
        alone = list(range(len(specs)))
        suffixes = PrefixBatch.of(shared.ids.suffix, (needed - contexts).tolist(), ahead.tolist(), alone)
        split = replace(
            suffixes,
            ids=PrefixSuffix(suffixes.ids.suffix),
            prefix_lengths=torch.tensor(begins),
            prefix_rows=suffixes.prefix_rows[:0],
        )
        cache = None
        if any(begins) and block + 1 < len(self.model):  # no attention above the last block
            key_values = key_values_above(self.model, shared, states, block, stream, ahead, self.max_tokens)
            attention_masks = [torch.arange(int(n.max())) < n[:, None] for n in (contexts, ahead)]
            cache = KVCache(key_values, split.prefix_lengths, torch.cat(attention_masks, 1))
        above = suffixes.cut(stream).suffix
        gates = token_gates(specs, begins, above, self.size)
        reference = self._reference(specs, shared.ids.suffix, stream, block)
        return MicroBatch(
            specs,
            split,
            PrefixSuffix(above),
            None,
            PrefixSuffix(gates),
            reference,
            self.templates,
            self.kl_counts,
            cache,
            self.ends,
        )

    @torch.no_grad()
    def _whole(self, specs: list[RowSpec], begins: list[int]) -> MicroBatch:
        split = self._prefix_batch(specs, begins)
        trace = split.run(
            self.model, keys=(self.top,), inputs=(self.first,), outputs=(self.top,), stop=self.top
        )
        above = trace.outputs[self.top]

        def gate(keys: Tensor) -> Tensor:
            if self.channel is None:
                return torch.empty(*keys.shape[:2], 0, device=above.suffix.device)
            found = channel_gates(upcast(keys), self.channel, specs, self.joint)
            return found.to(above.suffix.device)

        reference = self._reference(specs, split.ids.suffix, above.suffix, self.top)
        gates = trace.keys[self.top].map(gate)
        below = trace.inputs[self.first]
        return MicroBatch(
            specs, split, above, below, gates, reference, self.templates, self.kl_counts, ends=self.ends
        )

    def _prefix_batch(self, specs: list[RowSpec], prefix_lengths: list[int]) -> PrefixBatch:
        """Rows as far as they are needed; those of a template share a prefix."""
        needed = [spec.needed for spec in specs]
        ids = pad([spec.row for spec in specs])[:, : max(needed)].to(self.model.device)
        templates = [-1 if spec.template is None else spec.template for spec in specs]
        return PrefixBatch.of(ids, needed, prefix_lengths, templates)

    def _reference(self, specs: list[RowSpec], ids: Tensor, stream: Tensor, block: int) -> Sequence[Tensor]:
        """Unedited log-probabilities at the lookup tokens of the KL prompts, which have no shared prefix."""
        watched = [i for i, spec in enumerate(specs) if spec.template is None]
        if not watched:
            return []
        lookups = torch.tensor([specs[i].row.lookup for i in watched])
        width = int(lookups.max()) + 1
        logits = run(
            self.model,
            ids[watched, :width],
            start=block + 1,
            hidden=stream[watched, :width],
            positions=(torch.arange(len(watched)), lookups),
        ).logits
        return list(upcast(logits).log_softmax(-1))

    def losses(
        self,
        residuals: Tensor,
        gate: Gate,
        active: Tensor,
        *,
        kl_weight: float = 0.0,
        kl_from_unedited: bool = False,
        end_weight: float = 0.0,
        backward: bool = False,
    ) -> Losses:
        """Losses with residuals written virtually at `top`.

        Args:
            residuals: `n x d_v`.
            gate: `token` writes at the lookup token (open loop), `channel` at every token (proxy).
            active: `n` flags; rows without an active window are left out (their losses are 0).
            kl_weight: weight of `kl` in the gradient.
            kl_from_unedited: KL(unedited || edited) as in (12), instead of MEMIT's KL(edited || unedited).
            end_weight: weight of `end` in the gradient.
            backward: whether to add the gradient of `sum(nll + kl_weight kl + end_weight end)` to `residuals.grad`.

        Returns:
            Losses per request, without `cost`.

        Raises:
            ValueError: `gate` is `channel` and the objective has none.
        """
        if gate == "channel" and self.channel is None:
            raise ValueError("the proxy needs a channel")

        def logits(rows: MicroBatch) -> Tensor:
            return self._shifted_logits(rows, residuals)

        batches = self._lookup_batches if gate == "token" else self._whole_batches
        return self._sum(
            batches, logits, active, kl_weight, kl_from_unedited, end_weight, (residuals,) if backward else ()
        )

    def _shifted_logits(self, rows: MicroBatch, residuals: Tensor) -> Tensor:
        """Logits at the scored positions, with residuals written virtually at `top`."""
        moved = residuals if self.transport is None else self.transport(rows, residuals)
        positions, hidden = rows.scored.positions, rows.shifted(moved, self.transport is not None)
        if rows.cache is not None:
            return run(
                self.model,
                rows.tokens.ids.suffix,
                start=self.top + 1,
                hidden=hidden.suffix,
                positions=positions,
                cache=rows.cache,
            ).logits
        return rows.tokens.run(self.model, start=self.top + 1, hidden=hidden, positions=positions).logits

    def gradients(self, residuals: Tensor, weights: Sequence[Tensor], active: Tensor) -> list[Tensor]:
        """Gradients of several weighted sums of the NLL with residuals at their lookup tokens, from one forward pass.

        Args:
            residuals: `n x d_v`.
            weights: of each sum, `n x n` as of `weighted`.
            active: `n` flags of the windows whose sums are added.

        Returns:
            Per sum, `n x d_v`.
        """
        leaf = residuals.detach().requires_grad_(True)
        found = [torch.zeros_like(residuals) for _ in weights]
        with torch.enable_grad():
            for batch in self._lookup_batches:
                rows = batch.select(active.cpu())
                if rows is None:
                    continue
                nll = rows.losses(self._shifted_logits(rows, leaf), self.size, False)[0]
                for gradient, weight in zip(found, weights, strict=True):
                    total = (weight.to(nll) @ nll)[active.to(nll.device)].sum()
                    gradient += torch.autograd.grad(total, leaf, retain_graph=True)[0]
        return [all_reduce_sum(gradient) for gradient in found]

    def post_edit_losses(
        self,
        factors: Mapping[int, tuple[Tensor, Tensor]],
        active: Tensor | None = None,
        *,
        from_lookup: bool = False,
        kl_weight: float = 0.0,
        kl_from_unedited: bool = False,
        end_weight: float = 0.0,
        backward: bool = False,
    ) -> Losses:
        """Losses with the updates of a whole solve.

        Args:
            factors: layer -> (left, right) of its update.
            active: `n` flags as in `losses`; all requests if None.
            from_lookup: whether the updates act from the lookup token on only, and earlier tokens are constant; this is
                approximate. Without effect if the first block is edited.
            kl_weight: weight of `kl` in the gradient.
            kl_from_unedited: direction of KL as in `losses`.
            end_weight: weight of `end` in the gradient.
            backward: whether to add the gradient of `sum(nll + kl_weight kl + end_weight end)` to the factors' `grad`.

        Returns:
            Losses per request, without `cost`.
        """

        def resumed(rows: MicroBatch) -> Tensor:
            return run(
                self.model,
                rows.tokens.ids.suffix,
                start=self.first,
                hidden=rows.above.suffix,
                edits=factors,
                positions=rows.scored.positions,
                cache=rows.cache,
            ).logits

        def logits(rows: MicroBatch) -> Tensor:
            positions = rows.scored.positions
            return rows.tokens.run(
                self.model, start=self.first, hidden=rows.below, edits=factors, positions=positions
            ).logits

        everyone = torch.ones(self.size, dtype=torch.bool)
        active = everyone if active is None else active
        leaves = (
            [leaf for pair in factors.values() for leaf in pair if leaf.requires_grad] if backward else []
        )
        if from_lookup and self.first > 0:
            return self._sum(
                self._edited_batches, resumed, active, kl_weight, kl_from_unedited, end_weight, leaves
            )
        return self._sum(self._whole_batches, logits, active, kl_weight, kl_from_unedited, end_weight, leaves)

    def _sum(
        self,
        batches: Iterable[MicroBatch],
        logits_of: Callable[[MicroBatch], Tensor],
        active: Tensor,
        kl_weight: float,
        kl_from_unedited: bool,
        end_weight: float,
        leaves: Sequence[Tensor],
    ) -> Losses:
        """Losses of all requests, and gradients added to `leaves`, over all processes."""
        sums: list[Tensor] = []  # on the device until the end: one synchronization per step
        before = [leaf.grad for leaf in leaves]
        for leaf in leaves:
            leaf.grad = torch.zeros_like(leaf)
        with torch.set_grad_enabled(bool(leaves)):  # an evaluation stores no activations
            for batch in batches:
                rows = batch.select(active.cpu())
                if rows is None:
                    continue
                nll, kl, end = rows.losses(logits_of(rows), self.size, kl_from_unedited)
                if self.weights is not None:
                    nll = self.weights.to(nll) @ nll
                if leaves:
                    each = nll + kl_weight * kl + end_weight * end
                    torch.autograd.backward((each * active.to(each)).sum())
                sums.append(torch.stack([nll, kl, end]).detach())
        for leaf, earlier in zip(leaves, before, strict=True):
            assert leaf.grad is not None
            gradient = all_reduce_sum(leaf.grad)
            leaf.grad = gradient if earlier is None else earlier + gradient
        nll, kl, end = all_reduce_sum(torch.stack(sums).sum(0).cpu() if sums else torch.zeros(3, self.size))
        return Losses(nll, kl, end=None if self.ends is None else end)
