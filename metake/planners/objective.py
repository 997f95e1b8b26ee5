"""The losses of a batch as functions of its residuals, with everything constant computed once.

Whatever a target does to the model happens at the last edited layer or below, so the stream after
that layer is the only input of the rest. A residual r enters it as

    h_t + gate_t r

at position t. The open loop writes at the lookup token alone (gate 1 there, 0 elsewhere), so what
stands before it never changes and is read from attention's memory. The structural proxy (7) writes
through the channel, gate_t = q . k_t, at every token, which is the virtual weight W + r q^T without
ever forming it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from metake.models.architecture import Architecture
from metake.models.kv_cache import KVCache
from metake.models.precompute import key_values_above, stream_after
from metake.models.prefix_batch import PrefixBatch, PrefixSuffix
from metake.models.tokens import chunks, pad
from metake.models.trace import run, upcast
from metake.planners.chunk import Chunk, Kind, Rows
from metake.processes import all_reduce_sum, rank_and_size
from metake.prompts import Batch

Gate = Literal["token", "channel"]


@dataclass(frozen=True)
class Losses:
    """Per request: `nll`, mean over answer tokens and contexts (11); `kl`, mean over guards (12).

    `cost` is what the update costs in the geometry, weighted (X14); None if it has no price.
    """

    nll: Tensor
    kl: Tensor
    cost: Tensor | None = None


class Objective:
    """Losses of `batch` for residuals at layer `top`, open loop, through the proxy, or executed.

    What is constant is computed when it is first asked for, with the model as it is then.

    Args:
        first, top: first and last edited layer.
        channel: Q at `top`, `d_k x n`; needed for the proxy.
        joint: every row feels every request's residual, not only its owner's (X8).
        max_tokens: padded tokens per pass; by default what suits the device.
    """

    def __init__(
        self,
        arch: Architecture,
        batch: Batch,
        first: int,
        top: int,
        *,
        channel: Tensor | None = None,
        joint: bool = True,
        max_tokens: int | None = None,
    ) -> None:
        self.arch, self.first, self.top = arch, first, top
        self.channel, self.joint = channel, joint
        self.max_tokens = max_tokens or arch.pass_tokens
        self.size = len(batch.requests)
        self.templates = batch.templates
        self.guards = [sum(guard.owner == i for guard in batch.kl_prompts) for i in range(self.size)]
        self._prefix_lengths = dict(enumerate(batch.prefix_lengths))
        self._kinds = [
            Kind(row, i // self.templates, guard=False, marked=True, template=i % self.templates)
            for i, row in enumerate(batch.edits)
        ]
        self._kinds += [Kind(g.row, g.owner, guard=True, marked=g.has_residual) for g in batch.kl_prompts]
        rank, world = rank_and_size()  # every process its own requests
        self._kinds = [kind for kind in self._kinds if kind.owner % world == rank]

    @cached_property
    def _lookups(self) -> list[Chunk]:
        """For residuals at the lookup token: rows from there on, the rest in attention's memory."""
        begins = [kind.row.lookup if self._resume else 0 for kind in self._kinds]
        return [
            self._from_lookup([self._kinds[i] for i in group], [begins[i] for i in group])
            for group in self._groups(begins)
        ]

    @cached_property
    def _wholes(self) -> list[Chunk]:
        """For changes at every token: whole rows, of which those of a template have their context in common."""
        begins = self._contexts(self._kinds) if self.joint else [0] * len(self._kinds)
        return [
            self._whole([self._kinds[i] for i in group], [begins[i] for i in group])
            for group in self._groups(begins)
        ]

    def _contexts(self, kinds: list[Kind]) -> list[int]:
        """How many tokens each row has in common with all others of its template."""
        return [self._prefix_lengths.get(kind.template, 0) if self._resume else 0 for kind in kinds]

    @cached_property
    def _resume(self) -> bool:
        return self.arch.can_resume(max((kind.row.needed for kind in self._kinds), default=0))

    def _groups(self, begins: list[int]) -> Iterator[list[int]]:
        lengths = [kind.row.needed - begin for kind, begin in zip(self._kinds, begins, strict=True)]
        return chunks(lengths, self.max_tokens)

    @torch.no_grad()
    def _from_lookup(self, kinds: list[Kind], begins: list[int]) -> Chunk:
        ids, owners = self._layout(kinds)
        needed = torch.tensor([kind.row.needed for kind in kinds])
        shared = PrefixBatch.of(
            ids, needed.tolist(), self._contexts(kinds), [kind.template for kind in kinds]
        )
        contexts, ahead = shared.prefix_lengths, torch.tensor(begins) - shared.prefix_lengths
        states = shared.prefix_key_values(self.arch)
        stream = stream_after(self.arch, shared, states, self.top, needed - contexts, self.max_tokens)
        alone = list(range(len(kinds)))
        own = PrefixBatch.of(shared.ids.suffix, (needed - contexts).tolist(), ahead.tolist(), alone)
        split = replace(
            own,
            ids=PrefixSuffix(own.ids.suffix),
            prefix_lengths=torch.tensor(begins),
            prefix_rows=own.prefix_rows[:0],
        )
        cache = None
        if any(begins) and self.top + 1 < len(self.arch):  # above the last block nothing remembers
            memory = key_values_above(self.arch, shared, states, self.top, stream, ahead, self.max_tokens)
            there = [torch.arange(int(n.max())) < n[:, None] for n in (contexts, ahead)]
            cache = KVCache(memory, split.prefix_lengths, torch.cat(there, 1))
        above = own.cut(stream).suffix
        gates = torch.zeros(above.shape[:2], device=above.device, dtype=upcast(above).dtype)
        lookups = torch.tensor([kind.row.lookup for kind in kinds]) - split.prefix_lengths
        gates[alone, lookups] = torch.tensor([kind.marked for kind in kinds]).to(gates)
        rows = Rows(split, owners, PrefixSuffix(above), None, PrefixSuffix(gates), cache)
        return Chunk(
            kinds, rows, self._reference(kinds, shared.ids.suffix, stream), self.templates, self.guards
        )

    @torch.no_grad()
    def _whole(self, kinds: list[Kind], begins: list[int]) -> Chunk:
        ids, owners = self._layout(kinds)
        split = PrefixBatch.of(
            ids, [kind.row.needed for kind in kinds], begins, [kind.template for kind in kinds]
        )
        trace = split.run(
            self.arch, keys=(self.top,), inputs=(self.first,), outputs=(self.top,), stop=self.top
        )
        above = trace.outputs[self.top]

        def gate(keys: Tensor) -> Tensor:
            if self.channel is None:
                return torch.empty(*keys.shape[:2], 0, device=above.suffix.device)
            q = self.channel.to(upcast(keys))
            found = upcast(keys) @ q if self.joint else torch.einsum("btk,kb->bt", upcast(keys), q[:, owners])
            return found.to(above.suffix.device)

        rows = Rows(split, owners, above, trace.inputs[self.first], trace.keys[self.top].map(gate))
        return Chunk(
            kinds, rows, self._reference(kinds, split.ids.suffix, above.suffix), self.templates, self.guards
        )

    def _layout(self, kinds: list[Kind]) -> tuple[Tensor, Tensor]:
        """Ids as far as they are needed, and owners."""
        ids = pad([kind.row for kind in kinds])[:, : max(kind.row.needed for kind in kinds)]
        return ids.to(self.arch.device), torch.tensor([kind.owner for kind in kinds])

    def _reference(self, kinds: list[Kind], ids: Tensor, stream: Tensor) -> dict[int, Tensor]:
        """Row -> unedited log-probabilities of the guards, which follow no common beginning."""
        watched = [i for i, kind in enumerate(kinds) if kind.guard]
        if not watched:
            return {}
        lookups = torch.tensor([kinds[i].row.lookup for i in watched])
        width = int(lookups.max()) + 1
        logits = run(
            self.arch,
            ids[watched, :width],
            start=self.top + 1,
            hidden=stream[watched, :width],
            positions=(torch.arange(len(watched)), lookups),
        ).logits
        return dict(zip(watched, upcast(logits).log_softmax(-1), strict=True))

    def losses(
        self,
        residuals: Tensor,
        gate: Gate,
        active: Tensor,
        *,
        kl_weight: float = 0.0,
        initial_first: bool = False,
        backward: bool = False,
    ) -> Losses:
        """Losses with `residuals` (`n x d_v`) written virtually at `top`.

        Args:
            active: `n` flags; rows of other requests are left out (their losses are 0).
            initial_first: KL(unedited || edited) as in (12), instead of MEMIT's
                KL(edited || unedited).
            backward: add the gradient of `sum(nll + kl_weight kl)` to `residuals.grad`.
        """
        if gate == "channel" and self.channel is None:
            raise ValueError("the proxy needs a channel")

        def logits(rows: Rows, places: tuple[Tensor, Tensor]) -> Tensor:
            hidden = rows.shifted(residuals)
            if rows.cache is not None:
                return run(
                    self.arch,
                    rows.tokens.ids.suffix,
                    start=self.top + 1,
                    hidden=hidden.suffix,
                    positions=places,
                    cache=rows.cache,
                ).logits
            return rows.tokens.run(self.arch, start=self.top + 1, hidden=hidden, positions=places).logits

        parts = self._lookups if gate == "token" else self._wholes
        return self._sum(parts, logits, active, kl_weight, initial_first, (residuals,) if backward else ())

    def executed(
        self,
        factors: Mapping[int, tuple[Tensor, Tensor]],
        active: Tensor | None = None,
        *,
        kl_weight: float = 0.0,
        initial_first: bool = False,
        backward: bool = False,
    ) -> Losses:
        """Losses with the updates of a whole solve (layer -> (left, right)), as the user gets them.

        Args:
            active, kl_weight, initial_first: as in `losses`.
            backward: add the gradient of `sum(nll + kl_weight kl)` to the factors' `grad`.
        """

        def logits(rows: Rows, places: tuple[Tensor, Tensor]) -> Tensor:
            return rows.tokens.run(
                self.arch, start=self.first, hidden=rows.below, edits=factors, positions=places
            ).logits

        everyone = torch.ones(self.size, dtype=torch.bool)
        active = everyone if active is None else active
        leaves = (
            [leaf for pair in factors.values() for leaf in pair if leaf.requires_grad] if backward else []
        )
        return self._sum(self._wholes, logits, active, kl_weight, initial_first, leaves)

    def _sum(
        self,
        parts: Iterable[Chunk],
        logits_of: Callable[[Rows, tuple[Tensor, Tensor]], Tensor],
        active: Tensor,
        kl_weight: float,
        initial_first: bool,
        leaves: Sequence[Tensor],
    ) -> Losses:
        """Losses of all requests, and gradients added to `leaves`, over all processes."""
        sums: list[Tensor] = []  # kept where they are until the end: a step waits for its device once
        before = [leaf.grad for leaf in leaves]
        for leaf in leaves:
            leaf.grad = torch.zeros_like(leaf)
        with torch.set_grad_enabled(bool(leaves)):  # a look keeps no activations
            for chunk in parts:
                found = chunk.take(active.cpu())
                if found is None:
                    continue
                rows, watch = found
                logits = logits_of(rows, watch.places)
                watch = watch.like(logits)
                chunk.watch = watch
                part_nll, part_kl = watch.losses(logits, self.size, initial_first)
                if leaves:
                    (part_nll + kl_weight * part_kl).sum().backward()
                sums.append(torch.stack([part_nll, part_kl]).detach())
        for leaf, earlier in zip(leaves, before, strict=True):
            assert leaf.grad is not None
            gradient = all_reduce_sum(leaf.grad)
            leaf.grad = gradient if earlier is None else earlier + gradient
        nll, kl = all_reduce_sum(torch.stack(sums).sum(0).cpu() if sums else torch.zeros(2, self.size))
        return Losses(nll, kl)
